import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.node.NodeBuilder;

/** Runs one Elasticsearch 2 node until its standard input ends; each argument is a setting, key=value. */
public class Launch {
    public static void main(String[] arguments) throws Exception {
        var settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        var node = NodeBuilder.nodeBuilder().settings(settings).node();
        Runtime.getRuntime().addShutdownHook(new Thread(node::close));
        // The input ends with the process that started this one, also when that is killed: no node is left behind.
        while (System.in.read() >= 0) {
        }
        System.exit(0);
    }
}

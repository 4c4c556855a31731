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
        // It has started already.
        Lifetime.run(node, () -> {});
    }
}

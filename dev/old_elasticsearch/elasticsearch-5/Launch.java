import java.util.List;

import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;
import org.elasticsearch.transport.Netty4Plugin;

/** Runs one Elasticsearch 5 node until its standard input ends; each argument is a setting, key=value. */
public class Launch {
    /** A node whose plugin is on the class path: the public constructor loads plugins from folders only. */
    private static final class Bare extends Node {
        Bare(Environment environment) {
            super(environment, List.of(Netty4Plugin.class));
        }
    }

    public static void main(String[] arguments) throws Exception {
        var settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        var node = new Bare(new Environment(settings.build()));
        Lifetime.run(node, node::start);
    }
}

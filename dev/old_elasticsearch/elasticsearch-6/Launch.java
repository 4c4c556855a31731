import java.nio.file.Path;
import java.util.List;

import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;
import org.elasticsearch.transport.Netty4Plugin;

/** Runs one Elasticsearch 6 or 7 node until its standard input ends; each argument is a setting, key=value. */
public class Launch {
    /** A node whose plugin is on the class path: the public constructor loads plugins from folders only. */
    private static final class Bare extends Node {
        Bare(Environment environment) {
            super(environment, List.of(Netty4Plugin.class), true);
        }

        // Abstract in 6, absent in 7.
        protected void registerDerivedNodeNameWithLogger(String name) {
        }
    }

    public static void main(String[] arguments) throws Exception {
        var settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Path home = Path.of(settings.get("path.home"));
        var node = new Bare(new Environment(settings.build(), home.resolve("config")));
        Lifetime.run(node, node::start);
    }
}

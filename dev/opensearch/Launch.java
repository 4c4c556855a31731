import java.nio.file.Path;
import java.util.List;

import org.opensearch.Version;
import org.opensearch.common.logging.LogConfigurator;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.Node;
import org.opensearch.plugins.PluginInfo;

/** Runs one OpenSearch node until its standard input ends; each argument is a setting, key=value. */
public class Launch {
    /** A node whose plugins are on the class path: the public constructor loads them from folders only. */
    private static final class Bare extends Node {
        Bare(Environment environment) {
            super(
                    environment,
                    List.of(
                            plugin("transport-netty4", "org.opensearch.transport.Netty4ModulePlugin"),
                            plugin("opensearch-knn", "org.opensearch.knn.plugin.KNNPlugin")),
                    true);
        }

        private static PluginInfo plugin(String name, String mainClass) {
            // A plugin's version has a fourth number.
            String version = Version.CURRENT + ".0";
            return new PluginInfo(name, "", version, Version.CURRENT, "21", mainClass, null, List.of(), false);
        }
    }

    public static void main(String[] arguments) throws Exception {
        var settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Settings built = settings.build();
        LogConfigurator.setNodeName(built.get("node.name", "node"));
        LogConfigurator.configureWithoutConfig(built);
        Path home = Path.of(built.get("path.home"));
        var node = new Bare(new Environment(built, home.resolve("config")));
        Lifetime.run(node, node::start);
    }
}

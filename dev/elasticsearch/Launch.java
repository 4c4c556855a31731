import java.nio.file.Path;
import java.util.Map;

import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/** Runs one Elasticsearch node until its standard input ends; each argument is a setting, key=value. */
public class Launch {
    public static void main(String[] arguments) throws Exception {
        LogConfigurator.configureESLogging();
        var settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Path home = Path.of(settings.get("path.home"));
        var plugins = PluginsLoader.createPluginsLoader(
                PluginsLoader.loadModulesBundles(home.resolve("modules")),
                PluginsLoader.loadPluginsBundles(home.resolve("plugins")),
                Map.of(),
                false);
        var node = new Node(new Environment(settings.build(), home.resolve("config")), plugins);
        Lifetime.run(node, node::start);
    }
}

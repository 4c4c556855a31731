/** The time for which a node runs in this process. */
class Lifetime {
    /** Starts a node; its type differs between products and versions. */
    interface Start {
        void run() throws Exception;
    }

    /** Starts a node, and runs it until the standard input ends or a signal arrives; then closes it. */
    static void run(AutoCloseable node, Start start) throws Exception {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
        start.run();
        // The input ends with the process that started this one, also when that is killed: no node is left behind.
        while (System.in.read() >= 0) {
        }
        System.exit(0);
    }
}

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.lucene.codecs.KnnVectorsFormat;
import org.apache.lucene.codecs.lucene103.Lucene103Codec;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.FieldType;
import org.apache.lucene.document.KnnByteVectorField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.FilterMergePolicy;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.MergePolicy;
import org.apache.lucene.index.NoMergePolicy;
import org.apache.lucene.index.SegmentCommitInfo;
import org.apache.lucene.index.SegmentInfos;
import org.apache.lucene.index.SerialMergeScheduler;
import org.apache.lucene.index.VectorSimilarityFunction;
import org.apache.lucene.search.AcceptDocs;
import org.apache.lucene.search.HnswQueueSaturationCollector;
import org.apache.lucene.search.KnnCollector;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.search.TopKnnCollector;
import org.apache.lucene.search.knn.KnnSearchStrategy;
import org.apache.lucene.store.Directory;
import org.apache.lucene.store.MMapDirectory;
import org.apache.lucene.util.VectorUtil;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.index.codec.vectors.ES815HnswBitVectorsFormat;

/**
 * Graphs of bit vectors in segments, written and merged by Lucene as in the server, and searched segment by segment.
 *
 * <p>Arguments: folder, images in a flush, m, ef_construction, numbers of segments, numbers of candidates. The folder
 * has `vectors`, `queries` and `originals` (the row of each query's original, four bytes each). Each line of the output
 * is one row of the table. With the folder alone, a line is the number of vectors nearer than a query's original.
 */
class Graphs {
    static final int BYTES = 68;
    static final String FIELD = "bits";
    static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();

    public static void main(String[] arguments) throws Exception {
        LogConfigurator.configureESLogging();
        Path folder = Path.of(arguments[0]);
        byte[][] vectors = rows(folder.resolve("vectors"));
        byte[][] queries = rows(folder.resolve("queries"));
        int[] originals = numbers(folder.resolve("originals"));
        if (arguments.length == 1) {
            nearer(vectors, queries, originals);
            return;
        }
        int[] segments = split(arguments[4]);
        int[] candidates = split(arguments[5]);
        Path index = Files.createTempDirectory(folder, "index");
        try (Directory directory = new MMapDirectory(index);
                IndexWriter writer = new IndexWriter(directory, configuration(arguments))) {
            double start = cpu();
            FieldType type = KnnByteVectorField.createFieldType(BYTES, VectorSimilarityFunction.EUCLIDEAN);
            for (byte[] vector : vectors) {
                Document document = new Document();
                document.add(new KnnByteVectorField(FIELD, vector, type));
                writer.addDocument(document);
            }
            writer.commit();
            for (int number : segments) {
                writer.getConfig().setMergePolicy(new Neighbours(number));
                writer.forceMerge(number);
                writer.commit();
                double built = cpu() - start;
                try (DirectoryReader reader = DirectoryReader.open(directory)) {
                    for (int one : candidates) {
                        search(reader, queries, originals, one, false, built);
                    }
                    // The index setting `index.dense_vector.hnsw_enable_early_termination` of Elasticsearch.
                    search(reader, queries, originals, candidates[candidates.length - 1], true, built);
                }
            }
        }
    }

    static IndexWriterConfig configuration(String[] arguments) {
        KnnVectorsFormat format =
                new ES815HnswBitVectorsFormat(Integer.parseInt(arguments[2]), Integer.parseInt(arguments[3]));
        return new IndexWriterConfig()
                .setCodec(new Lucene103Codec() {
                    @Override
                    public KnnVectorsFormat getKnnVectorsFormatForField(String field) {
                        return format;
                    }
                })
                .setMaxBufferedDocs(Integer.parseInt(arguments[1]))
                .setRAMBufferSizeMB(IndexWriterConfig.DISABLE_AUTO_FLUSH)
                .setMergePolicy(NoMergePolicy.INSTANCE)
                // Its thread is this one, whose CPU is measured.
                .setMergeScheduler(new SerialMergeScheduler());
    }

    /** Searches every segment with so many candidates, and prints what was found and what it cost. */
    static void search(
            DirectoryReader reader, byte[][] queries, int[] originals, int candidates, boolean endsEarly, double built)
            throws IOException {
        int missed = 0;
        long compared = 0;
        double start = cpu();
        for (int query = 0; query < queries.length; query++) {
            boolean isFound = false;
            for (var leaf : reader.leaves()) {
                KnnCollector collector =
                        new TopKnnCollector(candidates, Integer.MAX_VALUE, KnnSearchStrategy.Hnsw.DEFAULT);
                if (endsEarly) {
                    // As in Elasticsearch 9.2.
                    int patience = Math.max(7, (int) (candidates * 0.3));
                    collector = new HnswQueueSaturationCollector(collector, 0.995, patience);
                }
                var all = AcceptDocs.fromLiveDocs(null, leaf.reader().maxDoc());
                leaf.reader().searchNearestVectors(FIELD, queries[query], collector, all);
                compared += collector.visitedCount();
                for (ScoreDoc hit : collector.topDocs().scoreDocs) {
                    isFound |= hit.doc + leaf.docBase == originals[query];
                }
            }
            missed += isFound ? 0 : 1;
        }
        System.out.printf(
                "%d %d %d %d %d %.4f %.1f%n",
                reader.leaves().size(), candidates, endsEarly ? 1 : 0, missed, compared / queries.length,
                (cpu() - start) * 1000 / queries.length, built);
        System.out.flush();
    }

    /** Prints for each query how many vectors are nearer than its original, by comparing all. */
    static void nearer(byte[][] vectors, byte[][] queries, int[] originals) {
        for (int query = 0; query < queries.length; query++) {
            int distance = VectorUtil.xorBitCount(queries[query], vectors[originals[query]]);
            int nearer = 0;
            for (byte[] vector : vectors) {
                nearer += VectorUtil.xorBitCount(queries[query], vector) < distance ? 1 : 0;
            }
            System.out.println(nearer);
        }
    }

    static double cpu() {
        return THREADS.getCurrentThreadCpuTime() / 1e9;
    }

    static byte[][] rows(Path file) throws IOException {
        byte[][] rows = new byte[Math.toIntExact(Files.size(file) / BYTES)][BYTES];
        try (var input = new DataInputStream(new BufferedInputStream(Files.newInputStream(file)))) {
            for (byte[] row : rows) {
                input.readFully(row);
            }
        }
        return rows;
    }

    static int[] numbers(Path file) throws IOException {
        int[] numbers = new int[Math.toIntExact(Files.size(file) / Integer.BYTES)];
        try (var input = new DataInputStream(new BufferedInputStream(Files.newInputStream(file)))) {
            for (int index = 0; index < numbers.length; index++) {
                numbers[index] = input.readInt();
            }
        }
        return numbers;
    }

    static int[] split(String numbers) {
        return Arrays.stream(numbers.split(",")).mapToInt(Integer::parseInt).toArray();
    }

    /** Merges segments beside each other, so that so many of about the same size remain. */
    static class Neighbours extends FilterMergePolicy {
        final int number;
        boolean isChosen;

        Neighbours(int number) {
            super(NoMergePolicy.INSTANCE);
            this.number = number;
        }

        @Override
        public MergeSpecification findForcedMerges(
                SegmentInfos infos,
                int most,
                Map<SegmentCommitInfo, Boolean> toMerge,
                MergePolicy.MergeContext context) {
            MergeSpecification merges = new MergeSpecification();
            int size = infos.size();
            // The writer asks again after each merge.
            if (isChosen || size <= number) {
                return null;
            }
            isChosen = true;
            for (int group = 0; group < number; group++) {
                List<SegmentCommitInfo> some = new ArrayList<>();
                for (int index = group * size / number; index < (group + 1) * size / number; index++) {
                    some.add(infos.info(index));
                }
                if (some.size() > 1) {
                    merges.add(new OneMerge(some));
                }
            }
            return merges;
        }
    }
}

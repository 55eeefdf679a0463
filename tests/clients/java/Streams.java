import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Counts words with exactly_once_v2, as three processes that the runner starts, kills and starts again.
 *
 * <pre>
 * Streams feed  bootstrap prefix records     writes the words
 * Streams count bootstrap prefix directory   is the application; prints the number of words from time to time
 * Streams check bootstrap prefix records     compares the committed counts
 * </pre>
 */
final class Streams {
    private static final int WORDS = 50;
    private static final int PARTITIONS = 3;

    public static void main(String[] args) throws Exception {
        String bootstrap = args[1];
        String input = args[2] + "words";
        String output = args[2] + "counts";
        switch (args[0]) {
            case "feed" -> feed(bootstrap, input, output, Integer.parseInt(args[3]));
            case "count" -> count(bootstrap, input, output, args[3]);
            default -> check(bootstrap, output, Integer.parseInt(args[3]));
        }
    }

    private static void feed(String bootstrap, String input, String output, int records) throws Exception {
        try (var admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            var topics = List.of(input, output).stream().map(name -> new NewTopic(name, PARTITIONS, (short) 1));
            admin.createTopics(topics.collect(Collectors.toList())).all().get();
        }
        System.out.println("ready");
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "enable.idempotence", "true",
            "delivery.timeout.ms", "300000");
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int index = 0; index < records; index++) {
                producer.send(new ProducerRecord<>(input, "word" + index % WORDS));
                if (index % 100 == 0) {
                    Thread.sleep(100);
                }
            }
        }
    }

    private static void count(String bootstrap, String input, String output, String directory) {
        var counted = new AtomicLong();
        var builder = new StreamsBuilder();
        builder.<String, String>stream(input)
            .peek((key, word) -> {
                if (counted.incrementAndGet() % 500 == 0) {
                    System.out.println("counted " + counted);
                }
            })
            .groupBy((key, word) -> word)
            .count()
            .toStream()
            .to(output, Produced.with(Serdes.String(), Serdes.Long()));
        var config = new Properties();
        config.putAll(Map.of("application.id", input, "bootstrap.servers", bootstrap, "state.dir", directory,
            "processing.guarantee", "exactly_once_v2", "commit.interval.ms", "100", "num.stream.threads", "1",
            "default.key.serde", Serdes.StringSerde.class.getName(),
            "default.value.serde", Serdes.StringSerde.class.getName()));
        // Without a cache every count is written, so that a record that is counted twice is seen.
        config.putAll(Map.of("statestore.cache.max.bytes", "0", "consumer.session.timeout.ms", "6000",
            "consumer.heartbeat.interval.ms", "1000", "replication.factor", "1",
            "consumer.auto.offset.reset", "earliest"));
        var streams = new KafkaStreams(builder.build(), config);
        streams.setUncaughtExceptionHandler(error -> StreamThreadExceptionResponse.REPLACE_THREAD);
        streams.start();
    }

    /** The counts of a word must be 1, 2, 3, ... in this order: each once. */
    private static void check(String bootstrap, String output, int records) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "isolation.level", "read_committed",
            "auto.offset.reset", "earliest");
        var last = new HashMap<String, Long>();
        long total = 0;
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new LongDeserializer())) {
            var all = new ArrayList<TopicPartition>();
            for (int partition = 0; partition < PARTITIONS; partition++) {
                all.add(new TopicPartition(output, partition));
            }
            consumer.assign(all);
            consumer.seekToBeginning(all);
            long deadline = System.currentTimeMillis() + 180_000;
            // After the last one, further polls look for counts that are too many.
            for (int quiet = 0; quiet < 5 && System.currentTimeMillis() < deadline; ) {
                var polled = consumer.poll(Duration.ofMillis(500));
                for (var record : polled) {
                    long expected = last.getOrDefault(record.key(), 0L) + 1;
                    if (record.value() != expected) {
                        fail("expected count " + expected + " of " + record.key() + ", got " + record.value());
                    }
                    last.put(record.key(), record.value());
                    total++;
                }
                quiet = total >= records && polled.isEmpty() ? quiet + 1 : 0;
            }
        }
        if (total != records) {
            fail("counted " + total + " of " + records + " words");
        }
        System.out.println("exact " + total);
    }

    private static void fail(String message) {
        System.out.println("failed " + message);
        System.exit(1);
    }
}

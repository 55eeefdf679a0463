import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Checks the clients of Apache Kafka. */
final class Client {
    private static final Duration POLL = Duration.ofMillis(200);
    private static final long TIMEOUT_SECONDS = 120;

    private final String bootstrap;
    private final String prefix;
    private final Admin admin;

    private Client(String bootstrap, String prefix) {
        this.bootstrap = bootstrap;
        this.prefix = prefix;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    public static void main(String[] args) {
        var client = new Client(args[0], args[1]);
        var features = new LinkedHashMap<String, Callable<Void>>();
        features.put("topics", client::topics);
        features.put("partitions", client::partitions);
        features.put("configs", client::configs);
        features.put("produce", client::produce);
        features.put("group", client::group);
        features.put("transactions", client::transactions);
        features.put("transaction-offsets", client::transactionOffsets);
        features.put("list-transactions", client::listTransactions);
        features.put("delete-groups", client::deleteGroups);
        features.put("delete-offsets", client::deleteOffsets);
        features.put("delete-records", client::deleteRecords);
        features.put("log-dirs", client::logDirs);
        features.put("cluster", client::cluster);
        features.put("offsets", client::offsets);
        var executor = Executors.newCachedThreadPool();
        features.forEach((name, check) -> {
            try {
                executor.submit(check).get(TIMEOUT_SECONDS, TimeUnit.SECONDS);
                System.out.println(name + "\tok\t");
            } catch (Exception error) {
                Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
                System.out.println(name + "\tfailed\t" + cause.toString().replaceAll("\\s+", " "));
            }
        });
        System.exit(0);
    }

    private Void topics() throws Exception {
        String topic = topic("topics", 2);
        expect(2, admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size());
        try {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            throw new AssertionError("the topic was created twice");
        } catch (ExecutionException error) {
            expect(TopicExistsException.class, error.getCause().getClass());
        }
        admin.deleteTopics(List.of(topic)).all().get();
        expect(false, admin.listTopics().names().get().contains(topic));
        return null;
    }

    private Void partitions() throws Exception {
        String topic = topic("partitions", 1);
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
        expect(3, admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size());
        return null;
    }

    private Void configs() throws Exception {
        String topic = topic("configs", 1);
        alter(topic, "retention.ms", "60000");
        alter(topic, "max.message.bytes", "2000");
        expect("60000", config(topic, "retention.ms"));
        expect("2000", config(topic, "max.message.bytes"));
        return null;
    }

    private void alter(String topic, String name, String value) throws Exception {
        var set = new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
    }

    private String config(String topic, String name) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return admin.describeConfigs(List.of(resource)).all().get().get(resource).get(name).value();
    }

    private Void produce() throws Exception {
        String topic = topic("produce", 1);
        var expected = new ArrayList<String>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (var producer = producer(Map.of("enable.idempotence", "true", "compression.type", codec))) {
                for (int index = 0; index < 100; index++) {
                    expected.add(codec + index);
                    producer.send(new ProducerRecord<>(topic, "key", codec + index));
                }
            }
        }
        expect(expected, values(read(topic, "read_uncommitted")));
        return null;
    }

    private Void group() throws Exception {
        String topic = topic("group", 4);
        fill(topic, 4, 25);
        String group = prefix + "group";
        var read = new TreeSet<String>();
        try (var first = consumer(group, "read_uncommitted")) {
            first.subscribe(List.of(topic));
            try (var second = consumer(group, "read_uncommitted")) {
                second.subscribe(List.of(topic));
                until(() -> {
                    for (var consumer : List.of(first, second)) {
                        consumer.poll(POLL).forEach(record -> read.add(record.value()));
                        consumer.commitSync();
                    }
                    return first.assignment().size() == 2 && second.assignment().size() == 2 && read.size() == 100;
                });
            }
            until(() -> {
                first.poll(POLL);
                return first.assignment().size() == 4;
            });
        }
        long committed = committed(group).values().stream().mapToLong(OffsetAndMetadata::offset).sum();
        expect(100L, committed);
        return null;
    }

    private Void transactions() throws Exception {
        String topic = topic("transactions", 1);
        try (var producer = producer(Map.of("transactional.id", prefix + "transactions"))) {
            producer.initTransactions();
            for (String end : List.of("commit", "abort", "commit")) {
                producer.beginTransaction();
                for (int index = 0; index < 50; index++) {
                    producer.send(new ProducerRecord<>(topic, "key", end + index));
                }
                producer.flush();
                if (end.equals("commit")) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
        expect(150, read(topic, "read_uncommitted").size());
        var committed = values(read(topic, "read_committed"));
        expect(100, committed.size());
        expect(true, committed.stream().allMatch(value -> value.startsWith("commit")));
        return null;
    }

    private Void transactionOffsets() throws Exception {
        String topic = topic("transaction-offsets", 1);
        fill(topic, 1, 10);
        String group = prefix + "transaction-offsets";
        try (var consumer = consumer(group, "read_committed");
                var producer = producer(Map.of("transactional.id", group))) {
            consumer.subscribe(List.of(topic));
            until(() -> !consumer.poll(POLL).isEmpty());
            producer.initTransactions();
            var partition = new TopicPartition(topic, 0);
            producer.beginTransaction();
            var offsets = Map.of(partition, new OffsetAndMetadata(7));
            producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
            producer.abortTransaction();
            expect(null, committed(group).get(partition));
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
            producer.commitTransaction();
            until(() -> committed(group).get(partition) != null);
            expect(7L, committed(group).get(partition).offset());
        }
        return null;
    }

    private Void listTransactions() throws Exception {
        String topic = topic("list-transactions", 1);
        String id = prefix + "list-transactions";
        try (var producer = producer(Map.of("transactional.id", id))) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, "key", "value")).get();
            expect(true, admin.listTransactions().all().get().stream().anyMatch(listing ->
                listing.transactionalId().equals(id) && listing.state() == TransactionState.ONGOING));
            var description = admin.describeTransactions(List.of(id)).description(id).get();
            expect(Set.of(new TopicPartition(topic, 0)), description.topicPartitions());
            var partition = new TopicPartition(topic, 0);
            var producers = admin.describeProducers(List.of(partition)).partitionResult(partition).get();
            expect(1, producers.activeProducers().size());
            producer.commitTransaction();
        }
        return null;
    }

    private Void deleteGroups() throws Exception {
        String group = prefix + "delete-groups";
        commit(group, topic("delete-groups", 1));
        admin.deleteConsumerGroups(List.of(group)).all().get();
        expect(true, admin.listConsumerGroups().all().get().stream().noneMatch(found -> found.groupId().equals(group)));
        return null;
    }

    private Void deleteOffsets() throws Exception {
        String group = prefix + "delete-offsets";
        String[] topics = {topic("delete-offsets", 1), topic("keep-offsets", 1)};
        commit(group, topics);
        var partition = new TopicPartition(topics[0], 0);
        admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get();
        expect(Set.of(new TopicPartition(topics[1], 0)), committed(group).keySet());
        return null;
    }

    private Void deleteRecords() throws Exception {
        String topic = topic("delete-records", 1);
        fill(topic, 1, 100);
        var partition = new TopicPartition(topic, 0);
        var deleted = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(60)));
        expect(60L, deleted.lowWatermarks().get(partition).get().lowWatermark());
        expect(60L, offset(partition, OffsetSpec.earliest()));
        expect(40, read(topic, "read_uncommitted").size());
        return null;
    }

    private Void logDirs() throws Exception {
        String topic = topic("log-dirs", 1);
        fill(topic, 1, 10);
        var partition = new TopicPartition(topic, 0);
        int node = admin.describeCluster().nodes().get().iterator().next().id();
        var dirs = admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node);
        expect(true, dirs.values().stream().anyMatch(dir ->
            dir.replicaInfos().containsKey(partition) && dir.replicaInfos().get(partition).size() > 0));
        return null;
    }

    private Void cluster() throws Exception {
        var cluster = admin.describeCluster();
        expect(1, cluster.nodes().get().size());
        expect(true, cluster.controller().get() != null && !cluster.clusterId().get().isEmpty());
        return null;
    }

    private Void offsets() throws Exception {
        String topic = topic("offsets", 1);
        try (var producer = producer(Map.of())) {
            for (long time : List.of(1000L, 5000L, 3000L)) {
                producer.send(new ProducerRecord<>(topic, 0, time, "key", "value")).get();
            }
        }
        var partition = new TopicPartition(topic, 0);
        expect(0L, offset(partition, OffsetSpec.earliest()));
        expect(3L, offset(partition, OffsetSpec.latest()));
        expect(1L, offset(partition, OffsetSpec.forTimestamp(2000)));
        expect(-1L, offset(partition, OffsetSpec.forTimestamp(6000)));
        expect(1L, offset(partition, OffsetSpec.maxTimestamp()));
        return null;
    }

    private String topic(String name, int partitions) throws Exception {
        String topic = prefix + name;
        // The messages of this topic may be old.
        var configs = Map.of("retention.ms", "-1");
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all().get();
        return topic;
    }

    private void fill(String topic, int partitions, int each) {
        try (var producer = producer(Map.of())) {
            for (int index = 0; index < partitions * each; index++) {
                producer.send(new ProducerRecord<>(topic, index % partitions, "key", "value" + index));
            }
        }
    }

    private void commit(String group, String... topics) {
        try (var consumer = consumer(group, "read_uncommitted")) {
            for (String topic : topics) {
                consumer.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(0)));
            }
        }
    }

    private Map<TopicPartition, OffsetAndMetadata> committed(String group) throws Exception {
        var offsets = new HashMap<>(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get());
        offsets.values().removeIf(offset -> offset == null);
        return offsets;
    }

    private long offset(TopicPartition partition, OffsetSpec wanted) throws Exception {
        return admin.listOffsets(Map.of(partition, wanted)).partitionResult(partition).get().offset();
    }

    private List<ConsumerRecord<String, String>> read(String topic, String isolation) throws Exception {
        var read = new ArrayList<ConsumerRecord<String, String>>();
        try (var consumer = consumer(prefix + "reader", isolation)) {
            Collection<TopicPartition> all = consumer.partitionsFor(topic).stream()
                .map(info -> new TopicPartition(topic, info.partition())).collect(Collectors.toList());
            consumer.assign(all);
            consumer.seekToBeginning(all);
            var ends = consumer.endOffsets(all);
            until(() -> {
                consumer.poll(POLL).forEach(read::add);
                return all.stream().allMatch(partition -> consumer.position(partition) >= ends.get(partition));
            });
        }
        return read;
    }

    private static List<String> values(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).collect(Collectors.toList());
    }

    private KafkaProducer<String, String> producer(Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(more);
        config.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(String group, String isolation) {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", group, "isolation.level",
            isolation, "auto.offset.reset", "earliest", "enable.auto.commit", "false", "session.timeout.ms", "6000",
            "heartbeat.interval.ms", "1000");
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    /** Waits until the condition is true; the caller has the deadline. */
    private static void until(Callable<Boolean> condition) throws Exception {
        while (!condition.call()) {
            Thread.sleep(20);
        }
    }

    private static void expect(Object expected, Object actual) {
        if (expected == null ? actual != null : !expected.equals(actual)) {
            throw new AssertionError("expected " + expected + ", got " + actual);
        }
    }
}

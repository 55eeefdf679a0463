"""Checks confluent-kafka, that is librdkafka."""

import sys

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from features import expect, main, until

BOOTSTRAP, PREFIX = sys.argv[1:]
SERVERS = {"bootstrap.servers": BOOTSTRAP}
admin = AdminClient(SERVERS)


def done(futures):
    return {key: future.result(30) for key, future in futures.items()}


def new_topic(name, partitions=1):
    topic = PREFIX + name
    done(admin.create_topics([NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})]))
    return topic


def consumer(group, isolation="read_uncommitted"):
    return Consumer(
        SERVERS
        | {
            "group.id": group,
            "isolation.level": isolation,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1000,
        }
    )


def fill(topic, partitions, each):
    producer = Producer(SERVERS)
    for index in range(partitions * each):
        producer.produce(topic, f"value{index}", partition=index % partitions)
    expect(0, producer.flush(30))


def read(topic, isolation="read_uncommitted"):
    reader = consumer(PREFIX + "reader", isolation)
    reader.assign([TopicPartition(topic, 0, 0)])
    values = []
    while True:
        message = reader.poll(30)
        if message is None:
            raise AssertionError("no records arrive")
        if message.error():
            reader.close()
            return values
        values.append(message.value().decode())


def committed(group):
    request = ConsumerGroupTopicPartitions(group)
    partitions = done(admin.list_consumer_group_offsets([request]))[group].topic_partitions
    return {(found.topic, found.partition): found.offset for found in partitions if found.offset >= 0}


def commit(group, *topics):
    member = consumer(group)
    member.commit(offsets=[TopicPartition(topic, 0, 0) for topic in topics], asynchronous=False)
    member.close()


def partition_count(topic):
    return len(admin.list_topics(topic, timeout=30).topics[topic].partitions)


def topics():
    topic = new_topic("topics", 2)
    expect(2, partition_count(topic))
    try:
        new_topic("topics")
        raise AssertionError("the topic was created twice")
    except KafkaException as error:
        expect("TOPIC_ALREADY_EXISTS", error.args[0].name())
    done(admin.delete_topics([topic]))
    until(lambda: topic not in admin.list_topics(timeout=30).topics)


def partitions():
    topic = new_topic("partitions")
    done(admin.create_partitions([NewPartitions(topic, 3)]))
    until(lambda: partition_count(topic) == 3)


def configs():
    topic = new_topic("configs")
    for name, value in {"retention.ms": "60000", "max.message.bytes": "2000"}.items():
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        done(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]))
    (found,) = done(admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])).values()
    expect(("60000", "2000"), (found["retention.ms"].value, found["max.message.bytes"].value))


def produce():
    topic = new_topic("produce")
    expected = []
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        producer = Producer(SERVERS | {"enable.idempotence": True, "compression.type": codec})
        for index in range(100):
            expected.append(f"{codec}{index}")
            producer.produce(topic, expected[-1], key="key")
        expect(0, producer.flush(30))
    expect(expected, read(topic))


def group():
    topic = new_topic("group", 4)
    fill(topic, 4, 25)
    name = PREFIX + "group"
    first, second = consumer(name), consumer(name)
    values = set()

    def poll(member):
        message = member.poll(0.05)
        if message and not message.error():
            values.add(message.value())
            member.commit(message, asynchronous=False)

    first.subscribe([topic])
    second.subscribe([topic])

    def shared():
        poll(first)
        poll(second)
        return len(first.assignment()) == len(second.assignment()) == 2 and len(values) == 100

    until(shared)
    second.close()
    until(lambda: poll(first) or len(first.assignment()) == 4)
    first.close()
    expect(100, sum(committed(name).values()))


def transactions():
    topic = new_topic("transactions")
    producer = Producer(SERVERS | {"transactional.id": PREFIX + "transactions"})
    producer.init_transactions(30)
    for end in ("commit", "abort", "commit"):
        producer.begin_transaction()
        for index in range(50):
            producer.produce(topic, f"{end}{index}")
        expect(0, producer.flush(30))
        if end == "commit":
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    expect(150, len(read(topic)))
    values = read(topic, "read_committed")
    expect(100, len(values))
    expect([], [value for value in values if value.startswith("abort")])


def transaction_offsets():
    topic = new_topic("transaction-offsets")
    fill(topic, 1, 10)
    name = PREFIX + "transaction-offsets"
    member = consumer(name, "read_committed")
    member.subscribe([topic])
    until(lambda: member.poll(0.2))
    producer = Producer(SERVERS | {"transactional.id": name})
    producer.init_transactions(30)
    for end in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        producer.send_offsets_to_transaction([TopicPartition(topic, 0, 7)], member.consumer_group_metadata(), 30)
        expect({}, committed_before_end(name))
        end(30)
    until(lambda: committed(name))
    expect({(topic, 0): 7}, committed(name))
    member.close()


def committed_before_end(name):
    request = ConsumerGroupTopicPartitions(name)
    offsets = done(admin.list_consumer_group_offsets([request], require_stable=False))[name].topic_partitions
    return {(found.topic, found.partition): found.offset for found in offsets if found.offset >= 0}


def delete_groups():
    name = PREFIX + "delete-groups"
    commit(name, new_topic("delete-groups"))
    done(admin.delete_consumer_groups([name]))
    listed = admin.list_consumer_groups().result(30).valid
    expect([], [found.group_id for found in listed if found.group_id == name])


def delete_records():
    topic = new_topic("delete-records")
    fill(topic, 1, 100)
    deleted = done(admin.delete_records([TopicPartition(topic, 0, 60)]))
    expect([60], [found.low_watermark for found in deleted.values()])
    expect(40, len(read(topic)))


def cluster():
    found = admin.describe_cluster().result(30)
    expect(1, len(found.nodes))
    expect(True, bool(found.cluster_id) and found.controller is not None)


def offsets():
    topic = new_topic("offsets")
    producer = Producer(SERVERS)
    for timestamp in (1000, 5000, 3000):
        producer.produce(topic, "value", timestamp=timestamp)
        expect(0, producer.flush(30))
    partition = TopicPartition(topic, 0)

    def offset(wanted):
        isolation = IsolationLevel.READ_UNCOMMITTED
        (found,) = done(admin.list_offsets({partition: wanted}, isolation_level=isolation)).values()
        return found.offset

    expect((0, 3), (offset(OffsetSpec.earliest()), offset(OffsetSpec.latest())))
    expect((1, -1), (offset(OffsetSpec.for_timestamp(2000)), offset(OffsetSpec.for_timestamp(6000))))
    expect(1, offset(OffsetSpec.max_timestamp()))


main(
    {
        "topics": topics,
        "partitions": partitions,
        "configs": configs,
        "produce": produce,
        "group": group,
        "transactions": transactions,
        "transaction-offsets": transaction_offsets,
        "list-transactions": None,
        "delete-groups": delete_groups,
        "delete-offsets": None,
        "delete-records": delete_records,
        "log-dirs": None,
        "cluster": cluster,
        "offsets": offsets,
    }
)

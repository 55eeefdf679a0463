"""Checks kafka-python."""

import sys
import threading

from kafka import ConsumerGroupMetadata, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError

from features import expect, main, until

BOOTSTRAP, PREFIX = sys.argv[1:]
admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def new_topic(name, partitions=1):
    topic = PREFIX + name
    options = {"num_partitions": partitions, "replication_factor": 1, "configs": {"retention.ms": "-1"}}
    admin.create_topics({topic: options})
    return topic


def consumer(group, isolation="read_uncommitted"):
    return KafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        group_id=group,
        isolation_level=isolation,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
    )


def fill(topic, partitions, each):
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for index in range(partitions * each):
        producer.send(topic, f"value{index}".encode(), partition=index % partitions)
    producer.flush(30)
    producer.close()


def read(topic, isolation="read_uncommitted"):
    reader = consumer(None, isolation)
    partition = TopicPartition(topic, 0)
    reader.assign([partition])
    reader.seek_to_beginning(partition)
    end = reader.end_offsets([partition])[partition]
    values = []
    while reader.position(partition) < end:
        for records in reader.poll(1000).values():
            values += [record.value.decode() for record in records]
    reader.close()
    return values


def committed(group):
    offsets = admin.list_group_offsets([group])[group]
    return {partition: found.offset for partition, found in offsets.items() if found.offset >= 0}


def commit(group, *topics):
    admin.alter_group_offsets(group, {TopicPartition(topic, 0): OffsetAndMetadata(0, "", -1) for topic in topics})


def partition_count(topic):
    return len(admin.describe_topics([topic])[0]["partitions"])


def topics():
    topic = new_topic("topics", 2)
    until(lambda: partition_count(topic) == 2)
    try:
        new_topic("topics")
        raise AssertionError("the topic was created twice")
    except TopicAlreadyExistsError:
        pass
    admin.delete_topics([topic])
    until(lambda: topic not in admin.list_topics())


def partitions():
    topic = new_topic("partitions")
    admin.create_partitions({topic: 3})
    until(lambda: partition_count(topic) == 3)


def configs():
    topic = new_topic("configs")
    wanted = {"retention.ms": "60000", "max.message.bytes": "2000"}
    for name, value in wanted.items():
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})], incremental=True)
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    (found,) = described["topic"].values()
    expect(wanted, {name: found[name]["value"] for name in wanted})


def produce():
    topic = new_topic("produce")
    expected = []
    # It has the other codecs with further packages.
    for codec in (None, "gzip"):
        producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=True, compression_type=codec)
        for index in range(100):
            expected.append(f"{codec}{index}")
            producer.send(topic, expected[-1].encode())
        producer.flush(30)
        producer.close()
    expect(expected, read(topic))


def group():
    topic = new_topic("group", 4)
    fill(topic, 4, 25)
    name = PREFIX + "group"
    values = set()

    class Member(threading.Thread):
        """Polls in a thread of its own, because a poll that ends before a rebalance does would begin another one."""

        def __init__(self):
            super().__init__(daemon=True)
            self.assigned, self.ended = 0, threading.Event()
            self.start()

        def run(self):
            member = consumer(name)
            member.subscribe([topic])
            while not self.ended.is_set():
                for records in member.poll(1000).values():
                    values.update(record.value for record in records)
                    member.commit()
                self.assigned = len(member.assignment())
            member.close()

        def end(self):
            self.ended.set()
            self.join()

    first, second = Member(), Member()
    until(lambda: first.assigned == second.assigned == 2 and len(values) == 100)
    second.end()
    until(lambda: first.assigned == 4)
    first.end()
    expect(100, sum(committed(name).values()))


def transactions():
    topic = new_topic("transactions")
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=PREFIX + "transactions")
    producer.init_transactions()
    for end in ("commit", "abort", "commit"):
        producer.begin_transaction()
        for index in range(50):
            producer.send(topic, f"{end}{index}".encode())
        producer.flush(30)
        if end == "commit":
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close()
    expect(150, len(read(topic)))
    values = read(topic, "read_committed")
    expect(100, len(values))
    expect([], [value for value in values if value.startswith("abort")])


def transaction_offsets():
    topic = new_topic("transaction-offsets")
    name = PREFIX + "transaction-offsets"
    partition = TopicPartition(topic, 0)
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=name)
    producer.init_transactions()
    for end, expected in ((producer.abort_transaction, {}), (producer.commit_transaction, {partition: 7})):
        producer.begin_transaction()
        producer.send_offsets_to_transaction({partition: OffsetAndMetadata(7, "", -1)}, name)
        end()
        until(lambda: committed(name) == expected)
    producer.close()


def list_transactions():
    topic = new_topic("list-transactions")
    name = PREFIX + "list-transactions"
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=name)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"value").get(30)
    expect(True, name in str(admin.list_transactions()))
    expect(True, topic in str(admin.describe_transactions([name])[name]))
    producer.commit_transaction()
    producer.close()


def delete_groups():
    name = PREFIX + "delete-groups"
    commit(name, new_topic("delete-groups"))
    admin.delete_groups([name])
    expect(False, name in str(admin.list_groups()))


def delete_offsets():
    name = PREFIX + "delete-offsets"
    deleted, kept = new_topic("delete-offsets"), new_topic("keep-offsets")
    commit(name, deleted, kept)
    admin.delete_group_offsets(name, [TopicPartition(deleted, 0)])
    expect({TopicPartition(kept, 0): 0}, committed(name))


def delete_records():
    topic = new_topic("delete-records")
    fill(topic, 1, 100)
    admin.delete_records({TopicPartition(topic, 0): 60})
    expect(40, len(read(topic)))


def log_dirs():
    topic = new_topic("log-dirs")
    fill(topic, 1, 10)
    expect(True, topic in str(admin.describe_log_dirs([topic])))


def cluster():
    found = admin.describe_cluster()
    expect(1, len(found["brokers"]))
    expect(True, bool(found["cluster_id"]) and found["controller_id"] >= 0)


def offsets():
    topic = new_topic("offsets")
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for timestamp in (1000, 5000, 3000):
        producer.send(topic, b"value", timestamp_ms=timestamp).get(30)
    producer.close()
    partition = TopicPartition(topic, 0)
    wanted = {OffsetSpec.EARLIEST: 0, OffsetSpec.LATEST: 3, 2000: 1, 6000: -1, OffsetSpec.MAX_TIMESTAMP: 1}
    found = {spec: admin.list_partition_offsets({partition: spec})[partition].offset for spec in wanted}
    expect(wanted, found)


main(
    {
        "topics": topics,
        "partitions": partitions,
        "configs": configs,
        "produce": produce,
        "group": group,
        "transactions": transactions,
        "transaction-offsets": transaction_offsets,
        "list-transactions": list_transactions,
        "delete-groups": delete_groups,
        "delete-offsets": delete_offsets,
        "delete-records": delete_records,
        "log-dirs": log_dirs,
        "cluster": cluster,
        "offsets": offsets,
    }
)

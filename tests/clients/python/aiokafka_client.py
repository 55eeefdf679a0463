"""Checks aiokafka."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from features import expect, main

BOOTSTRAP, PREFIX = sys.argv[1:]


def check(function):
    """Returns a check that runs the coroutine with an admin client."""

    async def run():
        admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
        await admin.start()
        try:
            await function(admin)
        finally:
            await admin.close()

    return lambda: asyncio.run(run())


async def until(condition):
    while not await condition():
        await asyncio.sleep(0.02)


async def new_topic(admin, name, partitions=1):
    topic = PREFIX + name
    response = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs={"retention.ms": "-1"})])
    expect(0, response.topic_errors[0][1])
    return topic


def consumer(group, *topics, isolation="read_uncommitted"):
    return AIOKafkaConsumer(
        *topics,
        bootstrap_servers=BOOTSTRAP,
        group_id=group,
        isolation_level=isolation,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
    )


async def fill(topic, partitions, each):
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP) as producer:
        for index in range(partitions * each):
            await producer.send_and_wait(topic, f"value{index}".encode(), partition=index % partitions)


async def read(topic, isolation="read_uncommitted"):
    async with consumer(None, isolation=isolation) as reader:
        partition = TopicPartition(topic, 0)
        reader.assign([partition])
        await reader.seek_to_beginning(partition)
        end = (await reader.end_offsets([partition]))[partition]
        values = []
        while await reader.position(partition) < end:
            for records in (await reader.getmany(timeout_ms=500)).values():
                values += [record.value.decode() for record in records]
        return values


async def committed(admin, group):
    offsets = await admin.list_consumer_group_offsets(group)
    return {partition: found.offset for partition, found in offsets.items() if found.offset >= 0}


async def topics(admin):
    topic = await new_topic(admin, "topics", 2)
    expect(2, len((await admin.describe_topics([topic]))[0]["partitions"]))
    again = await admin.create_topics([NewTopic(topic, 1, 1)])
    expect(36, again.topic_errors[0][1])
    await admin.delete_topics([topic])

    async def gone():
        return topic not in await admin.list_topics()

    await until(gone)


async def partitions(admin):
    topic = await new_topic(admin, "partitions")
    await admin.create_partitions({topic: NewPartitions(3)})
    expect(3, len((await admin.describe_topics([topic]))[0]["partitions"]))


async def configs(admin):
    """It alters configs not incrementally, so one request has all."""
    topic = await new_topic(admin, "configs")
    wanted = {"retention.ms": "60000", "max.message.bytes": "2000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    entries = response.resources[0][4]
    expect(wanted, {entry[0]: entry[1] for entry in entries if entry[0] in wanted})


async def produce(admin):
    topic = await new_topic(admin, "produce")
    expected = []
    # It has the other codecs with further packages.
    for codec in (None, "gzip"):
        async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=True, compression_type=codec) as producer:
            for index in range(100):
                expected.append(f"{codec}{index}")
                await producer.send(topic, expected[-1].encode())
            await producer.flush()
    expect(expected, await read(topic))


async def group(admin):
    topic = await new_topic(admin, "group", 4)
    await fill(topic, 4, 25)
    name = PREFIX + "group"
    values = set()

    async def poll(member):
        for records in (await member.getmany(timeout_ms=100)).values():
            values.update(record.value for record in records)
            await member.commit()
        return len(member.assignment())

    async with consumer(name, topic) as first:
        async with consumer(name, topic) as second:

            async def shared():
                return (await poll(first), await poll(second)) == (2, 2) and len(values) == 100

            await until(shared)

        async def alone():
            return await poll(first) == 4

        await until(alone)
    expect(100, sum((await committed(admin, name)).values()))


async def transactions(admin):
    topic = await new_topic(admin, "transactions")
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=PREFIX + "transactions") as producer:
        for end in ("commit", "abort", "commit"):
            await producer.begin_transaction()
            for index in range(50):
                await producer.send_and_wait(topic, f"{end}{index}".encode())
            await (producer.commit_transaction() if end == "commit" else producer.abort_transaction())
    expect(150, len(await read(topic)))
    values = await read(topic, "read_committed")
    expect(100, len(values))
    expect([], [value for value in values if value.startswith("abort")])


async def transaction_offsets(admin):
    topic = await new_topic(admin, "transaction-offsets")
    name = PREFIX + "transaction-offsets"
    partition = TopicPartition(topic, 0)
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=name) as producer:
        for end, expected in ((producer.abort_transaction, {}), (producer.commit_transaction, {partition: 7})):
            await producer.begin_transaction()
            await producer.send_offsets_to_transaction({partition: 7}, name)
            await end()

            async def ended():
                return await committed(admin, name) == expected

            await until(ended)


async def delete_records(admin):
    topic = await new_topic(admin, "delete-records")
    await fill(topic, 1, 100)
    partition = TopicPartition(topic, 0)
    expect({partition: 60}, await admin.delete_records({partition: RecordsToDelete(before_offset=60)}))
    expect(40, len(await read(topic)))


async def cluster(admin):
    found = await admin.describe_cluster()
    expect(1, len(found["brokers"]))
    expect(True, bool(found["cluster_id"]) and found["controller_id"] >= 0)


async def offsets(admin):
    topic = await new_topic(admin, "offsets")
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP) as producer:
        for timestamp in (1000, 5000, 3000):
            await producer.send_and_wait(topic, b"value", timestamp_ms=timestamp)
    partition = TopicPartition(topic, 0)
    async with consumer(None) as reader:
        found = (await reader.beginning_offsets([partition]), await reader.end_offsets([partition]))
        expect(({partition: 0}, {partition: 3}), found)
        expect(1, (await reader.offsets_for_times({partition: 2000}))[partition].offset)
        expect({partition: None}, await reader.offsets_for_times({partition: 6000}))


main(
    {
        "topics": check(topics),
        "partitions": check(partitions),
        "configs": check(configs),
        "produce": check(produce),
        "group": check(group),
        "transactions": check(transactions),
        "transaction-offsets": check(transaction_offsets),
        "list-transactions": None,
        "delete-groups": None,
        "delete-offsets": None,
        "delete-records": check(delete_records),
        "log-dirs": None,
        "cluster": check(cluster),
        "offsets": check(offsets),
    }
)

"""Checks the console tools of Apache Kafka.

Each check runs a tool as a user does, and looks for a line in its output.
"""

import re
import subprocess

TOOLS = "org.apache.kafka.tools."
GROUPS = TOOLS + "consumer.group.ConsumerGroupCommand"


class Console:
    """The tools of a version, on a broker."""

    def __init__(self, java, bootstrap, prefix):
        self.java, self.bootstrap, self.prefix = java, bootstrap, prefix

    def run(self, tool, *arguments, server=True):
        """Returns the output of a tool, which must succeed."""
        server = ["--bootstrap-server", self.bootstrap] if server else []
        done = subprocess.run([*self.java, tool, *server, *arguments], capture_output=True, text=True, timeout=120)
        output = done.stdout + done.stderr
        if done.returncode != 0 or "Error while executing" in output:
            raise AssertionError(f"{tool.split('.')[-1]}: {output[-500:]}")
        return output

    def look(self, pattern, tool, *arguments, **options):
        output = self.run(tool, *arguments, **options)
        if not re.search(pattern, output):
            raise AssertionError(f"{tool.split('.')[-1]}: no {pattern!r} in {output[-500:]!r}")

    def topic(self, name, partitions=1):
        topic = self.prefix + name
        self.run(TOOLS + "TopicCommand", "--create", "--topic", topic, "--partitions", str(partitions))
        return topic

    def fill(self, topic, records, *more):
        sizes = ["--num-records", str(records), "--record-size", "100", "--throughput", "-1"]
        properties = ["--producer-props", f"bootstrap.servers={self.bootstrap}", *more]
        self.look(rf"{records} records sent", TOOLS + "ProducerPerformance", "--topic", topic, *sizes, *properties, server=False)

    def group(self, name):
        """Returns a topic of 100 records and a group that has read them."""
        topic, group = self.topic(name), f"{self.prefix}{name}-group"
        self.fill(topic, 100)
        to_latest = ["--reset-offsets", "--to-latest", "--execute", "--topic", topic]
        self.run(GROUPS, "--group", group, *to_latest)
        return topic, group

    def topics(self):
        topic = self.topic("topics", 2)
        self.look(r"PartitionCount: ?2", TOOLS + "TopicCommand", "--describe", "--topic", topic)
        self.run(TOOLS + "TopicCommand", "--delete", "--topic", topic)
        if topic in self.run(TOOLS + "TopicCommand", "--list"):
            raise AssertionError("the topic is still listed")

    def partitions(self):
        topic = self.topic("partitions")
        self.run(TOOLS + "TopicCommand", "--alter", "--topic", topic, "--partitions", "3")
        self.look(r"PartitionCount: ?3", TOOLS + "TopicCommand", "--describe", "--topic", topic)

    def configs(self):
        entity = ["--entity-type", "topics", "--entity-name", self.topic("configs")]
        self.run("kafka.admin.ConfigCommand", *entity, "--alter", "--add-config", "retention.ms=60000")
        self.look(r"retention\.ms=60000", "kafka.admin.ConfigCommand", *entity, "--describe")

    def produce(self):
        self.fill(self.topic("produce"), 1000, "enable.idempotence=true", "compression.type=zstd")

    def consume(self):
        topic, group = self.group("consume")
        self.run(GROUPS, "--group", group, "--reset-offsets", "--to-earliest", "--execute", "--topic", topic)
        self.look(rf"{topic}\s+0\s+0\s+100\s+100", GROUPS, "--group", group, "--describe")
        messages = ["--topic", topic, "--group", group, "--max-messages", "100", "--timeout-ms", "60000"]
        self.look("Processed a total of 100", TOOLS + "consumer.ConsoleConsumer", *messages)
        self.look(rf"{topic}\s+0\s+100\s+100\s+0", GROUPS, "--group", group, "--describe")

    def list_transactions(self):
        topic, group = self.topic("transactions"), self.prefix + "perf"
        self.fill(topic, 100, "--transactional-id", group, "--transaction-duration-ms", "1000")
        self.look(group, TOOLS + "TransactionsCommand", "list")
        self.look("CompleteCommit", TOOLS + "TransactionsCommand", "describe", "--transactional-id", group)

    def delete_groups(self):
        _, group = self.group("delete-groups")
        self.look("successful", GROUPS, "--group", group, "--delete")
        if group in self.run(GROUPS, "--list"):
            raise AssertionError("the group is still listed")

    def delete_offsets(self):
        topic, group = self.group("delete-offsets")
        self.look(rf"{topic}\s+0\s+Successful", GROUPS, "--group", group, "--delete-offsets", "--topic", topic)

    def delete_records(self):
        topic = self.topic("delete-records")
        self.fill(topic, 100)
        offsets = f'{{"partitions": [{{"topic": "{topic}", "partition": 0, "offset": 60}}], "version": 1}}'
        self.look("low_watermark: 60", TOOLS + "DeleteRecordsCommand", "--offset-json-file", self.file(offsets))

    def file(self, text):
        path = f"/dev/shm/{self.prefix}records.json"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def log_dirs(self):
        topic = self.topic("log-dirs")
        self.fill(topic, 100)
        self.look(rf'"{topic}-0","size":[1-9]', TOOLS + "LogDirsCommand", "--describe", "--topic-list", topic)

    def cluster(self):
        self.look("Cluster ID: .", TOOLS + "ClusterTool", "cluster-id", "--bootstrap-server", self.bootstrap, server=False)

    def offsets(self):
        topic = self.topic("offsets")
        self.fill(topic, 100)
        for time, offset in {"earliest": "0", "latest": "100", "max-timestamp": r"\d+"}.items():
            self.look(rf"{topic}:0:{offset}\s", TOOLS + "GetOffsetShell", "--topic", topic, "--time", time)

    def checks(self):
        return {
            "topics": self.topics,
            "partitions": self.partitions,
            "configs": self.configs,
            "produce": self.produce,
            "group": self.consume,
            "transactions": None,
            "transaction-offsets": None,
            "list-transactions": self.list_transactions,
            "delete-groups": self.delete_groups,
            "delete-offsets": self.delete_offsets,
            "delete-records": self.delete_records,
            "log-dirs": self.log_dirs,
            "cluster": self.cluster,
            "offsets": self.offsets,
        }

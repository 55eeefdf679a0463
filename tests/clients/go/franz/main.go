// Checks franz-go.
package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	. "clients/feature"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	ctx   = context.Background()
	admin = kadm.NewClient(client())
)

func client(options ...kgo.Opt) *kgo.Client {
	return Got(kgo.NewClient(append(options, kgo.SeedBrokers(Bootstrap))...))
}

func topic(name string, partitions int32) string {
	retention := "-1"
	created := Got(admin.CreateTopic(ctx, partitions, 1, map[string]*string{"retention.ms": &retention}, Prefix+name))
	return created.Topic
}

func fill(topic string, partitions, each int) {
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	for index := range partitions * each {
		record := &kgo.Record{Topic: topic, Partition: int32(index % partitions), Value: fmt.Appendf(nil, "value%d", index)}
		Must(producer.ProduceSync(ctx, record).FirstErr())
	}
}

func read(topic string, count int, isolation kgo.IsolationLevel) []string {
	consumer := client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(isolation),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer consumer.Close()
	var values []string
	for len(values) < count {
		fetches := consumer.PollFetches(ctx)
		Must(fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) { values = append(values, string(record.Value)) })
	}
	return values
}

func topics() {
	name := topic("topics", 2)
	Expect(2, len(Got(admin.ListTopics(ctx, name))[name].Partitions))
	_, err := admin.CreateTopic(ctx, 1, 1, nil, name)
	Expect(kerr.TopicAlreadyExists, err)
	Must(Got(admin.DeleteTopics(ctx, name)).Error())
	Until(func() bool { return !Got(admin.ListTopics(ctx)).Has(name) })
}

func partitions() {
	name := topic("partitions", 1)
	Must(Got(admin.UpdatePartitions(ctx, 3, name)).Error())
	Until(func() bool { return len(Got(admin.ListTopics(ctx, name))[name].Partitions) == 3 })
}

func configs() {
	name := topic("configs", 1)
	for config, value := range map[string]string{"retention.ms": "60000", "max.message.bytes": "2000"} {
		for _, altered := range Got(admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: config, Value: &value}}, name)) {
			Must(altered.Err)
		}
		found := Got(Got(admin.DescribeTopicConfigs(ctx, name)).On(name, nil))
		index := slices.IndexFunc(found.Configs, func(entry kadm.Config) bool { return entry.Key == config })
		Expect(value, found.Configs[index].MaybeValue())
	}
}

func produce() {
	name := topic("produce", 1)
	var expected []string
	for codec, compression := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(),
		kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		producer := client(kgo.ProducerBatchCompression(compression))
		var records []*kgo.Record
		for index := range 100 {
			value := fmt.Sprintf("%d-%d", codec, index)
			expected = append(expected, value)
			records = append(records, &kgo.Record{Topic: name, Value: []byte(value)})
		}
		Must(producer.ProduceSync(ctx, records...).FirstErr())
		producer.Close()
	}
	Expect(expected, read(name, 500, kgo.ReadUncommitted()))
}

func group() {
	name := topic("group", 4)
	fill(name, 4, 25)
	values := map[string]bool{}
	member := func() (*kgo.Client, *int) {
		assigned := 0
		count := func(sign int) func(context.Context, *kgo.Client, map[string][]int32) {
			return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
				assigned += sign * len(partitions[name])
			}
		}
		return client(kgo.ConsumerGroup(Prefix+"group"), kgo.ConsumeTopics(name), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(),
			kgo.OnPartitionsAssigned(count(1)), kgo.OnPartitionsRevoked(count(-1)), kgo.OnPartitionsLost(count(-1))), &assigned
	}
	poll := func(client *kgo.Client) {
		limited, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		client.PollFetches(limited).EachRecord(func(record *kgo.Record) { values[string(record.Value)] = true })
		Must(client.CommitUncommittedOffsets(ctx))
		client.AllowRebalance()
	}
	first, inFirst := member()
	second, inSecond := member()
	Until(func() bool {
		poll(first)
		poll(second)
		return *inFirst == 2 && *inSecond == 2 && len(values) == 100
	})
	second.Close()
	Until(func() bool {
		poll(first)
		return *inFirst == 4
	})
	first.Close()
	total := int64(0)
	Got(admin.FetchOffsets(ctx, Prefix+"group")).Each(func(offset kadm.OffsetResponse) { total += offset.At })
	Expect(int64(100), total)
}

func transactions() {
	name := topic("transactions", 1)
	producer := client(kgo.TransactionalID(Prefix + "transactions"))
	for _, end := range []string{"commit", "abort", "commit"} {
		Must(producer.BeginTransaction())
		for index := range 50 {
			record := &kgo.Record{Topic: name, Value: fmt.Appendf(nil, "%s%d", end, index)}
			Must(producer.ProduceSync(ctx, record).FirstErr())
		}
		Must(producer.EndTransaction(ctx, end == "commit"))
	}
	producer.Close()
	Expect(150, len(read(name, 150, kgo.ReadUncommitted())))
	for _, value := range read(name, 100, kgo.ReadCommitted()) {
		Expect(true, strings.HasPrefix(value, "commit"))
	}
}

func transactionOffsets() {
	name, group := topic("transaction-offsets", 1), Prefix+"transaction-offsets"
	fill(name, 1, 10)
	session := Got(kgo.NewGroupTransactSession(kgo.SeedBrokers(Bootstrap), kgo.TransactionalID(group),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RequireStableFetchOffsets(), kgo.FetchIsolationLevel(kgo.ReadCommitted())))
	defer session.Close()
	for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		Must(session.Begin())
		// An abort rewinds, so the records are read again.
		for read := 0; read < 10; {
			read += session.PollFetches(ctx).NumRecords()
		}
		committed := Got(session.End(ctx, commit))
		Expect(bool(commit), committed)
		found, exists := Got(admin.FetchOffsets(ctx, group)).Lookup(name, 0)
		Expect(bool(commit), exists && found.At == 10)
	}
}

func listTransactions() {
	name, id := topic("list-transactions", 1), Prefix+"list-transactions"
	producer := client(kgo.TransactionalID(id))
	Must(producer.BeginTransaction())
	Must(producer.ProduceSync(ctx, &kgo.Record{Topic: name, Value: []byte("value")}).FirstErr())
	Expect("Ongoing", Got(admin.ListTransactions(ctx, nil, nil))[id].State)
	described := Got(admin.DescribeTransactions(ctx, id))[id]
	Must(described.Err)
	Expect(true, described.Topics.Lookup(name, 0))
	var set kadm.TopicsSet
	set.Add(name, 0)
	Expect(1, len(Got(admin.DescribeProducers(ctx, set))[name].Partitions[0].ActiveProducers))
	Must(producer.EndTransaction(ctx, kgo.TryCommit))
	producer.Close()
}

func commit(group string, topics ...string) {
	offsets := kadm.Offsets{}
	for _, topic := range topics {
		offsets.AddOffset(topic, 0, 0, -1)
	}
	Must(admin.CommitAllOffsets(ctx, group, offsets))
}

func deleteGroups() {
	group := Prefix + "delete-groups"
	commit(group, topic("delete-groups", 1))
	Must(Got(admin.DeleteGroup(ctx, group)).Err)
	_, listed := Got(admin.ListGroups(ctx))[group]
	Expect(false, listed)
}

func deleteOffsets() {
	group, deleted, kept := Prefix+"delete-offsets", topic("delete-offsets", 1), topic("keep-offsets", 1)
	commit(group, deleted, kept)
	var set kadm.TopicsSet
	set.Add(deleted, 0)
	Must(Got(admin.DeleteOffsets(ctx, group, set)).Error())
	Expect([]string{kept}, Got(admin.FetchOffsets(ctx, group)).Partitions().Topics())
}

func deleteRecords() {
	name := topic("delete-records", 1)
	fill(name, 1, 100)
	before := kadm.Offsets{}
	before.AddOffset(name, 0, 60, -1)
	found, _ := Got(admin.DeleteRecords(ctx, before)).Lookup(name, 0)
	Must(found.Err)
	Expect(int64(60), found.LowWatermark)
	Expect("value60", read(name, 40, kgo.ReadUncommitted())[0])
}

func logDirs() {
	name := topic("log-dirs", 1)
	fill(name, 1, 10)
	var set kadm.TopicsSet
	set.Add(name, 0)
	size := int64(0)
	Got(admin.DescribeAllLogDirs(ctx, set)).Each(func(dir kadm.DescribedLogDir) { size += dir.Size() })
	Expect(true, size > 0)
}

func cluster() {
	metadata := Got(admin.BrokerMetadata(ctx))
	Expect(1, len(metadata.Brokers))
	Expect(true, metadata.Cluster != "" && metadata.Controller == metadata.Brokers[0].NodeID)
}

func offsets() {
	name := topic("offsets", 1)
	producer := client()
	for _, time := range []time.Time{time.UnixMilli(1000), time.UnixMilli(5000), time.UnixMilli(3000)} {
		Must(producer.ProduceSync(ctx, &kgo.Record{Topic: name, Value: []byte("value"), Timestamp: time}).FirstErr())
	}
	producer.Close()
	at := func(listed kadm.ListedOffsets, err error) int64 {
		Must(err)
		found, _ := listed.Lookup(name, 0)
		Must(found.Err)
		return found.Offset
	}
	Expect(int64(0), at(admin.ListStartOffsets(ctx, name)))
	Expect(int64(3), at(admin.ListEndOffsets(ctx, name)))
	Expect(int64(1), at(admin.ListOffsetsAfterMilli(ctx, 2000, name)))
	Expect(int64(1), at(admin.ListMaxTimestampOffsets(ctx, name)))
}

func main() {
	Main([]Check{{"topics", topics}, {"partitions", partitions}, {"configs", configs}, {"produce", produce},
		{"group", group}, {"transactions", transactions}, {"transaction-offsets", transactionOffsets},
		{"list-transactions", listTransactions}, {"delete-groups", deleteGroups}, {"delete-offsets", deleteOffsets},
		{"delete-records", deleteRecords}, {"log-dirs", logDirs}, {"cluster", cluster}, {"offsets", offsets}})
}

// Checks sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	. "clients/feature"

	"github.com/IBM/sarama"
)

var (
	brokers = []string{Bootstrap}
	admin   = Got(sarama.NewClusterAdmin(brokers, config()))
)

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V3_9_2_0
	config.Producer.Return.Successes = true
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = time.Second
	return config
}

func idempotent() *sarama.Config {
	config := config()
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Retry.Max = 10
	config.Net.MaxOpenRequests = 1
	return config
}

func transactional(id string) sarama.SyncProducer {
	config := idempotent()
	config.Producer.Transaction.ID = id
	return Got(sarama.NewSyncProducer(brokers, config))
}

func topic(name string, partitions int32) string {
	retention := "-1"
	detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"retention.ms": &retention}}
	Must(admin.CreateTopic(Prefix+name, detail, false))
	return Prefix + name
}

func send(producer sarama.SyncProducer, topic string, partition int32, value string) {
	message := &sarama.ProducerMessage{Topic: topic, Partition: partition, Value: sarama.StringEncoder(value)}
	_, _, err := producer.SendMessage(message)
	Must(err)
}

func fill(topic string, partitions, each int) {
	config := config()
	config.Producer.Partitioner = sarama.NewManualPartitioner
	producer := Got(sarama.NewSyncProducer(brokers, config))
	defer producer.Close()
	for index := range partitions * each {
		send(producer, topic, int32(index%partitions), fmt.Sprintf("value%d", index))
	}
}

func read(topic string, count int, isolation sarama.IsolationLevel) []string {
	config := config()
	config.Consumer.IsolationLevel = isolation
	consumer := Got(sarama.NewConsumer(brokers, config))
	defer consumer.Close()
	partition := Got(consumer.ConsumePartition(topic, 0, sarama.OffsetOldest))
	defer partition.Close()
	var values []string
	for len(values) < count {
		values = append(values, string((<-partition.Messages()).Value))
	}
	return values
}

func committed(group, topic string, partitions ...int32) int64 {
	found := Got(admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: partitions}))
	total := int64(0)
	for _, partition := range partitions {
		total += found.GetBlock(topic, partition).Offset
	}
	return total
}

func partitionCount(topic string) int {
	return len(Got(admin.DescribeTopics([]string{topic}))[0].Partitions)
}

func topics() {
	name := topic("topics", 2)
	Expect(2, partitionCount(name))
	err := admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
	Expect(true, errors.Is(err, sarama.ErrTopicAlreadyExists))
	Must(admin.DeleteTopic(name))
	Until(func() bool {
		_, listed := Got(admin.ListTopics())[name]
		return !listed
	})
}

func partitions() {
	name := topic("partitions", 1)
	Must(admin.CreatePartitions(name, 3, nil, false))
	Until(func() bool { return partitionCount(name) == 3 })
}

func configs() {
	name := topic("configs", 1)
	wanted := map[string]string{"retention.ms": "60000", "max.message.bytes": "2000"}
	for config, value := range wanted {
		entry := sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}
		entries := map[string]sarama.IncrementalAlterConfigsEntry{config: entry}
		Must(admin.IncrementalAlterConfig(sarama.TopicResource, name, entries, false))
	}
	for _, entry := range Got(admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: name})) {
		if value, altered := wanted[entry.Name]; altered {
			Expect(value, entry.Value)
			delete(wanted, entry.Name)
		}
	}
	Expect(0, len(wanted))
}

func produce() {
	name := topic("produce", 1)
	var expected []string
	for _, codec := range []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP,
		sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD} {
		config := idempotent()
		config.Producer.Compression = codec
		producer := Got(sarama.NewSyncProducer(brokers, config))
		var messages []*sarama.ProducerMessage
		for index := range 100 {
			expected = append(expected, fmt.Sprintf("%s%d", codec, index))
			messages = append(messages, &sarama.ProducerMessage{Topic: name, Value: sarama.StringEncoder(expected[len(expected)-1])})
		}
		Must(producer.SendMessages(messages))
		Must(producer.Close())
	}
	Expect(expected, read(name, 500, sarama.ReadUncommitted))
}

// member is a member of a group that counts what it is assigned and collects what it reads.
type member struct {
	lock     sync.Mutex
	assigned int
	values   map[string]bool
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.assigned = 0
	for _, partitions := range session.Claims() {
		m.assigned += len(partitions)
	}
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.lock.Lock()
		m.values[string(message.Value)] = true
		m.lock.Unlock()
		session.MarkMessage(message, "")
		session.Commit()
	}
	return nil
}

func (m *member) now() (int, map[string]bool) {
	m.lock.Lock()
	defer m.lock.Unlock()
	values := map[string]bool{}
	for value := range m.values {
		values[value] = true
	}
	return m.assigned, values
}

func join(group, topic string) (*member, sarama.ConsumerGroup) {
	consumer := Got(sarama.NewConsumerGroup(brokers, group, config()))
	handler := &member{values: map[string]bool{}}
	go func() {
		for !errors.Is(consumer.Consume(context.Background(), []string{topic}, handler), sarama.ErrClosedConsumerGroup) {
		}
	}()
	return handler, consumer
}

func group() {
	name, id := topic("group", 4), Prefix+"group"
	fill(name, 4, 25)
	first, inFirst := join(id, name)
	second, inSecond := join(id, name)
	Until(func() bool {
		ofFirst, values := first.now()
		ofSecond, more := second.now()
		for value := range more {
			values[value] = true
		}
		return ofFirst == 2 && ofSecond == 2 && len(values) == 100
	})
	Must(inSecond.Close())
	Until(func() bool {
		assigned, _ := first.now()
		return assigned == 4
	})
	Must(inFirst.Close())
	Expect(int64(100), committed(id, name, 0, 1, 2, 3))
}

func transactions() {
	name := topic("transactions", 1)
	producer := transactional(Prefix + "transactions")
	for _, end := range []string{"commit", "abort", "commit"} {
		Must(producer.BeginTxn())
		for index := range 50 {
			send(producer, name, 0, fmt.Sprintf("%s%d", end, index))
		}
		if end == "commit" {
			Must(producer.CommitTxn())
		} else {
			Must(producer.AbortTxn())
		}
	}
	Must(producer.Close())
	Expect(150, len(read(name, 150, sarama.ReadUncommitted)))
	for _, value := range read(name, 100, sarama.ReadCommitted) {
		Expect(true, strings.HasPrefix(value, "commit"))
	}
}

func transactionOffsets() {
	name, id := topic("transaction-offsets", 1), Prefix+"transaction-offsets"
	producer := transactional(id)
	offsets := map[string][]*sarama.PartitionOffsetMetadata{name: {{Partition: 0, Offset: 7}}}
	Must(producer.BeginTxn())
	Must(producer.AddOffsetsToTxn(offsets, id))
	Must(producer.AbortTxn())
	Expect(int64(-1), committed(id, name, 0))
	Must(producer.BeginTxn())
	Must(producer.AddOffsetsToTxn(offsets, id))
	Must(producer.CommitTxn())
	Until(func() bool { return committed(id, name, 0) == 7 })
	Must(producer.Close())
}

func listTransactions() {
	name, id := topic("list-transactions", 1), Prefix+"list-transactions"
	producer := transactional(id)
	Must(producer.BeginTxn())
	send(producer, name, 0, "value")
	admin := admin.(sarama.TransactionClusterAdmin)
	described := Got(admin.DescribeTransactions([]string{id}))[id]
	Expect("Ongoing", fmt.Sprint(described.TransactionState))
	partition := map[string][]int32{name: {0}}
	Expect(1, len(Got(admin.DescribeProducers(partition))[name][0].ActiveProducers))
	Must(producer.CommitTxn())
	Must(producer.Close())
}

func commit(group string, topics ...string) {
	offsets := map[string]map[int32]sarama.OffsetAndMetadata{}
	for _, topic := range topics {
		offsets[topic] = map[int32]sarama.OffsetAndMetadata{0: {Offset: 0, LeaderEpoch: -1}}
	}
	Got(admin.AlterConsumerGroupOffsets(group, offsets, nil))
}

func deleteGroups() {
	id := Prefix + "delete-groups"
	commit(id, topic("delete-groups", 1))
	Must(admin.DeleteConsumerGroup(id))
	_, listed := Got(admin.ListConsumerGroups())[id]
	Expect(false, listed)
}

func deleteOffsets() {
	id, deleted, kept := Prefix+"delete-offsets", topic("delete-offsets", 1), topic("keep-offsets", 1)
	commit(id, deleted, kept)
	Must(admin.DeleteConsumerGroupOffset(id, deleted, 0))
	Expect(int64(-1), committed(id, deleted, 0))
	Expect(int64(0), committed(id, kept, 0))
}

func deleteRecords() {
	name := topic("delete-records", 1)
	fill(name, 1, 100)
	Must(admin.DeleteRecords(name, map[int32]int64{0: 60}))
	Expect("value60", read(name, 40, sarama.ReadUncommitted)[0])
}

func logDirs() {
	name := topic("log-dirs", 1)
	fill(name, 1, 10)
	nodes, _, err := admin.DescribeCluster()
	Must(err)
	size := int64(0)
	for _, dir := range Got(admin.DescribeLogDirs([]int32{nodes[0].ID()}))[nodes[0].ID()] {
		for _, described := range dir.Topics {
			if described.Topic == name {
				size += described.Partitions[0].Size
			}
		}
	}
	Expect(true, size > 0)
}

func cluster() {
	nodes, controller, err := admin.DescribeCluster()
	Must(err)
	Expect(1, len(nodes))
	Expect(nodes[0].ID(), controller)
}

func offsets() {
	name := topic("offsets", 1)
	producer := Got(sarama.NewSyncProducer(brokers, config()))
	for _, millis := range []int64{1000, 5000, 3000} {
		message := &sarama.ProducerMessage{Topic: name, Value: sarama.StringEncoder("value"), Timestamp: time.UnixMilli(millis)}
		_, _, err := producer.SendMessage(message)
		Must(err)
	}
	Must(producer.Close())
	// It has no request for the maximum timestamp.
	for wanted, offset := range map[int64]int64{sarama.OffsetOldest: 0, sarama.OffsetNewest: 3, 2000: 1, 6000: -1} {
		found := Got(admin.ListOffsets(map[string]map[int32]int64{name: {0: wanted}}, nil))[name][0]
		if found.Err != nil && !errors.Is(found.Err, sarama.ErrNoError) {
			panic(fmt.Sprintf("time %d: %v", wanted, found.Err))
		}
		Expect([]int64{wanted, offset}, []int64{wanted, found.Offset})
	}
}

func main() {
	Main([]Check{{"topics", topics}, {"partitions", partitions}, {"configs", configs}, {"produce", produce},
		{"group", group}, {"transactions", transactions}, {"transaction-offsets", transactionOffsets},
		{"list-transactions", listTransactions}, {"delete-groups", deleteGroups}, {"delete-offsets", deleteOffsets},
		{"delete-records", deleteRecords}, {"log-dirs", logDirs}, {"cluster", cluster}, {"offsets", offsets}})
}

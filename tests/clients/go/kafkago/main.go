// Checks kafka-go. It has no transactional producer, so only its requests of transactions are checked.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	. "clients/feature"

	"github.com/segmentio/kafka-go"
)

var (
	ctx    = context.Background()
	client = &kafka.Client{Addr: kafka.TCP(Bootstrap), Timeout: 30 * time.Second}
)

func all(errs map[string]error) {
	for _, err := range errs {
		Must(err)
	}
}

func create(name string, partitions int) error {
	config := kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "-1"}}}
	created := Got(client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}}))
	return created.Errors[name]
}

func topic(name string, partitions int) string {
	Must(create(Prefix+name, partitions))
	return Prefix + name
}

func writer(topic string) *kafka.Writer {
	return &kafka.Writer{Addr: kafka.TCP(Bootstrap), Topic: topic, RequiredAcks: kafka.RequireAll,
		BatchTimeout: 10 * time.Millisecond, Balancer: &kafka.RoundRobin{}}
}

func fill(topic string, count int) {
	writer := writer(topic)
	for index := range count {
		Must(writer.WriteMessages(ctx, kafka.Message{Value: fmt.Appendf(nil, "value%d", index)}))
	}
	Must(writer.Close())
}

func read(topic string, count int) []string {
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{Bootstrap}, Topic: topic})
	defer reader.Close()
	var values []string
	for len(values) < count {
		values = append(values, string(Got(reader.ReadMessage(ctx)).Value))
	}
	return values
}

func partitionCount(topic string) int {
	for _, found := range Got(client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})).Topics {
		if found.Error == nil {
			return len(found.Partitions)
		}
	}
	return 0
}

func committed(group, topic string, partitions ...int) int64 {
	request := &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: partitions}}
	found := Got(client.OffsetFetch(ctx, request))
	Must(found.Error)
	total := int64(0)
	for _, partition := range found.Topics[topic] {
		Must(partition.Error)
		total += partition.CommittedOffset
	}
	return total
}

func commit(group string, topics ...string) {
	request := &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{}}
	for _, topic := range topics {
		request.Topics[topic] = []kafka.OffsetCommit{{Partition: 0, Offset: 0}}
	}
	for _, partitions := range Got(client.OffsetCommit(ctx, request)).Topics {
		Must(partitions[0].Error)
	}
}

func topics() {
	name := topic("topics", 2)
	Expect(2, partitionCount(name))
	Expect(true, errors.Is(create(name, 1), kafka.TopicAlreadyExists))
	all(Got(client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}})).Errors)
	Until(func() bool { return partitionCount(name) == 0 })
}

func partitions() {
	name := topic("partitions", 1)
	wanted := []kafka.TopicPartitionsConfig{{Name: name, Count: 3}}
	all(Got(client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: wanted})).Errors)
	Until(func() bool { return partitionCount(name) == 3 })
}

func configs() {
	name := topic("configs", 1)
	wanted := map[string]string{"retention.ms": "60000", "max.message.bytes": "2000"}
	for config, value := range wanted {
		set := kafka.IncrementalAlterConfigsRequestConfig{Name: config, Value: value, ConfigOperation: kafka.ConfigOperationSet}
		resource := kafka.IncrementalAlterConfigsRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: name,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{set}}
		altered := Got(client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
			Resources: []kafka.IncrementalAlterConfigsRequestResource{resource}}))
		Must(altered.Resources[0].Error)
	}
	described := Got(client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: name}}}))
	for _, entry := range described.Resources[0].ConfigEntries {
		if value, altered := wanted[entry.ConfigName]; altered {
			Expect(value, entry.ConfigValue)
			delete(wanted, entry.ConfigName)
		}
	}
	Expect(0, len(wanted))
}

func produce() {
	name := topic("produce", 1)
	var expected []string
	for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		writer := writer(name)
		writer.Compression = codec
		var messages []kafka.Message
		for index := range 100 {
			expected = append(expected, fmt.Sprintf("%d-%d", codec, index))
			messages = append(messages, kafka.Message{Value: []byte(expected[len(expected)-1])})
		}
		Must(writer.WriteMessages(ctx, messages...))
		Must(writer.Close())
	}
	Expect(expected, read(name, 500))
}

func group() {
	name, id := topic("group", 4), Prefix+"group"
	fill(name, 100)
	join := func() *kafka.ConsumerGroup {
		return Got(kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{ID: id, Brokers: []string{Bootstrap}, Topics: []string{name},
			SessionTimeout: 6 * time.Second, HeartbeatInterval: time.Second, StartOffset: kafka.FirstOffset}))
	}
	// A generation ends when its function returns, or when the group rebalances.
	assigned := make(chan [2]int, 100)
	run := func(member int, group *kafka.ConsumerGroup) {
		for {
			generation, err := group.Next(ctx)
			if err != nil {
				return
			}
			offsets := map[int]int64{}
			for _, partition := range generation.Assignments[name] {
				offsets[partition.ID] = 25
			}
			if generation.CommitOffsets(map[string]map[int]int64{name: offsets}) == nil {
				assigned <- [2]int{member, len(offsets)}
			}
			generation.Start(func(ctx context.Context) { <-ctx.Done() })
		}
	}
	members, counts := []*kafka.ConsumerGroup{join(), join()}, [2]int{}
	for index, member := range members {
		go run(index, member)
	}
	wait := func(wanted [2]int) {
		for counts != wanted {
			change := <-assigned
			counts[change[0]] = change[1]
		}
	}
	wait([2]int{2, 2})
	Must(members[1].Close())
	counts[1] = 0
	wait([2]int{4, 0})
	Must(members[0].Close())
	Expect(int64(100), committed(id, name, 0, 1, 2, 3))

	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{Bootstrap}, Topic: name, GroupID: id + "-reader", StartOffset: kafka.FirstOffset})
	for range 100 {
		Must(reader.CommitMessages(ctx, Got(reader.FetchMessage(ctx))))
	}
	Must(reader.Close())
	Expect(int64(100), committed(id+"-reader", name, 0, 1, 2, 3))
}

func transactionOffsets() {
	name, id := topic("transaction-offsets", 1), Prefix+"transaction-offsets"
	initialised := Got(client.InitProducerID(ctx, &kafka.InitProducerIDRequest{TransactionalID: id, TransactionTimeoutMs: 30000}))
	Must(initialised.Error)
	producer := initialised.Producer
	for _, commit := range []bool{false, true} {
		added := Got(client.AddOffsetsToTxn(ctx, &kafka.AddOffsetsToTxnRequest{TransactionalID: id, GroupID: id,
			ProducerID: producer.ProducerID, ProducerEpoch: producer.ProducerEpoch}))
		Must(added.Error)
		sent := Got(client.TxnOffsetCommit(ctx, &kafka.TxnOffsetCommitRequest{TransactionalID: id, GroupID: id, GenerationID: -1,
			ProducerID: producer.ProducerID, ProducerEpoch: producer.ProducerEpoch,
			Topics: map[string][]kafka.TxnOffsetCommit{name: {{Partition: 0, Offset: 7}}}}))
		Must(sent.Topics[name][0].Error)
		Expect(int64(-1), committed(id, name, 0))
		ended := Got(client.EndTxn(ctx, &kafka.EndTxnRequest{TransactionalID: id, Committed: commit,
			ProducerID: producer.ProducerID, ProducerEpoch: producer.ProducerEpoch}))
		Must(ended.Error)
	}
	Until(func() bool { return committed(id, name, 0) == 7 })
}

func deleteGroups() {
	id := Prefix + "delete-groups"
	commit(id, topic("delete-groups", 1))
	all(Got(client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{id}})).Errors)
	listed := Got(client.ListGroups(ctx, &kafka.ListGroupsRequest{}))
	Must(listed.Error)
	for _, group := range listed.Groups {
		Expect(false, group.GroupID == id)
	}
}

func deleteOffsets() {
	id, deleted, kept := Prefix+"delete-offsets", topic("delete-offsets", 1), topic("keep-offsets", 1)
	commit(id, deleted, kept)
	response := Got(client.OffsetDelete(ctx, &kafka.OffsetDeleteRequest{GroupID: id, Topics: map[string][]int{deleted: {0}}}))
	Must(response.Error)
	Must(response.Topics[deleted][0].Error)
	Expect(int64(-1), committed(id, deleted, 0))
	Expect(int64(0), committed(id, kept, 0))
}

func cluster() {
	found := Got(client.Metadata(ctx, &kafka.MetadataRequest{}))
	Expect(1, len(found.Brokers))
	Expect(true, found.ClusterID != "" && found.Controller.ID == found.Brokers[0].ID)
}

func offsets() {
	name := topic("offsets", 1)
	writer := writer(name)
	for _, millis := range []int64{1000, 5000, 3000} {
		Must(writer.WriteMessages(ctx, kafka.Message{Value: []byte("value"), Time: time.UnixMilli(millis)}))
	}
	Must(writer.Close())
	request := &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		name: {kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0), kafka.TimeOffsetOf(0, time.UnixMilli(2000))}}}
	found := Got(client.ListOffsets(ctx, request)).Topics[name][0]
	Must(found.Error)
	_, after := found.Offsets[1]
	Expect([]any{int64(0), int64(3), true}, []any{found.FirstOffset, found.LastOffset, after})
}

func main() {
	Main([]Check{{"topics", topics}, {"partitions", partitions}, {"configs", configs}, {"produce", produce},
		{"group", group}, {"transactions", nil}, {"transaction-offsets", transactionOffsets},
		{"list-transactions", nil}, {"delete-groups", deleteGroups}, {"delete-offsets", deleteOffsets},
		{"delete-records", nil}, {"log-dirs", nil}, {"cluster", cluster}, {"offsets", offsets}})
}

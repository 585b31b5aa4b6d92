// The suite of Sarama, IBM's client, against the broker at BOOTSTRAP.
//
// This file holds what every test is made of and the tests of topics and records, group.go those of consumer groups.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	. "ottla/compat/suite"
)

var codecs = []sarama.CompressionCodec{
	sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
}

// versions are those of Kafka that the client is told to speak as: the oldest with records as they are today, the one
// that it takes by itself, the newest.
var versions = []sarama.KafkaVersion{sarama.V0_11_0_0, sarama.DefaultVersion, sarama.MaxVersion}

type suite struct {
	*Suite
	ctx     context.Context // of the test that runs
	version sarama.KafkaVersion
	client  sarama.Client
	admin   sarama.ClusterAdmin
}

func main() {
	RunChild(&suite{ctx: context.Background(), version: sarama.DefaultVersion})
	s := &suite{Suite: New("sarama"), version: sarama.MaxVersion}
	s.client = Must(sarama.NewClient([]string{Bootstrap}, s.config()))
	s.admin = Must(sarama.NewClusterAdminFromClient(s.client))
	s.test("a topic is created, described, altered and deleted", (*suite).managesATopic)
	for _, codec := range codecs {
		s.test("keys, values, headers and times sent with "+codec.String()+" come back in order", func(s *suite) {
			s.comesBackAsSent(codec)
		})
	}
	for _, version := range versions {
		s.test("an idempotent producer's records come back as Kafka "+version.String()+" speaks", func(s *suite) {
			s.version = version
			s.producesOnce()
		})
	}
	s.test("a record of 900 KB comes back and one over max.message.bytes is too large", (*suite).carriesABigRecord)
	s.test("a consumer starts by offset, by time and at the end; an offset out of range is an error", (*suite).seeks)
	s.test("deleted records are gone and the rest is there", (*suite).deletesRecords)
	s.test("an unknown topic is an error and is not created", (*suite).missesAnUnknownTopic)
	s.groupTests()
	if Broker != "" {
		s.test("after SIGKILL all that was acknowledged is there once and in order, and clients go on", (*suite).survivesAKill)
		s.groupCrashTests()
	}
	s.End()
}

// beside makes a test that others may run beside: it has a suite of its own.
func (s *suite) beside(sentence string, test func(*suite)) Test {
	return Test{Sentence: sentence, Run: func(ctx context.Context) {
		own := *s
		own.ctx = ctx
		test(&own)
	}}
}

func (s *suite) test(sentence string, test func(*suite)) { s.Together(s.beside(sentence, test)) }

// config is that of a client which sends to the partition that a message names.
func (s *suite) config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = s.version
	config.Metadata.AllowAutoTopicCreation = false
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Return.Successes = true
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	return config
}

// create makes a topic and waits until the broker shows it; the answer is its full name.
func (s *suite) create(name string, partitions int32, configs map[string]string) string {
	topic := s.Prefix + name
	detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: map[string]*string{}}
	for key, value := range configs {
		detail.ConfigEntries[key] = &value
	}
	err := s.admin.CreateTopic(topic, detail, false)
	Check(err == nil, "creation of %s: %v", topic, err)
	Until(s.ctx, "creation of "+topic, func() bool {
		found := s.describe(topic)
		return found.Err == sarama.ErrNoError && len(found.Partitions) == int(partitions)
	})
	return topic
}

func (s *suite) describe(topic string) *sarama.TopicMetadata {
	return Must(s.admin.DescribeTopics([]string{topic}))[0]
}

func (s *suite) managesATopic() {
	topic := s.create("managed", 3, map[string]string{"retention.ms": "7200000"})
	listed, ok := Must(s.admin.ListTopics())[topic]
	Check(ok, "it is not listed")
	Equal("partitions", 3, listed.NumPartitions)
	Equal("replication factor", 1, listed.ReplicationFactor)
	Equal("retention.ms", "7200000", *listed.ConfigEntries["retention.ms"])
	again := s.admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
	Fails("creation of the same", sarama.ErrTopicAlreadyExists, again)

	value := "3600000"
	err := s.admin.IncrementalAlterConfig(sarama.TopicResource, topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}, false)
	Check(err == nil, "alter: %v", err)
	Until(s.ctx, "the altered config", func() bool {
		resource := sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}}
		configs := Must(s.admin.DescribeConfig(resource))
		return len(configs) == 1 && configs[0].Value == value
	})
	err = s.admin.CreatePartitions(topic, 5, nil, false)
	Check(err == nil, "partitions: %v", err)
	Until(s.ctx, "5 partitions", func() bool { return len(s.describe(topic).Partitions) == 5 })

	err = s.admin.DeleteTopic(topic)
	Check(err == nil, "deletion: %v", err)
	Until(s.ctx, "deletion", func() bool {
		_, listed := Must(s.admin.ListTopics())[topic]
		return !listed
	})
	Fails("deletion of nothing", sarama.ErrUnknownTopicOrPartition, s.admin.DeleteTopic(topic))
}

// message is the n-th of the messages that tests send: 10 ms apart, some without value, with headers.
func message(topic string, partition int32, n int) *sarama.ProducerMessage {
	message := &sarama.ProducerMessage{
		Topic:     topic,
		Partition: partition,
		Key:       sarama.StringEncoder(fmt.Sprint("key-", n)),
		Timestamp: Start.Add(time.Duration(n) * 10 * time.Millisecond),
	}
	if n%7 != 6 {
		message.Value = sarama.StringEncoder(fmt.Sprintf("value of record %d é中", n))
	}
	if n%4 == 1 {
		message.Headers = []sarama.RecordHeader{
			{Key: []byte("twice"), Value: []byte("a")}, {Key: []byte("twice"), Value: []byte("b")},
			{Key: []byte("empty"), Value: []byte{}},
		}
	}
	return message
}

func messages(topic string, partition int32, first, end int) []*sarama.ProducerMessage {
	var made []*sarama.ProducerMessage
	for n := first; n < end; n++ {
		made = append(made, message(topic, partition, n))
	}
	return made
}

func (s *suite) produce(config *sarama.Config, messages []*sarama.ProducerMessage) error {
	producer := Must(sarama.NewSyncProducer([]string{Bootstrap}, config))
	defer producer.Close()
	return producer.SendMessages(messages)
}

func (s *suite) mustProduce(config *sarama.Config, messages []*sarama.ProducerMessage) {
	err := s.produce(config, messages)
	Check(err == nil, "produce: %v", err)
}

// read gets a partition from an offset to its end.
func (s *suite) read(topic string, partition int32, offset int64) []*sarama.ConsumerMessage {
	consumer := Must(sarama.NewConsumer([]string{Bootstrap}, s.config()))
	defer consumer.Close()
	claim := Must(consumer.ConsumePartition(topic, partition, offset))
	defer claim.Close()
	first := offset
	if offset == sarama.OffsetOldest {
		first = Must(s.client.GetOffset(topic, partition, sarama.OffsetOldest))
	}
	end := Must(s.client.GetOffset(topic, partition, sarama.OffsetNewest))
	read := s.take(claim.Messages(), int(end-first))
	for n, message := range read {
		Equal("offset", first+int64(n), message.Offset)
	}
	return read
}

func (s *suite) take(from <-chan *sarama.ConsumerMessage, count int) []*sarama.ConsumerMessage {
	var taken []*sarama.ConsumerMessage
	for len(taken) < count {
		select {
		case message := <-from:
			taken = append(taken, message)
		case <-s.ctx.Done():
			Failf("%d of %d records came in time", len(taken), count)
		}
	}
	return taken
}

// comesBack compares what was sent to one partition with what was read from it.
func comesBack(sent []*sarama.ProducerMessage, received []*sarama.ConsumerMessage) {
	Equal("records", len(sent), len(received))
	for n, want := range sent {
		got := received[n]
		at := fmt.Sprintf(" at offset %d of %s-%d", got.Offset, got.Topic, got.Partition)
		same := func(what string, want sarama.Encoder, got []byte) {
			if want == nil {
				Check(got == nil, "%s%s: %q instead of none", what, at, got)
				return
			}
			Check(bytes.Equal(Must(want.Encode()), got), "%s%s: %q instead of %q", what, at, got, want)
		}
		same("key", want.Key, got.Key)
		same("value", want.Value, got.Value)
		Check(slices.EqualFunc(want.Headers, got.Headers, func(a sarama.RecordHeader, b *sarama.RecordHeader) bool {
			return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
		}), "headers%s: %v instead of %v", at, got.Headers, want.Headers)
		Equal("time"+at, want.Timestamp.UnixMilli(), got.Timestamp.UnixMilli())
	}
}

func (s *suite) comesBackAsSent(codec sarama.CompressionCodec) {
	topic := s.create("codec-"+codec.String(), 3, nil)
	config := s.config()
	config.Producer.Compression = codec
	config.Producer.Partitioner = sarama.NewHashPartitioner
	sent := messages(topic, 0, 0, 500)
	s.mustProduce(config, sent)
	for partition := range int32(3) {
		// The producer has noted the partitions that it chose.
		var want []*sarama.ProducerMessage
		for _, message := range sent {
			if message.Partition == partition {
				Equal("acknowledged offset", int64(len(want)), message.Offset)
				want = append(want, message)
			}
		}
		Check(len(want) > 0, "no key belongs to partition %d", partition)
		comesBack(want, s.read(topic, partition, sarama.OffsetOldest))
	}
}

func (s *suite) idempotent() *sarama.Config {
	config := s.config()
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	return config
}

func (s *suite) producesOnce() {
	topic := s.create("once-"+s.version.String(), 1, nil)
	config := s.idempotent()
	config.Producer.Flush.MaxMessages = 10
	sent := messages(topic, 0, 0, 500)
	s.mustProduce(config, sent)
	comesBack(sent, s.read(topic, 0, sarama.OffsetOldest))
}

func (s *suite) carriesABigRecord() {
	big := func(topic string) []*sarama.ProducerMessage {
		value := bytes.Repeat([]byte("0123456789"), 90_000)
		return []*sarama.ProducerMessage{{Topic: topic, Value: sarama.ByteEncoder(value), Timestamp: Start}}
	}
	topic := s.create("big", 1, nil)
	s.mustProduce(s.config(), big(topic))
	comesBack(big(topic), s.read(topic, 0, sarama.OffsetOldest))

	narrow := s.create("narrow", 1, map[string]string{"max.message.bytes": "10000"})
	err := s.produce(s.config(), big(narrow))
	var each sarama.ProducerErrors
	Check(errors.As(err, &each), "900 KB: %v", err)
	Fails("900 KB", sarama.ErrMessageSizeTooLarge, each[0].Err)
	Equal("end", 0, Must(s.client.GetOffset(narrow, 0, sarama.OffsetNewest)))
}

func (s *suite) seeks() {
	topic := s.create("seek", 1, nil)
	sent := messages(topic, 0, 0, 100)
	s.mustProduce(s.config(), sent)
	comesBack(sent[40:], s.read(topic, 0, 40))
	late := Must(s.client.GetOffset(topic, 0, Start.UnixMilli()+501))
	Equal("offset of a time", 51, late)
	comesBack(sent[late:], s.read(topic, 0, late))

	consumer := Must(sarama.NewConsumer([]string{Bootstrap}, s.config()))
	defer consumer.Close()
	newest := Must(consumer.ConsumePartition(topic, 0, sarama.OffsetNewest))
	defer newest.Close()
	s.mustProduce(s.config(), messages(topic, 0, 100, 110))
	comesBack(messages(topic, 0, 100, 110), s.take(newest.Messages(), 10))
	other := Must(sarama.NewConsumer([]string{Bootstrap}, s.config()))
	defer other.Close()
	_, err := other.ConsumePartition(topic, 0, 111)
	Fails("an offset beyond the end", sarama.ErrOffsetOutOfRange, err)
}

func (s *suite) deletesRecords() {
	topic := s.create("delete-records", 1, nil)
	s.mustProduce(s.config(), messages(topic, 0, 0, 100))
	err := s.admin.DeleteRecords(topic, map[int32]int64{0: 42})
	Check(err == nil, "deletion: %v", err)
	Equal("start", 42, Must(s.client.GetOffset(topic, 0, sarama.OffsetOldest)))
	comesBack(messages(topic, 0, 42, 100), s.read(topic, 0, sarama.OffsetOldest))
}

func (s *suite) missesAnUnknownTopic() {
	topic := s.Prefix + "unknown"
	Fails("describe", sarama.ErrUnknownTopicOrPartition, s.describe(topic).Err)
	config := s.config()
	config.Metadata.Retry.Max, config.Producer.Retry.Max = 0, 0
	var each sarama.ProducerErrors
	err := s.produce(config, messages(topic, 0, 0, 1))
	Check(errors.As(err, &each), "produce: %v", err)
	Fails("produce", sarama.ErrUnknownTopicOrPartition, each[0].Err)
	_, listed := Must(s.admin.ListTopics())[topic]
	Check(!listed, "it has been created")
}

func (s *suite) survivesAKill() {
	topic := s.create("killed", 1, nil)
	config := s.idempotent()
	config.Producer.Retry.Max, config.Producer.Retry.Backoff = 1000, 50*time.Millisecond
	producer := Must(sarama.NewAsyncProducer([]string{Bootstrap}, config))
	// Half of the records are under way or still to be sent when the broker is killed.
	const count = 4000
	go func() {
		for _, message := range messages(topic, 0, 0, count) {
			producer.Input() <- message
		}
	}()
	acknowledged := func(upTo int) {
		for n := upTo - count/2; n < upTo; n++ {
			select {
			case message := <-producer.Successes():
				Equal("acknowledged offset", int64(n), message.Offset)
			case failed := <-producer.Errors():
				Failf("produce: %v", failed)
			case <-s.ctx.Done():
				Failf("%d of %d records are acknowledged in time", n, count)
			}
		}
	}
	acknowledged(count / 2)
	err := Restart(s.ctx)
	Check(err == nil, "restart: %v", err)
	acknowledged(count)
	producer.AsyncClose()
	comesBack(messages(topic, 0, 0, count), s.read(topic, 0, sarama.OffsetOldest))
	s.mustProduce(s.config(), messages(topic, 0, count, count+10))
	comesBack(messages(topic, 0, count, count+10), s.read(topic, 0, count))
}

// The suite of kafka-go, segmentio's client, against the broker at BOOTSTRAP.
//
// This file holds what every test is made of and the tests of topics and records, group.go those of consumer groups.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"

	. "ottla/compat/suite"
)

var codecs = []kafka.Compression{compress.None, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}

type suite struct {
	*Suite
	ctx    context.Context // of the test that runs
	client *kafka.Client
}

func newSuite(s *Suite) *suite {
	return &suite{Suite: s, ctx: context.Background(), client: &kafka.Client{Addr: kafka.TCP(Bootstrap)}}
}

func main() {
	RunChild(newSuite(nil))
	s := newSuite(New("kafka-go"))
	s.test("a topic is created, described and deleted", (*suite).managesATopic)
	for _, codec := range codecs {
		s.test("keys, values, headers and times sent with "+codec.String()+" come back in order", func(s *suite) {
			s.comesBackAsSent(codec)
		})
	}
	s.test("a record of 900 KB comes back and one over max.message.bytes is too large", (*suite).carriesABigRecord)
	s.test("a reader starts by offset, by time and at the end", (*suite).seeks)
	s.test("an unknown topic is an error and is not created", (*suite).missesAnUnknownTopic)
	s.groupTests()
	if Broker != "" {
		s.test("after SIGKILL all that was acknowledged is there in order, and clients go on", (*suite).survivesAKill)
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

func (s *suite) metadata(topics ...string) []kafka.Topic {
	return Must(s.client.Metadata(s.ctx, &kafka.MetadataRequest{Topics: topics})).Topics
}

func (s *suite) createTopic(config kafka.TopicConfig) error {
	config.ReplicationFactor = 1
	created := Must(s.client.CreateTopics(s.ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}}))
	return created.Errors[config.Topic]
}

// create makes a topic and waits until the broker shows it; the answer is its full name.
func (s *suite) create(name string, partitions int, configs ...kafka.ConfigEntry) string {
	topic := s.Prefix + name
	err := s.createTopic(kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ConfigEntries: configs})
	Check(err == nil, "creation of %s: %v", topic, err)
	Until(s.ctx, "creation of "+topic, func() bool {
		found := s.metadata(topic)[0]
		return found.Error == nil && !slices.ContainsFunc(found.Partitions, func(partition kafka.Partition) bool {
			return partition.Error != nil
		})
	})
	return topic
}

func (s *suite) deleteTopic(topic string) error {
	return Must(s.client.DeleteTopics(s.ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})).Errors[topic]
}

func (s *suite) managesATopic() {
	topic := s.create("managed", 3, kafka.ConfigEntry{ConfigName: "retention.ms", ConfigValue: "7200000"})
	found := s.metadata(topic)[0]
	Equal("partitions", 3, len(found.Partitions))
	for _, partition := range found.Partitions {
		Equal("leader", Bootstrap, fmt.Sprintf("%s:%d", partition.Leader.Host, partition.Leader.Port))
	}
	described := Must(s.client.DescribeConfigs(s.ctx, &kafka.DescribeConfigsRequest{
		Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"retention.ms"},
		}},
	}))
	Equal("retention.ms", "7200000", described.Resources[0].ConfigEntries[0].ConfigValue)
	again := s.createTopic(kafka.TopicConfig{Topic: topic, NumPartitions: 1})
	Fails("creation of the same", kafka.TopicAlreadyExists, again)
	empty := s.createTopic(kafka.TopicConfig{Topic: topic + "-none"})
	Fails("creation without partitions", kafka.InvalidPartitionNumber, empty)
	err := s.deleteTopic(topic)
	Check(err == nil, "deletion: %v", err)
	Until(s.ctx, "deletion", func() bool {
		return !slices.ContainsFunc(s.metadata(), func(listed kafka.Topic) bool { return listed.Name == topic })
	})
	Fails("deletion of nothing", kafka.UnknownTopicOrPartition, s.deleteTopic(topic))
}

// message is the n-th of the messages that tests send: 10 ms apart, some without value, with headers.
func message(n int) kafka.Message {
	message := kafka.Message{
		Key:  fmt.Appendf(nil, "key-%d", n),
		Time: Start.Add(time.Duration(n) * 10 * time.Millisecond),
	}
	if n%7 != 6 {
		message.Value = fmt.Appendf(nil, "value of record %d é中", n)
	}
	if n%4 == 1 {
		message.Headers = []kafka.Header{
			{Key: "twice", Value: []byte("a")}, {Key: "twice", Value: []byte("b")}, {Key: "empty", Value: []byte{}},
		}
	}
	return message
}

func messages(first, end int) []kafka.Message {
	var made []kafka.Message
	for n := first; n < end; n++ {
		made = append(made, message(n))
	}
	return made
}

// writer sends to the partition that its balancer chooses, or by a hash of the key if that is nil.
func (s *suite) writer(topic string, balancer kafka.Balancer, codec kafka.Compression) *kafka.Writer {
	if balancer == nil {
		balancer = &kafka.Hash{}
	}
	return &kafka.Writer{
		Addr:         kafka.TCP(Bootstrap),
		Topic:        topic,
		Balancer:     balancer,
		RequiredAcks: kafka.RequireAll,
		BatchTimeout: time.Millisecond,
		Compression:  codec,
	}
}

// to is the balancer that chooses always one partition.
type to int

func (t to) Balance(kafka.Message, ...int) int { return int(t) }

func (s *suite) write(topic string, partition int, messages ...kafka.Message) {
	writer := s.writer(topic, to(partition), compress.None)
	defer writer.Close()
	err := writer.WriteMessages(s.ctx, messages...)
	Check(err == nil, "produce: %v", err)
}

func (s *suite) reader(topic string, partition int) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers:   []string{Bootstrap},
		Topic:     topic,
		Partition: partition,
		MaxWait:   100 * time.Millisecond,
		MaxBytes:  10_000_000,
	})
}

func (s *suite) fetch(reader *kafka.Reader, count int) []kafka.Message {
	var messages []kafka.Message
	for range count {
		messages = append(messages, Must(reader.FetchMessage(s.ctx)))
	}
	return messages
}

// offsets are the first offset of a partition and that after its last record.
func (s *suite) offsets(topic string, partition int) (first, end int64) {
	listed := Must(s.client.ListOffsets(s.ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
	}}))
	offsets := listed.Topics[topic][0]
	Check(offsets.Error == nil, "offsets of partition %d: %v", partition, offsets.Error)
	return offsets.FirstOffset, offsets.LastOffset
}

// read gets a whole partition.
func (s *suite) read(topic string, partition int) []kafka.Message {
	first, end := s.offsets(topic, partition)
	reader := s.reader(topic, partition)
	defer reader.Close()
	read := s.fetch(reader, int(end-first))
	for n, message := range read {
		Equal("offset", first+int64(n), message.Offset)
	}
	return read
}

// comesBack compares what was sent to one partition with what was read from it.
func comesBack(sent, received []kafka.Message) {
	Equal("records", len(sent), len(received))
	for n, want := range sent {
		got := received[n]
		at := fmt.Sprintf(" at offset %d of %s-%d", got.Offset, got.Topic, got.Partition)
		Check(bytes.Equal(want.Key, got.Key), "key%s: %q instead of %q", at, got.Key, want.Key)
		Check(bytes.Equal(want.Value, got.Value), "value%s: %q instead of %q", at, got.Value, want.Value)
		Check((want.Value == nil) == (got.Value == nil), "value%s: %#v instead of %#v", at, got.Value, want.Value)
		Check(slices.EqualFunc(want.Headers, got.Headers, func(a, b kafka.Header) bool {
			return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
		}), "headers%s: %q instead of %q", at, got.Headers, want.Headers)
		Equal("time"+at, want.Time.UnixMilli(), got.Time.UnixMilli())
	}
}

func (s *suite) comesBackAsSent(codec kafka.Compression) {
	topic := s.create("codec-"+codec.String(), 3)
	sent := messages(0, 500)
	writer := s.writer(topic, nil, codec)
	defer writer.Close()
	err := writer.WriteMessages(s.ctx, sent...)
	Check(err == nil, "produce: %v", err)
	total := 0
	for partition := range 3 {
		var want []kafka.Message
		for _, message := range sent {
			if (&kafka.Hash{}).Balance(message, 0, 1, 2) == partition {
				want = append(want, message)
			}
		}
		comesBack(want, s.read(topic, partition))
		total += len(want)
	}
	Equal("records in all", len(sent), total)
}

func (s *suite) carriesABigRecord() {
	topic := s.create("big", 1)
	big := kafka.Message{Value: bytes.Repeat([]byte("0123456789"), 90_000), Time: Start}
	writer := s.writer(topic, nil, compress.None)
	defer writer.Close()
	err := writer.WriteMessages(s.ctx, big)
	Check(err == nil, "900 KB: %v", err)
	comesBack([]kafka.Message{big}, s.read(topic, 0))

	narrow := s.create("narrow", 1, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "10000"})
	refusing := s.writer(narrow, nil, compress.None)
	defer refusing.Close()
	err = refusing.WriteMessages(s.ctx, big)
	var each kafka.WriteErrors
	Check(errors.As(err, &each), "900 KB: %v", err)
	Fails("900 KB", kafka.MessageSizeTooLarge, each[0])
	Equal("records", 0, len(s.read(narrow, 0)))
}

func (s *suite) seeks() {
	topic := s.create("seek", 1)
	sent := messages(0, 100)
	s.write(topic, 0, sent...)
	reader := s.reader(topic, 0)
	defer reader.Close()
	for what, seek := range map[string]struct {
		to    func() error
		first int
	}{
		"offset 40": {func() error { return reader.SetOffset(40) }, 40},
		"the start": {func() error { return reader.SetOffset(kafka.FirstOffset) }, 0},
		"a time":    {func() error { return reader.SetOffsetAt(s.ctx, Start.Add(501*time.Millisecond)) }, 51},
	} {
		err := seek.to()
		Check(err == nil, "%s: %v", what, err)
		read := s.fetch(reader, 100-seek.first)
		Equal("first offset from "+what, int64(seek.first), read[0].Offset)
		comesBack(sent[seek.first:], read)
	}
	lag := Must(reader.ReadLag(s.ctx))
	Equal("lag at the end", 0, lag)

	// What is between two offsets, without a reader: the fetch at the end waits for more and then ends.
	fetched := Must(s.client.Fetch(s.ctx, &kafka.FetchRequest{Topic: topic, Offset: 100, MinBytes: 1, MaxBytes: 1 << 20,
		MaxWait: 10 * time.Millisecond}))
	Check(fetched.Error == nil, "fetch at the end: %v", fetched.Error)
	Equal("high watermark", 100, fetched.HighWatermark)
	_, err := fetched.Records.ReadRecord()
	Fails("records at the end", io.EOF, err)
	outside := Must(s.client.Fetch(s.ctx, &kafka.FetchRequest{Topic: topic, Offset: 101, MinBytes: 1, MaxBytes: 1 << 20}))
	Fails("fetch beyond the end", kafka.OffsetOutOfRange, outside.Error)
}

func (s *suite) missesAnUnknownTopic() {
	topic := s.Prefix + "unknown"
	Fails("metadata", kafka.UnknownTopicOrPartition, s.metadata(topic)[0].Error)
	writer := s.writer(topic, nil, compress.None)
	writer.MaxAttempts = 1
	defer writer.Close()
	Fails("produce", kafka.UnknownTopicOrPartition, writer.WriteMessages(s.ctx, message(0)))
	Check(!slices.ContainsFunc(s.metadata(), func(listed kafka.Topic) bool { return listed.Name == topic }),
		"it has been created")
}

func (s *suite) survivesAKill() {
	topic := s.create("killed", 1)
	writer := s.writer(topic, nil, compress.None)
	defer writer.Close()
	writer.MaxAttempts, writer.WriteBackoffMax = 1000, 50*time.Millisecond
	restarted := make(chan error, 1)
	var sent []kafka.Message
	for down := true; down; {
		if len(sent) == 200 {
			go func() { restarted <- Restart(s.ctx) }()
		}
		sent = append(sent, message(len(sent)))
		err := writer.WriteMessages(s.ctx, sent[len(sent)-1])
		Check(err == nil, "produce: %v", err)
		select {
		case err := <-restarted:
			Check(err == nil, "restart: %v", err)
			down = false
		default:
		}
	}
	next := messages(len(sent), len(sent)+10)
	err := writer.WriteMessages(s.ctx, next...)
	Check(err == nil, "produce after the restart: %v", err)
	sent = append(sent, next...)
	// Without an idempotent producer a record may be there twice: stored when the kill took its acknowledgement.
	received := s.read(topic, 0)
	comesBack(sent, slices.CompactFunc(received, func(a, b kafka.Message) bool { return bytes.Equal(a.Key, b.Key) }))
}

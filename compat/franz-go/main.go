// The suite of franz-go (kgo, kadm, kmsg) against the broker at BOOTSTRAP.
//
// This file holds what every test is made of; client.go the tests that use the clients as an application does,
// group.go those of consumer groups, share.go those of share groups, raw.go and rawgroup.go those that send single requests.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	. "ottla/compat/suite"
)

type suite struct {
	*Suite
	ctx    context.Context // of the test that runs
	client *kgo.Client
	admin  *kadm.Client
}

func main() {
	RunChild(&suite{ctx: context.Background()})
	s := &suite{Suite: New("franz-go")}
	s.client = s.newClient()
	s.admin = kadm.NewClient(s.client)
	s.clientTests()
	s.rawTests()
	s.groupTests()
	s.shareTests()
	if Broker != "" {
		s.test("after SIGKILL all that was acknowledged is there once and in order, and clients go on", s.survivesAKill)
		s.groupCrashTests()
		s.shareCrashTests()
	}
	s.client.Close()
	s.End()
}

// test runs one that nothing else runs beside.
func (s *suite) test(sentence string, test func()) {
	s.Test(sentence, func(ctx context.Context) {
		s.ctx = ctx
		test()
	})
}

// beside makes a test that others may run beside: it has a suite of its own.
func (s *suite) beside(sentence string, test func(*suite)) Test {
	return Test{Sentence: sentence, Run: func(ctx context.Context) {
		own := *s
		own.ctx = ctx
		test(&own)
	}}
}

func (s *suite) until(what string, condition func() bool) { Until(s.ctx, what, condition) }

// newClient makes a client that produces to the partition a record names.
func (s *suite) newClient(options ...kgo.Opt) *kgo.Client {
	return Must(kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(Bootstrap),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(50 * time.Millisecond),
	}, options...)...))
}

// create makes a topic and waits until the broker shows it; the answer is its full name.
func (s *suite) create(name string, partitions int32, configs map[string]string) string {
	topic := s.Prefix + name
	values := map[string]*string{}
	for key, value := range configs {
		values[key] = &value
	}
	Must(s.admin.CreateTopic(s.ctx, partitions, 1, values, topic))
	s.until("creation of "+topic, func() bool {
		return s.describe(topic).Err == nil && Must(s.admin.ListEndOffsets(s.ctx, topic)).Error() == nil
	})
	return topic
}

func (s *suite) describe(topic string) kadm.TopicDetail {
	return Must(s.admin.ListTopics(s.ctx, topic))[topic]
}

func (s *suite) config(topic, name string) kadm.Config {
	configs := Must(Must(s.admin.DescribeTopicConfigs(s.ctx, topic)).On(topic, nil))
	Check(configs.Err == nil, "configs of %s: %v", topic, configs.Err)
	at := slices.IndexFunc(configs.Configs, func(config kadm.Config) bool { return config.Key == name })
	Check(at >= 0, "%s has no config %s", topic, name)
	return configs.Configs[at]
}

// message is the n-th of the messages that tests send: 10 ms apart, some without key, without value, with headers.
func message(topic string, partition int32, n int) *kgo.Record {
	record := &kgo.Record{
		Topic:     topic,
		Partition: partition,
		Timestamp: Start.Add(time.Duration(n) * 10 * time.Millisecond),
	}
	if n%5 != 3 {
		record.Key = fmt.Appendf(nil, "key-%d-%d", partition, n)
	}
	if n%7 != 6 {
		record.Value = fmt.Appendf(nil, "value of record %d in partition %d é中", n, partition)
	}
	switch n % 4 {
	case 1:
		record.Headers = []kgo.RecordHeader{{Key: "trace", Value: fmt.Appendf(nil, "id-%d", n)}}
	case 2:
		record.Headers = []kgo.RecordHeader{
			{Key: "twice", Value: []byte("a")}, {Key: "twice", Value: []byte("b")},
			{Key: "nothing", Value: nil}, {Key: "empty", Value: []byte{}},
		}
	}
	return record
}

// messages makes those from the first to before the last number.
func messages(topic string, partition int32, first, end int) []*kgo.Record {
	var made []*kgo.Record
	for n := first; n < end; n++ {
		made = append(made, message(topic, partition, n))
	}
	return made
}

// produce sends all and then waits for all: what is for one partition and fits leaves in one batch.
func (s *suite) produce(records []*kgo.Record, options ...kgo.Opt) error {
	// Flushed earlier, a batch could leave while records still wait for the client to learn the topic's partitions.
	ready := make(readyRecords, 2*len(records))
	client := s.newClient(append([]kgo.Opt{
		kgo.ManualFlushing(), kgo.MaxBufferedRecords(20_000), kgo.WithHooks(ready),
	}, options...)...)
	defer client.Close()
	var first kgo.FirstErrPromise
	for _, record := range records {
		note := first.Promise()
		client.Produce(s.ctx, record, func(record *kgo.Record, err error) {
			ready <- struct{}{}
			note(record, err)
		})
	}
	for range records {
		<-ready
	}
	if err := client.Flush(s.ctx); err != nil {
		return err
	}
	return first.Err()
}

// readyRecords receives something for each record that has its place in a batch or has failed.
type readyRecords chan struct{}

func (r readyRecords) OnProduceRecordPartitioned(*kgo.Record, int32) { r <- struct{}{} }

func (s *suite) mustProduce(records []*kgo.Record, options ...kgo.Opt) {
	if err := s.produce(records, options...); err != nil {
		Failf("produce: %v", err)
	}
}

func from(topic string, partition int32, offset kgo.Offset) kgo.Opt {
	return kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: offset}})
}

// read gets all from an offset to the end of the partition: count records with dense offsets.
func (s *suite) read(topic string, partition int32, offset int64, count int, options ...kgo.Opt) []*kgo.Record {
	client := s.newClient(append(options, from(topic, partition, kgo.NewOffset().At(offset)))...)
	defer client.Close()
	records := s.poll(client, count)
	end, _ := Must(s.admin.ListEndOffsets(s.ctx, topic)).Lookup(topic, partition)
	Equal("end of the partition", offset+int64(count), end.Offset)
	for n, record := range records {
		Equal("offset", offset+int64(n), record.Offset)
	}
	return records
}

// poll gets exactly count records.
func (s *suite) poll(client *kgo.Client, count int) []*kgo.Record {
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollRecords(s.ctx, count-len(records))
		if err := fetches.Err(); err != nil {
			Failf("%v after %d of %d records", err, len(records), count)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// comesBack compares what was sent to one partition with what was read from it.
func comesBack(sent, received []*kgo.Record) {
	Equal("records", len(sent), len(received))
	for n, want := range sent {
		got := received[n]
		at := fmt.Sprintf(" of record %d at offset %d of %s-%d", n, got.Offset, got.Topic, got.Partition)
		Equal("topic"+at, want.Topic, got.Topic)
		Equal("partition"+at, want.Partition, got.Partition)
		Check(same(want.Key, got.Key), "key%s: %q instead of %q", at, got.Key, want.Key)
		Check(same(want.Value, got.Value), "value%s: %q instead of %q", at, got.Value, want.Value)
		Check(slices.EqualFunc(want.Headers, got.Headers, func(a, b kgo.RecordHeader) bool {
			return a.Key == b.Key && same(a.Value, b.Value)
		}), "headers%s: %q instead of %q", at, got.Headers, want.Headers)
		Equal("time"+at, want.Timestamp.UnixMilli(), got.Timestamp.UnixMilli())
	}
}

// same also tells nothing from empty.
func same(a, b []byte) bool {
	return (a == nil) == (b == nil) && bytes.Equal(a, b)
}

// sorted orders records of several partitions by partition, each in the order it has.
func sorted(records []*kgo.Record) []*kgo.Record {
	slices.SortStableFunc(records, func(a, b *kgo.Record) int { return cmp.Compare(a.Partition, b.Partition) })
	return records
}

// batchLog notes the batches that a client has read.
type batchLog struct {
	mutex   sync.Mutex
	batches []kgo.FetchBatchMetrics
}

func (l *batchLog) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, batch kgo.FetchBatchMetrics) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.batches = append(l.batches, batch)
}

// holds checks that all was read as one batch of that codec. The client may have read it more than once.
func (l *batchLog) holds(records int, codec uint8) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	Check(len(l.batches) > 0, "no batch was read")
	for _, batch := range l.batches {
		Equal("records in the batch", records, batch.NumRecords)
		Equal("codec of the batch", codec, batch.CompressionType)
	}
}

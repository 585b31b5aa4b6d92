// The suite of franz-go (kgo, kadm, kmsg) against the broker at BOOTSTRAP, without consumer groups.
//
// This file holds what every test is made of; client.go the tests that use the clients as an application does,
// raw.go those that send single requests.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// deadline bounds each test: whatever waits, waits on the suite's context.
const deadline = 60 * time.Second

// start is where the timestamps of a test begin: a whole second, far enough back that no broker finds a record in the
// future, and well within 24 hours, after which Kafka forgets a producer by the times of its records.
var start = time.Now().Truncate(time.Second).Add(-time.Hour)

type suite struct {
	ctx       context.Context // of the test that runs
	bootstrap string
	broker    string // command that takes `restart` (SIGKILL, then a start on the same port and data); "" if not ours
	prefix    string // of the names of this run's topics
	client    *kgo.Client
	admin     *kadm.Client
	failed    int
}

func main() {
	s := &suite{
		bootstrap: os.Getenv("BOOTSTRAP"),
		broker:    os.Getenv("BROKER"),
		prefix:    "franz-go-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-",
	}
	if s.bootstrap == "" {
		fmt.Fprintln(os.Stderr, "BOOTSTRAP is not set")
		os.Exit(2)
	}
	s.client = s.newClient()
	s.admin = kadm.NewClient(s.client)
	s.clientTests()
	s.rawTests()
	if s.broker != "" {
		s.test("after SIGKILL all that was acknowledged is there once and in order, and clients go on", s.survivesAKill)
	}
	s.client.Close()
	if s.failed > 0 {
		os.Exit(1)
	}
}

// failure is the reason of a failed test; failf ends the test with it.
type failure string

func failf(format string, arguments ...any) {
	panic(failure(fmt.Sprintf(format, arguments...)))
}

func (s *suite) test(sentence string, test func()) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	s.ctx = ctx
	defer func() {
		switch why := recover().(type) {
		case nil:
			fmt.Println("PASS franz-go", sentence)
		case failure:
			s.failed++
			fmt.Printf("FAIL franz-go %s: %s\n", sentence, strings.ReplaceAll(string(why), "\n", " "))
		default:
			panic(why)
		}
	}()
	test()
}

func must[T any](value T, err error) T {
	if err != nil {
		failf("%v", err)
	}
	return value
}

func check(condition bool, format string, arguments ...any) {
	if !condition {
		failf(format, arguments...)
	}
}

func equal[T comparable](what string, want, got T) {
	check(want == got, "%s: %v instead of %v", what, got, want)
}

func fails(what string, want, got error) {
	check(errors.Is(got, want), "%s: %v instead of %v", what, got, want)
}

// until asks again until it is so: what an admin call changes may take a moment to be seen.
func (s *suite) until(what string, condition func() bool) {
	for !condition() {
		check(s.ctx.Err() == nil, "%s is not seen in time", what)
	}
}

// newClient makes a client that produces to the partition a record names.
func (s *suite) newClient(options ...kgo.Opt) *kgo.Client {
	return must(kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(s.bootstrap),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(50 * time.Millisecond),
	}, options...)...))
}

// create makes a topic and waits until the broker shows it; the answer is its full name.
func (s *suite) create(name string, partitions int32, configs map[string]string) string {
	topic := s.prefix + name
	values := map[string]*string{}
	for key, value := range configs {
		values[key] = &value
	}
	must(s.admin.CreateTopic(s.ctx, partitions, 1, values, topic))
	s.until("creation of "+topic, func() bool {
		return s.describe(topic).Err == nil && must(s.admin.ListEndOffsets(s.ctx, topic)).Error() == nil
	})
	return topic
}

func (s *suite) describe(topic string) kadm.TopicDetail {
	return must(s.admin.ListTopics(s.ctx, topic))[topic]
}

func (s *suite) config(topic, name string) kadm.Config {
	configs := must(must(s.admin.DescribeTopicConfigs(s.ctx, topic)).On(topic, nil))
	check(configs.Err == nil, "configs of %s: %v", topic, configs.Err)
	at := slices.IndexFunc(configs.Configs, func(config kadm.Config) bool { return config.Key == name })
	check(at >= 0, "%s has no config %s", topic, name)
	return configs.Configs[at]
}

// message is the n-th of the messages that tests send: 10 ms apart, some without key, without value, with headers.
func message(topic string, partition int32, n int) *kgo.Record {
	record := &kgo.Record{
		Topic:     topic,
		Partition: partition,
		Timestamp: start.Add(time.Duration(n) * 10 * time.Millisecond),
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
		failf("produce: %v", err)
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
	end, _ := must(s.admin.ListEndOffsets(s.ctx, topic)).Lookup(topic, partition)
	equal("end of the partition", offset+int64(count), end.Offset)
	for n, record := range records {
		equal("offset", offset+int64(n), record.Offset)
	}
	return records
}

// poll gets exactly count records.
func (s *suite) poll(client *kgo.Client, count int) []*kgo.Record {
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollRecords(s.ctx, count-len(records))
		if err := fetches.Err(); err != nil {
			failf("%v after %d of %d records", err, len(records), count)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// comesBack compares what was sent to one partition with what was read from it.
func comesBack(sent, received []*kgo.Record) {
	equal("records", len(sent), len(received))
	for n, want := range sent {
		got := received[n]
		at := fmt.Sprintf(" of record %d at offset %d of %s-%d", n, got.Offset, got.Topic, got.Partition)
		equal("topic"+at, want.Topic, got.Topic)
		equal("partition"+at, want.Partition, got.Partition)
		check(same(want.Key, got.Key), "key%s: %q instead of %q", at, got.Key, want.Key)
		check(same(want.Value, got.Value), "value%s: %q instead of %q", at, got.Value, want.Value)
		check(slices.EqualFunc(want.Headers, got.Headers, func(a, b kgo.RecordHeader) bool {
			return a.Key == b.Key && same(a.Value, b.Value)
		}), "headers%s: %q instead of %q", at, got.Headers, want.Headers)
		equal("time"+at, want.Timestamp.UnixMilli(), got.Timestamp.UnixMilli())
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
	check(len(l.batches) > 0, "no batch was read")
	for _, batch := range l.batches {
		equal("records in the batch", records, batch.NumRecords)
		equal("codec of the batch", codec, batch.CompressionType)
	}
}

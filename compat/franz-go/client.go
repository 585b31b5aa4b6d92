package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	. "ottla/compat/suite"
)

// codecs in the order of their numbers in a batch.
var codecs = []struct {
	name  string
	codec kgo.CompressionCodec
}{
	{"none", kgo.NoCompression()},
	{"gzip", kgo.GzipCompression()},
	{"snappy", kgo.SnappyCompression()},
	{"lz4", kgo.Lz4Compression()},
	{"zstd", kgo.ZstdCompression()},
}

func (s *suite) clientTests() {
	s.test("a topic is created, described, listed and deleted", s.managesATopic)
	s.test("topics that may not be are refused with the right error", s.refusesBadTopics)
	for number, codec := range codecs {
		s.test("keys, values, headers and times sent with "+codec.name+" come back in order", func() {
			s.comesBackAsSent(codec.name, codec.codec, uint8(number))
		})
		s.test("one batch of 10,000 records with "+codec.name+" comes back as one batch", func() {
			s.carriesABigBatch(codec.name, codec.codec, uint8(number))
		})
	}
	for name, acks := range map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()} {
		s.test("a plain producer with acks="+name+" loses nothing", func() { s.producesPlainly(name, acks) })
	}
	s.test("a record of 900 KB comes back through a fetch limit of 1 KB", s.carriesABigRecord)
	s.test("a record over max.message.bytes is too large", s.refusesABigRecord)
	s.test("a consumer starts by offset, by time, at the end and relative to it", s.seeks)
	s.test("the admin client finds offsets by every kind of time", s.listsOffsets)
	s.test("partitions are added to and taken from a running consumer", s.changesPartitions)
	s.test("a waiting fetch is answered when a record arrives", s.wakesAWaitingFetch)
	s.test("an offset out of range follows the reset policy", s.resetsOffsets)
	s.test("an unknown topic is an error and is not created", s.missesAnUnknownTopic)
	s.test("deleted records are gone and the rest is there", s.deletesRecords)
	s.test("partitions are added and usable, never taken away", s.createsPartitions)
	s.test("configs are described, altered one by one and replaced as a whole", s.altersConfigs)
}

func (s *suite) managesATopic() {
	topic := s.Prefix + "managed"
	retention := "7200000"
	created := Must(s.admin.CreateTopic(s.ctx, 3, 1, map[string]*string{"retention.ms": &retention}, topic))
	Equal("partitions answered", 3, created.NumPartitions)
	Equal("replication factor answered", 1, created.ReplicationFactor)
	configured := created.Configs["retention.ms"]
	Equal("retention.ms answered", retention, configured.MaybeValue())
	s.until("creation", func() bool { return s.describe(topic).Err == nil })

	detail := s.describe(topic)
	Equal("topic id", created.ID, detail.ID)
	Check(!detail.IsInternal, "it is internal")
	Equal("partitions", 3, len(detail.Partitions))
	broker := Must(s.admin.BrokerMetadata(s.ctx)).Controller
	for _, partition := range detail.Partitions.Sorted() {
		Equal("leader", broker, partition.Leader)
		Check(slices.Equal(partition.Replicas, []int32{broker}), "replicas: %v", partition.Replicas)
		Check(slices.Equal(partition.ISR, []int32{broker}), "in-sync replicas: %v", partition.ISR)
	}
	Check(Must(s.admin.ListTopics(s.ctx)).Has(topic), "it is not listed")

	Must(s.admin.DeleteTopic(s.ctx, topic))
	s.until("deletion", func() bool { return !Must(s.admin.ListTopics(s.ctx)).Has(topic) })
	_, err := s.admin.DeleteTopic(s.ctx, topic)
	Fails("deletion of nothing", kerr.UnknownTopicOrPartition, err)
}

func (s *suite) refusesBadTopics() {
	taken := s.create("taken", 1, nil)
	other := s.Prefix + "refused"
	soon := "soon"
	for _, bad := range []struct {
		topic      string
		partitions int32
		replicas   int16
		configs    map[string]*string
		want       error
	}{
		{taken, 1, 1, nil, kerr.TopicAlreadyExists},
		{"no spaces", 1, 1, nil, kerr.InvalidTopicException},
		{strings.Repeat("x", 250), 1, 1, nil, kerr.InvalidTopicException},
		{other, 0, 1, nil, kerr.InvalidPartitions},
		{other, 1, 3, nil, kerr.InvalidReplicationFactor},
		{other, 1, 1, map[string]*string{"retention.ms": &soon}, kerr.InvalidConfig},
		{other, 1, 1, map[string]*string{"no.such.config": &soon}, kerr.InvalidConfig},
	} {
		_, err := s.admin.CreateTopic(s.ctx, bad.partitions, bad.replicas, bad.configs, bad.topic)
		Fails("creation of "+bad.topic, bad.want, err)
	}
	validated := Must(Must(s.admin.ValidateCreateTopics(s.ctx, 1, 1, nil, other)).On(other, nil))
	Check(validated.Err == nil, "validation: %v", validated.Err)
	Check(!Must(s.admin.ListTopics(s.ctx)).Has(other), "a refused or only validated topic is listed")
}

func (s *suite) comesBackAsSent(name string, codec kgo.CompressionCodec, number uint8) {
	topic := s.create("codec-"+name, 3, nil)
	var sent []*kgo.Record
	for partition := range int32(3) {
		sent = append(sent, messages(topic, partition, 0, 500)...)
	}
	s.mustProduce(sent, kgo.ProducerBatchCompression(codec))
	for partition := range 3 {
		var log batchLog
		part := sent[partition*500 : (partition+1)*500]
		comesBack(part, s.read(topic, int32(partition), 0, 500, kgo.WithHooks(&log)))
		log.holds(500, number)
		for n, record := range part {
			Equal("acknowledged offset", int64(n), record.Offset)
		}
	}
	committed := kgo.FetchIsolationLevel(kgo.ReadCommitted())
	comesBack(sent[:500], s.read(topic, 0, 0, 500, committed))
}

func (s *suite) carriesABigBatch(name string, codec kgo.CompressionCodec, number uint8) {
	topic := s.create("big-batch-"+name, 1, nil)
	var sent []*kgo.Record
	for n := range 10_000 {
		record := kgo.KeyStringRecord(fmt.Sprint("key-", n), fmt.Sprint("value-", n))
		record.Topic = topic
		record.Timestamp = Start.Add(time.Duration(n) * time.Millisecond)
		sent = append(sent, record)
	}
	s.mustProduce(sent, kgo.ProducerBatchCompression(codec))
	var log batchLog
	comesBack(sent, s.read(topic, 0, 0, 10_000, kgo.WithHooks(&log)))
	log.holds(10_000, number)
}

func (s *suite) producesPlainly(name string, acks kgo.Acks) {
	topic := s.create("acks-"+name, 1, nil)
	sent := messages(topic, 0, 0, 1000)
	s.mustProduce(sent, kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite(), kgo.ProducerBatchMaxBytes(2000))
	comesBack(sent, s.read(topic, 0, 0, 1000))
}

func (s *suite) carriesABigRecord() {
	topic := s.create("big-record", 1, nil)
	sent := messages(topic, 0, 0, 3)
	sent[1].Value = make([]byte, 900_000)
	rand.New(rand.NewSource(1)).Read(sent[1].Value)
	s.mustProduce(sent)
	comesBack(sent, s.read(topic, 0, 0, 3, kgo.FetchMaxBytes(1024), kgo.FetchMaxPartitionBytes(1024)))
}

func (s *suite) refusesABigRecord() {
	topic := s.create("too-large", 1, map[string]string{"max.message.bytes": "10000"})
	big := message(topic, 0, 0)
	big.Value = make([]byte, 20_000)
	err := s.produce([]*kgo.Record{big}, kgo.ProducerBatchCompression(kgo.NoCompression()))
	Fails("a record of 20,000 bytes", kerr.MessageTooLarge, err)
	sent := messages(topic, 0, 0, 3)
	s.mustProduce(sent)
	comesBack(sent, s.read(topic, 0, 0, 3))
}

func (s *suite) seeks() {
	topic := s.create("seek", 1, nil)
	sent := messages(topic, 0, 0, 1000)
	s.mustProduce(sent, kgo.ProducerBatchMaxBytes(2000))
	// The records are 10 ms apart.
	late := Start.UnixMilli() + 5001
	for name, place := range map[string]struct {
		offset kgo.Offset
		first  int
	}{
		"offset 500":       {kgo.NewOffset().At(500), 500},
		"offset 999":       {kgo.NewOffset().At(999), 999},
		"the start":        {kgo.NewOffset().AtStart(), 0},
		"5 from the start": {kgo.NewOffset().AtStart().Relative(5), 5},
		"7 from the end":   {kgo.NewOffset().AtEnd().Relative(-7), 993},
		"a time":           {kgo.NewOffset().AfterMilli(late), 501},
		"a time before":    {kgo.NewOffset().AfterMilli(Start.UnixMilli() - 1), 0},
	} {
		client := s.newClient(from(topic, 0, place.offset))
		records := s.poll(client, 1000-place.first)
		client.Close()
		Equal("first offset from "+name, int64(place.first), records[0].Offset)
		comesBack(sent[place.first:], records)
	}

	client := s.newClient(from(topic, 0, kgo.NewOffset().At(990)))
	defer client.Close()
	comesBack(sent[990:], s.poll(client, 10))
	client.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {0: {Epoch: -1, Offset: 20}}})
	comesBack(sent[20:], s.poll(client, 980))
}

func (s *suite) listsOffsets() {
	topic := s.create("offsets", 2, nil)
	// The latest time stands in the middle of the log.
	for _, second := range []int{0, 10, 20, 90, 30, 40} {
		record := message(topic, 0, second*100)
		s.mustProduce([]*kgo.Record{record})
	}
	ms := Start.UnixMilli()
	after := func(milli int64) kadm.ListedOffsets {
		return Must(s.admin.ListOffsetsAfterMilli(s.ctx, milli, topic))
	}
	for _, list := range []struct {
		name         string
		offsets      kadm.ListedOffsets
		offset, time int64
	}{
		{"start", Must(s.admin.ListStartOffsets(s.ctx, topic)), 0, -1},
		{"end", Must(s.admin.ListEndOffsets(s.ctx, topic)), 6, -1},
		{"greatest time", Must(s.admin.ListMaxTimestampOffsets(s.ctx, topic)), 3, ms + 90_000},
		{"local start", Must(s.admin.ListLocalLogStartOffsets(s.ctx, topic)), 0, -1},
		{"latest remote", Must(s.admin.ListLatestRemoteOffsets(s.ctx, topic)), -1, -1},
		{"after a time", after(ms + 10_001), 2, ms + 20_000},
		{"first not before a time", after(ms + 50_000), 3, ms + 90_000},
		// For a time after all, kadm answers with the end.
		{"after all", after(ms + 90_001), 6, -1},
	} {
		found, ok := list.offsets.Lookup(topic, 0)
		Check(ok && found.Err == nil, "%s: %v", list.name, found.Err)
		Equal("offset of "+list.name, list.offset, found.Offset)
		Equal("time of "+list.name, list.time, found.Timestamp)
	}
	empty, _ := Must(s.admin.ListEndOffsets(s.ctx, topic)).Lookup(topic, 1)
	Equal("end of an empty partition", 0, empty.Offset)

	epoch := s.describe(topic).Partitions[0].LeaderEpoch
	var request kadm.OffsetForLeaderEpochRequest
	request.Add(topic, 0, epoch)
	found := Must(s.admin.OffsetForLeaderEpoch(s.ctx, request))[topic][0]
	Check(found.Err == nil, "offset for leader epoch: %v", found.Err)
	Equal("leader epoch", epoch, found.LeaderEpoch)
	Equal("end offset of the epoch", 6, found.EndOffset)
}

func (s *suite) changesPartitions() {
	topic := s.create("changing", 3, nil)
	for partition := range int32(3) {
		s.mustProduce(messages(topic, partition, 0, 50))
	}
	client := s.newClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		topic: {0: kgo.NewOffset().AtStart(), 1: kgo.NewOffset().AtStart()},
	}))
	defer client.Close()
	want := append(messages(topic, 0, 0, 50), messages(topic, 1, 0, 50)...)
	comesBack(want, sorted(s.poll(client, 100)))
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {2: kgo.NewOffset().AtStart()}})
	comesBack(messages(topic, 2, 0, 50), s.poll(client, 50))
	client.RemoveConsumePartitions(map[string][]int32{topic: {1}})
	for partition := range int32(3) {
		s.mustProduce(messages(topic, partition, 50, 100))
	}
	want = append(messages(topic, 0, 50, 100), messages(topic, 2, 50, 100)...)
	comesBack(want, sorted(s.poll(client, 100)))
}

func (s *suite) wakesAWaitingFetch() {
	topic := s.create("waiting", 1, nil)
	// The broker may hold an empty fetch for ten minutes: only a record can end it before the deadline.
	client := s.newClient(kgo.FetchMaxWait(10*time.Minute), from(topic, 0, kgo.NewOffset().AtStart()))
	defer client.Close()
	brief, cancel := context.WithTimeout(s.ctx, 500*time.Millisecond)
	defer cancel()
	// This poll sends the fetch; the next one only waits for its answer.
	Equal("records before one was sent", 0, client.PollFetches(brief).NumRecords())
	sent := messages(topic, 0, 0, 1)
	s.mustProduce(sent)
	comesBack(sent, s.poll(client, 1))
}

func (s *suite) resetsOffsets() {
	topic := s.create("reset", 1, nil)
	s.mustProduce(messages(topic, 0, 0, 20))
	var cut kadm.Offsets
	cut.AddOffset(topic, 0, 5, -1)
	Must(s.admin.DeleteRecords(s.ctx, cut))
	for _, outside := range []int64{0, 4, 21, 1_000_000} {
		place := from(topic, 0, kgo.NewOffset().At(outside))
		none := s.newClient(place, kgo.ConsumeResetOffset(kgo.NoResetOffset()))
		Fails(fmt.Sprint("offset ", outside), kerr.OffsetOutOfRange, none.PollFetches(s.ctx).Err())
		none.Close()

		earliest := s.newClient(place, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		comesBack(messages(topic, 0, 5, 20), s.polledAfterAReset(earliest, 15))
		earliest.Close()
	}
	latest := s.newClient(from(topic, 0, kgo.NewOffset().At(1_000_000)), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	defer latest.Close()
	s.readsOnlyNew(latest, topic, 20)
}

// readsOnlyNew proves that a client starts at the end of partition 0, which has so many messages.
func (s *suite) readsOnlyNew(client *kgo.Client, topic string, end int) {
	first := end
	// Each round adds a record; the first that is read must be one of those, in their order.
	s.until("a new record", func() bool {
		s.mustProduce(messages(topic, 0, end, end+1))
		end++
		brief, cancel := context.WithTimeout(s.ctx, 100*time.Millisecond)
		defer cancel()
		records := client.PollFetches(brief).Records()
		for _, record := range records {
			Check(record.Offset >= int64(first), "offset %d is read by a client that starts at the end", record.Offset)
			comesBack(messages(topic, 0, int(record.Offset), int(record.Offset)+1), []*kgo.Record{record})
		}
		return len(records) > 0
	})
}

// polledAfterAReset polls as poll does, and lets pass what the client tells about the reset itself.
func (s *suite) polledAfterAReset(client *kgo.Client, count int) []*kgo.Record {
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollFetches(s.ctx)
		for _, failed := range fetches.Errors() {
			var lost *kgo.ErrDataLoss
			Check(errors.As(failed.Err, &lost), "%v after %d of %d records", failed.Err, len(records), count)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func (s *suite) missesAnUnknownTopic() {
	topic := s.Prefix + "unknown"
	err := s.produce(messages(topic, 0, 0, 1), kgo.UnknownTopicRetries(1))
	Fails("produce", kerr.UnknownTopicOrPartition, err)
	Fails("describe", kerr.UnknownTopicOrPartition, s.describe(topic).Err)
	client := s.newClient(from(topic, 0, kgo.NewOffset().AtStart()), kgo.KeepRetryableFetchErrors())
	defer client.Close()
	Fails("fetch", kerr.UnknownTopicOrPartition, client.PollFetches(s.ctx).Err())
	Check(!Must(s.admin.ListTopics(s.ctx)).Has(topic), "it has been created")
}

func (s *suite) deletesRecords() {
	topic := s.create("delete-records", 1, nil)
	s.mustProduce(messages(topic, 0, 0, 100), kgo.ProducerBatchMaxBytes(600))
	remove := func(before int64) kadm.DeleteRecordsResponse {
		var offsets kadm.Offsets
		offsets.AddOffset(topic, 0, before, -1)
		deleted, ok := Must(s.admin.DeleteRecords(s.ctx, offsets)).Lookup(topic, 0)
		Check(ok, "no answer for the partition")
		return deleted
	}
	for _, step := range []struct{ before, start int64 }{{0, 0}, {42, 42}, {42, 42}, {7, 42}, {60, 60}} {
		deleted := remove(step.before)
		Check(deleted.Err == nil, "before %d: %v", step.before, deleted.Err)
		Equal("low watermark", step.start, deleted.LowWatermark)
		listed, _ := Must(s.admin.ListStartOffsets(s.ctx, topic)).Lookup(topic, 0)
		Equal("start", step.start, listed.Offset)
		comesBack(messages(topic, 0, int(step.start), 100), s.read(topic, 0, step.start, 100-int(step.start)))
	}
	Fails("beyond the end", kerr.OffsetOutOfRange, remove(101).Err)
	Equal("low watermark of all", 100, remove(-1).LowWatermark)
	s.mustProduce(messages(topic, 0, 100, 101))
	comesBack(messages(topic, 0, 100, 101), s.read(topic, 0, 100, 1))
}

func (s *suite) createsPartitions() {
	topic := s.create("partitions", 1, nil)
	s.mustProduce(messages(topic, 0, 0, 10))
	update := func(count int, topic string) error {
		return Must(Must(s.admin.UpdatePartitions(s.ctx, count, topic)).On(topic, nil)).Err
	}
	err := update(4, topic)
	Check(err == nil, "to 4: %v", err)
	s.until("4 partitions", func() bool { return len(s.describe(topic).Partitions) == 4 })
	s.mustProduce(messages(topic, 3, 0, 10))
	comesBack(messages(topic, 3, 0, 10), s.read(topic, 3, 0, 10))
	comesBack(messages(topic, 0, 0, 10), s.read(topic, 0, 0, 10))
	Fails("to 4 again", kerr.InvalidPartitions, update(4, topic))
	Fails("to 2", kerr.InvalidPartitions, update(2, topic))
	Equal("partitions", 4, len(s.describe(topic).Partitions))
}

func (s *suite) altersConfigs() {
	topic := s.create("configs", 1, map[string]string{"max.message.bytes": "54321"})
	size := s.config(topic, "max.message.bytes")
	Equal("value", "54321", size.MaybeValue())
	Equal("source", kmsg.ConfigSourceDynamicTopicConfig, size.Source)
	Equal("synonyms", 2, len(size.Synonyms))
	Equal("default's name", "message.max.bytes", size.Synonyms[1].Key)
	Equal("default's source", kmsg.ConfigSourceDefaultConfig, size.Synonyms[1].Source)

	alter := func(op kadm.IncrementalOp, name, value string) error {
		config := kadm.AlterConfig{Op: op, Name: name, Value: &value}
		return Must(Must(s.admin.AlterTopicConfigs(s.ctx, []kadm.AlterConfig{config}, topic)).On(topic, nil)).Err
	}
	for _, step := range []struct {
		op                kadm.IncrementalOp
		name, value, want string
	}{
		{kadm.SetConfig, "retention.ms", "3600000", "3600000"},
		{kadm.AppendConfig, "cleanup.policy", "compact", "delete,compact"},
		{kadm.SubtractConfig, "cleanup.policy", "delete", "compact"},
		{kadm.DeleteConfig, "max.message.bytes", "", "1048588"},
	} {
		err := alter(step.op, step.name, step.value)
		Check(err == nil, "%s: %v", step.name, err)
		s.until(step.name+"="+step.want, func() bool {
			config := s.config(topic, step.name)
			return config.MaybeValue() == step.want
		})
	}
	Fails("a bad value", kerr.InvalidConfig, alter(kadm.SetConfig, "retention.ms", "soon"))
	Fails("an unknown name", kerr.InvalidConfig, alter(kadm.SetConfig, "no.such.config", "1"))
	retention := s.config(topic, "retention.ms")
	Equal("retention.ms after a refusal", "3600000", retention.MaybeValue())

	// The older request replaces everything: what it does not name falls back to the default.
	segment := "2097152"
	state := []kadm.AlterConfig{{Name: "segment.bytes", Value: &segment}}
	Must(s.admin.AlterTopicConfigsState(s.ctx, state, topic))
	s.until("the replaced configs", func() bool {
		config := s.config(topic, "segment.bytes")
		return config.MaybeValue() == segment
	})
	Equal("source of retention.ms", kmsg.ConfigSourceDefaultConfig, s.config(topic, "retention.ms").Source)

	broker := Must(s.admin.BrokerMetadata(s.ctx)).Controller
	configs := Must(s.admin.DescribeBrokerConfigs(s.ctx, broker))
	Equal("brokers described", 1, len(configs))
	Check(slices.ContainsFunc(configs[0].Configs, func(config kadm.Config) bool {
		return config.Key == "auto.create.topics.enable" && config.MaybeValue() == "false"
	}), "auto.create.topics.enable=false is not in the broker's configs")
}

func (s *suite) survivesAKill() {
	topic := s.create("killed", 2, map[string]string{"retention.ms": "86400000"})
	id := s.describe(topic).ID
	producer := s.newClient(kgo.ProducerBatchMaxBytes(2000))
	defer producer.Close()
	consumer := s.newClient(from(topic, 0, kgo.NewOffset().AtStart()))
	defer consumer.Close()

	// Records are under way at any moment: the kill meets some that are stored and not yet acknowledged.
	room := make(chan struct{}, 500)
	var sent int
	var outcome kgo.FirstErrPromise
	send := func() {
		// Even and odd records are those of partition 0 and 1.
		record := message(topic, int32(sent%2), sent/2)
		sent++
		note := outcome.Promise()
		producer.Produce(s.ctx, record, func(record *kgo.Record, err error) {
			<-room
			note(record, err)
		})
	}
	sendMore := func(count int) {
		for range count {
			select {
			case room <- struct{}{}:
				send()
			case <-s.ctx.Done():
				Failf("no room for record %d: the others are not acknowledged", sent)
			}
		}
	}
	sendMore(2000)
	comesBack(messages(topic, 0, 0, 500), s.poll(consumer, 500))
	restarted := make(chan error, 1)
	go func() { restarted <- Restart(s.ctx) }()
	for down := true; down; {
		select {
		case err := <-restarted:
			Check(err == nil, "restart: %v", err)
			down = false
		case room <- struct{}{}:
			send()
		}
	}
	sendMore(2000)
	err := outcome.Err()
	Check(err == nil, "produce: %v", err)

	even := messages(topic, 0, 0, (sent+1)/2)
	comesBack(even[500:], s.poll(consumer, len(even)-500))
	comesBack(even, s.read(topic, 0, 0, len(even)))
	comesBack(messages(topic, 1, 0, sent/2), s.read(topic, 1, 0, sent/2))
	Equal("topic id", id, s.describe(topic).ID)
	retention := s.config(topic, "retention.ms")
	Equal("retention.ms", "86400000", retention.MaybeValue())
}

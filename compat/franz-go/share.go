package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	. "ottla/compat/suite"
)

func (s *suite) shareTests() {
	s.test("members of a share group share a partition, each record once, and accept by polling", s.sharesAPartition)
	s.test("records of a share group are accepted, released, rejected and renewed one by one", s.acknowledgesOneByOne)
	s.test("what a member of a share group had is another's as soon as it leaves", s.givesBack)
}

func (s *suite) shareCrashTests() {
	s.test("after SIGKILL a share group goes on with what was not accepted", s.sharesThroughAKill)
}

// shareGroup makes a topic with one partition, and a group of its name that begins with the first record.
func (s *suite) shareGroup(name string) string {
	group := s.create(name, 1, nil)
	s.setGroup(group, "share.auto.offset.reset", "earliest")
	return group
}

func (s *suite) setGroup(group, name, value string) {
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Op, config.Value = name, kmsg.IncrementalAlterConfigOpSet, &value
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	resource.Configs = append(resource.Configs, config)
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	for _, answer := range Must(request.RequestWith(s.ctx, s.client)).Resources {
		Equal("error of setting "+name, error(nil), kerr.ErrorForCode(answer.ErrorCode))
	}
}

func (s *suite) worker(group string, options ...kgo.Opt) *kgo.Client {
	return s.newClient(append([]kgo.Opt{kgo.ShareGroup(group), kgo.ConsumeTopics(group)}, options...)...)
}

// take polls until there are that many.
func (s *suite) take(worker *kgo.Client, count int) []*kgo.Record {
	records := s.poll(worker, count)
	slices.SortFunc(records, func(a, b *kgo.Record) int { return int(a.Offset - b.Offset) })
	return records
}

func (s *suite) flush(worker *kgo.Client) {
	if err := worker.FlushAcks(s.ctx); err != nil {
		Failf("acknowledge: %v", err)
	}
}

func offsetsOf(records []*kgo.Record) []int64 {
	var offsets []int64
	for _, record := range records {
		offsets = append(offsets, record.Offset)
	}
	return offsets
}

func (s *suite) sharesAPartition() {
	group := s.shareGroup("share-one")
	one, two := s.worker(group), s.worker(group)
	defer one.Close()
	defer two.Close()
	s.mustProduce(messages(group, 0, 0, 500))
	seen := map[int64]int{}
	s.until("all records", func() bool {
		for _, worker := range []*kgo.Client{one, two} {
			ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
			for _, record := range worker.PollRecords(ctx, 100).Records() {
				seen[record.Offset]++
			}
			cancel()
		}
		return len(seen) == 500
	})
	for offset, times := range seen {
		Equal("deliveries of the record at "+strconv.FormatInt(offset, 10), 1, times)
	}
	one.MarkAcks(kgo.AckAccept)
	two.MarkAcks(kgo.AckAccept)
	s.flush(one)
	s.flush(two)
}

func (s *suite) acknowledgesOneByOne() {
	group := s.shareGroup("share-each")
	s.mustProduce(messages(group, 0, 0, 4))
	worker := s.worker(group)
	defer worker.Close()
	first := s.take(worker, 4)
	for n, record := range first {
		Equal("deliveries", int32(1), record.DeliveryCount())
		record.Ack([]kgo.AckStatus{kgo.AckAccept, kgo.AckRelease, kgo.AckReject, kgo.AckRenew}[n])
	}
	s.flush(worker)
	Check(slices.Equal([]int64{1}, offsetsOf(s.take(worker, 1))), "another record than the released one")
	worker.MarkAcks(kgo.AckAccept)
	first[3].Ack(kgo.AckAccept)
	s.flush(worker)
	s.mustProduce(messages(group, 0, 4, 5))
	last := s.take(worker, 1)
	Check(slices.Equal([]int64{4}, offsetsOf(last)), "another record than what is left: %d", last[0].Offset)
	last[0].Ack(kgo.AckAccept)
	s.flush(worker)
}

func (s *suite) givesBack() {
	group := s.shareGroup("share-leaves")
	s.mustProduce(messages(group, 0, 0, 10))
	leaves := s.worker(group)
	Equal("records of the first", 10, len(s.take(leaves, 10)))
	leaves.MarkAcks(kgo.AckRelease)
	leaves.Close()
	stays := s.worker(group)
	defer stays.Close()
	for _, record := range s.take(stays, 10) {
		Equal("deliveries", int32(2), record.DeliveryCount())
		record.Ack(kgo.AckAccept)
	}
	s.flush(stays)
}

func (s *suite) sharesThroughAKill() {
	group := s.shareGroup("share-crash")
	s.mustProduce(messages(group, 0, 0, 100))
	worker := s.worker(group, kgo.ShareMaxRecords(10), kgo.ShareMaxRecordsStrict())
	defer worker.Close()
	done := map[int64]bool{}
	for len(done) < 30 {
		records := worker.PollRecords(s.ctx, 10).Records()
		for _, record := range records {
			record.Ack(kgo.AckAccept)
		}
		s.flush(worker)
		for _, record := range records {
			done[record.Offset] = true
		}
	}
	if err := Restart(s.ctx); err != nil {
		Failf("%v", err)
	}
	before := maps.Clone(done)
	s.until("the rest", func() bool {
		ctx, cancel := context.WithTimeout(s.ctx, 200*time.Millisecond)
		defer cancel()
		for _, record := range worker.PollRecords(ctx, 10).Records() {
			Check(!before[record.Offset], "accepted before the kill: %d", record.Offset)
			record.Ack(kgo.AckAccept)
			done[record.Offset] = true
		}
		return len(done) == 100
	})
}

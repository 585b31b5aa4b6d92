package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	. "ottla/compat/suite"
)

func (s *suite) groupTests() {
	s.Together(
		s.beside("a group of three shares the partitions; the others get those of one that leaves and of one that is killed",
			func(s *suite) { Shares(s.ctx, s, "shared") }),
		s.beside("a static member that joins again shuts out the one that it was and is removed by name",
			(*suite).joinsStatically),
		s.beside("a reader goes on at the manual commit of another", (*suite).commitsByHand),
		s.beside("a reader goes on at the automatic commit of another", (*suite).commitsByItself),
		s.beside("a group without commits starts at the first or the last offset", (*suite).startsByPolicy),
		s.beside("a reader whose commit is beyond the end waits for the records from there on", (*suite).waitsBeyondTheEnd),
		s.beside("the client lists, describes and deletes a group, its commits and their metadata", (*suite).managesAGroup),
		s.beside("the client may not touch a group that lives", (*suite).sparesALiveGroup),
	)
}

func (s *suite) groupCrashTests() {
	s.test("after SIGKILL a group goes on at its commits", func(s *suite) { GoesOn(s.ctx, s, "committed") })
	s.test("a live group survives SIGKILL of the broker and takes in a member that joins meanwhile", func(s *suite) {
		Survives(s.ctx, s, "survives")
	})
}

// Create, Send and Join are what the scenarios of all Go clients need.
func (s *suite) Create(topic string, partitions int32) string {
	return s.create(topic, int(partitions))
}

func (s *suite) Send(topic string, partition int32, values ...string) {
	var messages []kafka.Message
	for _, value := range values {
		messages = append(messages, kafka.Message{Value: []byte(value)})
	}
	s.write(topic, int(partition), messages...)
}

func (s *suite) Join(membership Membership, member Member) (leave func()) {
	group := Must(kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                membership.Group,
		Brokers:           []string{Bootstrap},
		Topics:            []string{membership.Topic},
		SessionTimeout:    membership.Session,
		RebalanceTimeout:  membership.Session,
		HeartbeatInterval: 200 * time.Millisecond,
		JoinGroupBackoff:  100 * time.Millisecond,
	}))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			generation, err := group.Next(s.ctx)
			if errors.Is(err, kafka.ErrGroupClosed) || s.ctx.Err() != nil {
				return
			}
			// After any other error the client tries again by itself.
			if err == nil {
				generation.Start(func(ctx context.Context) {
					s.takePart(ctx, generation, generation.Assignments[membership.Topic], membership.Topic, member)
				})
			}
		}
	}()
	return sync.OnceFunc(func() {
		group.Close()
		<-ended
	})
}

// takePart consumes for one generation. The group waits for its end before it joins the next.
func (s *suite) takePart(
	ctx context.Context, generation *kafka.Generation, assigned []kafka.PartitionAssignment, topic string, member Member,
) {
	if ctx.Err() != nil {
		return // the generation had ended before this was started
	}
	var owned []int32
	for _, partition := range assigned {
		owned = append(owned, int32(partition.ID))
	}
	member.Assigned(generation.ID, owned)
	var reading sync.WaitGroup
	for _, partition := range assigned {
		reading.Go(func() {
			reader := s.reader(topic, partition.ID)
			defer reader.Close()
			if err := reader.SetOffset(partition.Offset); err != nil {
				member.Failed(err)
			}
			for {
				message, err := reader.FetchMessage(ctx)
				if err != nil {
					if ctx.Err() == nil {
						member.Failed(err)
					}
					return
				}
				commit := map[string]map[int]int64{topic: {partition.ID: message.Offset + 1}}
				if err := generation.CommitOffsets(commit); err != nil {
					member.Failed(err)
				}
				member.Received(string(message.Value))
			}
		})
	}
	<-ctx.Done()
	reading.Wait()
	member.Revoked(owned)
}

// groupReader reads a topic as a member of a group. Commits are sent at once if the interval is 0.
func (s *suite) groupReader(group, topic string, interval time.Duration, start int64) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers:           []string{Bootstrap},
		GroupID:           group,
		Topic:             topic,
		StartOffset:       start,
		CommitInterval:    interval,
		HeartbeatInterval: 200 * time.Millisecond,
		MaxWait:           100 * time.Millisecond,
	})
}

// committed is what a group has committed of partition 0.
func (s *suite) committed(group, topic string) kafka.OffsetFetchPartition {
	fetched := Must(s.client.OffsetFetch(s.ctx, &kafka.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{topic: {0}},
	}))
	Check(fetched.Error == nil, "offset fetch: %v", fetched.Error)
	commit := fetched.Topics[topic][0]
	Check(commit.Error == nil, "offset fetch of partition 0: %v", commit.Error)
	return commit
}

// commit commits an offset of partition 0 on behalf of no member.
func (s *suite) commit(group, topic string, offset int64, metadata string) error {
	committed := Must(s.client.OffsetCommit(s.ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{
			topic: {{Partition: 0, Offset: offset, Metadata: metadata}},
		},
	}))
	return committed.Topics[topic][0].Error
}

func (s *suite) commitsByHand() {
	topic := s.create("by-hand", 1)
	sent := messages(0, 30)
	s.write(topic, 0, sent...)
	first := s.groupReader(topic, topic, 0, kafka.FirstOffset)
	defer first.Close()
	err := first.CommitMessages(s.ctx, s.fetch(first, 10)...)
	Check(err == nil, "commit: %v", err)
	// These are not committed.
	s.fetch(first, 10)
	first.Close()
	Equal("commit", 10, s.committed(topic, topic).CommittedOffset)
	second := s.groupReader(topic, topic, 0, kafka.FirstOffset)
	defer second.Close()
	comesBack(sent[10:], s.fetch(second, 20))
}

func (s *suite) commitsByItself() {
	topic := s.create("by-itself", 1)
	sent := messages(0, 30)
	s.write(topic, 0, sent...)
	first := s.groupReader(topic, topic, 100*time.Millisecond, kafka.FirstOffset)
	defer first.Close()
	for n := range 10 {
		// It commits what it returns.
		comesBack(sent[n:n+1], []kafka.Message{Must(first.ReadMessage(s.ctx))})
	}
	Until(s.ctx, "the automatic commit", func() bool { return s.committed(topic, topic).CommittedOffset == 10 })
	first.Close()
	second := s.groupReader(topic, topic, 0, kafka.FirstOffset)
	defer second.Close()
	comesBack(sent[10:], s.fetch(second, 20))
}

func (s *suite) startsByPolicy() {
	topic := s.create("policy", 1)
	s.write(topic, 0, messages(0, 20)...)
	earliest := s.groupReader(topic+"-first", topic, 0, kafka.FirstOffset)
	defer earliest.Close()
	comesBack(messages(0, 20), s.fetch(earliest, 20))

	latest := s.groupReader(topic+"-last", topic, 0, kafka.LastOffset)
	defer latest.Close()
	// Each round adds a record; the first that is read must be one of those.
	end := 20
	Until(s.ctx, "a new record", func() bool {
		s.write(topic, 0, message(end))
		end++
		brief, cancel := context.WithTimeout(s.ctx, 100*time.Millisecond)
		defer cancel()
		received, err := latest.FetchMessage(brief)
		if err != nil {
			return false
		}
		Check(received.Offset >= 20, "offset %d is read by a group that starts at the end", received.Offset)
		comesBack(messages(int(received.Offset), int(received.Offset)+1), []kafka.Message{received})
		return true
	})
}

func (s *suite) waitsBeyondTheEnd() {
	topic := s.create("beyond", 1)
	s.write(topic, 0, messages(0, 20)...)
	err := s.commit(topic, topic, 25, "")
	Check(err == nil, "commit: %v", err)
	reader := s.groupReader(topic, topic, 0, kafka.FirstOffset)
	defer reader.Close()
	Until(s.ctx, "a stable group", func() bool { return s.describe(topic).GroupState == "Stable" })
	s.write(topic, 0, messages(20, 30)...)
	received := s.fetch(reader, 5)
	Equal("first offset", 25, received[0].Offset)
	comesBack(messages(25, 30), received)
}

func (s *suite) managesAGroup() {
	topic := s.create("managed-group", 2)
	group := topic
	s.write(topic, 0, messages(0, 10)...)
	for _, offset := range []int64{4, 6} {
		err := s.commit(group, topic, offset, fmt.Sprint("note ", offset))
		Check(err == nil, "commit: %v", err)
	}
	Fails("metadata too long", kafka.OffsetMetadataTooLarge, s.commit(group, topic, 7, strings.Repeat("m", 4097)))
	commit := s.committed(group, topic)
	Equal("commit", 6, commit.CommittedOffset)
	Equal("metadata", "note 6", commit.Metadata)
	_, end := s.offsets(topic, 0)
	Equal("lag", 4, end-commit.CommittedOffset)

	Check(slices.Contains(s.groups(), group), "it is not listed")
	described := s.describe(group)
	Equal("state", "Empty", described.GroupState)
	Equal("members", 0, len(described.Members))

	drop := func() *kafka.OffsetDeleteResponse {
		return Must(s.client.OffsetDelete(s.ctx, &kafka.OffsetDeleteRequest{
			GroupID: group, Topics: map[string][]int{topic: {0}},
		}))
	}
	err := s.commit(group, s.create("managed-group-other", 1), 1, "")
	Check(err == nil, "commit of another topic: %v", err)
	dropped := drop()
	Check(dropped.Error == nil && dropped.Topics[topic][0].Error == nil, "deletion of a commit: %v", dropped)
	Equal("deleted commit", -1, s.committed(group, topic).CommittedOffset)

	err = s.deleteGroup(group)
	Check(err == nil, "deletion: %v", err)
	Check(!slices.Contains(s.groups(), group), "the deleted group is listed")
	Fails("deletion of nothing", kafka.GroupIdNotFound, s.deleteGroup(group))
	Fails("deletion of a commit of nothing", kafka.GroupIdNotFound, drop().Error)
	Equal("state of nothing", "Dead", s.describe(group).GroupState)
}

func (s *suite) groups() []string {
	listed := Must(s.client.ListGroups(s.ctx, &kafka.ListGroupsRequest{}))
	Check(listed.Error == nil, "list: %v", listed.Error)
	var groups []string
	for _, group := range listed.Groups {
		groups = append(groups, group.GroupID)
	}
	return groups
}

func (s *suite) describe(group string) kafka.DescribeGroupsResponseGroup {
	return Must(s.client.DescribeGroups(s.ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})).Groups[0]
}

func (s *suite) deleteGroup(group string) error {
	return Must(s.client.DeleteGroups(s.ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})).Errors[group]
}

func (s *suite) sparesALiveGroup() {
	topic := s.create("live-group", 2)
	group := topic
	for range 2 {
		member := s.groupReader(group, topic, 0, kafka.FirstOffset)
		defer member.Close()
	}
	var described kafka.DescribeGroupsResponseGroup
	Until(s.ctx, "a stable group of two", func() bool {
		described = s.describe(group)
		return described.GroupState == "Stable" && len(described.Members) == 2
	})
	partitions := map[int]bool{}
	for _, member := range described.Members {
		Check(strings.Contains(member.ClientHost, "127.0.0.1"), "host: %s", member.ClientHost)
		Check(slices.Equal(member.MemberMetadata.Topics, []string{topic}), "subscription: %v", member.MemberMetadata)
		Equal("topics of a member", 1, len(member.MemberAssignments.Topics))
		Equal("topic of a member", topic, member.MemberAssignments.Topics[0].Topic)
		for _, partition := range member.MemberAssignments.Topics[0].Partitions {
			partitions[partition] = true
		}
	}
	Check(maps.Equal(partitions, map[int]bool{0: true, 1: true}), "partitions: %v", partitions)
	Fails("deletion", kafka.NonEmptyGroup, s.deleteGroup(group))
	Fails("commit", kafka.UnknownMemberId, s.commit(group, topic, 3, ""))
	dropped := Must(s.client.OffsetDelete(s.ctx, &kafka.OffsetDeleteRequest{
		GroupID: group, Topics: map[string][]int{topic: {0}},
	}))
	Fails("deletion of a commit", kafka.GroupSubscribedToTopic, dropped.Topics[topic][0].Error)
}

// joinsStatically goes without SyncGroup: the client writes its newest version wrong.
func (s *suite) joinsStatically() {
	topic := s.create("static", 2)
	group, instance := topic, "instance"
	join := func(member string) *kafka.JoinGroupResponse {
		return Must(s.client.JoinGroup(s.ctx, &kafka.JoinGroupRequest{
			GroupID: group, MemberID: member, GroupInstanceID: instance, ProtocolType: "consumer",
			SessionTimeout: time.Minute, RebalanceTimeout: time.Minute,
			Protocols: []kafka.GroupProtocol{{
				Name: "range", Metadata: kafka.GroupProtocolSubscription{Topics: []string{topic}},
			}},
		}))
	}
	before := join("")
	Check(before.Error == nil, "join: %v", before.Error)
	Equal("members", 1, len(before.Members))
	Equal("instance", instance, before.Members[0].GroupInstanceID)
	after := join("")
	Check(after.Error == nil, "join again: %v", after.Error)
	Equal("members after it came again", 1, len(after.Members))
	Check(after.MemberID != before.MemberID, "the member id stays %s", after.MemberID)
	Fails("join of the one before", kafka.FencedInstanceID, join(before.MemberID).Error)
	committed := Must(s.client.OffsetCommit(s.ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: before.GenerationID, MemberID: before.MemberID, InstanceID: instance,
		Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 0, Offset: 1}}},
	}))
	Fails("commit of the one before", kafka.FencedInstanceID, committed.Topics[topic][0].Error)

	leave := func(instance string) error {
		left := Must(s.client.LeaveGroup(s.ctx, &kafka.LeaveGroupRequest{
			GroupID: group, Members: []kafka.LeaveGroupRequestMember{{GroupInstanceID: instance}},
		}))
		Check(left.Error == nil, "removal: %v", left.Error)
		return left.Members[0].Error
	}
	Fails("removal of nobody", kafka.UnknownMemberId, leave("nobody"))
	err := leave(instance)
	Check(err == nil, "removal: %v", err)
	Equal("members after the removal", 0, len(s.describe(group).Members))
}

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

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	. "ottla/compat/suite"
)

func (s *suite) groupTests() {
	s.Together(
		s.beside("a group of three shares the partitions; the others get those of one that leaves and of one that is killed",
			func(s *suite) { Shares(s.ctx, s, "shared") }),
		s.beside("a static member that restarts gets its partitions back without a rebalance",
			func(s *suite) { Returns(s.ctx, s, "static", s.removeInstance) }),
		s.beside("a cooperative member that joins takes only what it gets",
			func(s *suite) { Cooperates(s.ctx, s, "cooperative") }),
		s.beside("a consumer goes on at the manual commit of another and its metadata is kept", (*suite).commitsByHand),
		s.beside("a consumer goes on at the automatic commit of another", (*suite).commitsByItself),
		s.beside("a group without commits starts by its reset policy", (*suite).startsByPolicy),
		s.beside("a commit out of range follows the reset policy", (*suite).resetsACommit),
		s.beside("the admin client lists, describes and deletes a group, its commits and its lag", (*suite).managesAGroup),
		s.beside("the admin client may not touch a group that lives", (*suite).sparesALiveGroup),
		s.beside("a group lives from join to deletion with each version of its requests", (*suite).livesWithEachVersion),
		s.beside("a group's requests that are wrong have the right error", (*suite).refusesBadGroupRequests),
	)
}

func (s *suite) groupCrashTests() {
	s.test("after SIGKILL a group goes on at its commits", func() { GoesOn(s.ctx, s, "committed") })
	s.test("a live group survives SIGKILL of the broker and takes in a member that joins meanwhile", func() {
		Survives(s.ctx, s, "survives")
	})
}

// Create, Send and Join are what the scenarios of all Go clients need.
func (s *suite) Create(topic string, partitions int32) string {
	return s.create(topic, partitions, nil)
}

func (s *suite) Send(topic string, partition int32, values ...string) {
	var records []*kgo.Record
	for _, value := range values {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)})
	}
	s.mustProduce(records)
}

func (s *suite) Join(membership Membership, member Member) (leave func()) {
	options := []kgo.Opt{
		kgo.SessionTimeout(membership.Session),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(_ context.Context, client *kgo.Client, assigned map[string][]int32) {
			_, generation := client.GroupMetadata()
			member.Assigned(generation, assigned[membership.Topic])
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) {
			member.Revoked(revoked[membership.Topic])
		}),
	}
	if membership.Instance != "" {
		options = append(options, kgo.InstanceID(membership.Instance))
	}
	if !membership.Cooperative {
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	client := s.newMember(membership.Group, membership.Topic, options...)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			fetches := client.PollFetches(s.ctx)
			if fetches.IsClientClosed() || s.ctx.Err() != nil {
				return
			}
			// After an error of the group's session the client tries again by itself.
			var session *kgo.ErrGroupSession
			if err := fetches.Err(); err != nil && !errors.As(err, &session) {
				member.Failed(err)
			}
			if fetches.NumRecords() == 0 {
				continue
			}
			if err := client.CommitUncommittedOffsets(s.ctx); err != nil {
				member.Failed(err)
			}
			member.Received(valuesOf(fetches.Records())...)
		}
	}()
	return sync.OnceFunc(func() {
		client.Close()
		<-ended
	})
}

// newMember makes a client in a group that starts at the first record where nothing is committed.
func (s *suite) newMember(group, topic string, options ...kgo.Opt) *kgo.Client {
	return s.newClient(append([]kgo.Opt{
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(200 * time.Millisecond),
	}, options...)...)
}

func valuesOf(records []*kgo.Record) []string {
	var values []string
	for _, record := range records {
		values = append(values, string(record.Value))
	}
	return values
}

func (s *suite) commitsByHand() {
	topic := s.create("by-hand", 1, nil)
	group := topic
	s.mustProduce(messages(topic, 0, 0, 30))
	first := s.newMember(group, topic, kgo.DisableAutoCommit())
	defer first.Close()
	records := s.poll(first, 10)
	noted := kgo.PreCommitFnContext(s.ctx, func(request *kmsg.OffsetCommitRequest) error {
		note := "ten so far"
		request.Topics[0].Partitions[0].Metadata = &note
		return nil
	})
	err := first.CommitRecords(noted, records...)
	Check(err == nil, "commit: %v", err)
	// These are not committed.
	s.poll(first, 10)
	first.Close()

	commit, _ := Must(s.admin.FetchOffsets(s.ctx, group)).Lookup(topic, 0)
	Equal("commit", 10, commit.At)
	Equal("metadata", "ten so far", commit.Metadata)
	Equal("leader epoch", s.describe(topic).Partitions[0].LeaderEpoch, commit.LeaderEpoch)
	second := s.newMember(group, topic, kgo.DisableAutoCommit())
	defer second.Close()
	comesBack(messages(topic, 0, 10, 30), s.poll(second, 20))
}

func (s *suite) commitsByItself() {
	topic := s.create("by-itself", 1, nil)
	group := topic
	s.mustProduce(messages(topic, 0, 0, 30))
	first := s.newMember(group, topic, kgo.AutoCommitInterval(100*time.Millisecond))
	defer first.Close()
	s.poll(first, 10)
	// The second poll shows the client that the records of the first are done with.
	s.poll(first, 10)
	s.until("the automatic commit", func() bool { return s.committed(group, topic, 0) == 10 })
	first.Close()

	// Leaving commits no more than was polled.
	commit := int(s.committed(group, topic, 0))
	Check(commit == 10 || commit == 20, "%d is committed", commit)
	second := s.newMember(group, topic)
	defer second.Close()
	comesBack(messages(topic, 0, commit, 30), s.poll(second, 30-commit))
}

// committed is the offset that a group has committed, or -1.
func (s *suite) committed(group, topic string, partition int32) int64 {
	commit, ok := Must(s.admin.FetchOffsets(s.ctx, group)).Lookup(topic, partition)
	if !ok {
		return -1
	}
	Check(commit.Err == nil, "commit: %v", commit.Err)
	return commit.At
}

func (s *suite) startsByPolicy() {
	topic := s.create("policy", 1, nil)
	s.mustProduce(messages(topic, 0, 0, 20))
	earliest := s.newMember(topic+"-earliest", topic)
	defer earliest.Close()
	comesBack(messages(topic, 0, 0, 20), s.poll(earliest, 20))

	none := s.newMember(topic+"-none", topic, kgo.ConsumeStartOffset(kgo.NewOffset().AtCommitted()))
	defer none.Close()
	// The client has no type for this error.
	err := none.PollFetches(s.ctx).Err()
	Check(err != nil && strings.Contains(err.Error(), "no prior committed offset"), "without a commit: %v", err)

	latest := s.newMember(topic+"-latest", topic, kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	defer latest.Close()
	s.readsOnlyNew(latest, topic, 20)
}

func (s *suite) resetsACommit() {
	topic := s.create("commit-reset", 1, nil)
	s.mustProduce(messages(topic, 0, 0, 20))
	var cut kadm.Offsets
	cut.AddOffset(topic, 0, 5, -1)
	Must(s.admin.DeleteRecords(s.ctx, cut))
	for _, outside := range []int64{2, 1000} {
		group := fmt.Sprint(topic, "-", outside)
		var offsets kadm.Offsets
		offsets.AddOffset(topic, 0, outside, -1)
		err := s.admin.CommitAllOffsets(s.ctx, group, offsets)
		Check(err == nil, "commit: %v", err)

		none := s.newMember(group, topic, kgo.ConsumeResetOffset(kgo.NoResetOffset()))
		Fails(fmt.Sprint("commit ", outside), kerr.OffsetOutOfRange, none.PollFetches(s.ctx).Err())
		none.Close()
		earliest := s.newMember(group, topic)
		comesBack(messages(topic, 0, 5, 20), s.polledAfterAReset(earliest, 15))
		earliest.Close()
	}
}

func (s *suite) managesAGroup() {
	topic := s.create("managed-group", 3, nil)
	group := topic
	s.mustProduce(append(messages(topic, 0, 0, 10), messages(topic, 1, 0, 10)...))
	commit := func(partition int32, offset int64, metadata string) {
		var offsets kadm.Offsets
		offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: metadata})
		err := s.admin.CommitAllOffsets(s.ctx, group, offsets)
		Check(err == nil, "commit: %v", err)
	}
	commit(0, 4, "four")
	commit(1, 10, "")
	commit(0, 6, "six")
	commits := Must(s.admin.FetchOffsets(s.ctx, group))
	Equal("partitions committed", 2, len(commits[topic]))
	six, _ := commits.Lookup(topic, 0)
	Equal("metadata", "six", six.Metadata)

	lag := Must(s.admin.Lag(s.ctx, group))[group]
	Check(lag.Error() == nil, "lag: %v", lag.Error())
	Equal("total lag", 4, lag.Lag.Total())
	for partition, want := range []struct{ commit, end, lag int64 }{{6, 10, 4}, {10, 10, 0}, {-1, 0, 0}} {
		got, ok := lag.Lag.Lookup(topic, int32(partition))
		Check(ok && got.Err == nil, "lag of partition %d: %v", partition, got.Err)
		Equal("commit", want.commit, got.Commit.At)
		Equal("end", want.end, got.End.Offset)
		Equal("lag", want.lag, got.Lag)
	}

	Equal("state listed", "Empty", Must(s.admin.ListGroups(s.ctx))[group].State)
	Check(slices.Contains(Must(s.admin.ListGroupsByType(s.ctx, []string{"Classic"}, "empty")).Groups(), group),
		"it is not among the empty classic groups")
	Check(!slices.Contains(Must(s.admin.ListGroupsByType(s.ctx, []string{"consumer"})).Groups(), group),
		"it is listed as of the newer protocol")
	described := Must(s.admin.DescribeGroups(s.ctx, group))[group]
	Check(described.Err == nil, "describe: %v", described.Err)
	Equal("state", "Empty", described.State)
	Equal("members", 0, len(described.Members))

	var one kadm.TopicsSet
	one.Add(topic, 1)
	deleted := Must(s.admin.DeleteOffsets(s.ctx, group, one))
	Check(deleted.Error() == nil, "deletion of a commit: %v", deleted.Error())
	Equal("deleted commit", -1, s.committed(group, topic, 1))
	Equal("commit of the other", 6, s.committed(group, topic, 0))

	Must(s.admin.DeleteGroup(s.ctx, group))
	Check(!slices.Contains(Must(s.admin.ListGroups(s.ctx)).Groups(), group), "the deleted group is listed")
	Equal("commits of a deleted group", 0, len(Must(s.admin.FetchOffsets(s.ctx, group))))
	_, err := s.admin.DeleteGroup(s.ctx, group)
	Fails("deletion of nothing", kerr.GroupIDNotFound, err)
	_, err = s.admin.DeleteOffsets(s.ctx, group, one)
	Fails("deletion of a commit of nothing", kerr.GroupIDNotFound, err)
	gone := Must(s.admin.DescribeGroups(s.ctx, group))[group]
	Fails("description of nothing", kerr.GroupIDNotFound, gone.Err)
	Equal("state of nothing", "Dead", gone.State)
}

func (s *suite) sparesALiveGroup() {
	topic := s.create("live-group", 2, nil)
	group := topic
	s.mustProduce(messages(topic, 0, 0, 10))
	for _, id := range []string{"one", "two"} {
		member := s.newMember(group, topic, kgo.ClientID(id), kgo.Balancers(kgo.RoundRobinBalancer()))
		defer member.Close()
	}
	var described kadm.DescribedGroup
	s.until("a stable group of two", func() bool {
		described = Must(s.admin.DescribeGroups(s.ctx, group))[group]
		return described.State == "Stable" && len(described.Members) == 2
	})
	Equal("protocol type", "consumer", described.ProtocolType)
	Equal("protocol", "roundrobin", described.Protocol)
	clients, partitions := map[string]bool{}, map[int32]bool{}
	for _, member := range described.Members {
		clients[member.ClientID] = true
		Check(strings.HasPrefix(member.MemberID, member.ClientID+"-"), "member id: %s", member.MemberID)
		Check(strings.Contains(member.ClientHost, "127.0.0.1"), "host: %s", member.ClientHost)
		joined, ok := member.Join.AsConsumer()
		Check(ok && slices.Equal(joined.Topics, []string{topic}), "subscription: %v", joined)
		assigned, ok := member.Assigned.AsConsumer()
		Check(ok && len(assigned.Topics) == 1 && assigned.Topics[0].Topic == topic, "assignment: %v", assigned)
		for _, partition := range assigned.Topics[0].Partitions {
			partitions[partition] = true
		}
	}
	Check(maps.Equal(clients, map[string]bool{"one": true, "two": true}), "clients: %v", clients)
	Check(maps.Equal(partitions, map[int32]bool{0: true, 1: true}), "partitions: %v", partitions)
	Check(slices.Contains(Must(s.admin.ListGroups(s.ctx, "Stable")).Groups(), group), "it is not listed as stable")
	Check(!slices.Contains(Must(s.admin.ListGroups(s.ctx, "Empty")).Groups(), group), "it is listed as empty")

	_, err := s.admin.DeleteGroup(s.ctx, group)
	Fails("deletion", kerr.NonEmptyGroup, err)
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 3, -1)
	Fails("commit", kerr.UnknownMemberID, s.admin.CommitAllOffsets(s.ctx, group, offsets))
	deleted := Must(s.admin.DeleteOffsets(s.ctx, group, offsets.TopicsSet()))
	Fails("deletion of a commit", kerr.GroupSubscribedToTopic, deleted.Error())
}

// removeInstance takes a static member out of its group by its name.
func (s *suite) removeInstance(group, instance string) {
	left := Must(s.admin.LeaveGroup(s.ctx, kadm.LeaveGroup(group).InstanceIDs(instance).Reason("test")))
	Equal("members answered", 1, len(left))
	Check(left.Error() == nil, "removal of %s: %v", instance, left.Error())
}

package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	. "ottla/compat/suite"
)

func (s *suite) groupTests() {
	tests := []Test{
		s.beside("a static member that restarts gets its partitions back without a rebalance",
			func(s *suite) { Returns(s.ctx, s, "static", s.removeInstance) }),
		s.beside("a cooperative member that joins takes only what it gets",
			func(s *suite) { Cooperates(s.ctx, s, "cooperative") }),
		s.beside("a consumer goes on at the manual commit of another and its metadata is kept", (*suite).commitsByHand),
		s.beside("a consumer goes on at the automatic commit of another", (*suite).commitsByItself),
		s.beside("a group without commits starts at the oldest or the newest offset", (*suite).startsByPolicy),
		s.beside("a commit out of range is reset to the oldest offset or an error", (*suite).resetsACommit),
		s.beside("the admin client lists, describes and deletes a group and its commits", (*suite).managesAGroup),
		s.beside("the admin client may not touch a group that lives", (*suite).sparesALiveGroup),
	}
	for _, version := range versions {
		tests = append(tests, s.beside("a group of three, two speaking as Kafka "+version.String()+
			", shares the partitions; the others get those of one that leaves and of one that is killed", func(s *suite) {
			s.version = version
			Shares(s.ctx, s, "shared-"+version.String())
		}))
	}
	s.Together(tests...)
}

func (s *suite) groupCrashTests() {
	s.test("after SIGKILL a group goes on at its commits", func(s *suite) { GoesOn(s.ctx, s, "committed") })
	s.test("a live group survives SIGKILL of the broker and takes in a member that joins meanwhile", func(s *suite) {
		Survives(s.ctx, s, "survives")
	})
}

// Create, Send and Join are what the scenarios of all Go clients need.
func (s *suite) Create(topic string, partitions int32) string {
	return s.create(topic, partitions, nil)
}

func (s *suite) Send(topic string, partition int32, values ...string) {
	var messages []*sarama.ProducerMessage
	for _, value := range values {
		messages = append(messages, &sarama.ProducerMessage{
			Topic: topic, Partition: partition, Value: sarama.StringEncoder(value),
		})
	}
	s.mustProduce(s.config(), messages)
}

func (s *suite) Join(membership Membership, member Member) (leave func()) {
	config := s.groupConfig()
	config.Consumer.Group.Session.Timeout = membership.Session
	config.Consumer.Group.InstanceId = membership.Instance
	config.Consumer.Offsets.AutoCommit.Enable = false
	if membership.Cooperative {
		config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{
			sarama.NewBalanceStrategyCooperativeSticky(),
		}
	}
	return s.consume(membership.Group, membership.Topic, config, reporter{member})
}

func (s *suite) groupConfig() *sarama.Config {
	config := s.config()
	// A client that asks for all metadata at once fails when it is made while the broker is away.
	config.Metadata.Full = false
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	config.Consumer.Group.Rebalance.Retry.Backoff = 100 * time.Millisecond
	return config
}

// consume lets a handler take part in a group until the function returned is called.
func (s *suite) consume(group, topic string, config *sarama.Config, handler sarama.ConsumerGroupHandler) (leave func()) {
	consumer := Must(sarama.NewConsumerGroup([]string{Bootstrap}, group, config))
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			// Each rebalance ends a session; after an error the next one begins with a new connection.
			_ = consumer.Consume(ctx, []string{topic}, handler)
		}
	}()
	return sync.OnceFunc(func() {
		cancel()
		<-ended
		consumer.Close()
	})
}

// reporter is a handler that commits each record and reports it.
type reporter struct{ member Member }

func (reporter) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (reporter) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (r reporter) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	owned := []int32{claim.Partition()}
	r.member.Assigned(session.GenerationID(), owned)
	defer r.member.Revoked(owned)
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			session.MarkMessage(message, "")
			session.Commit()
			r.member.Received(string(message.Value))
		case <-session.Context().Done():
			return nil
		}
	}
}

// removeInstance takes a static member out of its group by its name.
func (s *suite) removeInstance(group, instance string) {
	left := Must(s.admin.RemoveMemberFromConsumerGroup(group, []string{instance}))
	Equal("error", sarama.ErrNoError, left.Err)
	Equal("members answered", 1, len(left.Members))
	Equal("removal of "+instance, sarama.ErrNoError, left.Members[0].Err)
}

// handler hands on each message and marks it when that is taken.
type handler struct {
	reporter
	messages chan *sarama.ConsumerMessage
	metadata string
	commit   bool // at once, by hand
}

func (h handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			select {
			case h.messages <- message:
			case <-session.Context().Done():
				return nil
			}
			session.MarkMessage(message, h.metadata)
			if h.commit {
				session.Commit()
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

// committed is what a group has committed of a partition.
func (s *suite) committed(group, topic string, partition int32) *sarama.OffsetFetchResponseBlock {
	fetched := Must(s.admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {partition}}))
	block := fetched.GetBlock(topic, partition)
	Check(block != nil && block.Err == sarama.ErrNoError, "commit of partition %d: %v", partition, block)
	return block
}

func (s *suite) commitsByHand() {
	topic := s.create("by-hand", 1, nil)
	s.mustProduce(s.config(), messages(topic, 0, 0, 30))
	config := s.groupConfig()
	config.Consumer.Offsets.AutoCommit.Enable = false
	first := handler{messages: make(chan *sarama.ConsumerMessage), metadata: "ten so far", commit: true}
	leave := s.consume(topic, topic, config, first)
	defer leave()
	s.take(first.messages, 10)
	Until(s.ctx, "the commit", func() bool { return s.committed(topic, topic, 0).Offset == 10 })
	leave()
	Equal("metadata", "ten so far", s.committed(topic, topic, 0).Metadata)
	second := handler{messages: make(chan *sarama.ConsumerMessage)}
	defer s.consume(topic, topic, config, second)()
	comesBack(messages(topic, 0, 10, 30), s.take(second.messages, 20))
}

func (s *suite) commitsByItself() {
	topic := s.create("by-itself", 1, nil)
	s.mustProduce(s.config(), messages(topic, 0, 0, 30))
	config := s.groupConfig()
	config.Consumer.Offsets.AutoCommit.Interval = 50 * time.Millisecond
	first := handler{messages: make(chan *sarama.ConsumerMessage)}
	leave := s.consume(topic, topic, config, first)
	defer leave()
	s.take(first.messages, 10)
	Until(s.ctx, "the automatic commit", func() bool { return s.committed(topic, topic, 0).Offset == 10 })
	leave()
	second := handler{messages: make(chan *sarama.ConsumerMessage)}
	defer s.consume(topic, topic, config, second)()
	comesBack(messages(topic, 0, 10, 30), s.take(second.messages, 20))
}

func (s *suite) startsByPolicy() {
	topic := s.create("policy", 1, nil)
	s.mustProduce(s.config(), messages(topic, 0, 0, 20))
	oldest := handler{messages: make(chan *sarama.ConsumerMessage)}
	defer s.consume(topic+"-oldest", topic, s.groupConfig(), oldest)()
	comesBack(messages(topic, 0, 0, 20), s.take(oldest.messages, 20))

	config := s.groupConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetNewest
	newest := handler{messages: make(chan *sarama.ConsumerMessage)}
	defer s.consume(topic+"-newest", topic, config, newest)()
	// Each round adds a record; the first that is read must be one of those.
	end := 20
	Until(s.ctx, "a new record", func() bool {
		s.mustProduce(s.config(), messages(topic, 0, end, end+1))
		end++
		select {
		case received := <-newest.messages:
			Check(received.Offset >= 20, "offset %d is read by a group that starts at the end", received.Offset)
			at := int(received.Offset)
			comesBack(messages(topic, 0, at, at+1), []*sarama.ConsumerMessage{received})
			return true
		default:
			return false
		}
	})
}

// alter commits an offset of partition 0 on behalf of no member.
func (s *suite) alter(group, topic string, offset int64, metadata string) error {
	committed := Must(s.admin.AlterConsumerGroupOffsets(group, map[string]map[int32]sarama.OffsetAndMetadata{
		topic: {0: {Offset: offset, Metadata: metadata, LeaderEpoch: -1}},
	}, nil))
	if code := committed.Errors[topic][0]; code != sarama.ErrNoError {
		return code
	}
	return nil
}

func (s *suite) resetsACommit() {
	topic := s.create("commit-reset", 1, nil)
	s.mustProduce(s.config(), messages(topic, 0, 0, 20))
	err := s.admin.DeleteRecords(topic, map[int32]int64{0: 5})
	Check(err == nil, "deletion of records: %v", err)
	for outside, name := range map[int64]string{2: "before", 1000: "beyond"} {
		group := topic + "-" + name
		err := s.alter(group, topic, outside, "")
		Check(err == nil, "commit: %v", err)
		config := s.groupConfig()
		config.Consumer.Group.ResetInvalidOffsets = false
		config.Consumer.Return.Errors = true
		consumer := Must(sarama.NewConsumerGroup([]string{Bootstrap}, group, config))
		ctx, cancel := context.WithCancel(s.ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = consumer.Consume(ctx, []string{topic}, handler{})
		}()
		select {
		case err := <-consumer.Errors():
			Fails("a commit "+name, sarama.ErrOffsetOutOfRange, err)
		case <-s.ctx.Done():
			Failf("no error for a commit %s", name)
		}
		cancel()
		<-ended
		consumer.Close()

		reset := handler{messages: make(chan *sarama.ConsumerMessage)}
		leave := s.consume(group, topic, s.groupConfig(), reset)
		comesBack(messages(topic, 0, 5, 20), s.take(reset.messages, 15))
		leave()
	}
}

func (s *suite) managesAGroup() {
	topic := s.create("managed-group", 2, nil)
	group := topic
	s.mustProduce(s.config(), messages(topic, 0, 0, 10))
	for offset, note := range []string{4: "four", 6: "six"} {
		if note != "" {
			err := s.alter(group, topic, int64(offset), note)
			Check(err == nil, "commit: %v", err)
		}
	}
	Fails("metadata too long", sarama.ErrOffsetMetadataTooLarge, s.alter(group, topic, 7, strings.Repeat("m", 4097)))
	Fails("commit of an unknown topic", sarama.ErrUnknownTopicOrPartition, s.alter(group, topic+"-unknown", 1, ""))
	commit := s.committed(group, topic, 0)
	Equal("commit", 6, commit.Offset)
	Equal("metadata", "six", commit.Metadata)
	Equal("lag", 4, Must(s.client.GetOffset(topic, 0, sarama.OffsetNewest))-commit.Offset)
	all := Must(s.admin.ListConsumerGroupOffsets(group, nil))
	Check(all.GetBlock(topic, 0) != nil && all.GetBlock(topic, 1) == nil, "partitions committed: %v", all.Groups)
	batch := Must(s.admin.ListConsumerGroupOffsetsBatch(map[string]map[string][]int32{group: nil, group + "-none": nil}))
	Equal("groups answered", 2, len(batch))
	Equal("commit in a batch", 6, batch[group].Blocks[topic][0].Offset)
	Equal("commits of an unknown group", 0, len(batch[group+"-none"].Blocks))

	// An offset manager commits for a group without joining it.
	manager := Must(sarama.NewOffsetManagerFromClient(group, s.client))
	managed := Must(manager.ManagePartition(topic, 0))
	offset, note := managed.NextOffset()
	Equal("offset of the manager", 6, offset)
	Equal("metadata of the manager", "six", note)
	managed.MarkOffset(8, "eight")
	manager.Commit()
	managed.Close()
	manager.Close()
	Equal("commit of the manager", 8, s.committed(group, topic, 0).Offset)

	_, listed := Must(s.admin.ListConsumerGroups())[group]
	Check(listed, "it is not listed")
	described := s.describeGroup(group)
	Equal("state", "Empty", described.State)
	Equal("members", 0, len(described.Members))

	err := s.admin.DeleteConsumerGroupOffset(group, topic, 0)
	Check(err == nil, "deletion of a commit: %v", err)
	Equal("deleted commit", -1, s.committed(group, topic, 0).Offset)
	err = s.alter(group, topic, 1, "")
	Check(err == nil, "commit: %v", err)
	err = s.admin.DeleteConsumerGroup(group)
	Check(err == nil, "deletion: %v", err)
	_, listed = Must(s.admin.ListConsumerGroups())[group]
	Check(!listed, "the deleted group is listed")
	Fails("deletion of nothing", sarama.ErrGroupIDNotFound, s.admin.DeleteConsumerGroup(group))
	Fails("deletion of a commit of nothing", sarama.ErrGroupIDNotFound, s.admin.DeleteConsumerGroupOffset(group, topic, 0))
	Equal("state of nothing", "Dead", s.describeGroup(group).State)
}

func (s *suite) describeGroup(group string) *sarama.GroupDescription {
	return Must(s.admin.DescribeConsumerGroups([]string{group}))[0]
}

func (s *suite) sparesALiveGroup() {
	topic := s.create("live-group", 2, nil)
	group := topic
	for _, id := range []string{"one", "two"} {
		config := s.groupConfig()
		config.ClientID = id
		defer s.consume(group, topic, config, handler{})()
	}
	var described *sarama.GroupDescription
	Until(s.ctx, "a stable group of two", func() bool {
		described = s.describeGroup(group)
		return described.State == "Stable" && len(described.Members) == 2
	})
	Equal("protocol type", "consumer", described.ProtocolType)
	Equal("protocol", "range", described.Protocol)
	clients, partitions := map[string]bool{}, map[int32]bool{}
	for id, member := range described.Members {
		clients[member.ClientId] = true
		Equal("member id", id, member.MemberId)
		Check(strings.Contains(member.ClientHost, "127.0.0.1"), "host: %s", member.ClientHost)
		subscription := Must(member.GetMemberMetadata())
		Check(slices.Equal(subscription.Topics, []string{topic}), "subscription: %v", subscription)
		for _, partition := range Must(member.GetMemberAssignment()).Topics[topic] {
			partitions[partition] = true
		}
	}
	Check(maps.Equal(clients, map[string]bool{"one": true, "two": true}), "clients: %v", clients)
	Check(maps.Equal(partitions, map[int32]bool{0: true, 1: true}), "partitions: %v", partitions)
	Equal("type listed", "consumer", Must(s.admin.ListConsumerGroups())[group])
	Fails("deletion", sarama.ErrNonEmptyGroup, s.admin.DeleteConsumerGroup(group))
	Fails("commit", sarama.ErrUnknownMemberId, s.alter(group, topic, 3, ""))
	err := s.admin.DeleteConsumerGroupOffset(group, topic, 0)
	Check(errors.Is(err, sarama.ErrGroupSubscribedToTopic), "deletion of a commit: %v", err)
}

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	. "ottla/compat/suite"
)

// groupKeys are the requests in the life of a group.
var groupKeys = []kmsg.Key{
	kmsg.FindCoordinator, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.LeaveGroup, kmsg.OffsetCommit,
	kmsg.OffsetFetch, kmsg.DescribeGroups, kmsg.ListGroups, kmsg.DeleteGroups,
}

// rawMember is a member that sends its requests one by one. The group reads neither its subscription nor its assignment.
type rawMember struct {
	*suite
	client     *kgo.Client
	group      string
	id         string
	instance   *string
	generation int32
	protocol   string
}

func (m *rawMember) joinRequest() *kmsg.JoinGroupRequest {
	request := kmsg.NewPtrJoinGroupRequest()
	request.Group, request.MemberID, request.InstanceID = m.group, m.id, m.instance
	request.SessionTimeoutMillis, request.RebalanceTimeoutMillis = 30_000, 30_000
	request.ProtocolType = "raw"
	request.Protocols = []kmsg.JoinGroupRequestProtocol{
		{Name: "first", Metadata: []byte("wish\x00\xff")}, {Name: "second", Metadata: []byte{}},
	}
	return request
}

// join joins and, where the group wants that, joins again with the member id that it was given.
func (m *rawMember) join() *kmsg.JoinGroupResponse {
	response := Must(m.joinRequest().RequestWith(m.ctx, m.client))
	if kerr.ErrorForCode(response.ErrorCode) == kerr.MemberIDRequired {
		Check(response.Version >= 4 && m.instance == nil, "a member id is required in v%d", response.Version)
		m.id = response.MemberID
		response = Must(m.joinRequest().RequestWith(m.ctx, m.client))
	}
	succeeded("join", response.ErrorCode)
	m.id, m.generation, m.protocol = response.MemberID, response.Generation, *response.Protocol
	return response
}

func (m *rawMember) syncRequest() *kmsg.SyncGroupRequest {
	request := kmsg.NewPtrSyncGroupRequest()
	request.Group, request.Generation, request.MemberID, request.InstanceID = m.group, m.generation, m.id, m.instance
	protocolType := "raw"
	request.ProtocolType, request.Protocol = &protocolType, &m.protocol
	request.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{
		{MemberID: m.id, MemberAssignment: []byte("duty\x00\xff")},
	}
	return request
}

func (m *rawMember) heartbeatRequest() *kmsg.HeartbeatRequest {
	request := kmsg.NewPtrHeartbeatRequest()
	request.Group, request.Generation, request.MemberID, request.InstanceID = m.group, m.generation, m.id, m.instance
	return request
}

func (m *rawMember) commitRequest(topic string, offset int64, metadata string) *kmsg.OffsetCommitRequest {
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.Generation, request.MemberID, request.InstanceID = m.group, m.generation, m.id, m.instance
	partition := kmsg.NewOffsetCommitRequestTopicPartition()
	partition.Offset, partition.Metadata = offset, &metadata
	request.Topics = []kmsg.OffsetCommitRequestTopic{{
		Topic: topic, TopicID: m.describe(topic).ID, Partitions: []kmsg.OffsetCommitRequestTopicPartition{partition},
	}}
	return request
}

func (m *rawMember) leaveRequest() *kmsg.LeaveGroupRequest {
	request := kmsg.NewPtrLeaveGroupRequest()
	request.Group, request.MemberID = m.group, m.id
	request.Members = []kmsg.LeaveGroupRequestMember{{MemberID: m.id, InstanceID: m.instance}}
	return request
}

// joined is a member that is the only one of its stable group.
func (s *suite) joined(group string, instance *string) *rawMember {
	member := &rawMember{suite: s, client: s.client, group: group, instance: instance}
	member.join()
	succeeded("sync", Must(member.syncRequest().RequestWith(s.ctx, s.client)).ErrorCode)
	return member
}

func succeeded(what string, code int16) {
	err := kerr.ErrorForCode(code)
	Check(err == nil, "%s: %v", what, err)
}

func refused(what string, want error, code int16) {
	Fails(what, want, kerr.ErrorForCode(code))
}

func (s *suite) livesWithEachVersion() {
	topic := s.create("group-versions", 1, nil)
	rounds := int16(0)
	for _, key := range groupKeys {
		rounds = max(rounds, served[key].max-served[key].min+1)
	}
	for round := range rounds {
		// The requests that have fewer versions stay at their last.
		low, high := new(kversion.Versions), kversion.Tip()
		for _, key := range groupKeys {
			version := min(served[key].min+round, served[key].max)
			low.SetMaxKeyVersion(key.Int16(), version)
			high.SetMaxKeyVersion(key.Int16(), version)
		}
		client := s.newClient(kgo.MinVersions(low), kgo.MaxVersions(high))
		s.livesAndDies(client, topic, fmt.Sprint(topic, "-", round))
		client.Close()
	}
}

func (s *suite) livesAndDies(client *kgo.Client, topic, group string) {
	admin := kadm.NewClient(client)
	member := &rawMember{suite: s, client: client, group: group}
	joined := member.join()
	Equal("generation", 1, joined.Generation)
	Equal("leader", joined.MemberID, joined.LeaderID)
	Equal("protocol", "first", *joined.Protocol)
	Check(joined.Version < 7 || *joined.ProtocolType == "raw", "protocol type: %v", joined.ProtocolType)
	Equal("members", 1, len(joined.Members))
	Equal("member", joined.MemberID, joined.Members[0].MemberID)
	Equal("wish", "wish\x00\xff", string(joined.Members[0].ProtocolMetadata))

	synced := Must(member.syncRequest().RequestWith(s.ctx, client))
	succeeded("sync", synced.ErrorCode)
	Equal("duty", "duty\x00\xff", string(synced.MemberAssignment))
	succeeded("heartbeat", Must(member.heartbeatRequest().RequestWith(s.ctx, client)).ErrorCode)

	committed := Must(member.commitRequest(topic, 7, "seven").RequestWith(s.ctx, client))
	succeeded("commit", committed.Topics[0].Partitions[0].ErrorCode)
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Group = group
	fetch.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: []int32{0, 1}}}
	fetched := Must(fetch.RequestWith(s.ctx, client))
	succeeded("offset fetch", fetched.ErrorCode)
	Equal("topics with commits", 1, len(fetched.Topics))
	offsets := map[int32]int64{}
	for _, partition := range fetched.Topics[0].Partitions {
		succeeded("offset fetch of a partition", partition.ErrorCode)
		offsets[partition.Partition] = partition.Offset
		Check((*partition.Metadata == "seven") == (partition.Partition == 0), "metadata: %s", *partition.Metadata)
	}
	Check(len(offsets) == 2 && offsets[0] == 7 && offsets[1] == -1, "commits: %v", offsets)

	described := Must(admin.DescribeGroups(s.ctx, group))[group]
	Check(described.Err == nil, "describe: %v", described.Err)
	Equal("state", "Stable", described.State)
	Equal("protocol described", "first", described.Protocol)
	Equal("protocol type described", "raw", described.ProtocolType)
	Equal("members described", 1, len(described.Members))
	wish, _ := described.Members[0].Join.Raw()
	duty, _ := described.Members[0].Assigned.Raw()
	Check(bytes.Equal(wish, []byte("wish\x00\xff")), "wish described: %q", wish)
	Check(bytes.Equal(duty, []byte("duty\x00\xff")), "duty described: %q", duty)
	Equal("protocol type listed", "raw", Must(admin.ListGroups(s.ctx))[group].ProtocolType)

	_, err := admin.DeleteGroup(s.ctx, group)
	Fails("deletion of a group that lives", kerr.NonEmptyGroup, err)
	left := Must(member.leaveRequest().RequestWith(s.ctx, client))
	succeeded("leave", left.ErrorCode)
	Check(!slices.ContainsFunc(left.Members, func(member kmsg.LeaveGroupResponseMember) bool {
		return member.ErrorCode != 0
	}), "leave: %v", left.Members)
	Must(admin.DeleteGroup(s.ctx, group))
	_, err = admin.DeleteGroup(s.ctx, group)
	Fails("deletion of nothing", kerr.GroupIDNotFound, err)
}

func (s *suite) refusesBadGroupRequests() {
	topic := s.create("bad-group", 1, nil)
	member := s.joined(topic, nil)
	for _, bad := range []struct {
		what   string
		change func(*kmsg.JoinGroupRequest)
		want   error
	}{
		{"without a group", func(r *kmsg.JoinGroupRequest) { r.Group = "" }, kerr.InvalidGroupID},
		{"an unknown member", func(r *kmsg.JoinGroupRequest) { r.MemberID = "nobody" }, kerr.UnknownMemberID},
		{"an unknown group's member", func(r *kmsg.JoinGroupRequest) { r.Group, r.MemberID = topic+"-none", "nobody" },
			kerr.UnknownMemberID},
		{"a short session", func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 5999 }, kerr.InvalidSessionTimeout},
		{"a long session", func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1_800_001 }, kerr.InvalidSessionTimeout},
		{"no protocols", func(r *kmsg.JoinGroupRequest) { r.Protocols = nil }, kerr.InconsistentGroupProtocol},
		{"no protocol type", func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "" }, kerr.InconsistentGroupProtocol},
		{"another protocol type", func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "cooked" }, kerr.InconsistentGroupProtocol},
		{"no common protocol", func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name, r.Protocols[1].Name = "third", "fourth" },
			kerr.InconsistentGroupProtocol},
	} {
		request := (&rawMember{suite: s, group: topic}).joinRequest()
		bad.change(request)
		refused("join: "+bad.what, bad.want, Must(request.RequestWith(s.ctx, s.client)).ErrorCode)
	}

	for _, bad := range []struct {
		what   string
		change func(*rawMember)
		want   error
		commit error
	}{
		{"an old generation", func(m *rawMember) { m.generation = 0 }, kerr.IllegalGeneration, kerr.IllegalGeneration},
		{"a generation to come", func(m *rawMember) { m.generation = 2 }, kerr.IllegalGeneration, kerr.IllegalGeneration},
		{"an unknown member", func(m *rawMember) { m.id = "nobody" }, kerr.UnknownMemberID, kerr.UnknownMemberID},
		{"an unknown group", func(m *rawMember) { m.group += "-none" }, kerr.UnknownMemberID, kerr.GroupIDNotFound},
	} {
		wrong := *member
		bad.change(&wrong)
		refused("sync: "+bad.what, bad.want, Must(wrong.syncRequest().RequestWith(s.ctx, s.client)).ErrorCode)
		refused("heartbeat: "+bad.what, bad.want, Must(wrong.heartbeatRequest().RequestWith(s.ctx, s.client)).ErrorCode)
		committed := Must(wrong.commitRequest(topic, 1, "").RequestWith(s.ctx, s.client))
		refused("commit: "+bad.what, bad.commit, committed.Topics[0].Partitions[0].ErrorCode)
	}
	sync := member.syncRequest()
	other := "second"
	sync.Protocol = &other
	refused("sync: another protocol", kerr.InconsistentGroupProtocol, Must(sync.RequestWith(s.ctx, s.client)).ErrorCode)

	leave := member.leaveRequest()
	leave.Members[0].MemberID = "nobody"
	left := Must(leave.RequestWith(s.ctx, s.client))
	refused("leave: an unknown member", kerr.UnknownMemberID, left.Members[0].ErrorCode)

	// Partitions stand for themselves: the first is committed.
	commit := member.commitRequest(topic, 3, strings.Repeat("m", 4096))
	for _, bad := range []struct {
		partition int32
		metadata  string
	}{{1, ""}, {0, strings.Repeat("m", 4097)}} {
		partition := kmsg.NewOffsetCommitRequestTopicPartition()
		partition.Partition, partition.Offset, partition.Metadata = bad.partition, 9, &bad.metadata
		commit.Topics[0].Partitions = append(commit.Topics[0].Partitions, partition)
	}
	var answers []int16
	for _, partition := range Must(commit.RequestWith(s.ctx, s.client)).Topics[0].Partitions {
		answers = append(answers, partition.ErrorCode)
	}
	slices.Sort(answers)
	Check(slices.Equal(answers, []int16{0, kerr.UnknownTopicOrPartition.Code, kerr.OffsetMetadataTooLarge.Code}),
		"error codes of commits: %v", answers)
	Equal("commit", 3, s.committed(topic, topic, 0))
	unknown := member.commitRequest(topic, 3, "")
	unknown.Topics[0].TopicID = kadm.TopicID{1, 2, 3}
	committed := Must(unknown.RequestWith(s.ctx, s.client))
	refused("commit: an unknown topic", kerr.UnknownTopicID, committed.Topics[0].Partitions[0].ErrorCode)

	// The group has seen nothing of all that.
	succeeded("heartbeat", Must(member.heartbeatRequest().RequestWith(s.ctx, s.client)).ErrorCode)
	s.fencesInstances(topic)
}

// fencesInstances proves that a static member which joins again shuts out the one that it was.
func (s *suite) fencesInstances(topic string) {
	instance := "instance"
	before := s.joined(topic+"-static", &instance)
	after := *before
	after.id = ""
	again := after.join()
	Check(after.id != before.id, "the member id stays %s", after.id)
	Equal("generation", before.generation, again.Generation)
	Check(again.SkipAssignment, "the returning leader is to assign once more")
	Equal("duty", "duty\x00\xff", string(Must(after.syncRequest().RequestWith(s.ctx, s.client)).MemberAssignment))

	refused("join", kerr.FencedInstanceID, Must(before.joinRequest().RequestWith(s.ctx, s.client)).ErrorCode)
	refused("sync", kerr.FencedInstanceID, Must(before.syncRequest().RequestWith(s.ctx, s.client)).ErrorCode)
	refused("heartbeat", kerr.FencedInstanceID, Must(before.heartbeatRequest().RequestWith(s.ctx, s.client)).ErrorCode)
	commit := Must(before.commitRequest(topic, 1, "").RequestWith(s.ctx, s.client))
	refused("commit", kerr.FencedInstanceID, commit.Topics[0].Partitions[0].ErrorCode)
	left := Must(before.leaveRequest().RequestWith(s.ctx, s.client))
	refused("leave", kerr.FencedInstanceID, left.Members[0].ErrorCode)
	succeeded("heartbeat", Must(after.heartbeatRequest().RequestWith(s.ctx, s.client)).ErrorCode)
}

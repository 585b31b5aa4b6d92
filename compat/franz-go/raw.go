package main

import (
	"hash/crc32"
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	. "ottla/compat/suite"
)

// served are the versions that Kafka 4.4.0 serves of the requests that clients of all ages pin.
var served = map[kmsg.Key]struct{ min, max int16 }{
	kmsg.Produce:     {3, 13},
	kmsg.Fetch:       {4, 18},
	kmsg.ListOffsets: {1, 11},
	kmsg.Metadata:    {0, 13},

	kmsg.FindCoordinator: {0, 6},
	kmsg.JoinGroup:       {0, 9},
	kmsg.SyncGroup:       {0, 5},
	kmsg.Heartbeat:       {0, 4},
	kmsg.LeaveGroup:      {0, 5},
	kmsg.OffsetCommit:    {2, 10},
	kmsg.OffsetFetch:     {1, 10},
	kmsg.DescribeGroups:  {0, 6},
	kmsg.ListGroups:      {0, 5},
	kmsg.DeleteGroups:    {0, 3},
}

func (s *suite) rawTests() {
	s.test("ApiVersions names every version that the next tests use", s.namesVersions)
	s.test("records produced with each version of Produce come back", s.producesWithEachVersion)
	s.test("records come back with each version of Fetch", s.fetchesWithEachVersion)
	s.test("each version of ListOffsets finds the same", s.listsOffsetsWithEachVersion)
	s.test("each version of Metadata tells the same", s.describesWithEachVersion)
	s.test("a fetch session answers with what is new only", s.keepsAFetchSession)
	s.test("a fetch session that is unknown or out of step is refused", s.refusesABadFetchSession)
	s.test("a batch sent twice by an idempotent producer is stored once", s.storesADuplicateOnce)
	s.test("batches out of sequence, of an old epoch or damaged are refused", s.refusesBadBatches)
	s.test("DescribeTopicPartitions is read in pages", s.readsPages)
	s.test("a topic id that nobody has is unknown", s.missesAnUnknownID)
	s.test("DescribeCluster and Metadata tell the same cluster", s.describesTheCluster)
}

// pinned makes a client that uses just one version of a request.
func (s *suite) pinned(key kmsg.Key, version int16, options ...kgo.Opt) *kgo.Client {
	low, high := new(kversion.Versions), kversion.Tip()
	low.SetMaxKeyVersion(key.Int16(), version)
	high.SetMaxKeyVersion(key.Int16(), version)
	return s.newClient(append(options, kgo.MinVersions(low), kgo.MaxVersions(high))...)
}

// eachVersion calls with every served version of a request and a client that uses that one.
func (s *suite) eachVersion(key kmsg.Key, call func(version int16, client *kgo.Client), options ...kgo.Opt) {
	for version := served[key].min; version <= served[key].max; version++ {
		client := s.pinned(key, version, options...)
		call(version, client)
		client.Close()
	}
}

func (s *suite) namesVersions() {
	response := Must(kmsg.NewPtrApiVersionsRequest().RequestWith(s.ctx, s.client))
	Check(kerr.ErrorForCode(response.ErrorCode) == nil, "error %d", response.ErrorCode)
	for key, want := range served {
		at := slices.IndexFunc(response.ApiKeys, func(named kmsg.ApiVersionsResponseApiKey) bool {
			return named.ApiKey == key.Int16()
		})
		Check(at >= 0, "%s is not served", key.Name())
		named := response.ApiKeys[at]
		Check(named.MinVersion <= want.min && want.max <= named.MaxVersion, "%s is served from %d to %d",
			key.Name(), named.MinVersion, named.MaxVersion)
	}
}

func (s *suite) producesWithEachVersion() {
	topic := s.create("produce-versions", 1, nil)
	total := 0
	s.eachVersion(kmsg.Produce, func(version int16, client *kgo.Client) {
		results := client.ProduceSync(s.ctx, messages(topic, 0, total, total+10)...)
		Check(results.FirstErr() == nil, "v%d: %v", version, results.FirstErr())
		Equal("acknowledged offset", int64(total), results[0].Record.Offset)
		total += 10
	})
	comesBack(messages(topic, 0, 0, total), s.read(topic, 0, 0, total))
}

func (s *suite) fetchesWithEachVersion() {
	topic := s.create("fetch-versions", 1, nil)
	uncompressed := kgo.ProducerBatchCompression(kgo.NoCompression())
	s.mustProduce(messages(topic, 0, 0, 100), kgo.ProducerBatchMaxBytes(1000), uncompressed)
	s.eachVersion(kmsg.Fetch, func(_ int16, client *kgo.Client) {
		comesBack(messages(topic, 0, 0, 100), s.poll(client, 100))
	}, from(topic, 0, kgo.NewOffset().AtStart()))
}

func (s *suite) listsOffsetsWithEachVersion() {
	topic := s.create("list-versions", 1, nil)
	s.mustProduce(messages(topic, 0, 0, 100), kgo.ProducerBatchMaxBytes(1000))
	ms := Start.UnixMilli()
	s.eachVersion(kmsg.ListOffsets, func(version int16, client *kgo.Client) {
		for _, list := range []struct {
			since                int16
			timestamp            int64
			wantOffset, wantTime int64
		}{
			{1, -1, 100, -1}, {1, -2, 0, -1}, {1, ms + 41, 5, ms + 50}, {1, ms + 991, -1, -1},
			{7, -3, 99, ms + 990}, {8, -4, 0, -1}, {9, -5, -1, -1}, {11, -6, -1, -1},
		} {
			if version < list.since {
				continue
			}
			request := kmsg.NewPtrListOffsetsRequest()
			partition := kmsg.NewListOffsetsRequestTopicPartition()
			partition.Timestamp = list.timestamp
			request.Topics = []kmsg.ListOffsetsRequestTopic{{
				Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{partition},
			}}
			response := Must(request.RequestWith(s.ctx, client))
			Equal("version", version, response.Version)
			found := response.Topics[0].Partitions[0]
			Equal("error", 0, found.ErrorCode)
			Equal("offset", list.wantOffset, found.Offset)
			Equal("time", list.wantTime, found.Timestamp)
		}
	})
}

func (s *suite) describesWithEachVersion() {
	topic := s.create("metadata-versions", 2, nil)
	id := s.describe(topic).ID
	s.eachVersion(kmsg.Metadata, func(version int16, client *kgo.Client) {
		request := kmsg.NewPtrMetadataRequest()
		request.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
		response := Must(request.RequestWith(s.ctx, client))
		Equal("version", version, response.Version)
		Equal("brokers", 1, len(response.Brokers))
		Equal("topics", 1, len(response.Topics))
		found := response.Topics[0]
		Equal("error", 0, found.ErrorCode)
		Equal("topic", topic, *found.Topic)
		Check(version < 10 || found.TopicID == id, "topic id %v instead of %v", found.TopicID, id)
		Equal("partitions", 2, len(found.Partitions))
		for _, partition := range found.Partitions {
			Equal("leader", response.Brokers[0].NodeID, partition.Leader)
		}
	})
}

// fetch sends one request of a fetch session: what it wants of a topic from now on, and what no more.
func (s *suite) fetch(
	id kadm.TopicID, session, epoch int32, offsets map[int32]int64, forgotten ...int32,
) *kmsg.FetchResponse {
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 100, 1, 1<<20
	request.SessionID, request.SessionEpoch = session, epoch
	topic := kmsg.NewFetchRequestTopic()
	topic.TopicID = id
	for number, offset := range offsets {
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition, partition.FetchOffset, partition.PartitionMaxBytes = number, offset, 1<<20
		topic.Partitions = append(topic.Partitions, partition)
	}
	if len(offsets) > 0 {
		request.Topics = []kmsg.FetchRequestTopic{topic}
	}
	if len(forgotten) > 0 {
		request.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{TopicID: id, Partitions: forgotten}}
	}
	return Must(request.RequestWith(s.ctx, s.client))
}

// answers checks a fetch: no error, and these high watermarks of just these partitions.
func answers(what string, response *kmsg.FetchResponse, want map[int32]int64) {
	Equal(what+": error", 0, response.ErrorCode)
	got := map[int32]int64{}
	for _, topic := range response.Topics {
		for _, partition := range topic.Partitions {
			Equal(what+": error of a partition", 0, partition.ErrorCode)
			got[partition.Partition] = partition.HighWatermark
		}
	}
	Check(maps.Equal(want, got), "%s: high watermarks %v instead of %v", what, got, want)
}

func (s *suite) keepsAFetchSession() {
	topic := s.create("session", 3, nil)
	id := s.describe(topic).ID
	s.mustProduce(messages(topic, 0, 0, 1))

	first := s.fetch(id, 0, 0, map[int32]int64{0: 0, 1: 0})
	answers("full fetch", first, map[int32]int64{0: 1, 1: 0})
	session := first.SessionID
	Check(session != 0, "no session was made")
	answers("nothing new", s.fetch(id, session, 1, map[int32]int64{0: 1}), map[int32]int64{})
	s.mustProduce(messages(topic, 1, 0, 2))
	answers("one partition has more", s.fetch(id, session, 2, nil), map[int32]int64{1: 2})
	s.mustProduce(messages(topic, 2, 0, 3))
	answers("one added, one moved on", s.fetch(id, session, 3, map[int32]int64{1: 2, 2: 0}), map[int32]int64{2: 3})
	s.mustProduce(append(messages(topic, 0, 1, 2), messages(topic, 1, 2, 3)...))
	answers("one forgotten", s.fetch(id, session, 4, map[int32]int64{2: 3}, 0), map[int32]int64{1: 3})
	last := s.fetch(id, session, -1, map[int32]int64{0: 0})
	answers("the end of the session", last, map[int32]int64{0: 2})
	Equal("session after its end", 0, last.SessionID)
	Fails("a session that has ended", kerr.FetchSessionIDNotFound,
		kerr.ErrorForCode(s.fetch(id, session, 5, nil).ErrorCode))
}

func (s *suite) refusesABadFetchSession() {
	id := s.describe(s.create("bad-session", 1, nil)).ID
	session := s.fetch(id, 0, 0, map[int32]int64{0: 0}).SessionID
	tooHigh := s.fetch(id, session, 7, nil)
	Fails("an epoch too high", kerr.InvalidFetchSessionEpoch, kerr.ErrorForCode(tooHigh.ErrorCode))
	unknown := s.fetch(id, session^0x5555, 1, nil)
	Fails("an unknown session", kerr.FetchSessionIDNotFound, kerr.ErrorForCode(unknown.ErrorCode))
	answers("the right epoch after that", s.fetch(id, session, 1, nil), map[int32]int64{})
}

// batchOf makes an uncompressed record batch of an idempotent producer.
func batchOf(producer int64, epoch int16, sequence int32, values ...string) []byte {
	batch := kmsg.NewRecordBatch()
	for n, value := range values {
		record := kmsg.NewRecord()
		record.OffsetDelta, record.Value = int32(n), []byte(value)
		// The length is that of all behind it; a length of 0 takes one byte.
		record.Length = int32(len(record.AppendTo(nil)) - 1)
		batch.Records = record.AppendTo(batch.Records)
	}
	batch.Magic = 2
	batch.LastOffsetDelta, batch.NumRecords = int32(len(values)-1), int32(len(values))
	batch.FirstTimestamp, batch.MaxTimestamp = Start.UnixMilli(), Start.UnixMilli()
	batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence = producer, epoch, sequence
	// The length leaves out base offset and itself, the checksum all up to its own end.
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	batch.CRC = int32(crc32.Checksum(batch.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
	return batch.AppendTo(nil)
}

// store produces raw bytes to partition 0; the answer is the base offset or the error.
func (s *suite) store(id kadm.TopicID, records []byte) (int64, error) {
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis = -1, 10_000
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = records
	request.Topics = []kmsg.ProduceRequestTopic{{
		TopicID: id, Partitions: []kmsg.ProduceRequestTopicPartition{partition},
	}}
	answer := Must(request.RequestWith(s.ctx, s.client)).Topics[0].Partitions[0]
	return answer.BaseOffset, kerr.ErrorForCode(answer.ErrorCode)
}

func (s *suite) producerID() int64 {
	response := Must(kmsg.NewPtrInitProducerIDRequest().RequestWith(s.ctx, s.client))
	Equal("error of InitProducerId", 0, response.ErrorCode)
	Equal("epoch of a new producer", 0, response.ProducerEpoch)
	return response.ProducerID
}

func (s *suite) storesADuplicateOnce() {
	topic := s.create("duplicates", 1, nil)
	id := s.describe(topic).ID
	producer := s.producerID()
	Check(producer != s.producerID(), "a producer id was given twice")
	batches := [][]byte{
		batchOf(producer, 0, 0, "a", "b"), batchOf(producer, 0, 2, "c"), batchOf(producer, 0, 3, "d", "e", "f"),
	}
	offsets := []int64{0, 2, 3}
	for _, n := range []int{0, 0, 1, 1, 0, 2, 1, 2, 0} {
		Equal("base offset", offsets[n], Must(s.store(id, batches[n])))
	}
	values := ""
	for _, record := range s.read(topic, 0, 0, 6) {
		values += string(record.Value)
		Equal("producer id", producer, record.ProducerID)
	}
	Equal("values", "abcdef", values)
}

func (s *suite) refusesBadBatches() {
	topic := s.create("bad-batches", 1, nil)
	id := s.describe(topic).ID
	producer := s.producerID()
	Must(s.store(id, batchOf(producer, 0, 0, "a")))
	damaged := batchOf(producer, 0, 1, "b")
	damaged[len(damaged)-2] ^= 1
	cut := batchOf(producer, 0, 1, "b")
	Must(s.store(id, batchOf(producer, 1, 0, "b")))
	for _, bad := range []struct {
		what    string
		records []byte
		want    error
	}{
		{"a gap", batchOf(producer, 1, 5, "c"), kerr.OutOfOrderSequenceNumber},
		{"a new epoch not at 0", batchOf(producer, 2, 3, "c"), kerr.OutOfOrderSequenceNumber},
		{"an old epoch", batchOf(producer, 0, 1, "c"), kerr.InvalidProducerEpoch},
		{"a flipped bit", damaged, kerr.CorruptMessage},
		{"two batches", append(batchOf(producer, 1, 1, "c"), batchOf(producer, 1, 2, "d")...), kerr.InvalidRecord},
		{"half a batch", cut[:len(cut)/2], kerr.InvalidRecord},
		{"no batch", []byte{}, kerr.InvalidRecord},
	} {
		_, err := s.store(id, bad.records)
		Fails(bad.what, bad.want, err)
	}
	Equal("base offset after the refusals", 2, Must(s.store(id, batchOf(producer, 1, 1, "c"))))
	records := s.read(topic, 0, 0, 3)
	Equal("values", "abc", string(records[0].Value)+string(records[1].Value)+string(records[2].Value))
}

func (s *suite) readsPages() {
	topic := s.create("pages", 5, nil)
	id := s.describe(topic).ID
	request := kmsg.NewPtrDescribeTopicPartitionsRequest()
	request.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: topic}}
	request.ResponsePartitionLimit = 2
	for _, page := range [][]int32{{0, 1}, {2, 3}, {4}} {
		response := Must(request.RequestWith(s.ctx, s.client))
		Equal("topics", 1, len(response.Topics))
		found := response.Topics[0]
		Equal("error", 0, found.ErrorCode)
		Check(found.Topic != nil && *found.Topic == topic && found.TopicID == id, "another topic: %v", found)
		var partitions []int32
		for _, partition := range found.Partitions {
			Equal("error of a partition", 0, partition.ErrorCode)
			partitions = append(partitions, partition.Partition)
		}
		Check(slices.Equal(page, partitions), "partitions %v instead of %v", partitions, page)
		if page[0] == 4 {
			Check(response.NextCursor == nil, "there is a page after the last")
			return
		}
		Check(response.NextCursor != nil, "there is no page after %v", page)
		Equal("topic of the next page", topic, response.NextCursor.Topic)
		Equal("first partition of the next page", page[1]+1, response.NextCursor.Partition)
		request.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: topic, Partition: response.NextCursor.Partition}
	}
}

func (s *suite) missesAnUnknownID() {
	id := kadm.TopicID{1, 2, 3}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics = []kmsg.MetadataRequestTopic{{TopicID: id}}
	described := Must(metadata.RequestWith(s.ctx, s.client)).Topics[0]
	Fails("Metadata", kerr.UnknownTopicID, kerr.ErrorForCode(described.ErrorCode))
	Check(described.Topic == nil, "Metadata knows its name: %v", described.Topic)
	fetched := s.fetch(id, 0, -1, map[int32]int64{0: 0})
	Equal("topics fetched", 1, len(fetched.Topics))
	Fails("Fetch", kerr.UnknownTopicID, kerr.ErrorForCode(fetched.Topics[0].Partitions[0].ErrorCode))
	_, err := s.store(id, batchOf(-1, -1, -1, "a"))
	Fails("Produce", kerr.UnknownTopicID, err)
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: id}}
	deleted := Must(remove.RequestWith(s.ctx, s.client)).Topics[0]
	Fails("DeleteTopics", kerr.UnknownTopicID, kerr.ErrorForCode(deleted.ErrorCode))
}

func (s *suite) describesTheCluster() {
	cluster := Must(kmsg.NewPtrDescribeClusterRequest().RequestWith(s.ctx, s.client))
	Equal("error", 0, cluster.ErrorCode)
	metadata := Must(kmsg.NewPtrMetadataRequest().RequestWith(s.ctx, s.client))
	Check(metadata.ClusterID != nil, "Metadata names no cluster")
	Equal("cluster id", *metadata.ClusterID, cluster.ClusterID)
	Equal("controller", metadata.ControllerID, cluster.ControllerID)
	Equal("brokers", 1, len(cluster.Brokers))
	Equal("broker", metadata.Brokers[0].NodeID, cluster.Brokers[0].NodeID)
	Equal("address", Bootstrap, net.JoinHostPort(cluster.Brokers[0].Host, strconv.Itoa(int(cluster.Brokers[0].Port))))
}

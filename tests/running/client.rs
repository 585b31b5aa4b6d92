//! A client of typed requests, one connection each.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ottla::protocol::ErrorCode;
use ottla::protocol::api::{Api, decode};
use ottla::protocol::header::{frame_request, response_header_size};
use ottla::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use ottla::protocol::messages::delete_topics::{DeletableTopic, DeleteTopicsRequest};
use ottla::protocol::messages::fetch::{
    FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopic,
};
use ottla::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic,
};
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataTopic, MetadataTopicResponse};
use ottla::protocol::messages::produce::{
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceTopic,
};
use ottla::protocol::messages::{
    CreateTopics, DeleteTopics, Fetch, InitProducerId, ListOffsets, Metadata, Produce,
};
use ottla::protocol::wire::{Chunks, Records};
use ottla::record::records::{records, split_batch};
use ottla::record::{BatchBuilder, Record};

use super::PATIENCE;

/// Last versions that name topics by name.
const PRODUCE: i16 = 12;
const FETCH: i16 = 12;

/// Most that a batch of a test decompresses to.
const BATCH_BYTES: usize = 64 << 20;

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A request's whole frame.
pub fn frame<A: Api>(version: i16, correlation_id: i32, request: &A::Request) -> Bytes {
    let mut frame = Chunks::default();
    frame_request::<A>(&mut frame, version, correlation_id, "test", request);
    frame.concat().unwrap()
}

/// One batch for one partition, acks=all.
pub fn produce_request(topic: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    let partition = ProducePartition { index: partition, records: Records::Bytes(batch) };
    let topic = ProduceTopic { name: topic.into(), partition_data: vec![partition], ..Default::default() };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

/// What there is of one partition from an offset on, without waiting and without a session.
pub fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let wanted = FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: i32::MAX,
        ..Default::default()
    };
    let topic = FetchTopic { topic: topic.into(), partitions: vec![wanted], ..Default::default() };
    FetchRequest { min_bytes: 1, topics: vec![topic], ..Default::default() }
}

/// A batch of these values, stamped now, without keys.
pub fn numbered(values: impl IntoIterator<Item = impl ToString>) -> BatchBuilder {
    let now_ms = now_ms();
    let record = |batch: BatchBuilder, value: &dyn ToString| {
        batch.record(now_ms, None, Some(value.to_string().as_bytes()))
    };
    values.into_iter().fold(BatchBuilder::new(), |batch, value| record(batch, &value))
}

/// The records of the whole batches in a fetch answer.
pub fn records_of(answer: &FetchPartitionResponse) -> Vec<Record> {
    let Records::Bytes(mut batches) = answer.records.clone() else { panic!("no records field: {answer:?}") };
    let mut all = Vec::new();
    while let Some((header, payload)) = split_batch(&mut batches) {
        all.extend(records(&header, &payload, BATCH_BYTES).unwrap().map(Result::unwrap));
    }
    all
}

/// The values of records, as text.
pub fn values_of(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
    records.iter().map(text).collect()
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    sent: i32,
    answered: i32,
}

impl Client {
    pub fn connect(address: &str) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: &str) -> std::io::Result<Self> {
        Ok(Self::over(TcpStream::connect(address)?))
    }

    /// A client on a connection made elsewhere.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, sent: 0, answered: 0 }
    }

    /// Sends a request and waits for its answer.
    pub fn call<A: Api>(&mut self, version: i16, request: &A::Request) -> A::Response {
        self.try_call::<A>(version, request).unwrap()
    }

    /// The same with a server that may be gone.
    pub fn try_call<A: Api>(&mut self, version: i16, request: &A::Request) -> std::io::Result<A::Response> {
        self.try_send::<A>(version, request)?;
        self.try_receive::<A>(version)
    }

    /// The frame of the next request; for who sends several at once.
    pub fn frame<A: Api>(&mut self, version: i16, request: &A::Request) -> Bytes {
        self.sent += 1;
        frame::<A>(version, self.sent, request)
    }

    /// Sends a request whose answer is received later, or never.
    pub fn send<A: Api>(&mut self, version: i16, request: &A::Request) {
        self.try_send::<A>(version, request).unwrap();
    }

    /// The same to a server that may be gone.
    pub fn try_send<A: Api>(&mut self, version: i16, request: &A::Request) -> std::io::Result<()> {
        let frame = self.frame::<A>(version, request);
        self.stream.write_all(&frame)
    }

    /// Sends a request that has no answer.
    pub fn send_unanswered<A: Api>(&mut self, version: i16, request: &A::Request) {
        self.send::<A>(version, request);
        self.answered += 1;
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next answer, which must be one to the oldest request without one.
    pub fn receive<A: Api>(&mut self, version: i16) -> A::Response {
        self.try_receive::<A>(version).unwrap()
    }

    /// The same from a server that may be gone.
    pub fn try_receive<A: Api>(&mut self, version: i16) -> std::io::Result<A::Response> {
        let frame = self.receive_frame()?;
        self.answered += 1;
        assert_eq!(frame[..4], self.answered.to_be_bytes(), "answers come in order");
        let flexible = A::is_flexible(version);
        let body = &frame[response_header_size(A::KEY, flexible)..];
        Ok(decode(&frame, body, version, flexible).unwrap())
    }

    /// The next answer without its size, whatever it is.
    pub fn receive_frame(&mut self) -> std::io::Result<Bytes> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut frame = vec![0; i32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// Whether the server closes the connection without another byte.
    pub fn is_closed_unanswered(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// Says that nothing more will be sent.
    pub fn end(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Sends a fetch that has to wait, and returns when the server has begun it: it is begun in the same turn as the answer
    /// to the request before it, with which it is sent.
    pub fn park(&mut self, version: i16, fetch: &FetchRequest) {
        let nothing = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
        let both = [self.frame::<Metadata>(13, &nothing), self.frame::<Fetch>(version, fetch)].concat();
        self.send_bytes(&both);
        self.receive::<Metadata>(13);
    }

    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
        };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let answer =
            self.call::<CreateTopics>(7, &CreateTopicsRequest { topics: vec![topic], ..Default::default() });
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
    }

    pub fn delete_topic(&mut self, name: &str) {
        let topic = DeletableTopic { name: Some(name.into()), ..Default::default() };
        let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let answer = self.call::<DeleteTopics>(6, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    /// Metadata of one topic, which is not made by asking.
    pub fn describe(&mut self, topic: &str) -> MetadataTopicResponse {
        let topic = MetadataTopic { name: Some(topic.into()), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        self.call::<Metadata>(13, &request).topics.remove(0)
    }

    /// Sends a batch with acks=all and gives the partition's answer.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> ProducePartitionResponse {
        self.produce_at(PRODUCE, &produce_request(topic, partition, batch))
    }

    /// The answer to the one partition of a request.
    pub fn produce_at(&mut self, version: i16, request: &ProduceRequest) -> ProducePartitionResponse {
        self.call::<Produce>(version, request).responses.remove(0).partition_responses.remove(0)
    }

    /// Appends one record a value, and gives the first offset.
    pub fn append(&mut self, topic: &str, values: impl IntoIterator<Item = impl ToString>) -> i64 {
        let answer = self.produce(topic, 0, numbered(values).build());
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.base_offset
    }

    pub fn new_producer(&mut self) -> InitProducerIdResponse {
        let answer = self.call::<InitProducerId>(
            5,
            &InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() },
        );
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer
    }

    /// What there is of a partition from an offset on.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> FetchPartitionResponse {
        self.fetch_at(FETCH, &fetch_request(topic, partition, offset))
    }

    /// The answer to the one partition of a request.
    pub fn fetch_at(&mut self, version: i16, request: &FetchRequest) -> FetchPartitionResponse {
        only(self.call::<Fetch>(version, request))
    }

    /// The answer to a fetch that was parked.
    pub fn receive_fetch(&mut self, version: i16) -> FetchPartitionResponse {
        only(self.receive::<Fetch>(version))
    }

    /// Every record of a partition.
    pub fn read_all(&mut self, topic: &str, partition: i32) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let next = all.last().map_or(0, |record| record.offset + 1);
            let answer = self.fetch(topic, partition, next);
            assert_eq!(answer.error_code, 0, "{topic}-{partition} from {next}");
            let found = records_of(&answer);
            if found.is_empty() {
                return all;
            }
            all.extend(found.into_iter().filter(|record| record.offset >= next));
        }
    }

    /// Asks where in a partition a timestamp is.
    pub fn offset_at(&mut self, version: i16, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
        let wanted = ListOffsetsPartition { timestamp, ..Default::default() };
        let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![wanted] };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        self.call::<ListOffsets>(version, &request).topics.remove(0).partitions.remove(0)
    }
}

fn only(mut response: FetchResponse) -> FetchPartitionResponse {
    assert_eq!(response.error_code, 0, "{response:?}");
    response.responses.remove(0).partitions.remove(0)
}

/// Compares a code on the wire by its name.
pub fn named(code: i16) -> &'static str {
    ErrorCode::from_code(code).map_or("no such code", ErrorCode::name)
}

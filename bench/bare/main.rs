//! Bare servers: what `ottla bench` costs a server that does the least that can be done, to tell Ottla's own cost from the
//! machine's. One thread, no checks, nothing kept but bytes.
//!
//! ```text
//! bare serve HOST:PORT FILE          each produced frame is written to the file as it came; fetches are sendfile from it
//! bare serve HOST:PORT FILE --sync   the same, but all frames that have come are synced together before they are answered
//! bare sync FILE BYTES COUNT SECS    no server: COUNT appends of BYTES, then a sync, over and over; prints syncs a second
//! bare http HOST:PORT                reads the body of an HTTP request, and gives every one the same answer, as an SQS would
//! ```

mod http;

use std::collections::HashMap;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla::protocol::api::{Api, decode};
use ottla::protocol::header::{RequestHeader, frame_response};
use ottla::protocol::messages::api_versions::{ApiVersion, ApiVersionsResponse};
use ottla::protocol::messages::create_topics::{
    CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use ottla::protocol::messages::fetch::{
    FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicResponse,
};
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use ottla::protocol::messages::metadata::{
    MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopicResponse,
};
use ottla::protocol::messages::produce::{
    ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopicResponse,
};
use ottla::protocol::messages::{ApiVersions, CreateTopics, Fetch, ListOffsets, Metadata, Produce};
use ottla::protocol::wire::{Chunks, Str};
use rustix::event::epoll;

/// Bytes of the size before a frame.
const SIZE_BYTES: usize = 4;
/// What a read asks for, as Ottla's largest do.
const READ_BYTES: usize = 256 << 10;
/// Events taken at a time.
const EVENTS_MAX: usize = 256;
/// Where an answer has the correlation id of its request, and a request its own.
const ANSWER_CORRELATION: std::ops::Range<usize> = 4..8;
const REQUEST_CORRELATION: std::ops::Range<usize> = 4..8;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", address, path] => Server::open(address, path, false)?.run(),
        ["serve", address, path, "--sync"] => Server::open(address, path, true)?.run(),
        ["http", address] => http::serve(address),
        ["sync", path, bytes, count, seconds] => {
            let rate = sync_over_and_over(path, bytes.parse()?, count.parse()?, seconds.parse()?)?;
            println!("{rate:.1}");
            Ok(())
        }
        _ => Err("usage: bare serve HOST:PORT FILE [--sync] | bare http HOST:PORT | bare sync FILE BYTES COUNT SECONDS"
            .into()),
    }
}

/// Syncs a second of a loop that does nothing else than append and sync.
fn sync_over_and_over(path: &str, bytes: usize, count: u64, seconds: u64) -> Result<f64, Failure> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let batch = vec![b'b'; bytes];
    let (began, mut syncs) = (Instant::now(), 0u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..count {
            file.write_all(&batch)?;
        }
        file.sync_data()?;
        syncs += 1;
    }
    Ok(syncs as f64 / began.elapsed().as_secs_f64())
}

/// As Ottla does: connections begin with a congestion control that sets no timer for each packet.
fn begin_unpaced(listener: &impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_congestion(listener, "reno")?)
}

struct Server {
    listener: TcpListener,
    port: i32,
    file: File,
    length: u64,
    syncs: bool,
    /// By topic: its partitions.
    topics: HashMap<Str, i32>,
}

/// A client's socket, with what has come of its next frame.
struct Client {
    socket: TcpStream,
    held: Vec<u8>,
    /// Bytes of `held` that have come.
    filled: usize,
    /// The answer to a produce, but for the correlation id.
    produced: Vec<u8>,
    answers: Vec<u8>,
    /// Where the next fetch reads on.
    position: u64,
}

impl Server {
    fn open(address: &str, path: &str, syncs: bool) -> Result<Self, Failure> {
        let listener = TcpListener::bind(address)?;
        begin_unpaced(&listener)?;
        listener.set_nonblocking(true)?;
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        let port = i32::from(listener.local_addr()?.port());
        Ok(Self { listener, port, file, length: 0, syncs, topics: HashMap::new() })
    }

    fn run(mut self) -> Result<(), Failure> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch = |socket: &dyn AsRawFd| epoll::EventData::new_u64(socket.as_raw_fd() as u64);
        epoll::add(&poll, &self.listener, watch(&self.listener), epoll::EventFlags::IN)?;
        let mut clients: HashMap<RawFd, Client> = HashMap::new();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in &events {
                let descriptor = event.data.u64() as RawFd;
                if descriptor == self.listener.as_raw_fd() {
                    let (socket, _) = self.listener.accept()?;
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                    epoll::add(&poll, &socket, watch(&socket), epoll::EventFlags::IN)?;
                    clients.insert(socket.as_raw_fd(), Client::new(socket));
                } else if let Some(client) = clients.get_mut(&descriptor)
                    && !self.serve(client)?
                {
                    clients.remove(&descriptor);
                }
            }
            if self.syncs {
                self.file.sync_data()?;
            }
            for event in &events {
                if let Some(client) = clients.get_mut(&(event.data.u64() as RawFd)) {
                    client.send()?;
                }
            }
        }
    }

    /// Reads what has come and does what its frames ask for; whether the client is still there.
    fn serve(&mut self, client: &mut Client) -> Result<bool, Failure> {
        if client.held.len() < client.filled + READ_BYTES {
            client.held.resize(client.filled + READ_BYTES, 0);
        }
        match client.socket.read(&mut client.held[client.filled..]) {
            Ok(0) => return Ok(false),
            Ok(read) => client.filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        // Out of the client's hands, so that it can be answered meanwhile.
        let held = std::mem::take(&mut client.held);
        let mut taken = 0;
        while let Some(frame) = frame_at(&held[..client.filled], taken) {
            taken += SIZE_BYTES + frame.len();
            if frame[..2] == Produce::KEY.to_be_bytes() && !client.produced.is_empty() {
                self.file.write_all(frame)?;
                self.length += frame.len() as u64;
                client.produced[ANSWER_CORRELATION].copy_from_slice(&frame[REQUEST_CORRELATION]);
                client.answers.extend_from_slice(&client.produced);
                continue;
            }
            let frame = Bytes::copy_from_slice(frame);
            self.answer(client, &frame)?;
        }
        client.held = held;
        client.held.copy_within(taken..client.filled, 0);
        client.filled -= taken;
        Ok(true)
    }

    /// Everything but the second and later produces of a connection, which are all alike.
    fn answer(&mut self, client: &mut Client, frame: &Bytes) -> Result<(), Failure> {
        let (rest, header) = RequestHeader::decode(frame)?;
        let mut out = Chunks::default();
        match header.api_key {
            ApiVersions::KEY => reply::<ApiVersions>(&mut out, &header, &versions()),
            CreateTopics::KEY => {
                let request: CreateTopicsRequest = body::<CreateTopics>(frame, rest, &header)?;
                let made = |topic: &Str| CreatableTopicResult { name: topic.clone(), ..Default::default() };
                let topics = request.topics.iter().map(|topic| made(&topic.name)).collect();
                self.topics
                    .extend(request.topics.into_iter().map(|topic| (topic.name, topic.num_partitions)));
                let answer = CreateTopicsResponse { topics, ..Default::default() };
                reply::<CreateTopics>(&mut out, &header, &answer);
            }
            Metadata::KEY => {
                let request = body::<Metadata>(frame, rest, &header)?;
                reply::<Metadata>(&mut out, &header, &self.metadata(request));
            }
            ListOffsets::KEY => {
                let request = body::<ListOffsets>(frame, rest, &header)?;
                reply::<ListOffsets>(&mut out, &header, &offsets(request));
            }
            Produce::KEY => {
                let request = body::<Produce>(frame, rest, &header)?;
                self.file.write_all(frame)?;
                self.length += frame.len() as u64;
                reply::<Produce>(&mut out, &header, &produced(request));
                client.produced = std::mem::take(&mut out).concat()?.to_vec();
                client.answers.extend_from_slice(&client.produced);
            }
            Fetch::KEY => {
                let request = body::<Fetch>(frame, rest, &header)?;
                let wanted = request.max_bytes as u64;
                reply::<Fetch>(&mut out, &header, &fetched(request));
                client.answers.extend_from_slice(&std::mem::take(&mut out).concat()?);
                return self.send_file(client, wanted);
            }
            other => return Err(format!("API {other} is not served").into()),
        }
        client.answers.extend_from_slice(&out.concat()?);
        Ok(())
    }

    /// Answers a fetch: the head that has been gathered, then a part of the file as its records.
    fn send_file(&self, client: &mut Client, wanted: u64) -> Result<(), Failure> {
        let length = wanted.min(self.length);
        if client.position + length > self.length {
            client.position = 0;
        }
        // The head ends with the length of the records, and begins with that of all.
        let head = client.answers.len();
        client.answers[head - 4..].copy_from_slice(&(length as u32).to_be_bytes());
        let size = (head - SIZE_BYTES) as u32 + length as u32;
        client.answers[..SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
        client.socket.set_nonblocking(false)?;
        let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::MORE;
        rustix::net::send(&client.socket, &client.answers, flags)?;
        client.answers.clear();
        let (mut position, end) = (client.position, client.position + length);
        while position < end {
            let left = (end - position) as usize;
            rustix::fs::sendfile(&client.socket, &self.file, Some(&mut position), left)?;
        }
        client.position = end;
        client.socket.set_nonblocking(true)?;
        Ok(())
    }

    fn metadata(&self, request: MetadataRequest) -> MetadataResponse {
        let brokers =
            vec![MetadataBroker { node_id: 0, host: "127.0.0.1".into(), port: self.port, rack: None }];
        let topic = |name: Str| MetadataTopicResponse {
            partitions: (0..self.topics.get(&name).copied().unwrap_or(0))
                .map(|partition_index| MetadataPartition { partition_index, ..Default::default() })
                .collect(),
            name: Some(name),
            ..Default::default()
        };
        let names = request.topics.into_iter().flatten().filter_map(|topic| topic.name);
        MetadataResponse { brokers, topics: names.map(topic).collect(), ..Default::default() }
    }
}

impl Client {
    fn new(socket: TcpStream) -> Self {
        Self { socket, held: Vec::new(), filled: 0, produced: Vec::new(), answers: Vec::new(), position: 0 }
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.answers.is_empty() {
            // Small answers of few requests: the socket has room for them.
            self.socket.write_all(&self.answers)?;
            self.answers.clear();
        }
        Ok(())
    }
}

/// The frame at `place`, if all of it is there.
fn frame_at(held: &[u8], place: usize) -> Option<&[u8]> {
    let size = held.get(place..place + SIZE_BYTES)?.try_into().ok().map(u32::from_be_bytes)?;
    held.get(place + SIZE_BYTES..place + SIZE_BYTES + size as usize)
}

fn body<A: Api>(frame: &Bytes, rest: &[u8], header: &RequestHeader) -> Result<A::Request, Failure> {
    let flexible = A::is_flexible(header.api_version);
    let rest = if flexible { RequestHeader::skip_tags(rest)? } else { rest };
    Ok(decode(frame, rest, header.api_version, flexible)?)
}

fn reply<A: Api>(out: &mut Chunks, header: &RequestHeader, answer: &A::Response) {
    frame_response::<A>(out, header.api_version, header.correlation_id, answer);
}

fn versions() -> ApiVersionsResponse {
    let version = |api_key, min_version, max_version| ApiVersion { api_key, min_version, max_version };
    let api_keys = vec![
        version(Produce::KEY, Produce::MIN_VERSION, 12),
        version(Fetch::KEY, Fetch::MIN_VERSION, 11),
        version(ListOffsets::KEY, ListOffsets::MIN_VERSION, ListOffsets::MAX_VERSION),
        version(Metadata::KEY, Metadata::MIN_VERSION, Metadata::MAX_VERSION),
        version(CreateTopics::KEY, CreateTopics::MIN_VERSION, CreateTopics::MAX_VERSION),
        version(ApiVersions::KEY, 0, 0),
    ];
    ApiVersionsResponse { api_keys, ..Default::default() }
}

fn offsets(request: ListOffsetsRequest) -> ListOffsetsResponse {
    let partition =
        |partition_index| ListOffsetsPartitionResponse { partition_index, offset: 0, ..Default::default() };
    let topic = |topic: ottla::protocol::messages::list_offsets::ListOffsetsTopic| ListOffsetsTopicResponse {
        name: topic.name,
        partitions: topic.partitions.iter().map(|asked| partition(asked.partition_index)).collect(),
    };
    ListOffsetsResponse { topics: request.topics.into_iter().map(topic).collect(), ..Default::default() }
}

fn produced(request: ProduceRequest) -> ProduceResponse {
    let partition = |index| ProducePartitionResponse { index, ..Default::default() };
    let topic = |topic: ottla::protocol::messages::produce::ProduceTopic| ProduceTopicResponse {
        name: topic.name,
        partition_responses: topic.partition_data.iter().map(|data| partition(data.index)).collect(),
        ..Default::default()
    };
    ProduceResponse { responses: request.topic_data.into_iter().map(topic).collect(), ..Default::default() }
}

/// An answer that ends where its records begin.
fn fetched(request: FetchRequest) -> FetchResponse {
    let partition = |partition_index| FetchPartitionResponse { partition_index, ..Default::default() };
    let topic = |topic: ottla::protocol::messages::fetch::FetchTopic| FetchTopicResponse {
        topic: topic.topic,
        partitions: topic.partitions.iter().map(|wanted| partition(wanted.partition)).collect(),
        ..Default::default()
    };
    FetchResponse { responses: request.topics.into_iter().map(topic).collect(), ..Default::default() }
}

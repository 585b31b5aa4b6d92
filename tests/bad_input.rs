//! What no client should send: the documented error or a logged close, in bounded memory, while a client that behaves goes
//! on undisturbed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use ottla::handlers::TABLE;
use ottla::protocol::api::Api;
use ottla::protocol::header::RequestHeader;
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataTopic};
use ottla::protocol::messages::{ApiVersions, CreateTopics, DescribeCluster, Fetch, Metadata, Produce};
use ottla::protocol::wire::{Chunks, Sink, Str};
use ottla::record::{BatchBuilder, Codec};

use running::{
    Client, Server, eventually, fetch_request, frame, named, now_ms, numbered, produce_request, values_of,
};

/// Most that a server may ever have held in memory, whatever was sent to it. A debug build at rest takes an eighth of it.
const MEMORY_BYTES: usize = 64 << 20;

/// Lets `attack` loose on a server while another client appends and reads without a fault, before, meanwhile and after.
fn undisturbed(arguments: &[&str], attack: impl FnOnce(&Server)) {
    let server = Server::start(&[&["--topic", "good:1", "--topic", "t:1"], arguments].concat());
    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let end = EndAtDrop(&over);
        let goes_on = scope.spawn(|| {
            let mut client = server.client();
            while !over.load(Ordering::Relaxed) {
                let round = rounds.load(Ordering::Relaxed) as i64;
                assert_eq!(client.append("good", [round]), round);
                let read = running::records_of(&client.fetch("good", 0, round));
                assert_eq!(values_of(&read), [round.to_string()]);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ten_more = || {
            let target = rounds.load(Ordering::Relaxed) + 10;
            eventually("the other client goes on", || {
                (goes_on.is_finished() || rounds.load(Ordering::Relaxed) >= target).then_some(())
            });
        };
        ten_more();
        attack(&server);
        ten_more();
        drop(end);
        goes_on.join().unwrap();
    });
    let most = server.memory_bytes("VmHWM");
    assert!(most < MEMORY_BYTES, "{most} bytes");
}

/// Ends the other client also when the attack's assertions fail.
struct EndAtDrop<'a>(&'a AtomicBool);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends these bytes on a connection of their own, which the server must close, saying why in its log.
fn is_closed(server: &Server, bytes: &[u8], reason: &str) {
    let mut client = server.client();
    client.send_bytes(bytes);
    assert!(client.is_closed_unanswered(), "{reason}");
    server.wait_for_log(reason);
}

/// A frame of a request header and these bytes.
fn request(api_key: i16, api_version: i16, flexible: bool, body: &[u8]) -> Bytes {
    let mut out = Chunks::default();
    let client_id = Some(Str::from_static("bad"));
    RequestHeader { api_key, api_version, correlation_id: 1, client_id }.encode(&mut out, flexible);
    out.put(body);
    sized(&out.concat().unwrap())
}

fn sized(frame: &[u8]) -> Bytes {
    [&(frame.len() as i32).to_be_bytes()[..], frame].concat().into()
}

#[test]
fn bytes_of_other_protocols_and_impossible_sizes_are_closed_with_a_guess() {
    undisturbed(&[], |server| {
        is_closed(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "an HTTP request?");
        is_closed(server, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], "a TLS hello?");
        is_closed(server, b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH client?");
        is_closed(server, &i32::MAX.to_be_bytes(), "frame of 2147483647 bytes exceeds");
        is_closed(server, &(100 * 1024 * 1024 + 1i32).to_be_bytes(), "frame of 104857601 bytes exceeds");
        is_closed(server, &[0xff; 8], "frame size -1 is negative");
        is_closed(server, &[0x80, 0, 0, 0], "frame size -2147483648 is negative");
    });
}

#[test]
fn requests_that_are_not_served_are_closed_and_named() {
    undisturbed(&[], |server| {
        is_closed(server, &request(200, 0, false, &[]), "API key 200 version 0 is not served");
        is_closed(server, &request(-1, 0, false, &[]), "API key -1 version 0 is not served");
        is_closed(server, &request(7, 0, false, &[]), "API key 7 version 0 is not served");
        is_closed(
            server,
            &request(Metadata::KEY, 99, true, &[]),
            "Metadata version 99 is not served, only 0 to 13",
        );
        is_closed(server, &request(Produce::KEY, 2, false, &[]), "Produce version 2 is not served");
        is_closed(server, &request(Fetch::KEY, 3, false, &[]), "Fetch version 3 is not served");
        is_closed(server, &request(ApiVersions::KEY, -1, false, &[]), "ApiVersions version -1 is not served");
    });
}

#[test]
fn frames_that_end_too_early_are_closed_with_the_place() {
    undisturbed(&[], |server| {
        is_closed(server, &sized(&[]), "RequestHeader");
        is_closed(server, &sized(&[0, 3, 0]), "RequestHeader");
        is_closed(server, &request(Metadata::KEY, 1, false, &[0, 0]), "MetadataRequest.topics: truncated");
    });
}

/// Every front part of a request, sent as a frame of its own.
fn cut_everywhere<A: Api>(server: &Server, request: &A::Request) {
    let whole = frame::<A>(A::MAX_VERSION, 1, request);
    for length in 0..whole.len() - 4 {
        let mut client = server.client();
        client.send_bytes(&sized(&whole[4..4 + length]));
        // What a cut leaves may be a request; then it is answered, and the connection ends with this side of it.
        client.end();
        while client.receive_frame().is_ok() {}
    }
}

#[test]
fn no_cut_of_a_request_does_harm() {
    undisturbed(&["--log", "error"], |server| {
        let topics = Some(vec![MetadataTopic { name: Some("t".into()), ..Default::default() }]);
        cut_everywhere::<Metadata>(server, &MetadataRequest { topics, ..Default::default() });
        cut_everywhere::<Produce>(server, &produce_request("t", 0, numbered([1]).build()));
        cut_everywhere::<Fetch>(server, &fetch_request("t", 0, 0));
        cut_everywhere::<CreateTopics>(server, &Default::default());
        cut_everywhere::<DescribeCluster>(server, &Default::default());
    });
}

#[test]
fn garbage_does_no_harm() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    undisturbed(&["--log", "error", "--set", "auto.create.topics.enable=false"], |server| {
        for _ in 0..1_000 {
            let mut body = vec![0; random.usize(0..200)];
            random.fill(&mut body);
            let api = random.choice(TABLE).unwrap();
            let version = random.i16(api.min_version..=api.max_version);
            let frame = match random.u8(0..4) {
                0 => body.into(),
                1 => sized(&body),
                _ => request(api.key, version, random.bool(), &body),
            };
            let mut client = server.client();
            client.send_bytes(&frame);
            client.end();
            while client.receive_frame().is_ok() {}
        }
    });
}

#[test]
fn counts_and_lengths_beyond_the_frame_are_closed_before_memory_is_taken() {
    undisturbed(&[], |server| {
        let most = i32::MAX.to_be_bytes();
        is_closed(server, &request(Metadata::KEY, 1, false, &most), "MetadataRequest.topics: length beyond");
        is_closed(
            server,
            &request(Fetch::KEY, 4, false, &[&[0; 17][..], &most].concat()),
            "FetchRequest.topics",
        );
        let text = [&[0, 0, 0, 1][..], &i16::MAX.to_be_bytes()].concat();
        is_closed(server, &request(Metadata::KEY, 1, false, &text), "MetadataTopic.name");
        // No tags in the header, then a compact count of 2^32 - 2.
        let compact = [0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        is_closed(server, &request(Metadata::KEY, 12, false, &compact), "MetadataRequest.topics");
    });
}

#[test]
fn a_frame_full_of_the_smallest_elements_is_closed_before_it_is_decoded_whole() {
    undisturbed(&[], |server| {
        let count = 10_000_000i32;
        let names = [&count.to_be_bytes()[..], &vec![0; 2 * count as usize]].concat();
        is_closed(
            server,
            &request(Metadata::KEY, 1, false, &names),
            "MetadataRequest.topics: too many elements",
        );
    });
}

#[test]
fn bombs_of_every_codec_are_refused_and_answered() {
    undisturbed(&["--set", "ottla.max.decompressed.batch.bytes=8388608"], |server| {
        let mut client = server.client();
        let zeros = vec![0; 16 << 20];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bomb = BatchBuilder::new().codec(codec).record(now_ms(), None, Some(&zeros)).build();
            assert!(bomb.len() < 1 << 20, "{codec:?}: {} bytes", bomb.len());
            for _ in 0..20 {
                assert_eq!(
                    named(client.produce("t", 0, bomb.clone()).error_code),
                    "INVALID_RECORD",
                    "{codec:?}"
                );
            }
        }
        assert_eq!(client.append("t", ["after"]), 0);
    });
}

#[test]
fn wrong_checksums_and_sequences_are_answered_and_the_connection_goes_on() {
    undisturbed(&[], |server| {
        let mut client = server.client();
        let id = client.new_producer().producer_id;
        for round in 0..10 {
            let mut wrong = numbered([1]).build().to_vec();
            wrong[30] ^= 1;
            assert_eq!(named(client.produce("t", 0, wrong.into()).error_code), "CORRUPT_MESSAGE");
            let in_order = numbered([round]).producer(id, 0, round).build();
            assert_eq!(client.produce("t", 0, in_order).base_offset, i64::from(round));
            let ahead = numbered([round]).producer(id, 0, round + 5).build();
            assert_eq!(named(client.produce("t", 0, ahead).error_code), "OUT_OF_ORDER_SEQUENCE_NUMBER");
        }
    });
}

#[test]
fn half_a_frame_and_silence_takes_a_connection_until_it_is_idle_too_long() {
    undisturbed(&["--set", "connections.max.idle.ms=300", "--log", "debug"], |server| {
        let mut silent: Vec<_> = (0..100).map(|_| server.client()).collect();
        let whole = frame::<Metadata>(13, 1, &MetadataRequest::default());
        for (length, client) in silent.iter_mut().enumerate() {
            client.send_bytes(&whole[..length % whole.len()]);
        }
        assert!(silent.iter_mut().all(Client::is_closed_unanswered));
        server.wait_for_log("idle for connections.max.idle.ms");
    });
}

#[test]
fn many_large_announcements_take_no_memory() {
    undisturbed(&[], |server| {
        let announced = [&(100i32 << 20).to_be_bytes()[..], &[0; 60_000]].concat();
        let mut clients: Vec<_> = (0..200).map(|_| server.client()).collect();
        clients.iter_mut().for_each(|client| client.send_bytes(&announced));
        // Those that are let in are read; what the others have sent stays in the kernel.
        assert_eq!(server.client().append("t", ["meanwhile"]), 0);
        let now = server.memory_bytes("VmRSS");
        assert!(now < MEMORY_BYTES, "{now} bytes");
    });
}

#[test]
fn who_does_not_read_answers_does_not_fill_memory() {
    undisturbed(&["--flush", "os"], |server| {
        let mut writer = server.client();
        let value: String = "x".repeat(900_000);
        for _ in 0..10 {
            writer.append("t", [&value]);
        }
        // A gigabyte of answers that nobody takes.
        let mut greedy: Vec<_> = (0..10).map(|_| server.client()).collect();
        for client in &mut greedy {
            for _ in 0..10 {
                client.send::<Fetch>(12, &fetch_request("t", 0, 0));
            }
        }
        assert_eq!(writer.append("t", ["meanwhile"]), 10);
    });
}

#[test]
fn a_flood_of_large_requests_is_answered_in_bounded_memory() {
    undisturbed(&[], |server| {
        let batch = numbered(["x".repeat(1_000_000)]).build();
        let request = produce_request("t", 0, batch);
        let mut flooding: Vec<_> = (0..2).map(|_| server.client()).collect();
        thread::scope(|scope| {
            for client in &mut flooding {
                scope.spawn(|| {
                    // All is sent before the first answer is read.
                    (0..50).for_each(|_| client.send::<Produce>(12, &request));
                    let codes = (0..50).map(|_| client.receive::<Produce>(12).responses.remove(0));
                    assert!(codes.into_iter().all(|topic| topic.partition_responses[0].error_code == 0));
                });
            }
        });
        assert_eq!(server.client().offset_at(7, "t", -1).offset, 100);
    });
}

/// A connection from another address of this machine.
fn from(source: [u8; 4], server: &Server) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    let to: SocketAddr = server.address().parse().unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn is_served(client: &mut Client) -> bool {
    client.try_call::<Metadata>(13, &MetadataRequest::default()).is_ok()
}

#[test]
fn one_address_gets_only_its_number_of_connections() {
    // The other client has one of the four.
    undisturbed(&["--set", "max.connections.per.ip=4"], |server| {
        let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
        assert!(clients.iter_mut().all(is_served));
        for _ in 0..10 {
            assert!(!is_served(&mut server.client()));
        }
        server.wait_for_log("max.connections.per.ip reached");
        assert!(is_served(&mut Client::over(from([127, 0, 0, 2], server))));
        drop(clients.pop());
        eventually("the place is free again", || is_served(&mut server.client()).then_some(()));
    });
}

#[test]
fn connections_beyond_the_limit_wait_until_others_end() {
    undisturbed(&["--set", "max.connections=3"], |server| {
        let mut clients: Vec<_> = (0..2).map(|_| server.client()).collect();
        assert!(clients.iter_mut().all(is_served));
        let mut waiting = server.client();
        waiting.send::<Metadata>(13, &MetadataRequest::default());
        assert!(clients.iter_mut().all(is_served));
        drop(clients.pop());
        assert_eq!(waiting.receive::<Metadata>(13).brokers.len(), 1);
    });
}

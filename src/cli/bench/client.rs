//! As much of a client as a driver needs: blocking, over one socket. Requests are whole frames built beforehand; of an
//! answer the head is read and the rest is dropped unseen, so that the driver's own work stays out of what it measures.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{RecvFlags, recv};

use super::BenchError;
use crate::protocol::ErrorCode;
use crate::protocol::api::{Api, decode};
use crate::protocol::header::{RequestHeader, frame_request, response_header_size};
use crate::protocol::messages::ApiVersions;
use crate::protocol::messages::api_versions::{ApiVersion, ApiVersionsRequest};
use crate::protocol::wire::{Chunk, Chunks};

/// Longest that a broker may take for an answer. Longer than the longest wait that the driver asks for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of answers that are taken from the socket at a time.
const RECEIVE_BYTES: usize = 16 << 10;
/// Bytes of an answer that are dropped at a time.
const DISCARD_BYTES: usize = 1 << 20;
/// Largest answer, or part of one, that is looked at: metadata of many thousand partitions.
const HEAD_MAX_BYTES: usize = 16 << 20;
/// For [`Client::receive`]: all of the answer.
pub(super) const WHOLE: usize = HEAD_MAX_BYTES;
/// Every answer begins with the correlation id.
const CORRELATION_ID_BYTES: usize = 4;

/// A whole request as it goes over the socket. Large record batches are shared with whoever else sends them.
pub(super) struct Frame(Vec<Bytes>);

impl Frame {
    /// The frame of a request of `version`.
    pub(super) fn new<A: Api>(version: i16, request: &A::Request) -> Self {
        let mut out = Chunks::default();
        frame_request::<A>(&mut out, version, 0, "ottla-bench", request);
        let pieces = out.sealed().drain(..).map(|chunk| match chunk {
            Chunk::Bytes(bytes) => bytes,
            Chunk::File(_) => unreachable!("a client's records are in memory"),
        });
        Self(pieces.collect())
    }
}

/// The beginning of an answer.
pub(super) struct Head {
    /// From the correlation id on.
    pub(super) bytes: Vec<u8>,
    /// Bytes of the answer that came after, unseen.
    pub(super) dropped_bytes: usize,
}

/// The versions that a broker speaks.
#[derive(Default)]
struct Versions(Vec<ApiVersion>);

/// A connection to a broker.
pub(super) struct Client {
    address: Arc<str>,
    socket: BufReader<TcpStream>,
    discarded: Vec<u8>,
    versions: Versions,
}

impl Client {
    /// Connects and asks for the versions that the broker speaks.
    ///
    /// # Errors
    /// No connection, or no answer that makes sense.
    pub(super) fn connect(address: &str) -> Result<Self, BenchError> {
        let mut client = Self::connect_blindly(address)?;
        // Every broker answers version 0, whatever else it speaks.
        let answer = client.call_at::<ApiVersions>(0, &ApiVersionsRequest::default())?;
        check(ApiVersions::NAME, answer.error_code)?;
        client.versions = Versions(answer.api_keys);
        Ok(client)
    }

    /// Connects without asking anything: only [`Self::call_at`] works, with versions that every broker speaks.
    ///
    /// # Errors
    /// No connection.
    pub(super) fn connect_blindly(address: &str) -> Result<Self, BenchError> {
        let socket =
            open(address).map_err(|source| BenchError::Connect { address: address.into(), source })?;
        Ok(Self {
            address: address.into(),
            socket: BufReader::with_capacity(RECEIVE_BYTES, socket),
            discarded: Vec::new(),
            versions: Versions::default(),
        })
    }

    /// The newest version of an API that both sides speak, `newest` at most.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn version_up_to<A: Api>(&self, newest: i16) -> Result<i16, BenchError> {
        let theirs = self.versions.0.iter().find(|versions| versions.api_key == A::KEY);
        let common = theirs.map(|theirs| (theirs.min_version, theirs.max_version.min(newest)));
        match common {
            Some((oldest, newest)) if newest >= oldest.max(A::MIN_VERSION) => Ok(newest),
            _ => Err(BenchError::NoVersion { address: self.address.to_string(), api: A::NAME }),
        }
    }

    /// Sends a request in the newest common version and waits for its answer.
    ///
    /// # Errors
    /// The socket's; an answer that is none.
    pub(super) fn call<A: Api>(&mut self, request: &A::Request) -> Result<A::Response, BenchError> {
        self.call_at::<A>(self.version_up_to::<A>(A::MAX_VERSION)?, request)
    }

    /// Sends a request of `version` and waits for its answer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn call_at<A: Api>(
        &mut self,
        version: i16,
        request: &A::Request,
    ) -> Result<A::Response, BenchError> {
        self.send([&Frame::new::<A>(version, request)])?;
        self.answer::<A>(version)
    }

    /// Waits for the next answer and decodes it as one of `version`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn answer<A: Api>(&mut self, version: i16) -> Result<A::Response, BenchError> {
        let head = self.receive(WHOLE)?;
        decode_answer::<A>(version, head.bytes)
    }

    /// Sends frames in as few writes as the system takes them, and gives their number.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn send<'f>(
        &mut self,
        frames: impl IntoIterator<Item = &'f Frame>,
    ) -> Result<usize, BenchError> {
        let mut count = 0;
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        for frame in frames {
            slices.extend(frame.0.iter().map(|piece| IoSlice::new(piece)));
            count += 1;
        }
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match self.socket.get_mut().write_vectored(left) {
                Ok(0) => return Err(self.lost(io::ErrorKind::WriteZero.into())),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
        Ok(count)
    }

    /// Waits for the next answer, takes its first `head_bytes` (all, if it has fewer) and drops the rest.
    ///
    /// # Errors
    /// The socket's; a head that is larger than any that the driver asks for.
    pub(super) fn receive(&mut self, head_bytes: usize) -> Result<Head, BenchError> {
        self.receive_from_socket(head_bytes).map_err(|error| self.lost(error))
    }

    /// Whether (a part of) the next answer is here already.
    pub(super) fn has_received(&self) -> bool {
        !self.socket.buffer().is_empty()
    }

    fn receive_from_socket(&mut self, head_bytes: usize) -> io::Result<Head> {
        let mut size = [0; 4];
        self.socket.read_exact(&mut size)?;
        let size = usize::try_from(i32::from_be_bytes(size)).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut bytes = vec![0; size.min(head_bytes.min(HEAD_MAX_BYTES))];
        self.socket.read_exact(&mut bytes)?;
        let dropped_bytes = size - bytes.len();
        self.drop_bytes(dropped_bytes)?;
        Ok(Head { bytes, dropped_bytes })
    }

    fn drop_bytes(&mut self, count: usize) -> io::Result<()> {
        let buffered = self.socket.buffer().len().min(count);
        self.socket.consume(buffered);
        let mut left = count - buffered;
        if left > 0 && self.discarded.is_empty() {
            self.discarded.resize(DISCARD_BYTES, 0);
        }
        while left > 0 {
            let most = left.min(DISCARD_BYTES);
            // The kernel drops the bytes itself instead of copying them.
            match recv(self.socket.get_ref(), &mut self.discarded[..most], RecvFlags::TRUNC) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, dropped)) => left -= dropped,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn lost(&self, source: io::Error) -> BenchError {
        let address = self.address.to_string();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                BenchError::Silent { address, seconds: PATIENCE.as_secs() }
            }
            _ => BenchError::Lost { address, source },
        }
    }
}

/// Decodes an answer from its correlation id on.
///
/// # Errors
/// Bytes that are no answer of that API and version.
pub(super) fn decode_answer<A: Api>(version: i16, bytes: Vec<u8>) -> Result<A::Response, BenchError> {
    let frame = Bytes::from(bytes);
    let flexible = A::is_flexible(version);
    let body = frame.get(CORRELATION_ID_BYTES..).unwrap_or_default();
    let body = match response_header_size(A::KEY, flexible) {
        CORRELATION_ID_BYTES => Ok(body),
        _ => RequestHeader::skip_tags(body),
    };
    body.and_then(|body| decode(&frame, body, version, flexible))
        .map_err(|source| BenchError::Answer { api: A::NAME, source })
}

/// Turns an error code into an error that names `what` was refused.
///
/// # Errors
/// Any code but 0.
pub(super) fn check(what: &str, code: i16) -> Result<(), BenchError> {
    if code == i16::from(ErrorCode::None) {
        return Ok(());
    }
    let name = ErrorCode::from_code(code).map_or("an error that Kafka does not have", ErrorCode::name);
    Err(BenchError::Refused { what: what.to_owned(), code, name })
}

fn open(address: &str) -> io::Result<TcpStream> {
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, PATIENCE) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                return Ok(socket);
            }
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::protocol::api::Api;
    use crate::protocol::messages::Metadata;
    use crate::protocol::messages::metadata::MetadataResponse;
    use crate::protocol::wire::Wire;

    /// A client of a peer that sends `bytes` and closes.
    fn client_of(bytes: &'static [u8]) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || listener.accept().unwrap().0.write_all(bytes).unwrap());
        Client::connect_blindly(&address).unwrap()
    }

    #[test]
    fn of_an_answer_the_head_is_taken_and_the_rest_dropped() {
        let mut answers = Vec::new();
        for size in [40_000usize, 10, 3_000_000] {
            answers.extend((size as u32).to_be_bytes());
            answers.extend((0..size).map(|position| position as u8));
        }
        let mut client = client_of(answers.leak());
        for (size, head_bytes) in [(40_000, 5), (10, 16), (3_000_000, 0)] {
            let head = client.receive(head_bytes).unwrap();
            let expected: Vec<u8> = (0..head_bytes.min(size) as u8).collect();
            assert_eq!((head.bytes, head.dropped_bytes), (expected.clone(), size - expected.len()));
        }
    }

    #[test]
    fn a_peer_that_is_no_broker_is_an_error() {
        for bytes in [&b""[..], b"\0\0\0\x09short", b"\xff\xff\xff\xff----", b"HTTP/1.1 400"] {
            let error = client_of(bytes).answer::<Metadata>(8).err().unwrap();
            assert!(matches!(error, BenchError::Lost { .. }), "{error:?}");
        }
        let error = client_of(b"\0\0\0\x04\0\0\0\0").answer::<Metadata>(8).err().unwrap();
        assert!(matches!(error, BenchError::Answer { api: "Metadata", .. }), "{error:?}");
    }

    #[test]
    fn answers_decode_with_either_header() {
        let expected = MetadataResponse { cluster_id: Some("c".into()), ..MetadataResponse::default() };
        for version in [8, 12] {
            let mut out = Chunks::default();
            crate::protocol::header::encode_response_header(
                &mut out,
                Metadata::KEY,
                Metadata::is_flexible(version),
                7,
            );
            expected.encode(&mut out, Metadata::encode(version));
            let bytes = out.concat().unwrap().to_vec();
            assert_eq!(decode_answer::<Metadata>(version, bytes).unwrap(), expected);
        }
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        let mut client = client_of(b"");
        let theirs = |min_version, max_version| {
            Versions(vec![ApiVersion { api_key: Metadata::KEY, min_version, max_version }])
        };
        for (theirs, expected) in [
            (theirs(0, 5), Some(5)),
            (theirs(4, 99), Some(12)),
            (theirs(13, 99), None),
            (theirs(-1, -1), None),
        ] {
            client.versions = theirs;
            assert_eq!(client.version_up_to::<Metadata>(12).ok(), expected);
        }
        client.versions = Versions::default();
        let error = client.version_up_to::<Metadata>(12).unwrap_err();
        assert!(matches!(error, BenchError::NoVersion { api: "Metadata", .. }));
    }

    #[test]
    fn refusals_carry_kafkas_name() {
        check("x", 0).unwrap();
        let message = check("Produce to t-0", 6).unwrap_err().to_string();
        assert_eq!(message, "Produce to t-0: NOT_LEADER_OR_FOLLOWER (6)");
    }
}

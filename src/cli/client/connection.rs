//! One connection to a broker: blocking, over one socket. A request is a whole frame, which a driver builds beforehand and
//! sends over and over; of an answer as much is read as is wanted, and the rest is dropped unseen, so that a driver's own
//! work stays out of what it measures.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::{RecvFlags, recv};

use super::ClientError;
use crate::protocol::ErrorCode;
use crate::protocol::api::{Api, decode};
use crate::protocol::header::{RequestHeader, frame_request, response_header_size};
use crate::protocol::messages::ApiVersions;
use crate::protocol::messages::api_versions::{ApiVersion, ApiVersionsRequest};
use crate::protocol::wire::{Chunk, Chunks};

/// Longest that a broker may take for an answer, unless the connection is told otherwise. Longer than the longest wait that
/// the driver asks for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of answers that are taken from the socket at a time.
const RECEIVE_BYTES: usize = 16 << 10;
/// Bytes of an answer that are dropped at a time.
const DISCARD_BYTES: usize = 1 << 20;
/// Largest answer, or part of one, that is looked at: fetched batches, of which the first may be of any size.
const HEAD_MAX_BYTES: usize = 512 << 20;
/// Memory that an answer gets before any of it has come.
const HEAD_RESERVED_BYTES: usize = 1 << 20;
/// For [`Connection::receive`]: all of the answer.
const WHOLE: usize = usize::MAX;
/// What the client calls itself.
const CLIENT_ID: &str = "ottla";
/// Every answer begins with the correlation id.
const CORRELATION_ID_BYTES: usize = 4;

/// A whole request as it goes over the socket. Large record batches are shared with whoever else sends them.
pub(in crate::cli) struct Frame(Vec<Bytes>);

impl Frame {
    /// The frame of a request of `version`.
    pub(in crate::cli) fn new<A: Api>(version: i16, request: &A::Request) -> Self {
        let mut out = Chunks::default();
        frame_request::<A>(&mut out, version, 0, CLIENT_ID, request);
        let pieces = out.sealed().drain(..).map(|chunk| match chunk {
            Chunk::Bytes(bytes) => bytes,
            Chunk::File(_) => unreachable!("a client's records are in memory"),
        });
        Self(pieces.collect())
    }
}

/// The beginning of an answer.
pub(in crate::cli) struct Head {
    /// From the correlation id on.
    pub(in crate::cli) bytes: Vec<u8>,
    /// Bytes of the answer that came after, unseen.
    pub(in crate::cli) dropped_bytes: usize,
}

/// What is read from.
struct Socket {
    stream: TcpStream,
    /// How long to ask over and over, if not to sleep.
    busy_for: Option<Duration>,
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(patience) = self.busy_for else { return self.stream.read(buffer) };
        let began = Instant::now();
        loop {
            match recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                // Whoever shares the core with this loop goes first.
                Err(rustix::io::Errno::AGAIN) if began.elapsed() < patience => yield_now(),
                Err(error) => return Err(error.into()),
                Ok((read, _)) => return Ok(read),
            }
        }
    }
}

/// The versions that a broker speaks.
#[derive(Default)]
struct Versions(Vec<ApiVersion>);

/// A connection to a broker.
pub(in crate::cli) struct Connection {
    address: Arc<str>,
    socket: BufReader<Socket>,
    discarded: Vec<u8>,
    versions: Versions,
    patience: Duration,
}

impl Connection {
    /// Connects and asks for the versions that the broker speaks.
    ///
    /// # Errors
    /// No connection, or no answer that makes sense.
    pub(in crate::cli) fn connect(address: &str) -> Result<Self, ClientError> {
        Self::connect_within(address, PATIENCE)
    }

    /// The same with a broker that may take `patience` to connect, and for each answer.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(in crate::cli) fn connect_within(address: &str, patience: Duration) -> Result<Self, ClientError> {
        let mut connection = Self::open(address, patience)?;
        // Every broker answers version 0, whatever else it speaks.
        let answer = connection.call_at::<ApiVersions>(0, &ApiVersionsRequest::default())?;
        check(ApiVersions::NAME, answer.error_code)?;
        connection.versions = Versions(answer.api_keys);
        Ok(connection)
    }

    /// Connects without asking anything: only [`Self::call_at`] works, with versions that every broker speaks.
    ///
    /// # Errors
    /// No connection.
    pub(in crate::cli) fn connect_blindly(address: &str) -> Result<Self, ClientError> {
        Self::open(address, PATIENCE)
    }

    /// From now on asks the socket for answers over and over instead of sleeping until they come: a measurement is then of the
    /// server alone, not of how long (and at whose cost) this machine wakes a sleeper on another core.
    #[must_use]
    pub(in crate::cli) fn waiting_busily(mut self) -> Self {
        self.socket.get_mut().busy_for = Some(self.patience);
        self
    }

    fn open(address: &str, patience: Duration) -> Result<Self, ClientError> {
        let socket = open(address, patience)
            .map_err(|source| ClientError::Connect { address: address.into(), source })?;
        Ok(Self {
            address: address.into(),
            socket: BufReader::with_capacity(RECEIVE_BYTES, Socket { stream: socket, busy_for: None }),
            discarded: Vec::new(),
            versions: Versions::default(),
            patience,
        })
    }

    /// The newest version of an API that both sides speak, `newest` at most.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::cli) fn version_up_to<A: Api>(&self, newest: i16) -> Result<i16, ClientError> {
        let theirs = self.versions.0.iter().find(|versions| versions.api_key == A::KEY);
        let common = theirs.map(|theirs| (theirs.min_version, theirs.max_version.min(newest)));
        match common {
            Some((oldest, newest)) if newest >= oldest.max(A::MIN_VERSION) => Ok(newest),
            _ => Err(ClientError::NoVersion { address: self.address.to_string(), api: A::NAME }),
        }
    }

    /// Sends a request in the newest common version and waits for its answer.
    ///
    /// # Errors
    /// The socket's; an answer that is none.
    pub(in crate::cli) fn call<A: Api>(&mut self, request: &A::Request) -> Result<A::Response, ClientError> {
        self.call_at::<A>(self.version_up_to::<A>(A::MAX_VERSION)?, request)
    }

    /// Sends a request of `version` and waits for its answer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(in crate::cli) fn call_at<A: Api>(
        &mut self,
        version: i16,
        request: &A::Request,
    ) -> Result<A::Response, ClientError> {
        self.send([&Frame::new::<A>(version, request)])?;
        self.answer::<A>(version)
    }

    /// Waits for the next answer and decodes it as one of `version`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(in crate::cli) fn answer<A: Api>(&mut self, version: i16) -> Result<A::Response, ClientError> {
        let head = self.receive(WHOLE)?;
        decode_answer::<A>(version, head.bytes)
    }

    /// Sends frames in as few writes as the system takes them, and gives their number.
    ///
    /// # Errors
    /// The socket's.
    pub(in crate::cli) fn send<'f>(
        &mut self,
        frames: impl IntoIterator<Item = &'f Frame>,
    ) -> Result<usize, ClientError> {
        let mut count = 0;
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        for frame in frames {
            slices.extend(frame.0.iter().map(|piece| IoSlice::new(piece)));
            count += 1;
        }
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match self.socket.get_mut().stream.write_vectored(left) {
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
    pub(in crate::cli) fn receive(&mut self, head_bytes: usize) -> Result<Head, ClientError> {
        self.receive_from_socket(head_bytes).map_err(|error| self.lost(error))
    }

    /// Whether (a part of) the next answer is here already.
    pub(in crate::cli) fn has_received(&self) -> bool {
        !self.socket.buffer().is_empty()
    }

    /// The same of one that waits busily, after asking the socket once.
    ///
    /// # Errors
    /// The socket's.
    pub(in crate::cli) fn asks_whether_received(&mut self) -> Result<bool, ClientError> {
        let patience = self.socket.get_mut().busy_for.replace(Duration::ZERO);
        let asked = self.socket.fill_buf().map(|bytes| bytes.len());
        self.socket.get_mut().busy_for = patience;
        match asked {
            Ok(0) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(self.lost(error)),
        }
    }

    fn receive_from_socket(&mut self, head_bytes: usize) -> io::Result<Head> {
        let mut size = [0; 4];
        self.socket.read_exact(&mut size)?;
        let size = usize::try_from(i32::from_be_bytes(size)).map_err(|_| io::ErrorKind::InvalidData)?;
        let wanted = size.min(head_bytes);
        if wanted > HEAD_MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::with_capacity(wanted.min(HEAD_RESERVED_BYTES));
        if self.socket.by_ref().take(wanted as u64).read_to_end(&mut bytes)? < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
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
            // Copied, as by any client. If the kernel dropped them, the driver would be done with each packet before the next, and
            // the server would wake it for every one.
            match recv(&self.socket.get_ref().stream, &mut self.discarded[..most], RecvFlags::empty()) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, dropped)) => left -= dropped,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn lost(&self, source: io::Error) -> ClientError {
        let address = self.address.to_string();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::Silent { address, seconds: self.patience.as_secs() }
            }
            _ => ClientError::Lost { address, source },
        }
    }
}

/// Decodes an answer from its correlation id on.
///
/// # Errors
/// Bytes that are no answer of that API and version.
pub(in crate::cli) fn decode_answer<A: Api>(
    version: i16,
    bytes: Vec<u8>,
) -> Result<A::Response, ClientError> {
    let frame = Bytes::from(bytes);
    let flexible = A::is_flexible(version);
    let body = frame.get(CORRELATION_ID_BYTES..).unwrap_or_default();
    let body = match response_header_size(A::KEY, flexible) {
        CORRELATION_ID_BYTES => Ok(body),
        _ => RequestHeader::skip_tags(body),
    };
    body.and_then(|body| decode(&frame, body, version, flexible))
        .map_err(|source| ClientError::Answer { api: A::NAME, source })
}

/// Turns an error code into an error that names `what` was refused.
///
/// # Errors
/// Any code but 0.
pub(in crate::cli) fn check(what: &str, code: i16) -> Result<(), ClientError> {
    if code == i16::from(ErrorCode::None) {
        return Ok(());
    }
    Err(ClientError::Refused { what: what.to_owned(), code, message: None })
}

fn open(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, patience) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(patience))?;
                socket.set_write_timeout(Some(patience))?;
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
    fn client_of(bytes: &'static [u8]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || listener.accept().unwrap().0.write_all(bytes).unwrap());
        Connection::connect_blindly(&address).unwrap()
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
    fn who_waits_busily_gets_the_same_and_has_the_same_patience() {
        let mut client = client_of(b"\0\0\0\x03abc").waiting_busily();
        assert_eq!(client.receive(WHOLE).unwrap().bytes, b"abc");
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let mut client = Connection::open(&address, Duration::from_millis(20)).unwrap().waiting_busily();
        assert!(matches!(client.receive(WHOLE), Err(ClientError::Silent { .. })));
    }

    #[test]
    fn a_peer_that_is_no_broker_is_an_error() {
        for bytes in [&b""[..], b"\0\0\0\x09short", b"\xff\xff\xff\xff----", b"HTTP/1.1 400"] {
            let error = client_of(bytes).answer::<Metadata>(8).err().unwrap();
            assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
        }
        let error = client_of(b"\0\0\0\x04\0\0\0\0").answer::<Metadata>(8).err().unwrap();
        assert!(matches!(error, ClientError::Answer { api: "Metadata", .. }), "{error:?}");
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
        assert!(matches!(error, ClientError::NoVersion { api: "Metadata", .. }));
    }

    #[test]
    fn refusals_carry_kafkas_name() {
        check("x", 0).unwrap();
        let message = check("Produce to t-0", 6).unwrap_err().to_string();
        assert_eq!(message, "Produce to t-0: NOT_LEADER_OR_FOLLOWER (6)");
    }
}

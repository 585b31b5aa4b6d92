//! How chunks reach a socket: bytes by vectored writes, file ranges by `sendfile`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use bytes::{Buf, Bytes};
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::protocol::wire::Chunk;
use crate::record::range::FileRange;

/// Most buffers in one vectored write.
const MOST_SLICES: usize = 64;

/// Ranges below this size are read and written with their neighbours: two cheap calls less than a `sendfile` and the
/// packets it splits. In bytes.
const SENDFILE_FROM_BYTES: usize = 16 << 10;

/// Most of a range that is checked for residence and sent at once, bytes: a cold disk holds up one step, not a response.
const STEP_BYTES: usize = 512 << 10;

/// Sends of `chunks`, if they are bytes only, what the socket takes without waiting, consuming it: nearly always all. The rest is
/// for [`send`].
///
/// # Errors
/// The socket's.
pub fn send_at_once(stream: &TcpStream, chunks: &mut VecDeque<Chunk>) -> io::Result<()> {
    let is_simple = chunks.iter().all(|chunk| matches!(chunk, Chunk::Bytes(_)));
    while is_simple && !chunks.is_empty() {
        match stream.try_io(Interest::WRITABLE, || write_bytes(stream, chunks)) {
            Ok(sent) => consume(chunks, sent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends all `chunks`, in order, consuming them.
///
/// # Errors
/// The socket's, or the file's: a range that cannot be read ends the connection, since its length has been announced.
pub async fn send(stream: &TcpStream, chunks: &mut VecDeque<Chunk>) -> io::Result<()> {
    // First, so that a small record leaves in one call with the header before it.
    for chunk in chunks.iter_mut() {
        if let Chunk::File(range) = chunk
            && (range.length < SENDFILE_FROM_BYTES || range.file.descriptor().is_none())
        {
            *chunk = Chunk::Bytes(read(range).await?);
        }
    }
    while let Some(front) = chunks.front_mut() {
        match front {
            Chunk::Bytes(bytes) if bytes.is_empty() => {
                chunks.pop_front();
            }
            Chunk::Bytes(_) => {
                let sent = stream.async_io(Interest::WRITABLE, || write_bytes(stream, chunks)).await?;
                consume(chunks, sent);
            }
            Chunk::File(range) => {
                send_range(stream, range).await?;
                chunks.pop_front();
            }
        }
    }
    Ok(())
}

/// Writes the bytes at the front with one call; how many the socket has taken.
fn write_bytes(stream: &TcpStream, chunks: &VecDeque<Chunk>) -> io::Result<usize> {
    if let (1, Some(Chunk::Bytes(bytes))) = (chunks.len(), chunks.front()) {
        return Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?);
    }
    let mut slices = [IoSlice::new(&[]); MOST_SLICES];
    let mut count = 0;
    // With more to come the kernel holds a short packet back, so that a header travels with its records.
    let mut flags = SendFlags::NOSIGNAL;
    for chunk in chunks {
        match chunk {
            Chunk::Bytes(bytes) if count < MOST_SLICES => {
                slices[count] = IoSlice::new(bytes);
                count += 1;
            }
            _ => {
                flags |= SendFlags::MORE;
                break;
            }
        }
    }
    let mut ancillary = rustix::net::SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(stream, &slices[..count], &mut ancillary, flags)?)
}

/// Drops the bytes at the front that were sent.
fn consume(chunks: &mut VecDeque<Chunk>, mut sent: usize) {
    while let Some(Chunk::Bytes(bytes)) = chunks.front_mut() {
        if sent < bytes.len() {
            bytes.advance(sent);
            break;
        }
        sent -= bytes.len();
        chunks.pop_front();
    }
}

/// Sends a range from the page cache to the socket without passing through this process. What is not cached is read in
/// by a thread that may wait, not by the one that serves sockets.
async fn send_range(stream: &TcpStream, range: &mut FileRange) -> io::Result<()> {
    while range.length > 0 {
        let step = range.length.min(STEP_BYTES);
        if !range.file.is_cached(range.position, step) {
            warm(range, step).await?;
        }
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let file = range.file.descriptor().expect("the caller has seen a descriptor");
                let mut position = range.position;
                Ok(rustix::fs::sendfile(stream.as_fd(), file, Some(&mut position), step)?)
            })
            .await?;
        if sent == 0 {
            return Err(range.truncated());
        }
        range.position += sent as u64;
        range.length -= sent;
    }
    Ok(())
}

/// Reads a step of a range on a thread that may wait for the disk, which leaves it in the page cache.
async fn warm(range: &FileRange, step: usize) -> io::Result<()> {
    read(&FileRange { length: step, ..range.clone() }).await.map(drop)
}

/// Reads a whole range: at once if it is cached, else on a thread that may wait.
async fn read(range: &FileRange) -> io::Result<Bytes> {
    if let Some(bytes) = range.read_cached() {
        return Ok(bytes);
    }
    let range = range.clone();
    tokio::task::spawn_blocking(move || range.read()).await?
}

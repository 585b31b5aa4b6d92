//! Length-prefixed frames: a signed 32-bit size, then that many bytes.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use nom::number::complete as number;

/// Bytes of the size that stands before a frame.
pub const SIZE_BYTES: usize = 4;

/// What a read asks for first, bytes, for which allocators have a quick way; doubled while reads bring all that they ask for,
/// and halved when they bring little.
const FIRST_READ_BYTES: usize = 1 << 10;

/// Most that one read asks for, bytes.
const LARGEST_READ_BYTES: usize = 256 << 10;

/// Why a connection's bytes are not frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// A size below zero.
    #[error("frame size {0} is negative{hint}", hint = hint(*.0))]
    Negative(i32),
    /// A size above `socket.request.max.bytes`.
    #[error("frame of {size} bytes exceeds socket.request.max.bytes {limit}{hint}", hint = hint(*.size))]
    TooLarge {
        /// Bytes announced.
        size: i32,
        /// Bytes allowed.
        limit: usize,
    },
}

/// A guess at what the peer speaks, for the log line: people do point browsers and TLS clients at this port.
fn hint(size: i32) -> &'static str {
    match &size.to_be_bytes() {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" => " (an HTTP request?)",
        [0x16, 0x03, ..] => " (a TLS hello?)",
        b"SSH-" => " (an SSH client?)",
        _ => "",
    }
}

/// Bytes read from one socket and not yet taken as frames. Memory grows with what has arrived, not with what a size
/// announces, and is given back when the connection goes idle.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: BytesMut,
    limit: usize,
    read_bytes: usize,
    /// What the last read has asked for.
    asked_bytes: usize,
    /// Of the frame that was taken last, with its size.
    last_bytes: usize,
}

impl FrameBuffer {
    /// For frames of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: BytesMut::new(), limit, read_bytes: FIRST_READ_BYTES, asked_bytes: 0, last_bytes: 0 }
    }

    /// Bytes of the frame at the front, without its size prefix; `None` while not even the size is there.
    ///
    /// # Errors
    /// A size that no frame may have.
    pub fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Ok((_, size)) = number::be_i32::<_, nom::error::Error<&[u8]>>(&self.bytes[..]) else {
            return Ok(None);
        };
        match usize::try_from(size) {
            Err(_) => Err(FrameError::Negative(size)),
            Ok(bytes) if bytes > self.limit => Err(FrameError::TooLarge { size, limit: self.limit }),
            Ok(bytes) => Ok(Some(bytes)),
        }
    }

    /// Takes the frame at the front if all of it is there. The frame shares the buffer's memory.
    ///
    /// # Errors
    /// As [`FrameBuffer::announced`].
    pub fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        match self.announced()? {
            Some(size) if self.bytes.len() >= SIZE_BYTES + size => {
                self.last_bytes = SIZE_BYTES + size;
                self.bytes.advance(SIZE_BYTES);
                Ok(Some(self.bytes.split_to(size).freeze()))
            }
            _ => Ok(None),
        }
    }

    /// The API key of the frame at the front, if it has arrived: the first two bytes behind the size.
    pub fn peek_api_key(&self) -> Option<i16> {
        let key = self.bytes.get(SIZE_BYTES..SIZE_BYTES + 2)?;
        Some(i16::from_be_bytes([key[0], key[1]]))
    }

    /// Bytes held that are not yet a taken frame.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Makes room and returns the buffer to read into, and for how many bytes. A frame that is under way gets the room it needs
    /// at once if it is not larger than what has arrived already; a larger one grows by doubling. A read that could take the
    /// beginning of a frame with it, which would have to be copied to where its rest will be, ends before that if frames go on
    /// being as large as the last one was.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        let missing = match self.announced() {
            Ok(Some(size)) => (SIZE_BYTES + size).saturating_sub(self.bytes.len()),
            _ => 0,
        };
        let wanted = missing.min(self.bytes.len().max(LARGEST_READ_BYTES)).max(self.read_bytes);
        let after = wanted - missing.min(wanted);
        let wanted = match after.checked_rem(self.last_bytes) {
            Some(cut) if after > cut && (missing > 0 || self.bytes.is_empty()) => wanted - cut,
            _ => wanted,
        };
        self.asked_bytes = wanted;
        if self.bytes.capacity() - self.bytes.len() < wanted {
            self.bytes.reserve(wanted);
        }
        (&mut self.bytes).limit(wanted)
    }

    /// Notes that a read brought `read` bytes. One that fills its room asks for more next time: frames that come together are
    /// answered together, and whoever sent them is woken once. One that began with nothing and brought little asks for less.
    pub fn arrived(&mut self, read: usize) {
        let began_empty = read == self.bytes.len();
        if read >= self.asked_bytes {
            self.read_bytes = (self.read_bytes * 2).min(LARGEST_READ_BYTES);
        } else if began_empty && read < self.asked_bytes / 2 {
            self.read_bytes = (self.read_bytes / 2).max(FIRST_READ_BYTES);
        }
    }

    /// Gives the memory back if nothing is held: a connection that waits costs no buffer.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: &[u8]) -> FrameBuffer {
        let mut buffer = FrameBuffer::new(1 << 20);
        buffer.room().put_slice(bytes);
        buffer
    }

    #[test]
    fn frames_are_taken_one_after_the_other_and_only_when_whole() {
        let mut buffer = buffer(&[0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 3, 1, 2]);
        assert_eq!(buffer.take(), Ok(Some(Bytes::from_static(&[7, 8]))));
        assert_eq!(buffer.take(), Ok(Some(Bytes::new())));
        assert_eq!(buffer.take(), Ok(None));
        buffer.room().put_u8(3);
        assert_eq!(buffer.take(), Ok(Some(Bytes::from_static(&[1, 2, 3]))));
        assert_eq!(buffer.held(), 0);
    }

    #[test]
    fn a_negative_or_oversized_frame_is_an_error_that_guesses_the_peer() {
        assert_eq!(buffer(&(-2i32).to_be_bytes()).take(), Err(FrameError::Negative(-2)));
        let http = buffer(b"GET / HTTP/1.1\r\n").take().unwrap_err();
        assert!(http.to_string().contains("HTTP"), "{http}");
        let tls = buffer(&[0x16, 0x03, 0x01, 0x02, 0x00]).take().unwrap_err();
        assert!(tls.to_string().contains("TLS"), "{tls}");
        let huge = buffer(&i32::MAX.to_be_bytes()).take().unwrap_err();
        assert_eq!(huge, FrameError::TooLarge { size: i32::MAX, limit: 1 << 20 });
    }

    #[test]
    fn reads_end_where_frames_of_one_size_end() {
        let mut frame = vec![0, 1, 0, 0];
        frame.resize(4 + (1 << 16), 7);
        let mut buffer = FrameBuffer::new(1 << 20);
        buffer.read_bytes = LARGEST_READ_BYTES;
        buffer.room().put_slice(&frame[..100]);
        assert_eq!(buffer.room().remaining_mut(), LARGEST_READ_BYTES, "how large frames are is not known");
        buffer.room().put_slice(&frame[100..]);
        assert!(matches!(buffer.take(), Ok(Some(_))));
        assert_eq!(buffer.room().remaining_mut(), 3 * frame.len());
        buffer.room().put_slice(&frame[..100]);
        assert_eq!(buffer.room().remaining_mut(), 4 * frame.len() - 100);
        // One that is larger is read as any.
        let mut buffer = FrameBuffer::new(1 << 20);
        (buffer.read_bytes, buffer.last_bytes) = (LARGEST_READ_BYTES, frame.len());
        buffer.room().put_slice(&(900i32 << 10).to_be_bytes());
        assert_eq!(buffer.room().remaining_mut(), LARGEST_READ_BYTES);
    }

    #[test]
    fn who_sends_many_frames_has_many_read_at_once_and_who_sends_one_has_one() {
        let mut frame = vec![0, 1, 0, 0];
        frame.resize(4 + (1 << 16), 7);
        let mut buffer = FrameBuffer::new(1 << 20);
        let mut sent = 0;
        // The frames that a read takes out of what has been sent: up to the end of so many that are not taken yet.
        let mut come = |frames: usize| {
            let there = (sent / frame.len() + frames) * frame.len() - sent;
            let read = buffer.room().remaining_mut().min(there);
            let bytes: Vec<u8> = frame.iter().cycle().skip(sent % frame.len()).take(read).copied().collect();
            buffer.room().put_slice(&bytes);
            buffer.arrived(read);
            sent += read;
            std::iter::from_fn(|| buffer.take().unwrap()).count()
        };
        let many: Vec<_> = (0..20).map(|_| come(100)).collect();
        assert!(many[10..].iter().all(|frames| *frames == 3), "{many:?}");
        let one: Vec<_> = (0..20).map(|_| come(1)).collect();
        assert!(one.iter().all(|frames| *frames == 1), "{one:?}");
    }

    #[test]
    fn who_sends_little_is_asked_for_little() {
        let mut buffer = FrameBuffer::new(1 << 20);
        buffer.read_bytes = LARGEST_READ_BYTES;
        for _ in 0..10 {
            buffer.room().put_slice(&[0, 0, 0, 1, 7]);
            buffer.arrived(5);
            assert_eq!(buffer.take(), Ok(Some(Bytes::from_static(&[7]))));
        }
        assert_eq!(buffer.read_bytes, FIRST_READ_BYTES);
    }

    #[test]
    fn a_large_announcement_alone_takes_no_memory() {
        let mut buffer = FrameBuffer::new(100 << 20);
        buffer.room().put_slice(&(90i32 << 20).to_be_bytes());
        assert!(buffer.room().get_ref().capacity() <= 2 * LARGEST_READ_BYTES);
    }
}

//! The body of a request: read up to a limit, within a time, whoever sends it and however slowly.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use hyper::StatusCode;
use hyper::body::{Body, Bytes};
use tokio::time::timeout;

/// Why there is no body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BodyFault {
    /// More bytes than the limit.
    #[error("the body has more than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// Its end did not come in time.
    #[error("the body has not come within {} s", .within.as_secs())]
    TooSlow {
        /// The time that there was.
        within: Duration,
    },
    /// The connection or the form of its chunks is broken: nobody will read an answer.
    #[error("the body broke off")]
    Broken,
}

impl BodyFault {
    /// The status that says so.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a body to its end: `max_bytes` at most (inclusive), within a time. One that says in its head that it is larger is refused
/// before any of it is read. Nothing is reserved for what has only been announced; a body of one piece is not copied.
///
/// # Errors
/// It is too large, too slow or broken. What is left of it is not read.
pub(super) async fn read<B>(mut body: B, max_bytes: usize, within: Duration) -> Result<Bytes, BodyFault>
where
    B: Body<Data = Bytes> + Unpin,
{
    let too_large = BodyFault::TooLarge { max_bytes };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large);
    }
    let whole = async {
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            // Trailers say nothing that is asked for.
            let Ok(piece) = frame.map_err(|_| BodyFault::Broken)?.into_data() else { continue };
            let had = first.len().max(joined.len());
            if piece.len() > max_bytes - had {
                return Err(too_large);
            }
            if had == 0 {
                first = piece;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut first));
                joined.extend_from_slice(&piece);
            }
        }
        Ok(if joined.is_empty() { first } else { joined.freeze() })
    };
    timeout(within, whole).await.unwrap_or(Err(BodyFault::TooSlow { within }))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;
    use std::task::{Context, Poll};

    use hyper::HeaderMap;
    use hyper::body::{Frame, SizeHint};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    /// A body of these frames; without an end if it `hangs`.
    struct Pieces {
        frames: VecDeque<io::Result<Frame<Bytes>>>,
        announced: u64,
        hangs: bool,
    }

    impl Pieces {
        fn of(pieces: &[&'static str]) -> Self {
            let frame = |piece: &&'static str| Ok(Frame::data(Bytes::from_static(piece.as_bytes())));
            Self { frames: pieces.iter().map(frame).collect(), announced: 0, hangs: false }
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            match self.frames.pop_front() {
                None if self.hangs => Poll::Pending,
                frame => Poll::Ready(frame),
            }
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::new();
            hint.set_lower(self.announced);
            hint
        }
    }

    #[tokio::test]
    async fn pieces_are_joined_and_trailers_passed_over() {
        let mut body = Pieces::of(&["", "ab", "", "c", "def"]);
        body.frames.push_back(Ok(Frame::trailers(HeaderMap::new())));
        assert_eq!(read(body, 6, WITHIN).await.as_deref(), Ok(&b"abcdef"[..]));
        assert_eq!(read(Pieces::of(&[]), 0, WITHIN).await, Ok(Bytes::new()));
        let one = Bytes::from_static(b"one piece");
        let kept = read(Pieces::of(&["one piece"]), 9, WITHIN).await.unwrap();
        assert_eq!(kept, one);
    }

    #[tokio::test]
    async fn one_byte_too_many_is_too_many_announced_or_not() {
        let too_large = Err(BodyFault::TooLarge { max_bytes: 5 });
        assert_eq!(read(Pieces::of(&["abc", "def"]), 5, WITHIN).await, too_large);
        assert_eq!(read(Pieces::of(&["abcdef"]), 5, WITHIN).await, too_large);
        // Not a frame is looked at of what announces itself.
        let announced = Pieces { announced: 6, hangs: true, ..Pieces::of(&[]) };
        assert_eq!(read(announced, 5, WITHIN).await, too_large);
        let lying = Pieces { announced: u64::MAX, ..Pieces::of(&["a"]) };
        assert_eq!(
            read(lying, usize::MAX - 1, WITHIN).await,
            Err(BodyFault::TooLarge { max_bytes: usize::MAX - 1 })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_end_is_given_up() {
        let hanging = Pieces { hangs: true, ..Pieces::of(&["ab"]) };
        let too_slow = read(hanging, 5, WITHIN).await.unwrap_err();
        assert_eq!((too_slow, too_slow.status().as_u16()), (BodyFault::TooSlow { within: WITHIN }, 408));
        let mut broken = Pieces::of(&["ab"]);
        broken.frames.push_back(Err(io::ErrorKind::ConnectionReset.into()));
        assert_eq!(read(broken, 5, WITHIN).await, Err(BodyFault::Broken));
    }
}

//! An HTTP server on the crate that Ottla's are built on: it reads the body of a request and gives every one the same answer, in
//! which whoever speaks SQS finds what it looks for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use super::{Failure, begin_unpaced};

/// Answer to all: the URL of a queue, the id of a message that was sent, and a received message of 100 bytes.
const ANSWER: &str = "{\"QueueUrl\":\"http://127.0.0.1/0/bare\",\"MessageId\":\"0\",\"Messages\":[{\"ReceiptHandle\":\"0123456789abcdef\",\
    \"Body\":\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"}]}";

/// Serves on one thread until the process is ended.
pub fn serve(address: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await?;
        begin_unpaced(&listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(converse(stream));
        }
    })
}

async fn converse(stream: TcpStream) {
    let service = service_fn(answer);
    // How a connection ends is its client's affair.
    let _: Result<(), hyper::Error> =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Whole>, hyper::Error> {
    let mut body = request.into_body();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        frame?;
    }
    let mut response = Response::new(Whole(Some(Bytes::from_static(ANSWER.as_bytes()))));
    let json = hyper::header::HeaderValue::from_static("application/x-amz-json-1.0");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

/// A body that is there.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

//! The other door to queues: JSON over HTTP, for what Kafka's APIs have no words for.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use clap::Args;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;

/// Where the HTTP listener is looked for unless told otherwise.
const HTTP: &str = "127.0.0.1:9464";
/// The variable that tells otherwise.
pub(in crate::cli) const HTTP_VARIABLE: &str = "OTTLA_HTTP";

/// Longest answer: a hundred messages of the largest kind, in base64.
const ANSWER_MAX_BYTES: usize = 256 << 20;

#[derive(Args, Clone, Debug)]
pub(super) struct HttpFlags {
    /// Where the broker serves HTTP: its --http-listen. For all that looks at messages or moves them
    #[arg(long, env = HTTP_VARIABLE, value_name = "HOST:PORT", default_value = HTTP, global = true)]
    http: String,
}

/// Why the broker did not do over HTTP what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum HttpError {
    #[error("cannot connect to {address}: {source}; queues are served where the broker's --http-listen says")]
    Connect { address: String, source: std::io::Error },
    #[error("connection to {address} lost: {what}")]
    Lost { address: String, what: String },
    #[error("{address} has not answered for {seconds} s")]
    Silent { address: String, seconds: u64 },
    #[error("the system gives no runtime: {0}")]
    Runtime(std::io::Error),
    #[error("an answer of {address} makes no sense: {what}")]
    Answer { address: String, what: String },
    #[error("{code} ({status}): {message}")]
    Refused { status: u16, code: String, message: String },
    #[error("{0}")]
    Messages(String),
    #[error("cannot read the messages to send: {0}")]
    Input(std::io::Error),
    #[error("nothing was done: say yes, or --yes; --dry-run tells what would be")]
    NotAgreed,
}

impl HttpError {
    /// Whether the broker has said so; else there was none, or the command line is wrong.
    pub(in crate::cli) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Messages(_) | Self::Answer { .. })
    }
}

/// The door.
pub(super) struct Door {
    address: String,
    patience: Duration,
    runtime: tokio::runtime::Runtime,
}

impl Door {
    /// Where the flags say; nothing is asked yet.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(flags: &HttpFlags, patience: Duration) -> Result<Self, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { address: flags.http.clone(), patience, runtime: runtime.map_err(HttpError::Runtime)? })
    }

    /// What is at a path.
    ///
    /// # Errors
    /// Nobody answers, or refuses.
    pub(super) fn get(&self, path: &str) -> Result<Value, HttpError> {
        self.ask(Method::GET, path, String::new(), Duration::ZERO)
    }

    /// What comes of a request, which may itself wait for so long.
    ///
    /// # Errors
    /// Nobody answers, or refuses.
    pub(super) fn post(&self, path: &str, body: &Value, waits: Duration) -> Result<Value, HttpError> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(Method::POST, path, body, waits)
    }

    fn ask(&self, method: Method, path: &str, body: String, waits: Duration) -> Result<Value, HttpError> {
        let patience = self.patience + waits;
        let asked = async { tokio::time::timeout(patience, self.exchange(method, path, body)).await };
        let silent = |_| HttpError::Silent { address: self.address.clone(), seconds: patience.as_secs() };
        self.runtime.block_on(asked).map_err(silent)?
    }

    async fn exchange(&self, method: Method, path: &str, body: String) -> Result<Value, HttpError> {
        let address = || self.address.clone();
        let lost = |error: hyper::Error| HttpError::Lost { address: address(), what: error.to_string() };
        let senseless = |what: String| HttpError::Answer { address: address(), what };
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|source| HttpError::Connect { address: address(), source })?;
        let (mut requests, connection) = handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .header("user-agent", concat!("ottla/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|error| senseless(error.to_string()))?;
        let answered = async {
            let answer = requests.send_request(request).await.map_err(lost)?;
            let status = answer.status();
            Ok((status, read(answer).await.map_err(lost)?))
        };
        let (status, body) = tokio::select! {
            biased;
            answered = answered => answered?,
            Err(error) = connection => return Err(lost(error)),
        };
        let Some(body) = body else { return Err(senseless("it is too long".to_owned())) };
        let json = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
        let json: Value = json.map_err(|error| senseless(error.to_string()))?;
        if status.is_success() {
            return Ok(json);
        }
        let text = |name: &str| json["error"][name].as_str().unwrap_or_default().to_owned();
        Err(HttpError::Refused { status: status.as_u16(), code: text("code"), message: text("message") })
    }
}

/// The whole body; `None` if it is too long.
async fn read(answer: Response<Incoming>) -> Result<Option<BytesMut>, hyper::Error> {
    let mut body = answer.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(mut data) = frame?.into_data() {
            if whole.len() + data.remaining() > ANSWER_MAX_BYTES {
                return Ok(None);
            }
            whole.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
    }
    Ok(Some(whole))
}

/// The path of a thing of a queue, with what is asked for.
pub(super) fn path(queue: &str, thing: &str, query: &[(&str, Option<String>)]) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    // Names of queues have no other characters than stand for themselves; what has others is no queue's.
    let mut path = format!(
        "/queues/{}{thing}",
        encoded(queue).replace("%2D", "-").replace("%2E", ".").replace("%5F", "_")
    );
    let asked = query.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    for (number, (name, value)) in asked.enumerate() {
        path.extend([if number == 0 { "?" } else { "&" }, name, "=", &encoded(value)]);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_asked_for_and_nothing_else() {
        assert_eq!(path("a-b_c.d", "", &[]), "/queues/a-b_c.d");
        let query = [("max", Some("7".to_owned())), ("after", None), ("body", Some("a b&c".to_owned()))];
        assert_eq!(path("q", "/messages", &query), "/queues/q/messages?max=7&body=a%20b%26c");
        assert_eq!(path("../x", "", &[]), "/queues/..%2Fx");
    }
}

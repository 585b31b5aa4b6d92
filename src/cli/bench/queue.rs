//! `ottla bench queue`: messages sent, received and deleted over AWS JSON 1.0, by clients that do one thing after the other; or
//! how long a message takes to a receiver that waits for it; or only sent, or only received, so that a queue is full of what is
//! delayed or in flight. Works against whatever speaks SQS.
//!
//! All clients share one thread, so that the driver takes one core at most.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use clap::Args;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::report::{Latencies, Messages};
use super::{BenchError, process};

/// How long a receiver waits at most, seconds: SQS's longest.
const WAIT_SECONDS: u32 = 20;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Where SQS is spoken
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9324")]
    url: String,
    /// Queue to use; made if it is not there
    #[arg(long, value_name = "NAME", default_value = "bench")]
    queue: String,
    /// Clients, each with a connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: u32,
    /// Messages that are sent, received and deleted together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
    batch: u32,
    /// Bytes of a message's body
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=262_144))]
    body_bytes: u32,
    /// Send so many messages a second to one receiver that waits instead, and measure the way
    #[arg(long, value_name = "RATE", conflicts_with_all = ["clients", "batch"], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    waiting: Option<u32>,
    /// Send so many messages instead, and do nothing else
    #[arg(long, value_name = "N", conflicts_with_all = ["waiting", "seconds", "warm_up"], value_parser = clap::value_parser!(u64).range(1..))]
    send: Option<u64>,
    /// Delay each that is sent by a time of its own: of half so many seconds to all of them
    #[arg(long, value_name = "SECONDS", requires = "send", value_parser = clap::value_parser!(u32).range(1..=900))]
    delay_seconds: Option<u32>,
    /// Receive so many messages instead, and delete none
    #[arg(long, value_name = "N", conflicts_with_all = ["waiting", "send", "seconds", "warm_up"], value_parser = clap::value_parser!(u64).range(1..))]
    hold: Option<u64>,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = crate::cli::some_seconds)]
    seconds: Duration,
    /// Run at full load for so long first
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = crate::cli::seconds)]
    warm_up: Duration,
    /// Process of the server on this machine: its CPU time is measured too
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// # Errors
/// Nothing that speaks SQS there, or that refuses.
pub(super) fn measure(flags: &Flags) -> Result<Messages, BenchError> {
    let failed = |what: std::io::Error| BenchError::Http { url: flags.url.clone(), what: what.to_string() };
    // Sockets are looked at after each turn of a task: the one that keeps the thread awake would hide them otherwise.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().event_interval(1).build().map_err(failed)?;
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let url = queue_url(flags).await?;
        tokio::task::spawn_local(stay_awake());
        match (flags.waiting, flags.send, flags.hold) {
            (Some(rate), ..) => deliver(flags, &url, Duration::from_secs(1) / rate).await,
            (_, Some(messages), _) => one_way(flags, &url, messages, send_some).await,
            (.., Some(messages)) => one_way(flags, &url, messages, hold_some).await,
            (None, None, None) => exchange(flags, &url).await,
        }
    }))
}

/// The driver's own waking, and what a server pays for that, is to be no part of what is measured: on a virtual machine that is a
/// tenth of a request.
async fn stay_awake() {
    loop {
        tokio::task::yield_now().await;
    }
}

async fn queue_url(flags: &Flags) -> Result<String, BenchError> {
    #[derive(Deserialize)]
    struct Created {
        #[serde(rename = "QueueUrl")]
        url: String,
    }
    let mut client = Client::connect(&flags.url).await?;
    let created: Created =
        client.call("CreateQueue", &json!({ "QueueName": flags.queue }).to_string()).await?;
    Ok(created.url)
}

/// What is counted while the window is open.
#[derive(Default)]
struct Tally {
    messages: Cell<u64>,
    requests: Cell<u64>,
    latencies: RefCell<Latencies>,
    is_open: Cell<bool>,
    is_over: Cell<bool>,
}

impl Tally {
    fn add(&self, messages: u64, requests: u64, since: Instant) {
        if self.is_open.get() {
            self.messages.set(self.messages.get() + messages);
            self.requests.set(self.requests.get() + requests);
            self.latencies.borrow_mut().record(since.elapsed());
        }
    }
}

/// Opens the window after the warm-up, closes it, and says what was seen in it.
async fn watch(flags: &Flags, tally: &Tally) -> Result<Messages, BenchError> {
    tokio::time::sleep(flags.warm_up).await;
    let window = Window::open(flags, tally)?;
    tokio::time::sleep(flags.seconds).await;
    window.close()
}

/// While it is open, it is counted.
struct Window<'a> {
    flags: &'a Flags,
    tally: &'a Tally,
    began: Instant,
    cpu_before: Option<Duration>,
}

impl<'a> Window<'a> {
    fn open(flags: &'a Flags, tally: &'a Tally) -> Result<Self, BenchError> {
        let cpu_before = flags.pid.map(process::cpu_time).transpose()?;
        tally.is_open.set(true);
        Ok(Self { flags, tally, began: Instant::now(), cpu_before })
    }

    /// What was seen; the clients end.
    fn close(self) -> Result<Messages, BenchError> {
        let Self { flags, tally, began, cpu_before } = self;
        tally.is_open.set(false);
        let seconds = began.elapsed().as_secs_f64();
        let cpu_after = flags.pid.map(process::cpu_time).transpose()?;
        tally.is_over.set(true);
        let messages = tally.messages.get();
        let cpu = cpu_after.zip(cpu_before).map(|(after, before)| (after - before).as_secs_f64());
        Ok(Messages {
            messages,
            seconds,
            messages_per_second: messages as f64 / seconds,
            requests_per_second: tally.requests.get() as f64 / seconds,
            latency_us: tally.latencies.borrow().percentiles(),
            messages_per_server_cpu_second: cpu.map(|cpu| messages as f64 / cpu),
        })
    }
}

/// Every client sends a batch, receives one, and deletes it, over and over.
async fn exchange(flags: &Flags, queue: &str) -> Result<Messages, BenchError> {
    let tally = Rc::new(Tally::default());
    let mut clients = Vec::new();
    for _ in 0..flags.clients {
        let client = Client::connect(&flags.url).await?;
        let (queue, batch, body_bytes) = (queue.to_owned(), flags.batch as usize, flags.body_bytes as usize);
        let tally = Rc::clone(&tally);
        clients.push(tokio::task::spawn_local(async move {
            go_round(client, &queue, batch, body_bytes, &tally).await
        }));
    }
    let watched = watch(flags, &tally).await?;
    for client in clients {
        if let Ok(ended) = client.await {
            ended?;
        }
    }
    Ok(watched)
}

async fn go_round(
    mut client: Client,
    queue: &str,
    batch: usize,
    body_bytes: usize,
    tally: &Tally,
) -> Result<(), BenchError> {
    let body = "x".repeat(body_bytes);
    let entries: Vec<_> = (0..batch).map(|id| json!({ "Id": id.to_string(), "MessageBody": body })).collect();
    let (send_action, send) = match batch {
        1 => ("SendMessage", json!({ "QueueUrl": queue, "MessageBody": body })),
        _ => ("SendMessageBatch", json!({ "QueueUrl": queue, "Entries": entries })),
    };
    let (send, receive) =
        (send.to_string(), json!({ "QueueUrl": queue, "MaxNumberOfMessages": batch }).to_string());
    while !tally.is_over.get() {
        let began = Instant::now();
        client.call::<Value>(send_action, &send).await?;
        let received: Received = client.call("ReceiveMessage", &receive).await?;
        let mut requests = 2;
        let receipts: Vec<&str> = received.messages.iter().map(|message| &*message.receipt).collect();
        match receipts[..] {
            [] => {}
            [receipt] => {
                let delete = json!({ "QueueUrl": queue, "ReceiptHandle": receipt }).to_string();
                client.post("DeleteMessage", &delete).await?;
                requests += 1;
            }
            _ => {
                let entry =
                    |(id, receipt): (usize, &&str)| json!({ "Id": id.to_string(), "ReceiptHandle": receipt });
                let entries: Vec<_> = receipts.iter().enumerate().map(entry).collect();
                let delete = json!({ "QueueUrl": queue, "Entries": entries }).to_string();
                client.post("DeleteMessageBatch", &delete).await?;
                requests += 1;
            }
        }
        tally.add(receipts.len() as u64, requests, began);
    }
    Ok(())
}

/// All clients together send, or receive, so many messages: each has `some` of them go, again and again.
async fn one_way(
    flags: &Flags,
    queue: &str,
    messages: u64,
    some: impl AsyncFn(&mut Client, &OneWay, usize) -> Result<usize, BenchError> + Copy + 'static,
) -> Result<Messages, BenchError> {
    let tally = Rc::new(Tally::default());
    let way = Rc::new(OneWay {
        queue: queue.to_owned(),
        body: "x".repeat(flags.body_bytes as usize),
        delay_seconds: flags.delay_seconds,
        left: Cell::new(messages),
    });
    let mut connected = Vec::new();
    for _ in 0..flags.clients {
        connected.push(Client::connect(&flags.url).await?);
    }
    let window = Window::open(flags, &tally)?;
    let clients = connected.into_iter().map(|mut client| {
        let (way, tally, batch) = (Rc::clone(&way), Rc::clone(&tally), u64::from(flags.batch));
        tokio::task::spawn_local(async move {
            while way.left.get() > 0 {
                let wanted = batch.min(way.left.get());
                way.left.set(way.left.get() - wanted);
                let began = Instant::now();
                let gone = some(&mut client, &way, wanted as usize).await? as u64;
                way.left.set(way.left.get() + wanted.saturating_sub(gone));
                tally.add(gone, 1, began);
            }
            Ok::<_, BenchError>(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        if let Ok(ended) = client.await {
            ended?;
        }
    }
    window.close()
}

/// What clients that only send, or only receive, have in common.
struct OneWay {
    queue: String,
    body: String,
    delay_seconds: Option<u32>,
    /// Messages that nobody has begun with.
    left: Cell<u64>,
}

async fn send_some(client: &mut Client, way: &OneWay, messages: usize) -> Result<usize, BenchError> {
    let entry = |id: usize| {
        let mut entry = json!({ "Id": id.to_string(), "MessageBody": way.body });
        if let Some(most) = way.delay_seconds {
            entry["DelaySeconds"] = fastrand::u32(most.div_ceil(2)..=most).into();
        }
        entry
    };
    let entries: Vec<_> = (0..messages).map(entry).collect();
    let send = json!({ "QueueUrl": way.queue, "Entries": entries }).to_string();
    let sent: Sent = client.call("SendMessageBatch", &send).await?;
    match sent.successful.len() == messages {
        true => Ok(messages),
        false => {
            Err(client.failed(format!("SendMessageBatch: {} of {messages} sent", sent.successful.len())))
        }
    }
}

async fn hold_some(client: &mut Client, way: &OneWay, messages: usize) -> Result<usize, BenchError> {
    let receive = json!({ "QueueUrl": way.queue, "MaxNumberOfMessages": messages }).to_string();
    let received: Received = client.call("ReceiveMessage", &receive).await?;
    match received.messages.len() {
        0 => Err(client.failed("ReceiveMessage: there are no more messages".to_owned())),
        held => Ok(held),
    }
}

/// One client waits for each message, the other sends it.
async fn deliver(flags: &Flags, queue: &str, period: Duration) -> Result<Messages, BenchError> {
    let (mut sender, mut receiver) = (Client::connect(&flags.url).await?, Client::connect(&flags.url).await?);
    let tally = Rc::new(Tally::default());
    let send = json!({ "QueueUrl": queue, "MessageBody": "x".repeat(flags.body_bytes as usize) }).to_string();
    let wait = json!({ "QueueUrl": queue, "WaitTimeSeconds": WAIT_SECONDS }).to_string();
    let (queue, to_come) = (queue.to_owned(), Rc::clone(&tally));
    let driving = tokio::task::spawn_local(async move {
        let mut next = Instant::now();
        while !to_come.is_over.get() {
            let waiting = receiver.post("ReceiveMessage", &wait);
            let (sent_at, received) = tokio::join!(
                async {
                    next = (next + period).max(Instant::now() + period / 2);
                    tokio::time::sleep_until(next.into()).await;
                    let sent_at = Instant::now();
                    sender.call::<Value>("SendMessage", &send).await.map(|_| sent_at)
                },
                async { waiting.await.map(|body| (Instant::now(), body)) },
            );
            let (sent_at, (received_at, body)) = (sent_at?, received?);
            let received: Received = receiver.read("ReceiveMessage", &body)?;
            for message in &received.messages {
                let delete = json!({ "QueueUrl": queue, "ReceiptHandle": message.receipt }).to_string();
                receiver.post("DeleteMessage", &delete).await?;
            }
            // Of the messages that were there before it began, nothing can be told.
            if let Some(way) =
                received_at.checked_duration_since(sent_at).filter(|_| received.messages.len() == 1)
            {
                to_come.add(1, 3, Instant::now() - way);
            }
        }
        Ok::<_, BenchError>(())
    });
    let watched = watch(flags, &tally).await?;
    if let Ok(ended) = driving.await {
        ended?;
    }
    Ok(watched)
}

#[derive(Deserialize)]
struct Sent {
    #[serde(rename = "Successful", default)]
    successful: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Received {
    #[serde(rename = "Messages", default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "ReceiptHandle")]
    receipt: String,
}

/// A connection to an SQS endpoint.
struct Client {
    url: String,
    host: String,
    requests: SendRequest<Whole>,
}

impl Client {
    async fn connect(url: &str) -> Result<Self, BenchError> {
        let is_no_url = || BenchError::Url { url: url.to_owned() };
        let host = url.strip_prefix("http://").ok_or_else(is_no_url)?.trim_end_matches('/').to_owned();
        let failed = |what: String| BenchError::Http { url: url.to_owned(), what };
        let stream = TcpStream::connect(&host).await.map_err(|error| failed(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| failed(error.to_string()))?;
        let (requests, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        tokio::task::spawn_local(connection);
        Ok(Self { url: url.to_owned(), host, requests })
    }

    async fn call<T: for<'a> Deserialize<'a>>(
        &mut self,
        action: &'static str,
        body: &str,
    ) -> Result<T, BenchError> {
        let answer = self.post(action, body).await?;
        self.read(action, &answer)
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, action: &'static str, answer: &[u8]) -> Result<T, BenchError> {
        serde_json::from_slice(answer).map_err(|error| self.failed(format!("{action}: {error}")))
    }

    fn failed(&self, what: String) -> BenchError {
        BenchError::Http { url: self.url.clone(), what }
    }

    /// The body of the answer.
    async fn post(&mut self, action: &'static str, body: &str) -> Result<Bytes, BenchError> {
        let failed =
            |error: hyper::Error| BenchError::Http { url: self.url.clone(), what: error.to_string() };
        let request = Request::post("/")
            .header("host", &self.host)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .body(Whole(Some(Bytes::copy_from_slice(body.as_bytes()))))
            .expect("these headers are valid, and the host has been connected to");
        self.requests.ready().await.map_err(failed)?;
        let answer = self.requests.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = read_all(answer).await.map_err(failed)?;
        match status.is_success() {
            true => Ok(body),
            false => Err(BenchError::Refused {
                url: self.url.clone(),
                action,
                status: status.as_u16(),
                body: String::from_utf8_lossy(&body).into_owned(),
            }),
        }
    }
}

async fn read_all(answer: Response<hyper::body::Incoming>) -> Result<Bytes, hyper::Error> {
    let mut body = answer.into_body();
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(mut data) = frame?.into_data() {
            whole.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
    }
    Ok(whole.freeze())
}

/// A body that is there.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

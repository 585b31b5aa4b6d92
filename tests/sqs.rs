//! The SQS door as bytes on a socket: what SDKs do not let a test see, and what they never send.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ottla::{Broker, Config};

use running::{PATIENCE, eventually};

/// An answer: status line and headers, and the body.
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap_or_default().parse().unwrap()
    }

    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

fn config() -> Config {
    Config::ephemeral().with("ottla.sqs.listeners", "127.0.0.1:0").unwrap()
}

async fn start(config: Config) -> (Broker, SocketAddr) {
    let broker = Broker::start(config).await.unwrap();
    let address = broker.sqs()[0];
    (broker, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request of these lines and this body, and takes its answer.
fn exchange(stream: &mut TcpStream, head: &str, body: &[u8]) -> Answer {
    let mut request = head.to_owned();
    write!(request, "\r\nhost: queues.test:1234\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
    // Who is refused early may find the socket closed while still writing.
    let _: std::io::Result<()> = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body));
    take(stream)
}

fn take(stream: &mut TcpStream) -> Answer {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let answer = Answer { head: head.to_owned(), body: body.to_owned() };
            if answer.header("content-length").parse() == Ok(body.len()) {
                return answer;
            }
        }
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "the connection ended after {text:?}");
        answer.extend_from_slice(&piece[..count]);
    }
}

/// The head of a call in AWS JSON.
fn head(action: &str) -> String {
    format!("POST / HTTP/1.1\r\ncontent-type: application/x-amz-json-1.0\r\nx-amz-target: AmazonSQS.{action}")
}

fn json(address: SocketAddr, action: &str, body: &str) -> Answer {
    exchange(&mut connect(address), &head(action), body.as_bytes())
}

fn query(address: SocketAddr, path: &str, form: &str) -> Answer {
    let head =
        format!("POST {path} HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded; charset=utf-8");
    exchange(&mut connect(address), &head, form.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_lead_to_the_same_queue() {
    let (_broker, address) = start(config()).await;
    let created = json(address, "CreateQueue", r#"{"QueueName":"jobs","Attributes":{"DelaySeconds":"0"}}"#);
    assert_eq!(created.body, r#"{"QueueUrl":"http://queues.test:1234/000000000000/jobs"}"#);
    assert_eq!((created.status(), created.header("content-type")), (200, "application/x-amz-json-1.0"));
    assert_eq!(created.header("x-amzn-requestid").len(), 36);

    let sent = query(
        address,
        "/",
        "Action=SendMessage&Version=2012-11-05&QueueUrl=http%3A%2F%2Felsewhere%2F1%2Fjobs&MessageBody=a+%26+b\
         &MessageAttribute.1.Name=k&MessageAttribute.1.Value.DataType=String&MessageAttribute.1.Value.StringValue=%3Cv%3E",
    );
    assert_eq!((sent.status(), sent.header("content-type")), (200, "text/xml"));
    assert!(sent.body.starts_with(
        "<?xml version=\"1.0\"?><SendMessageResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><SendMessageResult><MessageId>"
    ));
    let id = sent.header("x-amzn-requestid").to_owned();
    assert!(sent.body.ends_with(&format!(
        "</SendMessageResult><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></SendMessageResponse>"
    )));

    let received = json(
        address,
        "ReceiveMessage",
        r#"{"QueueUrl":"jobs","MessageAttributeNames":["All"],"WaitTimeSeconds":5}"#,
    );
    assert!(received.body.contains(r#""Body":"a & b""#), "{}", received.body);
    assert!(received.body.contains(r#""MessageAttributes":{"k":{"StringValue":"<v>","DataType":"String"}}"#));
    // Nothing is left, and nothing is said of it.
    assert_eq!(json(address, "ReceiveMessage", r#"{"QueueUrl":"jobs"}"#).body, "{}");

    // The path names the queue where nothing else does, for GET too.
    let path = "/000000000000/jobs";
    let asked = exchange(
        &mut connect(address),
        &format!("GET {path}?Action=GetQueueAttributes&AttributeName.1=VisibilityTimeout HTTP/1.1"),
        b"",
    );
    assert!(
        asked.body.contains("<Attribute><Name>VisibilityTimeout</Name><Value>30</Value></Attribute>"),
        "{}",
        asked.body
    );
    let purged = query(address, path, "Action=PurgeQueue");
    assert!(!purged.body.contains("Result>"), "{}", purged.body);
    assert_eq!(json(address, "DeleteQueue", r#"{"QueueUrl":"/queue/jobs"}"#).body, "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_amazons_codes_in_both_protocols() {
    let (_broker, address) = start(config()).await;
    json(address, "CreateQueue", r#"{"QueueName":"jobs"}"#);
    for (action, body, status, kind, code) in [
        (
            "DeleteQueue",
            r#"{"QueueUrl":"none"}"#,
            400,
            "com.amazonaws.sqs#QueueDoesNotExist",
            "AWS.SimpleQueueService.NonExistentQueue;Sender",
        ),
        ("Nonsense", "{}", 400, "com.amazon.coral.service#InvalidAction", "InvalidAction;Sender"),
        ("ListQueues", "{", 400, "com.amazon.coral.service#SerializationException", "MalformedInput;Sender"),
        (
            "ListQueues",
            r#"{"MaxResults":"5"}"#,
            400,
            "com.amazon.coral.service#SerializationException",
            "MalformedInput;Sender",
        ),
        (
            "ListQueues",
            &"[".repeat(100_000),
            400,
            "com.amazon.coral.service#SerializationException",
            "MalformedInput;Sender",
        ),
        (
            "DeleteQueue",
            "{}",
            400,
            "com.amazon.coral.service#MissingRequiredParameterException",
            "MissingParameter;Sender",
        ),
        (
            "DeleteMessage",
            r#"{"QueueUrl":"jobs","ReceiptHandle":"x"}"#,
            400,
            "com.amazonaws.sqs#ReceiptHandleIsInvalid",
            "ReceiptHandleIsInvalid;Sender",
        ),
        (
            "SendMessageBatch",
            r#"{"QueueUrl":"jobs","Entries":[]}"#,
            400,
            "com.amazonaws.sqs#EmptyBatchRequest",
            "AWS.SimpleQueueService.EmptyBatchRequest;Sender",
        ),
    ] {
        let answer = json(address, action, body);
        assert_eq!(answer.status(), status, "{action}: {}", answer.body);
        assert!(
            answer.body.starts_with(&format!(r#"{{"__type":"{kind}","message":""#)),
            "{action}: {}",
            answer.body
        );
        assert_eq!(answer.header("x-amzn-query-error"), code, "{action}");
    }
    for (form, status, code) in [
        ("Action=DeleteQueue&QueueUrl=none", 400, "AWS.SimpleQueueService.NonExistentQueue"),
        ("Action=Nonsense", 400, "InvalidAction"),
        ("Action=ReceiveMessage&QueueUrl=jobs&MaxNumberOfMessages=many", 400, "MalformedInput"),
        ("Action=ListQueues&a=%ff", 400, "MalformedInput"),
        ("Action=SendMessage&QueueUrl=jobs&MessageBody=%01", 400, "InvalidMessageContents"),
        ("Version=2012-11-05", 404, "UnknownOperationException"),
    ] {
        let answer = query(address, "/", form);
        assert_eq!(answer.status(), status, "{form}: {}", answer.body);
        assert!(answer.body.contains(&format!("<Code>{code}</Code>")), "{form}: {}", answer.body);
    }
    let bare = exchange(&mut connect(address), "GET /000000000000/jobs HTTP/1.1", b"");
    assert_eq!(bare.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_and_harms_nobody() {
    let (_broker, address) = start(config()).await;
    let mut stream = connect(address);
    let head = "POST / HTTP/1.1\r\nx-amz-target: AmazonSQS.ListQueues\r\nhost: x\r\n";
    stream.write_all(format!("{head}content-length: {}\r\n\r\n", 1_u64 << 40).as_bytes()).unwrap();
    assert_eq!(take(&mut stream).status(), 413);
    // In pieces whose sum nobody has told.
    let mut stream = connect(address);
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).unwrap();
    let piece = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    while stream.write_all(piece.as_bytes()).is_ok() {}
    let mut rest = Vec::new();
    let _: std::io::Result<usize> = stream.read_to_end(&mut rest);
    let answered = String::from_utf8_lossy(&rest);
    // A peer that is still writing may only see its connection reset.
    assert!(rest.is_empty() || answered.contains(" 413 "), "{answered}");
    let many = "x: y\r\n".repeat(101);
    let mut stream = connect(address);
    stream.write_all(format!("{head}{many}content-length: 2\r\n\r\n{{}}").as_bytes()).unwrap();
    assert_eq!(take(&mut stream).status(), 431);
    let long = format!("x: {}\r\n", "y".repeat(200_000));
    let mut stream = connect(address);
    let _: std::io::Result<()> = stream.write_all(format!("{head}{long}\r\n").as_bytes());
    rest.clear();
    let _: std::io::Result<usize> = stream.read_to_end(&mut rest);
    let answered = String::from_utf8_lossy(&rest);
    assert!(rest.is_empty() || answered.contains(" 431 "), "{answered}");
    assert_eq!(json(address, "ListQueues", "{}").body, "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_one_call_after_the_other() {
    let (_broker, address) = start(config()).await;
    let mut stream = connect(address);
    for number in 0..3 {
        let head = "POST / HTTP/1.1\r\nx-amz-target: AmazonSQS.CreateQueue";
        let answer = exchange(&mut stream, head, format!(r#"{{"QueueName":"q{number}"}}"#).as_bytes());
        assert_eq!(answer.status(), 200, "{}", answer.body);
    }
    let listed = json(address, "ListQueues", r#"{"QueueNamePrefix":"q"}"#);
    assert_eq!(listed.body.matches("/000000000000/q").count(), 3, "{}", listed.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_task_is_told_as_failed_at_no_moment_of_its_life() {
    let (_broker, address) = start(config()).await;
    json(address, "CreateQueue", r#"{"QueueName":"dead"}"#);
    let arn = "arn:aws:sqs:us-east-1:000000000000:dead";
    let redrive = format!(r#"{{\"deadLetterTargetArn\":\"{arn}\",\"maxReceiveCount\":1}}"#);
    let source = format!(r#"{{"QueueName":"jobs","Attributes":{{"RedrivePolicy":"{redrive}"}}}}"#);
    assert_eq!(json(address, "CreateQueue", &source).status(), 200);
    let of_dead = format!(r#"{{"SourceArn":"{arn}"}}"#);
    let is_done = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let watch = || {
            let mut connection = connect(address);
            let mut told = BTreeSet::new();
            while !is_done.load(Ordering::Acquire) {
                let answer = exchange(&mut connection, &head("ListMessageMoveTasks"), of_dead.as_bytes());
                let status =
                    answer.body.split(r#""Status":""#).nth(1).and_then(|rest| rest.split('"').next());
                told.extend(status.map(str::to_owned));
            }
            told
        };
        let watchers: Vec<_> = (0..16).map(|_| scope.spawn(watch)).collect();
        for _ in 0..1000 {
            eventually("the task before is over", || {
                (json(address, "StartMessageMoveTask", &of_dead).status() == 200).then_some(())
            });
        }
        is_done.store(true, Ordering::Release);
        watchers.into_iter().flat_map(|watcher| watcher.join().unwrap()).collect::<BTreeSet<_>>()
    });
    assert!(told.is_subset(&BTreeSet::from(["RUNNING".to_owned(), "COMPLETED".to_owned()])), "{told:?}");
    assert!(told.contains("COMPLETED"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_those_who_wait_for_messages() {
    let (broker, address) = start(config()).await;
    json(address, "CreateQueue", r#"{"QueueName":"jobs"}"#);
    let mut waiting = connect(address);
    let body = r#"{"QueueUrl":"jobs","WaitTimeSeconds":20}"#;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: AmazonSQS.ReceiveMessage\r\ncontent-length";
    waiting.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    let began = Instant::now();
    broker.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    eventually("the door is closed", || TcpStream::connect(address).is_err().then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_read_are_said_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("credentials");
    let config = config().with("ottla.sqs.credentials.file", path.display().to_string()).unwrap();
    let refusal =
        async |config: &Config| Broker::start(config.clone()).await.map(drop).unwrap_err().to_string();
    assert!(
        refusal(&config).await.starts_with(&format!("cannot read the credentials file {}", path.display()))
    );
    std::fs::write(&path, "[default]\naws_access_key_id = a\n").unwrap();
    assert!(refusal(&config).await.ends_with("an aws_access_key_id without its aws_secret_access_key"));
    std::fs::write(&path, "[default]\naws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    let (_broker, address) = start(config).await;
    let unsigned = json(address, "ListQueues", "{}");
    assert_eq!(
        (unsigned.status(), unsigned.header("x-amzn-query-error")),
        (403, "MissingAuthenticationToken;Sender")
    );
}

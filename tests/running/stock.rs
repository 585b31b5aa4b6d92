//! What tests with librdkafka share.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

use super::{PATIENCE, Server};

/// A client of the server with these settings.
pub fn config(server: &Server, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server.address());
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

/// Whether an error only says that a connection is gone, which librdkafka makes again by itself.
pub fn is_of_connection(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    matches!(error, KafkaError::MessageConsumption(BrokerTransportFailure | AllBrokersDown))
}

/// The next record or error that is not one of a connection.
pub fn next<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Result<BorrowedMessage<'_>, KafkaError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nothing to read");
        match consumer.poll(PATIENCE) {
            Some(Err(error)) if is_of_connection(&error) => {}
            Some(found) => return found,
            None => {}
        }
    }
}

/// Makes these all the configs that a topic has of its own, by the stock client's AlterConfigs.
pub fn configure(server: &Server, topic: &str, configs: &[(&str, &str)]) {
    alter(server, ResourceSpecifier::Topic(topic), configs);
}

/// Makes these all the configs that the broker has been given at run time.
pub fn configure_broker(server: &Server, configs: &[(&str, &str)]) {
    alter(server, ResourceSpecifier::Broker(1), configs);
}

fn alter(server: &Server, resource: ResourceSpecifier<'_>, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config(server, &[]).create().unwrap();
    let wanted = configs.iter().fold(AlterConfig::new(resource), |all, (name, value)| all.set(name, value));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let answer = runtime.block_on(admin.alter_configs([&wanted], &AdminOptions::new()));
    assert!(answer.unwrap().into_iter().all(|result| result.is_ok()), "{configs:?}");
}

/// A producer that waits for each record, acks=all; what it sends is one batch a record.
pub struct Sender(BaseProducer<Told>);

/// The answer to the last record.
#[derive(Default)]
struct Told(Mutex<Option<Result<i64, RDKafkaErrorCode>>>);

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        *self.0.lock().unwrap() = Some(match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap()),
        });
    }
}

impl Sender {
    pub fn to(server: &Server, settings: &[(&str, &str)]) -> Self {
        let quick = [("message.max.bytes", "100000000"), ("linger.ms", "0")];
        let settings: Vec<_> = quick.into_iter().chain(settings.iter().copied()).collect();
        Self(config(server, &settings).create_with_context(Told::default()).unwrap())
    }

    /// Sends a record to partition 0; its offset, or why it was refused.
    pub fn send(
        &self,
        topic: &str,
        timestamp_ms: i64,
        key: Option<&str>,
        value: &[u8],
    ) -> Result<i64, RDKafkaErrorCode> {
        let mut record =
            BaseRecord::<str, [u8]>::to(topic).partition(0).timestamp(timestamp_ms).payload(value);
        record.key = key;
        self.0.send(record).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no answer to a record");
            // It waits that long whatever happens.
            self.0.poll(Duration::from_millis(1));
            if let Some(told) = self.0.context().0.lock().unwrap().take() {
                return told;
            }
        }
    }
}

/// A consumer of partition 0 from `offset` on, which says so when there is no such offset.
pub fn consumer_at(server: &Server, topic: &str, offset: i64) -> BaseConsumer {
    let settings = [("group.id", "none"), ("enable.auto.commit", "false"), ("auto.offset.reset", "error")];
    let consumer: BaseConsumer = config(server, &settings).create().unwrap();
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    consumer.assign(&wanted).unwrap();
    consumer
}

/// First and next offset of partition 0.
pub fn watermarks(server: &Server, topic: &str) -> (i64, i64) {
    let consumer: BaseConsumer = config(server, &[]).create().unwrap();
    consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap()
}

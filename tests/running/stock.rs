//! What tests with librdkafka share.

use std::time::Instant;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;

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

//! Ottla: a Kafka-wire-compatible log server in one small binary.
//!
//! The directories are ordered as a request meets them: [`net`] reads a frame from a socket, [`protocol`] decodes it,
//! [`handlers`] answers it by asking [`catalog`], [`group`] and [`log`], and the answer goes back the same way. Groups are pure
//! state machines over a log of their own, driven by [`coordinator`]. [`record`] knows the record batch format, [`storage`] is
//! the door to the disk. Imports only point down this list. Beside [`net`], [`http`] shows operators what [`telemetry`] counts.
//!
//! # In your tests
//! A [`Broker`] runs in the tokio runtime that it is started in, many side by side if need be; an ephemeral one takes any free
//! port, and when it is dropped its port and its data are gone.
//!
//! ```
//! use std::time::Duration;
//!
//! use ottla::{Broker, Config};
//! use rdkafka::consumer::{Consumer, StreamConsumer};
//! use rdkafka::producer::{FutureProducer, FutureRecord};
//! use rdkafka::{ClientConfig, Message};
//!
//! // Like #[tokio::test(flavor = "multi_thread")]: clients that block their thread must not block the broker's.
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let broker = Broker::start(Config::ephemeral().topic("letters", 3)).await?;
//!     let mut client = ClientConfig::new();
//!     client.set("bootstrap.servers", broker.bootstrap());
//!
//!     let producer: FutureProducer = client.create()?;
//!     let letter = FutureRecord::to("letters").partition(2).key("Ottla").payload("from Zürau");
//!     let delivered = producer.send(letter, Duration::from_secs(10)).await.map_err(|(error, _)| error)?;
//!     assert_eq!((delivered.partition, delivered.offset), (2, 0));
//!
//!     client.set("group.id", "readers").set("auto.offset.reset", "earliest");
//!     let consumer: StreamConsumer = client.create()?;
//!     consumer.subscribe(&["letters"])?;
//!     assert_eq!(consumer.recv().await?.payload(), Some("from Zürau".as_bytes()));
//!     Ok(())
//! }
//! ```

pub use broker::Broker;
pub use config::Config;

pub mod broker;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod group;
pub mod handlers;
mod hex;
pub mod http;
pub mod log;
pub mod net;
pub mod operations;
pub mod protocol;
pub mod queue;
pub mod record;
pub mod storage;
pub mod telemetry;
pub mod uuid;

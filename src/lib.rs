//! Ottla: a Kafka-wire-compatible log server in one small binary.
//!
//! The directories are ordered as a request meets them: [`net`] reads a frame from a socket, [`protocol`] decodes it,
//! [`handlers`] answers it by asking [`catalog`] and [`log`], and the answer goes back the same way. [`record`] knows the
//! record batch format, [`storage`] is the door to the disk. Imports only point down this list.

pub mod broker;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod group;
pub mod handlers;
pub mod log;
pub mod net;
pub mod protocol;
pub mod record;
pub mod storage;
pub mod uuid;

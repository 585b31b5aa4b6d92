//! Sockets: listeners accept, connections read frames and send answers in order. Knows handlers only as "frame in, answer
//! out"; what an API does is none of its business.

pub mod budget;
pub mod connection;
pub mod frame;
pub mod listener;
pub mod probe;
pub mod transmit;

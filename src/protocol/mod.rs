//! Kafka's wire protocol: messages declared once ([`messages`]) in the notation of [`api`], carried by the primitive
//! types of [`wire`]. Imports nothing of the crate but `record`'s file ranges and the id type.

pub mod api;
pub mod error_code;
pub mod header;
pub mod messages;
pub mod wire;

pub use error_code::ErrorCode;

//! What is counted while the broker works, and the form in which it is told. [`names`] is the one list of metrics; the
//! counters are relaxed atomics, so that a request pays a handful of additions, takes no lock and allocates nothing.
//!
//! Knows nothing of what it counts: the owners of the numbers hold the counters, `http::metrics` reads them.

mod connections;
mod counters;
mod logs;
pub mod names;
mod process;
mod queues;
mod requests;
mod text;

pub use connections::{Closed, ConnectionCounters};
pub use counters::{Counter, Histogram};
pub use logs::LogCounters;
pub use names::Metric;
pub use process::ProcessUsage;
pub use queues::QueueCounters;
pub use requests::{ApiCounters, RequestCounters};
pub use text::Text;

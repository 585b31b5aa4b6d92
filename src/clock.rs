//! The only reader of wall time. Records, retention and coordinators take their time from here, so that a test (and one
//! day a user) can hold it still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, as Kafka's timestamps are.
pub type TimestampMs = i64;

/// Where a component takes "now" from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Steady {
        began_ms: TimestampMs,
        began: Instant,
    },
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// The machine's wall clock as it would go on from now if nobody set it: for sessions and other deadlines.
    pub fn steady(&self) -> Self {
        match &self.0 {
            Source::System => Self(Source::Steady { began_ms: self.now_ms(), began: Instant::now() }),
            Source::Steady { .. } | Source::Manual(_) => self.clone(),
        }
    }

    /// A clock that stands at `now_ms` until [`Clock::set`] moves it; clones share the hands.
    pub fn manual(now_ms: TimestampMs) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now_ms))))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> TimestampMs {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since_epoch| since_epoch.as_millis() as i64),
            Source::Steady { began_ms, began } => began_ms + began.elapsed().as_millis() as i64,
            Source::Manual(now) => now.load(Ordering::Acquire),
        }
    }

    /// Moves a manual clock (and all its clones); the others cannot be set and ignore it.
    pub fn set(&self, now_ms: TimestampMs) {
        if let Source::Manual(now) = &self.0 {
            now.store(now_ms, Ordering::Release);
        }
    }
}

//! The numbers of a queue in JSON.

use serde_json::{Value, json};

use crate::operations::{QueueCounts, QueueStats};
use crate::telemetry::{Histogram, QueueCounters};

/// Messages by what becomes of them next.
pub(super) fn counts(counts: &QueueCounts) -> Value {
    json!({ "ready": counts.ready, "in_flight": counts.in_flight, "delayed": counts.delayed })
}

/// What operators want to know beside that.
pub(super) fn all(stats: &QueueStats, counted: &QueueCounters, now_ms: i64) -> Value {
    json!({
        "dead": stats.dead,
        "dead_letters": stats.dead_letters,
        "oldest_age_ms": stats.oldest_ms.map(|oldest| now_ms.saturating_sub(oldest).max(0)),
        "waiting_receivers": stats.receivers,
        "receive_rate": rounded(stats.receive_rate),
        "retry_rate": rounded(stats.retry_rate),
        "sent": counted.sent.value(),
        "duplicates": counted.duplicates.value(),
        "received": counted.received.value(),
        "redelivered": counted.redelivered.value(),
        "empty_receives": counted.empty_receives.value(),
        "acknowledged": counted.acknowledged.value(),
        "released": counted.released.value(),
        "rejected": counted.rejected.value(),
        "dead_lettered": counted.dead_lettered.value(),
        "redriven": counted.redriven.value(),
        "dropped": counted.dropped.value(),
        "wait": times(&counted.wait),
        "processing": times(&counted.processing),
    })
}

fn rounded(rate: f64) -> f64 {
    (rate * 1e3).round() / 1e3
}

/// How long something took: quantiles are the ends of the histogram's buckets, null beyond the last.
fn times(histogram: &Histogram) -> Value {
    let ms = |duration: std::time::Duration| duration.as_micros() as f64 / 1e3;
    json!({
        "count": histogram.count(),
        "mean_ms": histogram.mean().map(ms),
        "p50_ms": histogram.quantile(0.5).map(ms),
        "p99_ms": histogram.quantile(0.99).map(ms),
    })
}

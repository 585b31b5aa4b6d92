//! What a run found, for people and for machines.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Measured;

const BYTES_PER_MB: f64 = 1e6;
const BYTES_PER_GB: f64 = 1e9;
/// Longest duration that is told apart from longer ones, ns.
const LATENCY_MAX_NS: u64 = 120_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// Durations, to three digits.
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS);
        Self(histogram.expect("bounds and digits are within what the histogram takes"))
    }
}

impl Latencies {
    /// Adds a duration.
    pub(super) fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds.min(LATENCY_MAX_NS));
    }

    /// Adds what another has recorded.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many were recorded.
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles; `None` if nothing was recorded.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        (self.count() > 0).then(|| Percentiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) })
    }
}

/// Microseconds.
#[derive(Serialize, Debug, PartialEq)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// Of `bench produce` and `bench fetch`.
#[derive(Serialize, Debug)]
pub(super) struct Throughput {
    /// Bytes of record batches.
    pub(super) bytes: u64,
    seconds: f64,
    mb_per_second: f64,
    pub(super) requests: u64,
    requests_per_second: f64,
    /// From just before a request was sent to its answer; `None` where there are no answers.
    pub(super) latency_us: Option<Percentiles>,
    server_cpu_seconds: Option<f64>,
    server_cpu_seconds_per_gb: Option<f64>,
}

impl Throughput {
    pub(super) fn of(measured: &Measured) -> Self {
        let seconds = measured.elapsed.as_secs_f64();
        let bytes = measured.bytes as f64;
        let server_cpu_seconds = measured.server_cpu.map(|cpu| cpu.as_secs_f64());
        Self {
            bytes: measured.bytes,
            seconds,
            mb_per_second: bytes / BYTES_PER_MB / seconds,
            requests: measured.requests,
            requests_per_second: measured.requests as f64 / seconds,
            latency_us: measured.latencies.percentiles(),
            server_cpu_seconds,
            server_cpu_seconds_per_gb: server_cpu_seconds.map(|cpu| cpu / (bytes / BYTES_PER_GB)),
        }
    }

    /// Leaves the latencies out: nothing was answered.
    pub(super) fn without_latency(self) -> Self {
        Self { latency_us: None, ..self }
    }
}

/// Of `bench latency`.
#[derive(Serialize, Debug)]
pub(super) struct Delivery {
    pub(super) deliveries: u64,
    pub(super) seconds: f64,
    /// From just before the produce was sent to the arrival of the fetch answer that holds it.
    pub(super) latency_us: Option<Percentiles>,
    pub(super) server_cpu_seconds: Option<f64>,
}

/// Of `bench queue`.
#[derive(Serialize, Debug)]
pub(super) struct Messages {
    /// Sent, received and deleted.
    pub(super) messages: u64,
    pub(super) seconds: f64,
    pub(super) messages_per_second: f64,
    pub(super) requests_per_second: f64,
    /// Of sending, receiving and deleting a batch; or from the sending of a message to its arrival at who waits for it.
    pub(super) latency_us: Option<Percentiles>,
    pub(super) messages_per_server_cpu_second: Option<f64>,
}

/// Of `bench commit`.
#[derive(Serialize, Debug)]
pub(super) struct Commits {
    /// Partitions in each.
    pub(super) partitions: u32,
    pub(super) commits: u64,
    pub(super) seconds: f64,
    /// From just before a commit was sent to its answer.
    pub(super) latency_us: Option<Percentiles>,
    pub(super) server_cpu_us_per_commit: Option<f64>,
}

impl Commits {
    pub(super) fn of(measured: &Measured, partitions: u32) -> Self {
        let per_commit = |cpu: Duration| cpu.as_secs_f64() * 1e6 / measured.requests.max(1) as f64;
        Self {
            partitions,
            commits: measured.requests,
            seconds: measured.elapsed.as_secs_f64(),
            latency_us: measured.latencies.percentiles(),
            server_cpu_us_per_commit: measured.server_cpu.map(per_commit),
        }
    }
}

/// Of `bench members`.
#[derive(Serialize, Debug)]
pub(super) struct Members {
    pub(super) members: u64,
    /// From the last join of a group to the last assignment of its members, of the slowest group.
    pub(super) stable_milliseconds: f64,
    pub(super) heartbeats: u64,
    /// Of one core, while the members did nothing but live.
    pub(super) server_cpu_share: Option<f64>,
    /// Memory that the server has taken for all of them, their connections included.
    pub(super) server_added_bytes: Option<u64>,
}

/// Of `bench start`.
#[derive(Serialize, Debug)]
pub(super) struct Start {
    /// What was waited for.
    pub(super) until: &'static str,
    /// From the start of the command, milliseconds.
    pub(super) milliseconds: f64,
}

/// Writes a report to stdout, as one line of JSON if `json`.
pub(super) fn print(report: &(impl Serialize + fmt::Display), json: bool) {
    let text = if json {
        serde_json::to_string(report).expect("a report is a struct of numbers and texts")
    } else {
        report.to_string()
    };
    // Whoever closes stdout does not want to know.
    let _: io::Result<()> = writeln!(io::stdout(), "{text}");
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} MB/s, {:.0} requests/s: {} bytes and {} requests in {:.3} s",
            self.mb_per_second, self.requests_per_second, self.bytes, self.requests, self.seconds
        )?;
        write_latency(f, "request to answer", self.latency_us.as_ref())?;
        if let (Some(cpu), Some(per_gb)) = (self.server_cpu_seconds, self.server_cpu_seconds_per_gb) {
            write!(f, "\nserver CPU: {cpu:.2} s, {per_gb:.3} s/GB")?;
        }
        Ok(())
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.deliveries as f64 / self.seconds;
        write!(f, "{} deliveries in {:.3} s, {per_second:.1} a second", self.deliveries, self.seconds)?;
        write_latency(f, "record to parked consumer", self.latency_us.as_ref())?;
        match self.server_cpu_seconds {
            Some(cpu) => write!(f, "\nserver CPU: {cpu:.2} s"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, seconds, messages_per_second, requests_per_second, .. } = self;
        write!(f, "{messages_per_second:.0} messages/s: {messages} in {seconds:.3} s; ")?;
        write!(f, "{requests_per_second:.0} requests/s")?;
        write_latency(f, "a round, or the way to who waits", self.latency_us.as_ref())?;
        match self.messages_per_server_cpu_second {
            Some(messages) => write!(f, "\n{messages:.0} messages per second of the server's CPU"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.commits as f64 / self.seconds;
        let Self { commits, partitions, seconds, .. } = self;
        write!(f, "{per_second:.0} commits/s of {partitions} partitions: {commits} in {seconds:.3} s")?;
        write_latency(f, "commit to answer", self.latency_us.as_ref())?;
        match self.server_cpu_us_per_commit {
            Some(cpu_us) => write!(f, "\nserver CPU: {cpu_us:.1} µs a commit"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { members, stable_milliseconds, heartbeats, .. } = self;
        write!(
            f,
            "{members} members, stable {stable_milliseconds:.1} ms after the last join; {heartbeats} heartbeats"
        )?;
        if let (Some(share), Some(bytes)) = (self.server_cpu_share, self.server_added_bytes) {
            let mib = bytes as f64 / f64::from(1 << 20);
            write!(f, "\nserver CPU: {:.2} % of a core, memory added: {mib:.1} MiB", share * 100.0)?;
        }
        Ok(())
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ms from start to {}", self.milliseconds, self.until)
    }
}

fn write_latency(f: &mut fmt::Formatter<'_>, what: &str, latency: Option<&Percentiles>) -> fmt::Result {
    match latency {
        Some(Percentiles { p50, p99, p999, max }) => {
            write!(f, "\n{what}: p50 {p50:.0} µs, p99 {p99:.0} µs, p999 {p999:.0} µs, max {max:.0} µs")
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(server_cpu: Option<Duration>) -> Measured {
        let mut latencies = Latencies::default();
        (1..=1_000).for_each(|us| latencies.record(Duration::from_micros(us)));
        Measured {
            elapsed: Duration::from_secs(2),
            bytes: 3_000_000_000,
            requests: 1_000,
            latencies,
            server_cpu,
        }
    }

    #[test]
    fn percentiles_are_microseconds_to_three_digits() {
        let mut both = Latencies::default();
        both.add(&measured(None).latencies);
        both.record(Duration::from_secs(1_000_000));
        let percentiles = both.percentiles().unwrap();
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected / 200.0;
        assert!(near(percentiles.p50, 500.0) && near(percentiles.p99, 990.0), "{percentiles:?}");
        // What is out of range counts as the longest that there is.
        assert!(near(percentiles.max, LATENCY_MAX_NS as f64 / 1e3), "{percentiles:?}");
        assert_eq!(Latencies::default().percentiles(), None);
    }

    #[test]
    fn rates_are_of_what_the_window_saw() {
        let report = Throughput::of(&measured(Some(Duration::from_millis(1_500))));
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        for (name, expected) in [
            ("bytes", 3e9),
            ("seconds", 2.0),
            ("mb_per_second", 1_500.0),
            ("requests_per_second", 500.0),
            ("server_cpu_seconds", 1.5),
            ("server_cpu_seconds_per_gb", 0.5),
        ] {
            assert_eq!(json[name].as_f64(), Some(expected), "{name}");
        }
        assert!(report.to_string().contains("server CPU: 1.50 s, 0.500 s/GB"), "{report}");
    }

    #[test]
    fn what_was_not_measured_is_not_told() {
        let report = Throughput::of(&measured(None)).without_latency();
        assert!(!report.to_string().contains("CPU") && !report.to_string().contains("p50"), "{report}");
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["latency_us"].is_null() && json["server_cpu_seconds_per_gb"].is_null());
    }
}

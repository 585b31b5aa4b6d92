//! `ottla bench latency`: how long a record takes from a producer to a consumer that already waits for it.
//!
//! One thread serves both sockets: it produces, waits at the consumer's socket, then takes the acknowledgement and parks
//! the consumer again, and never sleeps. So nothing of the driver's own runs beside what is measured, nor has to wake up.

use std::time::{Duration, Instant};

use clap::Args;

use super::fetch::{FETCH_VERSION, answered, request};
use super::report::{Delivery, Latencies};
use super::topic::{Batch, PRODUCE_VERSION, Topic, appended};
use super::{BatchFlags, BenchError, TargetFlags, WindowFlags, process};
use crate::cli::client::Frame;
use crate::protocol::messages::{Fetch, Produce};
use crate::record::Codec;

/// How long the consumer's fetch waits, ms.
const MAX_WAIT_MS: i32 = 10_000;
const FETCH_MAX_BYTES: i32 = 1 << 20;

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) target: TargetFlags,
    /// Batches to produce a second
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    record_bytes: u32,
    /// Records in a batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_records: u32,
    /// Compression: none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none", value_parser = crate::cli::codec)]
    codec: Codec,
    /// Whose acknowledgement the producer asks for: all or 1 (the leader's)
    #[arg(long, value_name = "all|1", default_value = "all", value_parser = acks_that_answer)]
    acks: i16,
    #[command(flatten)]
    window: WindowFlags,
}

/// # Errors
/// No broker, or one that refuses.
pub(super) fn measure(flags: &Flags) -> Result<Delivery, BenchError> {
    let batch = Batch::build(&BatchFlags {
        record_bytes: flags.record_bytes,
        batch_records: flags.batch_records,
        codec: flags.codec,
    })?;
    let topic = Topic::prepare(&flags.target.bootstrap, &flags.target.topic, 1)?;
    let mut producer = topic.connect(0)?.waiting_busily();
    let mut consumer = topic.connect(0)?.waiting_busily();
    let produce_version = producer.version_up_to::<Produce>(PRODUCE_VERSION)?;
    let fetch_version = consumer.version_up_to::<Fetch>(FETCH_VERSION)?;
    let produce = topic.produce_frame(produce_version, 0, flags.acks, &batch);
    let park_at = |offset: i64| {
        Frame::new::<Fetch>(fetch_version, &request(&topic.name, 0, offset, FETCH_MAX_BYTES, MAX_WAIT_MS))
    };

    // The first batch tells where the log ends.
    producer.send([&produce])?;
    let mut offset = appended(&producer.answer::<Produce>(produce_version)?)? + i64::from(batch.records);
    consumer.send([&park_at(offset)])?;

    let period = Duration::from_secs(1) / flags.rate;
    let mut latencies = Latencies::default();
    let mut window: Option<(Instant, Option<Duration>)> = None;
    let mut bytes = 0;
    let warm_from = Instant::now();
    let mut next = warm_from + period;
    loop {
        super::wait_busily_until(next);
        if window.is_none() && warm_from.elapsed() >= flags.window.warm_up {
            window = Some((Instant::now(), flags.window.pid.map(process::cpu_time).transpose()?));
        }
        let sent_at = Instant::now();
        producer.send([&produce])?;
        while answered(consumer.answer::<Fetch>(fetch_version)?)?.records.size_bytes() == 0 {
            consumer.send([&park_at(offset)])?;
        }
        let arrived_after = sent_at.elapsed();
        offset = appended(&producer.answer::<Produce>(produce_version)?)? + i64::from(batch.records);
        consumer.send([&park_at(offset)])?;
        // A late delivery delays the next record; it does not make several follow at once.
        next = (next + period).max(Instant::now());

        let Some((opened, cpu)) = window else { continue };
        latencies.record(arrived_after);
        bytes += batch.bytes.len() as u64;
        let is_over = match flags.window.bytes {
            Some(wanted) => bytes >= wanted,
            None => opened.elapsed() >= flags.window.seconds,
        };
        if is_over {
            let cpu_now = flags.window.pid.map(process::cpu_time).transpose()?;
            return Ok(Delivery {
                deliveries: latencies.count(),
                seconds: opened.elapsed().as_secs_f64(),
                latency_us: latencies.percentiles(),
                server_cpu_seconds: cpu_now.zip(cpu).map(|(now, before)| (now - before).as_secs_f64()),
            });
        }
    }
}

fn acks_that_answer(text: &str) -> Result<i16, &'static str> {
    match crate::cli::acks(text) {
        Ok(acks) if acks != 0 => Ok(acks),
        _ => Err("expected all or 1"),
    }
}

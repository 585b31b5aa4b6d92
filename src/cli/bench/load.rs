//! Load: a thread a connection (one thread for all, if they are many), each keeping a fixed number of requests in flight, and
//! a window over their progress in which things are counted. Nothing is built, and no record is touched, while the window is open.

use std::collections::VecDeque;
use std::iter::repeat_n;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::report::Latencies;
use super::{BenchError, WindowFlags, process};
use crate::cli::client::{Connection, Frame};
use crate::cli::interrupt::Interrupt;

/// How often the window looks at the progress.
const WATCH: Duration = Duration::from_millis(1);

/// More connections than this share a thread, which waits busily: that many sleepers would be woken for every answer, at the cost
/// of the server.
const OWN_THREADS_MAX: usize = 16;

/// A connection and its requests, which are sent over and over in this order.
pub(super) struct Lane {
    pub(super) client: Connection,
    pub(super) frames: Vec<Frame>,
}

/// How fast a lane sends.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// As fast as answers come, with so many requests in flight.
    InFlight(usize),
    /// One request after the other, each begun so long after the one before it; those that an answer was late for are sent
    /// as soon as it is there, and count as sent when they were due.
    Every(Duration),
}

/// What happened while the window was open.
pub(super) struct Measured {
    /// How long it was open.
    pub(super) elapsed: Duration,
    /// Bytes of record batches that went through.
    pub(super) bytes: u64,
    /// Requests answered.
    pub(super) requests: u64,
    /// From just before a request was sent to its answer.
    pub(super) latencies: Latencies,
    /// CPU that the server took, user and system, if its process was named.
    pub(super) server_cpu: Option<Duration>,
}

/// Runs all lanes until the window closes: early if the user asks for it. `take` waits for one answer and gives the bytes of
/// record batches that it stands for.
///
/// # Errors
/// The first failure of any lane.
pub(super) fn run(
    lanes: Vec<Lane>,
    pace: Pace,
    window: &WindowFlags,
    interrupt: &Interrupt,
    take: impl Fn(&mut Connection) -> Result<u64, BenchError> + Sync,
) -> Result<Measured, BenchError> {
    let progress = Progress::default();
    thread::scope(|scope| {
        let (progress, take) = (&progress, &take);
        let threads: Vec<_> = match pace {
            Pace::InFlight(requests) if lanes.len() > OWN_THREADS_MAX => {
                vec![scope.spawn(move || ended(progress, drive_in_turn(lanes, requests, progress, take)))]
            }
            _ => {
                let drive_one = move |Lane { mut client, frames }| {
                    let frames = frames.iter().cycle().take_while(|_| progress.phase() != Phase::Over);
                    ended(progress, drive(&mut client, frames, pace, progress, take))
                };
                lanes.into_iter().map(|lane| scope.spawn(move || drive_one(lane))).collect()
            }
        };
        let measured = watch(window, interrupt, progress);
        progress.enter(Phase::Over);
        let mut latencies = Latencies::default();
        for thread in threads {
            latencies.add(&thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        measured.map(|measured| Measured { latencies, ..measured })
    })
}

/// A thread that fails ends the load for all.
fn ended(progress: &Progress, driven: Result<Latencies, BenchError>) -> Result<Latencies, BenchError> {
    driven.inspect_err(|_| progress.enter(Phase::Over))
}

/// Sends `frames`, `in_flight` at a time, and waits for all answers: without a window.
///
/// # Errors
/// The first failure.
pub(super) fn send_all<'f>(
    client: &mut Connection,
    frames: impl Iterator<Item = &'f Frame>,
    in_flight: usize,
    take: impl Fn(&mut Connection) -> Result<u64, BenchError>,
) -> Result<(), BenchError> {
    drive(client, frames, Pace::InFlight(in_flight), &Progress::default(), &take).map(|_| ())
}

/// Where a load is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmingUp,
    Measuring,
    Over,
}

/// What the lanes and the window share.
#[derive(Default)]
struct Progress {
    phase: AtomicU8,
    bytes: AtomicU64,
    requests: AtomicU64,
}

impl Progress {
    fn phase(&self) -> Phase {
        [Phase::WarmingUp, Phase::Measuring, Phase::Over][usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Goes on to `phase`; what is over stays over.
    fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    fn answered(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

fn drive<'f>(
    client: &mut Connection,
    mut frames: impl Iterator<Item = &'f Frame>,
    pace: Pace,
    progress: &Progress,
    take: &impl Fn(&mut Connection) -> Result<u64, BenchError>,
) -> Result<Latencies, BenchError> {
    let (in_flight, period) = match pace {
        Pace::InFlight(requests) => (requests, None),
        Pace::Every(period) => (1, Some(period)),
    };
    let mut latencies = Latencies::default();
    let mut sent_at = VecDeque::with_capacity(in_flight);
    let mut due = Instant::now();
    loop {
        let sending_at = match period {
            None => Instant::now(),
            Some(period) => {
                due += period;
                wait_until(due - period)
            }
        };
        let sent = client.send(frames.by_ref().take(in_flight - sent_at.len()))?;
        sent_at.extend(repeat_n(sending_at, sent));
        // All answers that are here are taken before more is sent, so that what can go out together does.
        while let Some(sent_at) = sent_at.pop_front() {
            progress.answered(take(client)?);
            if progress.phase() == Phase::Measuring {
                latencies.record(sent_at.elapsed());
            }
            if !client.has_received() {
                break;
            }
        }
        if sent == 0 && sent_at.is_empty() {
            return Ok(latencies);
        }
    }
}

/// Drives all lanes by asking one after the other whether answers have come.
fn drive_in_turn(
    lanes: Vec<Lane>,
    in_flight: usize,
    progress: &Progress,
    take: &impl Fn(&mut Connection) -> Result<u64, BenchError>,
) -> Result<Latencies, BenchError> {
    let mut latencies = Latencies::default();
    let (mut clients, frames): (Vec<_>, Vec<_>) =
        lanes.into_iter().map(|Lane { client, frames }| (client.waiting_busily(), frames)).unzip();
    let mut frames: Vec<_> = frames.iter().map(|frames| frames.iter().cycle()).collect();
    let mut sent_at = vec![VecDeque::with_capacity(in_flight); clients.len()];
    while progress.phase() != Phase::Over || sent_at.iter().any(|sent_at| !sent_at.is_empty()) {
        for ((client, frames), sent_at) in clients.iter_mut().zip(&mut frames).zip(&mut sent_at) {
            while !sent_at.is_empty() && client.asks_whether_received()? {
                progress.answered(take(client)?);
                let sent: Instant = sent_at.pop_front().expect("one is awaited");
                if progress.phase() == Phase::Measuring {
                    latencies.record(sent.elapsed());
                }
            }
            if sent_at.len() < in_flight && progress.phase() != Phase::Over {
                let now = Instant::now();
                let sent = client.send(frames.take(in_flight - sent_at.len()))?;
                sent_at.extend(repeat_n(now, sent));
            }
        }
        // Whoever shares the core goes first.
        thread::yield_now();
    }
    Ok(latencies)
}

/// Sleeps until `due`, if that is still to come; since when whatever is sent next can be said to be under way. A late waking is
/// the driver's, not what is measured.
fn wait_until(due: Instant) -> Instant {
    match due.saturating_duration_since(Instant::now()) {
        Duration::ZERO => due,
        left => {
            thread::sleep(left);
            Instant::now()
        }
    }
}

/// A moment of a load.
struct Sample {
    at: Instant,
    bytes: u64,
    requests: u64,
    server_cpu: Option<Duration>,
}

/// Lets the load warm up, and measures it until it has run for as long or as far as asked.
fn watch(window: &WindowFlags, interrupt: &Interrupt, progress: &Progress) -> Result<Measured, BenchError> {
    let sample = || -> Result<Sample, BenchError> {
        Ok(Sample {
            server_cpu: window.pid.map(process::cpu_time).transpose()?,
            at: Instant::now(),
            bytes: progress.bytes.load(Ordering::Relaxed),
            requests: progress.requests.load(Ordering::Relaxed),
        })
    };
    let wait_until = |enough: &dyn Fn() -> bool| {
        while !enough() && !interrupt.is_asked() && progress.phase() != Phase::Over {
            thread::sleep(WATCH);
        }
    };
    let started = Instant::now();
    wait_until(&|| started.elapsed() >= window.warm_up);
    let first = sample()?;
    progress.enter(Phase::Measuring);
    wait_until(&|| match window.bytes {
        Some(bytes) => progress.bytes.load(Ordering::Relaxed) - first.bytes >= bytes,
        None => first.at.elapsed() >= window.seconds,
    });
    let last = sample()?;
    Ok(Measured {
        elapsed: last.at - first.at,
        bytes: last.bytes - first.bytes,
        requests: last.requests - first.requests,
        latencies: Latencies::default(),
        server_cpu: last.server_cpu.zip(first.server_cpu).map(|(last, first)| last - first),
    })
}

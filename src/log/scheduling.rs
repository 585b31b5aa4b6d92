//! Which thread the system prefers where several want the same core: niceness, which on Linux is a thread's own, and time slices,
//! which are how long a thread may have a core before the kernel looks who else wants it, and how soon it has its turn.

use std::io;
use std::time::Duration;

/// How much less nice a thread is while it commits than the rest of the process.
const URGENCY: i32 = 7;

/// For threads that sync: the shortest that the kernel gives. On a busy core they get their turn as soon as the disk has answered.
pub const SHORT_SLICE: Duration = Duration::from_micros(100);

/// For threads that compact: longer than the kernel's own (0.7 to 2.8 ms, by the number of cores), so that who has one of those and
/// wakes may take the core at once. Not much longer, since such a thread goes on for as long when it is its turn.
pub const LONG_SLICE: Duration = Duration::from_millis(6);

/// Makes the calling thread so much nicer than it is (to 19 at most): others come first.
///
/// # Errors
/// What the system said.
pub fn step_back(by: i32) -> io::Result<()> {
    set_niceness(niceness()? + by)
}

#[cfg(target_os = "linux")]
fn niceness() -> io::Result<i32> {
    Ok(rustix::process::getpriority_process(None)?)
}

#[cfg(target_os = "linux")]
fn set_niceness(niceness: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, niceness)?)
}

/// Elsewhere it is the process's.
#[cfg(not(target_os = "linux"))]
fn niceness() -> io::Result<i32> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn set_niceness(_niceness: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Asks the kernel for such time slices for the calling thread, which keeps its niceness. A kernel before 6.12 keeps all slices
/// alike.
///
/// # Errors
/// What the system said.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "no safe interface to sched_setattr; on one core a third more commits a second, see below"
)]
pub fn prefer_slice(slice: Duration) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: niceness()?,
        sched_priority: 0,
        sched_runtime: slice.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // Measured with 64 producers and the server on one core (`bench/storage`, commit): 40,000 batches a second instead of 25,000 to
    // 30,000, for the disk is told what to write next within microseconds, not after the slice of who answers requests. And with
    // the server on both cores, appends beside a compaction: p99 94 to 149 us, with the kernel's slices 142 to 416, in turn.
    //
    // SAFETY: thread 0 is the calling one, and the kernel only reads `size` bytes of the struct, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
pub fn prefer_slice(_slice: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What puts the calling thread before the others of the process while it commits, and back among them: clients wait for a commit,
/// and it needs the core for microseconds only. The system must allow it (`CAP_SYS_NICE`, `RLIMIT_NICE`), or all stays as it is.
///
/// A [short slice](SHORT_SLICE) of time is not enough. Who has just run owes that time to the others, and until they have had it, it
/// does not get the core when the disk answers; then nobody looks before they are done. On one core a commit so took 250 to 480 us
/// instead of 100; with four producers 20,000 batches are committed a second instead of 16,600 (`bench/storage`, commit, in turn).
#[derive(Debug)]
pub struct Precedence {
    /// Niceness without it; `None` where it is not to be had.
    usual: Option<i32>,
    is_first: bool,
}

impl Precedence {
    /// For the calling thread, which has none yet.
    pub fn new() -> Self {
        Self { usual: niceness().ok(), is_first: false }
    }

    /// Takes it, or gives it back.
    pub fn go_first(&mut self, is_first: bool) {
        let Some(usual) = self.usual.filter(|_| self.is_first != is_first) else { return };
        let wanted = if is_first { usual - URGENCY } else { usual };
        match set_niceness(wanted) {
            Ok(()) => self.is_first = is_first,
            Err(error) => {
                tracing::debug!(%error, "commits take their turn like the rest");
                self.usual = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_goes_before_the_others_if_it_may_and_then_among_them_again() {
        let here = niceness().unwrap();
        let may = std::thread::spawn(move || set_niceness(here - URGENCY).is_ok()).join().unwrap();
        let seen = std::thread::spawn(|| {
            let mut precedence = Precedence::new();
            [true, true, false, false, true].map(|is_first| {
                precedence.go_first(is_first);
                niceness().unwrap()
            })
        });
        let first = if may { here - URGENCY } else { here };
        assert_eq!(seen.join().unwrap(), [first, first, here, here, first]);
        assert_eq!(niceness().unwrap(), here);
    }
}

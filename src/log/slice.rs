//! Time slices: how long a thread may have a core before the kernel looks who else wants it, and how soon it has its turn.

use std::io;
use std::time::Duration;

/// For threads that sync: the shortest that the kernel gives. On a busy core they get their turn as soon as the disk has answered.
pub const SHORT: Duration = Duration::from_micros(100);

/// For threads that compact: longer than the kernel's own (0.7 to 2.8 ms, by the number of cores), so that who has one of those and
/// wakes may take the core at once. Not much longer, since such a thread goes on for as long when it is its turn.
pub const LONG: Duration = Duration::from_millis(6);

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
pub fn prefer(slice: Duration) -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
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

/// Other kernels have no such thing.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn prefer(_slice: Duration) -> io::Result<()> {
    Ok(())
}

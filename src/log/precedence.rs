//! Which thread the system prefers where several want the same core: niceness, which on Linux is a thread's own.

use std::io;

/// How much less nice a thread is while it commits than the rest of the process.
const URGENCY: i32 = 7;

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

/// What puts the calling thread before the others of the process while it commits, and back among them: clients wait for a commit,
/// and it needs the core for microseconds only. The system must allow it (`CAP_SYS_NICE`, `RLIMIT_NICE`), or all stays as it is.
///
/// A short slice of time is not enough. Who has just run owes that time to the others, and until they have had it, it does not get
/// the core when the disk answers; then nobody looks before they are done. On one core a commit so took 250 to 480 us instead of
/// 100; with four producers 20,000 batches are committed a second instead of 16,600 (`bench/storage`, commit, in turn).
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

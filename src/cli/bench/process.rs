//! What the system knows about the server's process.

use std::time::Duration;

use rustix::param::clock_ticks_per_second;

use super::BenchError;

/// CPU time that a process has taken so far, user and system, all threads together. Counted in the system's ticks, often
/// of 10 ms.
///
/// # Errors
/// There is no such process, or the system keeps no `/proc`.
pub(super) fn cpu_time(pid: u32) -> Result<Duration, BenchError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(|source| BenchError::Process { pid, source })?;
    let ticks =
        ticks(&stat).ok_or(BenchError::Process { pid, source: std::io::ErrorKind::InvalidData.into() })?;
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// Bytes of memory that a process has resident now.
///
/// # Errors
/// As [`cpu_time`].
pub(super) fn resident_bytes(pid: u32) -> Result<u64, BenchError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(|source| BenchError::Process { pid, source })?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes << 10)
        .ok_or(BenchError::Process { pid, source: std::io::ErrorKind::InvalidData.into() })
}

/// utime + stime of a line of proc_pid_stat(5): its fields 14 and 15. The name, field 2, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, from_state) = stat.rsplit_once(')')?;
    let mut times = from_state.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added_whatever_the_name() {
        let stat = "7 (a) (b 1) S 1 7 7 0 -1 4194304 98 0 0 0 250 31 5 6 20 0 1 0 1197 0 0";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (a) S 1 2"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn time_spent_here_counts() {
        let pid = std::process::id();
        let before = cpu_time(pid).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while cpu_time(pid).unwrap() <= before {
            assert!(std::time::Instant::now() < deadline);
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let message = cpu_time(u32::MAX).unwrap_err().to_string();
        assert!(message.contains("4294967295"), "{message}");
    }
}

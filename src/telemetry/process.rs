//! What the system says of this process: Prometheus' standard `process_…` metrics.

use std::fs;
use std::sync::OnceLock;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::{Text, names};

/// The process as `/proc` shows it. What a system does not show is left out of a scrape.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ProcessUsage {
    cpu_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
    open_files: Option<usize>,
    start_seconds: Option<f64>,
}

impl ProcessUsage {
    /// What it uses now.
    pub fn now() -> Option<Self> {
        let mut usage = Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
        usage.open_files = fs::read_dir("/proc/self/fd").ok().map(|files| {
            // One of them is the directory being read.
            files.count().saturating_sub(1)
        });
        Some(usage)
    }

    /// Reads a line of proc_pid_stat(5). The name, its field 2, may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let ticks_per_second = clock_ticks_per_second() as f64;
        let (_, from_state) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = from_state.split_whitespace().collect();
        // Numbered as the manual does, where the state is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks_per_second,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_size() as u64,
            open_files: None,
            start_seconds: boot_seconds().map(|boot| boot + field(22).unwrap_or(0) as f64 / ticks_per_second),
        })
    }

    /// Writes all that is known.
    pub fn write(&self, text: &mut Text) {
        text.single(&names::PROCESS_CPU_SECONDS, self.cpu_seconds);
        text.single(&names::PROCESS_VIRTUAL_BYTES, self.virtual_bytes);
        text.single(&names::PROCESS_RESIDENT_BYTES, self.resident_bytes);
        if let Some(open_files) = self.open_files {
            text.single(&names::PROCESS_OPEN_FILES, open_files);
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            text.single(&names::PROCESS_OPEN_FILES_LIMIT, limit);
        }
        if let Some(start) = self.start_seconds {
            text.single(&names::PROCESS_START_SECONDS, start);
        }
    }
}

/// When the machine started, seconds since the Unix epoch. Read once: it does not change, and is in a long file.
fn boot_seconds() -> Option<f64> {
    static BOOT: OnceLock<Option<f64>> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_name() {
        let stat = "7 (a) (b 1) S 1 7 7 0 -1 4194304 98 0 0 0 250 31 5 6 20 0 1 0 1197 5000000 30 0";
        let usage = ProcessUsage::parse(stat).unwrap();
        assert_eq!(usage.cpu_seconds, 281.0 / clock_ticks_per_second() as f64);
        assert_eq!((usage.virtual_bytes, usage.resident_bytes), (5_000_000, 30 * page_size() as u64));
        for short in ["", "7 (a)", "7 (a) S 1 2"] {
            assert_eq!(ProcessUsage::parse(short), None);
        }
    }

    #[test]
    fn this_process_runs_and_has_files_open() {
        let usage = ProcessUsage::now().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.virtual_bytes > usage.resident_bytes);
        assert!(usage.open_files.unwrap() >= 3);
        // After 2020, and not in the future.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((1_577_836_800.0..now + 2.0).contains(&usage.start_seconds.unwrap()));
    }
}

//! Room on the file system of a log directory: appends are refused a little before it is full, so that there is still some for
//! checkpoints, and for the deletions that make room.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::storage::Space;

/// Of what is left above the floor, this share may be appended before looking again: others write to the file system, too.
const SHARE: u64 = 4;

/// Most bytes that are appended between two looks.
const LOOK_AFTER_BYTES: u64 = 64 << 20;

/// Shortest time between two looks while there is no room.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Keeps a number of bytes free.
#[derive(Debug)]
pub struct SpaceGuard {
    floor_bytes: u64,
    /// Bytes that may be appended before looking again; below 0 it is time.
    budget_bytes: AtomicI64,
    last_look: Mutex<Look>,
    full: AtomicBool,
}

#[derive(Debug)]
struct Look {
    at: Option<Instant>,
    found_room: bool,
}

impl SpaceGuard {
    /// Keeps `floor_bytes` free; 0 for a guard that never looks.
    pub fn new(floor_bytes: u64) -> Self {
        Self {
            floor_bytes,
            budget_bytes: AtomicI64::new(0),
            last_look: Mutex::new(Look { at: None, found_room: true }),
            full: AtomicBool::new(false),
        }
    }

    /// Whether `bytes` more leave enough free. Mostly a subtraction; now and then it asks `look`.
    pub fn has_room(&self, bytes: usize, look: impl Fn() -> io::Result<Space>) -> bool {
        if self.floor_bytes == 0 {
            return true;
        }
        let bytes = bytes as u64;
        if self.budget_bytes.fetch_sub(bytes as i64, Ordering::Relaxed) >= bytes as i64 {
            return true;
        }
        let mut last = self.last_look.lock();
        if !last.found_room && last.at.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return false;
        }
        // A file system that does not tell is written to until it says that it is full.
        let usable = look().map_or(u64::MAX, |space| space.usable_bytes);
        let left = usable.saturating_sub(self.floor_bytes);
        *last = Look { at: Some(Instant::now()), found_room: left >= bytes };
        let budget = if last.found_room { (left / SHARE).min(LOOK_AFTER_BYTES) } else { 0 };
        self.budget_bytes.store(budget as i64, Ordering::Relaxed);
        last.found_room
    }

    /// Notes that an append was refused for want of space; whether that is new.
    pub fn refused(&self) -> bool {
        !self.full.swap(true, Ordering::Relaxed)
    }

    /// Notes that an append found space; whether that is new.
    pub fn took(&self) -> bool {
        self.full.load(Ordering::Relaxed) && self.full.swap(false, Ordering::Relaxed)
    }

    /// Whether the last append was refused for want of space.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_floor_stays_free_and_looks_are_few() {
        let guard = SpaceGuard::new(1_000_000);
        let usable = Cell::new(3_000_000_u64);
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            Ok(Space { total_bytes: 10_000_000, usable_bytes: usable.get() })
        };
        let mut taken = 0;
        while guard.has_room(1000, look) {
            usable.set(usable.get() - 1000);
            taken += 1;
        }
        assert!((1_000_000..1_001_000).contains(&usable.get()), "{}", usable.get());
        assert!(looks.get() < taken / 10, "{} looks for {taken}", looks.get());
        let before = looks.get();
        assert!(!guard.has_room(1000, look));
        assert_eq!(looks.get(), before, "not at each refusal");
        usable.set(5_000_000);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !guard.has_room(1000, look) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn without_a_floor_or_a_system_that_tells_everything_fits() {
        let silent = || Err(io::ErrorKind::Unsupported.into());
        assert!(SpaceGuard::new(0).has_room(usize::MAX, silent));
        assert!(SpaceGuard::new(1000).has_room(1 << 30, silent));
    }

    #[test]
    fn a_change_is_told_once() {
        let guard = SpaceGuard::new(0);
        assert_eq!(
            (guard.took(), guard.refused(), guard.refused(), guard.is_full()),
            (false, true, false, true)
        );
        assert_eq!((guard.took(), guard.took(), guard.is_full()), (true, false, false));
    }
}

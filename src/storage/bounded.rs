//! A disk of which only so many files are open at once. A handle outlives its descriptor: the one that has been idle for longest
//! is closed to make room, and opened again by its next use.
//!
//! A file is closed only when nobody is using it and nothing in it waits for a sync: an error of writing it back would be
//! reported to nobody. If all that are idle have something unsynced, the oldest one is synced first. A handle finds its file by
//! the name under which it was opened: who renames a file goes on by a new handle.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;

use super::{Disk, DiskFile, Entry, FileStatus, Lock, Space};
use crate::record::range::RangeFile;

/// Of the files that are open at the limit, this share is closed at once, so that not each opening has to look for one.
const CLOSED_AT_ONCE: usize = 8;

/// Shortest time between two rounds of [`Disk::close_idle`]: what nobody uses from one to the next is closed.
const IDLE_ROUND: Duration = Duration::from_secs(30);

/// Another disk, with a limit on the files that are open. Clones share it.
#[derive(Clone, Debug)]
pub struct BoundedDisk {
    disk: Arc<dyn Disk>,
    files: Arc<OpenFiles>,
}

/// The files that are open.
#[derive(Debug)]
struct OpenFiles {
    limit: usize,
    open: AtomicUsize,
    /// Counts openings and rounds: what a handle notes as the moment of its last use.
    moment: AtomicU64,
    /// Every open file, and some that no longer are.
    table: Mutex<Vec<Weak<BoundedFile>>>,
    last_round: Mutex<Round>,
}

#[derive(Debug)]
struct Round {
    at: Instant,
    moment: u64,
}

impl BoundedDisk {
    /// Keeps at most `limit` files of `disk` open (at least one), besides those that are in use at the moment.
    pub fn new(disk: Arc<dyn Disk>, limit: usize) -> Self {
        let files = OpenFiles {
            limit: limit.max(1),
            open: AtomicUsize::new(0),
            moment: AtomicU64::new(0),
            table: Mutex::default(),
            last_round: Mutex::new(Round { at: Instant::now(), moment: 0 }),
        };
        Self { disk, files: Arc::new(files) }
    }

    /// Files open now.
    pub fn open_files(&self) -> usize {
        self.files.open.load(Ordering::Relaxed)
    }

    /// Files that may be open.
    pub fn open_files_limit(&self) -> usize {
        self.files.limit
    }

    /// Does what takes a descriptor; when the process has none left, once more with fewer files open.
    fn with_descriptor<T>(&self, act: impl Fn(&dyn Disk) -> io::Result<T>) -> io::Result<T> {
        match act(&*self.disk) {
            Err(error) if is_out_of_descriptors(&error) && self.files.close_some() => act(&*self.disk),
            result => result,
        }
    }

    fn handle(
        &self,
        path: &Path,
        open: impl Fn(&dyn Disk) -> io::Result<Arc<dyn DiskFile>>,
    ) -> io::Result<Arc<dyn DiskFile>> {
        self.files.make_room();
        let file = self.with_descriptor(open)?;
        let handle = Arc::new_cyclic(|this| BoundedFile {
            this: Weak::clone(this),
            path: path.to_owned(),
            disk: self.clone(),
            slot: RwLock::new(None),
            used: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            synced_changes: AtomicU64::new(0),
            was_synced: AtomicBool::new(false),
            failure: AtomicI32::new(0),
        });
        handle.hold(&mut handle.slot.write(), &file);
        Ok(handle)
    }
}

/// Whether an error says that this process, or the machine, has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

impl OpenFiles {
    /// Closes the longest idle files if the limit is reached.
    fn make_room(&self) {
        self.moment.fetch_add(1, Ordering::Relaxed);
        if self.open.load(Ordering::Relaxed) >= self.limit && !self.close_some() {
            // Not with the table locked: others need not wait for the disk.
            if let Some(oldest) = self.oldest_unsynced() {
                // Its own next sync tells of a failure.
                let _: io::Result<()> = oldest.sync_data();
                oldest.close();
            }
        }
    }

    /// Closes the longest idle files until there is room for some; whether any was closed.
    fn close_some(&self) -> bool {
        let files = self.by_use();
        let wanted = (self.limit / CLOSED_AT_ONCE).max(1);
        let spare = self.limit.saturating_sub(self.open.load(Ordering::Relaxed));
        files.iter().filter(|file| file.close()).take(wanted.saturating_sub(spare).max(1)).count() > 0
    }

    fn oldest_unsynced(&self) -> Option<Arc<BoundedFile>> {
        self.by_use().into_iter().find(|file| file.is_idle() && !file.is_clean())
    }

    /// The open files, the longest unused first.
    fn by_use(&self) -> Vec<Arc<BoundedFile>> {
        let mut files: Vec<_> = {
            let mut table = self.table.lock();
            table.retain(|file| file.strong_count() > 0);
            table.iter().filter_map(Weak::upgrade).filter(|file| file.is_open()).collect()
        };
        files.sort_by_cached_key(|file| file.used.load(Ordering::Relaxed));
        files
    }

    fn close_idle(&self) {
        let before = {
            let mut last = self.last_round.lock();
            if last.at.elapsed() < IDLE_ROUND {
                return;
            }
            let moment = self.moment.fetch_add(1, Ordering::Relaxed) + 1;
            std::mem::replace(&mut *last, Round { at: Instant::now(), moment }).moment
        };
        self.close_unused_since(before);
    }

    /// Closes what was not used at `moment` or later.
    fn close_unused_since(&self, moment: u64) {
        let unused = |file: &Arc<BoundedFile>| file.used.load(Ordering::Relaxed) < moment;
        self.by_use().iter().take_while(|file| unused(file)).for_each(|file| {
            file.close();
        });
        let mut table = self.table.lock();
        table.retain(|file| file.upgrade().is_some_and(|file| file.is_open()));
        table.shrink_to_fit();
    }
}

impl Disk for BoundedDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.handle(path, |disk| disk.open(path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.handle(path, |disk| disk.create(path))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.with_descriptor(|disk| disk.try_lock(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn link(&self, existing: &Path, name: &Path) -> io::Result<()> {
        self.disk.link(existing, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with_descriptor(|disk| disk.remove_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.with_descriptor(|disk| disk.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.with_descriptor(|disk| disk.sync_dir(path))
    }

    fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.with_descriptor(|disk| disk.sync_all(path))
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        self.disk.status(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        self.with_descriptor(|disk| disk.boot_id())
    }

    fn close_idle(&self) {
        self.files.close_idle();
    }
}

/// A file that may be closed while nobody uses it.
#[derive(Debug)]
struct BoundedFile {
    this: Weak<Self>,
    path: PathBuf,
    disk: BoundedDisk,
    slot: RwLock<Option<Arc<dyn DiskFile>>>,
    /// See [`OpenFiles::moment`].
    used: AtomicU64,
    /// Counted when they have been made: until then their maker holds the file.
    changes: AtomicU64,
    synced_changes: AtomicU64,
    /// Whether it was synced since it was opened first: then all that was in it before is on the disk, too.
    was_synced: AtomicBool,
    /// What a sync that nobody asked for has failed with; 0 for none.
    failure: AtomicI32,
}

impl BoundedFile {
    /// The open file; whoever has it keeps it from being closed.
    fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.used.store(self.disk.files.moment.load(Ordering::Relaxed), Ordering::Relaxed);
        if let Some(file) = &*self.slot.read() {
            return Ok(Arc::clone(file));
        }
        self.disk.files.make_room();
        let mut slot = self.slot.write();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.with_descriptor(|disk| disk.open(&self.path))?;
        self.hold(&mut slot, &file);
        Ok(file)
    }

    fn hold(&self, slot: &mut Option<Arc<dyn DiskFile>>, file: &Arc<dyn DiskFile>) {
        let files = &self.disk.files;
        *slot = Some(Arc::clone(file));
        self.used.store(files.moment.load(Ordering::Relaxed), Ordering::Relaxed);
        files.open.fetch_add(1, Ordering::Relaxed);
        files.table.lock().push(Weak::clone(&self.this));
    }

    fn changed<T>(&self, change: impl FnOnce(&dyn DiskFile) -> io::Result<T>) -> io::Result<T> {
        let file = self.file()?;
        let result = change(&*file);
        self.changes.fetch_add(1, Ordering::Release);
        result
    }

    fn is_open(&self) -> bool {
        self.slot.try_read().is_none_or(|slot| slot.is_some())
    }

    fn is_idle(&self) -> bool {
        self.slot
            .try_read()
            .is_some_and(|slot| slot.as_ref().is_some_and(|file| Arc::strong_count(file) == 1))
    }

    fn is_clean(&self) -> bool {
        self.synced_changes.load(Ordering::Acquire) >= self.changes.load(Ordering::Acquire)
    }

    /// Closes it unless it is in use or has something unsynced; whether it did.
    fn close(&self) -> bool {
        let Some(mut slot) = self.slot.try_write() else { return false };
        let idle = slot.as_ref().is_some_and(|file| Arc::strong_count(file) == 1);
        if !idle || !self.is_clean() {
            return false;
        }
        *slot = None;
        self.disk.files.open.fetch_sub(1, Ordering::Relaxed);
        true
    }

    fn is_closed_for_good(&self) -> bool {
        self.was_synced.load(Ordering::Acquire) && self.slot.read().is_none()
    }
}

impl Drop for BoundedFile {
    fn drop(&mut self) {
        if self.slot.get_mut().is_some() {
            self.disk.files.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl RangeFile for BoundedFile {
    /// See [`DiskFile::pin`].
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file()?.read_at(buffer, position)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file()?.read_cached_at(buffer, position)
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        // Who reads what cannot be opened learns why.
        self.file().is_ok_and(|file| file.is_cached(position, length))
    }
}

impl DiskFile for BoundedFile {
    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.changed(|file| file.write_vectored_at(parts, position))
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.failure.load(Ordering::Acquire) {
            0 => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
        if self.is_closed_for_good() {
            // It was closed when all of it was on the disk, and would have been opened by a change.
            return Ok(());
        }
        let file = self.file()?;
        let covered = self.changes.load(Ordering::Acquire);
        file.sync_data().inspect_err(|error| {
            let code = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            self.failure.store(code, Ordering::Release);
        })?;
        self.synced_changes.fetch_max(covered, Ordering::AcqRel);
        self.was_synced.store(true, Ordering::Release);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.changed(|file| file.set_len(length))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.changed(|file| file.allocate(length))
    }

    fn reserve(&self, position: u64, bytes: u64) -> io::Result<()> {
        self.changed(|file| file.reserve(position, bytes))
    }

    fn length(&self) -> io::Result<u64> {
        self.file()?.length()
    }

    fn pin(self: Arc<Self>) -> io::Result<Arc<dyn RangeFile>> {
        self.file()?.pin()
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulated::SimulatedDisk;
    use super::super::{StdDisk, read_exact_at, write_all_at};
    use super::*;

    fn write(file: &dyn DiskFile, bytes: &[u8], position: u64) {
        write_all_at(file, &mut [IoSlice::new(bytes)], position).unwrap();
    }

    fn read(file: &dyn RangeFile, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        read_exact_at(file, &mut bytes, 0).unwrap();
        bytes
    }

    fn path(number: usize) -> PathBuf {
        PathBuf::from(format!("/{number}"))
    }

    #[test]
    fn a_hundred_files_are_used_with_ten_open() {
        let folder = tempfile::tempdir().unwrap();
        let disk = BoundedDisk::new(Arc::new(StdDisk), 10);
        let files: Vec<_> = (0..100)
            .map(|number| {
                let file = disk.create(&folder.path().join(number.to_string())).unwrap();
                write(&*file, format!("{number:03}").as_bytes(), 0);
                file.sync_data().unwrap();
                assert!(disk.open_files() <= 10, "{}", disk.open_files());
                file
            })
            .collect();
        for round in 0..3 {
            for (number, file) in files.iter().enumerate() {
                assert_eq!(read(&**file, 3), format!("{number:03}").as_bytes());
                write(&**file, b"+", 3 + round);
                file.sync_data().unwrap();
                assert_eq!(file.length().unwrap(), 4 + round);
                assert!(disk.open_files() <= 10);
            }
        }
        drop(files);
        assert_eq!(disk.open_files(), 0);
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let simulated = SimulatedDisk::default();
        let disk = BoundedDisk::new(Arc::new(simulated.clone()), 8);
        let files: Vec<_> = (0..8).map(|number| disk.create(&path(number)).unwrap()).collect();
        for number in [3, 0, 1, 2, 4, 5, 6, 7] {
            disk.files.moment.fetch_add(1, Ordering::Relaxed);
            files[number].length().unwrap();
        }
        let _one_more = disk.create(&path(8)).unwrap();
        assert_eq!(disk.open_files(), 8);
        let before = simulated.opens();
        [0, 1, 2, 4, 5, 6, 7].iter().for_each(|number| assert!(files[*number].length().is_ok()));
        assert_eq!(simulated.opens(), before);
        files[3].length().unwrap();
        assert_eq!(simulated.opens(), before + 1);
    }

    #[test]
    fn what_is_in_use_stays_open() {
        let disk = BoundedDisk::new(Arc::new(SimulatedDisk::default()), 2);
        let files: Vec<_> = (0..6).map(|number| disk.create(&path(number)).unwrap()).collect();
        assert_eq!(disk.open_files(), 2);
        let pinned: Vec<_> = files.iter().map(|file| Arc::clone(file).pin().unwrap()).collect();
        assert_eq!(disk.open_files(), 6, "a limit that nothing can keep is passed");
        drop(pinned);
        drop(disk.open(&path(0)).unwrap());
        assert!(disk.open_files() < 6);
    }

    #[test]
    fn what_is_unsynced_is_synced_before_it_is_closed_and_a_failure_is_told() {
        let simulated = SimulatedDisk::default();
        let disk = BoundedDisk::new(Arc::new(simulated.clone()), 2);
        let files: Vec<_> = (0..5)
            .map(|number| {
                let file = disk.create(&path(number)).unwrap();
                write(&*file, b"bytes", 0);
                file
            })
            .collect();
        assert!(disk.open_files() <= 2);
        assert_eq!(simulated.file_syncs(), 3, "each that had to go, and no other");
        // What is closed has been synced: there is nothing to open it for.
        let opens = simulated.opens();
        files[0].sync_data().unwrap();
        assert_eq!((simulated.file_syncs(), simulated.opens()), (3, opens));

        simulated.fail_syncs(Errno::IO);
        let more = disk.create(&path(5)).unwrap();
        assert!(disk.open_files() > 2, "what cannot be synced is not closed");
        simulated.mend_syncs();
        let failed: Vec<_> = files.iter().filter(|file| file.sync_data().is_err()).collect();
        assert_eq!(failed.len(), 1, "a failed sync stays one, whoever it was for");
        drop(more);
    }

    #[test]
    fn what_another_process_wrote_is_synced_though_it_was_closed_meanwhile() {
        let simulated = SimulatedDisk::default();
        write(&*simulated.create(&path(0)).unwrap(), b"bytes", 0);
        let disk = BoundedDisk::new(Arc::new(simulated.clone()), 1);
        let found = disk.open(&path(0)).unwrap();
        let _other = disk.create(&path(1)).unwrap();
        assert_eq!(disk.open_files(), 1);
        found.sync_data().unwrap();
        assert_eq!(simulated.file_syncs(), 1);
    }

    #[test]
    fn what_nobody_uses_for_a_round_is_closed() {
        let disk = BoundedDisk::new(Arc::new(SimulatedDisk::default()), 1000);
        let files: Vec<_> = (0..100).map(|number| disk.create(&path(number)).unwrap()).collect();
        write(&*files[99], b"unsynced", 0);
        let moment = disk.files.moment.fetch_add(1, Ordering::Relaxed) + 1;
        files[..3].iter().for_each(|file| assert!(file.length().is_ok()));
        disk.files.close_unused_since(moment);
        assert_eq!(disk.open_files(), 4);
        disk.close_idle();
        assert_eq!(disk.open_files(), 4, "a round comes not before its time");
    }

    #[test]
    fn when_the_process_has_no_descriptor_left_files_are_closed_for_it() {
        let simulated = SimulatedDisk::default();
        let disk = BoundedDisk::new(Arc::new(simulated.clone()), 1000);
        let files: Vec<_> = (0..10).map(|number| disk.create(&path(number)).unwrap()).collect();
        simulated.fail_opens(1, Errno::MFILE);
        disk.open(&path(3)).unwrap();
        assert_eq!(disk.open_files(), 9);
        simulated.fail_opens(1, Errno::MFILE);
        disk.sync_dir(Path::new("/")).unwrap();
        simulated.fail_opens(10, Errno::MFILE);
        assert!(is_out_of_descriptors(&disk.open(&path(3)).unwrap_err()));
        drop(files);
    }

    #[test]
    fn many_threads_read_and_write_while_files_come_and_go() {
        let disk = BoundedDisk::new(Arc::new(SimulatedDisk::default()), 4);
        let files: Vec<_> = (0..16).map(|number| disk.create(&path(number)).unwrap()).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let files = &files;
                scope.spawn(move || {
                    for turn in 0..500_u64 {
                        let file = &files[(turn as usize * 7 + thread) % 16];
                        write(&**file, &turn.to_be_bytes(), thread as u64 * 8);
                        assert!(read(&**file, 1).len() == 1);
                        if turn % 3 == 0 {
                            file.sync_data().unwrap();
                        }
                    }
                });
            }
        });
        files.iter().for_each(|file| file.sync_data().unwrap());
        disk.files.close_unused_since(u64::MAX);
        assert_eq!(disk.open_files(), 0);
    }
}

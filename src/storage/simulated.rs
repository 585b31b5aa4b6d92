//! A file system in memory that keeps two states: what the running machine sees, and what would be left after a power cut.
//! Bytes become durable by syncing their file, names by syncing their folder, as POSIX has it and no better.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::thread::ThreadId;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::{Disk, DiskFile, Entry, FileStatus, Lock, Space};
use crate::record::range::RangeFile;

/// Cheap to clone; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Arc<Machine>);

#[derive(Debug)]
struct Machine {
    tree: Mutex<Tree>,
    faults: Mutex<Faults>,
    syncs_released: Condvar,
}

#[derive(Debug)]
struct Tree {
    /// Folders and files by number; number 0 is the root. Names point to numbers, so a renamed folder takes its content
    /// along. Numbers are never reused: disks of tests are small.
    nodes: Vec<Node>,
    locks: BTreeSet<PathBuf>,
    boots: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Folder(Folder),
    File(Arc<SimulatedFile>),
}

#[derive(Clone, Debug, Default)]
struct Folder {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
}

/// What goes wrong from now on.
#[derive(Debug, Default)]
struct Faults {
    /// Bytes that can still be written before writes fail with the error.
    write_limit: Option<(u64, Errno)>,
    sync_error: Option<Errno>,
    /// Changes that can still be made before all of them fail.
    changes_left: Option<usize>,
    /// How many openings (of folders for syncing, too) fail, and with what.
    open_error: Option<(usize, Errno)>,
    /// After how many looks (openings, lists, reads, lengths) how many fail, and with what.
    look_error: Option<(usize, usize, Errno)>,
    /// A folder whose disk has failed: nothing below it can be opened, written, synced or listed.
    broken: Option<(PathBuf, Errno)>,
    /// What is left to be written, for who asks beforehand; `None` for plenty.
    usable_bytes: Option<u64>,
    write_bytes_max: Option<usize>,
    /// How many syncs may still begin before they have to wait, and whose never do.
    syncs_let: Option<(usize, Option<ThreadId>)>,
    syncs_waiting: usize,
    /// Whether all that is read has to come from the disk.
    is_cold: bool,
    /// What takes place before a file is next looked for by this name.
    meanwhile: Option<(PathBuf, Meanwhile)>,
    file_syncs: u64,
    writes: u64,
    opens: u64,
}

/// What another thread does.
struct Meanwhile(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        let tree = Tree { nodes: vec![Node::Folder(Folder::default())], locks: BTreeSet::new(), boots: 1 };
        Self(Arc::new(Machine {
            tree: Mutex::new(tree),
            faults: Mutex::default(),
            syncs_released: Condvar::new(),
        }))
    }
}

impl SimulatedDisk {
    /// The machine dies and starts again: of what was written since a file's last sync, a random run of the first writes is
    /// left, the last of them torn at a random byte; of the names changed since a folder's last sync, random ones are
    /// back as they were. Files that are open go on existing for who has them, but no longer reach the disk.
    pub fn power_cut(&self, seed: u64) {
        self.lose_power(Some(fastrand::Rng::with_seed(seed)), SimulatedFile::after_power_cut);
    }

    /// The same, and everything is lost that was not synced.
    pub fn power_cut_at_its_worst(&self) {
        self.lose_power(None, SimulatedFile::after_power_cut);
    }

    /// As [`Self::power_cut`], but what was written since a file's last sync reached the disk in any order: a random choice of
    /// the writes is left, each whole or torn.
    pub fn power_cut_out_of_order(&self, seed: u64) {
        self.lose_power(Some(fastrand::Rng::with_seed(seed)), SimulatedFile::after_reordered_power_cut);
    }

    fn lose_power(
        &self,
        mut random: Option<fastrand::Rng>,
        left: fn(&SimulatedFile, Option<&mut fastrand::Rng>) -> SimulatedFile,
    ) {
        let mut tree = self.0.tree.lock();
        tree.boots += 1;
        tree.locks.clear();
        for node in &mut tree.nodes {
            match node {
                Node::Folder(folder) => folder.lose_unsynced(random.as_mut()),
                Node::File(file) => *file = Arc::new(left(file, random.as_mut())),
            }
        }
        drop(tree);
        *self.0.faults.lock() = Faults::default();
        self.0.syncs_released.notify_all();
    }

    /// From now on syncs of files wait until [`Self::release_syncs`].
    pub fn hold_syncs(&self) {
        self.0.faults.lock().syncs_let = Some((0, None));
    }

    /// The same after `count` more, of threads other than the caller's.
    pub fn hold_syncs_of_others_after(&self, count: usize) {
        self.0.faults.lock().syncs_let = Some((count, Some(std::thread::current().id())));
    }

    /// Lets the waiting syncs, and all later ones, go on.
    pub fn release_syncs(&self) {
        self.0.faults.lock().syncs_let = None;
        self.0.syncs_released.notify_all();
    }

    /// How many syncs wait for [`Self::release_syncs`] at this moment.
    pub fn syncs_waiting(&self) -> usize {
        self.0.faults.lock().syncs_waiting
    }

    /// How many syncs of files have ended well so far.
    pub fn file_syncs(&self) -> u64 {
        self.0.faults.lock().file_syncs
    }

    /// How many calls have written to a file so far.
    pub fn writes(&self) -> u64 {
        self.0.faults.lock().writes
    }

    /// How many files and folders have been opened or listed so far.
    pub fn opens(&self) -> u64 {
        self.0.faults.lock().opens
    }

    /// Cuts a file to `length` bytes, durably.
    pub fn cut(&self, path: &Path, length: usize) -> io::Result<()> {
        let file = self.0.tree.lock().file(path)?;
        let mut content = file.content.lock();
        content.seen.truncate(length);
        content.durable = content.seen.clone();
        content.synced += content.unsynced.len();
        content.unsynced.clear();
        Ok(())
    }

    /// Writes fail with `error` after `bytes` more; the write that reaches the limit is cut short there.
    pub fn fail_writes_after(&self, bytes: u64, error: Errno) {
        self.0.faults.lock().write_limit = Some((bytes, error));
    }

    /// Writes work again.
    pub fn mend_writes(&self) {
        self.0.faults.lock().write_limit = None;
    }

    /// Syncs of files fail with `error` from now on.
    pub fn fail_syncs(&self, error: Errno) {
        self.0.faults.lock().sync_error = Some(error);
    }

    /// After `count` more, all changes of files and names, and all syncs, fail until [`Self::mend_changes`]: for dying at each of
    /// them.
    pub fn fail_changes_after(&self, count: usize) {
        self.0.faults.lock().changes_left = Some(count);
    }

    /// Changes work again; whether any has failed.
    pub fn mend_changes(&self) -> bool {
        self.0.faults.lock().changes_left.take() == Some(0)
    }

    /// Syncs work again.
    pub fn mend_syncs(&self) {
        self.0.faults.lock().sync_error = None;
    }

    /// The next `count` openings of files, and of folders to sync or list, fail with `error`.
    pub fn fail_opens(&self, count: usize, error: Errno) {
        self.0.faults.lock().open_error = Some((count, error));
    }

    /// After `skipped` more, `count` looks fail with `error`: openings of existing files, listings, readings of bytes, lengths and
    /// ages.
    pub fn fail_looks(&self, skipped: usize, count: usize, error: Errno) {
        self.0.faults.lock().look_error = Some((skipped, count, error));
    }

    /// Whether nothing of what files have is in memory.
    pub fn set_cold(&self, is_cold: bool) {
        self.0.faults.lock().is_cold = is_cold;
    }

    /// Has `event` take place, once, when the file at `path` is next opened or asked for its status, just before its name is
    /// looked up: as if another thread had been that much quicker.
    pub fn before_finding(&self, path: &Path, event: impl FnOnce() + Send + 'static) {
        self.0.faults.lock().meanwhile = Some((path.to_owned(), Meanwhile(Box::new(event))));
    }

    /// What `look` finds, as if looks did not fail.
    pub fn without_faults<T>(&self, look: impl FnOnce() -> T) -> T {
        let set_aside = self.0.faults.lock().look_error.take();
        let found = look();
        self.0.faults.lock().look_error = set_aside;
        found
    }

    /// Whatever is done to files and names below `folder` fails with `error` from now on, as when its disk has died.
    pub fn fail_below(&self, folder: &Path, error: Errno) {
        self.0.faults.lock().broken = Some((folder.to_owned(), error));
    }

    /// The disk that had failed works again.
    pub fn mend_below(&self) {
        self.0.faults.lock().broken = None;
    }

    /// What [`Disk::space`] says is left; writes are not held to it.
    pub fn set_usable_bytes(&self, bytes: u64) {
        self.0.faults.lock().usable_bytes = Some(bytes);
    }

    /// Notes that `path` is to be opened, which may fail.
    fn open_something(&self, path: &Path) -> io::Result<()> {
        self.0.check(path)?;
        match &mut self.0.faults.lock().open_error {
            Some((left @ 1.., error)) => {
                *left -= 1;
                Err((*error).into())
            }
            _ => Ok(()),
        }
    }

    /// A write takes at most `bytes` from now on: who writes has to go on with the rest.
    pub fn shorten_writes(&self, bytes: usize) {
        self.0.faults.lock().write_bytes_max = Some(bytes.max(1));
    }

    /// Nothing goes wrong any more, and held syncs go on.
    pub fn mend(&self) {
        let mut faults = self.0.faults.lock();
        (faults.write_limit, faults.sync_error, faults.write_bytes_max) = (None, None, None);
        (faults.look_error, faults.changes_left) = (None, None);
        drop(faults);
        self.release_syncs();
    }

    /// Makes it the time at which a file was last written.
    pub fn set_modified(&self, path: &Path, modified_ms: i64) -> io::Result<()> {
        self.0.tree.lock().file(path)?.content.lock().modified_ms = modified_ms;
        Ok(())
    }

    /// Flips the bits of `mask` in the byte at `position`, at rest: in what is seen and in what is durable.
    pub fn flip(&self, path: &Path, position: usize, mask: u8) -> io::Result<()> {
        let file = self.0.tree.lock().file(path)?;
        let mut content = file.content.lock();
        content.seen[position] ^= mask;
        if let Some(byte) = content.durable.get_mut(position) {
            *byte ^= mask;
        }
        // What is synced later is what is seen now.
        for change in &mut content.unsynced {
            if let Change::Write { position: from, bytes } = change
                && let Some(byte) = position.checked_sub(*from).and_then(|at| bytes.get_mut(at))
            {
                *byte ^= mask;
            }
        }
        Ok(())
    }

    /// The bytes of a file as the running machine sees them.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.tree.lock().file(path)?.content.lock().seen.clone())
    }

    /// An independent copy of the disk as the running machine sees it, all of it durable, for trying one thing many ways.
    pub fn copy(&self) -> Self {
        let source = self.0.tree.lock();
        let copy = Self::default();
        let mut target = copy.0.tree.lock();
        target.boots = source.boots;
        target.nodes.clear();
        for node in &source.nodes {
            target.nodes.push(match node {
                Node::Folder(folder) => {
                    Node::Folder(Folder { names: folder.names.clone(), durable_names: folder.names.clone() })
                }
                Node::File(file) => {
                    let Content { seen, modified_ms, .. } = &*file.content.lock();
                    let content = Content {
                        durable: seen.clone(),
                        seen: seen.clone(),
                        modified_ms: *modified_ms,
                        ..Content::default()
                    };
                    Node::File(Arc::new(SimulatedFile {
                        content: Mutex::new(content),
                        machine: Arc::clone(&copy.0),
                    }))
                }
            });
        }
        drop(target);
        copy
    }
}

impl Machine {
    fn change(&self) -> io::Result<()> {
        match &mut self.faults.lock().changes_left {
            Some(0) => Err(Errno::IO.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn look(&self) -> io::Result<()> {
        match &mut self.faults.lock().look_error {
            Some((skipped @ 1.., ..)) => *skipped -= 1,
            Some((_, left @ 1.., error)) => {
                *left -= 1;
                return Err((*error).into());
            }
            _ => {}
        }
        Ok(())
    }

    /// The file that has this name after whatever takes place before.
    fn find(&self, path: &Path) -> io::Result<Arc<SimulatedFile>> {
        let meanwhile = self.faults.lock().meanwhile.take_if(|(name, _)| name == path);
        if let Some((_, Meanwhile(event))) = meanwhile {
            event();
        }
        self.tree.lock().file(path)
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        match &self.faults.lock().broken {
            Some((folder, error)) if path.starts_with(folder) => Err((*error).into()),
            _ => Ok(()),
        }
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.faults.lock().opens += 1;
        self.open_something(path)?;
        self.0.look()?;
        Descriptor::of(self.0.find(path)?, path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.change()?;
        self.open_something(path)?;
        let mut tree = self.0.tree.lock();
        if let Ok(existing) = tree.file(path) {
            existing.set_len(0)?;
            return Descriptor::of(existing, path);
        }
        let file = Arc::new(SimulatedFile { content: Mutex::default(), machine: Arc::clone(&self.0) });
        tree.add(path, Node::File(Arc::clone(&file)))?;
        Descriptor::of(file, path)
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        self.0.check(path)?;
        self.0.look()?;
        let file = self.0.find(path)?;
        let content = file.content.lock();
        Ok(FileStatus { length: content.seen.len() as u64, modified_ms: content.modified_ms })
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        if self.0.tree.lock().file(path).is_err() {
            self.create(path)?;
        }
        if !self.0.tree.lock().locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimulatedLock { machine: Arc::clone(&self.0), path: path.to_owned() })))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.check(path)?;
        let mut tree = self.0.tree.lock();
        let mut made = PathBuf::new();
        for component in path.components() {
            made.push(component);
            if tree.resolve(&made).is_err() {
                tree.add(&made, Node::Folder(Folder::default()))?;
            }
        }
        tree.folder(path).map(|_| ())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.change()?;
        self.0.check(from)?;
        let mut tree = self.0.tree.lock();
        let node = tree.resolve(from)?;
        tree.parent(to)?;
        tree.forget(from)?;
        let (folder, name) = tree.parent(to)?;
        folder.names.insert(name, node);
        Ok(())
    }

    fn link(&self, existing: &Path, name: &Path) -> io::Result<()> {
        self.0.change()?;
        let mut tree = self.0.tree.lock();
        let node = tree.resolve(existing)?;
        if tree.resolve(name).is_ok() {
            return Err(Errno::EXIST.into());
        }
        let (folder, name) = tree.parent(name)?;
        folder.names.insert(name, node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.change()?;
        self.0.check(path)?;
        let mut tree = self.0.tree.lock();
        tree.file(path)?;
        tree.forget(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut tree = self.0.tree.lock();
        tree.folder(path)?;
        tree.forget(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.0.faults.lock().opens += 1;
        self.open_something(path)?;
        self.0.look()?;
        let mut tree = self.0.tree.lock();
        let names = tree.folder(path)?.names.clone();
        let is_dir = |node: usize| matches!(tree.nodes[node], Node::Folder(_));
        Ok(names.into_iter().map(|(name, node)| Entry { name, is_dir: is_dir(node) }).collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.change()?;
        self.open_something(path)?;
        if let Some(error) = self.0.faults.lock().sync_error {
            return Err(error.into());
        }
        let mut tree = self.0.tree.lock();
        let folder = tree.folder(path)?;
        folder.durable_names = folder.names.clone();
        Ok(())
    }

    fn sync_all(&self, _path: &Path) -> io::Result<()> {
        let nodes = self.0.tree.lock().nodes.clone();
        for node in &nodes {
            if let Node::File(file) = node {
                file.sync_data()?;
            }
        }
        for node in &mut self.0.tree.lock().nodes {
            if let Node::Folder(folder) = node {
                folder.durable_names = folder.names.clone();
            }
        }
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.tree.lock().resolve(path)?;
        let usable_bytes = self.0.faults.lock().usable_bytes.unwrap_or(1 << 40);
        Ok(Space { total_bytes: 1 << 40, usable_bytes })
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("boot {}", self.0.tree.lock().boots))
    }
}

impl Tree {
    fn resolve(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let Node::Folder(folder) = &self.nodes[at] else { return Err(Errno::NOTDIR.into()) };
            let name = name.to_str().ok_or(Errno::INVAL)?;
            at = *folder.names.get(name).ok_or(Errno::NOENT)?;
        }
        Ok(at)
    }

    fn file(&self, path: &Path) -> io::Result<Arc<SimulatedFile>> {
        match &self.nodes[self.resolve(path)?] {
            Node::File(file) => Ok(Arc::clone(file)),
            Node::Folder(_) => Err(Errno::ISDIR.into()),
        }
    }

    fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        let at = self.resolve(path)?;
        match &mut self.nodes[at] {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(Errno::NOTDIR.into()),
        }
    }

    /// The folder that holds `path`, and the last name of `path`.
    fn parent(&mut self, path: &Path) -> io::Result<(&mut Folder, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(Errno::INVAL)?.to_owned();
        let folder = self.folder(path.parent().unwrap_or(Path::new("")))?;
        Ok((folder, name))
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let number = self.nodes.len();
        let (folder, name) = self.parent(path)?;
        folder.names.insert(name, number);
        self.nodes.push(node);
        Ok(())
    }

    fn forget(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        folder.names.remove(&name).map(|_| ()).ok_or(Errno::NOENT.into())
    }
}

impl Folder {
    /// Loses random ones, or all.
    fn lose_unsynced(&mut self, random: Option<&mut fastrand::Rng>) {
        let Some(random) = random else {
            self.names = self.durable_names.clone();
            return;
        };
        let names: BTreeSet<String> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        for name in names {
            if random.bool() {
                match self.durable_names.get(&name) {
                    Some(node) => self.names.insert(name, *node),
                    None => self.names.remove(&name),
                };
            }
        }
        self.durable_names = self.names.clone();
    }
}

#[derive(Debug)]
struct SimulatedLock {
    machine: Arc<Machine>,
    path: PathBuf,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.machine.tree.lock().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimulatedFile {
    content: Mutex<Content>,
    machine: Arc<Machine>,
}

#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// What makes `seen` of `durable`, in order.
    unsynced: Vec<Change>,
    /// Changes that have become durable so far.
    synced: usize,
    /// The disk has no clock: see [`SimulatedDisk::set_modified`].
    modified_ms: i64,
}

#[derive(Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetLength(usize),
}

impl Change {
    /// Does the change to `content`; of a write, at most the first `limit` bytes.
    fn apply(&self, content: &mut Vec<u8>, limit: usize) {
        match self {
            Self::SetLength(length) => content.resize(*length, 0),
            Self::Write { position, bytes } => {
                let bytes = &bytes[..bytes.len().min(limit)];
                if !bytes.is_empty() {
                    content.resize(content.len().max(position + bytes.len()), 0);
                    content[*position..position + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
    }
}

impl SimulatedFile {
    fn change(&self, change: Change) {
        let mut content = self.content.lock();
        change.apply(&mut content.seen, usize::MAX);
        content.unsynced.push(change);
    }

    fn after_power_cut(&self, random: Option<&mut fastrand::Rng>) -> Self {
        let content = self.content.lock();
        let mut left = content.durable.clone();
        if let Some(random) = random {
            let whole = random.usize(..=content.unsynced.len());
            for change in &content.unsynced[..whole] {
                change.apply(&mut left, usize::MAX);
            }
            if let Some(torn @ Change::Write { bytes, .. }) = content.unsynced.get(whole) {
                torn.apply(&mut left, random.usize(..=bytes.len()));
            }
        }
        let modified_ms = content.modified_ms;
        let content = Content { seen: left.clone(), durable: left, modified_ms, ..Content::default() };
        Self { content: Mutex::new(content), machine: Arc::clone(&self.machine) }
    }
}

impl SimulatedFile {
    /// What is left if the changes reached the disk in any order; without randomness, nothing is.
    fn after_reordered_power_cut(&self, random: Option<&mut fastrand::Rng>) -> Self {
        let Some(random) = random else { return self.after_power_cut(None) };
        let content = self.content.lock();
        let mut left = content.durable.clone();
        for change in &content.unsynced {
            let limit = match (random.u8(..4), change) {
                (0, _) => continue,
                (1, Change::Write { bytes, .. }) => random.usize(..=bytes.len()),
                _ => usize::MAX,
            };
            change.apply(&mut left, limit);
        }
        let content = Content { seen: left.clone(), durable: left, ..Content::default() };
        Self { content: Mutex::new(content), machine: Arc::clone(&self.machine) }
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.machine.look()?;
        let content = self.content.lock();
        let from = (position as usize).min(content.seen.len());
        let read = buffer.len().min(content.seen.len() - from);
        buffer[..read].copy_from_slice(&content.seen[from..from + read]);
        Ok(read)
    }

    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.machine.change()?;
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut faults = self.machine.faults.lock();
        faults.writes += 1;
        if let Some(max) = faults.write_bytes_max {
            bytes.truncate(max);
        }
        if let Some((left, error)) = &mut faults.write_limit {
            if *left == 0 && !bytes.is_empty() {
                return Err((*error).into());
            }
            bytes.truncate(*left as usize);
            *left -= bytes.len() as u64;
        }
        drop(faults);
        let written = bytes.len();
        self.change(Change::Write { position: position as usize, bytes });
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.machine.change()?;
        // As with a real disk, what counts is what was written before the sync began.
        let begun_at = {
            let content = self.content.lock();
            content.synced + content.unsynced.len()
        };
        let mut faults = self.machine.faults.lock();
        match &mut faults.syncs_let {
            Some((_, Some(free))) if *free == std::thread::current().id() => {}
            Some((left @ 1.., _)) => *left -= 1,
            Some(_) => {
                faults.syncs_waiting += 1;
                while faults.syncs_let.is_some() {
                    self.machine.syncs_released.wait(&mut faults);
                }
                faults.syncs_waiting -= 1;
            }
            None => {}
        }
        if let Some(error) = faults.sync_error {
            return Err(error.into());
        }
        faults.file_syncs += 1;
        drop(faults);
        let mut content = self.content.lock();
        let Content { durable, unsynced, synced, .. } = &mut *content;
        for change in unsynced.drain(..begun_at.saturating_sub(*synced)) {
            change.apply(durable, usize::MAX);
            *synced += 1;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.machine.change()?;
        self.change(Change::SetLength(length as usize));
        Ok(())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        if let Some((left, error)) = self.machine.faults.lock().write_limit
            && left < length
        {
            return Err(error.into());
        }
        self.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.machine.look()?;
        Ok(self.content.lock().seen.len() as u64)
    }
}

/// A file that was opened; who opens it twice has two.
#[derive(Debug)]
struct Descriptor {
    file: Arc<SimulatedFile>,
    path: PathBuf,
}

impl Descriptor {
    fn of(file: Arc<SimulatedFile>, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Self { file, path: path.to_owned() }))
    }

    /// The file, if its disk works.
    fn working(&self) -> io::Result<&SimulatedFile> {
        self.file.machine.check(&self.path).map(|()| &*self.file)
    }
}

impl RangeFile for Descriptor {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.working()?.read_at(buffer, position)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match self.is_cached(position, buffer.len()) {
            true => self.read_at(buffer, position),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn is_cached(&self, _position: u64, _length: usize) -> bool {
        !self.file.machine.faults.lock().is_cold
    }
}

impl DiskFile for Descriptor {
    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.working()?.write_vectored_at(parts, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.working()?.sync_data()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.working()?.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.working()?.allocate(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.working()?.length()
    }

    fn pin(self: Arc<Self>) -> io::Result<Arc<dyn RangeFile>> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::write_all_at;
    use super::*;

    fn with_folder() -> SimulatedDisk {
        let disk = SimulatedDisk::default();
        disk.create_dir_all(Path::new("/data/a")).unwrap();
        for folder in ["/", "/data", "/data/a"] {
            disk.sync_dir(Path::new(folder)).unwrap();
        }
        disk
    }

    fn write(file: &dyn DiskFile, bytes: &[u8], position: u64) {
        write_all_at(file, &mut [IoSlice::new(bytes)], position).unwrap();
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_a_prefix_of_the_rest() {
        let mut lengths = BTreeSet::new();
        for seed in 0..200 {
            let disk = with_folder();
            let path = Path::new("/data/a/log");
            let file = disk.create(path).unwrap();
            write(&*file, b"synced", 0);
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/data/a")).unwrap();
            write(&*file, b"first", 6);
            write(&*file, b"second", 11);
            disk.power_cut(seed);
            let left = disk.content(path).unwrap();
            assert!(left.starts_with(b"synced"), "seed {seed}");
            assert!(b"syncedfirstsecond".starts_with(&left), "seed {seed}");
            lengths.insert(left.len());
        }
        assert!(lengths.len() > 8, "tears at many places: {lengths:?}");
    }

    #[test]
    fn writes_may_reach_the_disk_out_of_order_and_short_ones_are_gone_on_with() {
        let mut left = BTreeSet::new();
        for seed in 0..200 {
            let disk = with_folder();
            let path = Path::new("/data/a/log");
            let file = disk.create(path).unwrap();
            disk.sync_dir(Path::new("/data/a")).unwrap();
            disk.shorten_writes(2);
            write(&*file, b"abcdef", 0);
            assert_eq!(disk.content(path).unwrap(), b"abcdef");
            disk.power_cut_out_of_order(seed);
            left.insert(disk.content(path).unwrap());
        }
        for expected in [&b"abcdef"[..], b"\0\0\0\0ef", b"ab\0\0ef", b""] {
            assert!(left.contains(expected), "{expected:?}");
        }
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost_and_a_renamed_folder_keeps_its_files() {
        let (mut kept, mut lost) = (0, 0);
        for seed in 0..50 {
            let disk = with_folder();
            disk.create(Path::new("/data/a/file")).unwrap();
            disk.sync_dir(Path::new("/data/a")).unwrap();
            disk.rename(Path::new("/data/a"), Path::new("/data/b")).unwrap();
            disk.sync_dir(Path::new("/data")).unwrap();
            disk.create(Path::new("/data/b/unsynced")).unwrap();
            disk.power_cut(seed);
            assert!(disk.open(Path::new("/data/a/file")).is_err());
            assert!(disk.open(Path::new("/data/b/file")).is_ok());
            match disk.open(Path::new("/data/b/unsynced")) {
                Ok(_) => kept += 1,
                Err(_) => lost += 1,
            }
        }
        assert!(kept > 0 && lost > 0);
    }

    #[test]
    fn a_full_disk_takes_part_of_a_write() {
        let disk = with_folder();
        let file = disk.create(Path::new("/data/a/log")).unwrap();
        disk.fail_writes_after(3, Errno::NOSPC);
        let error = write_all_at(&*file, &mut [IoSlice::new(b"12345")], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.content(Path::new("/data/a/log")).unwrap(), b"123");
        disk.mend_writes();
        write(&*file, b"12345", 0);
        assert_eq!(file.length().unwrap(), 5);
    }

    #[test]
    fn a_lock_is_free_again_when_dropped_or_when_the_machine_died() {
        let disk = with_folder();
        let path = Path::new("/data/.lock");
        let held = disk.try_lock(path).unwrap().unwrap();
        assert!(disk.try_lock(path).unwrap().is_none());
        drop(held);
        let _held = disk.try_lock(path).unwrap().unwrap();
        let boot = disk.boot_id().unwrap();
        disk.power_cut(1);
        assert!(disk.try_lock(path).unwrap().is_some());
        assert_ne!(boot, disk.boot_id().unwrap());
    }
}

//! All log directories of a broker (Kafka's JBOD). A partition is in one of them: where its folder is, where its creator had it
//! put, else where there are fewest. When the disk of one fails, its partitions are offline and the others go on.
//!
//! The broker's own log lies in the first directory, unless it is found in another. Without that one the broker cannot go on.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::directory::{BOOT_FILE, Common, Key, PROPERTIES_FILE, parse_folder, read_properties};
use super::recovery::topic_id_of;
use super::{
    DirectoryOptions, LogConfig, LogDirectory, LogError, OpenDirectoryError, Partition, Recovered,
    is_failure_of_the_disk,
};
use crate::clock::Clock;
use crate::storage::{BoundedDisk, Disk};
use crate::telemetry::LogCounters;
use crate::uuid::Uuid;

/// The open log directories, and those that should be.
#[derive(Debug)]
pub struct LogDirectories {
    /// As configured; those that cannot be used are offline.
    directories: Vec<Arc<LogDirectory>>,
    /// Stands for directories that have partitions and were not given, or do not say who they are.
    missing: Arc<LogDirectory>,
    /// Folders of partitions at the start, with the topic's id where more than one directory has one.
    found: Found,
    homes: Mutex<Homes>,
    common: Common,
    files: BoundedDisk,
    cluster_id: Uuid,
}

/// Directories that have a folder of a partition, by their place; with the topic's id, where there is more than one.
type Found = HashMap<Key, Vec<(usize, Option<Uuid>)>>;

/// Where partitions are, if there are several directories.
#[derive(Debug)]
struct Homes {
    of: HashMap<Key, usize>,
    /// Partitions by directory.
    counts: Vec<usize>,
}

/// What a look at a directory finds that changes nothing in it.
#[derive(Debug, Default)]
struct Survey {
    /// Whether it has an identity.
    has_properties: bool,
    /// Whether this program has used it.
    was_ours: bool,
    folders: Vec<Key>,
}

impl LogDirectories {
    /// Opens all `paths`, of which there is at least one, each with `options` but for its own path. New ones become part of the
    /// cluster of the others. `own_log` is the broker's own log, which is in one of them unless all are new.
    ///
    /// # Errors
    /// What is wrong with any of them, but for a broken disk: if there are others, that one is offline, unless it may be the one
    /// with the broker's own log. Nothing has been changed by most errors that are found by looking.
    pub fn open(
        paths: &[PathBuf],
        options: &DirectoryOptions,
        own_log: &str,
        files: BoundedDisk,
        clock: &Clock,
    ) -> Result<Arc<Self>, OpenDirectoryError> {
        let disk: Arc<dyn Disk> = Arc::new(files.clone());
        let mut options = options.clone();
        let of = |options: &DirectoryOptions, path: &Path| DirectoryOptions {
            path: path.to_owned(),
            ..options.clone()
        };
        let mut broken: HashMap<usize, OpenDirectoryError> = HashMap::new();
        let mut surveys = Vec::with_capacity(paths.len());
        // With a single directory there is nothing to compare; it is looked at when it is opened.
        let compared = if paths.len() > 1 { paths } else { &[] };
        for (number, path) in compared.iter().enumerate() {
            let looked = survey(&*disk, &mut options, path);
            surveys.push(tolerate(looked, number, paths.len(), &mut broken)?.unwrap_or_default());
        }
        let own_log = (own_log.to_owned(), 0);
        let has_own_log = surveys.iter().any(|survey| survey.folders.contains(&own_log));
        if !has_own_log {
            if let Some((_, error)) = broken.drain().next() {
                return Err(error);
            }
            check_none_is_missing(paths, &surveys)?;
        }
        let found = find(paths, &surveys, &*disk)?;
        let common = Common::default();
        let mut directories = Vec::with_capacity(paths.len());
        for (number, path) in paths.iter().enumerate() {
            let opened = match broken.contains_key(&number) {
                true => None,
                false => {
                    let opened = LogDirectory::open_with(
                        of(&options, path),
                        Arc::clone(&disk),
                        clock.clone(),
                        common.clone(),
                    );
                    tolerate(opened, number, paths.len(), &mut broken)?
                }
            };
            if let Some(directory) = &opened {
                options.cluster_id = Some(directory.cluster_id());
            }
            directories.push(opened);
        }
        if !has_own_log && let Some((_, error)) = broken.drain().next() {
            return Err(error);
        }
        let unavailable = |path: &Path, reason: String| {
            let options = of(&options, path);
            LogDirectory::unavailable(options, Arc::clone(&disk), clock.clone(), common.clone(), reason)
        };
        let directories: Vec<_> = (0..)
            .zip(directories)
            .map(|(number, opened)| match opened {
                Some(directory) => directory,
                None => {
                    let reason = broken.get(&number).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(error = reason, "log directory offline");
                    unavailable(&paths[number], reason)
                }
            })
            .collect();
        let missing = unavailable(Path::new("(missing log directory)"), "not among log.dirs".to_owned());
        let homes = Homes { of: HashMap::new(), counts: vec![0; directories.len()] };
        let cluster_id = options.cluster_id.unwrap_or_default();
        let homes = Mutex::new(homes);
        Ok(Arc::new(Self { directories, missing, found, homes, common, files, cluster_id }))
    }

    /// Each of them, as configured.
    pub fn all(&self) -> &[Arc<LogDirectory>] {
        &self.directories
    }

    /// The cluster that they belong to.
    pub fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// The node that they belong to.
    pub fn node_id(&self) -> i32 {
        self.missing.node_id()
    }

    /// The disk that they are on.
    pub fn disk(&self) -> &dyn Disk {
        &self.files
    }

    /// Whether there is only one: then nothing has to be remembered of where a partition is.
    pub fn is_single(&self) -> bool {
        self.directories.len() == 1
    }

    /// Whether the last stop of all was clean (or they are new): then there is nothing to recover.
    pub fn was_clean(&self) -> bool {
        self.directories.iter().all(|directory| directory.was_clean())
    }

    /// What is counted of all partitions.
    pub fn counters(&self) -> &LogCounters {
        &self.common.counters
    }

    /// Files that are open, and that may be, besides those in use.
    pub fn open_files(&self) -> (usize, usize) {
        (self.files.open_files(), self.files.open_files_limit())
    }

    /// Bytes appended but not synced.
    pub fn unsynced_bytes(&self) -> u64 {
        self.directories.iter().map(|directory| directory.unsynced_bytes()).sum()
    }

    /// Unsynced bytes at which [`Partition::room`] waits, of all directories together.
    pub fn unsynced_bytes_limit(&self) -> u64 {
        self.directories.iter().map(|directory| directory.unsynced_bytes_limit()).sum()
    }

    /// Partitions that wait for a syncing thread.
    pub fn sync_queue_len(&self) -> usize {
        self.directories.iter().map(|directory| directory.sync_queue_len()).sum()
    }

    /// Whether there was a folder for that partition at the start: the id of the directory that has it.
    pub fn found(&self, topic: &str, topic_id: Uuid, index: i32) -> Option<Uuid> {
        if self.is_single() {
            return self.directories[0].had_folder(topic, index).then(|| self.directories[0].directory_id());
        }
        let places = self.found.get(&(topic.to_owned(), index))?;
        let of_topic = places.iter().find(|(_, id)| *id == Some(topic_id));
        let (number, _) = of_topic.or(places.first())?;
        Some(self.directories[*number].directory_id())
    }

    /// Where `count` new partitions go, beside those that are in the directories of these ids: each to the directory that then
    /// has fewest, as in Kafka.
    pub fn place(&self, beside: &[Uuid], count: usize) -> Vec<Uuid> {
        let mut counts = self.homes.lock().counts.clone();
        for id in beside {
            if let Some(number) = self.number_of(*id) {
                counts[number] += 1;
            }
        }
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            let number = self.least(&counts);
            counts[number] += 1;
            places.push(self.directories[number].directory_id());
        }
        places
    }

    /// The partition of that topic and number, in the directory of the id `home` if that is given, else where it was found or
    /// where there are fewest; while it lives, always the same one. See [`LogDirectory::partition`].
    pub fn partition(
        &self,
        (topic, topic_id, index): (&str, Uuid, i32),
        leader_epoch: i32,
        config: Arc<LogConfig>,
        home: Option<Uuid>,
    ) -> Arc<Partition> {
        let home = if self.is_single() { home } else { home.or_else(|| self.found(topic, topic_id, index)) };
        let directory = match home {
            None if self.is_single() => &self.directories[0],
            _ => self.settle_at(home, (topic.to_owned(), index)),
        };
        directory.partition(topic, topic_id, index, leader_epoch, config)
    }

    /// The broker's own log: see [`LogDirectory::essential_partition`].
    pub fn own_partition(&self, topic: &str, topic_id: Uuid, config: Arc<LogConfig>) -> Arc<Partition> {
        let found = self.found.get(&(topic.to_owned(), 0)).and_then(|places| places.first());
        let directory = &self.directories[found.map_or(0, |(number, _)| *number)];
        self.settle_at(Some(directory.directory_id()), (topic.to_owned(), 0))
            .essential_partition(topic, topic_id, config)
    }

    /// See [`LogDirectory::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, partition: &Arc<Partition>) -> Result<(), LogError> {
        {
            let mut homes = self.homes.lock();
            if let Some(number) = homes.of.remove(&(partition.topic().to_owned(), partition.index())) {
                homes.counts[number] -= 1;
            }
        }
        self.directory_of(partition).delete(partition)
    }

    /// See [`LogDirectory::sweep`]; a folder in another directory than its partition is of no known topic.
    pub fn sweep(&self, is_known: impl Fn(&str, i32) -> bool, was_deleted: impl Fn(Uuid) -> bool) {
        for (number, directory) in self.directories.iter().enumerate() {
            let is_here = |topic: &str, index: i32| {
                let homes = self.homes.lock();
                homes.of.get(&(topic.to_owned(), index)).is_none_or(|home| *home == number)
            };
            directory.sweep(|topic, index| is_known(topic, index) && is_here(topic, index), &was_deleted);
        }
    }

    /// See [`LogDirectory::recover`]: of those directories whose last stop was not clean, at the same time.
    pub fn recover(&self, partitions: &[Arc<Partition>]) -> Recovered {
        let unclean = self.directories.iter().filter(|directory| !directory.was_clean());
        let all = Mutex::new(Recovered::default());
        std::thread::scope(|scope| {
            for directory in unclean {
                scope.spawn(|| {
                    let of_it: Vec<_> =
                        partitions.iter().filter(|partition| directory.has(partition)).cloned().collect();
                    let Recovered { cuts, failed } = directory.recover(&of_it);
                    let mut all = all.lock();
                    all.cuts.extend(cuts);
                    all.failed.extend(failed);
                });
            }
        });
        all.into_inner()
    }

    /// Returns when the broker cannot go on, and says why: the directory of its own log is offline, or all are.
    pub async fn failed(&self) -> String {
        loop {
            let mut alarmed = std::pin::pin!(self.common.alarm.notified());
            alarmed.as_mut().enable();
            if let Some(reason) = self.failure() {
                return reason;
            }
            alarmed.await;
        }
    }

    fn failure(&self) -> Option<String> {
        let mut offline = self.directories.iter().filter(|directory| directory.offline().is_some());
        let all_are = offline.clone().count() == self.directories.len();
        let fatal = offline.find(|directory| all_are || directory.is_essential())?;
        Some(format!("{}: {}", fatal.path().display(), fatal.offline().unwrap_or_default()))
    }

    /// A clean stop of all: see [`LogDirectory::close`].
    pub async fn close(&self) {
        for directory in &self.directories {
            directory.close().await;
        }
    }

    /// See [`LogDirectory::abandon`].
    pub fn abandon(&self) {
        self.directories.iter().for_each(|directory| directory.abandon());
    }

    fn directory_of(&self, partition: &Partition) -> &Arc<LogDirectory> {
        let found = self.directories.iter().find(|directory| directory.has(partition));
        found.unwrap_or(&self.missing)
    }

    fn number_of(&self, id: Uuid) -> Option<usize> {
        self.directories.iter().position(|directory| directory.directory_id() == id)
    }

    /// Notes where a partition is.
    fn settle_at(&self, home: Option<Uuid>, key: Key) -> &Arc<LogDirectory> {
        let mut homes = self.homes.lock();
        let number = match (homes.of.get(&key), home) {
            (Some(known), _) => *known,
            (None, None) => self.least(&homes.counts),
            (None, Some(id)) => match self.number_of(id) {
                Some(number) => number,
                None => return &self.missing,
            },
        };
        if homes.of.insert(key, number).is_none() {
            homes.counts[number] += 1;
        }
        &self.directories[number]
    }

    /// Of the directories that can be written to, the one with the fewest partitions.
    fn least(&self, counts: &[usize]) -> usize {
        let usable = (0..counts.len()).filter(|number| self.directories[*number].offline().is_none());
        usable.min_by_key(|number| counts[*number]).unwrap_or(0)
    }
}

/// A broken disk is no reason not to start with the others.
fn tolerate<T>(
    result: Result<T, OpenDirectoryError>,
    number: usize,
    directories: usize,
    broken: &mut HashMap<usize, OpenDirectoryError>,
) -> Result<Option<T>, OpenDirectoryError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error @ OpenDirectoryError::Disk { .. }) if directories > 1 && is_broken(&error) => {
            broken.insert(number, error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn is_broken(error: &OpenDirectoryError) -> bool {
    matches!(error, OpenDirectoryError::Disk { source, .. } if is_failure_of_the_disk(source))
}

/// Looks at a directory, and takes the cluster of the first that has one over into `options`, for the others to be compared with.
fn survey(
    disk: &dyn Disk,
    options: &mut DirectoryOptions,
    path: &Path,
) -> Result<Survey, OpenDirectoryError> {
    let entries = match disk.list(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Survey::default()),
        Err(source) => return Err(OpenDirectoryError::Disk { path: path.to_owned(), source }),
    };
    options.path = path.to_owned();
    if let Some((cluster_id, _)) = read_properties(disk, options)? {
        options.cluster_id = Some(cluster_id);
    }
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    Ok(Survey {
        has_properties: has(PROPERTIES_FILE),
        was_ours: has(BOOT_FILE),
        folders: entries
            .iter()
            .filter(|entry| entry.is_dir)
            .filter_map(|entry| parse_folder(&entry.name))
            .collect(),
    })
}

/// A file system that is not mounted leaves an empty directory in its place: nobody may begin anew in it.
fn check_none_is_missing(paths: &[PathBuf], surveys: &[Survey]) -> Result<(), OpenDirectoryError> {
    let fresh = surveys.iter().position(|survey| !survey.has_properties);
    let used = surveys.iter().position(|survey| survey.was_ours && !survey.folders.is_empty());
    match (fresh, used) {
        (Some(fresh), Some(used)) => {
            Err(OpenDirectoryError::Missing { path: paths[fresh].clone(), other: paths[used].clone() })
        }
        _ => Ok(()),
    }
}

/// Which directories have which partitions. The same one in two is an error, unless one of them is an older topic's.
fn find(paths: &[PathBuf], surveys: &[Survey], disk: &dyn Disk) -> Result<Found, OpenDirectoryError> {
    let mut found = Found::new();
    if paths.len() == 1 {
        return Ok(found);
    }
    for (number, survey) in surveys.iter().enumerate() {
        for key in &survey.folders {
            found.entry(key.clone()).or_default().push((number, None));
        }
    }
    for ((topic, index), places) in found.iter_mut().filter(|(_, places)| places.len() > 1) {
        let folder = |number: usize| paths[number].join(format!("{topic}-{index}"));
        for (number, id) in places.iter_mut() {
            let path = folder(*number);
            *id = topic_id_of(disk, &path)
                .map_err(|error| OpenDirectoryError::Disk { path, source: io::Error::other(error) })?;
        }
        for (at, (number, id)) in places.iter().enumerate() {
            let is_same = |other: &Option<Uuid>| other == id || other.is_none() || id.is_none();
            if let Some((other, _)) = places[at + 1..].iter().find(|(_, other)| is_same(other)) {
                return Err(OpenDirectoryError::Twice { first: folder(*number), second: folder(*other) });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::config::tests::config;
    use super::super::fixture::{
        NOW_MS, TOPIC, TOPIC_ID, append, batch, commit, end_offset, eventually, headers, is_ready, run,
    };
    use super::*;
    use crate::storage::simulated::SimulatedDisk;

    const OWN_LOG: &str = "__own";
    const OWN_ID: Uuid = Uuid([2; 16]);

    fn open(disk: &SimulatedDisk, paths: &[&str]) -> Result<Arc<LogDirectories>, OpenDirectoryError> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        let files = BoundedDisk::new(Arc::new(disk.clone()), 100);
        LogDirectories::open(&paths, &DirectoryOptions::new(""), OWN_LOG, files, &Clock::manual(NOW_MS))
    }

    /// Opens them and writes to the broker's own log, as a broker does.
    fn start(disk: &SimulatedDisk, paths: &[&str]) -> Arc<LogDirectories> {
        let directories = open(disk, paths).unwrap();
        let own = directories.own_partition(OWN_LOG, OWN_ID, Arc::new(commit()));
        append(&own, batch(1)).unwrap();
        directories
    }

    fn partition(directories: &LogDirectories, index: i32, home: Option<Uuid>) -> Arc<Partition> {
        directories.partition((TOPIC, TOPIC_ID, index), 0, Arc::new(commit()), home)
    }

    fn names(disk: &SimulatedDisk, folder: &str) -> Vec<String> {
        disk.list(folder.as_ref()).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    fn folders(disk: &SimulatedDisk, folder: &str) -> usize {
        names(disk, folder).iter().filter(|name| name.starts_with("events-")).count()
    }

    #[test]
    fn partitions_are_spread_and_found_where_they_lie() {
        let disk = SimulatedDisk::default();
        let directories = start(&disk, &["/a", "/b", "/c"]);
        for index in 0..11 {
            append(&partition(&directories, index, None), batch(index as usize + 1)).unwrap();
        }
        assert_eq!(["/a", "/b", "/c"].map(|path| folders(&disk, path)), [3, 4, 4], "/a has the own log");
        assert_eq!(directories.place(&[], 1), [directories.all()[0].directory_id()]);
        let ids: Vec<_> = directories.all().iter().map(|directory| directory.directory_id()).collect();
        assert!(ids[0] != ids[1] && ids[1] != ids[2]);
        assert!(directories.all().iter().all(|one| one.cluster_id() == directories.cluster_id()));
        run(directories.close());
        drop(directories);
        // In another order, after a stop and after a kill.
        for clean in [true, false] {
            let directories = open(&disk, &["/c", "/a", "/b"]).unwrap();
            assert_eq!(directories.was_clean(), clean);
            let own = directories.own_partition(OWN_LOG, OWN_ID, Arc::new(commit()));
            assert!(directories.all()[1].has(&own));
            let mut all: Vec<_> = (0..11).map(|index| partition(&directories, index, None)).collect();
            all.push(own);
            assert!(directories.recover(&all).failed.is_empty());
            for (index, partition) in (0..11).zip(&all) {
                assert_eq!(end_offset(partition), i64::from(index) + 1);
            }
            assert_eq!(["/a", "/b", "/c"].map(|path| folders(&disk, path)), [3, 4, 4]);
        }
    }

    #[test]
    fn a_deleted_partition_makes_room_for_another() {
        let disk = SimulatedDisk::default();
        let directories = start(&disk, &["/a", "/b"]);
        let all: Vec<_> = (0..5).map(|index| partition(&directories, index, None)).collect();
        all.iter().for_each(|partition| assert!(append(partition, batch(1)).is_ok()));
        assert_eq!(folders(&disk, "/b"), 3);
        for partition in all.iter().filter(|partition| directories.all()[1].has(partition)) {
            directories.delete(partition).unwrap();
        }
        let b = directories.all()[1].directory_id();
        assert_eq!(directories.place(&[], 3), [b; 3]);
        assert_eq!(directories.place(&[b; 3], 1), [directories.all()[0].directory_id()]);
    }

    #[test]
    fn a_partition_in_two_directories_is_refused_by_name() {
        let disk = SimulatedDisk::default();
        let directories = start(&disk, &["/a", "/b"]);
        append(&partition(&directories, 0, None), batch(1)).unwrap();
        assert_eq!(folders(&disk, "/b"), 1);
        run(directories.close());
        drop(directories);
        disk.create_dir_all("/a/events-0".as_ref()).unwrap();
        let before = (names(&disk, "/a"), names(&disk, "/b"));
        let error = open(&disk, &["/a", "/b"]).unwrap_err().to_string();
        assert_eq!(error, "/a/events-0 and /b/events-0 are both the partition's: one of them must go");
        assert_eq!((names(&disk, "/a"), names(&disk, "/b")), before, "nothing is changed");
        // One of an older topic of that name is none of it.
        let of_another = format!("version: 0\ntopic_id: {}", Uuid([9; 16]));
        let metadata = disk.create("/a/events-0/partition.metadata".as_ref()).unwrap();
        crate::storage::write_all_at(&*metadata, &mut [io::IoSlice::new(of_another.as_bytes())], 0).unwrap();
        let directories = open(&disk, &["/a", "/b"]).unwrap();
        assert_eq!(end_offset(&partition(&directories, 0, None)), 1);
        directories.sweep(|topic, _| topic == TOPIC, |id| id == Uuid([9; 16]));
        eventually("the other goes", || folders(&disk, "/a") == 0);
        assert_eq!(folders(&disk, "/b"), 1);
    }

    #[test]
    fn directories_of_different_clusters_or_nodes_do_not_go_together() {
        let disk = SimulatedDisk::default();
        drop(start(&disk, &["/a"]));
        drop(start(&disk, &["/b"]));
        let error = open(&disk, &["/a", "/b"]).unwrap_err();
        assert!(
            matches!(&error, OpenDirectoryError::OtherCluster { path, .. } if path.starts_with("/b")),
            "{error}"
        );
        assert!(!names(&disk, "/a").contains(&".kafka_cleanshutdown".to_owned()));
    }

    #[test]
    fn a_new_directory_joins_and_an_empty_one_in_the_place_of_the_first_does_not() {
        let disk = SimulatedDisk::default();
        let directories = start(&disk, &["/a"]);
        append(&partition(&directories, 0, None), batch(1)).unwrap();
        drop(directories);
        let directories = start(&disk, &["/a", "/b"]);
        append(&partition(&directories, 1, None), batch(1)).unwrap();
        assert_eq!((folders(&disk, "/a"), folders(&disk, "/b")), (1, 1));
        drop(directories);
        // As when the file system of the first is not mounted.
        let error = open(&disk, &["/empty", "/b"]).unwrap_err();
        assert!(matches!(error, OpenDirectoryError::Missing { .. }), "{error}");
        assert!(disk.list("/empty".as_ref()).is_err());
    }

    #[test]
    fn a_partition_whose_directory_is_missing_is_offline_and_not_begun_anew() {
        let disk = SimulatedDisk::default();
        let directories = start(&disk, &["/a", "/b"]);
        let home = directories.all()[1].directory_id();
        append(&partition(&directories, 0, Some(home)), batch(1)).unwrap();
        run(directories.close());
        drop(directories);
        for paths in [&["/a"][..], &["/a", "/other"]] {
            let directories = open(&disk, paths).unwrap();
            let lost = partition(&directories, 0, Some(home));
            assert!(lost.is_offline());
            assert!(matches!(lost.append(batch(1)), Err(LogError::Offline)));
            assert!(matches!(lost.read(0, 1, true), Err(LogError::Offline)));
            assert!(!is_ready(directories.failed()), "the others go on");
            // Taken away with its topic; nothing of it is here.
            directories.delete(&lost).unwrap();
            run(directories.close());
        }
        let directories = open(&disk, &["/a", "/b"]).unwrap();
        assert_eq!(headers(&partition(&directories, 0, Some(home)), 0).len(), 1);
    }

    #[test]
    fn one_directory_fails_and_the_others_go_on() {
        let disk = SimulatedDisk::default();
        let directories = start(&disk, &["/a", "/b", "/c"]);
        let all: Vec<_> = (0..6).map(|index| partition(&directories, index, None)).collect();
        all.iter().for_each(|partition| assert!(append(partition, batch(1)).is_ok()));
        let in_c = |partition: &Arc<Partition>| directories.all()[2].has(partition);
        disk.fail_below("/c".as_ref(), Errno::IO);
        for partition in &all {
            assert_eq!(append(partition, batch(1)).is_ok(), !in_c(partition));
        }
        assert!(!is_ready(directories.failed()));
        assert!(directories.all()[2].offline().is_some());
        let homes = directories.place(&[], 10);
        assert!(!homes.contains(&directories.all()[2].directory_id()), "nothing new is put there");
        run(directories.close());
        drop(directories);
        // A start without it goes on with the others, too; what is mended is back with all that was acknowledged.
        let directories = open(&disk, &["/a", "/b", "/c"]).unwrap();
        assert!(directories.all()[2].offline().is_some() && directories.all()[0].was_clean());
        run(directories.close());
        drop(directories);
        disk.mend_below();
        let directories = open(&disk, &["/a", "/b", "/c"]).unwrap();
        assert_eq!(
            directories.all().iter().map(|directory| directory.was_clean()).collect::<Vec<_>>(),
            [true, true, false]
        );
        let all: Vec<_> = (0..6).map(|index| partition(&directories, index, None)).collect();
        assert!(directories.recover(&all).failed.is_empty());
        assert!(all.iter().all(|partition| end_offset(partition) >= 1));
    }

    #[test]
    fn without_its_own_log_or_without_any_directory_the_broker_cannot_go_on() {
        let disk = SimulatedDisk::default();
        let directories = start(&disk, &["/a", "/b"]);
        let in_b = partition(&directories, 0, Some(directories.all()[1].directory_id()));
        append(&in_b, batch(1)).unwrap();
        disk.fail_below("/a".as_ref(), Errno::IO);
        let own = directories.own_partition(OWN_LOG, OWN_ID, Arc::new(commit()));
        assert!(append(&own, batch(1)).is_err());
        let reason = run(directories.failed());
        assert!(reason.starts_with("/a: /a/__own-0"), "{reason}");
        drop(directories);
        let error = open(&disk, &["/a", "/b"]).unwrap_err();
        assert!(matches!(&error, OpenDirectoryError::Disk { path, .. } if path.starts_with("/a")), "{error}");
        disk.mend_below();

        let single = SimulatedDisk::default();
        let directories = open(&single, &["/a"]).unwrap();
        let only = partition(&directories, 0, None);
        append(&only, batch(1)).unwrap();
        single.fail_below("/a".as_ref(), Errno::IO);
        assert!(append(&only, batch(1)).is_err());
        assert!(run(directories.failed()).starts_with("/a: "));
    }

    #[test]
    fn in_os_mode_too_a_failing_directory_answers_and_does_not_hang() {
        let disk = SimulatedDisk::default();
        let directories = start(&disk, &["/a", "/b"]);
        let home = directories.all()[1].directory_id();
        let in_b = directories.partition((TOPIC, TOPIC_ID, 0), 0, Arc::new(config()), Some(home));
        append(&in_b, batch(1)).unwrap();
        disk.fail_below("/b".as_ref(), Errno::IO);
        assert!(in_b.append(batch(1)).is_err());
        assert!(is_ready(in_b.room()));
        assert!(matches!(in_b.append(batch(1)), Err(LogError::Offline)));
    }
}

//! A log directory: its folders, its identity, and its checkpoints against the logs.

use std::io;
use std::path::Path;

use super::folder::Folder;
use super::{Fault, Report};
use crate::log::checkpoint::{self, InvalidCheckpoint};
use crate::log::directory::{
    BOOT_FILE, CLEAN_FILE, LOCK_FILE, LOG_STARTS_FILE, PROPERTIES_FILE, RECOVERY_POINTS_FILE, parse_folder,
};
use crate::log::journal::JOURNAL_FILES;
use crate::storage::{Disk, Entry, read_file};
use crate::uuid::Uuid;

/// Checkpoints of offsets, Kafka's others too.
const CHECKPOINTS: [&str; 4] =
    [RECOVERY_POINTS_FILE, LOG_STARTS_FILE, "replication-offset-checkpoint", "cleaner-offset-checkpoint"];

/// What else is in a directory and says nothing of logs.
const KNOWN: [&str; 7] = [
    LOCK_FILE,
    BOOT_FILE,
    CLEAN_FILE,
    JOURNAL_FILES[0],
    JOURNAL_FILES[1],
    "bootstrap.checkpoint",
    "lost+found",
];

/// More than the properties take.
const PROPERTIES_LIMIT_BYTES: u64 = 64 << 10;

/// An entry of a checkpoint: topic, partition, offset.
type Entries = Vec<(String, i32, i64)>;

/// The checkpoints of a directory that could be read.
#[derive(Debug, Default)]
pub struct Checkpoints(Vec<(&'static str, Entries)>);

/// Whether a folder with such entries is a log directory.
pub fn is_one(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| match entry.is_dir {
        true => parse_folder(&entry.name).is_some(),
        false => entry.name == PROPERTIES_FILE,
    })
}

/// Lists the folders of a directory, and looks at what lies beside them.
pub fn list(
    disk: &dyn Disk,
    path: &Path,
    entries: &[Entry],
    in_use: bool,
    report: &mut Report,
) -> (Vec<Folder>, Checkpoints) {
    if in_use {
        report.found(path, None, Fault::InUse);
    } else if !entries.iter().any(|entry| entry.name == CLEAN_FILE) {
        report.found(path, None, Fault::Unclean);
    }
    let mut folders = Vec::new();
    for entry in entries {
        let path = path.join(&entry.name);
        if KNOWN.contains(&&*entry.name) || CHECKPOINTS.contains(&&*entry.name) {
            continue;
        }
        if !entry.is_dir {
            match &*entry.name {
                PROPERTIES_FILE => verify_properties(disk, &path, report),
                name if name.ends_with(".tmp") => report.found(&path, None, Fault::Leftover),
                _ => report.found(&path, None, Fault::Unknown),
            }
        } else if parse_folder(&entry.name).is_some() {
            match disk.list(&path) {
                Ok(files) => folders.push(Folder::list(disk, &path, &files, in_use, report)),
                Err(error) => report.unread(&path, error, in_use),
            }
        } else {
            let suffixes = ["-delete", "-stray", "-future"];
            let is_aside = suffixes.iter().any(|suffix| entry.name.ends_with(suffix));
            report.found(&path, None, if is_aside { Fault::Aside } else { Fault::Unknown });
        }
    }
    let mut checkpoints = Checkpoints::default();
    for name in CHECKPOINTS {
        let path = path.join(name);
        match read_file(disk, &path, checkpoint::LIMIT_BYTES) {
            Ok(bytes) => match parse(&bytes) {
                Ok(entries) => checkpoints.0.push((name, entries)),
                Err(invalid) => report.found(&path, None, invalid),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.unread(&path, error, in_use),
        }
    }
    (folders, checkpoints)
}

fn parse(bytes: &[u8]) -> Result<Entries, InvalidCheckpoint> {
    checkpoint::parse(bytes, |fields| {
        let topic = fields.next()?.to_owned();
        Some((topic, checkpoint::number(fields)?, checkpoint::number(fields)?))
    })
}

fn verify_properties(disk: &dyn Disk, path: &Path, report: &mut Report) {
    let bytes = match read_file(disk, path, PROPERTIES_LIMIT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => return report.unread(path, error, false),
    };
    let text = String::from_utf8_lossy(&bytes);
    let property = |key: &str| {
        let mut pairs =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
    };
    let is_id = |value: &str| value.parse::<Uuid>().is_ok();
    let is_node = |value: &str| value.parse::<u32>().is_ok();
    let wrong = if !matches!(property("version"), Some("0" | "1")) {
        "version"
    } else if !property("node.id").or_else(|| property("broker.id")).is_some_and(is_node) {
        "node.id"
    } else if property("cluster.id").is_none_or(str::is_empty) {
        "cluster.id"
    } else if !property("directory.id").is_none_or(is_id) {
        "directory.id"
    } else {
        return;
    };
    report.found(path, None, Fault::Property(wrong));
}

impl Checkpoints {
    /// Compares the offsets with the ends of the logs in `directory`, once those are known.
    pub fn compare(&self, directory: &Path, folders: &[Folder], report: &mut Report) {
        for (name, entries) in &self.0 {
            for (topic, partition, offset) in entries {
                let path = directory.join(format!("{topic}-{partition}"));
                let folder = folders.iter().find(|folder| folder.path == path);
                let Some(log_end) = folder.filter(|folder| !folder.in_use()).and_then(Folder::log_end) else {
                    continue;
                };
                if *offset > log_end {
                    let (topic, partition, offset) = (topic.clone(), *partition, *offset);
                    let fault = Fault::Beyond { topic, partition, offset, log_end };
                    report.found(&directory.join(name), None, fault);
                }
            }
        }
    }
}

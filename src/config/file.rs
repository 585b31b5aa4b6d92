//! The config file: TOML whose keys are dotted names, written dotted, quoted or as tables.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::{Table, Value};

use super::topic_spec::TopicSpec;
use super::{ConfigError, Origin};

/// Largest config file read, bytes: far beyond any real one.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads the settings of the file at `path`; names and values are not yet checked.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::FileTooLarge { path: path.to_owned(), max_bytes: MAX_FILE_BYTES });
    }
    parse(&text, path)
}

/// Reads settings from the text of a file; `path` is only named in errors.
pub(super) fn parse(text: &str, path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    let mut settings = BTreeMap::new();
    flatten(&table, "", &Origin::File(path.to_owned()), &mut settings)?;
    Ok(settings)
}

/// Line of the byte at `position`, from 1.
fn line_of(text: &str, position: usize) -> usize {
    1 + text.bytes().take(position).filter(|&byte| byte == b'\n').count()
}

fn flatten(
    table: &Table,
    prefix: &str,
    origin: &Origin,
    settings: &mut BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Value::Table(inner) = value {
            flatten(inner, &name, origin, settings)?;
            continue;
        }
        let Some(text) = text_of(value, &name) else {
            return Err(ConfigError::NotASetting { origin: origin.clone(), name });
        };
        if settings.insert(name.clone(), text).is_some() {
            return Err(ConfigError::Twice { origin: origin.clone(), name });
        }
    }
    Ok(())
}

/// The value as it would stand in a flag; an array becomes a list. `None` for what no key takes: dates, nested arrays.
fn text_of(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(scalar).collect();
            let separator = if name == "ottla.topics" { TopicSpec::SEPARATOR } else { ',' };
            items.map(|items| items.join(&separator.to_string()))
        }
        single => scalar(single),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
        parse(text, Path::new("ottla.toml"))
    }

    #[test]
    fn dotted_nested_and_quoted_keys_are_the_same() {
        let dotted = settings("log.retention.ms = 5\nlog.dir = 'x'").unwrap();
        let nested = settings("[log]\ndir = 'x'\n[log.retention]\nms = 5").unwrap();
        let quoted = settings("'log.dir' = 'x'\n[log]\n'retention.ms' = 5").unwrap();
        assert_eq!(dotted.len(), 2);
        assert_eq!(dotted["log.retention.ms"], "5");
        assert_eq!(nested, dotted);
        assert_eq!(quoted, dotted);
    }

    #[test]
    fn arrays_are_lists() {
        let read = settings("listeners = ['a:1', 'b:2']\n[ottla]\ntopics = ['a:1', 'b:2']").unwrap();
        assert_eq!(read["listeners"], "a:1,b:2");
        assert_eq!(read["ottla.topics"], "a:1;b:2");
    }

    #[test]
    fn faults_name_file_and_place_in_one_line() {
        for (text, expected) in [
            ("a = 1\nb = = 2", "ottla.toml, line 2: "),
            ("'log.dir' = 'x'\nlog.dir = 'y'", "ottla.toml: \"log.dir\" is given twice"),
            ("day = 2020-01-01", "ottla.toml: \"day\" is neither"),
            ("list = [[1]]", "ottla.toml: \"list\" is neither"),
        ] {
            let message = settings(text).unwrap_err().to_string();
            assert!(message.starts_with(expected) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_file_too_deep_or_too_large_is_refused() {
        assert!(settings(&format!("a{} = 1", ".a".repeat(100_000))).is_err());
        assert!(settings(&format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(matches!(read(file.path()), Err(ConfigError::FileTooLarge { .. })));
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = read(Path::new("/nowhere/ottla.toml")).unwrap_err().to_string();
        assert!(message.contains("/nowhere/ottla.toml"), "{message}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([a-c.]{0,4} ?=? ?['0-9\\[\\]{}a-z-]{0,6}\n?){0,4}|.{0,60}") {
            let _: Result<_, _> = settings(&text);
        }
    }
}

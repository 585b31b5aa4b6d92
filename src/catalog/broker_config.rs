//! The broker's own configs as a resource: how they are described, and which may change while it runs.

use super::topic_config::{
    ConfigEntry, ConfigOp, ConfigSynonym, Inherited, InvalidConfig, Source, apply, check_value,
    validate as validate_topic,
};
use crate::config::definition::{Definition, Value, nearest, shortened};
use crate::config::{BrokerKey, ConfigMap};
use crate::log::CleanerConfig;

/// All keys of this node, by name. `levels.fixed` is [`crate::config::Config::explicit`].
pub fn describe(levels: &Inherited<'_>) -> Vec<ConfigEntry> {
    let mut entries: Vec<_> = BrokerKey::all().map(|key| entry(key, levels)).collect();
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    entries
}

/// How logs are compacted, as far as it is set at these levels.
pub fn cleaner(levels: &Inherited<'_>, max_decompressed_batch_bytes: usize) -> CleanerConfig {
    let value = |name: &str| {
        let definition = &BrokerKey::named(name)?.definition;
        let set = levels.levels().into_iter().find_map(|(level, _)| definition.parse(level.get(name)?).ok());
        set.or_else(|| definition.parse(definition.default?).ok())
    };
    let number = |name| value(name).map_or(0.0, |value| value.as_f64());
    let whole = |name| value(name).map_or(0, |value| u64::try_from(value.as_i64()).unwrap_or(0));
    CleanerConfig {
        threads: match value("log.cleaner.enable") {
            Some(Value::Boolean(false)) => 0,
            _ => whole("log.cleaner.threads") as usize,
        },
        dedupe_buffer_bytes: whole("log.cleaner.dedupe.buffer.size"),
        load_factor: number("log.cleaner.io.buffer.load.factor"),
        io_buffer_bytes: whole("log.cleaner.io.buffer.size") as usize,
        io_max_bytes_per_second: number("log.cleaner.io.max.bytes.per.second"),
        backoff_ms: whole("log.cleaner.backoff.ms"),
        max_decompressed_batch_bytes,
    }
}

/// What is set at run time for all nodes: the resource with the empty name.
pub fn describe_default(dynamic_default: &ConfigMap) -> Vec<ConfigEntry> {
    let none = ConfigMap::new();
    let levels = Inherited { dynamic_node: &none, dynamic_default, fixed: &none };
    let keys = dynamic_default.keys().filter_map(|name| BrokerKey::named(name));
    keys.map(|key| entry(key, &levels)).collect()
}

fn entry(key: &BrokerKey, levels: &Inherited<'_>) -> ConfigEntry {
    let synonyms = synonyms(&key.definition, levels);
    ConfigEntry {
        name: key.definition.name.to_owned(),
        value: synonyms.first().map(|first| first.value.clone()),
        source: synonyms.first().map_or(Source::Default, |first| first.source),
        read_only: !key.dynamic,
        sensitive: false,
        synonyms,
        type_code: key.definition.kind.code(),
        documentation: key.definition.doc,
    }
}

/// Every level that gives the key a value, the one that counts first. A stored value that this version would refuse is
/// passed over, as it is for topics.
fn synonyms(definition: &Definition, levels: &Inherited<'_>) -> Vec<ConfigSynonym> {
    let set = levels.levels().into_iter();
    let set =
        set.filter_map(|(level, source)| level.get(definition.name).map(|text| (text.as_str(), source)));
    let all = set.chain(definition.default.map(|text| (text, Source::Default)));
    let synonym = |(text, source)| {
        let value = definition.parse(text).ok()?.to_string();
        Some(ConfigSynonym { name: definition.name, value, source })
    };
    all.filter_map(synonym).collect()
}

/// A dynamic level of the broker after these changes, not yet validated as a whole ([`validate`]).
pub fn apply_ops(current: &ConfigMap, ops: &[ConfigOp]) -> Result<ConfigMap, InvalidConfig> {
    ops.iter().try_for_each(|op| changeable(&op.name).map(drop))?;
    apply(current, ops, |name| BrokerKey::named(name).map(|key| &key.definition))
}

/// Checks the dynamic levels as they would be after a change: known keys that may change, valid values, and the rules
/// between the configs that topics inherit.
pub fn validate(levels: &Inherited<'_>) -> Result<(), InvalidConfig> {
    for (name, value) in levels.dynamic_node.iter().chain(levels.dynamic_default) {
        check_value(&changeable(name)?.definition, value)?;
    }
    validate_topic(&ConfigMap::new(), levels)
}

/// The key of that name, if it exists and may change while the broker runs.
fn changeable(name: &str) -> Result<&'static BrokerKey, InvalidConfig> {
    let key = BrokerKey::named(name).ok_or_else(|| InvalidConfig::UnknownBrokerKey {
        name: shortened(name),
        nearest: nearest(name, BrokerKey::all().map(|key| key.definition.name)),
    })?;
    if key.dynamic { Ok(key) } else { Err(InvalidConfig::NotDynamic { name: key.definition.name }) }
}

#[cfg(test)]
mod tests {
    use super::super::topic_config::OpKind;
    use super::*;

    fn map(settings: &[(&str, &str)]) -> ConfigMap {
        settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_node_describes_every_key_with_its_levels() {
        let (node, default) =
            (map(&[("log.roll.ms", "2")]), map(&[("log.roll.ms", "3"), ("log.segment.bytes", "1")]));
        let fixed = map(&[("num.partitions", "4")]);
        let entries = describe(&Inherited { dynamic_node: &node, dynamic_default: &default, fixed: &fixed });
        assert_eq!(entries.len(), BrokerKey::all().count());
        assert!(entries.is_sorted_by_key(|entry| &entry.name));
        let shown = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name).unwrap();
            (
                entry.value.as_deref(),
                entry.source.code(),
                entry.read_only,
                entry.type_code,
                entry.synonyms.len(),
            )
        };
        assert_eq!(shown("log.roll.ms"), (Some("2"), 2, false, 5, 2));
        assert_eq!(shown("num.partitions"), (Some("4"), 4, true, 3, 2));
        assert_eq!(shown("log.retention.hours"), (Some("168"), 5, true, 3, 1));
        assert_eq!(shown("log.retention.ms"), (None, 5, false, 5, 0));
        // Too small for a segment: passed over.
        assert_eq!(shown("log.segment.bytes"), (Some("1073741824"), 5, false, 3, 1));
    }

    #[test]
    fn the_cleaner_goes_by_the_most_specific_level() {
        let (node, default) = (
            map(&[("log.cleaner.threads", "3"), ("log.cleaner.backoff.ms", "-1")]),
            map(&[("log.cleaner.threads", "2"), ("log.cleaner.io.max.bytes.per.second", "1000")]),
        );
        let fixed = map(&[("log.cleaner.backoff.ms", "7")]);
        let levels = Inherited { dynamic_node: &node, dynamic_default: &default, fixed: &fixed };
        let expected = CleanerConfig {
            threads: 3,
            backoff_ms: 7,
            io_max_bytes_per_second: 1000.0,
            max_decompressed_batch_bytes: 99,
            ..CleanerConfig::default()
        };
        assert_eq!(cleaner(&levels, 99), expected);
        let off = map(&[("log.cleaner.enable", "false")]);
        assert_eq!(cleaner(&Inherited { fixed: &off, ..levels }, 99).threads, 0);
    }

    #[test]
    fn the_default_resource_shows_only_what_is_set_for_all() {
        let entries = describe_default(&map(&[("log.roll.ms", "3")]));
        assert_eq!(entries.len(), 1);
        assert_eq!(
            (entries[0].value.as_deref(), entries[0].source),
            (Some("3"), Source::DynamicDefaultBroker)
        );
    }

    #[test]
    fn only_known_dynamic_keys_change() {
        let change = |name: &str, kind, value: &str| {
            let op = ConfigOp { name: name.to_owned(), kind, value: Some(value.to_owned()) };
            apply_ops(&ConfigMap::new(), &[op])
        };
        assert_eq!(change("log.roll.ms", OpKind::Set, "5"), Ok(map(&[("log.roll.ms", "5")])));
        let policy = change("log.cleanup.policy", OpKind::Append, "compact");
        assert_eq!(policy, Ok(map(&[("log.cleanup.policy", "delete,compact")])));
        let fixed = change("log.roll.hours", OpKind::Set, "5");
        assert_eq!(fixed, Err(InvalidConfig::NotDynamic { name: "log.roll.hours" }));
        assert_eq!(
            change("log.rol.ms", OpKind::Delete, "").unwrap_err().to_string(),
            "Unknown broker config name: log.rol.ms (did you mean log.roll.ms?)"
        );
    }

    #[test]
    fn a_changed_level_is_checked_as_a_whole() {
        let check = |node: &[(&str, &str)], default: &[(&str, &str)]| {
            let (node, default, fixed) = (map(node), map(default), ConfigMap::new());
            validate(&Inherited { dynamic_node: &node, dynamic_default: &default, fixed: &fixed })
        };
        assert_eq!(check(&[("log.segment.bytes", "1048576")], &[("log.roll.ms", "1")]), Ok(()));
        assert!(matches!(check(&[("log.segment.bytes", "1")], &[]), Err(InvalidConfig::Value { .. })));
        assert!(matches!(check(&[], &[("node.id", "1")]), Err(InvalidConfig::NotDynamic { .. })));
        let lags = check(
            &[("log.cleaner.max.compaction.lag.ms", "1")],
            &[("log.cleaner.min.compaction.lag.ms", "2")],
        );
        assert_eq!(lags, Err(InvalidConfig::CompactionLags { min_ms: 2, max_ms: 1 }));
    }
}

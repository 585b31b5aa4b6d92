//! What can be set for a group: the configs of share groups, each over a broker key that gives the default, and within bounds
//! that two more keys give.

use std::sync::Arc;

use super::topic_config::{ConfigEntry, ConfigOp, ConfigSynonym, InvalidConfig, Source, apply, check_value};
use crate::config::definition::Valid::{Any, AtLeast, OneOf};
use crate::config::definition::{ConfigType, Definition, Fault, Value, nearest, shortened};
use crate::config::{BrokerKey, Config, ConfigMap};

/// What the names of internal topics begin with: no group's dead letters go there.
pub const INTERNAL_PREFIX: &str = "__";

/// Where a share group begins in a partition that it has not read before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// Behind the last record.
    Latest,
    /// At the first record.
    Earliest,
    /// At the first record that is no older than this, ms.
    ByDuration(i64),
}

impl Reset {
    /// Reads `latest`, `earliest` or `by_duration:PnDTnHnMn.nS`.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "latest" => Some(Self::Latest),
            None if text == "earliest" => Some(Self::Earliest),
            Some(("by_duration", duration)) => duration_ms(duration).map(Self::ByDuration),
            _ => None,
        }
    }
}

/// Milliseconds of an ISO 8601 duration of days and less.
fn duration_ms(text: &str) -> Option<i64> {
    let text = text.strip_prefix('P')?;
    let (days, time) = text.split_once('T').unwrap_or((text, ""));
    let mut total_ms = 0.0;
    let mut is_empty = true;
    for (mut left, units) in [(days, &[('D', 86_400_000.0)][..]), (time, TIME_UNITS)] {
        for (unit, unit_ms) in units {
            if let Some((number, rest)) = left.split_once(*unit) {
                let is_number = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                total_ms += number.parse::<f64>().ok().filter(|_| is_number)? * unit_ms;
                left = rest;
                is_empty = false;
            }
        }
        if !left.is_empty() {
            return None;
        }
    }
    let is_duration = !is_empty && !text.ends_with('T') && total_ms < i64::MAX as f64;
    is_duration.then_some(total_ms as i64)
}

const TIME_UNITS: &[(char, f64)] = &[('H', 3_600_000.0), ('M', 60_000.0), ('S', 1_000.0)];

/// What a share group goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShareConfig {
    /// How long records are lent, ms.
    pub record_lock_duration_ms: i32,
    /// Deliveries after which a record is archived.
    pub delivery_count_limit: i32,
    /// Records of a partition that may be lent or waiting again at a time.
    pub partition_max_record_locks: i32,
    /// How often members shall send heartbeats, ms.
    pub heartbeat_interval_ms: i32,
    /// Silence after which a member is removed, ms.
    pub session_timeout_ms: i32,
    /// Whether a member may keep records for longer.
    pub renew_acknowledge_enable: bool,
    /// Where the group begins.
    pub auto_offset_reset: Reset,
    /// The topic of its dead letters, if they are kept. KIP-1191.
    pub dead_letter_topic: Option<Arc<str>>,
    /// Whether dead letters have the key, value and headers of their records, beside what is known of their end.
    pub dead_letters_copy_record: bool,
}

/// A config of groups.
#[derive(Clone, Copy, PartialEq, Debug)]
struct GroupConfig {
    definition: Definition,
    /// The broker key that gives its default, if one does.
    key: Option<&'static str>,
    /// The broker keys of the smallest and largest value.
    bounds: Option<(&'static str, &'static str)>,
}

/// Rows `/// doc, "config" kind default, valid, broker key, its bounds;`.
macro_rules! group_configs {
    ($($(#[doc = $doc:literal])+ $name:literal $kind:ident $default:literal, $valid:expr, $key:expr, $bounds:expr;)+) => {
        const GROUP_CONFIGS: &[GroupConfig] = &[$(GroupConfig {
            definition: Definition {
                name: $name,
                kind: ConfigType::$kind,
                default: Some($default),
                valid: $valid,
                doc: concat!($($doc),+).trim_ascii(),
            },
            key: $key,
            bounds: $bounds,
        }),+];
    };
}

const DEAD_LETTERS_COPY_RECORD: &str = "errors.deadletterqueue.copy.record.enable";
const DEAD_LETTER_TOPIC: &str = "errors.deadletterqueue.topic.name";
const RESET: &str = "share.auto.offset.reset";
const DELIVERIES: &str = "share.delivery.count.limit";
const HEARTBEAT: &str = "share.heartbeat.interval.ms";
const LOCKS: &str = "share.partition.max.record.locks";
const LOCK_DURATION: &str = "share.record.lock.duration.ms";
const RENEW: &str = "share.renew.acknowledge.enable";
const SESSION: &str = "share.session.timeout.ms";

group_configs! {
    /// Whether dead letters are copies of their records, and not just told of.
    "errors.deadletterqueue.copy.record.enable" Boolean "false", Any, None, None;
    /// The topic that rejected records and those that were delivered too often are written to; empty for none. It must have
    /// errors.deadletterqueue.group.enable, and a name with the broker's prefix.
    "errors.deadletterqueue.topic.name" String "", Any, None, None;
    /// Where the group begins in a partition: latest, earliest, or by_duration: and an ISO 8601 duration before now.
    "share.auto.offset.reset" String "latest", Any, None, None;
    /// Deliveries after which a record is archived.
    "share.delivery.count.limit" Int "5", AtLeast(2), Some("group.share.delivery.count.limit"),
        Some(("group.share.min.delivery.count.limit", "group.share.max.delivery.count.limit"));
    /// How often members send heartbeats, milliseconds.
    "share.heartbeat.interval.ms" Int "5000", AtLeast(1), Some("group.share.heartbeat.interval.ms"),
        Some(("group.share.min.heartbeat.interval.ms", "group.share.max.heartbeat.interval.ms"));
    /// Which records of transactions the group reads. Without transactions both are the same.
    "share.isolation.level" String "read_uncommitted", OneOf(&["read_committed", "read_uncommitted"]), None, None;
    /// Records of a partition that may be lent or waiting again at a time.
    "share.partition.max.record.locks" Int "2000", AtLeast(100), Some("group.share.partition.max.record.locks"),
        Some(("group.share.min.partition.max.record.locks", "group.share.max.partition.max.record.locks"));
    /// How long records are lent to a member, milliseconds.
    "share.record.lock.duration.ms" Int "30000", AtLeast(1000), Some("group.share.record.lock.duration.ms"),
        Some(("group.share.min.record.lock.duration.ms", "group.share.max.record.lock.duration.ms"));
    /// Whether a member may keep records for longer by renewing.
    "share.renew.acknowledge.enable" Boolean "true", Any, None, None;
    /// Silence after which a member is removed, milliseconds.
    "share.session.timeout.ms" Int "45000", AtLeast(1), Some("group.share.session.timeout.ms"),
        Some(("group.share.min.session.timeout.ms", "group.share.max.session.timeout.ms"));
}

impl GroupConfig {
    fn named(name: &str) -> Option<&'static Self> {
        GROUP_CONFIGS.iter().find(|config| config.definition.name == name)
    }

    /// The bounds that the broker's keys give.
    fn bounds(&self, config: &Config) -> (i64, i64) {
        let number = |name: &str| {
            let definition = BrokerKey::named(name)?.definition;
            let text = config.explicit().get(name).map(String::as_str).or(definition.default)?;
            definition.parse(text).ok().map(|value| value.as_i64())
        };
        let bounds = self.bounds.and_then(|(min, max)| Some((number(min)?, number(max)?)));
        bounds.unwrap_or((i64::MIN, i64::MAX))
    }

    /// Every place that gives a value, the one that counts first.
    fn synonyms(&self, configs: &ConfigMap, config: &Config) -> Vec<ConfigSynonym> {
        let own = configs.get(self.definition.name).map(|text| (self.definition, text, Source::DynamicGroup));
        let key = self.key.and_then(BrokerKey::named).map(|key| key.definition);
        let set = key.and_then(|key| Some((key, config.explicit().get(key.name)?, Source::StaticBroker)));
        let places = own.into_iter().chain(set).map(|(place, text, source)| (place, text.as_str(), source));
        let default = key.unwrap_or(self.definition);
        let all = places.chain(default.default.map(|text| (default, text, Source::Default)));
        let synonym = |(place, text, source): (Definition, &str, Source)| {
            let value = place.parse(text).ok()?.to_string();
            Some(ConfigSynonym { name: place.name, value, source })
        };
        all.filter_map(synonym).collect()
    }
}

/// What a group with these configs goes by. A number that was set when other bounds held counts as the nearest that is within.
pub fn effective(configs: Option<&ConfigMap>, config: &Config) -> ShareConfig {
    let set = |name: &str| {
        let group = GroupConfig::named(name)?;
        Some((group, group.definition.parse(configs?.get(name)?).ok()?))
    };
    let number = |name: &str, default: i32| match set(name) {
        Some((group, value)) => {
            let (min, max) = group.bounds(config);
            i32::try_from(value.as_i64().max(min).min(max)).unwrap_or(default)
        }
        None => default,
    };
    ShareConfig {
        record_lock_duration_ms: number(LOCK_DURATION, config.group_share_record_lock_duration_ms),
        delivery_count_limit: number(DELIVERIES, config.group_share_delivery_count_limit),
        partition_max_record_locks: number(LOCKS, config.group_share_partition_max_record_locks),
        heartbeat_interval_ms: number(HEARTBEAT, config.group_share_heartbeat_interval_ms),
        session_timeout_ms: number(SESSION, config.group_share_session_timeout_ms),
        renew_acknowledge_enable: !matches!(set(RENEW), Some((_, Value::Boolean(false)))),
        auto_offset_reset: match set(RESET) {
            Some((_, Value::String(text))) => Reset::parse(&text).unwrap_or(Reset::Latest),
            _ => Reset::Latest,
        },
        dead_letter_topic: match set(DEAD_LETTER_TOPIC) {
            Some((_, Value::String(name))) if !name.is_empty() => Some(name.into()),
            _ => None,
        },
        dead_letters_copy_record: matches!(set(DEAD_LETTERS_COPY_RECORD), Some((_, Value::Boolean(true)))),
    }
}

/// All configs of a group, by name.
pub fn describe(configs: &ConfigMap, config: &Config) -> Vec<ConfigEntry> {
    let entry = |group: &GroupConfig| {
        let synonyms = group.synonyms(configs, config);
        ConfigEntry {
            name: group.definition.name.to_owned(),
            value: synonyms.first().map(|first| first.value.clone()),
            source: synonyms.first().map_or(Source::Default, |first| first.source),
            read_only: false,
            sensitive: false,
            synonyms,
            type_code: group.definition.kind.code(),
            documentation: group.definition.doc,
        }
    };
    GROUP_CONFIGS.iter().map(entry).collect()
}

/// A group's configs after these changes, not yet validated as a whole ([`validate`]).
pub fn apply_ops(current: &ConfigMap, ops: &[ConfigOp]) -> Result<ConfigMap, InvalidConfig> {
    ops.iter().try_for_each(|op| known(&op.name).map(drop))?;
    apply(current, ops, |name| GroupConfig::named(name).map(|group| &group.definition))
}

/// Checks all configs of a group: names, values, and the broker's bounds.
pub fn validate(configs: &ConfigMap, config: &Config) -> Result<(), InvalidConfig> {
    for (name, text) in configs {
        let group = known(name)?;
        check_value(&group.definition, text)?;
        let wrong = |fault| InvalidConfig::Value { name: name.clone(), value: shortened(text), fault };
        if name == RESET && Reset::parse(text.trim()).is_none() {
            return Err(wrong(Fault::Expected("latest, earliest or by_duration:PnDTnHnMn.nS")));
        }
        if name == DEAD_LETTER_TOPIC && text.trim().starts_with(INTERNAL_PREFIX) {
            return Err(wrong(Fault::Expected("a name that does not start with __")));
        }
        let number = group.definition.parse(text).map_or(0, |value| value.as_i64());
        let (min, max) = group.bounds(config);
        if group.bounds.is_some() && number < min {
            return Err(wrong(Fault::TooSmall(min)));
        }
        if group.bounds.is_some() && number > max {
            return Err(wrong(Fault::TooLarge(max)));
        }
    }
    Ok(())
}

fn known(name: &str) -> Result<&'static GroupConfig, InvalidConfig> {
    GroupConfig::named(name).ok_or_else(|| InvalidConfig::UnknownGroupConfig {
        name: shortened(name),
        nearest: nearest(name, GROUP_CONFIGS.iter().map(|config| config.definition.name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(settings: &[(&str, &str)]) -> ConfigMap {
        settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn defaults_are_those_of_the_broker_keys_and_names_are_known() {
        let config = Config::default();
        for group in GROUP_CONFIGS {
            assert!(group.definition.parse(group.definition.default.unwrap()).is_ok());
            if let Some(key) = group.key {
                let key = BrokerKey::named(key).unwrap();
                assert_eq!(key.definition.default, group.definition.default, "{}", group.definition.name);
                let (min, max) = group.bounds(&config);
                let default = group.definition.parse(group.definition.default.unwrap()).unwrap().as_i64();
                assert!(min <= default && default <= max, "{}", group.definition.name);
            }
        }
        let all = [RESET, DELIVERIES, HEARTBEAT, LOCKS, LOCK_DURATION, RENEW, SESSION];
        let of_dead_letters = [DEAD_LETTER_TOPIC, DEAD_LETTERS_COPY_RECORD];
        assert!(of_dead_letters.into_iter().all(|name| GroupConfig::named(name).is_some()));
        assert!(all.into_iter().all(|name| GroupConfig::named(name).is_some()));
        let effective = effective(None, &config);
        assert_eq!((effective.record_lock_duration_ms, effective.delivery_count_limit), (30_000, 5));
        assert!(effective.renew_acknowledge_enable && effective.auto_offset_reset == Reset::Latest);
        assert_eq!((effective.dead_letter_topic, effective.dead_letters_copy_record), (None, false));
    }

    #[test]
    fn dead_letters_go_to_any_topic_but_an_internal_one() {
        let config = Config::default();
        let set = map(&[(DEAD_LETTER_TOPIC, " dlq.t "), (DEAD_LETTERS_COPY_RECORD, "true")]);
        assert!(validate(&set, &config).is_ok());
        let found = effective(Some(&set), &config);
        assert_eq!(
            (found.dead_letter_topic.as_deref(), found.dead_letters_copy_record),
            (Some("dlq.t"), true)
        );
        assert!(validate(&map(&[(DEAD_LETTER_TOPIC, "")]), &config).is_ok());
        let refused = validate(&map(&[(DEAD_LETTER_TOPIC, "__consumer_offsets")]), &config).unwrap_err();
        assert!(refused.to_string().ends_with("does not start with __"), "{refused}");
    }

    #[test]
    fn what_is_set_counts_within_the_brokers_bounds() {
        let config = Config::default();
        let set = map(&[(LOCK_DURATION, "1000"), (DELIVERIES, "10"), (RESET, "earliest"), (RENEW, "false")]);
        let found = effective(Some(&set), &config);
        assert_eq!((found.record_lock_duration_ms, found.delivery_count_limit), (15_000, 10));
        assert_eq!((found.auto_offset_reset, found.renew_acknowledge_enable), (Reset::Earliest, false));
        let refused = |name: &str, value: &str| validate(&map(&[(name, value)]), &config).is_err();
        assert!(
            refused(LOCK_DURATION, "1000") && refused(DELIVERIES, "11") && refused(RESET, "by_duration:1h")
        );
        assert!(
            refused("share.lock", "1") && !refused(RESET, "by_duration:PT1H") && !refused(DELIVERIES, "2")
        );
        let described = describe(&set, &config);
        let entry = described.iter().find(|entry| entry.name == DELIVERIES).unwrap();
        assert_eq!((entry.value.as_deref(), entry.source), (Some("10"), Source::DynamicGroup));
        assert_eq!(entry.synonyms.len(), 2);
    }

    #[test]
    fn durations_are_those_of_java() {
        for (text, ms) in
            [("PT1S", 1_000), ("P1DT2H3M4.5S", 93_784_500), ("PT0.001S", 1), ("P2D", 172_800_000)]
        {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for text in ["", "P", "PT", "P1DT", "1h", "PT1", "PT-1S", "PTS", "P1H", "PT1SM", "PT1S1M"] {
            assert_eq!(duration_ms(text), None, "{text}");
        }
    }
}

//! Topics to create at start, written `name:partitions[:key=value...]`.

use std::fmt;

use super::ConfigMap;
use super::definition::Fault;

const FORM: Fault = Fault::Expected("name:partitions[:key=value...]");

/// Most partitions that one topic can have.
pub const MAX_PARTITIONS: i32 = 10_000;

/// A topic to create at start unless it exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSpec {
    /// The name as given; the catalog checks it when it creates the topic.
    pub name: String,
    /// From 1 to [`MAX_PARTITIONS`].
    pub partitions: i32,
    /// Topic configs as given; the registry of topic configs checks them.
    pub configs: ConfigMap,
}

impl TopicSpec {
    /// Between topics of a list: neither names nor values have it, and values do have commas.
    pub const SEPARATOR: char = ';';

    /// Reads topics separated by [`TopicSpec::SEPARATOR`]; an empty text is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Fault> {
        text.split(Self::SEPARATOR).map(str::trim).filter(|one| !one.is_empty()).map(Self::parse).collect()
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        let mut parts = text.split(':');
        let name = parts.next().filter(|name| !name.is_empty()).ok_or(FORM)?.to_owned();
        let partitions = parts.next().and_then(|count| count.parse().ok()).ok_or(FORM)?;
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(Fault::Expected("1 to 10000 partitions"));
        }
        let mut configs = ConfigMap::new();
        for (key, value) in settings(parts).ok_or(FORM)? {
            if configs.insert(key, value).is_some() {
                return Err(Fault::Expected("each config of a topic once"));
            }
        }
        Ok(Self { name, partitions, configs })
    }
}

/// Names and values, without the space around them. A part without `=` belongs to the value before it, which had a colon (as lists
/// of throttled replicas have).
pub(super) fn settings<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Vec<(String, String)>> {
    let mut settings: Vec<(&str, String)> = Vec::new();
    for part in parts {
        match (part.split_once('=').map(|(key, value)| (key.trim(), value)), settings.last_mut()) {
            (Some(("", _)), _) | (None, None) => return None,
            (Some((key, value)), _) => settings.push((key, value.to_owned())),
            (None, Some((_, value))) => {
                value.push(':');
                value.push_str(part);
            }
        }
    }
    Some(settings.into_iter().map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
}

impl fmt::Display for TopicSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.partitions)?;
        self.configs.iter().try_for_each(|(key, value)| write!(f, ":{key}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn topics_are_read_with_their_configs() {
        let topics = TopicSpec::parse_list(
            "a:1; b:3:cleanup.policy=compact,delete:leader.replication.throttled.replicas=0:1,1:1; c:2: k = v :l= ;",
        )
        .unwrap();
        assert_eq!(topics.len(), 3);
        assert_eq!(topics[0], TopicSpec { name: "a".into(), partitions: 1, configs: ConfigMap::new() });
        assert_eq!(topics[1].configs["cleanup.policy"], "compact,delete");
        assert_eq!(topics[1].configs["leader.replication.throttled.replicas"], "0:1,1:1");
        let spaced = ConfigMap::from([("k".to_owned(), "v".to_owned()), ("l".to_owned(), String::new())]);
        assert_eq!(topics[2].configs, spaced);
        assert_eq!(TopicSpec::parse_list(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_topic_is_refused() {
        for text in
            ["a", "a:", "a:x", "a:0", "a:-1", "a:10001", ":1", "a:1:x", "a:1:=x", "a:1: =x", "a:1:k=1: k =2"]
        {
            assert!(TopicSpec::parse_list(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reads_back(text in "[a-c:= ;0-9.,]{0,40}|.{0,40}") {
            if let Ok(topics) = TopicSpec::parse_list(&text) {
                for topic in topics {
                    prop_assert_eq!(TopicSpec::parse_list(&topic.to_string()), Ok(vec![topic.clone()]));
                }
            }
        }
    }
}

//! Queues to create at start, written `name[:key=value...]`.

use std::fmt;

use super::ConfigMap;
use super::definition::Fault;
use super::topic_spec::{MAX_PARTITIONS, TopicSpec, settings};

const FORM: Fault = Fault::Expected("name[:key=value...]");

/// What the topic configs of queues begin with; a queue's settings are written without it.
const PREFIX: &str = "ottla.queue.";

/// The topic config that makes a topic a queue.
const ENABLE: &str = "ottla.queue.enable";

/// What is written like a setting, but is the number of partitions.
const PARTITIONS: &str = "partitions";

/// A queue to create at start unless it exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueSpec {
    /// The name as given; the catalog checks it when it creates the topic.
    pub name: String,
    /// From 1 to [`MAX_PARTITIONS`]; [`QueueSpec::DEFAULT_PARTITIONS`] if `None`.
    pub partitions: Option<i32>,
    /// Topic configs with their whole names, [`ENABLE`] among them; the registry of topic configs checks them.
    pub configs: ConfigMap,
}

impl QueueSpec {
    /// Partitions of a queue, unless told otherwise: its order is then that of one log.
    pub const DEFAULT_PARTITIONS: i32 = 1;

    /// Reads queues separated by [`TopicSpec::SEPARATOR`]; an empty text is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Fault> {
        let each = text.split(TopicSpec::SEPARATOR).map(str::trim);
        each.filter(|one| !one.is_empty()).map(Self::parse).collect()
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        let mut parts = text.split(':');
        let name = parts.next().filter(|name| !name.is_empty() && !name.contains('=')).ok_or(FORM)?;
        let mut partitions = None;
        let mut configs = ConfigMap::from([(ENABLE.to_owned(), "true".to_owned())]);
        for (key, value) in settings(parts).ok_or(FORM)? {
            let is_new = match &*key {
                PARTITIONS => partitions.replace(count(&value)?).is_none(),
                _ => configs.insert(format!("{PREFIX}{key}"), value).is_none(),
            };
            if !is_new {
                return Err(Fault::Expected("each setting of a queue once"));
            }
        }
        Ok(Self { name: name.to_owned(), partitions, configs })
    }
}

fn count(text: &str) -> Result<i32, Fault> {
    let count = text.parse().ok().filter(|count| (1..=MAX_PARTITIONS).contains(count));
    count.ok_or(Fault::Expected("1 to 10000 partitions"))
}

impl fmt::Display for QueueSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.partitions.map_or(Ok(()), |count| write!(f, ":{PARTITIONS}={count}"))?;
        for (name, value) in self.configs.iter().filter(|(name, _)| *name != ENABLE) {
            write!(f, ":{}={value}", name.strip_prefix(PREFIX).unwrap_or(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queues_are_read_with_their_settings() {
        let queues = QueueSpec::parse_list("a; b:delay.ms=5:partitions=3:fifo=true;").unwrap();
        assert_eq!(queues.len(), 2);
        let plain = ConfigMap::from([(ENABLE.to_owned(), "true".to_owned())]);
        assert_eq!(queues[0], QueueSpec { name: "a".into(), partitions: None, configs: plain });
        assert_eq!((&*queues[1].name, queues[1].partitions), ("b", Some(3)));
        let configs: Vec<_> =
            queues[1].configs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            configs,
            [("ottla.queue.delay.ms", "5"), ("ottla.queue.enable", "true"), ("ottla.queue.fifo", "true")]
        );
        let spaced = QueueSpec::parse_list("a: partitions = 3 :b=0 :a=1").unwrap();
        assert_eq!(QueueSpec::parse_list("a:a=1:b=0:partitions=3"), Ok(spaced));
        assert_eq!(QueueSpec::parse_list(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_queue_is_refused() {
        for text in
            [":fifo=true", "fifo=true", "a:", "a:1", "a:x", "a:=x", "a:partitions=0", "a:partitions=10001"]
        {
            assert!(QueueSpec::parse_list(text).is_err(), "{text:?}");
        }
        for text in ["a:k=1:k=2", "a:partitions=1:partitions=1", "a:enable=false"] {
            let refused = QueueSpec::parse_list(text);
            assert_eq!(refused, Err(Fault::Expected("each setting of a queue once")), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reads_back(text in "[a-c:= ;0-9.,]{0,40}|.{0,40}") {
            if let Ok(queues) = QueueSpec::parse_list(&text) {
                for queue in queues {
                    prop_assert_eq!(QueueSpec::parse_list(&queue.to_string()), Ok(vec![queue.clone()]));
                }
            }
        }
    }
}

//! The broker's configuration: built-in defaults, over them a TOML file, over that `OTTLA_...` variables, over these the
//! command line. Names are Kafka's where Kafka has the thing; the one table of keys is in [`keys`].
//!
//! This module knows what a key is and what it takes. It does not know topic configs (`catalog::topic_config` does, and
//! finds the defaults of topics in [`Config::explicit`]), and it acts on nothing.

mod arn;
pub mod definition;
mod endpoint;
mod file;
mod keys;
mod queue_spec;
mod topic_spec;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

pub use arn::{AccountId, Region};
use definition::{Definition, Fault, nearest, shortened};
pub use endpoint::{Endpoint, default_name};
pub use keys::{BrokerKey, Config};
pub(crate) use keys::{CODECS, FLUSH_MODES, MAX_DECOMPRESSED, POLICIES, TIMESTAMP_TYPES};
pub use queue_spec::QueueSpec;
pub use topic_spec::{MAX_PARTITIONS, TopicSpec};

/// Settings as text, by name: what was set, without defaults.
pub type ConfigMap = BTreeMap<String, String>;

const ENVIRONMENT_PREFIX: &str = "OTTLA_";

/// Form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    const NAMES: [&str; 2] = ["text", "json"];
}

/// Where a setting came from, as an error names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The config file at this path.
    File(PathBuf),
    /// The variable of this name.
    Environment(String),
    /// A flag.
    CommandLine,
    /// The program that embeds the broker.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::CommandLine => f.write_str("command line"),
            Self::Program => f.write_str("settings"),
        }
    }
}

/// Why there is no [`Config`]. Displays as one line that names the place, the key, the value and what is valid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The config file cannot be opened or is not UTF-8.
    #[error("cannot read the config file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The config file is beyond its limit.
    #[error("the config file {} is larger than {max_bytes} bytes", .path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        max_bytes: u64,
    },
    /// The config file is not TOML.
    #[error("{}, line {line}: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A value of the config file that no key takes.
    #[error("{origin}: {name:?} is neither text, number, true, false nor a list of these")]
    NotASetting {
        /// The file.
        origin: Origin,
        /// The key.
        name: String,
    },
    /// A key given twice in one place.
    #[error("{origin}: {name:?} is given twice")]
    Twice {
        /// The place.
        origin: Origin,
        /// The key.
        name: String,
    },
    /// A key that is not in the table.
    #[error("{origin}: unknown key {}{}", quoted(.name), hint(*.nearest))]
    UnknownKey {
        /// Where it was found.
        origin: Origin,
        /// The key as given.
        name: String,
        /// The known key that was most likely meant.
        nearest: Option<&'static str>,
    },
    /// A value that its key does not take.
    #[error("{origin}: invalid value {} for {name}: {fault}", quoted(.value))]
    Value {
        /// Where it was found.
        origin: Origin,
        /// The key.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A variable whose value is not text.
    #[error("{variable}: the value is not UTF-8")]
    NotUtf8 {
        /// The variable.
        variable: String,
    },
    /// Nowhere to listen.
    #[error("listeners must have at least one HOST:PORT")]
    NoListener,
    /// A name that must be unique in a list is there twice.
    #[error("{key} has {} twice", quoted(.name))]
    Duplicate {
        /// The key that holds the list.
        key: &'static str,
        /// The name.
        name: String,
    },
    /// An advertised address without a listener.
    #[error("advertised.listeners has {}, but no listener has that name", quoted(.name))]
    NoSuchListener {
        /// The name.
        name: String,
    },
    /// An advertised address that no client could connect to.
    #[error("advertised.listeners has {endpoint}, which no client can connect to: give a host and a port")]
    Unreachable {
        /// The address.
        endpoint: Endpoint,
    },
    /// The global budget would never let the largest request in.
    #[error(
        "queued.max.request.bytes ({queued}) must be at least socket.request.max.bytes ({request}), \
         or the largest requests would wait for ever"
    )]
    BudgetTooSmall {
        /// `queued.max.request.bytes`.
        queued: usize,
        /// `socket.request.max.bytes`.
        request: usize,
    },
}

/// A text from outside in quotes, on one line and not too long.
fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean {name}?"))
}

/// What was set in one place, by name.
struct Layer {
    settings: Vec<(Origin, String, String)>,
}

impl Config {
    /// Defaults, then `file`, then the variables that begin with `OTTLA_`, then `flags` (names and values); what comes
    /// later wins. Also gives the names of such variables that mean nothing: orchestrators inject them, so they are worth a
    /// warning only.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let from_file = match file {
            None => Layer { settings: Vec::new() },
            Some(path) => Layer::of(Origin::File(path.to_owned()), file::read(path)?),
        };
        let (from_environment, unknown) = Layer::of_environment(environment)?;
        let from_flags = Layer::of(Origin::CommandLine, flags);
        from_flags.check_unique()?;
        Ok((Self::from_layers([from_file, from_environment, from_flags])?, unknown))
    }

    /// Defaults and these names and values over them.
    pub fn from_settings<K: Into<String>, V: Into<String>>(
        settings: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let settings = settings.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self::from_layers([Layer::of(Origin::Program, settings)])
    }

    /// Settings of a broker for a test: any free port of the loopback, data in a temporary directory that is gone with the
    /// broker, records that count once written.
    pub fn ephemeral() -> Self {
        Self::from_settings([("listeners", "127.0.0.1:0"), ("ottla.ephemeral", "true")])
            .expect("these values are valid, as a test asserts")
    }

    /// These settings and a topic to have at start. Whether it can be made the start says.
    pub fn topic(mut self, name: impl Into<String>, partitions: i32) -> Self {
        self.topics.push(TopicSpec { name: name.into(), partitions, configs: ConfigMap::new() });
        let topics: Vec<_> = self.topics.iter().map(ToString::to_string).collect();
        self.explicit.insert("ottla.topics".to_owned(), topics.join(&TopicSpec::SEPARATOR.to_string()));
        self
    }

    /// These settings but for one, by its name in `config.toml`.
    ///
    /// # Errors
    /// A name or a value that is none.
    pub fn with(self, name: impl Into<String>, value: impl Into<String>) -> Result<Self, ConfigError> {
        Self::from_settings(self.explicit.into_iter().chain([(name.into(), value.into())]))
    }

    /// What was set, by name, as parsed and shown again (blanks dropped): the static level of DescribeConfigs.
    pub fn explicit(&self) -> &ConfigMap {
        &self.explicit
    }

    /// Where data is kept: `log.dirs`, or `log.dir` without it.
    pub fn directories(&self) -> &[PathBuf] {
        match &self.log_dirs[..] {
            [] => std::slice::from_ref(&self.log_dir),
            several => several,
        }
    }

    /// The address that clients of the listener of this name are given; `None` for the one that they connected to.
    pub fn advertised(&self, listener_name: &str) -> Option<&Endpoint> {
        self.advertised_listeners.iter().find(|endpoint| endpoint.name == listener_name)
    }

    fn from_layers(layers: impl IntoIterator<Item = Layer>) -> Result<Self, ConfigError> {
        let mut explicit = ConfigMap::new();
        let mut origins = BTreeMap::new();
        for (origin, name, value) in layers.into_iter().flat_map(|layer| layer.settings) {
            let definition = defined(&name, &origin)?;
            let parsed = definition.parse(&value).map_err(|fault| ConfigError::Value {
                origin: origin.clone(),
                name: definition.name,
                value,
                fault,
            })?;
            explicit.insert(name, parsed.to_string());
            origins.insert(definition.name, origin);
        }
        if explicit.get("ottla.ephemeral").is_some_and(|value| value == "true") {
            explicit.entry("ottla.flush".to_owned()).or_insert_with(|| "os".to_owned());
        }
        let config = Self::from_explicit(explicit.clone()).map_err(|(name, fault)| ConfigError::Value {
            origin: origins.remove(name).unwrap_or(Origin::Program),
            name,
            value: explicit.remove(name).unwrap_or_default(),
            fault,
        })?;
        config.check()?;
        Ok(config)
    }

    /// The rules between keys.
    fn check(&self) -> Result<(), ConfigError> {
        if self.listeners.is_empty() {
            return Err(ConfigError::NoListener);
        }
        check_names("listeners", self.listeners.iter().map(|endpoint| &endpoint.name))?;
        check_names("advertised.listeners", self.advertised_listeners.iter().map(|endpoint| &endpoint.name))?;
        let directories: Vec<_> = self.log_dirs.iter().map(|path| path.display().to_string()).collect();
        check_names("log.dirs", directories.iter())?;
        let topics = self.topics.iter().map(|topic| &topic.name);
        check_names("ottla.topics", topics.clone())?;
        // A queue is a topic, too.
        check_names("ottla.queues", topics.chain(self.queues.iter().map(|queue| &queue.name)))?;
        for endpoint in &self.advertised_listeners {
            if self.listeners.iter().all(|listener| listener.name != endpoint.name) {
                return Err(ConfigError::NoSuchListener { name: endpoint.name.clone() });
            }
            if endpoint.is_unreachable() {
                return Err(ConfigError::Unreachable { endpoint: endpoint.clone() });
            }
        }
        let (queued, request) = (self.queued_max_request_bytes, self.socket_request_max_bytes);
        if queued < request {
            return Err(ConfigError::BudgetTooSmall { queued, request });
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::from_explicit(ConfigMap::new())
            .expect("the defaults of the table are valid, as a test of it asserts")
    }
}

impl Layer {
    fn of(origin: Origin, settings: impl IntoIterator<Item = (String, String)>) -> Self {
        let settings = settings.into_iter().map(|(name, value)| (origin.clone(), name, value)).collect();
        Self { settings }
    }

    /// Known `OTTLA_` variables as settings, and the names of the unknown ones.
    fn of_environment(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let known: BTreeMap<String, &str> =
            BrokerKey::all().map(|key| (key.environment_name(), key.definition.name)).collect();
        let mut settings = Vec::new();
        let mut unknown = Vec::new();
        for (variable, value) in variables {
            let variable = variable.to_string_lossy().into_owned();
            match known.get(&variable) {
                Some(name) => {
                    let Ok(value) = value.into_string() else {
                        return Err(ConfigError::NotUtf8 { variable });
                    };
                    settings.push((Origin::Environment(variable), (*name).to_owned(), value));
                }
                None if variable.starts_with(ENVIRONMENT_PREFIX) => unknown.push(variable),
                None => {}
            }
        }
        unknown.sort();
        Ok((Self { settings }, unknown))
    }

    /// Flags come from several places of the command line: the same key twice is a contradiction, not a choice.
    fn check_unique(&self) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        match self.settings.iter().find(|(_, name, _)| !names.insert(name)) {
            None => Ok(()),
            Some((origin, name, _)) => Err(ConfigError::Twice { origin: origin.clone(), name: name.clone() }),
        }
    }
}

fn defined(name: &str, origin: &Origin) -> Result<&'static Definition, ConfigError> {
    BrokerKey::named(name).map(|key| &key.definition).ok_or_else(|| ConfigError::UnknownKey {
        origin: origin.clone(),
        name: name.to_owned(),
        nearest: nearest(name, BrokerKey::all().map(|key| key.definition.name)),
    })
}

fn check_names<'a>(key: &'static str, names: impl Iterator<Item = &'a String>) -> Result<(), ConfigError> {
    let mut known = BTreeSet::new();
    for name in names {
        if !known.insert(name) {
            return Err(ConfigError::Duplicate { key, name: name.clone() });
        }
    }
    Ok(())
}

/// How a field of [`Config`] is made of a value that its definition has already checked.
trait FromText: Sized {
    fn from_text(text: &str) -> Result<Self, Fault>;
}

/// For types whose range is narrower than the definition can say.
macro_rules! from_text_by_parsing {
    ($($type:ty: $expected:literal),+) => {$(
        impl FromText for $type {
            fn from_text(text: &str) -> Result<Self, Fault> {
                text.parse().map_err(|_| Fault::Expected($expected))
            }
        }
    )+};
}

from_text_by_parsing!(
    bool: "true or false",
    i32: "a number",
    i64: "a number",
    u64: "a number, not negative",
    usize: "a number, not negative",
    String: "text"
);

impl FromText for PathBuf {
    fn from_text(text: &str) -> Result<Self, Fault> {
        Option::from_text(text)?.ok_or(Fault::Expected("a path"))
    }
}

impl FromText for Option<PathBuf> {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if text.contains('\0') {
            return Err(Fault::Expected("a path without NUL bytes"));
        }
        Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
    }
}

impl FromText for Vec<PathBuf> {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if text.is_empty() { Ok(Vec::new()) } else { text.split(',').map(PathBuf::from_text).collect() }
    }
}

impl FromText for Vec<Endpoint> {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if text.is_empty() { Ok(Vec::new()) } else { Endpoint::parse_list(text) }
    }
}

impl FromText for Vec<TopicSpec> {
    fn from_text(text: &str) -> Result<Self, Fault> {
        TopicSpec::parse_list(text)
    }
}

impl FromText for Vec<QueueSpec> {
    fn from_text(text: &str) -> Result<Self, Fault> {
        QueueSpec::parse_list(text)
    }
}

impl FromText for LogFormat {
    fn from_text(text: &str) -> Result<Self, Fault> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Fault::NotOneOf(&Self::NAMES)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::definition::{ConfigType, Valid};
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write;
    use std::os::unix::ffi::OsStringExt;

    fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let written = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(written.path(), file).unwrap();
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        let flags = flags.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::load(Some(written.path()), environment, flags).map(|(config, _)| config)
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let file = "num.partitions = 2\nnode.id = 2\nmax.connections = 2";
        let environment = [("OTTLA_NUM_PARTITIONS", "3"), ("OTTLA_NODE_ID", "3")];
        let config = load(file, &environment, &[("num.partitions", "4")]).unwrap();
        assert_eq!((config.num_partitions, config.node_id, config.max_connections), (4, 3, 2));
        assert_eq!(config.fetch_max_bytes, Config::default().fetch_max_bytes);
        let explicit: Vec<_> =
            config.explicit().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(explicit, [("max.connections", "2"), ("node.id", "3"), ("num.partitions", "4")]);
    }

    #[test]
    fn unknown_variables_are_told_and_unknown_keys_refused() {
        let variables = ["OTTLA_PORT", "PATH", "OTTLA_NODE_ID"].map(|name| (name.into(), "7".into()));
        let (config, unknown) = Config::load(None, variables, []).unwrap();
        assert_eq!(unknown, ["OTTLA_PORT"]);
        assert_eq!(config.node_id, 7);
        let message = load("[num]\npartitons = 1", &[], &[]).unwrap_err().to_string();
        assert!(
            message.ends_with(r#": unknown key "num.partitons", did you mean num.partitions?"#),
            "{message}"
        );
        let message = load("", &[], &[("zookeeper.connect", "x")]).unwrap_err().to_string();
        assert_eq!(message, r#"command line: unknown key "zookeeper.connect""#);
    }

    #[test]
    fn a_variable_that_is_not_text_is_refused() {
        let variables = [("OTTLA_LOG_DIR".into(), OsString::from_vec(vec![b'/', 0xff]))];
        let message = Config::load(None, variables, []).unwrap_err().to_string();
        assert_eq!(message, "OTTLA_LOG_DIR: the value is not UTF-8");
    }

    #[test]
    fn a_bad_value_names_place_key_value_and_what_is_valid() {
        for (name, value, expected) in [
            ("num.partitions", "0", r#"invalid value "0" for num.partitions: Value must be at least 1"#),
            (
                "default.replication.factor",
                "3",
                r#"invalid value "3" for default.replication.factor: Value must be no more than 1"#,
            ),
            (
                "auto.create.topics.enable",
                "yes",
                r#"invalid value "yes" for auto.create.topics.enable: Expected value to be either true or false"#,
            ),
            ("log.dir", " ", r#"invalid value "" for log.dir: expected a path"#),
            (
                "listeners",
                "SSL://h:1",
                r#"invalid value "SSL://h:1" for listeners: expected a plaintext listener: TLS and SASL are not supported"#,
            ),
            (
                "ottla.log.format",
                "xml",
                r#"invalid value "xml" for ottla.log.format: String must be one of: text, json"#,
            ),
        ] {
            let message = Config::from_settings([(name, value)]).unwrap_err().to_string();
            assert_eq!(message, format!("settings: {expected}"));
        }
        let message = load("", &[("OTTLA_NODE_ID", "a\nb")], &[]).unwrap_err().to_string();
        assert_eq!(message, r#"OTTLA_NODE_ID: invalid value "a\nb" for node.id: Not a number of type INT"#);
        let long = "x".repeat(1 << 20);
        assert!(Config::from_settings([("node.id", &long)]).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn rules_between_keys_hold() {
        for (settings, expected) in [
            (&[("listeners", "")][..], "listeners must have at least one HOST:PORT"),
            (&[("listeners", "a://h:1,A://h:2")], r#"listeners has "A" twice"#),
            (
                &[("advertised.listeners", "x://h:1")],
                r#"advertised.listeners has "X", but no listener has that name"#,
            ),
            (
                &[("advertised.listeners", ":1")],
                "advertised.listeners has PLAINTEXT://0.0.0.0:1, which no client can",
            ),
            (&[("ottla.topics", "a:1;a:2")], r#"ottla.topics has "a" twice"#),
            (&[("ottla.queues", "a;a")], r#"ottla.queues has "a" twice"#),
            (&[("ottla.topics", "a:1"), ("ottla.queues", "a")], r#"ottla.queues has "a" twice"#),
            (
                &[("queued.max.request.bytes", "5")],
                "queued.max.request.bytes (5) must be at least socket.request",
            ),
        ] {
            let message = Config::from_settings(settings.iter().copied()).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn an_empty_value_is_none_where_none_is_possible() {
        let config = Config::from_settings([("ottla.ready.file", ""), ("advertised.listeners", "")]).unwrap();
        assert_eq!((config.ready_file, config.advertised_listeners.len()), (None, 0));
    }

    /// The text of `config.toml`: every key with its line for people, commented out at its default.
    fn annotated() -> String {
        let mut text = String::from(
            "# The settings of ottla, each at its default. A copy of this file, edited, is read with --config PATH.\n\
             #\n\
             # Over the file stand environment variables: OTTLA_ and the name in capitals with _ for ., without the ottla. of\n\
             # names that begin with it (num.partitions: OTTLA_NUM_PARTITIONS, ottla.flush: OTTLA_FLUSH). Over these stand\n\
             # flags (--set KEY=VALUE for any key). Names may be written dotted or as tables. Topics inherit the keys that are\n\
             # called a default, unless a topic config of their own says otherwise.\n",
        );
        for key in BrokerKey::all().map(|key| &key.definition) {
            text.push('\n');
            let mut line = String::from("#");
            for word in format!("{} {}", key.doc, valid(key)).split_whitespace() {
                if line.len() + 1 + word.len() > 118 {
                    writeln!(text, "{line}").unwrap();
                    line = String::from("#");
                }
                write!(line, " {word}").unwrap();
            }
            writeln!(text, "{line}\n#{} = {}", toml_name(key.name), toml_value(key)).unwrap();
        }
        text
    }

    fn valid(key: &Definition) -> String {
        let kind = key.kind.to_string().to_ascii_lowercase();
        match key.valid {
            Valid::Any | Valid::ThrottledReplicas => format!("({kind})"),
            Valid::AtLeast(least) => format!("({kind}, at least {least})"),
            Valid::Between(least, most) => format!("({kind}, {least} to {most})"),
            Valid::BetweenOrMinusOne(least, most) => format!("({kind}, {least} to {most}, or -1)"),
            Valid::OneOf(texts) => format!("({kind}: {})", texts.join(", ")),
        }
    }

    /// TOML reads `a` and `a.b` as a value and a table of one name, unless the first is quoted.
    fn toml_name(name: &str) -> String {
        let table = format!("{name}.");
        match BrokerKey::all().any(|key| key.definition.name.starts_with(&table)) {
            true => format!("{name:?}"),
            false => name.to_owned(),
        }
    }

    fn toml_value(key: &Definition) -> String {
        match (key.default, key.kind) {
            (None, _) => "(not set)".to_owned(),
            (Some(text), ConfigType::String) => format!("{text:?}"),
            (Some(""), ConfigType::List) => "[]".to_owned(),
            (Some(text), ConfigType::List) => {
                format!("[{:?}]", text.split(',').collect::<Vec<_>>().join("\", \""))
            }
            (Some(text), _) => text.to_owned(),
        }
    }

    #[test]
    fn config_toml_has_every_key_at_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
        if std::env::var_os("REWRITE_CONFIG_TOML").is_some() {
            std::fs::write(&path, annotated()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, annotated(), "run this test with REWRITE_CONFIG_TOML=1 and look at the difference");
        assert_eq!(load(&text, &[], &[]).unwrap(), Config::default());

        let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
        let settings = text.lines().filter(is_setting).map(|line| &line[1..]);
        let settings: Vec<_> = settings.filter(|line| !line.ends_with("(not set)")).collect();
        let mut config = load(&settings.join("\n"), &[], &[]).unwrap();
        let with_default = BrokerKey::all().filter(|key| key.definition.default.is_some());
        assert_eq!(config.explicit().len(), with_default.count());
        config.explicit.clear();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_broker_for_a_test_takes_a_free_port_and_leaves_nothing() {
        let config = Config::ephemeral().topic("a", 1).topic("b", 3);
        assert_eq!(config.listeners[0].address(), "127.0.0.1:0");
        assert!(config.ephemeral && config.explicit()["ottla.flush"] == "os");
        let config = config.with("num.partitions", "4").unwrap();
        assert_eq!((config.num_partitions, config.topics.len()), (4, 2));
        assert_eq!(
            config.topics[1],
            TopicSpec { name: "b".into(), partitions: 3, configs: ConfigMap::new() }
        );
        assert_eq!(config.explicit()["ottla.topics"], "a:1;b:3");
        assert!(config.with("num.partition", "4").is_err());
    }

    proptest! {
        #[test]
        fn no_value_of_any_key_panics(pick in 0usize..1000, value in "-?[0-9]{0,20}|[a-z:/.,;=0-9]{0,30}|.{0,30}") {
            let key = BrokerKey::all().nth(pick % BrokerKey::all().count()).unwrap();
            if let Ok(config) = Config::from_settings([(key.definition.name, value)]) {
                let set = config.explicit()[key.definition.name].clone();
                let again = Config::from_settings([(key.definition.name, set)]);
                prop_assert_eq!(again.unwrap(), config);
            }
        }
    }
}

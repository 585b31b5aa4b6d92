//! What a setting is: its name, type, default and valid values. Topic configs and the broker's own keys are both made of
//! these, so that a value is parsed, checked and shown in one way. The wording of faults is close to Kafka's, which people
//! and tools know.

use std::fmt;

/// Longest value that can be stored, bytes (Kafka's limit: a short).
pub const MAX_VALUE_BYTES: usize = i16::MAX as usize;

/// The type of a setting's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigType {
    /// `true` or `false` in any case.
    Boolean,
    /// Text without surrounding blanks.
    String,
    /// 32-bit signed.
    Int,
    /// 64-bit signed.
    Long,
    /// 64-bit floating point.
    Double,
    /// Texts separated by commas, blanks around them dropped.
    List,
}

impl ConfigType {
    /// Kafka's number of the type in DescribeConfigs answers (KIP-569).
    pub const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }
}

impl fmt::Display for ConfigType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
        })
    }
}

/// A parsed value; `Display` gives the form in which it is described.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// See [`ConfigType::Boolean`].
    Boolean(bool),
    /// See [`ConfigType::String`].
    String(String),
    /// See [`ConfigType::Int`].
    Int(i32),
    /// See [`ConfigType::Long`].
    Long(i64),
    /// See [`ConfigType::Double`]; never NaN.
    Double(f64),
    /// See [`ConfigType::List`].
    List(Vec<String>),
}

impl Value {
    /// The number of an int or long; 0 for the rest.
    pub fn as_i64(&self) -> i64 {
        match self {
            Self::Int(number) => i64::from(*number),
            Self::Long(number) => *number,
            Self::Boolean(_) | Self::String(_) | Self::Double(_) | Self::List(_) => 0,
        }
    }

    /// The number of a double, int or long; 0 for the rest.
    pub fn as_f64(&self) -> f64 {
        match self {
            Self::Double(number) => *number,
            other => other.as_i64() as f64,
        }
    }

    /// Whether this is a list that has `item`.
    pub fn contains(&self, item: &str) -> bool {
        matches!(self, Self::List(items) if items.iter().any(|one| one == item))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::String(value) => f.write_str(value),
            Self::Int(value) => write!(f, "{value}"),
            Self::Long(value) => write!(f, "{value}"),
            // Debug keeps the point of a whole number ("1.0"), as Java does.
            Self::Double(value) => write!(f, "{value:?}"),
            Self::List(items) => f.write_str(&items.join(",")),
        }
    }
}

/// Which values of its type a setting takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Valid {
    /// All.
    Any,
    /// Numbers from this one on.
    AtLeast(i64),
    /// Numbers between these two, both included.
    Between(i64, i64),
    /// Numbers between these two, both included, or -1.
    BetweenOrMinusOne(i64, i64),
    /// One of these texts; each item of a list, which may also be empty.
    OneOf(&'static [&'static str]),
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
}

/// Why a value is not valid. Displays as the end of a sentence that has named setting and value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Neither true nor false.
    #[error("Expected value to be either true or false")]
    NotBoolean,
    /// Not readable as a number of the type, or beyond its range.
    #[error("Not a number of type {0}")]
    NotNumber(ConfigType),
    /// Below the smallest valid number.
    #[error("Value must be at least {0}")]
    TooSmall(i64),
    /// Above the largest valid number.
    #[error("Value must be no more than {0}")]
    TooLarge(i64),
    /// Outside of [`Valid::BetweenOrMinusOne`].
    #[error("Value must be between {0} and {1} or equal to -1")]
    OutsideAndNotMinusOne(i64, i64),
    /// Not among [`Valid::OneOf`].
    #[error("String must be one of: {}", .0.join(", "))]
    NotOneOf(&'static [&'static str]),
    /// A list with nothing between two commas.
    #[error("values must not be empty")]
    EmptyItem,
    /// Longer than [`MAX_VALUE_BYTES`].
    #[error("the value is longer than {MAX_VALUE_BYTES} bytes")]
    TooLong,
    /// Anything else: what was expected instead.
    #[error("expected {0}")]
    Expected(&'static str),
}

/// One setting.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Definition {
    /// Dotted name, Kafka's where Kafka has the thing.
    pub name: &'static str,
    /// Type of the value.
    pub kind: ConfigType,
    /// Value when it is set nowhere, as text; `None` where that is "not set".
    pub default: Option<&'static str>,
    /// Which values it takes.
    pub valid: Valid,
    /// One line for people, with the unit.
    pub doc: &'static str,
}

impl Definition {
    /// Reads a value as Kafka does: blanks around it are dropped, then type and range are checked.
    pub fn parse(&self, text: &str) -> Result<Value, Fault> {
        if text.len() > MAX_VALUE_BYTES {
            return Err(Fault::TooLong);
        }
        let text = text.trim();
        let not_number = |_| Fault::NotNumber(self.kind);
        match self.kind {
            ConfigType::Boolean if text.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            ConfigType::Boolean if text.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            ConfigType::Boolean => Err(Fault::NotBoolean),
            ConfigType::Int => {
                let number = text.parse::<i32>().map_err(not_number)?;
                self.check_number(i64::from(number)).map(|()| Value::Int(number))
            }
            ConfigType::Long => {
                let number = text.parse::<i64>().map_err(not_number)?;
                self.check_number(number).map(|()| Value::Long(number))
            }
            ConfigType::Double => self.parse_double(text).map(Value::Double),
            ConfigType::String => self.check_text(text).map(|()| Value::String(text.to_owned())),
            ConfigType::List => self.parse_list(text).map(Value::List),
        }
    }

    fn check_number(&self, number: i64) -> Result<(), Fault> {
        match self.valid {
            Valid::AtLeast(least) if number < least => Err(Fault::TooSmall(least)),
            Valid::Between(least, _) if number < least => Err(Fault::TooSmall(least)),
            Valid::Between(_, most) if number > most => Err(Fault::TooLarge(most)),
            Valid::BetweenOrMinusOne(least, most) if number != -1 && !(least..=most).contains(&number) => {
                Err(Fault::OutsideAndNotMinusOne(least, most))
            }
            _ => Ok(()),
        }
    }

    fn parse_double(&self, text: &str) -> Result<f64, Fault> {
        let number = text.parse::<f64>().map_err(|_| Fault::NotNumber(self.kind))?;
        match self.valid {
            // Kafka takes NaN, which then compares false with everything: not a number is said aloud here.
            _ if number.is_nan() => Err(Fault::NotNumber(self.kind)),
            Valid::AtLeast(least) | Valid::Between(least, _) if number < least as f64 => {
                Err(Fault::TooSmall(least))
            }
            Valid::Between(_, most) if number > most as f64 => Err(Fault::TooLarge(most)),
            _ => Ok(number),
        }
    }

    fn parse_list(&self, text: &str) -> Result<Vec<String>, Fault> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let mut items: Vec<String> = Vec::new();
        for item in text.split(',').map(str::trim) {
            if item.is_empty() {
                return Err(Fault::EmptyItem);
            }
            if self.valid != Valid::ThrottledReplicas {
                self.check_text(item)?;
            }
            // Kafka drops doubles where items are chosen from a set; two listeners on port 0 are not doubles.
            let chosen_from_a_set = matches!(self.valid, Valid::OneOf(_));
            if !(chosen_from_a_set && items.iter().any(|known| known == item)) {
                items.push(item.to_owned());
            }
        }
        let all = items.len() == 1 && items[0] == "*";
        if self.valid == Valid::ThrottledReplicas && !all && !items.iter().all(|item| is_replica(item)) {
            return Err(Fault::Expected("the literal '*' or a list of [partitionId]:[brokerId]"));
        }
        Ok(items)
    }

    fn check_text(&self, text: &str) -> Result<(), Fault> {
        match self.valid {
            Valid::OneOf(texts) if !texts.contains(&text) => Err(Fault::NotOneOf(texts)),
            _ => Ok(()),
        }
    }
}

fn is_replica(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once(':').is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
}

/// The name among `known` that a person who wrote `name` most likely meant, if one is near.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Beyond this nobody mistyped: the cost of comparing stays bounded.
    const LONGEST_COMPARED: usize = 128;
    if name.len() > LONGEST_COMPARED {
        return None;
    }
    known
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, candidate)| distance <= candidate.len().div_ceil(3))
        .map(|(_, candidate)| candidate)
}

/// The text as far as an error shows it: the errors of long texts must fit in a line, and in a Kafka string.
pub fn shortened(text: &str) -> String {
    const SHOWN_CHARACTERS: usize = 100;
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Levenshtein distance in bytes.
fn edit_distance(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn definition(kind: ConfigType, valid: Valid) -> Definition {
        Definition { name: "test", kind, default: None, valid, doc: "" }
    }

    #[test]
    fn values_are_read_as_kafka_reads_them() {
        let parse =
            |kind, text: &str| definition(kind, Valid::Any).parse(text).map(|value| value.to_string());
        for (kind, text, expected) in [
            (ConfigType::Boolean, " TRUE ", Ok("true")),
            (ConfigType::Boolean, "yes", Err(Fault::NotBoolean)),
            (ConfigType::Boolean, "", Err(Fault::NotBoolean)),
            (ConfigType::Long, " +5 ", Ok("5")),
            (ConfigType::Long, "", Err(Fault::NotNumber(ConfigType::Long))),
            (ConfigType::Long, "1.5", Err(Fault::NotNumber(ConfigType::Long))),
            (ConfigType::Long, "9223372036854775808", Err(Fault::NotNumber(ConfigType::Long))),
            (ConfigType::Int, "3000000000", Err(Fault::NotNumber(ConfigType::Int))),
            (ConfigType::Double, "1", Ok("1.0")),
            (ConfigType::Double, "NaN", Err(Fault::NotNumber(ConfigType::Double))),
            (ConfigType::String, " a b ", Ok("a b")),
            (ConfigType::List, " a , b,a ", Ok("a,b,a")),
            (ConfigType::List, "", Ok("")),
            (ConfigType::List, "a,", Err(Fault::EmptyItem)),
            (ConfigType::List, ",", Err(Fault::EmptyItem)),
        ] {
            assert_eq!(parse(kind, text), expected.map(str::to_owned), "{kind} {text:?}");
        }
    }

    #[test]
    fn throttled_replicas_are_a_star_or_pairs() {
        let throttled = definition(ConfigType::List, Valid::ThrottledReplicas);
        for good in ["", "*", "0:1", "0:1, 12:2"] {
            assert!(throttled.parse(good).is_ok(), "{good:?}");
        }
        for bad in ["none", "*,0:1", "0:", ":1", "0:1:2", "-1:0"] {
            assert!(throttled.parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_longer_than_kafkas_limit_is_refused() {
        let text = definition(ConfigType::String, Valid::Any);
        assert!(text.parse(&"x".repeat(MAX_VALUE_BYTES)).is_ok());
        assert_eq!(text.parse(&"x".repeat(MAX_VALUE_BYTES + 1)), Err(Fault::TooLong));
    }

    #[test]
    fn the_nearest_name_is_the_likely_one_or_none() {
        let known = ["log.dir", "num.partitions", "log.retention.ms"];
        let nearest = |name| nearest(name, known.into_iter());
        assert_eq!(nearest("num.partition"), Some("num.partitions"));
        assert_eq!(nearest("retention.ms"), Some("log.retention.ms"));
        assert_eq!(nearest("zookeeper.connect"), None);
        assert_eq!(nearest(&"x".repeat(1 << 20)), None);
    }

    #[test]
    fn edit_distance_counts_single_changes() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same_value(text in ".{0,40}", pick in 0usize..6) {
            use ConfigType::*;
            let definition = definition([Boolean, String, Int, Long, Double, List][pick], Valid::Any);
            if let Ok(value) = definition.parse(&text) {
                prop_assert_eq!(definition.parse(&value.to_string()), Ok(value));
            }
        }
    }
}

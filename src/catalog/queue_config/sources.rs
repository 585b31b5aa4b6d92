//! Which topics a queue reads beside its own: `ottla.queue.source`, names of topics and patterns over the words that dots make of
//! them. In a pattern, `*` is exactly one word and `#` any number of words, also none: `orders.*.created`, `orders.#`, `#`.

use std::fmt;

use super::super::state::validate_name;

/// Names and patterns that a queue may have. Each is looked at for each topic whenever topics change.
const SOURCES_MAX: usize = 100;

/// Bytes of a pattern: what is longer than any name says nothing that a shorter one could not.
const PATTERN_BYTES_MAX: usize = 249;

const ONE_WORD: &str = "*";
const ANY_WORDS: &str = "#";

/// The names and patterns. Empty: the queue reads its own topic alone.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sources(Vec<Source>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    Topic(String),
    /// Its words.
    Pattern(Vec<String>),
}

/// Why names and patterns are refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceFault {
    /// The first that is neither.
    Neither(String),
    /// There are too many.
    TooMany,
}

impl Sources {
    /// Reads the items of the config.
    ///
    /// # Errors
    /// What is no name that a topic may have and no pattern; too many.
    pub fn of<'i>(items: impl IntoIterator<Item = &'i str>) -> Result<Self, SourceFault> {
        let sources = items.into_iter().map(source).collect::<Result<Vec<_>, _>>()?;
        if sources.len() > SOURCES_MAX { Err(SourceFault::TooMany) } else { Ok(Self(sources)) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The topics that are named, there or not.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|source| match source {
            Source::Topic(name) => Some(&**name),
            Source::Pattern(_) => None,
        })
    }

    /// Whether a pattern matches that name.
    pub fn matches(&self, topic: &str) -> bool {
        let words: Vec<&str> = topic.split('.').collect();
        self.0.iter().any(|source| match source {
            Source::Topic(_) => false,
            Source::Pattern(pattern) => matches(pattern, &words),
        })
    }
}

/// As the config has them.
impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = |source: &Source| match source {
            Source::Topic(name) => name.clone(),
            Source::Pattern(words) => words.join("."),
        };
        f.write_str(&self.0.iter().map(item).collect::<Vec<_>>().join(","))
    }
}

fn source(item: &str) -> Result<Source, SourceFault> {
    let neither = || SourceFault::Neither(item.to_owned());
    if !item.contains(['*', '#']) {
        return validate_name(item).map(|()| Source::Topic(item.to_owned())).map_err(|_| neither());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_word = |word: &str| [ONE_WORD, ANY_WORDS].contains(&word) || word.bytes().all(legal);
    let is_pattern = item.len() <= PATTERN_BYTES_MAX && item.split('.').all(is_word);
    is_pattern.then(|| Source::Pattern(item.split('.').map(str::to_owned).collect())).ok_or_else(neither)
}

/// In time of the product of both lengths at most: whatever the last `#` could match otherwise, an earlier one need not try.
fn matches(pattern: &[String], words: &[&str]) -> bool {
    let (mut at, mut word) = (0, 0);
    // The place behind the last `#`, and the first word that it has not taken.
    let mut last_any: Option<(usize, usize)> = None;
    loop {
        match pattern.get(at).map(String::as_str) {
            Some(ANY_WORDS) => {
                at += 1;
                last_any = Some((at, word));
            }
            Some(wanted) if words.get(word).is_some_and(|word| wanted == ONE_WORD || wanted == *word) => {
                at += 1;
                word += 1;
            }
            None if word == words.len() => return true,
            // It takes one word more, if there is one.
            _ => match &mut last_any {
                Some((behind, taken)) if *taken < words.len() => {
                    *taken += 1;
                    (at, word) = (*behind, *taken);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(items: &[&str]) -> Sources {
        Sources::of(items.iter().copied()).unwrap()
    }

    #[test]
    fn stars_are_words_and_hashes_any_number_of_them() {
        for (pattern, matching, others) in [
            (
                "orders.*.created",
                &["orders.eu.created", "orders..created"][..],
                &["orders.created", "orders.eu.de.created", "orders.eu.createdx"][..],
            ),
            ("orders.#", &["orders", "orders.eu", "orders.eu.created"], &["ordersx", "my.orders", "order"]),
            ("#", &["a", "a.b", "a-b_c"], &[]),
            (
                "#.created",
                &["created", "orders.created", "orders.eu.created"],
                &["orders.created.eu", "xcreated"],
            ),
            ("*", &["orders"], &["orders.eu"]),
            ("#.eu.#", &["eu", "orders.eu", "eu.created", "a.eu.eu.b"], &["orders", "neu"]),
            ("*.#.x", &["a.x", "a.b.x"], &["x", "a.x.b"]),
        ] {
            let sources = of(&[pattern]);
            matching.iter().for_each(|topic| assert!(sources.matches(topic), "{pattern} {topic}"));
            others.iter().for_each(|topic| assert!(!sources.matches(topic), "{pattern} {topic}"));
        }
        let both = of(&["a.b", "c.*"]);
        assert!(both.matches("c.d") && !both.matches("a.b"), "a name is no pattern");
        assert_eq!(both.names().collect::<Vec<_>>(), ["a.b"]);
        assert!(of(&[]).is_empty() && !both.is_empty());
    }

    #[test]
    fn what_is_neither_a_name_nor_a_pattern_is_refused() {
        for item in [
            "a b",
            "or*",
            "a.#b",
            "a/*",
            "a,b",
            "",
            "..",
            &"x".repeat(250),
            &format!("{}.*", "x".repeat(250)),
        ] {
            assert_eq!(Sources::of([item]), Err(SourceFault::Neither(item.to_owned())));
        }
        assert_eq!(Sources::of(vec!["*"; 101]), Err(SourceFault::TooMany));
        assert!(Sources::of(vec!["*"; 100]).is_ok());
    }

    /// What the words say, as one would write it down.
    fn naive(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern, words) {
            ([], []) => true,
            (["#", rest @ ..], _) => naive(rest, words) || (!words.is_empty() && naive(pattern, &words[1..])),
            ([first, rest @ ..], [word, words @ ..]) => {
                (*first == "*" || first == word) && naive(rest, words)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_what_their_definition_says(
            pattern in proptest::collection::vec(prop_oneof![Just("*"), Just("#"), Just("a"), Just("b")], 1..8),
            words in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..8),
        ) {
            let owned: Vec<String> = pattern.iter().map(ToString::to_string).collect();
            prop_assert_eq!(matches(&owned, &words), naive(&pattern, &words));
        }

        #[test]
        fn no_text_is_too_much(item in "[a#*.x]{0,300}", topic in "[a.x]{1,249}") {
            if let Ok(sources) = Sources::of([&*item]) {
                sources.matches(&topic);
                prop_assert_eq!(sources.to_string(), item);
            }
        }
    }
}

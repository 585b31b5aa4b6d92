//! Which records are messages of a queue, by their headers: `ottla.queue.filter`, terms of which all must hold.
//!
//! - `name`: the record has such a header; `!name`: it has none.
//! - `name=a|b`: it has one, whose value is one of these; `name!=a|b`: it has none, or one of another value.
//!
//! Of several headers of a name the first counts, as everywhere in queues. Values are compared byte by byte; a null one is empty.
//! Spaces around a term are none of it. What has a comma or a bar in it cannot be said.

use std::fmt;

/// Terms that a filter may have: each is looked for in each record.
const TERMS_MAX: usize = 32;

/// The terms. Without any, every record is a message.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Filter(Vec<Term>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Term {
    header: String,
    test: Test,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Test {
    Present,
    Absent,
    OneOf(Vec<String>),
    NoneOf(Vec<String>),
}

/// Why terms are refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FilterFault {
    /// The first that is none.
    NoTerm(String),
    /// There are too many.
    TooMany,
}

impl Filter {
    /// Reads the items of the config.
    ///
    /// # Errors
    /// What is no term; too many.
    pub fn of<'i>(items: impl IntoIterator<Item = &'i str>) -> Result<Self, FilterFault> {
        let term = |item: &str| term(item).ok_or_else(|| FilterFault::NoTerm(item.to_owned()));
        let terms = items.into_iter().map(term).collect::<Result<Vec<_>, _>>()?;
        if terms.len() > TERMS_MAX { Err(FilterFault::TooMany) } else { Ok(Self(terms)) }
    }

    /// Whether every record passes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a record is a message whose header of a name has the value that `header` gives; `None`: it has no such header.
    pub fn passes<'h>(&self, header: impl Fn(&str) -> Option<&'h [u8]>) -> bool {
        self.0.iter().all(|term| {
            let value = header(&term.header);
            let is_among = |values: &[String]| {
                value.is_some_and(|value| values.iter().any(|wanted| wanted.as_bytes() == value))
            };
            match &term.test {
                Test::Present => value.is_some(),
                Test::Absent => value.is_none(),
                Test::OneOf(values) => is_among(values),
                Test::NoneOf(values) => !is_among(values),
            }
        })
    }
}

/// As the config has them.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = |Term { header, test }: &Term| match test {
            Test::Present => header.clone(),
            Test::Absent => format!("!{header}"),
            Test::OneOf(values) => format!("{header}={}", values.join("|")),
            Test::NoneOf(values) => format!("{header}!={}", values.join("|")),
        };
        f.write_str(&self.0.iter().map(item).collect::<Vec<_>>().join(","))
    }
}

fn term(item: &str) -> Option<Term> {
    let item = item.trim();
    let values = |text: &str| text.split('|').map(str::to_owned).collect();
    let (header, test) = match item.split_once('=') {
        Some((header, text)) => match header.strip_suffix('!') {
            Some(header) => (header, Test::NoneOf(values(text))),
            None => (header, Test::OneOf(values(text))),
        },
        None => match item.strip_prefix('!') {
            Some(header) => (header, Test::Absent),
            None => (item, Test::Present),
        },
    };
    let is_name = !header.is_empty() && header == header.trim() && !header.contains(['!', '|', ',']);
    is_name.then(|| Term { header: header.to_owned(), test })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passes(filter: &str, headers: &[(&str, &str)]) -> bool {
        let filter = Filter::of(filter.split(',').filter(|item| !item.is_empty())).unwrap();
        filter.passes(|name| {
            headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_bytes())
        })
    }

    #[test]
    fn every_term_must_hold() {
        let record = [("region", "eu"), ("type", "b"), ("trace", ""), ("region", "us")];
        for filter in [
            "",
            "region=eu",
            "type=a|b",
            "trace",
            "trace=",
            "!debug",
            "type!=a|c",
            "debug!=1",
            "region=eu, type=a|b ,trace,!debug",
        ] {
            assert!(passes(filter, &record), "{filter}");
        }
        for filter in ["region=us", "region=e", "debug", "!trace", "debug=", "type!=a|b", "region=eu,debug"] {
            assert!(!passes(filter, &record), "{filter}");
        }
        assert!(passes("sum=1=1", &[("sum", "1=1")]), "a value may have what names may not");
    }

    #[test]
    fn what_is_no_term_is_refused() {
        for item in ["", "!", "=a", "!=a", "a|b", "!!a", "a!b=c", "a =b", "a|b=c"] {
            assert_eq!(Filter::of([item]), Err(FilterFault::NoTerm(item.to_owned())), "{item}");
        }
        assert_eq!(Filter::of(vec!["a"; 33]), Err(FilterFault::TooMany));
        assert!(Filter::of(vec!["a"; 32]).is_ok());
    }

    proptest! {
        /// Against what each term says by itself, over few names and values so that they meet.
        #[test]
        fn filters_pass_what_their_definition_says(
            terms in proptest::collection::vec((0..4_usize, "[ab]", proptest::collection::vec("[xy]", 1..3)), 0..4),
            headers in proptest::collection::vec(("[ab]", "[xy]"), 0..3),
        ) {
            let written = terms.iter().map(|(kind, name, values)| {
                let values = values.join("|");
                [format!("{name}"), format!("!{name}"), format!("{name}={values}"), format!("{name}!={values}")][*kind].clone()
            });
            let written: Vec<String> = written.collect();
            let first = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
            let expected = terms.iter().all(|(kind, name, values)| match (kind, first(name)) {
                (0, found) => found.is_some(),
                (1, found) => found.is_none(),
                (2, found) => found.is_some_and(|found| values.contains(&found)),
                (_, found) => found.is_none_or(|found| !values.contains(&found)),
            });
            let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            prop_assert_eq!(passes(&written.join(","), &headers), expected);
        }

        #[test]
        fn no_text_is_too_much(item in ".{0,80}") {
            if let Ok(filter) = Filter::of([&*item]) {
                prop_assert_eq!(filter.to_string(), item.trim());
            }
        }
    }
}

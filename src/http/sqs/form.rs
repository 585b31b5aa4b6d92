//! The Query protocol's way of writing structures: names with dots. `Attribute.1.Name=VisibilityTimeout` is the key of the first
//! entry of a map, `SendMessageBatchRequestEntry.2.Id` a member of the second item of a list. Read through serde, so that the
//! same structures serve both protocols; where the names differ, the field of the structure has both.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::error::SqsError;

/// Names and values that a request may have: far beyond ten messages with ten attributes each. What is read of them is looked
/// for one by one.
const PAIRS_MAX: usize = 1000;

/// A decoded form.
#[derive(Debug, Default)]
pub(super) struct Form {
    pairs: Vec<(String, String)>,
}

impl Form {
    /// Adds the pairs of a body or of a query string.
    pub(super) fn read(&mut self, text: &str) -> Result<(), SqsError> {
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if self.pairs.len() == PAIRS_MAX {
                return Err(SqsError::Malformed(format!("more than {PAIRS_MAX} parameters")));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.pairs.push((decoded(name)?, decoded(value)?));
        }
        Ok(())
    }

    /// The value of that name.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All of it, as a structure.
    pub(super) fn root(&self) -> Node<'_> {
        Node { form: self, path: String::new() }
    }
}

fn decoded(text: &str) -> Result<String, SqsError> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| SqsError::Malformed("a parameter is not UTF-8".to_owned()))
}

/// A place in a form: the value of a name, and all that stands below it.
pub(super) struct Node<'f> {
    form: &'f Form,
    path: String,
}

impl<'f> Node<'f> {
    fn child(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { form: self.form, path }
    }

    fn text(&self) -> &'f str {
        self.form.value(&self.path).unwrap_or_default()
    }

    /// The names right below, each once, in the order of the form.
    fn names(&self) -> Vec<&'f str> {
        let mut names = Vec::new();
        for (name, _) in &self.form.pairs {
            let below = if self.path.is_empty() {
                Some(name.as_str())
            } else {
                name.strip_prefix(self.path.as_str()).and_then(|rest| rest.strip_prefix('.'))
            };
            let name = below.and_then(|below| below.split('.').next());
            names.extend(name.filter(|name| !names.contains(name)));
        }
        names
    }

    /// What is numbered right below, in the order of the numbers; they may have gaps.
    fn numbered(&self) -> std::vec::IntoIter<Self> {
        let mut numbers: Vec<(u32, &str)> =
            self.names().into_iter().filter_map(|name| Some((name.parse().ok()?, name))).collect();
        numbers.sort_unstable();
        let children: Vec<_> = numbers.into_iter().map(|(_, name)| self.child(name)).collect();
        children.into_iter()
    }

    fn number<T: std::str::FromStr>(&self) -> Result<T, FormError> {
        let wrong = |_| FormError(format!("Value {} for parameter {} is no number", self.text(), self.path));
        self.text().parse().map_err(wrong)
    }
}

/// Why a form is not what was expected.
#[derive(Debug)]
pub(super) struct FormError(String);

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FormError {}

impl serde::de::Error for FormError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl<'f> Deserializer<'f> for Node<'f> {
    type Error = FormError;

    fn deserialize_any<V: Visitor<'f>>(self, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_borrowed_str(self.text())
    }

    fn deserialize_i64<V: Visitor<'f>>(self, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_i64(self.number()?)
    }

    fn deserialize_option<V: Visitor<'f>>(self, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'f>>(self, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_seq(Items(self.numbered()))
    }

    fn deserialize_map<V: Visitor<'f>>(self, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_map(Entries { left: self.numbered(), value: None })
    }

    fn deserialize_struct<V: Visitor<'f>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FormError> {
        let names = self.names().into_iter();
        visitor.visit_map(Members { node: self, names, current: "" })
    }

    fn deserialize_newtype_struct<V: Visitor<'f>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, FormError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'f>>(self, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'f>>
        bool i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct
        enum identifier
    }
}

/// The items of a list.
struct Items<'f>(std::vec::IntoIter<Node<'f>>);

impl<'f> SeqAccess<'f> for Items<'f> {
    type Error = FormError;

    fn next_element_seed<T: DeserializeSeed<'f>>(&mut self, seed: T) -> Result<Option<T::Value>, FormError> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

/// The entries of a map: each has a `Name` or a `Key`, and a `Value`.
struct Entries<'f> {
    left: std::vec::IntoIter<Node<'f>>,
    value: Option<Node<'f>>,
}

impl<'f> MapAccess<'f> for Entries<'f> {
    type Error = FormError;

    fn next_key_seed<K: DeserializeSeed<'f>>(&mut self, seed: K) -> Result<Option<K::Value>, FormError> {
        let Some(entry) = self.left.next() else { return Ok(None) };
        self.value = Some(entry.child("Value"));
        let named = ["Name", "Key"].map(|name| entry.child(name));
        let named = named.into_iter().find(|node| entry.form.value(&node.path).is_some());
        let key = named.ok_or_else(|| FormError(format!("{} has no name", entry.path)))?;
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'f>>(&mut self, seed: T) -> Result<T::Value, FormError> {
        let value = self.value.take().ok_or_else(|| FormError::custom("a value without its name"))?;
        seed.deserialize(value)
    }
}

/// The members of a structure.
struct Members<'f> {
    node: Node<'f>,
    names: std::vec::IntoIter<&'f str>,
    current: &'f str,
}

impl<'f> MapAccess<'f> for Members<'f> {
    type Error = FormError;

    fn next_key_seed<K: DeserializeSeed<'f>>(&mut self, seed: K) -> Result<Option<K::Value>, FormError> {
        let Some(name) = self.names.next() else { return Ok(None) };
        self.current = name;
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'f>>(&mut self, seed: T) -> Result<T::Value, FormError> {
        seed.deserialize(self.node.child(self.current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::super::request::{Pairs, Text};

    #[derive(Deserialize, Debug, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Sample<'a> {
        #[serde(borrow)]
        queue_url: Option<Text<'a>>,
        max: Option<i64>,
        #[serde(alias = "AttributeName")]
        attribute_names: Vec<Text<'a>>,
        #[serde(alias = "Attribute")]
        attributes: Pairs<'a, Text<'a>>,
        #[serde(alias = "Entry")]
        entries: Vec<Inner<'a>>,
    }

    #[derive(Deserialize, Debug, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner<'a> {
        #[serde(borrow)]
        id: Option<Text<'a>>,
        #[serde(alias = "Tag")]
        tags: Pairs<'a, Text<'a>>,
    }

    fn form(text: &str) -> Form {
        let mut form = Form::default();
        form.read(text).unwrap();
        form
    }

    #[test]
    fn dots_and_numbers_become_structures() {
        let form = form(
            "Action=X&QueueUrl=http%3A%2F%2Fh%2Fa+b&Max=7&AttributeName.10=c&AttributeName.2=a&AttributeName.3=b&\
             Attribute.1.Name=n&Attribute.1.Value=%C3%BC&Attribute.4.Value=w&Attribute.4.Name=m&\
             Entry.1.Id=one&Entry.1.Tag.1.Key=k&Entry.1.Tag.1.Value=v&Entry.2.Id=two",
        );
        let sample = Sample::deserialize(form.root()).unwrap();
        assert_eq!(sample.queue_url.as_deref(), Some("http://h/a b"));
        assert_eq!(sample.max, Some(7));
        let names: Vec<&str> = sample.attribute_names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["a", "b", "c"], "by number, with gaps");
        let pairs: Vec<(&str, &str)> =
            sample.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(pairs, [("n", "ü"), ("m", "w")]);
        assert_eq!(sample.entries.len(), 2);
        assert_eq!(sample.entries[1].id.as_deref(), Some("two"));
        let tags: Vec<(&str, &str)> =
            sample.entries[0].tags.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(tags, [("k", "v")]);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        assert!(matches!(Form::default().read("a=%ff"), Err(SqsError::Malformed(_))));
        assert!(matches!(Form::default().read(&"a=b&".repeat(1001)), Err(SqsError::Malformed(_))));
        assert!(Sample::deserialize(form("Max=seven").root()).is_err());
        assert!(Sample::deserialize(form("Attribute.1.Value=nameless").root()).is_err());
    }

    proptest! {
        #[test]
        fn no_form_panics(text in "([A-Za-z0-9.%+]{0,12}(=[A-Za-z0-9.%+]{0,5})?&?){0,12}|.{0,60}") {
            let mut form = Form::default();
            if form.read(&text).is_ok() {
                let _: Result<_, _> = Sample::deserialize(form.root());
            }
        }
    }
}

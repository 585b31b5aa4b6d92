//! A call as it comes in: which action in which protocol, its members read into the structure that the action declares.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::answer::Protocol;
use super::error::{SqsError, shown};
use super::form::Form;

/// What stands before the action in the header that names it.
const TARGET_PREFIX: &str = "AmazonSQS.";

/// One call, not yet looked into.
pub(super) struct Call {
    /// What is spoken.
    pub(super) protocol: Protocol,
    action: String,
    body: Bytes,
    form: Form,
}

impl Call {
    /// Finds out what is asked: the target header means JSON, an `Action` parameter the Query protocol.
    pub(super) fn new(
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Self, (Protocol, SqsError)> {
        if let Some(target) = headers.get("x-amz-target") {
            let target = target.to_str().unwrap_or_default();
            let action = target.strip_prefix(TARGET_PREFIX).unwrap_or(target).to_owned();
            return Ok(Self { protocol: Protocol::Json, action, body, form: Form::default() });
        }
        let is_form = headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        let form = || {
            let mut form = Form::default();
            form.read(query.unwrap_or_default())?;
            if *method == Method::POST && is_form {
                let text = std::str::from_utf8(&body)
                    .map_err(|_| SqsError::Malformed("the body is not UTF-8".to_owned()))?;
                form.read(text)?;
            }
            Ok(form)
        };
        let form = form().map_err(|error| (Protocol::Query, error))?;
        let action = form.value("Action").map(str::to_owned);
        let action = action.ok_or((Protocol::Query, SqsError::UnknownOperation))?;
        Ok(Self { protocol: Protocol::Query, action, body, form })
    }

    /// The name of the action.
    pub(super) fn action(&self) -> &str {
        &self.action
    }

    /// The request's body as it came: what JSON texts without escapes are slices of.
    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    /// The members of the call.
    pub(super) fn decode<'c, T: Deserialize<'c>>(&'c self) -> Result<T, SqsError> {
        match self.protocol {
            Protocol::Json => {
                let body: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
                // serde would take a list for a structure.
                if body.trim_ascii_start().first() != Some(&b'{') {
                    return Err(SqsError::Malformed("the body is no JSON object".to_owned()));
                }
                serde_json::from_slice(body).map_err(|error| SqsError::Malformed(shown(&error.to_string())))
            }
            Protocol::Query => T::deserialize(self.form.root())
                .map_err(|error| SqsError::Malformed(shown(&error.to_string()))),
        }
    }
}

/// A text: a slice of the request where it stands there as it is. (serde borrows a bare `Cow` only.)
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl Text<'_> {
    /// The text as bytes of its own, or as a part of `body` where it is one.
    pub(super) fn shared(&self, body: &Bytes) -> Bytes {
        let text = self.0.as_bytes();
        let (start, end) = (body.as_ptr() as usize, body.as_ptr() as usize + body.len());
        let place = text.as_ptr() as usize;
        if place >= start && place + text.len() <= end && !text.is_empty() {
            body.slice_ref(text)
        } else {
            Bytes::copy_from_slice(text)
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowing;

        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }

        deserializer.deserialize_str(Borrowing)
    }
}

/// Most items of a list and entries of a map in a request: tags, of which there may be fifty, messages, attributes, and what is
/// refused for being too many.
const ITEMS_MAX: usize = 100;

/// Room that a list begins with: for a whole batch of messages.
const ITEMS_LIKELY: usize = 10;

/// A list that takes no more memory than it may.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<T>(PhantomData<fn() -> T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::with_capacity(ITEMS_LIKELY);
                while let Some(item) = seq.next_element()? {
                    if items.len() == ITEMS_MAX {
                        return Err(A::Error::custom(format!("a list has more than {ITEMS_MAX} items")));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }

        deserializer.deserialize_seq(Bounded(PhantomData))
    }
}

/// A map in the order of the request, each name once.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Pairs<'a, T>(Vec<(Text<'a>, T)>);

impl<T> Default for Pairs<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T> Deref for Pairs<'a, T> {
    type Target = [(Text<'a>, T)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Pairs<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<'a, T>(PhantomData<fn() -> Pairs<'a, T>>);

        impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for InOrder<'a, T> {
            type Value = Pairs<'a, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_unit<E>(self) -> Result<Pairs<'a, T>, E> {
                Ok(Pairs::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'a, T>, A::Error> {
                let mut pairs: Vec<(Text<'a>, T)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<Text<'a>, T>()? {
                    if pairs.len() == ITEMS_MAX {
                        return Err(A::Error::custom(format!("a map has more than {ITEMS_MAX} entries")));
                    }
                    match pairs.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => *known = value,
                        None => pairs.push((name, value)),
                    }
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize, Debug, Default, PartialEq)]
    #[serde(rename_all = "PascalCase", default)]
    struct Sample<'a> {
        #[serde(borrow)]
        queue_url: Option<Text<'a>>,
        #[serde(alias = "Attribute")]
        attributes: Pairs<'a, Text<'a>>,
        max: Option<i64>,
    }

    fn json(body: &'static str) -> Call {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-target", "AmazonSQS.Sample".parse().unwrap());
        Call::new(&Method::POST, None, &headers, Bytes::from_static(body.as_bytes()))
            .unwrap_or_else(|_| panic!())
    }

    fn query(method: Method, query: Option<&str>, body: &'static str) -> Result<Call, (Protocol, SqsError)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8".parse().unwrap());
        Call::new(&method, query, &headers, Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn one_structure_reads_both_protocols() {
        let json = json(r#"{"QueueUrl":"u","Attributes":{"a":"1","b":"2"},"Max":3,"Unknown":[{}]}"#);
        let posted = "Action=Sample&QueueUrl=u&Attribute.1.Name=a&Attribute.1.Value=1&Attribute.2.Name=b&Attribute.2.Value=2&Max=3";
        let form = query(Method::POST, None, posted).unwrap_or_else(|_| panic!());
        let asked = query(Method::GET, Some(posted), "").unwrap_or_else(|_| panic!());
        assert_eq!((json.action(), form.action()), ("Sample", "Sample"));
        assert_eq!((json.protocol, form.protocol), (Protocol::Json, Protocol::Query));
        assert_eq!(json.decode::<Sample>().unwrap(), form.decode::<Sample>().unwrap());
        assert_eq!(json.decode::<Sample>().unwrap(), asked.decode::<Sample>().unwrap());
        assert_eq!(json.decode::<Sample>().unwrap().max, Some(3));
    }

    #[test]
    fn a_call_without_action_is_unknown_and_one_that_is_broken_malformed() {
        let error = query(Method::GET, None, "").err().unwrap();
        assert_eq!(error, (Protocol::Query, SqsError::UnknownOperation));
        for body in ["{", "[]", r#"{"QueueUrl":5}"#, r#"{"Max":"3"}"#, r#"{"Attributes":{"a":null}}"#] {
            assert!(matches!(json(body).decode::<Sample>(), Err(SqsError::Malformed(_))), "{body}");
        }
        assert_eq!(json("").decode::<Sample>().unwrap(), Sample::default());
        assert_eq!(json(r#"{"QueueUrl":null}"#).decode::<Sample>().unwrap(), Sample::default());
    }

    #[test]
    fn lists_and_maps_take_no_more_memory_than_they_may() {
        let list = |items: usize| format!("[{}]", vec!["1"; items].join(","));
        assert_eq!(serde_json::from_str::<List<i64>>(&list(ITEMS_MAX)).unwrap().len(), ITEMS_MAX);
        assert!(serde_json::from_str::<List<i64>>(&list(ITEMS_MAX + 1)).is_err());
        let map = |items: usize| {
            let entries: Vec<_> = (0..items).map(|n| format!("\"{n}\":1")).collect();
            format!("{{{}}}", entries.join(","))
        };
        assert_eq!(serde_json::from_str::<Pairs<'_, i64>>(&map(ITEMS_MAX)).unwrap().len(), ITEMS_MAX);
        assert!(serde_json::from_str::<Pairs<'_, i64>>(&map(ITEMS_MAX + 1)).is_err());
    }

    #[test]
    fn a_text_without_escapes_is_a_slice_of_the_request() {
        let call = json(r#"{"QueueUrl":"plain"}"#);
        let url = call.decode::<Sample>().unwrap().queue_url.unwrap();
        assert!(matches!(url.0, Cow::Borrowed(_)));
        assert!(call.body().as_ptr_range().contains(&url.shared(call.body()).as_ptr()));
        let call = json(r#"{"QueueUrl":"esc\u0061ped"}"#);
        let url = call.decode::<Sample>().unwrap().queue_url.unwrap();
        assert_eq!(url.shared(call.body()), "escaped");
        assert!(!call.body().as_ptr_range().contains(&url.shared(call.body()).as_ptr()));
    }
}

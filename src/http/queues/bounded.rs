//! Parts of a JSON request, each what JSON Schema calls so, and bounded while they are read: what is short in JSON can be large
//! in memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};

/// A list of up to `MAX`.
#[derive(PartialEq, Debug)]
pub(super) struct List<T, const MAX: usize>(pub(super) Vec<T>);

/// The members of an object in their order, up to `MAX`, each name once.
#[derive(PartialEq, Debug)]
pub(super) struct Members<T, const MAX: usize>(pub(super) Vec<(String, T)>);

/// One text, or a list of up to `MAX`.
#[derive(PartialEq, Debug)]
pub(super) struct Texts<const MAX: usize>(pub(super) Vec<String>);

/// A structure with its members by name, never a list of them.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

/// An integer, also one that is written with a fraction of zero.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Integer(pub(super) i64);

/// A value that is no list and no object.
#[derive(PartialEq, Debug)]
pub(super) enum Scalar {
    Null,
    Text(String),
    /// A number or a truth, as it is written.
    Other(String),
}

impl<T, const MAX: usize> Default for Members<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

fn list<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut items: A, max: usize) -> Result<Vec<T>, A::Error> {
    let mut list = Vec::new();
    while let Some(item) = items.next_element()? {
        if list.len() == max {
            return Err(A::Error::custom(format_args!("more than {max} items")));
        }
        list.push(item);
    }
    Ok(list)
}

struct Reading<T>(PhantomData<fn() -> T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Reading::<Self>(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Reading<List<T, MAX>> {
    type Value = List<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of up to {MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        list(items, MAX).map(List)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Members<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reading::<Self>(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Reading<Members<T, MAX>> {
    type Value = Members<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of up to {MAX} members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, T)> = Vec::new();
        while let Some((name, value)) = object.next_entry::<String, T>()? {
            if members.len() == MAX {
                return Err(A::Error::custom(format_args!("more than {MAX} members")));
            }
            if members.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format_args!("{name:?} twice")));
            }
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Texts<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading::<Self>(PhantomData))
    }
}

impl<'de, const MAX: usize> Visitor<'de> for Reading<Texts<MAX>> {
    type Value = Texts<MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text or a list of up to {MAX} texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        list(items, MAX).map(Texts)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reading::<Self>(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Reading<Object<T>> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object)).map(Object)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(Reading::<Self>(PhantomData))
    }
}

impl Visitor<'_> for Reading<Integer> {
    type Value = Integer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E>(self, value: i64) -> Result<Integer, E> {
        Ok(Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
        let value = i64::try_from(value);
        value.map(Integer).map_err(|_| E::custom("an integer beyond 64 bits"))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Integer, E> {
        // Beyond, what is written and what is read may differ.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match value.fract() == 0.0 && value.abs() <= EXACT {
            true => Ok(Integer(value as i64)),
            false => Err(E::invalid_value(Unexpected::Float(value), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading::<Self>(PhantomData))
    }
}

impl Visitor<'_> for Reading<Scalar> {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a truth or null")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Other(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Other(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Other(value.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::from_str;

    use super::*;

    #[test]
    fn each_takes_as_many_as_it_may_and_no_more() {
        assert_eq!(from_str::<List<i32, 2>>("[1,2]").unwrap(), List(vec![1, 2]));
        assert!(from_str::<List<i32, 2>>("[1,2,3]").is_err());
        let texts = |texts: &[&str]| Texts::<2>(texts.iter().map(ToString::to_string).collect());
        assert_eq!(from_str::<Texts<2>>(r#""a""#).unwrap(), texts(&["a"]));
        assert_eq!(from_str::<Texts<2>>(r#"["b","a"]"#).unwrap(), texts(&["b", "a"]));
        assert!(from_str::<Texts<2>>(r#"["b","a","c"]"#).is_err());
        let members = from_str::<Members<i32, 2>>(r#"{"z":1,"a":2}"#).unwrap();
        assert_eq!(members.0, [("z".to_owned(), 1), ("a".to_owned(), 2)], "in their order");
        assert!(from_str::<Members<i32, 2>>(r#"{"a":1,"b":2,"c":3}"#).is_err());
        assert!(from_str::<Members<i32, 2>>(r#"{"a":1,"a":2}"#).is_err());
    }

    #[test]
    fn a_scalar_is_what_it_is_written_as() {
        let other = |text: &str| Scalar::Other(text.to_owned());
        for (json, scalar) in [
            ("5", other("5")),
            ("-1", other("-1")),
            ("5.0", other("5")),
            ("0.5", other("0.5")),
            ("true", other("true")),
            (r#""5""#, Scalar::Text("5".to_owned())),
            ("null", Scalar::Null),
        ] {
            assert_eq!(from_str::<Scalar>(json).unwrap(), scalar, "{json}");
        }
        assert!(from_str::<Scalar>("[]").is_err() && from_str::<Scalar>("{}").is_err());
    }

    #[test]
    fn an_integer_may_have_a_fraction_of_zero_and_an_object_is_no_list() {
        for (json, integer) in [("5", 5), ("-5.0", -5), ("1e3", 1000), ("9223372036854775807", i64::MAX)] {
            assert_eq!(from_str::<Integer>(json).unwrap(), Integer(integer), "{json}");
        }
        for json in ["0.5", "9223372036854775808", "1e300", r#""5""#, "true", "null"] {
            assert!(from_str::<Integer>(json).is_err(), "{json}");
        }
        #[derive(serde::Deserialize)]
        struct Point {
            x: i64,
        }
        assert_eq!(from_str::<Point>("[5]").unwrap().x, 5, "which is why there is Object");
        assert!(from_str::<Object<Point>>("[5]").is_err());
        assert_eq!(from_str::<Object<Point>>(r#"{"x":5}"#).unwrap().0.x, 5);
    }
}

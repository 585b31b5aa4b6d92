//! What is asked for behind the `?` of a path: names and values, percent-encoded, each name once.

use percent_encoding::percent_decode_str;

use super::error::Refusal;

/// Names and values that nobody has asked for yet.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them.
    ///
    /// # Errors
    /// A name twice, or what is no text.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Refusal> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Refusal::invalid(format!("{name:?} twice")));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a name.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The value of a name, if it is a number from `least` to `most`.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn number(&mut self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let is_decimal = text.strip_prefix('-').unwrap_or(&text).bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_decimal && (least..=most).contains(number));
        let wrong = || Refusal::invalid(format!("{name}: {text:?} is no number from {least} to {most}"));
        number.ok_or_else(wrong).map(Some)
    }

    /// Nothing more is known here.
    ///
    /// # Errors
    /// There is more.
    pub(super) fn end(self) -> Result<(), Refusal> {
        match self.0.first() {
            Some((name, _)) => Err(Refusal::invalid(format!("nothing here is asked for by {name:?}"))),
            None => Ok(()),
        }
    }
}

fn decoded(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned());
    decoded.map_err(|_| Refusal::invalid("the query is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_once_and_what_is_left_is_refused() {
        let mut query = Query::parse(Some("a=1+2%2b&max=7&c")).ok().unwrap();
        assert_eq!(query.text("a").as_deref(), Some("1 2+"));
        assert_eq!((query.text("a"), query.number("max", 1, 9).unwrap()), (None, Some(7)));
        assert!(query.end().unwrap_err().message.contains("\"c\""));
        for wrong in ["a&a", "a=%ff"] {
            assert!(Query::parse(Some(wrong)).is_err(), "{wrong}");
        }
        for wrong in ["0", "10", "+7", "7.0", "", "x"] {
            let wrong = format!("max={}", wrong.replace('+', "%2b"));
            assert!(Query::parse(Some(&wrong)).ok().unwrap().number("max", 1, 9).is_err(), "{wrong}");
        }
        assert!(Query::parse(None).ok().unwrap().end().is_ok());
    }
}

//! Parts of the ARNs of queues, in which they must not be mistaken for one another.

use std::fmt;

use super::FromText;
use super::definition::Fault;

/// An account: twelve digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountId(String);

/// A region: small letters, digits and hyphens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region(String);

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromText for AccountId {
    fn from_text(text: &str) -> Result<Self, Fault> {
        if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Fault::Expected("12 digits"))
        }
    }
}

impl FromText for Region {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !text.is_empty() && text.bytes().all(is_legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Fault::Expected("small letters, digits and hyphens, as in us-east-1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_an_arn_is_refused() {
        for bad in ["", "1", "00000000000x", "0000000000001", "0000:0000000"] {
            assert!(AccountId::from_text(bad).is_err(), "{bad}");
        }
        for bad in ["", "us:east", "US-EAST-1", "us east"] {
            assert!(Region::from_text(bad).is_err(), "{bad}");
        }
        assert_eq!(AccountId::from_text("123456789012").unwrap().to_string(), "123456789012");
        assert_eq!(Region::from_text("eu-west-1").unwrap().to_string(), "eu-west-1");
    }
}

//! Kafka's 128-bit ids of topics, clusters and directories, and their 22-character text form.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet;
use base64::display::Base64Display;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};

use crate::hex::write_hex;

/// Of the last character two bits count. Kafka looks at no others, and ids that people have made up have some.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Sixteen bytes, written as unpadded url-safe base64 (22 characters). All zero means "none".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Uuid(pub [u8; 16]);

/// Why a text is not an id.
#[derive(Debug, thiserror::Error)]
#[error("not a 22-character url-safe base64 id")]
pub struct ParseUuidError;

impl Uuid {
    /// The absent id.
    pub const ZERO: Self = Self([0; 16]);

    /// A fresh id. Never all zero, never Kafka's reserved metadata-topic id, and its text never starts with `-` (which
    /// command lines would read as an option).
    pub fn random() -> Self {
        loop {
            let id = Self(fastrand::u128(..).to_be_bytes());
            let reserved = u128::from_be_bytes(id.0) <= 1;
            if !reserved && !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// The text form that the rest of the world knows: hexadecimal digits in groups of 8, 4, 4, 4 and 12.
    pub fn hyphenated(&self) -> String {
        let mut text = Vec::with_capacity(36);
        for (place, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&place) {
                text.push(b'-');
            }
            write_hex(&[*byte], &mut text);
        }
        String::from_utf8(text).expect("digits and hyphens are ASCII")
    }

    /// Whether this is the absent id.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Base64Display::new(&self.0, &URL_SAFE_NO_PAD), f)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let bytes = LENIENT.decode(text).map_err(|_| ParseUuidError)?;
        bytes.try_into().map(Self).map_err(|_| ParseUuidError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_22_characters_and_reads_back() {
        let id = Uuid::random();
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(id.to_string().parse::<Uuid>().unwrap(), id);
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid([1; 16]).hyphenated(), "01010101-0101-0101-0101-010101010101");
        assert!("short".parse::<Uuid>().is_err());
        // As in an example that half the world has copied.
        let made_up: Uuid = "MkU3OEVBNTcwNTJENDM2Qk".parse().unwrap();
        assert_eq!(made_up.to_string(), "MkU3OEVBNTcwNTJENDM2Qg");
    }
}

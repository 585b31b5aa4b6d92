//! SigV4, verified where credentials are configured: that who asks knows a secret of ours, and that the request is what was
//! signed. Signatures stand in the `Authorization` header, or in the query of a presigned URL. Any region will do.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::error::SqsError;
use crate::clock::TimestampMs;
use crate::hex::hex;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// How far a client's clock may be from ours.
const SKEW_MINUTES: u32 = 5;

/// Longest life of a presigned URL, seconds: a week.
const EXPIRES_MAX_SECONDS: i64 = 604_800;

/// Who may ask: secrets by access key id.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials(BTreeMap<String, String>);

impl Credentials {
    /// Reads a file as the SDKs have them: sections with `aws_access_key_id` and `aws_secret_access_key`.
    ///
    /// # Errors
    /// What is the matter with it; the text of the file is not repeated.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut secrets = BTreeMap::new();
        let mut id: Option<&str> = None;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                if id.is_some() {
                    return Err("an aws_access_key_id without its aws_secret_access_key");
                }
                continue;
            }
            match line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("aws_access_key_id", value)) if !value.is_empty() => id = Some(value),
                Some(("aws_secret_access_key", value)) if !value.is_empty() => {
                    let id =
                        id.take().ok_or("an aws_secret_access_key without an aws_access_key_id before it")?;
                    secrets.insert(id.to_owned(), value.to_owned());
                }
                _ => {}
            }
        }
        match (id, secrets.is_empty()) {
            (Some(_), _) => Err("an aws_access_key_id without its aws_secret_access_key"),
            (None, true) => Err("no aws_access_key_id with an aws_secret_access_key"),
            (None, false) => Ok(Self(secrets)),
        }
    }

    /// Whether a request is signed by one of these.
    pub(super) fn verify(&self, request: &Signed<'_>, now_ms: TimestampMs) -> Result<(), SqsError> {
        let claim = Claim::of(request)?;
        let [id, date, region, "sqs", "aws4_request"] = claim.credential.split('/').collect::<Vec<_>>()[..]
        else {
            return Err(SqsError::IncompleteSignature(
                "Credential should be scoped to a region and to the service sqs.",
            ));
        };
        let secret = self.0.get(id).ok_or(SqsError::InvalidClientTokenId)?;
        claim.check_time(date, now_ms)?;
        // Else whoever overhears a request could make another of it.
        let is_signed = |name: &str| claim.signed_headers.split(';').any(|signed| signed == name);
        if !is_signed("host") || request.headers.contains_key("x-amz-target") && !is_signed("x-amz-target") {
            return Err(SqsError::SignatureDoesNotMatch);
        }
        let scope = format!("{date}/{region}/sqs/aws4_request");
        let canonical = hex(&Sha256::digest(claim.canonical_request(request)));
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{canonical}", claim.time);
        let key = [date, region, "sqs", "aws4_request"]
            .into_iter()
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| {
                hmac(&key, part).finalize().into_bytes().to_vec()
            });
        let signature = unhex(&claim.signature).ok_or(SqsError::SignatureDoesNotMatch)?;
        // In constant time.
        hmac(&key, &to_sign).verify_slice(&signature).map_err(|_| SqsError::SignatureDoesNotMatch)
    }
}

/// What is signed of a request.
pub(super) struct Signed<'r> {
    pub(super) method: &'r Method,
    pub(super) path: &'r str,
    pub(super) query: &'r str,
    pub(super) headers: &'r HeaderMap,
    pub(super) body: &'r [u8],
}

/// What a request says of its signature.
struct Claim {
    credential: String,
    signed_headers: String,
    signature: String,
    time: String,
    /// Of a presigned URL.
    expires_seconds: Option<i64>,
}

impl Claim {
    fn of(request: &Signed<'_>) -> Result<Self, SqsError> {
        match request.headers.get(AUTHORIZATION) {
            Some(header) => Self::of_header(header.to_str().unwrap_or_default(), request.headers),
            None => Self::of_query(request.query),
        }
    }

    fn of_header(header: &str, headers: &HeaderMap) -> Result<Self, SqsError> {
        let missing = SqsError::IncompleteSignature;
        let parts = header
            .strip_prefix(ALGORITHM)
            .ok_or(missing("The signing algorithm is not AWS4-HMAC-SHA256."))?;
        let part = |name: &str| {
            let parts = parts.split(',').filter_map(|part| part.trim().split_once('='));
            parts.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).next()
        };
        let time = headers.get("x-amz-date").and_then(|time| time.to_str().ok());
        Ok(Self {
            credential: part("Credential")
                .ok_or(missing("Authorization header requires 'Credential' parameter."))?,
            signed_headers: part("SignedHeaders")
                .ok_or(missing("Authorization header requires 'SignedHeaders' parameter."))?,
            signature: part("Signature")
                .ok_or(missing("Authorization header requires 'Signature' parameter."))?,
            time: time
                .ok_or(missing("Authorization header requires existence of an 'X-Amz-Date' header."))?
                .to_owned(),
            expires_seconds: None,
        })
    }

    fn of_query(query: &str) -> Result<Self, SqsError> {
        let parameter = |name: &str| {
            parameters(query).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
        };
        if parameter("X-Amz-Algorithm").as_deref() != Some(ALGORITHM) {
            return Err(SqsError::MissingAuthenticationToken);
        }
        let needed = |name| {
            parameter(name).ok_or(SqsError::IncompleteSignature("A parameter of the signature is missing."))
        };
        let expires = needed("X-Amz-Expires")?
            .parse()
            .ok()
            .filter(|seconds| (1..=EXPIRES_MAX_SECONDS).contains(seconds));
        Ok(Self {
            credential: needed("X-Amz-Credential")?,
            signed_headers: needed("X-Amz-SignedHeaders")?,
            signature: needed("X-Amz-Signature")?,
            time: needed("X-Amz-Date")?,
            expires_seconds: Some(
                expires.ok_or(SqsError::IncompleteSignature("X-Amz-Expires must be 1 to 604800."))?,
            ),
        })
    }

    fn check_time(&self, date: &str, now_ms: TimestampMs) -> Result<(), SqsError> {
        let signed =
            DateTime::strptime(TIME_FORMAT, &self.time).ok().and_then(|at| at.to_zoned(TimeZone::UTC).ok());
        let signed = signed.filter(|_| self.time.starts_with(date));
        let signed = signed.ok_or(SqsError::IncompleteSignature(
            "The date of the signature is none, or not that of its scope.",
        ))?;
        let skew_ms = i64::from(SKEW_MINUTES) * 60_000;
        let after_ms = self.expires_seconds.map_or(skew_ms, |seconds| seconds * 1000);
        let signed_ms = signed.timestamp().as_millisecond();
        if (signed_ms - skew_ms..=signed_ms + after_ms).contains(&now_ms) {
            return Ok(());
        }
        let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        Err(SqsError::RequestExpired {
            at: self.time.clone(),
            now: now.strftime(TIME_FORMAT).to_string(),
            limit_minutes: SKEW_MINUTES,
        })
    }

    fn canonical_request(&self, request: &Signed<'_>) -> String {
        let mut query: Vec<(String, String)> = parameters(request.query)
            .into_iter()
            .filter(|(name, _)| self.expires_seconds.is_none() || name != "X-Amz-Signature")
            .map(|(name, value)| (encoded(&name), encoded(&value)))
            .collect();
        query.sort();
        let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers: String =
            self.signed_headers.split(';').map(|name| header_line(name, request.headers)).collect();
        let path: Vec<String> = request.path.split('/').map(encoded).collect();
        let payload = match request.headers.get("x-amz-content-sha256").map(|value| value.as_bytes()) {
            Some(b"UNSIGNED-PAYLOAD") => "UNSIGNED-PAYLOAD".to_owned(),
            _ => hex(&Sha256::digest(request.body)),
        };
        let Self { signed_headers, .. } = self;
        let (method, path, query) = (request.method, path.join("/"), query.join("&"));
        format!("{method}\n{path}\n{query}\n{headers}\n{signed_headers}\n{payload}")
    }
}

/// A header as it is signed: in small letters, blanks drawn together, several values behind each other.
fn header_line(name: &str, headers: &HeaderMap) -> String {
    let values = headers.get_all(name).iter().map(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    });
    format!("{name}:{}\n", values.collect::<Vec<_>>().join(","))
}

/// The parameters of a query string, decoded.
fn parameters(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn encoded(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

fn hmac(key: &[u8], message: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    mac
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "20260102T030405Z";

    fn now_ms() -> i64 {
        let at = DateTime::strptime(TIME_FORMAT, NOW).unwrap();
        at.to_zoned(TimeZone::UTC).unwrap().timestamp().as_millisecond()
    }

    fn credentials() -> Credentials {
        Credentials::parse("[default]\naws_access_key_id = AKID\naws_secret_access_key=secret/+\n").unwrap()
    }

    /// As botocore signs this request; `compat/sqs-python` has it sign many.
    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("host", "localhost:9324".parse().unwrap());
        headers.insert("x-amz-date", NOW.parse().unwrap());
        headers.insert("content-type", "application/x-amz-json-1.0".parse().unwrap());
        headers.insert("x-amz-target", "AmazonSQS.ListQueues".parse().unwrap());
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-west-1/sqs/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature={signature}"
        );
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        headers
    }

    fn verify(headers: &HeaderMap, body: &[u8], now_ms: i64) -> Result<(), SqsError> {
        let method = Method::POST;
        credentials().verify(&Signed { method: &method, path: "/", query: "", headers, body }, now_ms)
    }

    const SIGNATURE: &str = "3c58105065e00b77f2520632748bf788bfe1476f2e7e173503ee345da27db582";

    #[test]
    fn a_signature_of_botocore_is_right_and_any_change_is_not() {
        assert_eq!(verify(&headers(SIGNATURE), b"{}", now_ms()), Ok(()));
        assert_eq!(verify(&headers(SIGNATURE), b"{ }", now_ms()), Err(SqsError::SignatureDoesNotMatch));
        let wrong = SIGNATURE.replace(&SIGNATURE[..1], "x");
        assert_eq!(verify(&headers(&wrong), b"{}", now_ms()), Err(SqsError::SignatureDoesNotMatch));
        let mut other_target = headers(SIGNATURE);
        other_target.insert("x-amz-target", "AmazonSQS.DeleteQueue".parse().unwrap());
        assert_eq!(verify(&other_target, b"{}", now_ms()), Err(SqsError::SignatureDoesNotMatch));
    }

    #[test]
    fn a_signature_is_good_for_five_minutes() {
        let minutes = |minutes: i64| now_ms() + minutes * 60_000;
        assert_eq!(verify(&headers(SIGNATURE), b"{}", minutes(5)), Ok(()));
        assert_eq!(verify(&headers(SIGNATURE), b"{}", minutes(-5)), Ok(()));
        for off in [6, -6] {
            let expired = verify(&headers(SIGNATURE), b"{}", minutes(off));
            assert!(matches!(expired, Err(SqsError::RequestExpired { .. })), "{expired:?}");
        }
    }

    #[test]
    fn who_is_unknown_or_does_not_sign_is_told_so() {
        let mut unsigned = headers(SIGNATURE);
        unsigned.remove(AUTHORIZATION);
        assert_eq!(verify(&unsigned, b"{}", now_ms()), Err(SqsError::MissingAuthenticationToken));
        let mut unknown = headers(SIGNATURE);
        let authorization = unknown[AUTHORIZATION].to_str().unwrap().replace("AKID", "OTHER");
        unknown.insert(AUTHORIZATION, authorization.parse().unwrap());
        assert_eq!(verify(&unknown, b"{}", now_ms()), Err(SqsError::InvalidClientTokenId));
        for broken in [
            "Basic x",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 Credential=AKID, SignedHeaders=host, Signature=0",
        ] {
            let mut headers = headers(SIGNATURE);
            headers.insert(AUTHORIZATION, broken.parse().unwrap());
            assert!(
                matches!(verify(&headers, b"{}", now_ms()), Err(SqsError::IncompleteSignature(_))),
                "{broken}"
            );
        }
    }

    #[test]
    fn credentials_come_in_pairs() {
        let two = "[a]\naws_access_key_id=1\naws_secret_access_key=2\nregion=x\n# note\n[b]\naws_access_key_id = 3\naws_secret_access_key = 4";
        assert_eq!(Credentials::parse(two).unwrap().0.len(), 2);
        for bad in [
            "",
            "[a]\naws_access_key_id=1",
            "aws_secret_access_key=2",
            "[a]\naws_access_key_id=1\n[b]\naws_secret_access_key=2",
        ] {
            assert!(Credentials::parse(bad).is_err(), "{bad}");
        }
    }
}

//! Listeners as Kafka writes them: `NAME://HOST:PORT`, or just `HOST:PORT`.

use std::fmt;
use std::net::Ipv6Addr;

use super::definition::Fault;

const FORM: Fault = Fault::Expected("HOST:PORT or NAME://HOST:PORT, an IPv6 host in brackets");
/// Names that Kafka gives a meaning which a plaintext listener must not pretend to have.
const SECURE_NAMES: [&str; 3] = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"];
/// The longest name that DNS knows, bytes.
const MAX_HOST_BYTES: usize = 255;

/// A named place to listen at or to be reached at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The listener's name in capitals. Without one given: `PLAINTEXT` for the first of a list, `PLAINTEXT_2` for the second ...
    pub name: String,
    /// Host name or address; an IPv6 address stands without brackets. An empty host or `*` has become `0.0.0.0`.
    pub host: String,
    /// Port; 0 where the system is to choose one.
    pub port: u16,
}

impl Endpoint {
    /// Reads endpoints separated by commas; at least one.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Fault> {
        text.split(',').enumerate().map(|(position, one)| Self::parse(one.trim(), position)).collect()
    }

    fn parse(text: &str, position: usize) -> Result<Self, Fault> {
        let (name, address) = match text.split_once("://") {
            Some((name, address)) => (checked_name(name)?, address),
            None => (default_name(position), text),
        };
        let (host, port) = address.rsplit_once(':').ok_or(FORM)?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FORM);
        }
        let port = port.parse().map_err(|_| Fault::Expected("a port from 0 to 65535"))?;
        Ok(Self { name, host: checked_host(host)?, port })
    }

    /// Whether clients cannot connect to it: no port, or an address that means "all interfaces".
    pub fn is_unreachable(&self) -> bool {
        let everywhere = self.host == "0.0.0.0" || self.host.parse() == Ok(Ipv6Addr::UNSPECIFIED);
        self.port == 0 || everywhere
    }

    /// `host:port`, an IPv6 address in brackets: what a client is given.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.address())
    }
}

/// The name of a listener that was given none and stands at `position` (from 0) of its list.
pub fn default_name(position: usize) -> String {
    match position {
        0 => "PLAINTEXT".to_owned(),
        _ => format!("PLAINTEXT_{}", position + 1),
    }
}

fn checked_name(name: &str) -> Result<String, Fault> {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(is_name_byte) {
        return Err(Fault::Expected("a listener name of letters, digits, '_' and '-'"));
    }
    let name = name.to_ascii_uppercase();
    if SECURE_NAMES.contains(&name.as_str()) {
        return Err(Fault::Expected("a plaintext listener: TLS and SASL are not supported"));
    }
    Ok(name)
}

fn checked_host(host: &str) -> Result<String, Fault> {
    if host.is_empty() || host == "*" {
        return Ok("0.0.0.0".to_owned());
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().map(|address| address.to_string()).map_err(|_| FORM);
    }
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.len() > MAX_HOST_BYTES || !host.bytes().all(is_host_byte) {
        return Err(FORM);
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kafkas_and_the_short_form_are_read() {
        for (text, shown) in [
            ("127.0.0.1:9092", "PLAINTEXT://127.0.0.1:9092"),
            ("docker://broker-1:0", "DOCKER://broker-1:0"),
            ("PLAINTEXT://:9092", "PLAINTEXT://0.0.0.0:9092"),
            ("*:1", "PLAINTEXT://0.0.0.0:1"),
            ("[::1]:65535", "PLAINTEXT://[::1]:65535"),
            ("a:1, b:2,x://c:3", "PLAINTEXT://a:1,PLAINTEXT_2://b:2,X://c:3"),
        ] {
            let endpoints = Endpoint::parse_list(text).unwrap();
            let all: Vec<String> = endpoints.iter().map(Endpoint::to_string).collect();
            assert_eq!(all.join(","), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "host",
            "host:",
            "host:65536",
            "host:-1",
            "host:+1",
            "::1:9092",
            "[::1",
            "[x]:1",
            "a b:1",
            "://h:1",
            "a/b://h:1",
            "ssl://h:1",
            "a:1,,b:2",
        ] {
            assert!(Endpoint::parse_list(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn all_interfaces_or_no_port_cannot_be_reached() {
        for (text, unreachable) in
            [("0.0.0.0:1", true), ("[::]:1", true), ("h:0", true), ("h:1", false), ("[::1]:1", false)]
        {
            assert_eq!(Endpoint::parse_list(text).unwrap()[0].is_unreachable(), unreachable, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reads_back(text in "[a-zA-Z0-9:/.,\\[\\]* _-]{0,40}|.{0,40}") {
            if let Ok(endpoints) = Endpoint::parse_list(&text) {
                for endpoint in endpoints {
                    prop_assert_eq!(Endpoint::parse_list(&endpoint.to_string()), Ok(vec![endpoint.clone()]));
                }
            }
        }
    }
}

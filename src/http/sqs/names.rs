//! Names of queues, their URLs and ARNs. Whatever host, account or region a client writes, the name is what counts.

use super::error::SqsError;

/// Longest name of a queue, characters; `.fifo` counts.
const NAME_MAX: usize = 80;

/// What the name of a FIFO queue ends with.
pub(super) const FIFO_SUFFIX: &str = ".fifo";

/// Checks the name of a queue that is to be made.
pub(super) fn check_name(name: &str, is_fifo: bool) -> Result<(), SqsError> {
    const RULE: &str = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length";
    let plain = match (is_fifo, name.strip_suffix(FIFO_SUFFIX)) {
        (true, Some(plain)) => plain,
        (true, None) => {
            return Err(SqsError::value(
                name,
                "QueueName",
                "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.",
            ));
        }
        (false, _) => name,
    };
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if plain.is_empty() || name.len() > NAME_MAX || !plain.bytes().all(is_legal) {
        return Err(SqsError::InvalidParameter(RULE.into()));
    }
    Ok(())
}

/// The name in a queue URL: `http://host/account/name`, `/queue/name`, or just the name.
pub(super) fn name_of_url(url: &str) -> &str {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The name in an ARN of a queue, if it is one.
pub(super) fn name_of_arn(arn: &str) -> Option<&str> {
    let mut parts = arn.split(':');
    let is_sqs = parts.next() == Some("arn") && parts.next().is_some() && parts.next() == Some("sqs");
    let name = parts.nth(2)?;
    (is_sqs && parts.next().is_none() && !name.is_empty()).then_some(name)
}

/// Where the queues of this server are, as ARNs say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) region: String,
    pub(super) account_id: String,
}

impl Place {
    /// The ARN of a queue.
    pub(super) fn arn(&self, name: &str) -> String {
        format!("arn:aws:sqs:{}:{}:{name}", self.region, self.account_id)
    }

    /// The URL of a queue, on the host and port that the client has used.
    pub(super) fn url(&self, host: &str, name: &str) -> String {
        format!("http://{host}/{}/{name}", self.account_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_letters_digits_hyphens_and_underscores() {
        for (name, is_fifo, is_fine) in [
            ("jobs", false, true),
            ("Jobs_1-2", false, true),
            ("jobs.fifo", true, true),
            ("jobs.fifo", false, false),
            ("jobs", true, false),
            (".fifo", true, false),
            ("", false, false),
            ("a b", false, false),
            ("a.b", false, false),
            (&"x".repeat(80), false, true),
            (&"x".repeat(81), false, false),
            (&("x".repeat(76) + ".fifo"), true, false),
        ] {
            assert_eq!(check_name(name, is_fifo).is_ok(), is_fine, "{name}");
        }
    }

    #[test]
    fn the_name_is_the_last_part_of_a_url_or_an_arn() {
        for url in [
            "http://localhost:9324/000000000000/jobs",
            "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs/",
            "http://localhost:9324/queue/jobs",
            "/queue/jobs",
            "jobs",
        ] {
            assert_eq!(name_of_url(url), "jobs", "{url}");
        }
        assert_eq!(name_of_url(""), "");
        let place = Place { region: "us-east-1".to_owned(), account_id: "000000000000".to_owned() };
        assert_eq!(name_of_arn(&place.arn("jobs.fifo")), Some("jobs.fifo"));
        assert_eq!(name_of_url(&place.url("h:1", "jobs")), "jobs");
        for arn in [
            "jobs",
            "arn:aws:sns:us-east-1:1:jobs",
            "arn:aws:sqs:r:1",
            "arn:aws:sqs:r:1:",
            "arn:aws:sqs:r:1:a:b",
        ] {
            assert_eq!(name_of_arn(arn), None, "{arn}");
        }
    }
}

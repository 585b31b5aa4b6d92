//! What is counted of each API.

use std::time::Instant;

use super::{Counter, Histogram};

/// Error codes from -1 up to here (exclusive) have a place; Kafka's end at 136.
const ERROR_CODES_END: usize = 192;

/// The counters of every API that is served.
#[derive(Debug)]
pub struct RequestCounters(Box<[ApiCounters]>);

/// The counters of one API.
#[derive(Debug)]
pub struct ApiCounters {
    /// Kafka's name of the API.
    pub name: &'static str,
    /// Requests begun.
    pub requests: Counter,
    /// Bytes of these, sizes included.
    pub request_bytes: Counter,
    /// Bytes of the answers, sizes included.
    pub response_bytes: Counter,
    /// From a request's turn to its encoded answer.
    pub latency: Histogram,
    /// By error code, which begin at -1.
    errors: Box<[Counter]>,
}

impl RequestCounters {
    /// Counters for the APIs of these names, in their order.
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(names.into_iter().map(ApiCounters::new).collect())
    }

    /// The counters of the API at that place of the names given.
    pub fn at(&self, place: usize) -> &ApiCounters {
        &self.0[place]
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &ApiCounters> {
        self.0.iter()
    }
}

impl ApiCounters {
    fn new(name: &'static str) -> Self {
        let errors = std::iter::repeat_with(Counter::default).take(ERROR_CODES_END + 1).collect();
        Self {
            name,
            requests: Counter::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            latency: Histogram::default(),
            errors,
        }
    }

    /// Counts a request of `bytes` that begins.
    pub fn begun(&self, bytes: usize) {
        self.requests.increment();
        self.request_bytes.add(bytes as u64);
    }

    /// Counts a request that began at `began`, and is answered now with `bytes`.
    pub fn answered(&self, began: Instant, bytes: usize) {
        self.response_bytes.add(bytes as u64);
        self.latency.observe(began.elapsed());
    }

    /// Counts an error code in an answer; 0 is none.
    pub fn error(&self, code: i16) {
        if code != 0
            && let Some(counter) =
                usize::try_from(i32::from(code) + 1).ok().and_then(|at| self.errors.get(at))
        {
            counter.increment();
        }
    }

    /// Error codes that have been answered, and how often.
    pub fn errors(&self) -> impl Iterator<Item = (i16, u64)> {
        let counts = self.errors.iter().enumerate().map(|(at, counter)| (at as i16 - 1, counter.value()));
        counts.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_code_and_success_is_none() {
        let counters = RequestCounters::new(["A", "B"]);
        for code in [0, -1, 3, 3, 190, 191, 192, i16::MAX, i16::MIN] {
            counters.at(1).error(code);
        }
        assert_eq!(counters.at(1).errors().collect::<Vec<_>>(), [(-1, 1), (3, 2), (190, 1), (191, 1)]);
        assert_eq!(counters.at(0).errors().count(), 0);
    }
}

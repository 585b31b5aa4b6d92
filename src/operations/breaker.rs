//! Pauses a queue most of whose deliveries fail: what is wrong is then not the messages.

use std::collections::VecDeque;

use crate::catalog::queue_config::QueueConfig;
use crate::clock::TimestampMs;

/// How often a paused queue hands out one message to see whether it can be dealt with now, ms.
const PROBE_EVERY_MS: i64 = 5_000;

/// The last deliveries of a queue, and whether it is paused for them.
#[derive(Default, Debug)]
pub(super) struct Breaker {
    /// Whether each came to something.
    outcomes: VecDeque<bool>,
    failures: usize,
    /// When the next probe may be taken, while paused.
    probe_at: Option<TimestampMs>,
}

impl Breaker {
    /// How many of `wanted` messages may be handed out: all of them, none, or one as a probe.
    pub(super) fn allows(&mut self, config: &QueueConfig, wanted: i64, now: TimestampMs) -> i64 {
        if config.breaker_failure_ratio <= 0.0 {
            *self = Self::default();
            return wanted;
        }
        match self.probe_at {
            None => wanted,
            Some(at) if at <= now => wanted.min(1),
            Some(_) => 0,
        }
    }

    /// When [`Breaker::allows`] says more than it does now.
    pub(super) fn probe_at(&self) -> Option<TimestampMs> {
        self.probe_at
    }

    /// Messages were handed out: the next probe comes later.
    pub(super) fn handed_out(&mut self, now: TimestampMs) {
        if self.probe_at.is_some() {
            self.probe_at = Some(now.saturating_add(PROBE_EVERY_MS));
        }
    }

    /// A delivery has come to something or not. Returns whether the queue is paused from now on.
    pub(super) fn note(&mut self, config: &QueueConfig, is_done: bool, now: TimestampMs) -> bool {
        if config.breaker_failure_ratio <= 0.0 {
            return false;
        }
        if self.probe_at.is_some() {
            if is_done {
                *self = Self::default();
            }
            return false;
        }
        self.outcomes.push_back(is_done);
        self.failures += usize::from(!is_done);
        while self.outcomes.len() > config.breaker_window as usize {
            self.failures -= usize::from(self.outcomes.pop_front() == Some(false));
        }
        let is_judged = self.outcomes.len() == config.breaker_window as usize;
        let ratio = self.failures as f64 / self.outcomes.len() as f64;
        if is_judged && ratio >= config.breaker_failure_ratio {
            self.probe_at = Some(now.saturating_add(PROBE_EVERY_MS));
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::topic_config::Inherited;
    use crate::config::ConfigMap;

    fn config(ratio: &str) -> QueueConfig {
        let all = [("enable", "true"), ("breaker.failure.ratio", ratio), ("breaker.window", "4")];
        let all = all.map(|(key, value)| (format!("ottla.queue.{key}"), value.to_owned())).into();
        let none = ConfigMap::new();
        QueueConfig::of(&all, &Inherited { dynamic_node: &none, dynamic_default: &none, fixed: &none })
            .unwrap()
    }

    #[test]
    fn too_many_failures_among_the_last_pause_it_until_a_probe_succeeds() {
        let (mut breaker, config) = (Breaker::default(), config("0.75"));
        for is_done in [false, false, false] {
            assert!(!breaker.note(&config, is_done, 0), "too few to judge");
        }
        assert!(breaker.note(&config, true, 0), "three of four");
        assert_eq!(breaker.allows(&config, 10, 1), 0);
        assert_eq!(breaker.allows(&config, 10, PROBE_EVERY_MS), 1);
        breaker.handed_out(PROBE_EVERY_MS);
        assert_eq!(breaker.allows(&config, 10, PROBE_EVERY_MS + 1), 0, "one probe at a time");
        assert!(!breaker.note(&config, false, PROBE_EVERY_MS + 1));
        assert_eq!(breaker.allows(&config, 10, 2 * PROBE_EVERY_MS), 1);
        breaker.note(&config, true, 2 * PROBE_EVERY_MS);
        assert_eq!(breaker.allows(&config, 10, 2 * PROBE_EVERY_MS), 10);
    }

    #[test]
    fn it_forgets_what_lies_before_its_window_and_is_off_by_default() {
        let (mut breaker, config_on) = (Breaker::default(), config("0.75"));
        for is_done in [false, false, true, true, false, true, false, true] {
            assert!(!breaker.note(&config_on, is_done, 0));
        }
        let off = config("0");
        (0..100).for_each(|_| assert!(!breaker.note(&off, false, 0)));
        assert_eq!(breaker.allows(&off, 10, 0), 10);
    }
}

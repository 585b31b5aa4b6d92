//! Pauses a queue most of whose deliveries fail: what is wrong is then not the messages.

use std::collections::VecDeque;

use crate::catalog::queue_config::QueueConfig;
use crate::clock::TimestampMs;

/// How often a paused queue hands out one message to see whether it can be dealt with now, ms.
const PROBE_EVERY_MS: i64 = 5_000;

/// What a receiver may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Allowance {
    /// As much as it wants.
    All,
    /// One message, to see what becomes of it.
    Probe,
    /// Nothing: the queue is paused.
    Nothing,
}

impl Allowance {
    /// How many of `wanted` messages that are.
    pub(super) fn of(self, wanted: i64) -> i64 {
        match self {
            Self::All => wanted,
            Self::Probe => wanted.min(1),
            Self::Nothing => 0,
        }
    }
}

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
    /// What may be handed out to who wants something now. A probe is nobody else's until its time is over, or it is
    /// [given back](Breaker::not_needed).
    pub(super) fn allows(&mut self, config: &QueueConfig, now: TimestampMs) -> Allowance {
        if config.breaker_failure_ratio <= 0.0 {
            *self = Self::default();
            return Allowance::All;
        }
        match self.probe_at {
            None => Allowance::All,
            Some(at) if at <= now => {
                self.probe_at = Some(now.saturating_add(PROBE_EVERY_MS));
                Allowance::Probe
            }
            Some(_) => Allowance::Nothing,
        }
    }

    /// There was nothing to be handed out: who comes next may have the probe.
    pub(super) fn not_needed(&mut self, allowance: Allowance, now: TimestampMs) {
        if allowance == Allowance::Probe && self.probe_at.is_some() {
            self.probe_at = Some(now);
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
        assert_eq!(breaker.allows(&config, 1), Allowance::Nothing);
        assert_eq!(breaker.allows(&config, PROBE_EVERY_MS), Allowance::Probe);
        assert_eq!(breaker.allows(&config, PROBE_EVERY_MS), Allowance::Nothing, "one probe at a time");
        breaker.not_needed(Allowance::Nothing, PROBE_EVERY_MS);
        assert_eq!(
            breaker.allows(&config, PROBE_EVERY_MS),
            Allowance::Nothing,
            "who had none gives none back"
        );
        breaker.not_needed(Allowance::Probe, PROBE_EVERY_MS);
        assert_eq!(breaker.allows(&config, PROBE_EVERY_MS), Allowance::Probe, "there was nothing to have");
        assert!(!breaker.note(&config, false, PROBE_EVERY_MS + 1));
        assert_eq!(breaker.allows(&config, 2 * PROBE_EVERY_MS), Allowance::Probe);
        breaker.note(&config, true, 2 * PROBE_EVERY_MS);
        assert_eq!(breaker.allows(&config, 2 * PROBE_EVERY_MS), Allowance::All);
        assert_eq!(
            [Allowance::All, Allowance::Probe, Allowance::Nothing].map(|some| some.of(10)),
            [10, 1, 0]
        );
    }

    #[test]
    fn it_forgets_what_lies_before_its_window_and_is_off_by_default() {
        let (mut breaker, config_on) = (Breaker::default(), config("0.75"));
        for is_done in [false, false, true, true, false, true, false, true] {
            assert!(!breaker.note(&config_on, is_done, 0));
        }
        let off = config("0");
        (0..100).for_each(|_| assert!(!breaker.note(&off, false, 0)));
        assert_eq!(breaker.allows(&off, 0), Allowance::All);
    }
}

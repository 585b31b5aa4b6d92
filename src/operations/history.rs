//! Who has had a message, when, and what came of it: of messages that were delivered and are not done, so that a dead letter tells why
//! it is one. In memory alone and bounded: a restart forgets it, while the count of deliveries lasts.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::Place;
use crate::clock::TimestampMs;
use crate::queue::{QueueKey, Range, Settlement};

/// Messages of a queue of which it is remembered who had them.
const MESSAGES_MAX: usize = 10_000;

/// Deliveries of a message that are remembered: the first, and the last ones.
const ATTEMPTS_MAX: usize = 10;

/// First deliveries to members of a share group that are remembered, each of many records.
const RANGES_MAX: usize = 4_096;

/// Longest error that is kept, bytes.
const ERROR_MAX_BYTES: usize = 512;

/// Longest name of a consumer that is kept, bytes.
const CONSUMER_MAX_BYTES: usize = 128;

/// Longest history that a dead letter tells, bytes.
const HISTORY_MAX_BYTES: usize = 8 << 10;

/// A delivery of a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Attempt {
    /// Which one in its queue.
    pub delivery: u16,
    /// When somebody got it.
    pub received_ms: TimestampMs,
    /// Who that was, as far as it said.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub consumer: Option<Arc<str>>,
    /// When it was given back or refused; `None` if its time was over, or is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<TimestampMs>,
    /// Which of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<AttemptEnd>,
    /// Why, in the consumer's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
}

fn as_text<S: Serializer>(name: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_deref().serialize(serializer)
}

/// What a delivery came to that came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// It was given back.
    Released,
    /// It was refused.
    Rejected,
}

/// The name of a consumer as it is kept: what it calls itself, and where it is.
pub fn consumer_name(name: &str, address: std::net::IpAddr) -> Arc<str> {
    match cut(name.trim(), CONSUMER_MAX_BYTES) {
        "" => address.to_string().into(),
        name => format!("{name} ({address})").into(),
    }
}

/// The deliveries of one message. Most are done after the first, which takes no memory of its own.
#[derive(Debug)]
struct Known {
    place: Place,
    first: Attempt,
    later: VecDeque<Attempt>,
}

impl Known {
    /// When it was received first, if that is remembered.
    fn since(&self) -> Option<TimestampMs> {
        (self.first.delivery == 1).then_some(self.first.received_ms)
    }

    fn last(&mut self) -> &mut Attempt {
        self.later.back_mut().unwrap_or(&mut self.first)
    }

    fn push(&mut self, attempt: Attempt) {
        self.later.push_back(attempt);
        if self.later.len() >= ATTEMPTS_MAX {
            self.later.pop_front();
        }
    }
}

/// Records that a member of a share group has got together, from a place on.
#[derive(Debug)]
struct Lent {
    /// Inclusive.
    last_offset: i64,
    /// Which it is of all that have been lent.
    number: u64,
    attempt: Attempt,
}

/// The deliveries of a queue's messages. See the module.
#[derive(Default, Debug)]
pub(super) struct History {
    /// In the order in which they became known: what came last, which is what is done next, lies together however much there is.
    known: BTreeMap<u64, Known>,
    /// Which of them a message is.
    numbers: HashMap<Place, u64>,
    /// By their first record; none is in two.
    lent: BTreeMap<Place, Lent>,
    /// In the order in which they were lent.
    lent_order: BTreeMap<u64, Place>,
    /// Of the next message or range.
    next_number: u64,
}

impl History {
    /// Somebody has got a message. Gives when it was received first, which is now if nothing is known of that.
    pub(super) fn received(
        &mut self,
        place: Place,
        delivery: u16,
        now: TimestampMs,
        consumer: Option<&Arc<str>>,
    ) -> TimestampMs {
        let attempt = Attempt {
            delivery,
            received_ms: now,
            consumer: consumer.cloned(),
            ended_ms: None,
            end: None,
            error: None,
        };
        if delivery > 1 {
            if let Some(known) = self.known_mut(place) {
                known.push(attempt);
                return known.since().unwrap_or(now);
            }
            if let Some(first) = self.lent_at(place).cloned() {
                let since = first.received_ms;
                self.remember(Known { place, first, later: VecDeque::from([attempt]) });
                return since;
            }
        }
        self.remember(Known { place, first: attempt, later: VecDeque::new() });
        now
    }

    /// A member of a share group has got records: what is delivered for the first time is remembered together.
    pub(super) fn lent(&mut self, key: &QueueKey, range: Range, now: TimestampMs, consumer: &Arc<str>) {
        let at = |offset| Place { topic_id: key.topic_id, partition: key.partition, offset };
        if range.deliveries > 1 {
            for (offset, delivery) in range.records().take(MESSAGES_MAX) {
                self.received(at(offset), delivery, now, Some(consumer));
            }
            return;
        }
        let attempt = Attempt {
            delivery: range.deliveries,
            received_ms: now,
            consumer: Some(Arc::clone(consumer)),
            ended_ms: None,
            end: None,
            error: None,
        };
        self.lend(at(range.first), range.last, attempt);
    }

    /// Who had some of the records before, as before a reset, keeps the others.
    fn lend(&mut self, first: Place, last_offset: i64, attempt: Attempt) {
        let is_before = |(at, before): &(&Place, &Lent)| {
            (at.topic_id, at.partition) == (first.topic_id, first.partition)
                && before.last_offset >= first.offset
        };
        let from = self.lent.range(..first).next_back().map_or(first, |(at, _)| *at);
        let overlapped = self.lent.range(from..=Place { offset: last_offset, ..first }).filter(is_before);
        for at in overlapped.map(|(at, _)| *at).collect::<Vec<_>>() {
            let Some(before) = self.lent.remove(&at) else { continue };
            if at.offset >= first.offset {
                self.lent_order.remove(&before.number);
            }
            if before.last_offset > last_offset {
                let behind = Place { offset: last_offset + 1, ..at };
                self.insert_lent(behind, before.last_offset, before.attempt.clone());
            }
            if at.offset < first.offset {
                self.lent.insert(at, Lent { last_offset: first.offset - 1, ..before });
            }
        }
        self.insert_lent(first, last_offset, attempt);
        while self.lent.len() > RANGES_MAX
            && let Some((_, oldest)) = self.lent_order.pop_first()
        {
            self.lent.remove(&oldest);
        }
    }

    fn insert_lent(&mut self, first: Place, last_offset: i64, attempt: Attempt) {
        let number = self.number();
        self.lent.insert(first, Lent { last_offset, number, attempt });
        self.lent_order.insert(number, first);
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn lent_at(&self, place: Place) -> Option<&Attempt> {
        let (first, lent) = self.lent.range(..=place).next_back()?;
        let is_there = (first.topic_id, first.partition) == (place.topic_id, place.partition);
        (is_there && place.offset <= lent.last_offset).then_some(&lent.attempt)
    }

    fn remember(&mut self, known: Known) {
        let number = self.number();
        if let Some(before) = self.numbers.insert(known.place, number) {
            self.known.remove(&before);
        }
        self.known.insert(number, known);
        while self.known.len() > MESSAGES_MAX
            && let Some((_, oldest)) = self.known.pop_first()
        {
            self.numbers.remove(&oldest.place);
        }
    }

    fn known_mut(&mut self, place: Place) -> Option<&mut Known> {
        self.known.get_mut(self.numbers.get(&place)?)
    }

    /// Why a delivery is about to be given back or refused.
    pub(super) fn explain(&mut self, place: Place, delivery: u16, error: &str) {
        let last = self.known_mut(place).map(Known::last);
        if let Some(last) = last.filter(|last| last.delivery == delivery && last.end.is_none()) {
            last.error = Some(cut(error, ERROR_MAX_BYTES).into());
        }
    }

    /// A delivery has ended. Gives when the message was received first, if that is remembered and over now.
    pub(super) fn settled(
        &mut self,
        place: Place,
        delivery: u16,
        what: Settlement,
        now: TimestampMs,
    ) -> Option<TimestampMs> {
        let end = match what {
            Settlement::Done | Settlement::Drop | Settlement::Unseen => return self.forget(place),
            Settlement::Extend { for_ms: 1.. } => return None,
            Settlement::Return { .. } | Settlement::Abandon { .. } | Settlement::Extend { .. } => {
                AttemptEnd::Released
            }
            Settlement::Reject => AttemptEnd::Rejected,
        };
        let known = self.known_mut(place)?;
        let last = known.last();
        if last.delivery == delivery {
            last.ended_ms = Some(now);
            last.end = Some(end);
        }
        known.since().filter(|_| end == AttemptEnd::Rejected)
    }

    /// The message is done, or elsewhere. Gives when it was received first, if that is remembered.
    pub(super) fn forget(&mut self, place: Place) -> Option<TimestampMs> {
        let number = self.numbers.remove(&place)?;
        self.known.remove(&number)?.since()
    }

    /// The deliveries of a message that are remembered, the first one first.
    pub(super) fn of(&self, place: Place) -> Vec<Attempt> {
        match self.numbers.get(&place).and_then(|number| self.known.get(number)) {
            Some(known) => std::iter::once(&known.first).chain(&known.later).cloned().collect(),
            None => self.lent_at(place).cloned().into_iter().collect(),
        }
    }
}

/// As a dead letter tells it: JSON, without the oldest deliveries if it would be too long. `None` if there is nothing to tell.
pub(super) fn text(attempts: &[Attempt]) -> Option<Bytes> {
    (0..attempts.len()).find_map(|first| {
        let text = serde_json::to_vec(&attempts[first..]).expect("it is made of texts and numbers");
        (text.len() <= HISTORY_MAX_BYTES).then(|| text.into())
    })
}

/// As much of a text as has no more than so many bytes.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uuid::Uuid;

    fn place(offset: i64) -> Place {
        Place { topic_id: Uuid([1; 16]), partition: 2, offset }
    }

    fn key() -> QueueKey {
        QueueKey { group: "q".into(), topic_id: Uuid([1; 16]), partition: 2 }
    }

    #[test]
    fn the_first_and_the_last_deliveries_of_a_message_are_told_with_their_ends() {
        let mut history = History::default();
        let who: Arc<str> = consumer_name(" worker ", "10.0.0.7".parse().unwrap());
        assert_eq!(&*who, "worker (10.0.0.7)");
        assert_eq!(&*consumer_name("", "::1".parse().unwrap()), "::1");
        for delivery in 1..=20 {
            let now = i64::from(delivery) * 10;
            assert_eq!(history.received(place(5), delivery, now, Some(&who)), 10, "when it was first");
            history.explain(place(5), delivery, "no");
            let back = Settlement::Return { after_ms: None };
            assert_eq!(history.settled(place(5), delivery, back, now + 1), None, "not over");
        }
        let told: Vec<_> = history.of(place(5)).iter().map(|attempt| attempt.delivery).collect();
        assert_eq!(told, [1, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        let last = history.of(place(5)).pop().unwrap();
        assert_eq!((last.ended_ms, last.end), (Some(201), Some(AttemptEnd::Released)));
        assert_eq!(last.error.as_deref(), Some("no"));
        history.explain(place(5), 20, "too late");
        assert_eq!(history.of(place(5)).pop(), Some(last));
        assert_eq!(history.settled(place(5), 20, Settlement::Done, 300), Some(10));
        assert_eq!(history.of(place(5)), []);
    }

    #[test]
    fn records_that_were_lent_together_are_told_apart_when_they_come_again() {
        let (mut history, one, two) = (History::default(), "one".into(), "two".into());
        history.lent(&key(), Range { first: 10, last: 19, deliveries: 1 }, 5, &one);
        history.lent(&key(), Range { first: 13, last: 14, deliveries: 2 }, 6, &two);
        let who = |offset| -> Vec<_> {
            history.of(place(offset)).into_iter().map(|attempt| attempt.consumer.unwrap()).collect()
        };
        assert_eq!(who(12), [Arc::clone(&one)]);
        assert_eq!(who(14), [one, two]);
        assert!(who(20).is_empty());
        assert_eq!(history.known.len(), 2, "what was delivered once costs nothing of its own");
    }

    #[test]
    fn who_got_records_anew_is_told_of_these_and_who_had_their_neighbours_of_them() {
        let mut history = History::default();
        let lend = |history: &mut History, first, last, name: &str| {
            history.lent(&key(), Range { first, last, deliveries: 1 }, 0, &name.into());
        };
        lend(&mut history, 10, 19, "one");
        lend(&mut history, 30, 39, "two");
        for other in [QueueKey { partition: 1, ..key() }, QueueKey { partition: 3, ..key() }] {
            history.lent(&other, Range { first: 0, last: 99, deliveries: 1 }, 0, &"other".into());
        }
        lend(&mut history, 15, 34, "three");
        lend(&mut history, 20, 22, "four");
        let who = |history: &History, offset| -> Option<String> {
            Some(history.of(place(offset)).first()?.consumer.as_ref()?.to_string())
        };
        let all: String = (8..42)
            .map(|offset| who(&history, offset).map_or('.', |name| name.chars().nth(1).unwrap()))
            .collect();
        assert_eq!(all, "..nnnnnhhhhhooohhhhhhhhhhhhwwwww..");
        // The same, time and again, is remembered once.
        (0..10_000).for_each(|_| lend(&mut history, 50, 60, "five"));
        assert_eq!((history.lent.len(), history.lent_order.len()), (8, 8));
        assert_eq!(who(&history, 55).as_deref(), Some("five"));
        (0..RANGES_MAX as i64).for_each(|first| lend(&mut history, 100 + first, 100 + first, "six"));
        assert_eq!(
            (history.lent.len(), who(&history, 55), who(&history, 100)),
            (RANGES_MAX, None, Some("six".into()))
        );
    }

    #[test]
    fn it_is_bounded_in_messages_ranges_and_bytes() {
        let mut history = History::default();
        for offset in 0..30_000 {
            history.received(place(offset), 1, 0, None);
            if offset % 2 == 0 {
                history.settled(place(offset), 1, Settlement::Done, 1);
            }
        }
        assert_eq!((history.known.len(), history.numbers.len()), (MESSAGES_MAX, MESSAGES_MAX));
        assert!(history.of(place(9_999)).is_empty() && history.of(place(10_001)).len() == 1);
        for first in 0..2 * RANGES_MAX as i64 {
            history.lent(&key(), Range { first, last: first, deliveries: 1 }, 0, &"".into());
        }
        assert_eq!((history.lent.len(), history.lent_order.len()), (RANGES_MAX, RANGES_MAX));
        history.explain(place(29_999), 1, &"\u{0}é".repeat(1_000));
        let attempt = history.of(place(29_999)).remove(0);
        assert!(attempt.error.as_ref().unwrap().len() <= ERROR_MAX_BYTES);
        let told = text(&vec![attempt.clone(); ATTEMPTS_MAX]).unwrap();
        assert!(told.len() <= HISTORY_MAX_BYTES);
        let told: Vec<serde_json::Value> = serde_json::from_slice(&told).unwrap();
        assert!(!told.is_empty() && told.len() < ATTEMPTS_MAX, "{} of them fit", told.len());
        assert_eq!(text(&[]), None);
    }
}

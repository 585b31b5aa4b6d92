//! Incremental fetch sessions: what a client fetches is remembered, so that it names only what changes and hears only of
//! what changed. KIP-227.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::TimestampMs;
use crate::protocol::ErrorCode;
use crate::protocol::messages::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest};
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

/// A session unused for this long may be replaced by any new one, ms.
const EVICTABLE_AFTER_MS: i64 = 120_000;

/// Session epoch of a request without a session.
const NO_SESSION: i32 = -1;

/// Session epoch of a request that wants one made.
const NEW_SESSION: i32 = 0;

/// First version that names topics by id.
pub const TOPIC_IDS_FROM_VERSION: i16 = 13;

/// A topic as a request names it: by name up to version 12, then by id.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TopicKey {
    /// Name; empty when the id is used.
    pub name: Str,
    /// Id; zero when the name is used.
    pub id: Uuid,
}

/// A partition that is fetched.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its topic.
    pub topic: TopicKey,
    /// What of it.
    pub partition: FetchPartition,
}

/// What the client was last told of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    high_watermark: i64,
    log_start_offset: i64,
}

#[derive(Debug)]
struct Member {
    wanted: Wanted,
    /// `None`: nothing, or an error; the next answer names the partition in any case.
    told: Option<Told>,
}

#[derive(Debug)]
struct Session {
    /// In the order in which they are served: who got records goes to the end.
    members: Vec<Member>,
    places: HashMap<(TopicKey, i32), usize>,
    next_epoch: i32,
    by_id: bool,
    created_ms: TimestampMs,
    last_used_ms: TimestampMs,
}

/// The sessions of all clients, at most `max.incremental.fetch.session.cache.slots`.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    sessions: Mutex<HashMap<i32, Arc<Mutex<Session>>>>,
}

/// How one request is fetched and answered.
#[derive(Debug)]
pub struct Plan {
    /// What to fetch, in order.
    pub wanted: Vec<Wanted>,
    session: Option<(i32, Arc<Mutex<Session>>)>,
    incremental: bool,
}

impl FetchSessions {
    /// At most `slots` sessions; 0 turns them off.
    pub fn new(slots: usize) -> Self {
        Self { slots, sessions: Mutex::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds or makes the session of a request.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR.
    pub fn begin(&self, request: FetchRequest, version: i16, now_ms: TimestampMs) -> Result<Plan, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        let forgotten = request.forgotten_topics_data;
        let by_id = version >= TOPIC_IDS_FROM_VERSION;
        let listed: Vec<Wanted> = request
            .topics
            .into_iter()
            .flat_map(|topic| {
                let key = TopicKey { name: topic.topic, id: topic.topic_id };
                topic.partitions.into_iter().map(move |partition| Wanted { topic: key.clone(), partition })
            })
            .collect();
        if epoch == NO_SESSION || epoch == NEW_SESSION {
            if id != 0 {
                self.sessions.lock().remove(&id);
            }
            let session = match epoch == NEW_SESSION && !listed.is_empty() {
                true => self.create(&listed, by_id, now_ms),
                false => None,
            };
            return Ok(Plan { wanted: listed, session, incremental: false });
        }
        let Some(session) = self.sessions.lock().get(&id).cloned() else {
            return Err(ErrorCode::FetchSessionIdNotFound);
        };
        let mut open = session.lock();
        if open.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        if open.next_epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        open.next_epoch = following(epoch);
        open.last_used_ms = now_ms;
        for wanted in listed {
            open.put(wanted);
        }
        for topic in forgotten {
            let key = TopicKey { name: topic.topic, id: topic.topic_id };
            for partition in topic.partitions {
                open.places.remove(&(key.clone(), partition));
            }
        }
        open.drop_forgotten();
        let wanted: Vec<_> = open.members.iter().map(|member| member.wanted.clone()).collect();
        drop(open);
        if wanted.is_empty() {
            // Nothing is left to fetch: the session ends, and the answer says so with id 0.
            self.sessions.lock().remove(&id);
            return Ok(Plan { wanted, session: None, incremental: false });
        }
        Ok(Plan { wanted, session: Some((id, session)), incremental: true })
    }

    fn create(
        &self,
        listed: &[Wanted],
        by_id: bool,
        now_ms: TimestampMs,
    ) -> Option<(i32, Arc<Mutex<Session>>)> {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= self.slots {
            let evicted = evictable(&sessions, listed.len(), now_ms)?;
            sessions.remove(&evicted);
        }
        let id = loop {
            let id = fastrand::i32(1..=i32::MAX);
            if !sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            members: Vec::with_capacity(listed.len()),
            places: HashMap::with_capacity(listed.len()),
            next_epoch: 1,
            by_id,
            created_ms: now_ms,
            last_used_ms: now_ms,
        };
        listed.iter().for_each(|wanted| session.put(wanted.clone()));
        let session = Arc::new(Mutex::new(session));
        sessions.insert(id, Arc::clone(&session));
        Some((id, session))
    }
}

/// Which session may go for a new one of `size` partitions: the one longest unused, if that is long; else a smaller one
/// that has had its time. `None` if all have more right to their slot.
fn evictable(sessions: &HashMap<i32, Arc<Mutex<Session>>>, size: usize, now_ms: TimestampMs) -> Option<i32> {
    let seen = |(id, session): (&i32, &Arc<Mutex<Session>>)| {
        let session = session.lock();
        (*id, session.last_used_ms, session.created_ms, session.members.len())
    };
    let all: Vec<_> = sessions.iter().map(seen).collect();
    let stale = all.iter().min_by_key(|(_, last_used_ms, ..)| *last_used_ms)?;
    if now_ms - stale.1 > EVICTABLE_AFTER_MS {
        return Some(stale.0);
    }
    let aged = all.iter().filter(|(_, _, created_ms, _)| now_ms - created_ms > EVICTABLE_AFTER_MS);
    let smallest = aged.min_by_key(|(.., members)| *members)?;
    (smallest.3 < size).then_some(smallest.0)
}

/// The session epoch after `epoch`: it never becomes 0 again, which means "new".
fn following(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

impl Session {
    /// Adds a partition or replaces what is wanted of it.
    fn put(&mut self, wanted: Wanted) {
        let key = (wanted.topic.clone(), wanted.partition.partition);
        match self.places.get(&key) {
            Some(place) => self.members[*place].wanted = wanted,
            None => {
                self.places.insert(key, self.members.len());
                self.members.push(Member { wanted, told: None });
            }
        }
    }

    fn drop_forgotten(&mut self) {
        if self.places.len() < self.members.len() {
            let places = &self.places;
            let known = |member: &Member| places.contains_key(&key_of(&member.wanted));
            self.members.retain(known);
            self.number();
        }
    }

    fn number(&mut self) {
        for (place, member) in self.members.iter().enumerate() {
            self.places.insert(key_of(&member.wanted), place);
        }
    }
}

fn key_of(wanted: &Wanted) -> (TopicKey, i32) {
    (wanted.topic.clone(), wanted.partition.partition)
}

impl Plan {
    /// The session's id for the answer; 0 for none.
    pub fn session_id(&self) -> i32 {
        self.session.as_ref().map_or(0, |(id, _)| *id)
    }

    /// Takes the answers (one for each wanted partition, in order) and gives those that the client must hear of. Who got
    /// records is served last the next time.
    pub fn tell(self, answers: Vec<FetchPartitionResponse>) -> Vec<(TopicKey, FetchPartitionResponse)> {
        let topics = self.wanted.iter().map(|wanted| wanted.topic.clone());
        let Some((_, session)) = &self.session else {
            return topics.zip(answers).collect();
        };
        let mut session = session.lock();
        let mut told = Vec::new();
        let mut served = Vec::new();
        for (topic, answer) in topics.zip(answers) {
            let key = (topic, answer.partition_index);
            // Another request may have dropped the partition meanwhile.
            if let Some(place) = session.places.get(&key).copied() {
                let now = (answer.error_code == 0).then_some(Told {
                    high_watermark: answer.high_watermark,
                    log_start_offset: answer.log_start_offset,
                });
                let has_records = answer.records.size_bytes() > 0;
                let member = &mut session.members[place];
                let unchanged = now.is_some() && member.told == now && !has_records && !diverges(&answer);
                member.told = now;
                if has_records {
                    served.push(place);
                }
                if self.incremental && unchanged {
                    continue;
                }
            }
            told.push((key.0, answer));
        }
        if !served.is_empty() && served.len() < session.members.len() {
            let mut is_served = vec![false; session.members.len()];
            served.iter().for_each(|place| is_served[*place] = true);
            let mut place = 0;
            let (last, mut first): (Vec<_>, Vec<_>) = session.members.drain(..).partition(|_| {
                place += 1;
                is_served[place - 1]
            });
            first.extend(last);
            session.members = first;
            session.number();
        }
        told
    }
}

fn diverges(answer: &FetchPartitionResponse) -> bool {
    answer.diverging_epoch.epoch != -1
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::messages::fetch::{FetchForgottenTopic, FetchTopic};
    use crate::protocol::wire::Records;

    const ID: Uuid = Uuid([7; 16]);

    fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> FetchRequest {
        let partitions: Vec<_> =
            partitions.iter().map(|p| FetchPartition { partition: *p, ..Default::default() }).collect();
        let topic = FetchTopic { topic_id: ID, partitions, ..Default::default() };
        FetchRequest { session_id, session_epoch, topics: vec![topic], ..Default::default() }
    }

    fn answers(plan: &Plan, high_watermark: i64, with_records: &[i32]) -> Vec<FetchPartitionResponse> {
        let answer = |wanted: &Wanted| FetchPartitionResponse {
            partition_index: wanted.partition.partition,
            high_watermark,
            records: match with_records.contains(&wanted.partition.partition) {
                true => Records::Bytes(Bytes::from_static(b"batch")),
                false => Records::EMPTY,
            },
            ..Default::default()
        };
        plan.wanted.iter().map(answer).collect()
    }

    fn told(plan: Plan, answers: Vec<FetchPartitionResponse>) -> Vec<i32> {
        plan.tell(answers).into_iter().map(|(_, answer)| answer.partition_index).collect()
    }

    #[test]
    fn an_incremental_fetch_hears_only_of_what_changed_and_who_was_served_goes_last() {
        let sessions = FetchSessions::new(10);
        let plan = sessions.begin(request(0, 0, &[0, 1, 2]), 16, 0).unwrap();
        let id = plan.session_id();
        assert!(id > 0);
        let first = answers(&plan, 5, &[]);
        assert_eq!(told(plan, first), [0, 1, 2]);

        let plan = sessions.begin(request(id, 1, &[]), 16, 0).unwrap();
        let none = answers(&plan, 5, &[]);
        assert!(told(plan, none).is_empty());

        let plan = sessions.begin(request(id, 2, &[]), 16, 0).unwrap();
        let some = answers(&plan, 5, &[0]);
        assert_eq!(told(plan, some), [0]);

        let plan = sessions.begin(request(id, 3, &[]), 16, 0).unwrap();
        assert_eq!(plan.wanted.iter().map(|w| w.partition.partition).collect::<Vec<_>>(), [1, 2, 0]);
        let all = answers(&plan, 6, &[]);
        assert_eq!(told(plan, all), [1, 2, 0]);
    }

    #[test]
    fn an_error_is_told_and_so_is_what_follows_it() {
        let sessions = FetchSessions::new(10);
        let plan = sessions.begin(request(0, 0, &[0]), 16, 0).unwrap();
        let id = plan.session_id();
        let mut bad = answers(&plan, -1, &[]);
        bad[0].error_code = ErrorCode::OffsetOutOfRange.into();
        assert_eq!(told(plan, bad.clone()), [0]);
        let plan = sessions.begin(request(id, 1, &[]), 16, 0).unwrap();
        assert_eq!(told(plan, bad), [0]);
        let plan = sessions.begin(request(id, 2, &[]), 16, 0).unwrap();
        let good = answers(&plan, 5, &[]);
        assert_eq!(told(plan, good), [0]);
    }

    #[test]
    fn partitions_are_added_updated_and_forgotten_until_none_is_left() {
        let sessions = FetchSessions::new(10);
        let id = sessions.begin(request(0, 0, &[0]), 16, 0).unwrap().session_id();
        let plan = sessions.begin(request(id, 1, &[1]), 16, 0).unwrap();
        assert_eq!(plan.wanted.len(), 2);
        let forget = |partitions: &[i32], epoch| FetchRequest {
            forgotten_topics_data: vec![FetchForgottenTopic {
                topic_id: ID,
                partitions: partitions.to_vec(),
                ..Default::default()
            }],
            ..request(id, epoch, &[])
        };
        let plan = sessions.begin(forget(&[0], 2), 16, 0).unwrap();
        assert_eq!(plan.wanted.len(), 1);
        assert_eq!(plan.wanted[0].partition.partition, 1);
        let plan = sessions.begin(forget(&[1], 3), 16, 0).unwrap();
        assert_eq!((plan.session_id(), plan.wanted.len(), sessions.len()), (0, 0, 0));
    }

    #[test]
    fn wrong_ids_epochs_and_kinds_of_naming_are_refused() {
        let sessions = FetchSessions::new(10);
        let id = sessions.begin(request(0, 0, &[0]), 16, 0).unwrap().session_id();
        let refused = |request, version| sessions.begin(request, version, 0).unwrap_err();
        assert_eq!(refused(request(id.wrapping_add(1), 1, &[]), 16), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(refused(request(id, 2, &[]), 16), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(refused(request(id, 1, &[]), 12), ErrorCode::FetchSessionTopicIdError);
        assert_eq!(sessions.begin(request(id, -1, &[0]), 16, 0).unwrap().session_id(), 0);
        assert_eq!(refused(request(id, 1, &[]), 16), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(following(i32::MAX), 1);
    }

    #[test]
    fn a_full_cache_gives_way_to_what_is_bigger_or_when_a_session_is_stale() {
        let sessions = FetchSessions::new(1);
        let first = sessions.begin(request(0, 0, &[0, 1]), 16, 0).unwrap().session_id();
        assert_ne!(first, 0);
        assert_eq!(sessions.begin(request(0, 0, &[0, 1, 2]), 16, 10).unwrap().session_id(), 0);
        // Used until now, but old enough to give way to a bigger one.
        sessions.begin(request(first, 1, &[]), 16, EVICTABLE_AFTER_MS).unwrap();
        let later = EVICTABLE_AFTER_MS + 1;
        assert_eq!(sessions.begin(request(0, 0, &[0, 1]), 16, later).unwrap().session_id(), 0);
        assert_ne!(sessions.begin(request(0, 0, &[0, 1, 2]), 16, later).unwrap().session_id(), 0);
        let stale = later + EVICTABLE_AFTER_MS + 1;
        assert_ne!(sessions.begin(request(0, 0, &[0]), 16, stale).unwrap().session_id(), 0);
        assert_eq!(sessions.len(), 1);
    }
}

//! Share sessions: what each member of a share group fetches is remembered, so that it names only what changes. A session is
//! over when its connection is. KIP-932.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::protocol::ErrorCode;
use crate::queue::QueueKey;
use crate::uuid::Uuid;

/// Session epoch of a request that opens a session.
pub const NEW_SESSION: i32 = 0;

/// Session epoch of a request that ends it.
pub const FINAL: i32 = -1;

/// Partitions that one session can have.
const PARTITIONS_MAX: usize = 10_000;

/// A partition as requests name it.
pub type Place = (Uuid, i32);

/// A member of a share group.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ShareMember {
    /// The group.
    pub group: Arc<str>,
    /// The member's own name for itself.
    pub member: Arc<str>,
}

impl ShareMember {
    /// A partition as the member's group sees it.
    pub fn key(&self, topic_id: Uuid, partition: i32) -> QueueKey {
        QueueKey { group: Arc::clone(&self.group), topic_id, partition }
    }
}

#[derive(Debug)]
struct Session {
    /// The connection that it was last used on.
    connection: u64,
    next_epoch: i32,
    partitions: Turns,
}

/// Partitions in the order in which they are served: what gave records goes to the end.
#[derive(Debug, Default)]
struct Turns {
    next: u64,
    in_order: BTreeMap<u64, Place>,
    turn_of: HashMap<Place, u64>,
}

/// The sessions of all members, at most `group.share.max.share.sessions`.
#[derive(Debug)]
pub struct ShareSessions {
    max: usize,
    sessions: Mutex<HashMap<ShareMember, Session>>,
}

impl ShareSessions {
    /// At most `max` sessions.
    pub fn new(max: usize) -> Self {
        Self { max, sessions: Mutex::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens a session, in the place of any that the member has. Gives its partitions, in order.
    ///
    /// # Errors
    /// SHARE_SESSION_LIMIT_REACHED; INVALID_REQUEST for too many partitions.
    pub fn open(
        &self,
        member: &ShareMember,
        connection: u64,
        partitions: &[Place],
    ) -> Result<Vec<Place>, ErrorCode> {
        let mut turns = Turns::default();
        turns.add(partitions)?;
        let mut sessions = self.sessions.lock();
        if !sessions.contains_key(member) && sessions.len() >= self.max {
            return Err(ErrorCode::ShareSessionLimitReached);
        }
        let wanted = turns.list();
        sessions.insert(member.clone(), Session { connection, next_epoch: 1, partitions: turns });
        Ok(wanted)
    }

    /// Goes on with a session, or ends it. Gives the partitions that are fetched, in order.
    ///
    /// # Errors
    /// SHARE_SESSION_NOT_FOUND, INVALID_SHARE_SESSION_EPOCH; INVALID_REQUEST for too many partitions.
    pub fn go_on(
        &self,
        member: &ShareMember,
        connection: u64,
        epoch: i32,
        added: &[Place],
        forgotten: &[Place],
    ) -> Result<Vec<Place>, ErrorCode> {
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(member).ok_or(ErrorCode::ShareSessionNotFound)?;
        if epoch == FINAL {
            sessions.remove(member);
            return Ok(Vec::new());
        }
        if epoch != session.next_epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        // What is added and forgotten in one request was named only for the verdicts on it.
        session.partitions.add(added)?;
        session.partitions.remove(forgotten);
        session.next_epoch = following(epoch);
        session.connection = connection;
        Ok(session.partitions.list())
    }

    /// The member got records of some partitions: the others come first next time. What is gone is fetched no more.
    pub fn told(&self, member: &ShareMember, served: &[Place], gone: &[Place]) {
        if let Some(session) = self.sessions.lock().get_mut(member) {
            session.partitions.move_back(served);
            session.partitions.remove(gone);
        }
    }

    /// Ends the sessions of a connection and gives their members.
    pub fn close(&self, connection: u64) -> Vec<ShareMember> {
        let mut sessions = self.sessions.lock();
        sessions.extract_if(|_, session| session.connection == connection).map(|(member, _)| member).collect()
    }
}

impl Turns {
    /// Adds what is not there, or nothing if that is too much.
    fn add(&mut self, partitions: &[Place]) -> Result<(), ErrorCode> {
        let new = partitions.iter().filter(|partition| !self.turn_of.contains_key(partition)).count();
        if self.turn_of.len() + new > PARTITIONS_MAX {
            return Err(ErrorCode::InvalidRequest);
        }
        for partition in partitions {
            if let Entry::Vacant(vacant) = self.turn_of.entry(*partition) {
                vacant.insert(self.next);
                self.in_order.insert(self.next, *partition);
                self.next += 1;
            }
        }
        Ok(())
    }

    fn remove(&mut self, partitions: &[Place]) {
        for partition in partitions {
            if let Some(turn) = self.turn_of.remove(partition) {
                self.in_order.remove(&turn);
            }
        }
    }

    fn move_back(&mut self, partitions: &[Place]) {
        for partition in partitions {
            if let Some(turn) = self.turn_of.get_mut(partition) {
                self.in_order.remove(turn);
                *turn = self.next;
                self.in_order.insert(self.next, *partition);
                self.next += 1;
            }
        }
    }

    fn list(&self) -> Vec<Place> {
        self.in_order.values().copied().collect()
    }
}

/// The epoch after `epoch`; 0 is for new sessions only.
fn following(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = (Uuid([1; 16]), 0);
    const B: Place = (Uuid([1; 16]), 1);

    fn member(name: &str) -> ShareMember {
        ShareMember { group: "g".into(), member: name.into() }
    }

    #[test]
    fn epochs_count_up_and_partitions_come_and_go() {
        let sessions = ShareSessions::new(5);
        let anne = member("anne");
        sessions.open(&anne, 1, &[A]).unwrap();
        assert_eq!(sessions.go_on(&anne, 1, 1, &[B, A], &[]), Ok(vec![A, B]));
        sessions.told(&anne, &[A], &[]);
        assert_eq!(sessions.go_on(&anne, 1, 2, &[], &[]), Ok(vec![B, A]));
        assert_eq!(sessions.go_on(&anne, 1, 2, &[], &[]), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.go_on(&anne, 1, 3, &[], &[B]), Ok(vec![A]));
        assert_eq!(sessions.go_on(&anne, 1, 4, &[B], &[B]), Ok(vec![A]));
        assert_eq!(sessions.go_on(&anne, 1, FINAL, &[], &[]), Ok(vec![]));
        assert_eq!(sessions.go_on(&anne, 1, 5, &[], &[]), Err(ErrorCode::ShareSessionNotFound));
        assert_eq!((following(1), following(i32::MAX)), (2, 1));
    }

    #[test]
    fn a_session_has_only_so_many_partitions_and_none_that_is_gone() {
        let sessions = ShareSessions::new(1);
        let anne = member("anne");
        let many: Vec<Place> = (0..=PARTITIONS_MAX as i32).map(|index| (A.0, index)).collect();
        assert_eq!(sessions.open(&anne, 1, &many), Err(ErrorCode::InvalidRequest));
        let as_many = &many[..PARTITIONS_MAX];
        assert_eq!(sessions.open(&anne, 1, as_many).unwrap(), as_many);
        assert_eq!(sessions.go_on(&anne, 1, 1, &many, &[]), Err(ErrorCode::InvalidRequest));
        assert_eq!(sessions.go_on(&anne, 1, 1, as_many, &many[2..]), Ok(vec![A, B]));
        sessions.told(&anne, &[A], &[B]);
        assert_eq!(sessions.go_on(&anne, 1, 2, &many[5..6], &[]), Ok(vec![A, (A.0, 5)]));
    }

    #[test]
    fn sessions_end_with_the_connection_that_they_were_last_used_on() {
        let sessions = ShareSessions::new(2);
        let (anne, bert) = (member("anne"), member("bert"));
        sessions.open(&anne, 1, &[A]).unwrap();
        sessions.open(&bert, 1, &[A]).unwrap();
        assert_eq!(sessions.open(&member("carl"), 2, &[]), Err(ErrorCode::ShareSessionLimitReached));
        // Who comes back on another connection takes its own place.
        sessions.open(&anne, 2, &[A]).unwrap();
        assert_eq!(sessions.close(1), [bert]);
        assert_eq!(sessions.close(1), []);
        assert_eq!((sessions.close(2), sessions.is_empty()), (vec![anne], true));
    }
}

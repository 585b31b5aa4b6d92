//! Share sessions: what each member of a share group fetches is remembered, so that it names only what changes. A session is
//! over when its connection is. KIP-932.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::protocol::ErrorCode;
use crate::queue::QueueKey;
use crate::uuid::Uuid;

/// Session epoch of a request that opens a session.
pub const NEW_SESSION: i32 = 0;

/// Session epoch of a request that ends it.
pub const FINAL: i32 = -1;

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
    /// In the order in which they are served: who got records goes to the end.
    partitions: Vec<(Uuid, i32)>,
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

    /// Opens a session, in the place of any that the member has.
    ///
    /// # Errors
    /// SHARE_SESSION_LIMIT_REACHED.
    pub fn open(
        &self,
        member: &ShareMember,
        connection: u64,
        partitions: Vec<(Uuid, i32)>,
    ) -> Result<(), ErrorCode> {
        let mut sessions = self.sessions.lock();
        if !sessions.contains_key(member) && sessions.len() >= self.max {
            return Err(ErrorCode::ShareSessionLimitReached);
        }
        let mut session = Session { connection, next_epoch: 1, partitions: Vec::new() };
        session.add(partitions);
        sessions.insert(member.clone(), session);
        Ok(())
    }

    /// Goes on with a session, or ends it. Gives the partitions that are fetched, in order.
    ///
    /// # Errors
    /// SHARE_SESSION_NOT_FOUND, INVALID_SHARE_SESSION_EPOCH.
    pub fn go_on(
        &self,
        member: &ShareMember,
        connection: u64,
        epoch: i32,
        added: Vec<(Uuid, i32)>,
        forgotten: &[(Uuid, i32)],
    ) -> Result<Vec<(Uuid, i32)>, ErrorCode> {
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(member).ok_or(ErrorCode::ShareSessionNotFound)?;
        if epoch == FINAL {
            sessions.remove(member);
            return Ok(Vec::new());
        }
        if epoch != session.next_epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        session.next_epoch = following(epoch);
        session.connection = connection;
        // What is added and forgotten in one request was named only for the verdicts on it.
        session.add(added);
        session.partitions.retain(|partition| !forgotten.contains(partition));
        Ok(session.partitions.clone())
    }

    /// The member got records of a partition: the others come first next time.
    pub fn served(&self, member: &ShareMember, partition: (Uuid, i32)) {
        if let Some(session) = self.sessions.lock().get_mut(member)
            && let Some(at) = session.partitions.iter().position(|one| *one == partition)
        {
            session.partitions[at..].rotate_left(1);
        }
    }

    /// Ends the sessions of a connection and gives their members.
    pub fn close(&self, connection: u64) -> Vec<ShareMember> {
        let mut sessions = self.sessions.lock();
        sessions.extract_if(|_, session| session.connection == connection).map(|(member, _)| member).collect()
    }
}

impl Session {
    fn add(&mut self, partitions: Vec<(Uuid, i32)>) {
        for partition in partitions {
            if !self.partitions.contains(&partition) {
                self.partitions.push(partition);
            }
        }
    }
}

/// The epoch after `epoch`; 0 is for new sessions only.
fn following(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (Uuid, i32) = (Uuid([1; 16]), 0);
    const B: (Uuid, i32) = (Uuid([1; 16]), 1);

    fn member(name: &str) -> ShareMember {
        ShareMember { group: "g".into(), member: name.into() }
    }

    #[test]
    fn epochs_count_up_and_partitions_come_and_go() {
        let sessions = ShareSessions::new(5);
        let anne = member("anne");
        sessions.open(&anne, 1, vec![A]).unwrap();
        assert_eq!(sessions.go_on(&anne, 1, 1, vec![B, A], &[]), Ok(vec![A, B]));
        sessions.served(&anne, A);
        assert_eq!(sessions.go_on(&anne, 1, 2, vec![], &[]), Ok(vec![B, A]));
        assert_eq!(sessions.go_on(&anne, 1, 2, vec![], &[]), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.go_on(&anne, 1, 3, vec![], &[B]), Ok(vec![A]));
        assert_eq!(sessions.go_on(&anne, 1, 4, vec![B], &[B]), Ok(vec![A]));
        assert_eq!(sessions.go_on(&anne, 1, FINAL, vec![], &[]), Ok(vec![]));
        assert_eq!(sessions.go_on(&anne, 1, 5, vec![], &[]), Err(ErrorCode::ShareSessionNotFound));
        assert_eq!((following(1), following(i32::MAX)), (2, 1));
    }

    #[test]
    fn sessions_end_with_the_connection_that_they_were_last_used_on() {
        let sessions = ShareSessions::new(2);
        let (anne, bert) = (member("anne"), member("bert"));
        sessions.open(&anne, 1, vec![A]).unwrap();
        sessions.open(&bert, 1, vec![A]).unwrap();
        assert_eq!(sessions.open(&member("carl"), 2, vec![]), Err(ErrorCode::ShareSessionLimitReached));
        // Who comes back on another connection takes its own place.
        sessions.open(&anne, 2, vec![A]).unwrap();
        assert_eq!(sessions.close(1), [bert]);
        assert_eq!(sessions.close(1), []);
        assert_eq!((sessions.close(2), sessions.is_empty()), (vec![anne], true));
    }
}

//! What is counted of connections, for each protocol that is spoken.

use super::Counter;

/// Why a connection was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The peer closed it.
    Peer,
    /// Nothing went over it for too long.
    Idle,
    /// The socket failed.
    Lost,
    /// What came over it was not the protocol.
    Malformed,
    /// A request of an API or version that is not served, or with a body that is no message.
    Unanswerable,
    /// Its answer is to be closed: a failed Produce with acks=0.
    Unacknowledged,
    /// A large request did not arrive in time.
    Slow,
    /// The broker stops.
    Shutdown,
}

impl Closed {
    /// Every reason with its name, in the order of the declaration.
    pub const ALL: [(Self, &str); 8] = [
        (Self::Peer, "peer"),
        (Self::Idle, "idle"),
        (Self::Lost, "lost"),
        (Self::Malformed, "malformed"),
        (Self::Unanswerable, "unanswerable"),
        (Self::Unacknowledged, "unacknowledged"),
        (Self::Slow, "slow"),
        (Self::Shutdown, "shutdown"),
    ];
}

/// The counters of one protocol's connections.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    /// Connections that were accepted and given a place.
    pub accepted: Counter,
    /// Connections closed at once: as many from that address as may be.
    pub refused: Counter,
    /// Attempts to accept that failed: descriptors or memory were lacking.
    pub accept_failures: Counter,
    closed: [Counter; Closed::ALL.len()],
}

impl ConnectionCounters {
    /// Counts a connection that was accepted before and is closed now.
    pub fn closed(&self, reason: Closed) {
        self.closed[reason as usize].increment();
    }

    /// How many were closed, by the name of the reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Closed::ALL.iter().zip(&self.closed).map(|((_, name), counter)| (*name, counter.value()))
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        // In this order, so that one which is accepted and closed meanwhile is not missing twice.
        let closed: u64 = self.closed.iter().map(Counter::value).sum();
        self.accepted.value().saturating_sub(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_counted_under_its_name() {
        let counters = ConnectionCounters::default();
        for (place, (reason, name)) in Closed::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            counters.accepted.add(2);
            counters.closed(reason);
            assert_eq!(counters.by_reason().find(|(known, _)| *known == name), Some((name, 1)));
        }
        assert_eq!(counters.open(), Closed::ALL.len() as u64);
    }
}

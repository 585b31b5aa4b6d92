//! Records dealt with for what they are: who has [looked](Leases::inspect) at them keeps them from all others, or drops them,
//! without having been handed them. Nothing of that lasts but the end of a record, and none of it is a delivery.

use super::{Holder, Leases, Mark, Run, SettleError, State, keepable};
use crate::clock::TimestampMs;

/// A record as somebody has seen it, and what becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Picked {
    /// The record.
    pub offset: i64,
    /// How often it had been handed out: it must not have been again.
    pub deliveries: u16,
    /// What becomes of it.
    pub what: Pick,
}

/// What becomes of a record that was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// If it could be handed out, or is held, it is held for a time: nobody gets it, and no receipt for it is worth anything. Then
    /// it is as it was before.
    Hold {
        /// Milliseconds from now.
        for_ms: i64,
    },
    /// It is not held any more: it is as it was before.
    PutBack,
    /// It is done with, held or not, unless somebody has it.
    Drop,
}

impl Leases {
    /// Does with a record what who has seen it says. There is one at a time who does.
    ///
    /// # Errors
    /// It is not as it was seen: it is done or dead, or went to somebody.
    pub fn pick(
        &mut self,
        now: TimestampMs,
        picked: &Picked,
        marks: &mut Vec<Mark>,
    ) -> Result<(), SettleError> {
        let Picked { offset, deliveries, what } = *picked;
        let Some((_, run)) = self.find(offset) else { return Err(SettleError::Gone) };
        let run = Run { last: offset, ..run };
        let is_held = match run.state {
            State::Acknowledged | State::Archived | State::Dead { .. } => return Err(SettleError::Gone),
            State::Leased { holder: Holder::PICKER, .. } => true,
            State::Leased { .. } => return Err(SettleError::TakenAgain),
            // When it is due is not known before it is seen anew.
            State::Available | State::Waiting { .. } if offset >= self.seen() => {
                return Err(SettleError::TakenAgain);
            }
            State::Available | State::Waiting { .. } => false,
        };
        match what {
            _ if run.deliveries != deliveries => return Err(SettleError::TakenAgain),
            Pick::Hold { for_ms } if is_held || run.state == State::Available => {
                let until = keepable(now.saturating_add(for_ms));
                self.set(offset, Run { state: State::Leased { holder: Holder::PICKER, until }, ..run });
            }
            Pick::Hold { .. } => return Err(SettleError::TakenAgain),
            Pick::PutBack if is_held => {
                let limit = self.terms.map_or(u16::MAX, |terms| terms.delivery_limit);
                self.put_back(offset, run, limit, marks);
            }
            // It was held for too long.
            Pick::PutBack => {}
            Pick::Drop => self.finish(offset, run, State::Archived, marks),
        }
        self.advance();
        Ok(())
    }

    /// What was held is as it was before, unless it has left the log, or was delivered too often for what the queue goes by now.
    /// The log knows of no hold.
    pub(super) fn put_back(&mut self, first: i64, run: Run, delivery_limit: u16, marks: &mut Vec<Mark>) {
        self.give_back_as(State::Available, first, run, delivery_limit, marks);
    }
}

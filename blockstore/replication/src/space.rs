//! Space that the engine has set aside for this replica, so that an append never finds the pool
//! full: a write gets a sequence only against it (credits).
//!
//! Invariant: `reserved` is what `Reserve` was granted less `Release` less what was appended since.

use mooring_terms::{Entry, Record};

use crate::command::Command;

/// The replica's own reservation.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Bytes set aside and not used.
    pub(crate) reserved: u64,
    /// Bytes asked for, and not answered.
    asked: Option<u64>,
}

/// What a record takes out of the reservation.
pub(crate) fn cost(record: &Record) -> u64 {
    cost_of_payload(record.range().map_or(0, |_| record.payload_bytes()))
}

/// What an entry with this much payload takes out of the reservation.
pub(crate) fn cost_of_payload(bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { bytes + Entry::OVERHEAD_BYTES }
}

impl Space {
    /// Something was appended.
    pub(crate) fn spend(&mut self, cost: u64) {
        self.reserved = self.reserved.saturating_sub(cost);
    }

    /// Makes the reservation `need` bytes: asks for more (whether it must), or gives back.
    pub(crate) fn set(&mut self, out: &mut Vec<Command>, need: u64) -> bool {
        if self.reserved < need {
            if self.asked.is_none() {
                let bytes = need - self.reserved;
                self.asked = Some(bytes);
                out.push(Command::Reserve { bytes });
            }
            return true;
        }
        if self.reserved > need && self.asked.is_none() {
            let bytes = self.reserved - need;
            self.reserved = need;
            out.push(Command::Release { bytes });
        }
        false
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// The engine answered; says whether it gave all that was asked for.
    pub(crate) fn granted(&mut self, bytes: u64) -> bool {
        let asked = self.asked.take().unwrap_or(0);
        self.reserved += bytes;
        bytes >= asked
    }
}

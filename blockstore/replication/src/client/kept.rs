//! Writes that were acknowledged and are not known to be durable.
//!
//! If every replica is restarted they may be lost, though this client was told that they are done:
//! it keeps them, within bounds, and sends them again first. Once any that is lost with the replicas
//! was not kept, the device can only turn to errors: never may a FLUSH be answered that isn't true.

use std::collections::VecDeque;

use mooring_terms::{Epoch, Sequence};

use crate::request::Operation;

/// What an entry counts beside its data.
const ENTRY_BYTES: u64 = 128;

/// Acknowledged writes of one slice, in the order in which they were acknowledged.
#[derive(Debug, Default)]
pub(super) struct Kept {
    writes: VecDeque<Write>,
    bytes: u64,
    /// The epoch of the newest that was let go for want of room; its sequence, up to which all must
    /// be durable before it is forgotten.
    let_go: Epoch,
    let_go_up_to: Sequence,
    /// What was last said to be durable: said again, it changes nothing.
    durable: Sequence,
}

#[derive(Debug)]
struct Write {
    epoch: Epoch,
    sequence: Sequence,
    operation: Operation,
}

/// What is to be sent again after a loss.
pub(super) enum Lost {
    /// These, in this order.
    Again(Vec<Operation>),
    /// Something that is no longer here.
    ForEver,
}

fn weight(operation: &Operation) -> u64 {
    ENTRY_BYTES
        + match operation {
            Operation::Write { data, .. } => data.bytes().len() as u64,
            _ => 0,
        }
}

impl Kept {
    /// Keeps an acknowledged write.
    pub(super) fn keep(
        &mut self,
        epoch: Epoch,
        sequence: Sequence,
        operation: Operation,
        limit_bytes: u64,
    ) {
        self.bytes += weight(&operation);
        self.writes.push_back(Write { epoch, sequence, operation });
        while self.bytes > limit_bytes {
            let Some(write) = self.writes.pop_front() else { break };
            self.bytes -= weight(&write.operation);
            self.let_go = self.let_go.max(write.epoch);
            self.let_go_up_to = self.let_go_up_to.max(write.sequence);
        }
    }

    /// Everything up to `sequence` is durable everywhere.
    pub(super) fn durable(&mut self, sequence: Sequence) {
        if sequence == self.durable {
            return;
        }
        self.durable = sequence;
        let bytes = &mut self.bytes;
        self.writes.retain(|write| {
            let keep = write.sequence > sequence;
            if !keep {
                *bytes -= weight(&write.operation);
            }
            keep
        });
        if self.let_go_up_to <= sequence {
            self.let_go = Epoch(0);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.let_go == Epoch(0)
    }

    /// Forgets all of it.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The epoch `tail_lost` began without the tail of the one before: what of it was acknowledged
    /// here.
    pub(super) fn take_lost(&mut self, tail_lost: Epoch) -> Lost {
        if self.let_go > Epoch(0) && self.let_go < tail_lost {
            return Lost::ForEver;
        }
        let (lost, safe): (VecDeque<Write>, VecDeque<Write>) =
            std::mem::take(&mut self.writes).into_iter().partition(|w| w.epoch < tail_lost);
        self.bytes = safe.iter().map(|write| weight(&write.operation)).sum();
        self.writes = safe;
        self.durable = Sequence(0);
        Lost::Again(lost.into_iter().map(|write| write.operation).collect())
    }
}

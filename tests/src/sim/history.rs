//! What clients asked for and what they were told: the history that the register checker reads.
//!
//! Every block of every volume has its own list of steps. An operation on several blocks is one
//! step in each of them: the promise is one register a block.

use std::collections::BTreeMap;

use mooring_replication::VolumeRange;
use mooring_terms::VolumeId;

use super::checkers::register::{self, NotLinearizable, Step};
use super::value::Value;

/// Numbers an operation in the whole run.
pub type OpId = u64;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Reads.
    Read,
    /// Writes data that names the operation; with or without force unit access.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Discards or writes zeros.
    Discard {
        /// Force unit access.
        fua: bool,
    },
    /// Makes durable what was answered before.
    Flush,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Which volume.
    pub volume: VolumeId,
    /// Which client.
    pub client: u32,
    /// What it does.
    pub what: What,
    /// To which blocks; none for a flush.
    pub range: VolumeRange,
    invoked: u64,
    open: bool,
}

#[derive(Clone, Copy, Debug)]
struct BlockWrite {
    op: OpId,
    client: u32,
    value: Value,
    invoked: u64,
    returned: Option<u64>,
    durable: bool,
    /// A loss may have taken it: a later flush says nothing about it.
    uncertain: bool,
}

type BlockId = (VolumeId, u64);

/// The history of a run.
#[derive(Debug, Default)]
pub struct History {
    steps: BTreeMap<BlockId, Vec<Step>>,
    writes: BTreeMap<BlockId, Vec<BlockWrite>>,
    ops: BTreeMap<OpId, Op>,
    /// When each client's attachment was sealed: a later client's flush covers the earlier ones'
    /// writes too, for its seal does.
    seals: BTreeMap<u32, u64>,
    /// Counts what happened, as a clock.
    ticks: u64,
    next: OpId,
}

impl Op {
    fn blocks(&self) -> impl Iterator<Item = BlockId> + use<> {
        let volume = self.volume;
        (self.range.first.0..self.range.first.0 + self.range.count).map(move |b| (volume, b))
    }

    /// What the operation leaves in its blocks.
    fn value(&self, id: OpId) -> Option<Value> {
        match self.what {
            What::Write { .. } => Some(Value::Tag { client: self.client, number: number(id) }),
            What::Discard { .. } => Some(Value::Zero),
            What::Read | What::Flush => None,
        }
    }
}

/// An operation's number as its data carries it.
#[must_use]
pub fn number(id: OpId) -> u32 {
    u32::try_from(id).expect("a run has few operations")
}

impl History {
    /// An operation begins.
    pub fn invoke(
        &mut self,
        volume: VolumeId,
        client: u32,
        what: What,
        range: VolumeRange,
    ) -> OpId {
        self.ticks += 1;
        self.next += 1;
        let id = self.next;
        let op = Op { volume, client, what, range, invoked: self.ticks, open: true };
        let value = op.value(id);
        for block in op.blocks() {
            let step = Step::Invoked { op: id, writes: value };
            self.steps.entry(block).or_default().push(step);
            if let Some(value) = value {
                let invoked = self.ticks;
                let write = BlockWrite {
                    op: id,
                    client,
                    value,
                    invoked,
                    returned: None,
                    durable: false,
                    uncertain: false,
                };
                self.writes.entry(block).or_default().push(write);
            }
        }
        self.ops.insert(id, op);
        id
    }

    /// The operation of that number.
    #[must_use]
    pub fn op(&self, id: OpId) -> Option<&Op> {
        self.ops.get(&id)
    }

    /// Whether an operation was answered, or has ended.
    #[must_use]
    pub fn is_closed(&self, id: OpId) -> bool {
        self.ops.get(&id).is_none_or(|op| !op.open)
    }

    /// A read gave these values, one a block.
    pub fn read(&mut self, id: OpId, values: &[Value]) {
        self.ticks += 1;
        let Some(op) = self.ops.get_mut(&id) else { return };
        op.open = false;
        for (block, value) in op.blocks().zip(values) {
            let step = Step::Returned { op: id, read: Some(*value) };
            self.steps.entry(block).or_default().push(step);
        }
    }

    /// A write, discard or flush was done.
    pub fn done(&mut self, id: OpId) {
        self.ticks += 1;
        let now = self.ticks;
        let Some(op) = self.ops.get_mut(&id) else { return };
        op.open = false;
        let op = *op;
        let fua = matches!(op.what, What::Write { fua: true } | What::Discard { fua: true });
        for block in op.blocks() {
            self.steps.entry(block).or_default().push(Step::Returned { op: id, read: None });
            for write in self.writes.entry(block).or_default() {
                if write.op == id {
                    write.returned = Some(now);
                    write.durable |= fua;
                }
            }
        }
        if op.what == What::Flush {
            // Of a newer client's writes it says nothing: a client that was fenced unawares, and has
            // nothing to flush, asks nobody.
            let sealed = |client: u32| self.seals.get(&client).copied();
            let covered = |client: u32| sealed(client) <= sealed(op.client);
            let mine = self.writes.iter_mut().filter(|((volume, _), _)| *volume == op.volume);
            for write in mine.flat_map(|(_, writes)| writes) {
                let before = write.returned.is_some_and(|at| at < op.invoked);
                write.durable |= before && covered(write.client) && !write.uncertain;
            }
        }
    }

    /// An operation failed, and no part of it can take effect any more.
    pub fn ended(&mut self, id: OpId) {
        self.ticks += 1;
        let Some(op) = self.ops.get_mut(&id) else { return };
        op.open = false;
        let op = *op;
        for block in op.blocks() {
            let step = Step::Ended { op: id, never: false };
            self.steps.entry(block).or_default().push(step);
        }
    }

    /// A newer attachment of the volume has begun: what older clients had in flight has taken
    /// effect by now, or never will.
    pub fn sealed(&mut self, volume: VolumeId, by: u32) {
        self.ticks += 1;
        self.seals.insert(by, self.ticks);
        let open: Vec<OpId> = self
            .ops
            .iter()
            .filter(|(_, op)| op.open && op.volume == volume && op.client != by)
            .filter(|(_, op)| !matches!(op.what, What::Read | What::Flush))
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            self.ended(id);
        }
    }

    /// A loss was declared in these blocks, and no client has what was lost: each may go back to
    /// what it could hold if nothing but flushed writes had survived. With `anything`, an operator
    /// has accepted that any older history goes on.
    pub fn lost(&mut self, volume: VolumeId, blocks: std::ops::Range<u64>, anything: bool) {
        self.ticks += 1;
        let touched: Vec<BlockId> = self
            .steps
            .range((volume, blocks.start)..(volume, blocks.end))
            .map(|(block, _)| *block)
            .collect();
        for block in touched {
            let writes = self.writes.get(&block).map_or(&[][..], Vec::as_slice);
            let allowed = allowed_after_loss(writes, anything);
            for write in self.writes.entry(block).or_default() {
                write.uncertain |= !write.durable || anything;
                write.durable &= !anything;
            }
            self.steps.entry(block).or_default().push(Step::Loss(allowed));
        }
    }

    /// Looks for a block whose history no order explains.
    ///
    /// # Errors
    /// The block, and why.
    pub fn check(&self) -> Result<(), (VolumeId, u64, NotLinearizable)> {
        for ((volume, block), steps) in &self.steps {
            register::check(steps).map_err(|why| (*volume, *block, why))?;
        }
        Ok(())
    }
}

/// What a block may hold after all that was not flushed could be lost.
fn allowed_after_loss(writes: &[BlockWrite], anything: bool) -> Vec<Value> {
    let mut allowed = Vec::new();
    let durable = |write: &&BlockWrite| write.durable && !anything;
    if !writes.iter().any(|write| durable(&write)) {
        allowed.push(Value::Zero);
    }
    for write in writes {
        let overwritten = writes
            .iter()
            .filter(durable)
            .any(|later| write.returned.is_some_and(|returned| returned < later.invoked));
        if !overwritten && !allowed.contains(&write.value) {
            allowed.push(write.value);
        }
    }
    allowed
}

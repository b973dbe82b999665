//! The checkers: one property a file. They see everything that happens, and change nothing.
//!
//! | property | file |
//! |---|---|
//! | reads are linearizable | `register` |
//! | acknowledged is kept | `acknowledged` |
//! | one writer per epoch, one content per version | `writers` |
//! | fenced never writes | `fenced` |
//! | flushed is durable | `flushed` |
//! | in-sync replicas agree | `agreement`, `lineage` |
//! | resync copies only what changed | `resync` |
//! | no failover without cause, no loss without declaration | `cause` |
//!
//! Liveness after healing, one answer an operation, no ENOSPC behind a sequence and no garbled
//! block are asked for where they show: in the runner, the clients' shell and the pools' lanes.

pub mod acknowledged;
pub mod agreement;
pub mod cause;
pub mod fenced;
pub mod flushed;
pub mod lineage;
pub mod register;
pub mod resync;
pub mod writers;

use std::collections::{BTreeMap, BTreeSet};

use mooring_config::{ClusterState, Command as ConfigCommand, Response, SliceChange, SliceConfig};
use mooring_replication::{ClientId, Message, Note, Reply, RequestId, RequestMessage};
use mooring_terms::{
    AttachmentEpoch, BlockIndex, BlockRange, Entry, Epoch, NodeId, SliceId, Time, Version, VolumeId,
};

use self::cause::Openings;
use super::Violation;
use super::faults::Active;
use super::history::OpId;
use super::node::Node;
use super::plan::Plan;
use super::store::Pool;

/// What a checker says.
pub type Checked = Result<(), Violation>;

/// A violation of `property`.
///
/// # Errors
/// Always: it reads well behind a condition.
pub fn violated(property: &'static str, text: String) -> Checked {
    Err(Violation { property, text })
}

/// All of them.
#[derive(Debug)]
pub struct Checkers {
    lineage: lineage::Lineage,
    writers: writers::Writers,
    acknowledged: acknowledged::Acknowledged,
    fenced: fenced::Fenced,
    flushed: flushed::Flushed,
    resync: resync::Resync,
    asked: cause::Asked,
    /// Replicas whose log had lost something to rot when they were last opened.
    damaged: BTreeSet<(SliceId, NodeId)>,
    /// Blocks that were made to rot.
    rotten: BTreeSet<(SliceId, NodeId, BlockIndex)>,
}

impl Checkers {
    /// Checkers that have seen nothing.
    #[must_use]
    pub fn new(_: &Plan) -> Self {
        Self {
            lineage: lineage::Lineage::default(),
            writers: writers::Writers::default(),
            acknowledged: acknowledged::Acknowledged::default(),
            fenced: fenced::Fenced::default(),
            flushed: flushed::Flushed::default(),
            resync: resync::Resync::default(),
            asked: cause::Asked::default(),
            damaged: BTreeSet::new(),
            rotten: BTreeSet::new(),
        }
    }

    /// A replica begins with what its pool has.
    pub fn opened(&mut self, node: NodeId, slice: SliceId, last: Version, damaged: bool) {
        self.lineage.opened(node, slice, last);
        match damaged {
            true => self.damaged.insert((slice, node)),
            false => self.damaged.remove(&(slice, node)),
        };
    }

    /// A replica appends entries to its log.
    ///
    /// # Errors
    /// A violation.
    pub fn appended(
        &mut self,
        node: NodeId,
        slice: SliceId,
        entries: &[Entry],
        state: &ClusterState,
    ) -> Checked {
        for entry in entries {
            self.lineage.appended(node, slice, entry)?;
            if let Entry::CopyLost { range, .. } = entry {
                self.lost(node, slice, *range)?;
            }
            if let Entry::Record { record, .. } = entry {
                let fresh = self.writers.appended(node, slice, record, state)?;
                if fresh && let Some(range) = record.range() {
                    self.resync.written(slice, record.version, range);
                }
            }
        }
        Ok(())
    }

    /// A replica learns that blocks are lost.
    fn lost(&self, node: NodeId, slice: SliceId, range: BlockRange) -> Checked {
        let mut blocks = (range.first.0..range.end().0).map(BlockIndex);
        match blocks.find(|block| !self.may_be_rotten(slice, *block)) {
            None => Ok(()),
            Some(block) => {
                let text = format!("{node:?} takes block {block} of {slice} for lost");
                violated("nothing is lost but what has rotted", text)
            }
        }
    }

    /// A request has arrived at the node of a primary.
    pub fn requested(&mut self, message: &RequestMessage) {
        let acknowledged = self.acknowledged.last(message.slice);
        self.flushed.requested(message, acknowledged);
    }

    /// A replica answers a client.
    ///
    /// # Errors
    /// A violation.
    pub fn replied(
        &mut self,
        node: NodeId,
        slice: SliceId,
        id: RequestId,
        reply: &Reply,
        nodes: &BTreeMap<NodeId, Node>,
        state: &ClusterState,
    ) -> Checked {
        self.fenced.replied(slice, id, reply)?;
        self.flushed.replied((node, slice), id, reply, state, &self.lineage)?;
        self.acknowledged.replied((node, slice), reply, nodes, state, &self.lineage)
    }

    /// A primary begins to serve, with this log.
    ///
    /// # Errors
    /// A violation.
    pub fn serving(
        &mut self,
        node: NodeId,
        slice: SliceId,
        epoch: Epoch,
        log: Version,
        state: &ClusterState,
    ) -> Checked {
        let of = (node, slice);
        if self.acknowledged.is_past(slice, epoch) {
            // A newer one serves already: this one will answer nothing, or be found out when it does.
            return Ok(());
        }
        self.flushed.serving(of, epoch, log, &self.lineage)?;
        if self.acknowledged.serving(of, epoch, log, state, &self.lineage)? {
            self.flushed.forget(slice);
        }
        Ok(())
    }

    /// A replica tells something.
    ///
    /// # Errors
    /// A violation.
    pub fn noted(&mut self, node: NodeId, slice: SliceId, note: &Note, faults: &Active) -> Checked {
        match note {
            Note::FalseTakeOver { from } => {
                cause::false_take_over(&self.asked, slice, (node, *from), faults)
            }
            Note::JoinStarted { node, after } => {
                self.resync.started(slice, *node, *after);
                Ok(())
            }
            Note::JoinFinished { node, copied_bytes } => {
                self.resync.finished(slice, *node, *copied_bytes)
            }
            _ => Ok(()),
        }
    }

    /// A message arrives at a replica.
    ///
    /// # Errors
    /// A violation.
    pub fn arrived(&mut self, from: NodeId, to: NodeId, message: &Message) -> Checked {
        self.resync.arrived(from, to, message)
    }

    /// A node's pool has made durable whatever it had.
    pub fn synced(&mut self, node: NodeId, pool: &dyn Pool) {
        self.flushed.synced(node, pool);
    }

    /// Whether rot took something out of the log of every replica that is in sync: then none of them
    /// may serve, and an operator decides.
    #[must_use]
    pub fn all_are_damaged(&self, slice: SliceId, config: &SliceConfig) -> bool {
        config.in_sync.iter().all(|member| self.damaged.contains(&(slice, member.node)))
    }

    /// A replica proposes a change.
    pub fn proposed(&mut self, now: Time, change: &SliceChange) {
        self.asked.proposed(now, change);
    }

    /// Raft has answered a command.
    ///
    /// # Errors
    /// A violation.
    pub fn configured(
        &mut self,
        command: &ConfigCommand,
        answer: &Response,
        states: (&ClusterState, &ClusterState),
        faults: &Active,
        openings: &Openings,
    ) -> Checked {
        self.writers.configured(states.1);
        cause::check(&mut self.asked, command, answer, states, faults, openings)
    }

    /// An operator lets an older history of the slice go on.
    pub fn loss_accepted(&mut self, slice: SliceId) {
        self.flushed.loss_accepted(slice);
    }

    /// A client was granted an attachment.
    pub fn granted(
        &mut self,
        number: u32,
        volume: VolumeId,
        epoch: AttachmentEpoch,
        client: ClientId,
    ) {
        self.fenced.granted(number, volume, epoch, client);
    }

    /// All slices have sealed a client's attachment.
    pub fn client_serves(&mut self, number: u32) {
        self.fenced.serves(number);
    }

    /// A client has submitted an operation.
    pub fn submitted(&mut self, number: u32, op: OpId) {
        self.fenced.submitted(number, op);
    }

    /// A client's operation has succeeded.
    ///
    /// # Errors
    /// A violation.
    pub fn client_answered(&mut self, number: u32, op: OpId) -> Checked {
        self.fenced.answered(number, op)
    }

    /// A stored block has rotted.
    pub fn rotted(&mut self, node: NodeId, slice: SliceId, block: BlockIndex) {
        self.rotten.insert((slice, node, block));
        self.resync.rotted(slice, block);
    }

    /// Whether a block of the slice has rotted already, on any node: a second one might take the
    /// last good copy.
    #[must_use]
    pub fn rotten_elsewhere(&self, slice: SliceId) -> bool {
        self.rotten.iter().any(|(of, ..)| *of == slice)
    }

    /// Whether anything has rotted on another node than this.
    #[must_use]
    pub fn rotten_beside(&self, node: NodeId) -> bool {
        self.rotten.iter().any(|(_, of, _)| *of != node)
    }

    /// Whether that block may be corrupt.
    #[must_use]
    pub fn may_be_rotten(&self, slice: SliceId, block: BlockIndex) -> bool {
        self.rotten.iter().any(|(of, _, rotten)| *of == slice && *rotten == block)
    }
}

//! What the replicas of one slice say to each other: every wire message of this boundary.
//!
//! Version history
//! - 1: hello, raise and promise, pull, append and acknowledgement, credit, block repair, join.
//! - 2: what is lost is copied in a join, with its version (cluster version 2).
//!
//! ```text
//!   primary ── Raise ──> member        epoch start: promise first, position after
//!           <─ Promised ─
//!           ── Pull ───>               what the primary lacks, as records
//!           <─ Pulled ──
//!           ── Append ─>               records, in order
//!           <─ Ack ────                received, durable, credit: all cumulative
//!           ── JoinBegin, JoinFrom, Copy, JoinFinish ─> joining replica
//!           <─ JoinReady, Missing, Copied, JoinDone ──
//! ```
//!
//! A message names the incarnation that it was meant for; another one drops it. It names its
//! sender's epoch: a receiver at a higher one answers `Newer`, one at a lower one asks for the
//! configuration by `Hello` (Raft may be applied late).

mod codec;

use mooring_config::SliceConfig;
use mooring_terms::{
    AttachmentEpoch, BlockIndex, BlockRange, Epoch, Extent, Incarnation, Record, Sequence, SliceId,
    Time, Version,
};
use serde::{Deserialize, Serialize};

/// A message between two replicas of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The slice; routes the message at its receiver.
    pub slice: SliceId,
    /// The newest epoch that the sender knows.
    pub epoch: Epoch,
    /// The sender's opening of its pool.
    pub from: Incarnation,
    /// The opening that it is meant for; `None` where any will do.
    pub to: Option<Incarnation>,
    /// What it says.
    pub body: MessageBody,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// Who I am and where I stand: first on every new stream.
    Hello(Hello),
    /// Your epoch is old; this is the configuration.
    Newer(SliceConfig),
    /// I am primary of this epoch: promise to take nothing older, durably, then say where you are.
    Raise(Raise),
    /// The promise, and the position taken after it.
    Promised(Promised),
    /// Send the records after `after`.
    Pull(Pull),
    /// The records asked for.
    Pulled(Pulled),
    /// Records to append.
    Append(Append),
    /// How far the sender is.
    Ack(Ack),
    /// How much space credit the primary wants in all.
    Want(Want),
    /// Read these blocks for me: mine are rotten or missing.
    ReadBlocks(ReadBlocks),
    /// The blocks asked for.
    BlocksRead(BlocksRead),
    /// You are to be brought level: supersede what is newer than the common position.
    JoinBegin(JoinBegin),
    /// Superseded, durably.
    JoinReady(JoinReady),
    /// Which blocks are missing, from this one on?
    MissingWanted(MissingWanted),
    /// These are.
    Missing(Missing),
    /// From here on records follow; take this position.
    JoinFrom(JoinFrom),
    /// Copied blocks.
    Copy(CopyStep),
    /// Copies taken so far.
    Copied(Copied),
    /// All was sent: note that you are complete, and make everything durable.
    JoinFinish(JoinFinish),
    /// Complete and durable.
    JoinDone(JoinDone),
    /// My pool has failed: go on without me.
    Failed,
}

/// The start of an epoch in a log: the epoch's first record is the one behind `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The last sequence of the one before.
    pub after: Sequence,
}

/// Whether a replica has every block as its log's history says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It has every block up to its last version.
    Complete,
    /// It has every block up to this version, and whatever was copied or forwarded since.
    Joining {
        /// Moved only by a completed join.
        complete_to: Version,
    },
}

/// Where a replica's log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its last version.
    pub last: Version,
    /// Every record behind this one is at hand as a record.
    pub stable: Sequence,
    /// The epochs of its history, oldest first.
    pub epochs: Vec<EpochStart>,
    /// Whether it has all blocks.
    pub standing: Standing,
    /// The attempt to bring it level that it is in.
    pub join: Option<JoinId>,
    /// Its pool found durable records missing when it was opened; it can't be elected.
    pub damaged: bool,
}

/// First on every new stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Where the sender is.
    pub position: Position,
    /// Answer with yours.
    pub answer: bool,
}

/// The beginning of an epoch start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// The epoch's configuration.
    pub config: SliceConfig,
    /// When it was sent, by the sender's clock; echoed.
    pub sent: Time,
}

/// The answer to [`Raise`], after the promise is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promised {
    /// The echo.
    pub sent: Time,
    /// Where the sender is.
    pub position: Position,
}

impl Position {
    /// Whether it has every block up to its last version.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.standing.is_whole(self.last)
    }
}

impl Standing {
    /// Whether a log with this standing that ends at `last` has every block.
    #[must_use]
    pub fn is_whole(&self, last: Version) -> bool {
        match *self {
            Self::Complete => true,
            Self::Joining { complete_to } => complete_to >= last,
        }
    }
}

/// A request for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// The last sequence that the asker has.
    pub after: Sequence,
}

/// Records asked for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// What was asked.
    pub after: Sequence,
    /// The records behind it, as many as fit; none if they are no longer at hand.
    pub records: Vec<Record>,
}

/// Records to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The version of the record before the first one here.
    pub previous: Version,
    /// The records, dense.
    pub records: Vec<Record>,
    /// Every in-sync replica has everything up to here.
    pub committed: Sequence,
    /// Every in-sync replica has everything up to here durably.
    pub stable: Sequence,
    /// Make everything up to here durable.
    pub sync: Sequence,
}

/// How far a replica is; everything is cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The last record that is with its kernel.
    pub received: Sequence,
    /// The last record that is on its media.
    pub durable: Sequence,
    /// The newest [`Want`] that was answered; 0 if none was.
    pub want: u64,
    /// Space credit granted in this epoch, in bytes.
    pub credit: u64,
    /// Less credit than wanted could be granted: the pool is full.
    pub full: bool,
    /// A record was missing or damaged: send again from `received` on.
    pub resend: bool,
}

/// Space credit wanted in this epoch, in bytes, cumulative. A total below what was granted gives
/// the difference back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Counts the primary's wants in this epoch, from 1.
    pub number: u64,
    /// The total.
    pub credit: u64,
}

/// A request for good copies of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBlocks {
    /// Comes back with the answer.
    pub token: u64,
    /// The blocks.
    pub range: BlockRange,
}

/// Blocks read for the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlocksRead {
    /// What was asked.
    pub token: u64,
    /// The blocks, without those that are missing here; empty if one is rotten here too.
    pub extents: Vec<Extent>,
}

/// Names one attempt to bring one replica level.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct JoinId(pub u64);

/// The beginning of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinBegin {
    /// The attempt.
    pub join: JoinId,
    /// The common position: supersede what is newer.
    pub after: Version,
}

/// The joiner has superseded, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReady {
    /// The attempt.
    pub join: JoinId,
    /// Blocks newer than this are to be copied.
    pub complete_to: Version,
}

/// Asks the joiner for its missing blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingWanted {
    /// The attempt.
    pub join: JoinId,
    /// From this block on.
    pub from: BlockIndex,
}

/// The joiner's missing blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The attempt.
    pub join: JoinId,
    /// What was asked.
    pub from: BlockIndex,
    /// The ranges.
    pub ranges: Vec<BlockRange>,
    /// Where to go on; `None` at the end.
    pub next: Option<BlockIndex>,
}

/// The joiner's new position: records follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinFrom {
    /// The attempt.
    pub join: JoinId,
    /// Everything newer than this comes as records or copies: a joiner whose log ends before it
    /// must not take the position.
    pub after: Version,
    /// The version before the first record that follows.
    pub last: Version,
    /// The primary's epochs.
    pub epochs: Vec<EpochStart>,
    /// The primary's last seal.
    pub seal: AttachmentEpoch,
}

/// Copied blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStep {
    /// The attempt.
    pub join: JoinId,
    /// Counts the steps of the attempt, from 1.
    pub number: u64,
    /// Blocks and holes; and what is lost, as missing.
    pub extents: Vec<Extent>,
}

/// Steps of the copy that are with the joiner's kernel, cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The attempt.
    pub join: JoinId,
    /// The last step.
    pub number: u64,
}

/// Everything was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinFinish {
    /// The attempt.
    pub join: JoinId,
}

/// The joiner is complete, and durably so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinDone {
    /// The attempt.
    pub join: JoinId,
    /// Its last record that is durable.
    pub durable: Sequence,
}

//! Deliberate bugs. Each breaks one property, and the simulator's checker of that property must
//! find it. Compiled only with the feature `mutations`.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// The primary answers a write as soon as it has it itself.
    /// Breaks: an acknowledged write survives the loss of one node.
    AcknowledgeEarly,
    /// FLUSH and FUA are answered when received, not when durable.
    /// Breaks: a flushed write survives a power cut of all.
    FlushAtReceived,
    /// A replica takes and acknowledges records of an older epoch than it knows, and a primary
    /// doesn't believe other replicas that its epoch is over.
    /// Breaks: an acknowledged write is kept over a change of primary (a primary that was stopped for
    /// longer than the grace goes on and is acknowledged; streams must outlive the stop).
    EpochUnchecked,
    /// A replica tells a new primary its position before it promises the epoch, goes on taking
    /// records of the older one, and believes that equal sequences are equal records.
    /// Breaks: in-sync replicas agree (and `check_invariants` of the epoch table).
    PositionsBeforePromise,
    /// A restarted secondary acknowledges, vouches and takes over as if it were the one that is listed.
    /// Breaks: an acknowledged write survives the reboot of one node.
    IncarnationUnchecked,
    /// A returning replica keeps what it has beyond the common position.
    /// Breaks: in-sync replicas agree; what was never acknowledged doesn't come back.
    SupersededKept,
    /// Resync leaves holes out.
    /// Breaks: in-sync replicas agree (discarded blocks come back).
    DiscardsNotCopied,
    /// The primary answers reads without looking at its lease.
    /// Breaks: reads are linearizable.
    ReadWithoutLease,
    /// The primary answers reads of blocks that an uncommitted write has changed.
    /// Breaks: reads are linearizable (what was read is rolled back).
    ReadUncommitted,
    /// A new primary doesn't know the seals in its log.
    /// Breaks: a fenced attachment never writes.
    SealLost,
    /// A joining replica is proposed before its copy is complete.
    /// Breaks: an acknowledged write is kept; in-sync replicas agree.
    JoinedEarly,
    /// Resync leaves blocks out that are lost.
    /// Breaks: reads are linearizable (what the joiner had before comes back).
    LostNotCopied,
    /// A joiner says nothing when its primary begins another epoch, and a primary doesn't ask.
    /// Breaks: liveness after healing.
    JoinerSilent,
    /// A repair is appended without space set aside for it.
    /// Breaks: no ENOSPC behind a sequence.
    RepairUnpaid,
    /// A restarted primary goes on in its old epoch, with the sequences that its log now ends at.
    /// Breaks: one version, one write; an acknowledged write survives a reboot.
    SequenceReused,
    /// A new primary serves every session of the attachment until it has been told which ones.
    /// Breaks: a fenced session never writes, and reads nothing.
    FenceForgotten,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::AcknowledgeEarly,
        Self::FlushAtReceived,
        Self::EpochUnchecked,
        Self::PositionsBeforePromise,
        Self::IncarnationUnchecked,
        Self::SupersededKept,
        Self::DiscardsNotCopied,
        Self::ReadWithoutLease,
        Self::ReadUncommitted,
        Self::SealLost,
        Self::JoinedEarly,
        Self::LostNotCopied,
        Self::JoinerSilent,
        Self::RepairUnpaid,
        Self::SequenceReused,
        Self::FenceForgotten,
    ];
}

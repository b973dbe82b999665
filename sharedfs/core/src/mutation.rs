//! Deliberate bugs of the coordinator. Each breaks one property, and the simulator's checker of that
//! property must find it. Compiled only with the feature `mutations`.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// Freed blocks are given away again while clients still have layouts that name them.
    /// Breaks: no bytes of others.
    LayoutsKept,
    /// fsync is answered when the journal is durable, whatever the slices have on media.
    /// Breaks: nothing fsynced is lost.
    DurableBeforeData,
    /// A request goes on as soon as the recalls for it are sent.
    /// Breaks: coherence.
    RecallUnawaited,
    /// What clients reclaim of locks after a failover is not believed.
    /// Breaks: locks exclude.
    LocksDropped,
    /// A new coordinator doesn't know the replies of the one before.
    /// Breaks: coherence (a retried operation is done twice).
    RepliesLost,
    /// A batch that comes again is done again.
    /// Breaks: what was answered is done.
    BatchTwice,
}

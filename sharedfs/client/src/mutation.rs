//! Deliberate bugs of the client. Each breaks one property, and the simulator's checker of that
//! property must find it. Compiled only with the feature `mutations`.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// Caches are served when the session's lease is over.
    /// Breaks: coherence.
    ExpiredServed,
    /// A recall is answered before what is dirty is written back.
    /// Breaks: coherence.
    RecallUnflushed,
    /// A recall is answered before the kernel has given its caches up.
    /// Breaks: coherence.
    KernelUninvalidated,
    /// A recall is answered before the coordinator has heard of what was done here.
    /// Breaks: coherence.
    RecallUnqueued,
    /// An fsync doesn't wait for what was done here before it.
    /// Breaks: nothing fsynced is lost.
    FsyncUnqueued,
}

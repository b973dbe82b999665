//! Deliberate bugs, each of which the crash tester must find.
//!
//! Without the feature `mutations` nothing of them is compiled: `is_on` is the constant false.

/// A deliberate bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Mutation {
    /// Roll-forward takes whatever whole record stands next, and looks neither at its segment's use
    /// nor at its number; and the log leaves in its last page what stood there. So leftovers of a
    /// segment's earlier life are replayed.
    UseUnchecked = 1,
    /// Reclaim's copy is put into the map whatever it names now.
    MoveOverNewer = 2,
    /// The slot is written before the nodes it names are durable.
    SlotBeforeNodes = 3,
    /// An emptied segment is free at the freeze already, before any slot is past it.
    ReuseTooEarly = 4,
    /// Reads don't check the checksum.
    CrcUnchecked = 5,
    /// Sync answers before anything is durable.
    SyncUnsynced = 6,
    /// Roll-forward takes a record whose data doesn't match its checksums.
    TornAccepted = 7,
}

#[cfg(feature = "mutations")]
static ACTIVE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Turns one bug on, or all off.
#[cfg(feature = "mutations")]
pub fn set(mutation: Option<Mutation>) {
    let number = mutation.map_or(0, |mutation| mutation as u32);
    ACTIVE.store(number, std::sync::atomic::Ordering::SeqCst);
}

/// Whether a bug is on.
#[cfg(feature = "mutations")]
pub(crate) fn is_on(mutation: Mutation) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::SeqCst) == mutation as u32
}

/// Whether a bug is on: never.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn is_on(_: Mutation) -> bool {
    false
}

//! What must be durable before what, and why. The code that obeys each rule names it.
//!
//! | rule | first | then | because |
//! |---|---|---|---|
//! | O1 | the record has been written | `append` returns, the map shows it | `received` means that kill -9 loses nothing |
//! | O2 | every segment written since the last sync is synced | `sync` returns, `durable` rises | a record may follow another into the next segment: both must be down |
//! | O3 | nodes and body of a checkpoint are synced, with all the log before them | its slot is written | a slot that survives must find what it names |
//! | O4 | the slot is synced | it counts as a checkpoint | until then the other slot may be what an opening finds |
//! | O5 | copies and rewritten nodes are behind a checkpoint, and **both** slots are that one or newer | a segment that reclaim emptied is written again | either slot may be what the next opening starts from |
//! | O6 | the trees that were dropped are counted | a segment that reclaim emptied is written again | counting reads their nodes |
//! | O7 | the checkpoint made by an opening is durable | the pool takes appends | what the opening found torn must never be found whole later |
//! | O8 | the segment's new use is marked | it is written | a reader that started earlier sees that its bytes may be gone, and looks again |
//!
//! The log's next segment is named in the header of the one before, and both are in the set that
//! the next sync covers (O2), so the chain that roll-forward follows has no gap that a sync has
//! answered for.

/// O5: whether a segment that was emptied as of checkpoint `emptied_at` may be written again, when
/// the older slot holds checkpoint `oldest_slot`.
pub(crate) fn may_reuse(emptied_at: u64, oldest_slot: u64) -> bool {
    oldest_slot >= emptied_at || crate::mutation::is_on(crate::mutation::Mutation::ReuseTooEarly)
}

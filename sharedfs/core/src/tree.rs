//! The metadata tree as the core sees it: ordered rows of bytes.
//!
//! The real one is redb on the volume; its twin, [`MemoryTree`], is an ordered map. Reads are
//! synchronous: whoever runs the core does so on a thread that may wait for a disk.

mod changes;
mod layered;
mod memory;

pub use changes::Changes;
pub use layered::Layered;
pub use memory::MemoryTree;

use crate::Result;
use crate::format::KeyRange;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Ordered rows that can be read.
pub trait Tree {
    /// The value at `key`.
    ///
    /// # Errors
    /// `Damaged(Store)` or `Unavailable`: the store can't be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The first `limit` rows of `range`, in ascending order.
    ///
    /// # Errors
    /// As [`Tree::get`].
    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>>;

    /// The last `limit` rows of `range`, in descending order.
    ///
    /// # Errors
    /// As [`Tree::get`].
    fn scan_back(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>>;
}

/// A tree that takes changes. What is applied is seen by the next read; it is durable only after a
/// checkpoint, and the journal has it until then.
pub trait TreeStore: Tree {
    /// Applies an operation's changes, all of them.
    ///
    /// # Errors
    /// As [`Tree::get`]; the store must then be dropped.
    fn apply(&mut self, changes: &Changes) -> Result<()>;
}

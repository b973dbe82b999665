//! A file's contents: which blocks hold them, and how that changes.
//!
//! ```text
//!   block 0 of a small file        in the tree: the *inline* row
//!   blocks of extents, written     in the volume
//!   blocks of extents, unwritten   preallocated; read as zeros
//!   everything else                holes; read as zeros
//! ```
//! Whoever writes does it in three steps, whether it is a client with a write lease or the
//! coordinator for several writers:
//!
//! 1. *plan* (`Transaction::plan_write`, `Transaction::plan_extend`,
//!    `Transaction::plan_zero`): which bytes go into which blocks. New data goes into reserved
//!    blocks, what is already written is overwritten in place. A plan changes nothing.
//! 2. the blocks are written;
//! 3. *commit* (`Transaction::commit` and the others): blocks become part of the file, the size
//!    moves.
//!
//! So a file never shows bytes that nobody wrote to it, whatever happens in between. The inode must
//! not change from the plan to the commit: who plans holds it.
//!
//! Invariants:
//! - bytes of the last block behind the size are *anything*: whoever moves the size up zeroes them
//!   first, where they are still invisible;
//! - written extents lie below the size, rounded up to blocks; unwritten ones may lie behind it;
//! - an inline row and an extent never hold the same block; the inline row ends with the size, or
//!   before: what it lacks is zeros;
//! - extents lie in one slice each, and neighbours that could be one are one.

mod allocate;
mod commit;
mod extents;
mod lost;
mod plan;
mod read;

pub use commit::{Commit, NewExtent};
pub use extents::{Mapped, Mapping};
pub use lost::{Lost, Recovery};
pub use plan::{Base, BlockWrite, Plan};
pub use read::{Seek, Segment, Source};

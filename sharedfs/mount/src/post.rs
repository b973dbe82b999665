//! The way to the coordinator, as a mount sees it.
//!
//! ```text
//!   whoever connects ──met(stream)──> Mount ──Post::send──> that stream
//!                    ──letter, letter, ...──> Mount ──Post::cut──> another is to be met
//!                    ──lost──> Mount
//! ```
//! Connecting, finding the coordinator, and trying again are not the mount's business.

use bytes::Bytes;

/// The stream is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream to the coordinator is gone")]
pub struct Lost;

/// One stream to a coordinator: what is sent comes in order, or the stream breaks.
///
/// Both calls come under the mount's lock: they don't wait, and don't call the mount.
pub trait Post: Send + Sync + 'static {
    /// Queues a letter.
    ///
    /// # Errors
    /// [`Lost`]: nothing goes any more. The mount has to be told by `lost` all the same.
    fn send(&self, letter: Bytes) -> Result<(), Lost>;

    /// Nothing is heard over this stream: it is given up, and another has to be met.
    fn cut(&self);
}

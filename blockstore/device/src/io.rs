//! What a device serves its I/O from, and how an error of it reaches the kernel.

use std::time::Duration;

use bytes::Bytes;
use mooring_terms::ErrorKind;

/// Takes the answer to a read: the bytes asked for, in order, in as many pieces as is convenient.
pub type ReadDone = Box<dyn FnOnce(Result<Vec<Bytes>, IoError>) + Send>;

/// Takes the answer to everything else.
pub type Done = Box<dyn FnOnce(Result<(), IoError>) + Send>;

/// Takes the answer to a question for the status of blocks: runs that follow each other from the
/// offset asked for on, at least one, not longer together than what was asked for.
pub type StatusDone = Box<dyn FnOnce(Result<Vec<Extent>, IoError>) + Send>;

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length in bytes, a multiple of 4096 and not zero.
    pub length: u64,
    /// Whether it occupies nothing, and reads as zeros. Nothing is promised of other runs.
    pub hole: bool,
}

/// What a device serves I/O from; a volume implements it.
///
/// Offsets and lengths are multiples of 4096 and lie inside [`BlockIo::size_bytes`]; a length is
/// never zero. The calls come from the device's session threads and must not block for long: a
/// blocked call holds up the requests behind it, never the freeing of waiters by
/// [`Device::fail`](crate::Device::fail). An answer may come from any thread, also before the call
/// returns.
///
/// What an implementation promises:
/// - `flush` covers every write, discard and write-zeroes whose answer was given before the call,
///   **also those that a predecessor process answered**: the first flush after a restart covers
///   all that came before;
/// - of two overlapping requests, the second one made after the first was answered, the second
///   wins. Overlapping requests in flight together may be ordered either way;
/// - when a predecessor process has died, nothing that it had begun takes effect after the first
///   call made here (a new client stream supersedes the older one);
/// - a request that is to be carried over to the next process is left unanswered, its answer
///   closure dropped or kept: the kernel still holds it and hands it to the successor. An error is
///   for what must not wait.
///
/// The bytes of an answer must be in memory that this process has written to: the kernel copies
/// them while the process may be dying, when a page that is not there can't be fetched any more.
pub trait BlockIo: Send + Sync {
    /// The present size in bytes; it may grow, never shrink.
    fn size_bytes(&self) -> u64;
    /// For how long a request may wait while nobody serves; without a bound, for ever.
    fn io_timeout(&self) -> Option<Duration> {
        None
    }
    /// Reads `length` bytes (at most 1 MiB) at `offset`.
    fn read(&self, offset: u64, length: u32, done: ReadDone);
    /// Writes `data` (at most 1 MiB) at `offset`; with `fua` the answer means durable.
    fn write(&self, offset: u64, data: Bytes, fua: bool, done: Done);
    /// Makes durable what was answered before.
    fn flush(&self, done: Done);
    /// Frees a range; it reads as zeros afterwards.
    fn discard(&self, offset: u64, length: u64, done: Done);
    /// Makes a range read as zeros; the space may stay allocated.
    fn write_zeroes(&self, offset: u64, length: u64, done: Done);
    /// Says what of a range are holes. No change of the range is under way meanwhile. Whoever can't
    /// tell says that there are none.
    fn status(&self, offset: u64, length: u64, done: StatusDone) {
        let _ = offset;
        done(Ok(vec![Extent { length, hole: false }]));
    }

    /// Several requests at once, in order, as if each had been made by its own call: whoever has them
    /// at hand lets the volume do them together.
    fn submit(&self, requests: Vec<BlockRequest>) {
        for request in requests {
            match request {
                BlockRequest::Read { offset, length, done } => self.read(offset, length, done),
                BlockRequest::Write { offset, data, fua, done } => {
                    self.write(offset, data, fua, done);
                }
                BlockRequest::Flush { done } => self.flush(done),
                BlockRequest::Discard { offset, length, done } => {
                    self.discard(offset, length, done);
                }
                BlockRequest::WriteZeroes { offset, length, done } => {
                    self.write_zeroes(offset, length, done);
                }
                BlockRequest::Status { offset, length, done } => self.status(offset, length, done),
            }
        }
    }
}

/// A request of a device; the fields are the arguments of the method of [`BlockIo`] of that name.
#[allow(missing_docs)]
pub enum BlockRequest {
    /// See [`BlockIo::read`].
    Read { offset: u64, length: u32, done: ReadDone },
    /// See [`BlockIo::write`].
    Write { offset: u64, data: Bytes, fua: bool, done: Done },
    /// See [`BlockIo::flush`].
    Flush { done: Done },
    /// See [`BlockIo::discard`].
    Discard { offset: u64, length: u64, done: Done },
    /// See [`BlockIo::write_zeroes`].
    WriteZeroes { offset: u64, length: u64, done: Done },
    /// See [`BlockIo::status`].
    Status { offset: u64, length: u64, done: StatusDone },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// There is no space for the write.
    #[error("no space left for the volume")]
    NoSpace,
    /// This holder was fenced; nothing it sends will be taken.
    #[error("fenced: a newer attachment exists, or the device was failed")]
    Fenced,
    /// The data failed its checksum on every copy at hand.
    #[error("the data failed its checksum")]
    Corrupt,
    /// The volume did not answer within its `io_timeout`.
    #[error("the volume did not answer in time")]
    TimedOut,
    /// What serves the volume has stopped for good.
    #[error("what serves the volume has stopped")]
    Stopped,
    /// The request is misaligned or outside the volume.
    #[error("the request is misaligned or outside the volume")]
    Invalid,
    /// The attachment is read-only.
    #[error("the attachment is read-only")]
    ReadOnly,
}

impl IoError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::NoSpace => ErrorKind::NoSpace,
            Self::Fenced => ErrorKind::Fenced,
            Self::Corrupt => ErrorKind::Corrupt,
            Self::TimedOut => ErrorKind::Unavailable,
            Self::Stopped => ErrorKind::Fatal,
            Self::Invalid | Self::ReadOnly => ErrorKind::Invalid,
        }
    }

    /// The errno that the kernel is told.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            // File systems take ENOSPC as "allocate elsewhere or tell the writer", not as a broken
            // disk: the thin volume's user can free space and go on.
            Self::NoSpace => libc::ENOSPC,
            // A fenced holder's device is gone for good; EIO makes a journal abort, which is right.
            Self::Fenced => libc::EIO,
            // EBADMSG would become EIO in the block layer anyway.
            Self::Corrupt => libc::EIO,
            Self::TimedOut => libc::ETIMEDOUT,
            Self::Stopped => libc::EIO,
            Self::Invalid => libc::EINVAL,
            Self::ReadOnly => libc::EROFS,
        }
    }
}

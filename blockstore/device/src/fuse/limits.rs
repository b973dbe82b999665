//! Bounds of a session, and what it asks of the kernel.

use mooring_fuse::Features;
use mooring_fuse::abi::init;

/// Bounds of a session; the kernel is told those that concern it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest write (and read) in bytes, a power of two from 8 KiB to 1 MiB. Each session thread
    /// keeps as much memory ready. 256 KiB is the default because 1 MiB was no faster (sequential
    /// 1 MiB requests over a volume in memory: 2.3 to 2.9 GB/s with 256 KiB, 2.1 to 3.4 with 1 MiB
    /// in the same runs), and two threads of an idle volume would hold 2 MiB instead of half a one.
    pub max_write: u32,
    /// Asynchronous requests that the kernel may have in flight.
    pub max_background: u16,
    /// All requests that may be in flight here; more wait in the kernel.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_write: 256 << 10, max_background: 128, in_flight: 256 }
    }
}

/// Asynchronous direct I/O and large writes a device can't do without; where the kernel can send
/// unanswered requests again, no holder has to keep copies.
pub(super) const FEATURES: Features = Features {
    needed: init::ASYNC_READ | init::BIG_WRITES | init::ASYNC_DIO | init::MAX_PAGES,
    wanted: init::HAS_RESEND,
};

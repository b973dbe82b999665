//! The handshake: what is answered to INIT. Pure.

use super::abi::{InitOut, init, version};

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

/// What kernel and session agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The protocol's minor version.
    pub(crate) minor: u32,
    /// Whether the kernel can send unanswered requests again.
    pub(crate) resend: bool,
}

/// The answer to an INIT that says `major`, `minor` and `flags`.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn negotiate(
    major: u32,
    minor: u32,
    max_readahead: u32,
    flags: u64,
    limits: Limits,
) -> Result<(InitOut, Agreed), &'static str> {
    if major != version::MAJOR {
        return Err("its major version is not 7");
    }
    if minor < version::MINOR_MIN {
        return Err("it is older than Linux 5.4");
    }
    let needed = init::ASYNC_READ | init::BIG_WRITES | init::ASYNC_DIO | init::MAX_PAGES;
    if flags & needed != needed {
        return Err("it lacks asynchronous direct I/O or large writes");
    }
    let resend = flags & init::HAS_RESEND != 0;
    let wanted = needed | (flags & (init::EXT | init::HAS_RESEND));
    let agreed = Agreed { minor: minor.min(version::MINOR), resend };
    let answer = InitOut {
        major: version::MAJOR,
        minor: agreed.minor,
        max_readahead,
        flags: wanted as u32,
        flags2: (wanted >> 32) as u32,
        max_background: limits.max_background,
        congestion_threshold: limits.max_background,
        max_write: limits.max_write,
        time_gran: 1,
        max_pages: (limits.max_write / 4096) as u16,
        ..InitOut::default()
    };
    Ok((answer, agreed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX_6_18: u64 = 0x80ff_ffff_ffff & !(1 << 41);

    #[test]
    fn a_kernel_with_resend_is_told_so() {
        let (answer, agreed) =
            negotiate(7, 45, 131_072, LINUX_6_18 | init::HAS_RESEND, Limits::default()).unwrap();
        assert!(agreed.resend);
        assert_eq!((answer.minor, answer.max_pages, answer.max_write), (45, 64, 256 << 10));
        assert_eq!(answer.flags2, (init::HAS_RESEND >> 32) as u32);
    }

    #[test]
    fn debian_12_has_no_resend() {
        let flags =
            init::ASYNC_READ | init::BIG_WRITES | init::ASYNC_DIO | init::MAX_PAGES | init::EXT;
        let (answer, agreed) = negotiate(7, 38, 131_072, flags, Limits::default()).unwrap();
        assert_eq!(agreed, Agreed { minor: 38, resend: false });
        assert_eq!(answer.flags2, 0);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(negotiate(8, 0, 0, u64::MAX, Limits::default()).is_err());
        assert!(negotiate(7, 30, 0, u64::MAX, Limits::default()).is_err());
        assert!(negotiate(7, 45, 0, init::ASYNC_READ, Limits::default()).is_err());
    }
}

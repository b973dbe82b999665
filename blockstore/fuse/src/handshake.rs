//! The handshake: what is answered to INIT. Pure.

use crate::abi::{InitOut, init, version};

/// Bounds that the kernel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest write (and read) in bytes, a power of two from 8 KiB to 1 MiB. Each session thread
    /// keeps as much memory ready.
    pub max_write: u32,
    /// Asynchronous requests that the kernel may have in flight.
    pub max_background: u16,
}

/// What of [`crate::abi::init`] a file system asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Without these it can't be served.
    pub needed: u64,
    /// These it takes where the kernel has them.
    pub wanted: u64,
}

/// What kernel and session agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The protocol's minor version.
    pub minor: u32,
    /// The [`crate::abi::init`] bits.
    pub flags: u64,
}

impl Agreed {
    /// Whether all of these [`crate::abi::init`] bits were agreed on.
    #[must_use]
    pub fn has(self, flags: u64) -> bool {
        self.flags & flags == flags
    }
}

/// The answer to an INIT that says `major`, `minor` and `flags`.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn negotiate(
    (major, minor): (u32, u32),
    max_readahead: u32,
    flags: u64,
    limits: Limits,
    features: Features,
) -> Result<(InitOut, Agreed), &'static str> {
    if major != version::MAJOR {
        return Err("its major version is not 7");
    }
    if minor < version::MINOR_MIN {
        return Err("it is older than Linux 5.4");
    }
    if flags & features.needed != features.needed {
        return Err("it lacks a feature that this file system can't do without");
    }
    let taken = features.needed | (flags & (features.wanted | init::EXT));
    let agreed = Agreed { minor: minor.min(version::MINOR), flags: taken };
    let answer = InitOut {
        major: version::MAJOR,
        minor: agreed.minor,
        max_readahead,
        flags: taken as u32,
        flags2: (taken >> 32) as u32,
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

    const LIMITS: Limits = Limits { max_write: 256 << 10, max_background: 128 };
    const FEATURES: Features = Features {
        needed: init::ASYNC_READ | init::BIG_WRITES | init::ASYNC_DIO | init::MAX_PAGES,
        wanted: init::HAS_RESEND,
    };
    const LINUX_6_18: u64 = 0x80ff_ffff_ffff & !(1 << 41);

    #[test]
    fn a_kernel_with_resend_is_told_so() {
        let offered = LINUX_6_18 | init::HAS_RESEND;
        let (answer, agreed) = negotiate((7, 45), 131_072, offered, LIMITS, FEATURES).unwrap();
        assert!(agreed.has(init::HAS_RESEND));
        assert_eq!((answer.minor, answer.max_pages, answer.max_write), (45, 64, 256 << 10));
        assert_eq!(answer.flags2, (init::HAS_RESEND >> 32) as u32);
    }

    #[test]
    fn debian_12_has_no_resend() {
        let flags = FEATURES.needed | init::EXT;
        let (answer, agreed) = negotiate((7, 38), 131_072, flags, LIMITS, FEATURES).unwrap();
        assert_eq!((agreed.minor, agreed.has(init::HAS_RESEND)), (38, false));
        assert_eq!(answer.flags2, 0);
    }

    #[test]
    fn nothing_is_taken_that_was_not_asked_for() {
        let (answer, _) = negotiate((7, 45), 0, u64::MAX, LIMITS, FEATURES).unwrap();
        let taken = u64::from(answer.flags) | u64::from(answer.flags2) << 32;
        assert_eq!(taken, FEATURES.needed | FEATURES.wanted | init::EXT);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(negotiate((8, 0), 0, u64::MAX, LIMITS, FEATURES).is_err());
        assert!(negotiate((7, 30), 0, u64::MAX, LIMITS, FEATURES).is_err());
        assert!(negotiate((7, 45), 0, init::ASYNC_READ, LIMITS, FEATURES).is_err());
    }
}

//! Which callers a signal wants back.
//!
//! The kernel tells a file system (INTERRUPT) when the caller of a request has a signal pending, and
//! then leaves the caller waiting, unkillable, until the request is answered. It tells so once, also
//! of signals that are none of the request's business: a timer's, a language runtime's. So each
//! caller that was told of is watched, in /proc, as long as its request waits:
//!
//! | signal | a wait for a lock | anything else |
//! |---|---|---|
//! | SIGKILL, or fatal (the kernel adds SIGKILL then) | EINTR at once | EINTR at once |
//! | HUP, INT, QUIT, TERM with a handler | EINTR at once | EINTR once it has waited for `PATIENCE` |
//! | any other with a handler | EINTR at once | goes on: a stall is no error |
//!
//! What was begun for a freed caller may still happen, as with every interrupted system call.

use std::time::Duration;

/// What a request that is no wait for a lock may take before "please end" signals free its caller.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

/// Signals pending for a caller that it has neither blocked nor ignored, as a mask: bit n - 1 is
/// signal n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending(u64);

impl Pending {
    const fn bit(signal: libc::c_int) -> u64 {
        1 << (signal - 1)
    }

    /// Signals by which people and supervisors ask a process to end.
    const ENDING: u64 = Self::bit(libc::SIGHUP)
        | Self::bit(libc::SIGINT)
        | Self::bit(libc::SIGQUIT)
        | Self::bit(libc::SIGTERM);

    /// Reads it out of /proc/TID/status; `None` if that isn't one.
    pub(crate) fn parse(status: &str) -> Option<Self> {
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        let sent = mask("SigPnd:")? | mask("ShdPnd:")?;
        Some(Self(sent & !mask("SigBlk:")? & !mask("SigIgn:")?))
    }

    /// Those of a caller, now; `None` if it is gone.
    pub(crate) fn of(tid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?)
    }

    /// Whether a request that has waited for so long is to be given up.
    pub(crate) fn frees(self, waits_for_lock: bool, waited: Duration) -> bool {
        self.0 & Self::bit(libc::SIGKILL) != 0
            || (waits_for_lock && self.0 != 0)
            || (self.0 & Self::ENDING != 0 && waited >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(own: u64, shared: u64, blocked: u64, ignored: u64) -> Pending {
        let text = format!(
            "Name:\tx\nSigQ:\t1/2\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t\
             {blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t0000000000000000\n"
        );
        Pending::parse(&text).unwrap()
    }

    const LONG: Duration = Duration::from_secs(1);

    #[test]
    fn a_killed_caller_is_freed_at_once() {
        let killed = status(Pending::bit(libc::SIGKILL), 0, 0, 0);
        assert!(killed.frees(false, Duration::ZERO) && killed.frees(true, Duration::ZERO));
    }

    #[test]
    fn a_timer_makes_no_error_of_a_stall() {
        let timer = status(0, Pending::bit(libc::SIGALRM) | Pending::bit(libc::SIGURG), 0, 0);
        assert!(!timer.frees(false, LONG));
        assert!(timer.frees(true, Duration::ZERO), "a wait for a lock ends with any signal");
    }

    #[test]
    fn who_is_asked_to_end_is_freed_when_it_has_waited_long() {
        let asked = status(0, Pending::bit(libc::SIGINT), 0, 0);
        assert!(!asked.frees(false, PATIENCE / 2));
        assert!(asked.frees(false, PATIENCE));
    }

    #[test]
    fn blocked_and_ignored_signals_free_nobody() {
        let bit = Pending::bit(libc::SIGINT);
        assert!(!status(bit, 0, bit, 0).frees(true, LONG));
        assert!(!status(0, bit, 0, bit).frees(true, LONG));
    }

    #[test]
    fn what_is_no_status_is_refused() {
        assert_eq!(Pending::parse("Name:\tx\nSigPnd:\tzz\n"), None);
    }

    #[test]
    fn this_thread_has_nothing_pending() {
        assert_eq!(Pending::of(std::process::id()), Some(Pending(0)));
    }
}

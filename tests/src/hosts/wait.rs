//! Waiting for something to become true, with a limit and a reason to print.

use std::thread;
use std::time::{Duration, Instant};

use super::failure::{Failure, Result};

/// So many seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// So many milliseconds.
pub const fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Looks again and again until `look` gives `true`, at most for `limit`.
///
/// A look that fails counts as "not yet": hosts under test refuse and fall over all the time. The last
/// such failure is part of the message when the time is over.
///
/// # Errors
/// [`Failure::Timeout`] naming `what`.
pub fn wait_until(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let last = match look() {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(failure) => failure.to_string(),
        };
        if began.elapsed() >= limit {
            return Err(Failure::Timeout { what: what.into(), after: began.elapsed(), last });
        }
        thread::sleep(pause.min(limit.saturating_sub(began.elapsed())));
        // Soon at first, for what is nearly there; then seldom, since a look may be a process.
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_true_is_seen() {
        let mut looks = 0;
        wait_until(seconds(5), "three looks", || {
            looks += 1;
            Ok(looks == 3)
        })
        .unwrap();
        assert_eq!(looks, 3);
    }

    #[test]
    fn what_never_comes_true_is_named_with_the_last_failure() {
        let failure =
            wait_until(milliseconds(20), "the moon", || Err(Failure::Wrong("cloudy".into())))
                .unwrap_err()
                .to_string();
        assert!(failure.contains("the moon") && failure.contains("cloudy"), "{failure}");
    }
}

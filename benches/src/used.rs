//! What the daemons of a host have used.

use std::time::Duration;

use mooring_tests::hosts::{Failure, Host, Result};

/// Processor time and memory of all our processes of a host.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Of all threads, since the processes began.
    pub processor: Duration,
    /// Resident now.
    pub resident_mib: f64,
}

/// The daemon and its holder.
///
/// # Errors
/// The host is off, or runs no daemon.
pub fn used_by(host: &Host) -> Result<Used> {
    let output = host.run(
        "for pid in $(pgrep -x mountd); do
           cat /proc/$pid/task/*/schedstat; grep ^VmRSS: /proc/$pid/status; done",
    )?;
    let unreadable = || Failure::Unreadable {
        what: "what mountd has used".into(),
        because: output.stdout.clone(),
    };
    let (mut processor, mut kib) = (0, 0);
    for line in output.stdout.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let (place, sum) = match words.first() {
            Some(&"VmRSS:") => (1, &mut kib),
            _ => (0, &mut processor),
        };
        let number: u64 =
            words.get(place).and_then(|word| word.parse().ok()).ok_or_else(unreadable)?;
        *sum += number;
    }
    if kib == 0 {
        return Err(unreadable());
    }
    Ok(Used { processor: Duration::from_nanos(processor), resident_mib: kib as f64 / 1024.0 })
}

//! fio as a judge: it writes blocks with checksums at a steady rate, reads them all back, and tells
//! the longest that a single one took.

use std::time::Duration;

use serde_json::Value;

use super::failure::{Failure, Result};
use super::host::Host;
use super::process::Process;
use super::seconds;

/// A job: every block of a file or device is written once, at random, and then verified.
///
/// How long it lasts follows from `blocks / rate`, since a run that ends by the clock could not be
/// verified again later.
#[derive(Debug, Clone)]
pub struct Fio {
    target: String,
    blocks: u64,
    per_second: u64,
    depth: u64,
    sync_every: u64,
    seed: u64,
}

impl Fio {
    /// A job on `target`, a file (made if need be) or a block device: 1,000 writes of 4 KiB a second
    /// for 10 s, four at a time.
    pub fn verify(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            blocks: 10_000,
            per_second: 1_000,
            depth: 4,
            sync_every: 0,
            seed: 1,
        }
    }

    /// For so many seconds, at the rate it has.
    #[must_use]
    pub fn seconds(mut self, count: u64) -> Self {
        self.blocks = self.per_second * count;
        self
    }

    /// So many writes a second, for as long as before.
    #[must_use]
    pub fn rate(mut self, per_second: u64) -> Self {
        self.blocks = self.blocks / self.per_second * per_second;
        self.per_second = per_second;
        self
    }

    /// So many at a time.
    #[must_use]
    pub fn depth(mut self, count: u64) -> Self {
        self.depth = count;
        self
    }

    /// An fsync after every so many writes.
    #[must_use]
    pub fn sync_every(mut self, writes: u64) -> Self {
        self.sync_every = writes;
        self
    }

    /// Other data in another order.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    fn command(&self, only_verify: bool) -> String {
        let Self { target, blocks, per_second, depth, sync_every, seed } = self;
        let bytes = blocks * 4096;
        let phase = if only_verify {
            "--verify_only=1".into()
        } else {
            format!("--rate_iops=,{per_second}")
        };
        let sync = if *sync_every == 0 { String::new() } else { format!("--fsync={sync_every}") };
        format!(
            "exec fio --name=verify --filename='{target}' --rw=randwrite --bs=4k --size={bytes} \
             --direct=1 --ioengine=libaio --iodepth={depth} --randseed={seed} --randrepeat=1 \
             --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 {phase} {sync} \
             --eta=never --output-format=json"
        )
    }
}

/// fio at work.
#[derive(Debug)]
pub struct FioRun {
    process: Process,
    only_verify: bool,
}

/// What fio has to say at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FioReport {
    /// The error that ended it, an errno; `EILSEQ` (84) if a block read back was another. 0 if none.
    pub error: i64,
    /// How many blocks were written.
    pub written: u64,
    /// How many blocks were read back and found right, unless there was an error.
    pub verified: u64,
    /// The longest that one write took, queue included: the stall.
    pub longest_write: Duration,
    /// The longest that one read took.
    pub longest_read: Duration,
}

impl Host {
    /// Starts a job and goes on.
    ///
    /// # Errors
    /// [`Failure::Off`].
    pub fn start_fio(&self, job: &Fio) -> Result<FioRun> {
        Ok(FioRun { process: self.spawn(job.command(false))?, only_verify: false })
    }

    /// Runs a job to its end, at most five minutes.
    ///
    /// # Errors
    /// As [`FioRun::finish`].
    pub fn fio(&self, job: &Fio) -> Result<FioReport> {
        self.start_fio(job)?.finish(seconds(300))
    }

    /// Reads back, here, what a job wrote earlier, on whatever host it ran: at most five minutes.
    ///
    /// # Errors
    /// As [`FioRun::finish`].
    pub fn verify_again(&self, job: &Fio) -> Result<FioReport> {
        let process = self.spawn(job.command(true))?;
        FioRun { process, only_verify: true }.finish(seconds(300))
    }
}

impl FioRun {
    /// Whether it is still at work.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Waits for the end. An error that fio saw is in the report, not a failure.
    ///
    /// # Errors
    /// [`Failure::Timeout`]; fio was killed or doesn't know its job.
    pub fn finish(self, limit: Duration) -> Result<FioReport> {
        let output = self.process.finish(limit)?;
        let mut report = FioReport::from_json(&output.stdout).map_err(|failure| match failure {
            Failure::Unreadable { what, because } => Failure::Unreadable {
                what: format!("{what} (it ended with {})", output.code),
                because: format!("{because}{}", output.stderr),
            },
            other => other,
        })?;
        if self.only_verify {
            // fio counts the writes that it would have made.
            report.written = 0;
            report.longest_write = Duration::ZERO;
        }
        Ok(report)
    }
}

impl FioReport {
    /// Reads what `fio --output-format=json` prints, with the warnings that it puts before.
    ///
    /// ```
    /// use mooring_tests::hosts::FioReport;
    ///
    /// let report = FioReport::from_json(
    ///     r#"{"jobs": [{"error": 0,
    ///          "write": {"total_ios": 10, "lat_ns": {"max": 2000000}},
    ///          "read": {"total_ios": 10, "lat_ns": {"max": 1000000}}}]}"#,
    /// ).unwrap();
    /// assert_eq!(report.longest_write.as_millis(), 2);
    /// ```
    ///
    /// # Errors
    /// [`Failure::Unreadable`].
    pub fn from_json(text: &str) -> Result<Self> {
        let unreadable =
            || Failure::Unreadable { what: "what fio printed".into(), because: text.into() };
        let begin = text.find('{').ok_or_else(unreadable)?;
        let mut values = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Value>();
        let json = values.next().and_then(|value| value.ok()).ok_or_else(unreadable)?;
        let job = json["jobs"].get(0).ok_or_else(unreadable)?;
        let count = |side: &str| job[side]["total_ios"].as_u64().ok_or_else(unreadable);
        let longest = |side: &str| {
            let nanoseconds = job[side]["lat_ns"]["max"].as_u64().ok_or_else(unreadable)?;
            Ok(Duration::from_nanos(nanoseconds))
        };
        Ok(Self {
            error: job["error"].as_i64().ok_or_else(unreadable)?,
            written: count("write")?,
            verified: count("read")?,
            longest_write: longest("write")?,
            longest_read: longest("read")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_around_the_report_are_passed_over() {
        let text = "fio: warning {\"a\n";
        assert!(FioReport::from_json(text).is_err());
        let text = r#"note: x
            {"jobs": [{"error": 84, "write": {"total_ios": 3, "lat_ns": {"max": 5}},
                       "read": {"total_ios": 2, "lat_ns": {"max": 7}}}]}
            trailing"#;
        let report = FioReport::from_json(text).unwrap();
        assert_eq!((report.error, report.written, report.verified), (84, 3, 2));
        assert_eq!(report.longest_read, Duration::from_nanos(7));
    }

    #[test]
    fn duration_is_kept_when_the_rate_changes() {
        let job = Fio::verify("/mnt/f").seconds(20).rate(500);
        assert_eq!((job.blocks, job.per_second), (10_000, 500));
    }

    #[test]
    fn verifying_again_differs_in_nothing_that_makes_the_data() {
        let job = Fio::verify("/mnt/f").seed(7);
        let again = job.command(true);
        assert!(again.contains("--verify_only=1") && again.contains("--randseed=7"));
        assert!(!again.contains("rate_iops"));
    }
}

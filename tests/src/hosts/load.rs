//! An application under which things fail: fio writes blocks with checksums, a stall meter writes every
//! few milliseconds, and at the end both say how long they had to wait, and whether anything was lost.

use std::time::Duration;

use super::failure::{Failure, Result};
use super::host::Host;
use super::{Fio, FioRun, StallMeter, StallReport, milliseconds, seconds};

/// How long a dead replica, primary or coordinator may stall an application.
pub const FAILOVER: Duration = seconds(5);

/// How long a daemon that was killed and started again may, beyond its start.
pub const RESTART: Duration = seconds(1);

/// How long fio may take beyond the writing: to begin, to be held up, to verify. And a last write.
const FINISH_LIMIT: Duration = seconds(120);

/// Writes a second: enough that some are under way whenever something fails.
const RATE: u64 = 300;

/// fio and a stall meter on a mounted volume.
#[derive(Debug)]
pub struct Load {
    job: Fio,
    duration: Duration,
    run: FioRun,
    meter: StallMeter,
}

/// What an application saw.
#[derive(Debug)]
pub struct Endured {
    /// What fio did: read it back with [`Host::verify_again`], on whatever host.
    pub job: Fio,
    /// The longest that a write, or the application as a whole, was without an answer.
    pub stall: Duration,
}

impl Load {
    /// Starts both in a directory of a host, for so many seconds.
    ///
    /// # Errors
    /// As [`StallMeter::start`] and [`Host::start_fio`].
    pub fn start(host: &Host, directory: &str, duration_s: u64) -> Result<Self> {
        let job = Fio::verify(format!("{directory}/blocks")).rate(RATE).seconds(duration_s);
        let job = job.sync_every(200);
        let meter = StallMeter::start(host, format!("{directory}/stall"), milliseconds(10))?;
        let run = host.start_fio(&job)?;
        let load = Self { job, duration: seconds(duration_s), run, meter };
        load.wait_for_writes(50)?;
        Ok(load)
    }

    /// Waits until so many more writes have succeeded.
    ///
    /// # Errors
    /// [`Failure::Timeout`]: they stall for longer than anything may.
    pub fn wait_for_writes(&self, count: u64) -> Result<()> {
        let before = self.meter.so_far().writes;
        super::wait_until(seconds(30), "the application writes on", || {
            let seen = self.meter.so_far();
            if seen.writes >= before + count { Ok(true) } else { Err(wrong(&seen)) }
        })
    }

    /// What the stall meter has seen up to now.
    pub fn so_far(&self) -> StallReport {
        self.meter.so_far()
    }

    /// Whether fio is still at work, so that what happens now happens under load.
    pub fn goes_on(&self) -> bool {
        self.run.is_running()
    }

    /// Waits for the end of fio, which reads back all that it wrote.
    ///
    /// # Errors
    /// An application saw an error, or other data than it wrote.
    pub fn finish(self) -> Result<Endured> {
        let report = self.run.finish(self.duration + FINISH_LIMIT);
        let seen = self.meter.stop(FINISH_LIMIT)?;
        let report = report?;
        if report.error != 0 || report.verified != report.written || report.written == 0 {
            return Err(Failure::Wrong(format!("fio saw an error: {report:?}")));
        }
        if seen.errors != 0 {
            return Err(Failure::Wrong(format!("a write failed: {seen:?}")));
        }
        Ok(Endured { job: self.job, stall: seen.longest.max(report.longest_write) })
    }
}

impl Endured {
    /// Prints the stall, and holds it against what is promised.
    ///
    /// # Errors
    /// It is more than twice the promise.
    pub fn stalled_at_most(&self, promise: Duration, what: &str) -> Result<()> {
        judge(self.stall, promise, what)
    }
}

/// Prints how long something took, and holds it against what is promised: the promise itself is judged
/// by many runs on an idle machine; a single one fails beyond twice of it.
///
/// # Errors
/// It is more than twice the promise.
pub fn judge(took: Duration, promise: Duration, what: &str) -> Result<()> {
    let (took_s, promise_s) = (took.as_secs_f64(), promise.as_secs_f64());
    eprintln!("{what}: {took_s:.2} s (promised: {promise_s:.1} s)");
    if took <= promise * 2 {
        return Ok(());
    }
    Err(Failure::Wrong(format!("{what}: {took_s:.2} s, more than twice {promise_s:.1} s")))
}

fn wrong(seen: &StallReport) -> Failure {
    Failure::Wrong(format!("{seen:?}"))
}

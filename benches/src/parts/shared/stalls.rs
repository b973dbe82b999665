//! What a program on another host waits when the coordinator's daemon is killed: for names and for bytes.

use mooring_tests::hosts::{Failure, Result, StallMeter, milliseconds, seconds, wait_until};

use super::{Bench, alone, figures};
use crate::figure::{Goal, median};
use crate::parts::Plan;
use crate::report::Report;

/// Promised for the middle of the runs and for the longest, in seconds.
const PROMISED: (f64, f64) = (3.0, 5.0);

/// So many kills, one after the other.
pub(super) fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let (mut names, mut bytes) = (Vec::new(), Vec::new());
    for run in 1..=plan.runs {
        let (of_names, of_bytes) = fault(bench)?;
        report.progress(&format!(
            "shared: stall {run} of {}: names {of_names:.2} s, bytes {of_bytes:.2} s",
            plan.runs
        ));
        names.push(of_names);
        bytes.push(of_bytes);
    }
    for (what, numbers) in [("names", &names), ("bytes", &bytes)] {
        let title = format!("coordinator killed, {what}");
        let most = numbers.iter().copied().fold(0.0, f64::max);
        let (p50, max) = (format!("p50 of {}", numbers.len()), format!("max of {}", numbers.len()));
        let (middle, longest) = (Goal::AtMost(PROMISED.0), Goal::AtMost(PROMISED.1));
        report.add(alone(&title, &p50, median(numbers), "s", Some(middle)));
        report.add(alone(&title, &max, most, "s", Some(longest)));
    }
    Ok(())
}

/// The longest waits of one fault, in seconds.
fn fault(bench: &Bench<'_>) -> Result<(f64, f64)> {
    let directory = bench.volume.directory();
    let coordinator = bench.volume.primary(bench.one)?;
    let user = bench.cluster.other_than(&[coordinator]);
    let host = &bench.cluster[user];
    host.run(format!(
        "mkdir -p {directory}; mountpoint -q {directory} || mountctl mount home {directory}; rm -f /run/stop"
    ))?;
    let maker = host.spawn(format!("mooring-workload names {directory} /run/stop"))?;
    let meter = StallMeter::start(host, bench.volume.file("stall"), milliseconds(5))?;
    let written = |count: u64| {
        let before = meter.so_far().writes;
        wait_until(seconds(30), "the programs write on", || {
            Ok(meter.so_far().writes >= before + count)
        })
    };
    written(80)?;
    bench.cluster[coordinator].kill_mountd()?;
    // Another coordinates: only then a round of names is whole again.
    wait_until(seconds(30), "another node coordinates", || {
        Ok(bench.volume.primary(user)? != coordinator)
    })?;
    written(400)?;
    host.run("touch /run/stop")?;
    let names = figures(&maker.succeed(seconds(30))?.stdout)?;
    let seen = meter.stop(seconds(30))?;
    if seen.errors != 0 {
        return Err(Failure::Wrong(format!("{seen:?}")));
    }
    bench.cluster[coordinator].restart_mountd()?;
    bench.volume.wait_in_sync(3, user)?;
    let longest = names["longest"].as_f64();
    let longest = longest.ok_or_else(|| Failure::Wrong(format!("{names} has no longest")))?;
    Ok((longest, seen.longest.as_secs_f64()))
}

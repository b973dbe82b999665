//! What programs on two hosts do at the same time.

use mooring_tests::hosts::{Failure, Result};
use serde_json::Value;

use super::{Bench, alone};
use crate::figure::{Goal, median};
use crate::parts::Plan;
use crate::report::Report;

/// How many new files are looked for.
const APPEAR: usize = 300;

/// Everything, on the first host and another.
pub(super) fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let directory = bench.volume.directory();
    let (one, other) = (bench.one, bench.other);
    bench.cluster[other]
        .run(format!("mountpoint -q {directory} || mountctl mount home {directory}"))?;
    visible(bench, report)?;
    let seconds = plan.seconds;
    let mut rates =
        |title: &str, unit, goal: f64, told: &dyn Fn(usize, usize) -> String| -> Result<()> {
            let mut sums = Vec::new();
            for round in 0..plan.rounds {
                bench.cluster[one].run(format!("mkdir -p {directory}/two{round}"))?;
                let both = bench.both(|side| told(side, round))?;
                sums.push(rate(&both[0])? + rate(&both[1])?);
                bench.cluster[one].run_for(
                    mooring_tests::hosts::seconds(120),
                    format!("rm -r {directory}/two{round}"),
                )?;
            }
            let goal = Some(Goal::AtLeast(goal));
            report.add(alone(title, "two hosts", median(&sums), unit, goal));
            Ok(())
        };
    rates("creates in one directory", "/s", 1500.0, &|side, round| {
        format!("creates {directory}/two{round} host{side}- {seconds}")
    })?;
    for kind in ["flock", "fcntl"] {
        rates(&format!("lock hand-overs, {kind}"), "/s", 4500.0, &|_, round| {
            format!("hand-over {kind} {directory}/two{round} {seconds}")
        })?;
    }
    // Both sides' records together are twice the round trips.
    for (how, goal) in [("reopened", 1000.0), ("kept", 2000.0)] {
        rates(&format!("append ping-pong, {how}"), "records/s", goal, &|side, round| {
            format!("append {directory}/two{round}/file {side} {seconds} {how}")
        })?;
    }
    Ok(())
}

fn rate(said: &Value) -> Result<f64> {
    said["rate"].as_f64().ok_or_else(|| Failure::Wrong(format!("{said} has no rate")))
}

/// From the return of `close` on one host until another, which looks all the time, has read the file.
fn visible(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let directory = format!("{}/visible", bench.volume.directory());
    bench.cluster[bench.one].run(format!("mkdir {directory}"))?;
    let kinds = ["appear", "look"];
    let both = bench.both(|side| format!("{} {directory} {APPEAR}", kinds[side]))?;
    let times = |said: &Value| -> Vec<f64> {
        said["at"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
    };
    let (made, seen) = (times(&both[0]), times(&both[1]));
    if made.len() != APPEAR || seen.len() != APPEAR {
        return Err(Failure::Wrong("not every new file was seen".into()));
    }
    // Seen before its maker knew that it was done: at once.
    let waits: Vec<f64> =
        made.iter().zip(&seen).map(|(made, seen)| ((seen - made) / 1e6).max(0.0)).collect();
    let most = waits.iter().copied().fold(0.0, f64::max);
    let p50 = format!("p50 of {APPEAR}");
    report.add(alone(
        "new file seen on another host",
        &p50,
        median(&waits),
        "ms",
        Some(Goal::AtMost(0.7)),
    ));
    let max = format!("max of {APPEAR}");
    report.add(alone("new file seen on another host", &max, most, "ms", Some(Goal::AtMost(7.0))));
    bench.cluster[bench.one].run(format!("rm -r {directory}")).map(drop)
}

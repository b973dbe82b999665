//! What an application waits when its own node's daemon is killed and started again, beyond the start
//! itself; and when a primary is handed over as planned, because its volume is attached elsewhere.

use std::time::{Duration, Instant};

use mooring_tests::hosts::{
    Cluster, Failure, Hosts, Result, StallMeter, Volume, milliseconds, seconds, wait_until,
};

use super::Plan;
use crate::figure::{Figure, Goal, median};
use crate::report::Report;

/// How long an application may take to write on.
const GIVE_UP: Duration = seconds(20);

/// Restarts under a write every millisecond, and hand-overs.
///
/// # Errors
/// The cluster can't be made, or an application sees an error.
pub fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let hosts = Hosts::up(3)?;
    let pool = "/var/lib/mooring/pool,size=2G,class=high";
    let cluster = Cluster::start(&hosts, |_| vec!["--pool".into(), pool.into()])?;
    if "restart".contains(&plan.row) {
        let mut beyond = Vec::new();
        let volume = cluster.create("r --size 256M --replicas 3")?;
        volume.mount(1)?;
        volume.wait_for_primary(1, 1)?;
        volume.wait_in_sync(3, 1)?;
        for run in 1..=plan.runs {
            beyond.push(restart(&cluster, &volume)?.as_secs_f64());
            report.progress(&format!("restart: {run} of {}: {:.2} s", plan.runs, beyond[run - 1]));
        }
        volume.unmount(1)?;
        tell(report, "stall beyond the daemon's start", "s", &beyond, (None, Some(1.0)));
    }
    if "handover".contains(&plan.row) {
        let volume = cluster.create("h --size 256M --replicas 3 --fs raw")?;
        volume.wait_in_sync(3, 1)?;
        let mut stalls = Vec::new();
        for run in 1..=plan.runs {
            stalls.push(hand_over(&cluster, &volume, 1 + run % 2)?.as_secs_f64() * 1e3);
            report.progress(&format!(
                "hand-over: {run} of {}: {:.0} ms",
                plan.runs,
                stalls[run - 1]
            ));
        }
        tell(report, "stall by a planned hand-over", "ms", &stalls, (None, Some(100.0)));
    }
    Ok(())
}

fn tell(
    report: &mut Report,
    name: &str,
    unit: &'static str,
    numbers: &[f64],
    goals: (Option<f64>, Option<f64>),
) {
    let most = numbers.iter().copied().fold(0.0, f64::max);
    for (which, value, goal) in [("p50", median(numbers), goals.0), ("max", most, goals.1)] {
        report.add(Figure {
            part: "restart",
            name: name.into(),
            target: format!("{which} of {}", numbers.len()),
            value,
            unit,
            floor: None,
            goal: goal.map(Goal::AtMost),
            processor_us: None,
            command: None,
        });
    }
}

/// From the moment at which the new daemon answers, until the application has written again.
fn restart(cluster: &Cluster, volume: &Volume) -> Result<Duration> {
    let meter = StallMeter::start(&cluster[1], volume.file("stall"), milliseconds(1))?;
    written(&meter, 100)?;
    cluster[1].kill_mountd()?;
    let killed = Instant::now();
    cluster[1].restart_mountd()?;
    let start = killed.elapsed();
    written(&meter, 100)?;
    let seen = stopped(meter)?;
    volume.wait_in_sync(3, 1)?;
    Ok(seen.saturating_sub(start))
}

/// Attaches the volume where it was not before, and writes from the first moment on: its primary
/// moves there meanwhile.
fn hand_over(cluster: &Cluster, volume: &Volume, to: usize) -> Result<Duration> {
    let from = volume.primary(to)?;
    let device = volume.attach(to)?;
    let meter = StallMeter::start(&cluster[to], &device, milliseconds(1))?;
    volume.wait_for_primary(to, to)?;
    written(&meter, 50)?;
    let stall = stopped(meter)?;
    volume.detach(to)?;
    if from == to {
        return Err(Failure::Wrong(format!("host{to} had the primary already")));
    }
    Ok(stall)
}

fn written(meter: &StallMeter, count: u64) -> Result<()> {
    let before = meter.so_far().writes;
    wait_until(GIVE_UP, "the application writes on", || Ok(meter.so_far().writes >= before + count))
}

fn stopped(meter: StallMeter) -> Result<Duration> {
    let seen = meter.stop(GIVE_UP)?;
    if seen.errors == 0 { Ok(seen.longest) } else { Err(Failure::Wrong(format!("{seen:?}"))) }
}

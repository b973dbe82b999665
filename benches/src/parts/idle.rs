//! What a node costs that does nothing: processor and memory, without and with attached volumes.

use std::time::{Duration, Instant};

use mooring_tests::hosts::{Cluster, Hosts, Result, seconds};

use super::Plan;
use crate::figure::{Figure, Goal};
use crate::report::Report;
use crate::used::{Used, used_by};

/// How many volumes are attached to one node.
const VOLUMES: usize = 50;

/// How long nothing is done, each time.
const WATCHED: Duration = seconds(15);

/// How long a node gets to finish what was asked of it.
const SETTLE: Duration = seconds(4);

/// One watch over all hosts.
struct Watched {
    /// Per cent of one core, by host.
    processor: Vec<f64>,
    resident_mib: Vec<f64>,
}

/// Watches three nodes, at first with nothing, then with volumes attached to the first of them.
///
/// # Errors
/// The cluster can't be made, or a volume can't be attached.
pub fn run(_: &Plan, report: &mut Report) -> Result<()> {
    let hosts = Hosts::up(3)?;
    let pool = "/var/lib/mooring/pool,size=1G,class=high";
    let cluster = Cluster::start(&hosts, |_| vec!["--pool".into(), pool.into()])?;
    report.progress("idle: no volume");
    let empty = watch(&cluster)?;
    report.progress(&format!("idle: attaching {VOLUMES} volumes"));
    let mut volumes = Vec::new();
    for number in 0..VOLUMES {
        volumes.push(cluster.create(&format!("v{number} --size 1G --replicas 3 --fs raw"))?);
    }
    let began = Instant::now();
    for volume in &volumes {
        volume.attach(1)?;
    }
    let attached = began.elapsed();
    for volume in &volumes {
        volume.wait_in_sync(3, 1)?;
    }
    report.progress(&format!("idle: {VOLUMES} volumes attached"));
    let full = watch(&cluster)?;
    tell(report, &empty, &full, attached);
    for volume in &volumes {
        volume.detach(1)?;
    }
    Ok(())
}

fn tell(report: &mut Report, empty: &Watched, full: &Watched, attached: Duration) {
    let most = |numbers: &[f64]| numbers.iter().copied().fold(0.0, f64::max);
    let each = format!("{VOLUMES} attached");
    let figures = [
        ("processor of an idle node", "0 volumes", most(&empty.processor), "% core", Some(1.0)),
        ("processor of an idle node", &each, full.processor[0], "% core", Some(1.0)),
        ("memory of an idle node", "0 volumes", most(&empty.resident_mib), "MiB", Some(100.0)),
        ("memory of an idle node", &each, full.resident_mib[0], "MiB", None),
        (
            "memory of an attached volume",
            "each",
            (full.resident_mib[0] - empty.resident_mib[0]) / VOLUMES as f64,
            "MiB",
            Some(1.0),
        ),
        // 1,000 within a minute.
        (
            "attaching a volume",
            "each",
            attached.as_secs_f64() * 1e3 / VOLUMES as f64,
            "ms",
            Some(60.0),
        ),
    ];
    for (name, target, value, unit, most) in figures {
        report.add(Figure {
            part: "idle",
            name: name.into(),
            target: target.into(),
            value,
            unit,
            floor: None,
            goal: most.map(Goal::AtMost),
            processor_us: None,
            command: None,
        });
    }
}

fn watch(cluster: &Cluster) -> Result<Watched> {
    std::thread::sleep(SETTLE);
    let used = || cluster.hosts().iter().map(used_by).collect::<Result<Vec<_>>>();
    let before = used()?;
    let began = Instant::now();
    std::thread::sleep(WATCHED);
    let (after, took) = (used()?, began.elapsed());
    let share = |(after, before): (&Used, &Used)| {
        let spent = after.processor.saturating_sub(before.processor);
        spent.as_secs_f64() / took.as_secs_f64() * 100.0
    };
    Ok(Watched {
        processor: after.iter().zip(&before).map(share).collect(),
        resident_mib: after.iter().map(|used| used.resident_mib).collect(),
    })
}

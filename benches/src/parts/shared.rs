//! A shared volume: on one host beside a local directory and the floor of every FUSE file system, on two hosts
//! beside nothing, and through the loss of its coordinator.
//!
//! ```text
//!   host1   /var/lib/mooring/local      `local`: a directory on the disk that all pools lie on
//!           /mnt/through                `through`: such a directory through mooring-passthrough
//!           /mnt/home                   the volume: three replicas, coordinator and primary on this host
//!   host2   /mnt/home                   mounted for what two hosts do
//! ```

mod files;
mod stalls;
mod trees;
mod two;

use std::time::Duration;

use mooring_tests::hosts::{
    Cluster, Failure, Host, Hosts, Process, Result, Volume, seconds, wait_until,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::Plan;
use crate::figure::{Figure, Floor, Goal, median};
use crate::report::Report;
use crate::used::used_by;

/// Where the directory beneath the passthrough lies, and where that is mounted.
const BENEATH: &str = "/var/lib/mooring/beneath";
const THROUGH: &str = "/mnt/through";

/// How long programs on two hosts get to be started, before they begin.
const TOGETHER: Duration = Duration::from_millis(500);

/// One of the places where the same is done.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// As the table has it.
    name: &'static str,
    /// The directory.
    dir: String,
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held {
    /// Local files, at least this ratio.
    Local(f64),
    /// The passthrough, at least this ratio.
    Through(f64),
    /// Beside local files, at most so many of its unit.
    AtMost(f64),
}

/// All that the rows need.
pub(crate) struct Bench<'a> {
    cluster: &'a Cluster<'a>,
    volume: Volume<'a>,
    /// The host where everything on one host is done: the coordinator's.
    one: usize,
    /// Another, for what two do.
    other: usize,
    places: Vec<Place>,
    _through: Process,
}

/// One group of rows.
type Measure = fn(&Bench<'_>, &Plan, &mut Report) -> Result<()>;

/// Measures the rows that `plan` wants.
///
/// # Errors
/// The cluster can't be made, or what is run on it fails.
pub fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let hosts = Hosts::up(3)?;
    let cluster = Cluster::start(&hosts, |_| {
        vec!["--pool".into(), "/var/lib/mooring/pool,size=6G,class=high".into()]
    })?;
    let volume = cluster.create("home --shared --size 4G --replicas 3")?;
    volume.wait_in_sync(3, 1)?;
    let one = volume.primary(1)?;
    let other = cluster.other_than(&[one]);
    let (local, beneath) = ("/var/lib/mooring/local", BENEATH);
    let directory = volume.directory();
    cluster[one].run(format!("mkdir -p {directory} {local} {beneath} {THROUGH}"))?;
    cluster[other].run(format!("mkdir -p {directory}"))?;
    volume.mount(one)?;
    let through = cluster[one].spawn(format!("exec mooring-passthrough {beneath} {THROUGH}"))?;
    wait_until(seconds(10), "the passthrough is mounted", || {
        Ok(cluster[one].attempt(format!("mountpoint -q {THROUGH}"))?.succeeded())
    })?;
    let places = vec![
        Place { name: "local", dir: local.into() },
        Place { name: "through", dir: THROUGH.into() },
        Place { name: "shared x3", dir: directory },
    ];
    let bench = Bench { cluster: &cluster, volume, one, other, places, _through: through };
    // One that fails is told, and the others are measured.
    let parts: [(&str, Measure); 5] = [
        ("files", files::fio),
        ("metadata", files::metadata),
        ("trees", trees::run),
        ("two", two::run),
        ("stalls", stalls::run),
    ];
    for (name, measure) in parts {
        if plan.row.is_empty() || name.contains(&plan.row) {
            report.progress(&format!("shared: {name}"));
            if let Err(failure) = measure(&bench, plan, report) {
                report.failed(format!("shared:{name}: {failure}"));
            }
        }
    }
    bench.cluster[one].run(format!("umount {THROUGH}"))?;
    let said = bench.cluster.ctl(bench.other, &format!("fsck {}", bench.volume.name()))?.stdout;
    if said.contains("is sound") { Ok(()) } else { Err(Failure::Wrong(said)) }
}

impl Bench<'_> {
    fn host(&self) -> &Host {
        &self.cluster[self.one]
    }

    /// Runs a line in a host, and gives the seconds that it took there.
    fn timed(&self, host: usize, line: &str) -> Result<f64> {
        let text = format!(
            "a=$(date +%s%N); {{ {line}; }} >/dev/null || exit; b=$(date +%s%N); echo $((b-a))"
        );
        let output = self.cluster[host].run_for(seconds(300), text)?;
        let ns: f64 = output.stdout.trim().parse().map_err(|_| Failure::Unreadable {
            what: format!("how long `{line}` took"),
            because: output.stdout.clone(),
        })?;
        Ok(ns / 1e9)
    }

    /// Runs a workload in a host.
    fn workload(&self, host: usize, told: &str) -> Result<Value> {
        figures(
            &self.cluster[host].run_for(seconds(300), format!("mooring-workload {told}"))?.stdout,
        )
    }

    /// The same on both hosts, begun at one moment; `told` says what each is told.
    fn both(&self, told: impl Fn(usize) -> String) -> Result<[Value; 2]> {
        let now = clock_gettime(ClockId::Monotonic);
        let begin = Duration::new(now.tv_sec.cast_unsigned(), 0) + TOGETHER;
        let begin = begin.as_nanos() + now.tv_nsec.unsigned_abs() as u128;
        let start = |side: usize| {
            let host = [self.one, self.other][side];
            self.cluster[host].spawn(format!("mooring-workload at {begin} {}", told(side)))
        };
        let (first, second) = (start(0)?, start(1)?);
        let limit = seconds(300);
        Ok([figures(&first.succeed(limit)?.stdout)?, figures(&second.succeed(limit)?.stdout)?])
    }

    /// What all daemons and mounts together have spent.
    fn processor(&self) -> Result<Duration> {
        self.cluster.hosts().iter().map(|host| Ok(used_by(host)?.processor)).sum()
    }

    /// Adds a figure a place, each with its numbers of all rounds; none for a place without numbers.
    fn tell(
        &self,
        report: &mut Report,
        (name, unit): (&str, &'static str),
        held: Option<Held>,
        measured: &[Vec<f64>],
        costs: Option<f64>,
    ) {
        let all = self.places.iter().zip(measured).enumerate();
        for (i, (place, numbers)) in all.filter(|(_, (_, numbers))| !numbers.is_empty()) {
            let is_ours = i + 1 == self.places.len();
            let (below, goal) = match held.filter(|_| is_ours) {
                Some(Held::Local(ratio)) => (0, Some(Goal::RatioAtLeast(ratio))),
                Some(Held::Through(ratio)) => (1, Some(Goal::RatioAtLeast(ratio))),
                Some(Held::AtMost(most)) => (0, Some(Goal::AtMost(most))),
                None => (0, None),
            };
            let ratios: Vec<f64> =
                numbers.iter().zip(&measured[below]).map(|(ours, floor)| ours / floor).collect();
            let floor = is_ours.then(|| Floor {
                name: self.places[below].name,
                value: median(&measured[below]),
                ratio: median(&ratios),
            });
            report.add(Figure {
                part: "shared",
                name: name.into(),
                target: place.name.into(),
                value: median(numbers),
                unit,
                floor,
                goal,
                processor_us: costs.filter(|_| is_ours),
                command: None,
            });
        }
    }
}

/// What a workload says.
fn figures(text: &str) -> Result<Value> {
    serde_json::from_str(text.trim()).map_err(|error| Failure::Unreadable {
        what: "the figures of a workload".into(),
        because: format!("{error}: {text}"),
    })
}

/// A figure that stands for itself.
fn alone(name: &str, target: &str, value: f64, unit: &'static str, goal: Option<Goal>) -> Figure {
    Figure {
        part: "shared",
        name: name.into(),
        target: target.into(),
        value,
        unit,
        floor: None,
        goal,
        processor_us: None,
        command: None,
    }
}

//! fio on a replicated volume, beside local files on the same disk.
//!
//! ```text
//!   host1   /mnt/three, /mnt/one   ext4 on volumes with 3 and 1 replicas   (primary on host1)
//!           /dev/loopN, ...        raw volumes with 3 and 1 replicas
//!           /var/lib/mooring/...   `local`: a file on the disk that all pools lie on;
//!                                  `three`: three such files written or read at once
//! ```
//! The floor of three replicas is `three`, per file: three copies on one disk, without any network.
//! That of one replica is `local`.

use std::time::Duration;

use mooring_tests::hosts::{Cluster, Failure, Hosts, Result, Volume, seconds};
use serde_json::Value;

use super::Plan;
use crate::figure::{Figure, Floor, Goal, median};
use crate::report::Report;
use crate::used::used_by;

const MIB: u64 = 1 << 20;

/// Size of each file, and what is used of each device, in MiB.
const FILE_MIB: u64 = 512;

/// Room for a file system around that.
const VOLUME: &str = "640M";

/// One kind of load.
struct Row {
    name: &'static str,
    title: &'static str,
    options: &'static str,
    unit: Unit,
    /// Of three replicas to `three`, and of one to `local`.
    goals: [Option<f64>; 2],
}

#[derive(Clone, Copy)]
enum Unit {
    Iops,
    MibPerS,
}

const ROWS: &[Row] = &[
    Row {
        name: "randwrite-1",
        title: "4 KiB random write, depth 1",
        options: "--rw=randwrite --bs=4k --iodepth=1",
        unit: Unit::Iops,
        goals: [Some(0.70), Some(0.80)],
    },
    Row {
        name: "randwrite-16",
        title: "4 KiB random write, depth 16",
        options: "--rw=randwrite --bs=4k --iodepth=16",
        unit: Unit::Iops,
        goals: [Some(0.50), Some(0.80)],
    },
    Row {
        name: "randwrite-fsync",
        title: "4 KiB random write, fsync each",
        options: "--rw=randwrite --bs=4k --iodepth=1 --fsync=1",
        unit: Unit::Iops,
        goals: [Some(0.45), Some(0.80)],
    },
    Row {
        name: "randread-1",
        title: "4 KiB random read, depth 1",
        options: "--rw=randread --bs=4k --iodepth=1",
        unit: Unit::Iops,
        goals: [Some(0.80), None],
    },
    Row {
        name: "randread-16",
        title: "4 KiB random read, depth 16",
        options: "--rw=randread --bs=4k --iodepth=16",
        unit: Unit::Iops,
        goals: [Some(0.80), None],
    },
    Row {
        name: "write-seq",
        title: "1 MiB sequential write, depth 4",
        options: "--rw=write --bs=1M --iodepth=4",
        unit: Unit::MibPerS,
        goals: [Some(0.60), Some(0.80)],
    },
    Row {
        name: "read-seq",
        title: "1 MiB sequential read, depth 4",
        options: "--rw=read --bs=1M --iodepth=4",
        unit: Unit::MibPerS,
        goals: [Some(1.5), None],
    },
];

/// What fio is pointed at.
struct Target {
    name: &'static str,
    /// fio's words for it.
    place: String,
    /// Files written at once: the figure is that of one.
    files: u64,
    /// The number of replicas, and with it the floor; `None` for a floor itself.
    replicas: Option<usize>,
}

/// Measures the rows that `plan` wants.
///
/// # Errors
/// The cluster can't be made, or fio fails.
pub fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rows: Vec<&Row> = ROWS.iter().filter(|row| row.name.contains(&plan.row)).collect();
    let hosts = Hosts::up(3)?;
    let cluster = Cluster::start(&hosts, |host| {
        let size = if host.number() == 1 { "6G" } else { "4G" };
        vec!["--pool".into(), format!("/var/lib/mooring/pool,size={size},class=high")]
    })?;
    let targets = targets(&cluster)?;
    for target in &targets {
        report.progress(&format!("fio: laying out {}", target.name));
        fio(&cluster, target, "--rw=write --bs=1M --iodepth=4 --end_fsync=1", "")?;
    }
    for row in rows {
        measure(plan, &cluster, &targets, row, report)?;
    }
    Ok(())
}

/// Makes the volumes, with their file systems, and names the places.
fn targets(cluster: &Cluster) -> Result<Vec<Target>> {
    let mut targets = vec![
        Target {
            name: "local",
            place: "--filename=/var/lib/mooring/local.file".into(),
            files: 1,
            replicas: None,
        },
        Target {
            name: "three",
            place: "--directory=/var/lib/mooring --filename_format=three.$jobnum --numjobs=3"
                .into(),
            files: 3,
            replicas: None,
        },
    ];
    for (replicas, name, ext4, device) in
        [(3, "three", "ext4 x3", "device x3"), (1, "one", "ext4 x1", "device x1")]
    {
        let placed = if replicas == 1 { " --node host1" } else { "" };
        let told = format!("--size {VOLUME} --replicas {replicas}{placed}");
        let mounted = cluster.create(&format!("{name} {told}"))?;
        mounted.mount(1)?;
        ready(&mounted, replicas)?;
        let raw = cluster.create(&format!("{name}-raw {told} --fs raw"))?;
        let path = raw.attach(1)?;
        ready(&raw, replicas)?;
        let place = format!("--filename={}", mounted.file("file"));
        targets.push(Target { name: ext4, place, files: 1, replicas: Some(replicas) });
        let place = format!("--filename={path}");
        targets.push(Target { name: device, place, files: 1, replicas: Some(replicas) });
    }
    Ok(targets)
}

fn ready(volume: &Volume, replicas: usize) -> Result<()> {
    volume.wait_for_primary(1, 1)?;
    volume.wait_in_sync(replicas, 1)
}

/// All targets take turns, round by round.
fn measure(
    plan: &Plan,
    cluster: &Cluster,
    targets: &[Target],
    row: &Row,
    report: &mut Report,
) -> Result<()> {
    let seconds = plan.seconds;
    let clock = format!("--time_based --runtime={seconds} --ramp_time=0.3");
    let mut measured: Vec<Vec<f64>> = vec![Vec::new(); targets.len()];
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); targets.len()];
    for round in 1..=plan.rounds {
        report.progress(&format!("fio: {}, round {round} of {}", row.title, plan.rounds));
        for ((target, numbers), costs) in targets.iter().zip(&mut measured).zip(&mut costs) {
            let before = processor(cluster)?;
            let job = fio(cluster, target, row.options, &clock)?;
            let spent = processor(cluster)?.saturating_sub(before);
            numbers.push(row.unit.of(&job) / target.files as f64);
            costs.push(spent.as_secs_f64() * 1e6 / row.unit.done(&job));
        }
    }
    let place = |name: &str| targets.iter().position(|target| target.name == name);
    for ((target, numbers), costs) in targets.iter().zip(&measured).zip(&costs) {
        let floor = match target.replicas {
            None => None,
            Some(1) => Some(("local", row.goals[1])),
            Some(_) => Some(("three", row.goals[0])),
        };
        let held = floor.and_then(|(name, goal)| Some((name, place(name)?, goal)));
        report.add(Figure {
            part: "fio",
            name: row.title.into(),
            target: target.name.into(),
            value: median(numbers),
            unit: row.unit.name(),
            floor: held.map(|(name, place, _)| {
                let below = &measured[place];
                let ratios: Vec<f64> =
                    numbers.iter().zip(below).map(|(ours, floor)| ours / floor).collect();
                Floor { name, value: median(below), ratio: median(&ratios) }
            }),
            goal: held.and_then(|(_, _, goal)| goal).map(Goal::RatioAtLeast),
            processor_us: target.replicas.map(|_| median(costs)),
            command: Some(command(target, row.options, &clock)),
        });
    }
    Ok(())
}

fn command(target: &Target, options: &str, clock: &str) -> String {
    format!(
        "fio --name=bench --direct=1 --ioengine=libaio --size={} {} {options} {clock} \
         --randrepeat=0 --norandommap --group_reporting --eta=never --output-format=json",
        FILE_MIB * MIB,
        target.place,
    )
}

/// Runs fio on host 1, and gives its one job.
fn fio(cluster: &Cluster, target: &Target, options: &str, clock: &str) -> Result<Value> {
    let command = command(target, options, clock);
    let command = command.replace("$jobnum", "'$jobnum'");
    let output = cluster[1].run_for(seconds(120), &command)?;
    let text = &output.stdout;
    let unreadable =
        || Failure::Unreadable { what: "what fio printed".into(), because: text.clone() };
    let begin = text.find('{').ok_or_else(unreadable)?;
    let mut values = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Value>();
    let json = values.next().and_then(std::result::Result::ok).ok_or_else(unreadable)?;
    json["jobs"].get(0).cloned().ok_or_else(unreadable)
}

/// What all daemons together have spent.
fn processor(cluster: &Cluster) -> Result<Duration> {
    cluster.hosts().iter().map(|host| Ok(used_by(host)?.processor)).sum()
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Iops => "IOPS",
            Self::MibPerS => "MiB/s",
        }
    }

    /// How many operations, or MiB, there were in all.
    fn done(self, job: &Value) -> f64 {
        let both = |key: &str| {
            let side = |side: &str| job[side][key].as_f64().unwrap_or(0.0);
            (side("read") + side("write")).max(1.0)
        };
        match self {
            Self::Iops => both("total_ios"),
            Self::MibPerS => both("io_bytes") / MIB as f64,
        }
    }

    /// Reads and writes together: a job does only one of them.
    fn of(self, job: &Value) -> f64 {
        let both = |key: &str| {
            let side = |side: &str| job[side][key].as_f64().unwrap_or(0.0);
            side("read") + side("write")
        };
        match self {
            Self::Iops => both("iops"),
            Self::MibPerS => both("bw_bytes") / MIB as f64,
        }
    }
}

//! Bytes that reach the disk for each byte that an application writes, as the kernel counts them for
//! the daemon: log, maps, checkpoints and reclaim.

use std::fs;
use std::thread::sleep;

use mooring_tests::hosts::{Cluster, Failure, Hosts, Result, seconds};

use super::Plan;
use crate::figure::{Figure, Goal};
use crate::report::Report;

const MIB: u64 = 1 << 20;

/// Random writes of 4 KiB that nobody syncs.
struct Row {
    name: &'static str,
    target: &'static str,
    /// The volume, and what is written of it.
    size_mib: u64,
    written_mib: u64,
    most: f64,
}

const ROWS: &[Row] = &[
    Row { name: "dense", target: "over 512 MiB", size_mib: 512, written_mib: 512, most: 1.3 },
    Row { name: "thin", target: "over 64 GiB", size_mib: 64 << 10, written_mib: 2048, most: 3.0 },
];

/// Writes with one replica: what is counted is what each replica does by itself.
///
/// # Errors
/// The cluster can't be made, or fio fails.
pub fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for row in ROWS.iter().filter(|row| row.name.contains(&plan.row)) {
        report.progress(&format!("amplification: {} MiB {}", row.written_mib, row.target));
        // A pool of its own, that reclaim has no reason to touch.
        let hosts = Hosts::up(1)?;
        let pool = "/var/lib/mooring/pool,size=6G,class=high";
        let cluster = Cluster::start(&hosts, |_| vec!["--pool".into(), pool.into()])?;
        let told = format!("v --size {}M --replicas 1 --fs raw", row.size_mib);
        let device = cluster.create(&told)?.attach(1)?;
        let before = written(&cluster)?;
        let bytes = row.written_mib * MIB;
        let command = format!(
            "fio --name=bench --filename={device} --rw=randwrite --bs=4k --iodepth=16 --direct=1 \
             --ioengine=libaio --size={}M --io_size={bytes} --norandommap --eta=never",
            row.size_mib
        );
        cluster[1].run_for(seconds(240), &command)?;
        let after = settled(&cluster)?;
        report.add(Figure {
            part: "amplification",
            name: "written to disk per byte, 4 KiB".into(),
            target: row.target.into(),
            value: after.saturating_sub(before) as f64 / bytes as f64,
            unit: "",
            floor: None,
            goal: Some(Goal::AtMost(row.most)),
            processor_us: None,
            command: Some(command),
        });
    }
    Ok(())
}

/// The same, once checkpoints and reclaim have come to rest.
fn settled(cluster: &Cluster) -> Result<u64> {
    let mut last = written(cluster)?;
    for _ in 0..30 {
        sleep(seconds(1));
        let now = written(cluster)?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// Bytes that the daemon has caused to be written so far, those still in the page cache included.
fn written(cluster: &Cluster) -> Result<u64> {
    let path = format!("/proc/{}/io", cluster[1].mountd_pid()?);
    let text = fs::read_to_string(&path).map_err(Failure::io(&path))?;
    let count = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    };
    let (Some(written), Some(cancelled)) = (count("write_bytes:"), count("cancelled_write_bytes:"))
    else {
        return Err(Failure::Unreadable { what: path, because: text });
    };
    Ok(written.saturating_sub(cancelled))
}

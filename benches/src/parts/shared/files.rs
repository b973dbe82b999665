//! Bytes and names of small files, by one program on one host.

use mooring_tests::hosts::{Failure, Result, seconds};
use serde_json::Value;

use super::{Bench, Held, Place};
use crate::figure::median;
use crate::parts::Plan;
use crate::report::Report;

const MIB: f64 = (1 << 20) as f64;

/// One kind of load.
struct Row {
    title: &'static str,
    options: &'static str,
    in_mib: bool,
    held: Held,
}

const DIRECT: &str = "--direct=1 --ioengine=libaio --iodepth=1";
const BUFFERED: &str = "--direct=0 --ioengine=psync";

const ROWS: &[(&str, Row)] = &[
    (
        DIRECT,
        Row {
            title: "4 KiB random write, direct",
            options: "--rw=randwrite --bs=4k",
            in_mib: false,
            held: Held::Local(0.50),
        },
    ),
    (
        DIRECT,
        Row {
            title: "4 KiB random write + fsync",
            options: "--rw=randwrite --bs=4k --fsync=1",
            in_mib: false,
            held: Held::Local(0.28),
        },
    ),
    (
        DIRECT,
        Row {
            title: "4 KiB random read, direct",
            options: "--rw=randread --bs=4k",
            in_mib: false,
            held: Held::Local(0.60),
        },
    ),
    (
        DIRECT,
        Row {
            title: "4 KiB 70/30 mix, 4 jobs",
            options: "--rw=randrw --rwmixread=70 --bs=4k --numjobs=4",
            in_mib: false,
            held: Held::Local(0.35),
        },
    ),
    (
        DIRECT,
        Row {
            title: "1 MiB write, direct",
            options: "--rw=write --bs=1M",
            in_mib: true,
            held: Held::Local(0.25),
        },
    ),
    (
        DIRECT,
        Row {
            title: "1 MiB read, direct",
            options: "--rw=read --bs=1M",
            in_mib: true,
            held: Held::Local(0.90),
        },
    ),
    (
        BUFFERED,
        Row {
            title: "4 KiB random write, buffered",
            options: "--rw=randwrite --bs=4k",
            in_mib: false,
            held: Held::Through(1.5),
        },
    ),
    (
        BUFFERED,
        Row {
            title: "4 KiB write + fsync, buffered",
            options: "--rw=randwrite --bs=4k --fsync=1",
            in_mib: false,
            held: Held::Local(0.35),
        },
    ),
];

/// The names in a workload's figures, their titles, and what they are held against.
const RATES: &[(&str, &str, Held)] = &[
    ("create", "create 4 KiB files", Held::Through(2.0)),
    ("create-fsync", "create 4 KiB files + fsync", Held::Through(0.8)),
    ("stat", "stat", Held::Through(1.0)),
    ("open-read", "open + read + close, 4 KiB", Held::Through(1.2)),
    ("ls-l", "ls -l, entries", Held::Through(1.0)),
    ("rename", "rename", Held::Through(1.0)),
    ("unlink", "unlink", Held::Through(1.3)),
    ("mkdir", "mkdir", Held::Through(1.5)),
];

/// How many files: enough that each kind takes some tenths of a second.
const FILES: u64 = 3000;

/// fio on one file a place, which take turns.
pub(super) fn fio(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    for place in &bench.places {
        report.progress(&format!("shared: laying out {}", place.name));
        job(bench, place, "--rw=write --bs=1M --end_fsync=1 --direct=0 --ioengine=psync", "")?;
    }
    let clock = format!("--time_based --runtime={} --ramp_time=0.3", plan.seconds);
    for (how, row) in ROWS {
        let mut measured: Vec<Vec<f64>> = vec![Vec::new(); bench.places.len()];
        let mut costs = Vec::new();
        for _ in 0..plan.rounds {
            for (place, numbers) in bench.places.iter().zip(&mut measured) {
                // It passes buffers on as they come, and files opened with O_DIRECT want aligned ones.
                if how == &DIRECT && place.name == "through" {
                    continue;
                }
                let before = bench.processor()?;
                let job = job(bench, place, &format!("{how} {}", row.options), &clock)?;
                let spent = bench.processor()?.saturating_sub(before).as_secs_f64() * 1e6;
                let both = |key: &str| {
                    ["read", "write"].iter().filter_map(|side| job[side][key].as_f64()).sum::<f64>()
                };
                let (speed, done) = if row.in_mib {
                    (both("bw_bytes") / MIB, both("io_bytes") / MIB)
                } else {
                    (both("iops"), both("total_ios"))
                };
                numbers.push(speed);
                if place.name.starts_with("shared") {
                    costs.push(spent / done.max(1.0));
                }
            }
        }
        let unit = if row.in_mib { "MiB/s" } else { "IOPS" };
        bench.tell(report, (row.title, unit), Some(row.held), &measured, Some(median(&costs)));
    }
    Ok(())
}

fn job(bench: &Bench<'_>, place: &Place, options: &str, clock: &str) -> Result<Value> {
    let command = format!(
        "fio --name=bench --size=256M --filename={}/fio.file {options} {clock} --randrepeat=0 \
         --norandommap --group_reporting --eta=never --output-format=json",
        place.dir
    );
    let text = bench.host().run_for(seconds(120), &command)?.stdout;
    let unreadable =
        || Failure::Unreadable { what: "what fio printed".into(), because: text.clone() };
    let begin = text.find('{').ok_or_else(unreadable)?;
    let mut values = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Value>();
    let json = values.next().and_then(std::result::Result::ok).ok_or_else(unreadable)?;
    json["jobs"].get(0).cloned().ok_or_else(unreadable)
}

/// Rates of one program, in turns.
pub(super) fn metadata(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut said: Vec<Vec<Value>> = vec![Vec::new(); bench.places.len()];
    for round in 0..plan.rounds {
        for (place, said) in bench.places.iter().zip(&mut said) {
            let told = format!("metadata {}/m{round} {FILES}", place.dir);
            said.push(bench.workload(bench.one, &told)?);
        }
    }
    for (key, title, held) in RATES {
        let of = |said: &Vec<Value>| said.iter().filter_map(|one| one[*key].as_f64()).collect();
        let measured: Vec<Vec<f64>> = said.iter().map(of).collect();
        bench.tell(report, (title, "/s"), Some(*held), &measured, None);
    }
    Ok(())
}

//! Measures the loop device with fio over a volume in memory: what kernel, FUSE and session cost.
//!
//! `cargo run --release -p mooring-device --example measure -- [threads] [max_write] [resend|forward]`
//!
//! Needs root, /dev/fuse, loop devices and fio. Prints operations a second and the median latency.

#[path = "../tests/support/memory_io.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod memory_io;

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use memory_io::MemoryIo;
use mooring_device::Limits;
use mooring_device::{Device, Handover, LoopHost, LoopOptions, holder};

const BYTES: usize = 1 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, socket] = arguments.as_slice()
        && first == "holder"
    {
        return Ok(holder::run(Path::new(socket))?);
    }
    let argument = |i: usize| arguments.get(i).map(String::as_str);
    let threads = argument(0).map_or(Ok(2), str::parse)?;
    let max_write = argument(1).map_or(Ok(Limits::default().max_write), str::parse)?;
    let handover = match argument(2) {
        Some("forward") => Handover::Forward,
        _ => Handover::Resend,
    };

    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("holder.sock");
    let mut command = Command::new(std::env::current_exe()?);
    let holder = Arc::new(holder::ensure_running(&socket, command.arg("holder").arg(&socket))?);
    let host = LoopHost::new(&directory.path().join("devices"), Some(holder.clone()))?;
    let io = Arc::new(MemoryIo::new(BYTES));
    let limits = Limits { max_write, ..Limits::default() };
    let options = LoopOptions { threads, limits, handover, ..LoopOptions::default() };
    let device = host.attach("measured", io, &options)?;
    println!("{threads} threads, max_write {max_write}, {handover:?}");
    // Touched once, so that page faults in the volume's memory aren't measured.
    fio(device.path(), "write", "1m", 8, "--size=1g")?;
    for (pattern, block, depth) in [
        ("randread", "4k", 1),
        ("randread", "4k", 16),
        ("randwrite", "4k", 1),
        ("randwrite", "4k", 16),
        ("read", "1m", 8),
        ("write", "1m", 8),
    ] {
        let line = fio(device.path(), pattern, block, depth, "--time_based")?;
        println!("{pattern:>9} {block} QD{depth:<2} {line}");
    }
    device.detach()?;
    holder.stop(false)?;
    Ok(())
}

/// Runs fio for two seconds; returns its rate and median latency.
fn fio(
    node: &Path,
    pattern: &str,
    block: &str,
    depth: u32,
    more: &str,
) -> Result<String, Box<dyn Error>> {
    let output = Command::new("fio")
        .args(["--name=measure", "--direct=1", "--ioengine=libaio", "--runtime=2", "--size=1g"])
        .args(["--output-format=terse", "--terse-version=3", more])
        .arg(format!("--filename={}", node.display()))
        .arg(format!("--rw={pattern}"))
        .arg(format!("--bs={block}"))
        .arg(format!("--iodepth={depth}"))
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let fields: Vec<&str> = text.trim().split(';').collect();
    // Version 3: reads begin at field 5, writes at field 46: KiB, KiB/s, IOPS, ms, ...
    let base = if pattern.contains("read") { 5 } else { 46 };
    let field = |i: usize| fields.get(base + i).copied().unwrap_or("?");
    // Percentiles begin 12 fields in; the sixth, with the defaults, is the median: "50.000000%=9".
    let median = (12..32).map(field).find_map(|field| field.strip_prefix("50.000000%="));
    Ok(format!("{:>8} IOPS {:>8} KiB/s p50 {} us", field(2), field(1), median.unwrap_or("?")))
}

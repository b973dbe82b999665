//! Figures on a real directory; printed, not judged. `cargo nextest run --release -p mooring-engine
//! --test measure --run-ignored all --no-capture`; `MOORING_MEASURE_DIR` names the place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real threads and real time are tested")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mooring_engine::{DirectoryDisk, FormatOptions, OpenOptions, Pool};
use mooring_terms::{Data, Sequence, SliceId};
use support::{Rng, data, range, slice, version, write};

const MIB: u64 = 1 << 20;

struct Bench {
    _directory: tempfile::TempDir,
    path: PathBuf,
    pool: Arc<Pool>,
    rng: Rng,
    sequence: u64,
    blocks: Vec<Data>,
}

fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find(|line| line.starts_with("write_bytes")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

impl Bench {
    fn new(size: u64) -> Self {
        let place = std::env::var("MOORING_MEASURE_DIR")
            .map_or_else(|_| std::env::temp_dir(), PathBuf::from);
        let directory = tempfile::tempdir_in(place).unwrap();
        let path = directory.path().join("pool");
        let disk = DirectoryDisk::open(&path).unwrap();
        let mut options = FormatOptions::new(size, 1);
        options.segment_bytes = 64 * MIB;
        Pool::format(&disk, &options).unwrap();
        let (pool, _) = Pool::open(Arc::new(disk), OpenOptions::default()).unwrap();
        pool.create(slice(1), Bytes::new()).unwrap();
        let blocks = (0..64).map(|seed| data(seed, 1)).collect();
        Self { _directory: directory, path, pool: Arc::new(pool), rng: Rng(1), sequence: 0, blocks }
    }

    fn write(&mut self, block: u64, data: Data) {
        self.sequence += 1;
        self.pool.append(slice(1), &[write(version(1, self.sequence), block, data)]).unwrap();
        if self.sequence.is_multiple_of(64) {
            self.pool.committed(slice(1), Sequence(self.sequence));
        }
    }

    fn random_writes(&mut self, count: u64, blocks: u64, sync: bool) -> Vec<Duration> {
        (0..count)
            .map(|i| {
                let (block, data) = (self.rng.below(blocks), self.blocks[i as usize % 64].clone());
                let start = Instant::now();
                self.write(block, data);
                if sync {
                    self.pool.sync().unwrap();
                }
                start.elapsed()
            })
            .collect()
    }
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let total: Duration = times.iter().sum();
    println!(
        "{name}: mean {:.1} us, p50 {:?}, p99 {:?}, max {:?}",
        total.as_secs_f64() * 1e6 / times.len() as f64,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn with_worker<T>(bench: &mut Bench, work: impl FnOnce(&mut Bench) -> T) -> T {
    let pool = bench.pool.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let worker = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            if pool.maintain().unwrap() == mooring_engine::Maintained::Idle {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let out = work(bench);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    worker.join().unwrap();
    out
}

/// What the disk takes for the same without us: a file that was written before.
fn floor() -> Vec<Duration> {
    use std::os::unix::fs::FileExt;
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![0; 64 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let block = [7; 4096];
    (0..3000)
        .map(|i| {
            let start = Instant::now();
            file.write_all_at(&block, i * 4096).unwrap();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect()
}

#[test]
#[ignore = "measures"]
fn figures() {
    report("floor: 4 KiB pwrite and fdatasync, one after the other", floor());
    let mut bench = Bench::new(6 << 30);
    let count = 131_072;
    with_worker(&mut bench, |bench| {
        let before = written_bytes();
        report("4 KiB random append over 512 MiB", bench.random_writes(count, count, false));
        bench.pool.sync().unwrap();
        let ratio = (written_bytes() - before) as f64 / (count * 4096) as f64;
        println!("  written per byte: {ratio:.3}");
        let before = written_bytes();
        let (wide, blocks) = (262_144, 64 << 18);
        report("4 KiB random append over 64 GiB", bench.random_writes(wide, blocks, false));
        bench.pool.checkpoint().unwrap();
        let ratio = (written_bytes() - before) as f64 / (wide * 4096) as f64;
        println!("  written per byte: {ratio:.3}");
        report("4 KiB append and sync", bench.random_writes(3000, count, true));
        let big = data(9, 256);
        let start = Instant::now();
        for i in 0..1024 {
            bench.write((1 << 30) + i * 256, big.clone());
        }
        println!("1 MiB appends: {:.0} MiB/s", 1024.0 / start.elapsed().as_secs_f64());
        bench.pool.sync().unwrap();
    });
    let mut times = Vec::new();
    let mut out = Vec::new();
    for _ in 0..50_000 {
        let block = bench.rng.below(count);
        let start = Instant::now();
        out.clear();
        bench.pool.read(slice(1), range(block, 1), &mut out).unwrap();
        times.push(start.elapsed());
    }
    report("4 KiB random read (page cache)", times);
    let start = Instant::now();
    for i in 0..1024 {
        out.clear();
        bench.pool.read(slice(1), range((1 << 30) + i * 256, 256), &mut out).unwrap();
    }
    println!("1 MiB reads (page cache): {:.0} MiB/s", 1024.0 / start.elapsed().as_secs_f64());
    println!("{:?}", bench.pool.usage());
    let _: SliceId = slice(1);
    let Bench { path, pool, _directory, .. } = bench;
    drop(pool);
    let start = Instant::now();
    let disk = Arc::new(DirectoryDisk::open(&path).unwrap());
    let (_, report) =
        Pool::open(disk, OpenOptions { opening: 2, ..OpenOptions::default() }).unwrap();
    println!("open without a close: {:?}, {report:?}", start.elapsed());
}

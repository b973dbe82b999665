//! A busy machine is no fault: nobody is taken over from, and nobody is given up, because processors are
//! scarce.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::env;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use mooring_tests::hosts::{
    Cluster, FAILOVER, Result, StallMeter, judge, milliseconds, on_cluster,
};

/// How many threads want a processor all the time.
const LOAD: usize = 8;

/// For how long, unless `MOORING_LOAD_SECONDS` says otherwise; what is promised is five minutes.
const SECONDS: u64 = 75;

/// Threads that do nothing, as fast as they can.
struct Burners {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let burn = |over: Arc<AtomicBool>| {
            move || {
                while !over.load(Ordering::Relaxed) {
                    spin_loop();
                }
            }
        };
        let threads = (0..LOAD).map(|_| thread::spawn(burn(Arc::clone(&over)))).collect();
        Self { over, threads }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// How often something of a kind has happened, on all hosts together.
fn happened(cluster: &Cluster, kind: &str) -> Result<usize> {
    (1..=cluster.count()).map(|host| Ok(cluster.events(host, kind)?.len())).sum()
}

#[test]
fn busy_machine_causes_no_failover() {
    let seconds = env::var("MOORING_LOAD_SECONDS").ok();
    let seconds = seconds.map_or(SECONDS, |told| told.parse().expect("a number of seconds"));
    on_cluster(3, |cluster| {
        let volume = cluster.create("db --size 1G --replicas 3")?;
        volume.mount(1)?;
        volume.wait_for_primary(1, 1)?;
        volume.wait_in_sync(3, 1)?;
        let kinds = ["taking-over", "false-failover", "replica-lost"];
        let count = |kind: &&str| happened(cluster, kind);
        let before = kinds.iter().map(count).collect::<Result<Vec<_>>>()?;
        let burners = Burners::start();
        let file = volume.file("written");
        let meter = StallMeter::start(&cluster[1], &file, milliseconds(10))?;
        sleep(Duration::from_secs(seconds));
        drop(burners);
        let seen = meter.stop(FAILOVER)?;
        let after = kinds.iter().map(count).collect::<Result<Vec<_>>>()?;
        assert_eq!(before, after, "{kinds:?} in {seconds} s at load {LOAD}");
        assert_eq!(seen.errors, 0, "{seen:?}");
        println!("{} writes in {seconds} s at load {LOAD}", seen.writes);
        judge(seen.longest, FAILOVER, "longest wait on a busy machine")?;
        seen.is_kept_in(&cluster[1], &file)?;
        volume.unmount(1)
    });
}

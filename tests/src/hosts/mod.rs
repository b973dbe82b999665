//! Several hosts on one machine, for tests with real processes, kernels' devices and real networks.
//!
//! ```text
//!            host1            host2            host3        namespaces: mount, network, pid,
//!         10.77.0.1        10.77.0.2        10.77.0.3       uts, ipc; own /run, /mnt, /var/lib
//!           eth0             eth0             eth0
//!             |                |                |           a port that is down is a cable
//!   switch:  p1 ------------- p2 ------------- p3           that is pulled
//! ```
//!
//! A test reads as what happens to the hosts:
//!
//! ```no_run
//! use mooring_tests::hosts::{on_hosts, wait_until, seconds};
//!
//! on_hosts(3, |hosts| {
//!     hosts[1].run("echo kept >/var/lib/mooring/note")?;
//!     hosts[1].power_cut()?;
//!     hosts[1].boot()?;
//!     hosts.partition(1, 2)?;
//!     wait_until(seconds(5), "host 3 reaches host 1", || {
//!         Ok(hosts[3].attempt("ping -c 1 -W 1 host1")?.succeeded())
//!     })
//! });
//! ```
//!
//! Invariants:
//! - Each set of hosts has a switch, names and a directory of its own: two sets never meet.
//! - A host lives no longer than its set: its first process ends when the pipe from the test process
//!   closes, even by `kill -9`, and the kernel ends everything else in it.
//! - Nothing of a set is left after `drop`: no process, namespace, mount, loop device or file. What a
//!   killed test left in files and loop devices, [`sweep`] removes, knowing it by its directory.
//!
//! What it can't do: lose unflushed writes. A power cut ends processes and mounts, and the page cache
//! lives on; lost writes are the simulator's and the engine's crash tests' matter.
//!
//! It must not touch anything that it did not make.

// Real processes run in real time: waiting for them needs the clock and sleep.
#![allow(clippy::disallowed_methods)]

mod cluster;
mod daemon;
mod disk;
mod enter;
mod failure;
mod fio;
mod fsck;
mod host;
mod keeper;
mod load;
mod loops;
mod machine;
mod network;
mod process;
mod set;
mod skip;
mod stall;
mod sweep;
mod tasks;
mod volume;
mod wait;

pub use cluster::{Cluster, POOL, on_cluster};
pub use disk::{LoopDisk, corrupt};
pub use failure::{Failure, Result};
pub use fio::{Fio, FioReport, FioRun};
pub use fsck::FileSystem;
pub use host::Host;
pub use load::{Endured, FAILOVER, Load, RESTART, judge};
pub use loops::{LoopDevice, loop_devices};
pub use machine::{binaries, missing};
pub use process::{Output, Process};
pub use set::{Hosts, on_hosts};
pub use skip::skip;
pub use stall::{StallMeter, StallReport};
pub use sweep::{Swept, sweep, sweep_directory};
pub use volume::Volume;
pub use wait::{milliseconds, seconds, wait_until};

//! The simulator of shared volumes: one coordinator, several hosts, in virtual time, out of one seed.
//!
//! ```text
//!   programs ──> kernel of a host ──> Client core ──streams──> Coordinator core ──> tree, journal
//!                 (model: caches,         │                           │               (model)
//!                  locks of inodes        └────────> slices <─────────┘
//!                  and folios)              (model: versions, flush, fences)
//! ```
//! The two cores are the real ones. Faults come for a while, then everything is healed, every cell of
//! every file is read once more, and all must be answered. It shares its generator, queue and trace with
//! the block store's simulator; `MOORING_FS_SIM_SEED=n` runs one seed and prints its story.

mod checkers;
mod hosts;
mod hunt;
mod kernel;
mod plan;
mod programs;
mod required;
mod runner;
mod server;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_sharedfs_client as client;
use mooring_sharedfs_core::coordinator as core;
use mooring_sharedfs_core::ops::{FormatOptions, Make, New, format_volume};
use mooring_sharedfs_core::tree::{MemoryTree, TreeStore};
use mooring_sharedfs_core::{
    BlockAddress, Caller, Context, Ino, Mode, Name, QuarantineNumber, SessionId, Timestamp,
    Transaction,
};
use mooring_terms::{SliceIndex, Time};

use crate::sim::prng::Prng;
use crate::sim::time::Queue;
use crate::sim::trace::Trace;
use crate::sim::{Coverage, CoverageKind as Kind};
use checkers::{Act, Register, Result, Step, appends, coherence, fsynced, locks};
use hosts::Host;
use server::Server;
use volume::{SLICE_BLOCKS, Volume, Writer};

pub use checkers::Violation;
pub use hunt::{Caught, Hunt};
pub use plan::{Bugs, FaultKind, Plan};
pub use required::REQUIRED;
pub use runner::{Failure, Outcome, hash_of, run_seed, run_seeds};

/// Files of cells, each of so many bytes and cells; behind them the log.
const FILES: usize = 3;
const CELL: u64 = 1024;
const CELLS: u64 = 14;
const LOG: usize = FILES;
/// Names that come and go in the root.
const NAMES: u8 = 3;
const DATA_FIRST: BlockAddress = BlockAddress(16);
const MOST_HAPPENINGS: u64 = 1_500_000;

type Blocks = Vec<(BlockAddress, Vec<u8>)>;

/// What happens next. What names a mount or a coordinator is dropped if that is gone.
enum Happening {
    Work(u32, u64, usize),
    Host(u32, u64, Box<client::Event>),
    Interrupt(u32, u64, client::KernelId),
    WriteBack(u32, u64, Ino),
    Remount(u32, u64),
    Dialed(u32, u64),
    Disconnected(u32, u64),
    GoOn(u32, u64),
    ToServer(u32, u64, u64, Box<core::ToCoordinator>),
    ToHost(u32, u64, u64, Box<core::ToClient>),
    HostRead(u32, u64, client::IoNumber, Vec<BlockAddress>, Duration),
    HostWrite(u32, u64, Writer, client::IoNumber, Blocks, Duration),
    Server(u64, Box<core::Event>),
    Received(u64, core::RecordNumber),
    Durable(u64, core::RecordNumber),
    Checkpoint(u64),
    Fence(u64, SessionId),
    Discard(u64, QuarantineNumber),
    Flush(u64, core::IoNumber, Option<BTreeSet<SliceIndex>>),
    ServerRead(u64, core::IoNumber, Vec<BlockAddress>, Duration),
    ServerWrite(u64, core::IoNumber, Blocks, Duration),
    TakeOver,
    Registered(usize),
    Fault(usize),
}

/// One simulated shared volume.
pub struct Sim {
    plan: Plan,
    queue: Queue<Happening>,
    prng: Prng,
    volume: Volume,
    server: Server,
    hosts: BTreeMap<u32, Host>,
    /// Which mount has which session.
    mounts: BTreeMap<SessionId, u64>,
    last_mount: u64,
    calls: u64,
    written: BTreeMap<u64, Register>,
    history: Vec<Step>,
    fsynced: fsynced::Fsynced,
    locks: locks::Held,
    appends: appends::Appends,
    /// The last reads have begun.
    reading_log: bool,
    final_reads: u64,
    log_records: Option<usize>,
    coverage: Coverage,
    trace: Trace,
    violation: Option<Violation>,
    happenings: u64,
}

impl Sim {
    /// The volume of `plan`, at the moment before anybody mounts it.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let mut prng = Prng::new(plan.seed);
        let slices = ((DATA_FIRST.0 + plan.capacity) / SLICE_BLOCKS + 1) as usize;
        Self {
            queue: Queue::default(),
            volume: Volume::new(slices),
            server: Server::new(format(&plan)),
            hosts: BTreeMap::new(),
            mounts: BTreeMap::new(),
            last_mount: 0,
            calls: 0,
            written: BTreeMap::new(),
            history: Vec::new(),
            fsynced: fsynced::Fsynced::default(),
            locks: locks::Held::default(),
            appends: appends::Appends::default(),
            reading_log: false,
            final_reads: 0,
            log_records: None,
            coverage: Coverage::default(),
            trace,
            violation: None,
            happenings: 0,
            prng: prng.fork(1),
            plan,
        }
    }

    fn start(&mut self) {
        self.take_over();
        for host in 0..self.plan.hosts {
            self.mount(host);
        }
        for (index, &(at, _)) in self.plan.faults.iter().enumerate() {
            self.queue.at(at, Happening::Fault(index));
        }
    }

    fn run_until(&mut self, end: Time) {
        while self.violation.is_none() {
            let Some(happening) = self.queue.pop_before(end) else { return };
            self.happenings += 1;
            if self.happenings > MOST_HAPPENINGS {
                self.fail("no run stands still", "something goes round in circles".to_owned());
            }
            self.happen(happening);
        }
    }

    fn is_mount(&self, host: u32, mount: u64) -> bool {
        self.hosts.get(&host).is_some_and(|of| of.mount == mount && !of.programs.is_empty())
    }

    fn happen(&mut self, happening: Happening) {
        use Happening as H;
        let life = self.server.life;
        match happening {
            H::Work(host, mount, at) => self.work(host, mount, at),
            H::Host(host, mount, event) if self.is_mount(host, mount) => {
                self.host_event(host, *event);
            }
            H::Interrupt(host, mount, id) if self.is_mount(host, mount) => {
                self.coverage.count(Kind::Situation, "a caller has a signal");
                self.host_event(host, client::Event::Interrupt(id));
            }
            H::WriteBack(host, mount, ino) if self.is_mount(host, mount) => {
                self.write_back(host, ino);
            }
            H::Remount(host, mount) if self.is_mount(host, mount) => {
                self.kill(host);
                self.mount(host);
            }
            H::Dialed(host, mount) if self.is_mount(host, mount) => self.dialed(host),
            H::Disconnected(host, mount) if self.is_mount(host, mount) => self.disconnect(host),
            H::GoOn(host, mount) if self.is_mount(host, mount) => self.go_on(host),
            H::ToServer(host, stream, of, message) => {
                self.arrive_at_server(host, stream, of, *message)
            }
            H::ToHost(host, mount, stream, message) if self.is_mount(host, mount) => {
                self.arrive_at_host(host, stream, *message);
            }
            H::HostRead(host, mount, io, blocks, delay) if self.is_mount(host, mount) => {
                match self.away(blocks.iter().copied()) {
                    Some(at) => self.queue.at(at, H::HostRead(host, mount, io, blocks, delay)),
                    None => self.host_read(host, io, &blocks, delay),
                }
            }
            // Even if the mount is gone: its bytes are on their way.
            H::HostWrite(host, mount, who, io, blocks, delay) => {
                match self.away(blocks.iter().map(|block| block.0)) {
                    Some(at) => {
                        let again = H::HostWrite(host, mount, who, io, blocks, delay);
                        self.queue.at(at, again);
                    }
                    None => self.host_write((host, mount), who, io, &blocks, delay),
                }
            }
            H::Server(of, event) if of == life => self.server_event(*event),
            H::Received(of, number) if of == life => self.received(number),
            H::Durable(of, number) if of == life => self.durable(number),
            H::Checkpoint(of) if of == life => self.checkpoint(),
            H::Fence(of, session) if of == life => self.fence(session),
            H::Discard(of, number) if of == life => self.discard(number),
            H::Flush(of, io, slices) if of == life => {
                self.volume.flush(slices.as_ref());
                self.server_event(core::Event::Flushed(io));
            }
            H::ServerRead(of, io, blocks, delay) if of == life => {
                match self.away(blocks.iter().copied()) {
                    Some(at) => self.queue.at(at, H::ServerRead(of, io, blocks, delay)),
                    None => self.server_read(io, &blocks, delay),
                }
            }
            H::ServerWrite(of, io, blocks, delay) => {
                match self.away(blocks.iter().map(|block| block.0)) {
                    Some(at) => self.queue.at(at, H::ServerWrite(of, io, blocks, delay)),
                    None => self.server_write(of, io, &blocks, delay),
                }
            }
            H::TakeOver if self.server.coordinator.is_none() => self.take_over(),
            H::Registered(slice) => {
                self.volume.register_all(slice, &self.server.sessions);
            }
            H::Fault(index) => self.fault(index),
            _ => {}
        }
    }

    /// When a slice that has no primary now has one: whoever asks goes on asking.
    fn away(&self, blocks: impl Iterator<Item = BlockAddress>) -> Option<Time> {
        let now = self.queue.now();
        let (at, _) = self.volume.ready(now, blocks);
        (at > now).then_some(at + Duration::from_micros(50))
    }

    /// When a request arrives at its slices, and how long its answer then takes.
    fn way(&mut self, blocks: impl Iterator<Item = BlockAddress>) -> (Time, Duration) {
        let now = self.queue.now();
        let (at, slow) = self.volume.ready(now, blocks);
        let most = if slow { 300_000 } else { 1_500 };
        (at + self.prng.micros(30, most), self.prng.micros(30, most))
    }

    fn fault(&mut self, index: usize) {
        let (_, kind) = self.plan.faults[index];
        let now = self.queue.now();
        let host = self.prng.within(0..u64::from(self.plan.hosts)) as u32;
        let mount = self.hosts.get(&host).map_or(0, |of| of.mount);
        self.coverage.count(Kind::Fault, kind.name());
        self.trace.line(now, format_args!("fault: {} (host {host})", kind.name()));
        match kind {
            FaultKind::CrashHost => {
                self.kill(host);
                self.mount(host);
            }
            FaultKind::CutHost => {
                let until = now + self.prng.millis(100, 4_000);
                if let Some(of) = self.hosts.get_mut(&host) {
                    of.cut_until = until;
                }
            }
            FaultKind::BreakStream => {
                for host in 0..self.plan.hosts {
                    let mount = self.hosts[&host].mount;
                    let delay = self.prng.millis(0, 30);
                    self.queue.after(delay, Happening::Disconnected(host, mount));
                }
            }
            FaultKind::StopHost => {
                let until = now + self.prng.millis(100, 3_000);
                if let Some(of) = self.hosts.get_mut(&host) {
                    of.stopped_until = until;
                }
                self.queue.at(until, Happening::GoOn(host, mount));
            }
            FaultKind::FailOver => {
                self.stop_coordinator();
                self.disconnect_all();
                let delay = self.prng.millis(50, 2_000);
                self.queue.after(delay, Happening::TakeOver);
            }
            FaultKind::MoveSlice => {
                let index = self.prng.within(0..self.volume.slices() as u64) as usize;
                let until = now + self.prng.millis(50, 1_500);
                self.volume.move_slice(index, until, self.plan.bugs.fences_forgotten);
                self.queue.at(until, Happening::Registered(index));
            }
            FaultKind::SlowSlice => {
                let index = self.prng.within(0..self.volume.slices() as u64) as usize;
                self.volume.slice_mut(index).slow_until = now + self.prng.millis(300, 3_000);
            }
            FaultKind::LateMessages => {
                if let Some(of) = self.hosts.get_mut(&host) {
                    of.late_until = now + self.prng.millis(300, 2_000);
                }
            }
            FaultKind::PowerCut => self.cut_power(),
        }
    }

    fn disconnect_all(&mut self) {
        for host in 0..self.plan.hosts {
            let mount = self.hosts[&host].mount;
            let delay = self.prng.millis(0, 300);
            self.queue.after(delay, Happening::Disconnected(host, mount));
        }
    }

    fn cut_power(&mut self) {
        for host in 0..self.plan.hosts {
            self.kill(host);
        }
        self.history.push(Step::PowerCut);
        self.appends.power_cut();
        self.lose_power();
        for host in 0..self.plan.hosts {
            self.mount(host);
        }
    }

    /// A mount can't write any more: what it had buffered and nobody has seen is gone.
    fn lost(&mut self, mount: u64) {
        self.history.push(Step::Fenced { mount });
        self.appends.fenced(mount);
    }

    fn begin(&mut self, call: u64, mount: u64, register: Register, act: Act) {
        let at = self.queue.now();
        self.trace.line(at, format_args!("mount {mount} call {call}: {register:?} {act:x?}"));
        self.history.push(Step::Invoked { call, mount, register, act, at });
    }

    fn end(&mut self, call: u64, result: Result) {
        let at = self.queue.now();
        self.trace.line(at, format_args!("call {call} returns {result:x?}"));
        self.history.push(Step::Returned { call, result, at });
    }

    fn unknown(&mut self, call: u64) {
        self.history.push(Step::Unknown { call });
    }

    fn never(&mut self, call: u64) {
        self.history.push(Step::Never { call });
    }

    fn lock_given(&mut self, host: u32, at: usize, file: usize, flock: bool) {
        let now = self.queue.now();
        let mount = self.hosts[&host].mount;
        let served = |mount: u64| {
            let of = self.hosts.values().find(|of| of.mount == mount);
            of.is_some_and(|of| !of.programs.is_empty() && of.client.is_served(now))
        };
        let given = self.locks.given(file, flock, (mount, at), served);
        self.check(given);
    }

    fn log_read(&mut self, log: &[u8]) {
        if self.log_records.is_none() {
            match self.appends.check(log) {
                Ok(records) => self.log_records = Some(records),
                Err(violation) => self.check(Err(violation)),
            }
        }
    }

    fn fail(&mut self, property: &'static str, text: String) {
        if self.violation.is_none() {
            let now = self.queue.now();
            self.trace.line(now, format_args!("VIOLATION of {property}: {text}"));
            self.violation = Some(Violation { property, text });
        }
    }

    fn check(&mut self, result: std::result::Result<(), Violation>) {
        if let Err(violation) = result {
            self.fail(violation.property, violation.text);
        }
    }

    fn check_history(&mut self) {
        let mode = |file| (Register::Mode(file), 0o644);
        let initial = (0..FILES).map(mode).collect();
        let found = coherence::check(&self.history, &initial);
        self.check(found);
    }
}

/// A file system with the files in it.
fn format(plan: &Plan) -> MemoryTree {
    let mut tree = MemoryTree::default();
    let options = FormatOptions {
        data_first: DATA_FIRST,
        capacity: plan.capacity,
        slice_blocks: SLICE_BLOCKS,
        root: (0, 0, Mode::new(0o777)),
        now: Timestamp::default(),
    };
    let record = format_volume(&tree, &options).expect("a new tree");
    tree.apply(&record.changes).expect("a map takes all");
    for file in 0..=FILES {
        let mut transaction = Transaction::new(&tree, Context { now: Timestamp::default() });
        let make = Make { new: New::Regular, mode: Mode::new(0o644), umask: Mode::default() };
        let name = Name::new(&[b'f', b'0' + file as u8]).expect("a name");
        let made =
            transaction.make(&Caller::ROOT, Ino::ROOT, &name, &make).expect("there is space");
        assert_eq!(made.ino, Ino(2 + file as u64), "files are found by their numbers");
        let outcome = transaction.finish();
        tree.apply(&outcome.record.changes).expect("a map takes all");
    }
    tree
}

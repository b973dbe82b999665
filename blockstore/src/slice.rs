//! One replica of one slice: the pure core, and the hands that do what it says.
//!
//! ```text
//!   transport, client, pool, beacons, Raft ── deliver(event) ──> core ── commands
//!                                              ^                    ├─ send, propose, vouch: at once
//!                                              └─ Received, ... ─── └─ append, read, ...: the lane
//! ```
//!
//! The shell decides nothing. What is asked of the engine goes through the slice's lane, in order (of
//! reads and queries only the beginning: they see at least what was appended before them), one
//! thread at a time; everything else is done in order among itself, and never waits for the lane. So
//! a replica whose disk hangs can still be heard: it resigns. A `Vouch` has taken effect before the
//! next command is run.

mod holes;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mooring_engine::{EngineError, ReadBlock, ReadContent, Root};
use mooring_replication::{
    Command, Event, Found, Mark, Message, Note, ProposalId, Query, ReadFault, Replica, Reply,
    RequestId, Status, Token,
};
use mooring_terms::{BlockIndex, BlockRange, Entry, Epoch, Extent, NodeId, Sequence, SliceId};
use parking_lot::Mutex;

use crate::agenda::Agenda;
use crate::beacon::BeaconBoard;
use crate::clock;
use crate::errands::{self, Cover};
use crate::pool::Pool;
use crate::serial::Serial;
use crate::timers::Timers;

pub use holes::Run;

/// What a slice needs of its node.
pub trait SlicePorts: Send + Sync {
    /// Sends a message to the slice's replica on `to`; dropped where there is no stream.
    fn send(&self, to: NodeId, message: Message);
    /// Answers a client, here or elsewhere; dropped where its stream is gone.
    fn reply(&self, slice: SliceId, id: RequestId, reply: Reply);
    /// Proposes a change; the outcome is delivered to the slice.
    fn propose(&self, slice: SliceId, id: ProposalId, change: mooring_config::SliceChange);
    /// Reads the slice's configuration linearizably; it is delivered to the slice.
    fn query_config(&self, slice: SliceId);
    /// Tells people.
    fn note(&self, slice: SliceId, note: Note);
}

/// One replica of one slice.
pub struct Slice {
    id: SliceId,
    pool: Arc<Pool>,
    serial: Serial<Replica, Command>,
    lane: Mutex<Lane>,
    beacons: Arc<BeaconBoard>,
    timers: Arc<Timers<SliceId>>,
    ports: Weak<dyn SlicePorts>,
    /// Set when this node lets go of the replica: nothing of it is done any more.
    closed: AtomicBool,
    /// Set when an append was refused: what is queued behind it must not go through, and the core is
    /// told once.
    broken: AtomicBool,
    /// Whether this is the primary, which reads: what the engine was last told.
    read_here: AtomicBool,
    /// What the core believes to be promised to it, in bytes: granted, less what it gave back, less
    /// what its entries cost by its own count. The engine counts otherwise, and is told.
    promised: AtomicU64,
    this: Weak<Self>,
}

/// What is asked of the engine, in order.
#[derive(Default)]
struct Lane {
    jobs: VecDeque<Job>,
    /// Whether some thread has taken it on to work the lane off.
    taken: bool,
}

/// One thing that is asked of the engine.
enum Job {
    Append { mark: Mark, entries: Vec<Entry> },
    Sync { mark: Mark },
    Committed { sequence: Sequence },
    Reserve { bytes: u64 },
    Release { bytes: u64 },
    Look(Lookup),
}

/// The duty to work a slice's lane off; whoever has it performs it or hands it over.
pub struct Errand(Arc<Slice>);

impl Errand {
    /// Does what is in the lane, as far as a thread with this cover may wait; the pool's thread does
    /// the rest. `last`: the thread has nothing else to do.
    pub fn perform(self, cover: Cover, last: bool) {
        let lookup = self.0.work_off(cover, last);
        if let Some(lookup) = lookup {
            let answer = self.0.look_up(lookup);
            self.0.deliver(answer);
        }
    }

    /// Whether what it waits for is the same disk.
    pub fn shares_pool_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.pool, &other.0.pool)
    }
}

/// A read or query of the engine that waits for its turn.
enum Lookup {
    Read { token: Token, range: BlockRange },
    Search { token: Token, query: Query, from: BlockIndex, limit_blocks: u64 },
    Records { token: Token, after: Sequence, limit_bytes: u64 },
}

impl Slice {
    /// A replica with its core, not yet told anything.
    pub fn new(
        replica: Replica,
        id: SliceId,
        pool: Arc<Pool>,
        beacons: Arc<BeaconBoard>,
        timers: Arc<Timers<SliceId>>,
        ports: Weak<dyn SlicePorts>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id,
            pool,
            serial: Serial::new(replica),
            lane: Mutex::new(Lane::default()),
            beacons,
            timers,
            ports,
            closed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            read_here: AtomicBool::new(true),
            promised: AtomicU64::new(0),
            this: this.clone(),
        })
    }

    /// Which slice.
    #[must_use]
    pub fn id(&self) -> SliceId {
        self.id
    }

    /// The pool it lies in.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// For people: role, epoch, in-sync set, lag, joins.
    #[must_use]
    pub fn status(&self) -> Status {
        self.serial.look(Replica::status)
    }

    /// How many blocks of the replica's present map hold data; none if the pool doesn't have it any
    /// more. May read map nodes.
    #[must_use]
    pub fn allocated(&self) -> Option<u64> {
        self.pool.engine().allocated(self.id).ok()
    }

    /// The pool has failed: tells the core, unless it knows.
    pub fn store_failed(&self) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            self.deliver(Event::StoreFailed);
        }
    }

    /// Ends the replica's life here: what comes late is dropped.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Tells the core, and does what it says. What may wait for the disk is left to the end of the
    /// thread's outermost [`errands::scope`].
    pub fn deliver(&self, event: Event) {
        errands::scope(Cover::None, || self.drive(event));
    }

    /// Tells the core, and leaves what it says to whoever carries out `agenda`. Waits for nothing but
    /// the core.
    pub fn accept(&self, event: Event, agenda: &mut Agenda) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        let waiting = self.serial.tell(|replica, queue| self.step(replica, event, queue));
        if waiting && let Some(this) = self.this.upgrade() {
            agenda.add_slice(this);
        }
    }

    /// Does what the core has said, unless another thread is at it: inside an [`errands::scope`].
    pub fn run_queue(&self) {
        self.serial.run(|batch| self.run(batch));
    }

    fn drive(&self, event: Event) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.serial
            .enter(|replica, queue| self.step(replica, event, queue), |batch| self.run(batch));
    }

    fn step(&self, replica: &mut Replica, event: Event, queue: &mut Vec<Command>) {
        let now = clock::now();
        self.beacons.with(|leases| replica.handle(now, leases, event, queue));
        self.timers.set(self.id, replica.deadline());
        let primary = replica.is_primary();
        if self.read_here.swap(primary, Ordering::Relaxed) != primary {
            self.pool.engine().expect_reads(self.id, primary);
        }
    }

    fn run(&self, batch: Vec<Command>) {
        let Some(ports) = self.ports.upgrade() else { return };
        for command in batch {
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            self.run_one(&*ports, command);
        }
    }

    fn run_one(&self, ports: &dyn SlicePorts, command: Command) {
        match command {
            Command::Append { mark, entries } => self.ask_engine(Job::Append { mark, entries }),
            Command::Sync { mark } => self.ask_engine(Job::Sync { mark }),
            Command::Committed { sequence } => self.ask_engine(Job::Committed { sequence }),
            Command::Reserve { bytes } => self.ask_engine(Job::Reserve { bytes }),
            Command::Release { bytes } => self.ask_engine(Job::Release { bytes }),
            Command::Read { token, range } => {
                self.ask_engine(Job::Look(Lookup::Read { token, range }));
            }
            Command::Query { token, query, from, limit_blocks } => {
                self.ask_engine(Job::Look(Lookup::Search { token, query, from, limit_blocks }));
            }
            Command::ReadRecords { token, after, limit_bytes } => {
                self.ask_engine(Job::Look(Lookup::Records { token, after, limit_bytes }));
            }
            Command::Send { to, message } => ports.send(to, message),
            Command::Reply { id, reply } => ports.reply(self.id, id, reply),
            Command::Propose { id, change } => ports.propose(self.id, id, change),
            Command::QueryConfig => ports.query_config(self.id),
            Command::Vouch { epoch, peers } => self.vouch(epoch, peers),
            Command::Note(note) => ports.note(self.id, note),
        }
    }

    /// Puts a job into the lane. Whoever finds nobody at it takes it on.
    fn ask_engine(&self, job: Job) {
        let mut lane = self.lane.lock();
        lane.jobs.push_back(job);
        let free = !std::mem::replace(&mut lane.taken, true);
        drop(lane);
        if free && let Some(this) = self.this.upgrade() {
            errands::later(Errand(this));
        }
    }

    /// Does the jobs of the lane, which this thread has taken on, until none is left, or until one
    /// comes up that the thread may not wait for: then the pool's thread goes on. Gives back a read
    /// for the caller to do, if he may and nothing is behind it.
    fn work_off(self: &Arc<Self>, cover: Cover, last: bool) -> Option<Lookup> {
        loop {
            let mut lane = self.lane.lock();
            let may_wait = cover == Cover::Pool || (cover != Cover::None && self.pool.is_well());
            if matches!(lane.jobs.front(), Some(Job::Append { .. })) && !may_wait {
                drop(lane);
                self.pool.take_over(Errand(Arc::clone(self)));
                return None;
            }
            let Some(job) = lane.jobs.pop_front() else {
                lane.taken = false;
                return None;
            };
            match job {
                Job::Append { mut mark, mut entries } => {
                    // What has gathered goes in one write.
                    while let Some(Job::Append { .. }) = lane.jobs.front() {
                        let Some(Job::Append { mark: later, entries: more }) =
                            lane.jobs.pop_front()
                        else {
                            unreachable!("looked at under the same lock")
                        };
                        mark = later;
                        entries.extend(more);
                    }
                    drop(lane);
                    self.append(mark, &entries);
                }
                Job::Look(lookup) => {
                    let alone = lane.jobs.is_empty();
                    if alone && last && cover == Cover::Caller && may_wait {
                        lane.taken = false;
                        return Some(lookup);
                    }
                    drop(lane);
                    self.look_up_elsewhere(lookup);
                }
                job => {
                    drop(lane);
                    self.do_at_once(job);
                }
            }
        }
    }

    /// What never waits for the disk.
    fn do_at_once(&self, job: Job) {
        match job {
            Job::Append { .. } | Job::Look(_) => unreachable!("the caller does these itself"),
            Job::Sync { mark } => {
                if !self.broken.load(Ordering::Acquire)
                    && let Some(this) = self.this.upgrade()
                {
                    self.pool.sync(this, mark);
                }
            }
            Job::Committed { sequence } => self.pool.engine().committed(self.id, sequence),
            Job::Reserve { bytes } => {
                let granted = self.reserve(bytes);
                self.drive(Event::Reserved { bytes: granted });
            }
            Job::Release { bytes } => self.promised_less(bytes),
        }
    }

    fn append(&self, mark: Mark, entries: &[Entry]) {
        if self.closed.load(Ordering::Acquire) || self.broken.load(Ordering::Acquire) {
            return;
        }
        if !self.pool.append(self.id, entries) {
            if !self.broken.swap(true, Ordering::AcqRel) {
                self.drive(Event::StoreFailed);
            }
            return;
        }
        let cost: u64 = entries.iter().map(Entry::cost_bytes).sum();
        if cost > 0 {
            self.promised_less(cost);
        }
        self.drive(Event::Received { mark });
        self.pool.write_out_early();
    }

    /// All of `bytes`, or nothing.
    fn reserve(&self, bytes: u64) -> u64 {
        let engine = self.pool.engine();
        match engine.reserve(self.id, bytes) {
            Ok(granted) if granted == bytes => {
                self.promised.fetch_add(granted, Ordering::AcqRel);
                granted
            }
            Ok(granted) => {
                engine.release(self.id, granted);
                engine.want_space();
                self.pool.wake_maintenance();
                0
            }
            Err(_) => 0,
        }
    }

    /// Takes `bytes` off what is promised, here and in the engine. Only the thread that has taken on
    /// the lane comes here.
    fn promised_less(&self, bytes: u64) {
        let left = self.promised.load(Ordering::Acquire).saturating_sub(bytes);
        self.promised.store(left, Ordering::Release);
        self.pool.engine().keep_reserved(self.id, left);
    }

    fn vouch(&self, epoch: Option<Epoch>, peers: Vec<NodeId>) {
        self.beacons.vouch(self.id, &self.pool, epoch, peers);
    }

    fn look_up_elsewhere(self: &Arc<Self>, lookup: Lookup) {
        let slice = Arc::clone(self);
        self.pool.readers().run(move || {
            let answer = slice.look_up(lookup);
            slice.deliver(answer);
        });
    }

    fn look_up(&self, lookup: Lookup) -> Event {
        match lookup {
            Lookup::Read { token, range } => Event::ReadDone { token, result: self.read(range) },
            Lookup::Search { token, query, from, limit_blocks } => {
                Event::QueryDone { token, result: self.search(query, from, limit_blocks) }
            }
            Lookup::Records { token, after, limit_bytes } => {
                let records =
                    self.pool.engine().records(self.id, after, limit_bytes).unwrap_or_default();
                Event::RecordsRead { token, records }
            }
        }
    }

    fn read(&self, range: BlockRange) -> Result<Vec<Extent>, ReadFault> {
        let mut found = Vec::new();
        self.pool.engine().read(self.id, range, &mut found).map_err(|error| self.fault(&error))?;
        let extent = |ReadBlock { range, version, content }| match content {
            ReadContent::Hole => Extent::Hole { version, range },
            ReadContent::Missing => Extent::Missing { version, range },
            ReadContent::Data(data) => Extent::Data { version, first: range.first, data },
        };
        Ok(found.into_iter().map(extent).collect())
    }

    fn search(&self, query: Query, from: BlockIndex, limit: u64) -> Result<Found, ReadFault> {
        let engine = self.pool.engine();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let found = match query {
            Query::NewerThan(after) => {
                engine.newer_than(self.id, Root::Live, after, from, limit).map(|changes| {
                    let ranges = changes.extents.iter().map(|changed| changed.range).collect();
                    (ranges, changes.next)
                })
            }
            Query::Missing => engine.missing(self.id, from, limit),
        };
        let (ranges, next): (Vec<BlockRange>, _) = found.map_err(|error| self.fault(&error))?;
        Ok(Found { ranges, next })
    }

    fn fault(&self, error: &EngineError) -> ReadFault {
        match error {
            EngineError::Corrupt { block, version, .. } => {
                ReadFault::Corrupt { block: *block, version: *version }
            }
            // Let go of in the meantime; nobody waits for the answer.
            EngineError::NoReplica(_) => ReadFault::Failed,
            other => {
                self.pool.fail(other);
                ReadFault::Failed
            }
        }
    }
}

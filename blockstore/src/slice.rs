//! One replica of one slice: the pure core, and the hands that do what it says.
//!
//! ```text
//!   transport, client, pool, beacons, Raft ── deliver(event) ──> core ── commands ──> run, in order
//! ```
//!
//! The shell decides nothing. It keeps two promises that the core relies on: commands are run in
//! order (reads and queries excepted, which see at least what was appended before them), and a
//! `Vouch` has taken effect before the next command is run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mooring_engine::{EngineError, ReadBlock, ReadContent, Root};
use mooring_replication::{
    Command, Event, Found, Mark, Message, Note, ProposalId, Query, ReadFault, Replica, Reply,
    RequestId, Status, Token,
};
use mooring_terms::{BlockIndex, BlockRange, Entry, Epoch, Extent, NodeId, Sequence, SliceId};

use crate::beacon::BeaconBoard;
use crate::clock;
use crate::pool::Pool;
use crate::readers::Readers;
use crate::serial::Serial;
use crate::timers::Timers;

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
    beacons: Arc<BeaconBoard>,
    timers: Arc<Timers<SliceId>>,
    readers: Arc<Readers>,
    ports: Weak<dyn SlicePorts>,
    /// Set when this node lets go of the replica: nothing of it is done any more.
    closed: AtomicBool,
    /// Set when an append was refused: what is queued behind it must not go through, and the core is
    /// told once.
    broken: AtomicBool,
    /// What the core believes to be promised to it, in bytes: granted, less what it gave back, less
    /// what its entries cost by its own count. The engine counts otherwise, and is told.
    promised: AtomicU64,
    this: Weak<Self>,
}

/// A read of a slice that was asked for and not yet done: whoever holds it does it, on a thread that
/// may wait for a disk.
pub struct PendingLookup {
    slice: Arc<Slice>,
    lookup: Lookup,
}

impl PendingLookup {
    /// Reads, and tells the slice what was found.
    pub fn perform(self) {
        let answer = self.slice.look_up(self.lookup);
        self.slice.deliver(answer);
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
        readers: Arc<Readers>,
        ports: Weak<dyn SlicePorts>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id,
            pool,
            serial: Serial::new(replica),
            beacons,
            timers,
            readers,
            ports,
            closed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
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

    /// Tells the core, and does what it says. Reads that it asks for go to the reader threads: the
    /// calling thread has others to serve.
    pub fn deliver(&self, event: Event) {
        let lookups = self.drive(event);
        for lookup in lookups {
            self.look_up_elsewhere(lookup);
        }
    }

    /// As [`Slice::deliver`], for a thread that may read itself: the reads are added to `reads`.
    pub fn deliver_keeping_reads(&self, event: Event, reads: &mut Vec<PendingLookup>) {
        let lookups = self.drive(event);
        if let Some(slice) = self.this.upgrade() {
            reads.extend(
                lookups
                    .into_iter()
                    .map(|lookup| PendingLookup { slice: Arc::clone(&slice), lookup }),
            );
        }
    }

    fn drive(&self, event: Event) -> Vec<Lookup> {
        let mut lookups = Vec::new();
        if self.closed.load(Ordering::Acquire) {
            return lookups;
        }
        self.serial.enter(
            |replica, queue| {
                let now = clock::now();
                self.beacons.with(|leases| replica.handle(now, leases, event, queue));
                self.timers.set(self.id, replica.deadline());
            },
            |batch| self.run(batch, &mut lookups),
        );
        lookups
    }

    fn run(&self, batch: Vec<Command>, lookups: &mut Vec<Lookup>) {
        let mut pending: Option<(Mark, Vec<Entry>)> = None;
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        for command in batch {
            if let Command::Append { mark, entries } = command {
                match &mut pending {
                    Some((last, all)) => {
                        *last = mark;
                        all.extend(entries);
                    }
                    None => pending = Some((mark, entries)),
                }
                continue;
            }
            self.append(pending.take());
            self.run_one(command, lookups);
        }
        self.append(pending);
    }

    fn append(&self, pending: Option<(Mark, Vec<Entry>)>) {
        let Some((mark, entries)) = pending else { return };
        if self.closed.load(Ordering::Acquire) || self.broken.load(Ordering::Acquire) {
            return;
        }
        if !self.pool.append(self.id, &entries) {
            if !self.broken.swap(true, Ordering::AcqRel) {
                self.feed(Event::StoreFailed);
            }
            return;
        }
        let cost: u64 = entries.iter().map(Entry::cost_bytes).sum();
        if cost > 0 {
            self.promised_less(cost);
        }
        self.feed(Event::Received { mark });
    }

    fn run_one(&self, command: Command, lookups: &mut Vec<Lookup>) {
        let Some(ports) = self.ports.upgrade() else { return };
        match command {
            Command::Append { .. } => unreachable!("appends are gathered by `run`"),
            Command::Sync { mark } => {
                if !self.broken.load(Ordering::Acquire)
                    && let Some(this) = self.this.upgrade()
                {
                    self.pool.sync(this, mark);
                }
            }
            Command::Committed { sequence } => self.pool.engine().committed(self.id, sequence),
            Command::Read { token, range } => lookups.push(Lookup::Read { token, range }),
            Command::Query { token, query, from, limit_blocks } => {
                lookups.push(Lookup::Search { token, query, from, limit_blocks });
            }
            Command::ReadRecords { token, after, limit_bytes } => {
                lookups.push(Lookup::Records { token, after, limit_bytes });
            }
            Command::Reserve { bytes } => {
                let granted = self.reserve(bytes);
                self.feed(Event::Reserved { bytes: granted });
            }
            Command::Release { bytes } => self.promised_less(bytes),
            Command::Send { to, message } => ports.send(to, message),
            Command::Reply { id, reply } => ports.reply(self.id, id, reply),
            Command::Propose { id, change } => ports.propose(self.id, id, change),
            Command::QueryConfig => ports.query_config(self.id),
            Command::Vouch { epoch, peers } => self.vouch(epoch, peers),
            Command::Note(note) => ports.note(self.id, note),
        }
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

    /// Takes `bytes` off what is promised, here and in the engine. Only the thread that runs the
    /// queue comes here.
    fn promised_less(&self, bytes: u64) {
        let left = self.promised.load(Ordering::Acquire).saturating_sub(bytes);
        self.promised.store(left, Ordering::Release);
        self.pool.engine().keep_reserved(self.id, left);
    }

    fn vouch(&self, epoch: Option<Epoch>, peers: Vec<NodeId>) {
        self.beacons.vouch(self.id, &self.pool, epoch, peers);
    }

    /// An event that a command of ours gave: its commands are queued behind the present ones.
    fn feed(&self, event: Event) {
        self.serial.enter(
            |replica, queue| {
                let now = clock::now();
                self.beacons.with(|leases| replica.handle(now, leases, event, queue));
                self.timers.set(self.id, replica.deadline());
            },
            |_| unreachable!("fed from inside `run`, so this thread is running already"),
        );
    }

    fn look_up_elsewhere(&self, lookup: Lookup) {
        let Some(slice) = self.this.upgrade() else { return };
        self.readers.run(move || PendingLookup { slice, lookup }.perform());
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
            ReadContent::Missing => Extent::Missing { range },
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

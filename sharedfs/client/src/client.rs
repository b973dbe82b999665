//! The client of one mount: takes events, gives commands, and keeps what it has cached and buffered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mooring_sharedfs_core::coordinator::{Operation, ToClient, ToCoordinator};
use mooring_sharedfs_core::leases::{LeaseLevel, LeaseNumber};
use mooring_sharedfs_core::locks::{Locks, WaitId};
use mooring_sharedfs_core::sessions::EndReason;
use mooring_sharedfs_core::{
    Caller, FileBlock, FsError, Ino, QuarantineNumber, SessionId, Timestamp,
};
use mooring_terms::Time;

use crate::command::Command;
use crate::early::{Early, Numbers, stands_alone};
use crate::event::{Event, InvalidationNumber, IoNumber};
use crate::inode::Inode;
use crate::kernel::{HandleId, KernelId, KernelReply};
use crate::link::{Ask, Link, LinkState};
#[cfg(feature = "mutations")]
use crate::mutation::Mutation;
use crate::opens::Handle;
use crate::pool::Pool;
use crate::reading::Io;
use crate::replies::Purpose;
use crate::tasks::{Task, TaskId};

/// Who the mount is, its times and its bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node.
    pub node: u64,
    /// Which of the node's mounts: drawn at random.
    pub mount: u64,
    /// How long the session lives without being heard: that of a slice.
    pub lease: Duration,
    /// How old bytes that were accepted become before they are written back. They must have left the
    /// client after 1 s: this leaves the other half for the way.
    pub write_back_after: Duration,
    /// How many bytes may be accepted and not written back; a writer beyond waits.
    pub dirty_max: usize,
    /// How many bytes all that is kept may take together, by and large: clean pages give way to the rest.
    pub memory_max: usize,
    /// How many bytes of pages are kept, what is dirty included.
    pub pages_max: usize,
    /// How many bytes are read ahead of a program that reads a file at a stretch.
    pub ahead_max: u64,
    /// How many pieces of layouts are kept.
    pub pieces_max: usize,
    /// How many leases are held, and an eighth more while some are given back; less than what the
    /// coordinator grants a session.
    pub leases_max: usize,
    /// How many names are kept, of all directories.
    pub names_max: usize,
    /// How many blocks a slice has.
    pub slice_blocks: u64,
    /// Whether the kernel has `FUSE_NOTIFY_INC_EPOCH` (6.16) and it is to be used: only then it may keep
    /// names.
    pub epoch: bool,
    /// Whether operations are done here where this client is alone. Off: one seed of the simulator in a
    /// thousand loses a store into a mapping with it (decision 47).
    pub alone: bool,
    /// How long after a refused lease writes go through the coordinator.
    pub contention: Duration,
    /// A deliberate bug, for tests.
    #[cfg(feature = "mutations")]
    pub mutation: Option<Mutation>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node: 0,
            mount: 0,
            lease: Duration::from_millis(1200),
            write_back_after: Duration::from_millis(500),
            dirty_max: 7 << 20,
            memory_max: 14 << 20,
            pages_max: 8 << 20,
            ahead_max: 3 << 20,
            pieces_max: 32 << 10,
            leases_max: 10_240,
            names_max: 20_480,
            slice_blocks: 1 << 20,
            epoch: false,
            alone: false,
            contention: Duration::from_millis(500),
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// What an event comes with.
pub struct Turn<'a> {
    /// The moment, for leases.
    pub now: Time,
    /// The date, for files.
    pub date: Timestamp,
    /// What is to be done.
    pub out: &'a mut Vec<Command>,
}

/// All that a mount knows.
#[derive(Debug)]
pub struct Client {
    pub(crate) options: Options,
    pub(crate) link: Link,
    pub(crate) inodes: BTreeMap<Ino, Box<Inode>>,
    /// How many times the kernel has looked inodes up and not forgotten.
    pub(crate) lookups: BTreeMap<Ino, u64>,
    pub(crate) handles: BTreeMap<HandleId, Handle>,
    pub(crate) last_handle: HandleId,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) by_kernel: BTreeMap<KernelId, TaskId>,
    pub(crate) last_task: TaskId,
    pub(crate) pool: Pool,
    pub(crate) ios: BTreeMap<IoNumber, Io>,
    pub(crate) last_io: IoNumber,
    pub(crate) invalidations: BTreeMap<InvalidationNumber, Ino>,
    pub(crate) last_invalidation: InvalidationNumber,
    /// The locks that are held, to be reclaimed.
    pub(crate) locks: Locks,
    pub(crate) last_wait: WaitId,
    /// Operations that were answered and are not done at the coordinator.
    pub(crate) early: Early,
    pub(crate) numbers: Numbers,
    /// How many removals came one after the other, and when the last.
    pub(crate) removals: (u32, Time),
    /// Own changes on their way of which it isn't known which inodes they touch.
    pub(crate) unknown_changes: u32,
    /// Freed blocks: what was under way when their layouts were to be returned.
    pub(crate) returns: BTreeMap<QuarantineNumber, BTreeSet<IoNumber>>,
    pub(crate) dirty_pages: usize,
    pub(crate) pages: usize,
    /// Clean pages, in the order in which they came; some may be gone or dirty by now.
    pub(crate) clean: VecDeque<(Ino, FileBlock, u32)>,
    /// Pieces of layouts that were learned since all were forgotten last: at least as many as are kept.
    pub(crate) pieces: usize,
    /// The same of names.
    pub(crate) names: usize,
    /// Where giving back of leases goes on.
    pub(crate) shed_from: Ino,
    /// The highest number of a lease that was told; at least it was so when inodes were dropped.
    pub(crate) told: LeaseNumber,
    pub(crate) dropped: LeaseNumber,
    pub(crate) leases: usize,
    /// Inodes that have something to write back, are recalled, or may have to be closed.
    pub(crate) dirty: BTreeSet<Ino>,
    /// When what no round has taken is to be written back.
    pub(crate) due: BTreeSet<(Time, Ino)>,
    /// When a lease to write is asked for once more, for a mapping that may be written to without.
    pub(crate) mapped: BTreeSet<(Time, Ino)>,
    pub(crate) recalling: BTreeSet<Ino>,
    pub(crate) to_close: BTreeSet<Ino>,
    pub(crate) parked: BTreeSet<TaskId>,
    /// Messages that came when the session's lease was over.
    late: Vec<ToClient>,
    pub(crate) unmounting: bool,
    pub(crate) ended: Option<EndReason>,
    /// What was accepted and not stored when the session ended.
    lost_bytes: usize,
    /// Something has happened that a parked task may have waited for.
    pub(crate) poked: bool,
    pub(crate) next_look: Time,
    /// Events so far.
    handled: u64,
}

impl Client {
    /// A mount that is about to connect.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            link: Link::new(options.mount, options.node, options.lease),
            options,
            inodes: BTreeMap::new(),
            lookups: BTreeMap::new(),
            handles: BTreeMap::new(),
            last_handle: HandleId(0),
            tasks: BTreeMap::new(),
            by_kernel: BTreeMap::new(),
            last_task: TaskId(0),
            pool: Pool::default(),
            ios: BTreeMap::new(),
            last_io: IoNumber(0),
            invalidations: BTreeMap::new(),
            last_invalidation: InvalidationNumber(0),
            locks: Locks::default(),
            last_wait: WaitId(0),
            early: Early::default(),
            numbers: Numbers::default(),
            removals: (0, Time::ZERO),
            unknown_changes: 0,
            returns: BTreeMap::new(),
            dirty_pages: 0,
            pages: 0,
            clean: VecDeque::new(),
            pieces: 0,
            names: 0,
            shed_from: Ino(0),
            told: LeaseNumber(0),
            dropped: LeaseNumber(0),
            leases: 0,
            dirty: BTreeSet::new(),
            due: BTreeSet::new(),
            mapped: BTreeSet::new(),
            recalling: BTreeSet::new(),
            to_close: BTreeSet::new(),
            parked: BTreeSet::new(),
            late: Vec::new(),
            unmounting: false,
            ended: None,
            lost_bytes: 0,
            poked: false,
            next_look: Time::ZERO,
            handled: 0,
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, turn: &mut Turn<'_>, event: Event) {
        match event {
            Event::Kernel(request) => self.kernel(turn, request),
            Event::Interrupt(id) => self.interrupt(turn, id),
            Event::Connected(stream) => {
                self.late.clear();
                self.link.connected(turn.now, stream, turn.out);
            }
            Event::Disconnected(stream) => self.link.disconnected(stream),
            Event::Message(stream, message) => {
                if stream == self.link.stream && self.ended.is_none() {
                    self.hear(turn, message);
                }
            }
            Event::BlocksRead(io, read) => self.blocks_read(turn, io, read),
            Event::BlocksWritten(io, versions) => self.blocks_written(turn, io, versions),
            Event::Invalidated(number) => self.invalidated(number),
            Event::Unmount => {
                self.unmounting = true;
                self.poked = true;
            }
            Event::Tick => {}
        }
        self.look(turn);
        self.handled += 1;
        // With many inodes now and then only: every look goes through all of them.
        let rarely = 1 + self.inodes.len() as u64 / 256;
        if cfg!(debug_assertions) && self.handled.is_multiple_of(rarely) {
            self.check_invariants();
        }
    }

    /// Goes through what may be due or may go on by now.
    fn look(&mut self, turn: &mut Turn<'_>) {
        if self.ended.is_none() {
            self.link.tick(turn.now, turn.out);
            self.look_after_mappings(turn);
            self.look_after_early(turn);
            self.look_after_age(turn);
        }
        while std::mem::take(&mut self.poked) {
            if self.ended.is_none() {
                self.step_recalls(turn);
                self.close_what_is_clean(turn);
            }
            self.retry(turn);
            self.pool.refused = false;
        }
        self.evict();
        self.unmount(turn);
    }

    /// A message; if the session's lease is over it may be an old one, of a time when what it gives was
    /// not somebody else's yet: it waits until the coordinator says that the session is there.
    fn hear(&mut self, turn: &mut Turn<'_>, message: ToClient) {
        self.link.hear(turn.now);
        let about_session = matches!(
            message,
            ToClient::Begun(..)
                | ToClient::Renewed(_)
                | ToClient::NoSession(_)
                | ToClient::Ended(_)
                | ToClient::Reclaim
                | ToClient::Claimed(..)
        );
        if !about_session && !self.is_fresh(turn.now) {
            self.late.push(message);
            return;
        }
        self.message(turn, message);
        while self.is_fresh(turn.now) && !self.late.is_empty() {
            let message = self.late.remove(0);
            self.message(turn, message);
        }
    }

    fn message(&mut self, turn: &mut Turn<'_>, message: ToClient) {
        match message {
            ToClient::Begun(token, session) => {
                if self.link.session.is_none() && token == self.link.stream.0 {
                    self.link.begun(turn.now, session, turn.out);
                }
            }
            ToClient::Renewed(number) => {
                if self.link.renewed(turn.now, number) {
                    self.up(turn);
                }
                self.poked = true;
            }
            ToClient::Answer(id, answer) => self.answered(turn, id, answer),
            ToClient::NoSession(_) => self.end(turn, EndReason::Silent),
            ToClient::Ended(reason) => self.end(turn, reason),
            ToClient::Reclaim => self.reclaim(turn),
            ToClient::Claimed(claim, number) => self.claimed(turn, claim, number),
            ToClient::Recall(recall) => self.recall(turn, recall),
            ToClient::ReturnLayouts(number) => self.return_layouts(turn, number),
            ToClient::LockHeld(wait) => self.lock_held(turn, wait),
        }
    }

    /// Requests can go: those that were on their way, and waits for locks, of which the word may be
    /// lost.
    pub(crate) fn up(&mut self, turn: &mut Turn<'_>) {
        self.link.up(turn.out);
        self.wait_again(turn);
        self.poked = true;
    }

    /// The session is over: nothing that was cached or not written back is good any more.
    pub(crate) fn end(&mut self, turn: &mut Turn<'_>, reason: EndReason) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(reason);
        self.lost_bytes = self.dirty_bytes();
        self.link.end();
        self.lose_early();
        self.ios.clear();
        self.returns.clear();
        self.locks = Locks::default();
        self.pool = Pool::default();
        self.dirty.clear();
        self.due.clear();
        self.mapped.clear();
        self.clean.clear();
        self.recalling.clear();
        self.to_close.clear();
        for inode in self.inodes.values_mut() {
            if inode.is_dirty() {
                inode.errors += 1;
            }
            inode.lease = LeaseLevel::None;
            inode.recalled = None;
            (inode.local, inode.due, inode.committing) = (None, None, 0);
            inode.rounds.clear();
            inode.pages.clear();
            inode.forget();
        }
        (self.pages, self.dirty_pages, self.leases) = (0, 0, 0);
        turn.out.push(Command::Ended(reason));
        // Everybody is freed.
        self.parked = self.tasks.keys().copied().collect();
        self.poked = true;
    }

    fn unmount(&mut self, turn: &mut Turn<'_>) {
        if !self.unmounting {
            return;
        }
        let clean = self.dirty.is_empty() && self.early.is_sent();
        if self.ended.is_none() && (!clean || self.link.outstanding() > 0) {
            return;
        }
        self.unmounting = false;
        if let Some(session) = self.link.session {
            self.link.send(ToCoordinator::End(session), turn.out);
        }
        if self.ended.is_none() {
            self.ended = Some(EndReason::Ended);
            self.link.end();
        }
        turn.out.push(Command::Unmounted);
    }

    /// When [`Event::Tick`] is needed at the latest.
    #[must_use]
    pub fn next_tick(&self) -> Option<Time> {
        if self.ended.is_some() {
            return None;
        }
        self.link.next_tick().into_iter().chain([self.next_look]).chain(self.early.due()).min()
    }

    /// The session, once there is one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.link.session
    }

    /// Why the mount is over, if it is.
    #[must_use]
    pub fn ended(&self) -> Option<EndReason> {
        self.ended
    }

    /// Whether the session's lease is there: what the client holds, nobody else can have.
    #[must_use]
    pub fn is_served(&self, now: Time) -> bool {
        self.ended.is_none() && self.link.left(now) > Duration::ZERO
    }

    /// How many requests of the kernel are not answered, and of them to the coordinator.
    #[must_use]
    pub fn outstanding(&self) -> (usize, usize) {
        (self.tasks.len(), self.link.outstanding())
    }

    /// Bytes that were accepted and are not part of their files yet.
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_pages * mooring_terms::BLOCK_SIZE
    }

    /// Bytes that were accepted and are lost with the session.
    #[must_use]
    pub fn lost_bytes(&self) -> usize {
        self.lost_bytes
    }

    /// What the client has of an inode.
    #[must_use]
    pub fn lease(&self, ino: Ino) -> LeaseLevel {
        self.inodes.get(&ino).map_or(LeaseLevel::None, |inode| inode.lease)
    }

    /// How many times the kernel was told of an inode, and has not forgotten it.
    #[must_use]
    pub fn lookups(&self, ino: Ino) -> u64 {
        self.lookups.get(&ino).copied().unwrap_or(0)
    }

    /// The inode, as far as anything is known of it.
    pub(crate) fn inode(&mut self, ino: Ino) -> &mut Inode {
        let floor = self.dropped;
        self.inodes.entry(ino).or_insert_with(|| Box::new(Inode::new(floor)))
    }

    /// Changes an inode's pages, and counts them.
    pub(crate) fn with_pages<R>(&mut self, ino: Ino, change: impl FnOnce(&mut Inode) -> R) -> R {
        let inode = self.inode(ino);
        let before = (inode.pages.len(), inode.pages.dirty());
        let result = change(inode);
        let after = (inode.pages.len(), inode.pages.dirty());
        self.pages = self.pages + after.0 - before.0;
        self.dirty_pages = self.dirty_pages + after.1 - before.1;
        result
    }

    /// Asks the coordinator.
    pub(crate) fn ask(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        operation: Operation,
        wanted: Vec<(Ino, LeaseLevel)>,
        purpose: Purpose,
    ) {
        let passes = stands_alone(&operation);
        #[cfg(feature = "mutations")]
        let passes = passes
            || (matches!(operation, Operation::Fsync { .. })
                && self.is_mutated(Mutation::FsyncUnqueued));
        if !passes {
            self.send_early(turn);
        }
        let urgent = self.is_urgent(&operation);
        self.link.ask(Ask { caller, operation, wanted, purpose, urgent }, turn.out);
    }

    /// Whether a recall may need it, and nothing but the journal can hold it up: the lease that is held
    /// covers it.
    fn is_urgent(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Commit { ino, .. } => self.lease(*ino) >= LeaseLevel::Write,
            Operation::Read { ino, .. }
            | Operation::Mappings { ino, .. }
            | Operation::Getattr { ino }
            | Operation::Open { ino, .. } => self.lease(*ino) >= LeaseLevel::Read,
            Operation::Write { launders, .. } => *launders,
            // Space waits for nobody, and laundered pages may need it.
            Operation::Close { .. } | Operation::Reserve { .. } | Operation::Numbers { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn next_io(&mut self) -> IoNumber {
        self.last_io = IoNumber(self.last_io.0 + 1);
        self.last_io
    }

    /// Whether this deliberate bug is on.
    #[cfg(feature = "mutations")]
    pub(crate) fn is_mutated(&self, mutation: Mutation) -> bool {
        self.options.mutation == Some(mutation)
    }

    /// Panics if the client contradicts itself.
    ///
    /// # Panics
    /// If counters don't count, a lease is used that isn't there, or more is promised than reserved.
    pub fn check_invariants(&self) {
        self.inodes.values().for_each(|inode| inode.pages.check());
        let pages: usize = self.inodes.values().map(|inode| inode.pages.len()).sum();
        let dirty: usize = self.inodes.values().map(|inode| inode.pages.dirty()).sum();
        assert_eq!((pages, dirty), (self.pages, self.dirty_pages), "pages are miscounted");
        let promised: u64 = self.inodes.values().map(|inode| inode.pages.promised()).sum();
        assert!(
            self.ended.is_some() || promised == self.pool.promised(),
            "promises are miscounted"
        );
        for (ino, inode) in &self.inodes {
            let cached =
                inode.attributes.is_some() || inode.known.is_some() || !inode.names.is_empty();
            let leased = inode.lease >= LeaseLevel::Read;
            assert!(leased || !cached, "{ino:?} is cached without a lease");
        }
        if self.link.state == LinkState::Over {
            assert!(self.ended.is_some(), "a session that is over is served");
        }
    }

    /// Every request of the kernel gets this: the mount is over.
    pub(crate) fn refused() -> KernelReply {
        KernelReply::Error(FsError::Unavailable)
    }
}

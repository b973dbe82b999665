//! A coordinator, its tree, and clients that do as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_sharedfs_core::coordinator::{
    Answer, Claim, Command, Coordinator, Event, IoNumber, Operation, Options, RecordNumber,
    RenewNumber, Reply, Request, RequestId, Turn, WritePlace,
};
use mooring_sharedfs_core::file::{Base, Commit, Lost, NewExtent, Recovery, Source};
use mooring_sharedfs_core::format::{DataClaim, Key, KeyRange, SessionRow, StateRow, Versions};
use mooring_sharedfs_core::leases::{LeaseLevel, LeaseNumber, Recall};
use mooring_sharedfs_core::locks::{
    LockMode, LockOwner, LockRange, LockRequest, LockSpace, OnConflict,
};
use mooring_sharedfs_core::ops::{FormatOptions, Removed, format_volume};
use mooring_sharedfs_core::sessions::EndReason;
use mooring_sharedfs_core::tree::{Changes, MemoryTree, Tree, TreeStore};
use mooring_sharedfs_core::{
    Access, BlockAddress, Caller, Context, Damage, FileBlock, Ino, Mode, Name, QuarantineNumber,
    RequestNumber, Run, SessionId, SlotIndex, Timestamp, Transaction, check,
};
use mooring_terms::{Epoch, Sequence, Time, Version};

const SLOT: SlotIndex = SlotIndex(0);
pub const LEASE_MS: u64 = 1200;
pub const LEASES_MAX: usize = 40;
pub const LOCKS_MAX: usize = 4;
const DATA_FIRST: BlockAddress = BlockAddress(16);

type Blocks = Vec<(BlockAddress, Vec<u8>)>;

#[derive(Default)]
struct Client {
    number: u64,
    last: Option<Request>,
    reply: Option<Reply>,
    leases: BTreeMap<Ino, (LeaseLevel, LeaseNumber)>,
    recalls: Vec<Recall>,
    returns: Vec<QuarantineNumber>,
    lock_held: bool,
    no_session: bool,
    ended: Option<EndReason>,
    cut_off: bool,
    slow: bool,
    keeps_layouts: bool,
}

pub struct Cluster {
    pub tree: MemoryTree,
    coordinator: Coordinator,
    now: Duration,
    clients: BTreeMap<SessionId, Client>,
    begun: BTreeMap<u64, SessionId>,
    tokens: u64,
    events: Vec<Event>,
    /// Records that are not yet received, if they are held.
    pub hold_journal: bool,
    journaled: RecordNumber,
    received: RecordNumber,
    pub hold_fences: bool,
    fences: Vec<SessionId>,
    fenced: BTreeSet<SessionId>,
    pub recalls: usize,
    /// What records have said about data.
    pub claims: Vec<DataClaim>,
    /// What the blocks hold, and which of their writes brought it.
    blocks: BTreeMap<BlockAddress, Vec<u8>>,
    versions: BTreeMap<BlockAddress, Version>,
    sequence: u64,
    /// What was in blocks before the writes that no flush has followed.
    before: Vec<(BlockAddress, Option<Vec<u8>>, Version)>,
    /// Whether writes of the coordinator stay on their way.
    pub hold_writes: bool,
    writes: Vec<(IoNumber, Blocks)>,
    pub hold_flushes: bool,
    flushes: Vec<IoNumber>,
    /// Whether somebody waits for durable records.
    pub sync_wanted: bool,
    /// What was found damaged; none if nothing may be.
    pub damaged: Option<Vec<Damage>>,
}

#[allow(clippy::needless_update, reason = "with deliberate bugs there is one field more")]
fn options() -> Options {
    Options {
        lease: Duration::from_millis(LEASE_MS),
        grace: Duration::from_millis(1000),
        contention: Duration::from_millis(500),
        recall: Duration::from_secs(15),
        leases_max: LEASES_MAX,
        locks_max: LOCKS_MAX,
        ..Options::default()
    }
}

impl Cluster {
    pub fn new() -> Self {
        let mut tree = MemoryTree::default();
        let options_of_volume = FormatOptions {
            data_first: DATA_FIRST,
            capacity: 1000,
            slice_blocks: 64,
            root: (0, 0, Mode::new(0o777)),
            now: Timestamp::default(),
        };
        let record = format_volume(&tree, &options_of_volume).unwrap();
        tree.apply(&record.changes).unwrap();
        let mut out = Vec::new();
        let mut turn =
            Turn { now: Time::ZERO, date: Timestamp::default(), store: &mut tree, out: &mut out };
        let coordinator = Coordinator::open(options(), &mut turn).unwrap();
        let mut cluster = Self {
            tree,
            coordinator,
            now: Duration::ZERO,
            clients: BTreeMap::new(),
            begun: BTreeMap::new(),
            tokens: 0,
            events: Vec::new(),
            hold_journal: false,
            journaled: RecordNumber(0),
            received: RecordNumber(0),
            hold_fences: false,
            fences: Vec::new(),
            fenced: BTreeSet::new(),
            recalls: 0,
            claims: Vec::new(),
            blocks: BTreeMap::new(),
            versions: BTreeMap::new(),
            sequence: 0,
            before: Vec::new(),
            hold_writes: false,
            writes: Vec::new(),
            hold_flushes: false,
            flushes: Vec::new(),
            sync_wanted: false,
            damaged: None,
        };
        cluster.run(out);
        cluster.deliver();
        cluster
    }

    /// The coordinator's node is lost; another takes over what is in the tree.
    pub fn fail_over(&mut self) {
        self.now += Duration::from_millis(10);
        self.events.clear();
        self.fences.clear();
        self.writes.clear();
        self.flushes.clear();
        (self.journaled, self.received) = (RecordNumber(0), RecordNumber(0));
        for client in self.clients.values_mut() {
            client.leases.clear();
            client.recalls.clear();
            client.returns.clear();
        }
        let mut out = Vec::new();
        let mut turn = Turn {
            now: Time(self.now),
            date: Timestamp::default(),
            store: &mut self.tree,
            out: &mut out,
        };
        self.coordinator = Coordinator::open(options(), &mut turn).unwrap();
        self.run(out);
        self.deliver();
    }

    fn handle(&mut self, event: Event) {
        let date = Timestamp { seconds: self.now.as_millis() as i64, nanoseconds: 0 };
        let mut out = Vec::new();
        let mut turn = Turn { now: Time(self.now), date, store: &mut self.tree, out: &mut out };
        self.coordinator.handle(&mut turn, event).unwrap();
        self.run(out);
    }

    fn run(&mut self, out: Vec<Command>) {
        for command in out {
            match command {
                Command::Journal(number, record) => {
                    self.journaled = number;
                    self.claims.extend(record.claims);
                }
                Command::Answer(id, answer) => self.answered(id, answer),
                Command::NoSession(id) => {
                    if let Some(client) = self.clients.get_mut(&id.session) {
                        client.no_session = true;
                    }
                }
                Command::Begun(token, session) => {
                    self.begun.insert(token, session);
                    self.clients.insert(session, Client::default());
                }
                Command::LockHeld(session, _) => self.client(session).lock_held = true,
                Command::Recall(recall) => {
                    assert_eq!(self.received, self.journaled, "it overtakes an answer");
                    self.recalls += 1;
                    self.client(recall.session).recalls.push(recall);
                }
                Command::ReturnLayouts(session, number) => {
                    assert_eq!(self.received, self.journaled, "it overtakes an answer");
                    self.client(session).returns.push(number);
                }
                Command::Register(session) => {
                    assert!(!self.fenced.contains(&session), "fenced is final");
                }
                Command::Fence(session) => self.fences.push(session),
                Command::Discard(number) => {
                    let context = Context { now: Timestamp::default() };
                    let view = Transaction::new(&self.tree, context);
                    let runs = view.quarantined(number, 1000);
                    assert!(runs.is_ok() || self.damaged.is_some(), "{runs:?}");
                    for run in runs.unwrap_or_default() {
                        self.versions.retain(|at, _| !(run.start..run.end()).contains(at));
                    }
                    self.events.push(Event::Discarded(number));
                }
                Command::Continue => self.events.push(Event::Continue),
                Command::ReadBlocks(io, blocks) => {
                    let zeros = vec![0; 4096];
                    let read = |b: &BlockAddress| self.blocks.get(b).unwrap_or(&zeros).clone();
                    let read = blocks.iter().map(read).collect();
                    self.events.push(Event::BlocksRead(io, Ok(read)));
                }
                Command::WriteBlocks(io, blocks) => self.writes.push((io, blocks)),
                Command::FlushSlices(io, _) => self.flushes.push(io),
                Command::Ended(session, reason) => {
                    if let Some(client) = self.clients.get_mut(&session) {
                        client.ended = client.ended.or(Some(reason));
                    }
                }
                Command::Sync => self.sync_wanted = true,
                Command::ReclaimFirst(_)
                | Command::Claimed(..)
                | Command::Renewed(..)
                | Command::Reclaim(_) => {}
                Command::Damaged(damage) => match &mut self.damaged {
                    Some(damaged) => damaged.push(damage),
                    None => panic!("damaged: {damage:?}"),
                },
            }
        }
    }

    fn answered(&mut self, id: RequestId, answer: Answer) {
        assert_eq!(self.received, self.journaled, "told before it was received");
        let client = self.client(id.session);
        for (ino, level, number) in answer.leases {
            client.leases.insert(ino, (level, number));
        }
        if let (Some(request), Reply::Lease(Some(lease))) = (&client.last, &answer.reply)
            && let Operation::Lease { ino, .. } = request.operation
        {
            client.leases.insert(ino, *lease);
        }
        if client.number == id.number.0 {
            client.reply = Some(answer.reply);
        }
    }

    fn client(&mut self, session: SessionId) -> &mut Client {
        self.clients.get_mut(&session).unwrap()
    }

    /// Lets everything happen that isn't held.
    pub fn deliver(&mut self) {
        loop {
            if !self.hold_journal && self.received < self.journaled {
                self.received = self.journaled;
                self.handle(Event::Received(self.received));
            } else if !self.hold_fences && !self.fences.is_empty() {
                let session = self.fences.remove(0);
                self.fenced.insert(session);
                self.handle(Event::Fenced(session));
            } else if !self.hold_writes && !self.writes.is_empty() {
                let (io, blocks) = self.writes.remove(0);
                let versions = blocks.into_iter().map(|(at, bytes)| self.put(at, bytes)).collect();
                self.handle(Event::BlocksWritten(io, Ok(versions)));
            } else if !self.hold_flushes && !self.flushes.is_empty() {
                let io = self.flushes.remove(0);
                self.handle(Event::Flushed(io));
            } else if let Some(session) = self.next_recall() {
                self.answer_one(session);
            } else if let Some(session) = self.next_return() {
                self.return_one(session);
            } else if !self.events.is_empty() {
                let event = self.events.remove(0);
                self.handle(event);
            } else {
                break;
            }
        }
    }

    fn next_recall(&self) -> Option<SessionId> {
        let ready = |client: &Client| !client.slow && !client.cut_off && !client.recalls.is_empty();
        self.clients.iter().find(|(_, client)| ready(client)).map(|(&session, _)| session)
    }

    fn next_return(&self) -> Option<SessionId> {
        let ready = |client: &Client| {
            !client.keeps_layouts && !client.cut_off && !client.returns.is_empty()
        };
        self.clients.iter().find(|(_, client)| ready(client)).map(|(&session, _)| session)
    }

    pub fn answer_one(&mut self, session: SessionId) {
        let client = self.client(session);
        let Recall { ino, keep, number, .. } = client.recalls.remove(0);
        let Some(&(level, held)) = client.leases.get(&ino) else { return };
        if held != number {
            return;
        }
        let kept = level.min(keep);
        if kept == LeaseLevel::None {
            client.leases.remove(&ino);
        } else {
            client.leases.insert(ino, (kept, number));
        }
        self.handle(Event::Answered { session, ino, number, kept });
    }

    fn return_one(&mut self, session: SessionId) {
        let number = self.client(session).returns.remove(0);
        self.handle(Event::LayoutsReturned { session, number });
    }

    /// Asks for a session, and doesn't wait.
    pub fn mount_later(&mut self) -> u64 {
        self.tokens += 1;
        let row = SessionRow { node: self.tokens, mount: self.tokens, slots: 2 };
        self.handle(Event::Begin { token: self.tokens, row });
        self.tokens
    }

    pub fn mount(&mut self) -> SessionId {
        let token = self.mount_later();
        self.deliver();
        self.begun[&token]
    }

    pub fn is_mounted(&self, token: u64) -> bool {
        self.begun.contains_key(&token)
    }

    pub fn ask(&mut self, session: SessionId, operation: Operation) {
        self.ask_wanting(session, operation, &[]);
    }

    pub fn ask_wanting(
        &mut self,
        session: SessionId,
        operation: Operation,
        wanted: &[(Ino, LeaseLevel)],
    ) {
        let client = self.client(session);
        client.number += 1;
        client.reply = None;
        let id = RequestId { session, slot: SLOT, number: RequestNumber(client.number) };
        let request = Request { id, caller: Caller::ROOT, operation, wanted: wanted.to_vec() };
        client.last = Some(request.clone());
        if client.cut_off {
            return;
        }
        self.handle(Event::Request(request));
        self.deliver();
    }

    /// Sends the last request once more.
    pub fn ask_again(&mut self, session: SessionId) {
        let client = self.client(session);
        client.reply = None;
        let request = client.last.clone().unwrap();
        self.handle(Event::Request(request));
        self.deliver();
    }

    pub fn reply(&mut self, session: SessionId) -> Option<Reply> {
        self.client(session).reply.clone()
    }

    pub fn lease(&self, session: SessionId, ino: Ino) -> LeaseLevel {
        self.coordinator.leases().level(session, ino)
    }

    /// What the client believes that it holds.
    pub fn believes(&self, session: SessionId, ino: Ino) -> LeaseLevel {
        self.clients[&session].leases.get(&ino).map_or(LeaseLevel::None, |lease| lease.0)
    }

    pub fn slow_to_answer(&mut self, session: SessionId) {
        self.client(session).slow = true;
    }

    pub fn answer_recalls(&mut self, session: SessionId) {
        self.client(session).slow = false;
        self.deliver();
    }

    pub fn has_recalls(&self, session: SessionId) -> bool {
        !self.clients[&session].recalls.is_empty()
    }

    pub fn keeps_layouts(&mut self, session: SessionId) {
        self.client(session).keeps_layouts = true;
    }

    pub fn return_layouts(&mut self, session: SessionId) {
        self.client(session).keeps_layouts = false;
        self.deliver();
    }

    /// What the client was asked and has not answered is lost with its stream.
    pub fn reconnect(&mut self, session: SessionId) {
        self.client(session).recalls.clear();
        self.handle(Event::Connected(session));
        self.deliver();
    }

    pub fn ended(&self, session: SessionId) -> Option<EndReason> {
        self.clients[&session].ended
    }

    /// Has the coordinator write bytes; where they went, if that is known already.
    pub fn write(
        &mut self,
        session: SessionId,
        ino: Ino,
        place: WritePlace,
        bytes: &[u8],
    ) -> Option<u64> {
        self.ask(session, write(ino, place, bytes));
        self.written(session)
    }

    pub fn written(&mut self, session: SessionId) -> Option<u64> {
        match self.reply(session) {
            Some(Reply::Written(offset, _)) => Some(offset),
            None => None,
            other => panic!("not written: {other:?}"),
        }
    }

    /// A file's bytes, read as a client reads them.
    pub fn contents(&mut self, session: SessionId, ino: Ino) -> Vec<u8> {
        self.ask(session, Operation::Read { ino, offset: 0, length: 1 << 20, kept: false });
        let Some(Reply::Segments(_, segments)) = self.reply(session) else { panic!("not read") };
        let mut contents = Vec::new();
        for segment in segments {
            assert_eq!(segment.offset, contents.len() as u64);
            match segment.source {
                Source::Zeros => contents.resize(contents.len() + segment.length as usize, 0),
                Source::Bytes(bytes) => contents.extend(bytes),
                Source::Blocks(mut address, mut at) => {
                    for _ in 0..segment.length {
                        contents.push(self.blocks.get(&address).map_or(0, |block| block[at]));
                        at += 1;
                        if at == 4096 {
                            (address, at) = (address.plus(1), 0);
                        }
                    }
                }
            }
        }
        contents
    }

    fn put(&mut self, at: BlockAddress, bytes: Vec<u8>) -> Version {
        self.sequence += 1;
        let version = Version::new(Epoch(1), Sequence(self.sequence));
        let older = self.versions.insert(at, version).unwrap_or(Version::ZERO);
        self.before.push((at, self.blocks.insert(at, bytes), older));
        version
    }

    /// All that was written to blocks is on media.
    pub fn flush_blocks(&mut self) {
        self.before.clear();
    }

    /// The first `count` writes since then are, too.
    pub fn keep_of_writes(&mut self, count: usize) {
        self.before.drain(..count);
    }

    /// The power of everything is cut, and what was not flushed lost, but not the journal. Another
    /// coordinator takes over. Returns what it reports lost.
    pub fn cut_power(&mut self) -> Vec<Lost> {
        for (at, bytes, version) in std::mem::take(&mut self.before).into_iter().rev() {
            self.blocks.insert(at, bytes.unwrap_or_else(|| vec![0; 4096]));
            self.versions.insert(at, version);
        }
        let mut recovery = Recovery::default();
        for claim in &self.claims {
            for at in (claim.run.start.0..claim.run.end().0).map(BlockAddress) {
                if self.versions.get(&at).copied().unwrap_or(Version::ZERO) < claim.versions.oldest
                {
                    recovery.is_older(claim, Run::new(at, 1));
                }
            }
        }
        let mut found = Vec::new();
        loop {
            let context = Context { now: Timestamp::default() };
            let mut transaction = Transaction::new(&self.tree, context);
            let lost = recovery.settle(&mut transaction).unwrap();
            self.tree.apply(&transaction.finish().record.changes).unwrap();
            let Some(lost) = lost else { break };
            if let Some(write) = &lost.write {
                let mut block = match write.base {
                    Base::Present => self.blocks[&write.address].clone(),
                    Base::Zeros => vec![0; 4096],
                };
                block[write.offset..][..write.bytes.len()].copy_from_slice(&write.bytes);
                self.put(write.address, block);
            }
            found.push(lost);
        }
        self.claims.clear();
        self.flush_blocks();
        self.fail_over();
        found
    }

    /// Rot in a row of the tree.
    pub fn spoil(&mut self, key: &Key) {
        let mut changes = Changes::default();
        assert!(self.tree.get(&key.encode()).unwrap().is_some(), "{key:?} is there");
        changes.insert(key.encode(), Some(vec![0xff]));
        self.tree.apply(&changes).unwrap();
        self.damaged.get_or_insert_default();
    }

    /// The first key of a kind that the tree has.
    pub fn first_key(&self, range: &KeyRange) -> Key {
        Key::decode(&self.tree.scan(range, 1).unwrap()[0].0).unwrap()
    }

    /// A client gives its session up.
    pub fn give_up(&mut self, session: SessionId) {
        self.handle(Event::End(session));
        self.deliver();
    }

    /// Something that is not zeros lies in all blocks.
    pub fn soil(&mut self) {
        for address in 0..2000 {
            self.blocks.insert(BlockAddress(address), vec![0xaa; 4096]);
        }
    }

    /// One flush that is held is done.
    pub fn flush_one(&mut self) {
        let io = self.flushes.remove(0);
        self.handle(Event::Flushed(io));
        self.deliver();
    }

    /// A fence that is held is done, and nothing else happens.
    pub fn fence_one(&mut self) {
        let session = self.fences.remove(0);
        self.fenced.insert(session);
        self.handle(Event::Fenced(session));
    }

    pub fn cut_off(&mut self, session: SessionId) {
        self.client(session).cut_off = true;
    }

    pub fn comes_back(&mut self, session: SessionId) {
        self.client(session).cut_off = false;
    }

    pub fn was_refused_a_session(&mut self, session: SessionId) -> bool {
        self.client(session).no_session
    }

    pub fn holds_lock(&mut self, session: SessionId) -> bool {
        self.client(session).lock_held
    }

    /// Time passes in small steps, in which `renewing` are heard.
    pub fn pass(&mut self, ms: u64, renewing: &[SessionId]) {
        for _ in 0..ms.div_ceil(100) {
            self.now += Duration::from_millis(100);
            for &session in renewing {
                self.handle(Event::Renew(session, RenewNumber(0)));
            }
            self.handle(Event::Tick);
            self.deliver();
        }
    }

    pub fn reclaim(&mut self, session: SessionId) {
        self.reclaim_open(session, &[]);
    }

    pub fn reclaim_open(&mut self, session: SessionId, open: &[Ino]) {
        for &ino in open {
            self.handle(Event::Reclaim { session, claim: Claim::Open(ino, 1) });
        }
        self.handle(Event::Reclaim { session, claim: Claim::Done });
        self.deliver();
    }

    /// Everything that was given out becomes durable.
    pub fn flush(&mut self) {
        self.deliver();
        self.handle(Event::Durable(self.received));
        self.deliver();
    }

    pub fn free_blocks(&self) -> u64 {
        let row = self.tree.get(&Key::State.encode()).unwrap().unwrap();
        StateRow::decode(&row).unwrap().free
    }

    /// Writes `count` blocks of a file, as a client does.
    pub fn write_blocks(&mut self, session: SessionId, ino: Ino, count: u64) {
        self.ask(session, Operation::Reserve { want: count, near: DATA_FIRST });
        let Some(Reply::Runs(runs)) = self.reply(session) else { panic!("no space") };
        let mut commit = Commit { size_at_least: count * 4096, ..Commit::default() };
        let mut block = FileBlock(0);
        for run in runs {
            commit.extents.push(NewExtent { block, run, versions: Versions::default() });
            block = block.plus(run.count);
        }
        self.ask(session, Operation::Commit { ino, commit });
        assert!(matches!(self.reply(session), Some(Reply::Attributes(_))));
    }

    pub fn assert_sound(&self) {
        assert_eq!(check::check(&self.tree).unwrap(), []);
        self.coordinator.check_invariants();
    }

    pub fn waiting(&self) -> usize {
        self.coordinator.waiting()
    }
}

pub fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).unwrap()
}

/// Writes bytes through the coordinator.
pub fn write(ino: Ino, place: WritePlace, bytes: &[u8]) -> Operation {
    let bytes = bytes.to_vec();
    Operation::Write { ino, place, bytes, kill_privileges: false, launders: false }
}

/// Creates and opens a file in the root.
pub fn file(of: &str) -> Operation {
    Operation::Create {
        dir: Ino::ROOT,
        name: name(of),
        modes: (Mode::new(0o644), Mode::new(0o022)),
        exclusive: true,
        access: Access::READ.and(Access::WRITE),
    }
}

/// A small file's contents.
pub fn commit(ino: Ino, bytes: &[u8]) -> Operation {
    let commit = Commit {
        inline: Some(bytes.to_vec()),
        size_at_least: bytes.len() as u64,
        ..Commit::default()
    };
    Operation::Commit { ino, commit }
}

pub fn lock_request(
    session: SessionId,
    ino: Ino,
    mode: LockMode,
    on_conflict: OnConflict,
) -> Operation {
    let owner = LockOwner { session, owner: 1 };
    let range = LockRange::ALL;
    let request = LockRequest { ino, owner, space: LockSpace::Range, mode, range, pid: 1 };
    Operation::Lock { request, on_conflict }
}

pub fn created(reply: Option<Reply>) -> Ino {
    match reply {
        Some(Reply::Opened(opened)) => opened.attributes.ino,
        other => panic!("not created: {other:?}"),
    }
}

pub fn removed(reply: Option<Reply>) -> Removed {
    match reply {
        Some(Reply::Removed(Some(removed))) => removed,
        other => panic!("not removed: {other:?}"),
    }
}

pub fn granted(reply: Option<Reply>) -> LeaseLevel {
    match reply {
        Some(Reply::Lease(Some((level, _)))) => level,
        other => panic!("not granted: {other:?}"),
    }
}

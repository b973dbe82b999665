//! The coordinator's shell: its tree, a journal of which the end can be lost, streams, and failover.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_sharedfs_core::coordinator::{
    Command, Coordinator, Event, IoNumber, Options, RecordNumber, ToClient, ToCoordinator, Turn,
};
use mooring_sharedfs_core::file::{Base, Recovery};
use mooring_sharedfs_core::format::{DataClaim, Record};
use mooring_sharedfs_core::tree::{MemoryTree, TreeStore};
use mooring_sharedfs_core::{
    BlockAddress, Context, QuarantineNumber, Run, SessionId, Timestamp, Transaction, check,
};
use mooring_terms::{BLOCK_SIZE, Time};

use super::volume::Writer;
use super::{Happening, Sim};
use crate::sim::CoverageKind as Kind;

/// The coordinator and what it stands on.
pub struct Server {
    /// Which coordinator: also the epoch of its attachment.
    pub life: u64,
    pub coordinator: Option<Coordinator>,
    pub tree: MemoryTree,
    /// What of it is on media.
    durable: MemoryTree,
    /// Records since, in order; and how many of them every replica has.
    log: Vec<Record>,
    received: usize,
    /// How many records of this coordinator are in `durable`.
    drained: u64,
    recorded: RecordNumber,
    /// What records said of data since everything was last flushed.
    claims: Vec<DataClaim>,
    pub sessions: BTreeSet<SessionId>,
    /// On which stream a host is, and which session it has.
    pub streams: BTreeMap<u32, u64>,
    pub hosts: BTreeMap<SessionId, u32>,
    tick: Option<Time>,
    received_at: Time,
}

impl Server {
    pub fn new(tree: MemoryTree) -> Self {
        Self {
            life: 0,
            coordinator: None,
            durable: tree.clone(),
            tree,
            log: Vec::new(),
            received: 0,
            drained: 0,
            recorded: RecordNumber(0),
            claims: Vec::new(),
            sessions: BTreeSet::new(),
            streams: BTreeMap::new(),
            hosts: BTreeMap::new(),
            tick: None,
            received_at: Time::ZERO,
        }
    }
}

fn date(now: Time) -> Timestamp {
    Timestamp { seconds: now.0.as_secs() as i64, nanoseconds: now.0.subsec_nanos() }
}

impl Sim {
    fn coordinator_options(&self) -> Options {
        Options {
            #[cfg(feature = "mutations")]
            mutation: self.plan.bugs.coordinator,
            ..Options::default()
        }
    }

    /// A coordinator takes over what every replica has of the journal, and maybe some more.
    pub(super) fn take_over(&mut self) {
        let server = &mut self.server;
        let extra = self.prng.within(0..(server.log.len() - server.received) as u64 + 1);
        server.log.truncate(server.received + extra as usize);
        // What is replayed is flushed before anything stands on it.
        for record in server.log.drain(..) {
            server.durable.apply(&record.changes).expect("a map takes all");
            server.claims.extend(record.claims);
        }
        server.tree = server.durable.clone();
        self.open_coordinator();
    }

    fn open_coordinator(&mut self) {
        let now = self.queue.now();
        let options = self.coordinator_options();
        let server = &mut self.server;
        server.life += 1;
        server.streams.clear();
        server.tick = None;
        server.recorded = RecordNumber(0);
        (server.drained, server.received) = (0, 0);
        self.volume.seal(server.life);
        let mut out = Vec::new();
        let mut turn = Turn { now, date: date(now), store: &mut server.tree, out: &mut out };
        let opened = Coordinator::open(options, &mut turn);
        server.coordinator = Some(opened.expect("the tree is whole"));
        self.run_server(out);
        self.queue.after(Duration::from_millis(250), Happening::Checkpoint(self.server.life));
    }

    /// The power of everything goes: what was not flushed may be lost, and what the journal says of it
    /// becomes a hole.
    pub(super) fn lose_power(&mut self) {
        self.volume.power_cut(&mut self.prng);
        let server = &mut self.server;
        let kept = self.prng.within(0..server.log.len() as u64 + 1) as usize;
        server.log.truncate(kept);
        server.tree = server.durable.clone();
        let mut claims = std::mem::take(&mut server.claims);
        for record in server.log.drain(..) {
            server.tree.apply(&record.changes).expect("a map takes all");
            claims.extend(record.claims);
        }
        server.coordinator = None;
        self.recover_data(&claims);
        self.server.durable = self.server.tree.clone();
        self.server.claims.clear();
        self.open_coordinator();
    }

    /// Looks after the data that is older than the journal says.
    fn recover_data(&mut self, claims: &[DataClaim]) {
        let mut recovery = Recovery::default();
        for claim in claims {
            let blocks = (claim.run.start.0..claim.run.end().0).map(BlockAddress);
            for block in blocks.filter(|&block| self.volume.version(block) < claim.versions.oldest)
            {
                recovery.is_older(claim, Run::new(block, 1));
            }
        }
        loop {
            let tree = &mut self.server.tree;
            let mut transaction = Transaction::new(tree, Context { now: date(Time::ZERO) });
            let lost = recovery.settle(&mut transaction).expect("the tree is whole");
            let outcome = transaction.finish();
            tree.apply(&outcome.record.changes).expect("a map takes all");
            let Some(lost) = lost else { break };
            let Some(write) = lost.write else {
                self.coverage.count(Kind::Situation, "new data is lost");
                continue;
            };
            let (name, mut block) = match write.base {
                Base::Present => ("zeros behind an end are lost", self.volume.block(write.address)),
                Base::Zeros => ("what grew out of the tree is lost", vec![0; BLOCK_SIZE]),
            };
            self.coverage.count(Kind::Situation, name);
            block[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
            self.volume.write(Writer::Coordinator(u64::MAX), &[(write.address, block)]);
        }
        self.volume.flush(None);
    }

    /// The coordinator is gone.
    pub(super) fn stop_coordinator(&mut self) {
        self.server.coordinator = None;
        self.server.life += 1;
        self.volume.seal(self.server.life);
    }

    pub(super) fn server_event(&mut self, event: Event) {
        let now = self.queue.now();
        let Some(coordinator) = &mut self.server.coordinator else { return };
        let mut out = Vec::new();
        let mut turn = Turn { now, date: date(now), store: &mut self.server.tree, out: &mut out };
        coordinator.handle(&mut turn, event).expect("the tree is whole");
        coordinator.check_invariants();
        self.run_server(out);
    }

    fn run_server(&mut self, out: Vec<Command>) {
        let life = self.server.life;
        for command in out {
            if let Some((session, message)) = ToClient::of(&command) {
                self.tell(session, message);
                continue;
            }
            match command {
                Command::Journal(number, record) => {
                    self.server.log.push(record);
                    self.server.recorded = number;
                    let delay = self.prng.micros(80, 900);
                    let at = (self.queue.now() + delay).max(self.server.received_at);
                    self.server.received_at = at;
                    self.queue.at(at, Happening::Received(life, number));
                }
                Command::Register(session) => {
                    self.server.sessions.insert(session);
                    self.volume.register(session);
                }
                Command::Fence(session) => {
                    let delay = self.prng.micros(200, 4_000);
                    self.queue.after(delay, Happening::Fence(life, session));
                }
                Command::Discard(number) => {
                    let delay = self.prng.micros(100, 2_000);
                    self.queue.after(delay, Happening::Discard(life, number));
                }
                Command::Continue => {
                    let event = Box::new(Event::Continue);
                    self.queue.after(self.prng.micros(1, 50), Happening::Server(life, event));
                }
                Command::Sync => {
                    let number = self.server.recorded;
                    let delay = self.prng.micros(500, 5_000);
                    self.queue.after(delay, Happening::Durable(life, number));
                }
                Command::ReadBlocks(io, blocks) => {
                    let (at, delay) = self.way(blocks.iter().copied());
                    self.queue.at(at, Happening::ServerRead(life, io, blocks, delay));
                }
                Command::WriteBlocks(io, blocks) => {
                    let (at, delay) = self.way(blocks.iter().map(|block| block.0));
                    self.queue.at(at, Happening::ServerWrite(life, io, blocks, delay));
                }
                Command::FlushSlices(io, slices) => {
                    let delay = self.prng.micros(500, 6_000);
                    self.queue.after(delay, Happening::Flush(life, io, slices));
                }
                Command::Damaged(damage) => self.fail("the tree is whole", format!("{damage:?}")),
                _ => {}
            }
        }
        self.schedule_server_tick();
    }

    fn schedule_server_tick(&mut self) {
        let next = self.server.coordinator.as_ref().and_then(Coordinator::next_tick);
        if let Some(at) = next
            && self.server.tick.is_none_or(|before| at < before || before <= self.queue.now())
        {
            self.server.tick = Some(at);
            self.queue.at(at, Happening::Server(self.server.life, Box::new(Event::Tick)));
        }
    }

    fn tell(&mut self, session: SessionId, message: ToClient) {
        let host = match &message {
            ToClient::Begun(token, session) => {
                let host = (*token >> 32) as u32;
                self.server.hosts.insert(*session, host);
                let mount = self.hosts[&host].mount;
                self.mounts.insert(*session, mount);
                host
            }
            _ => match self.server.hosts.get(&session) {
                Some(&host) => host,
                None => return,
            },
        };
        // The host may have mounted anew.
        if self.mounts.get(&session) != self.hosts.get(&host).map(|of| &of.mount) {
            return;
        }
        let message = match message {
            ToClient::Begun(token, session) => ToClient::Begun(token & 0xffff_ffff, session),
            other => other,
        };
        let Some(&stream) = self.server.streams.get(&host) else { return };
        self.send_to_host(host, stream, message);
    }

    /// Something a client said has arrived.
    pub(super) fn arrive_at_server(
        &mut self,
        host: u32,
        stream: u64,
        life: u64,
        message: ToCoordinator,
    ) {
        if life != self.server.life || self.server.coordinator.is_none() {
            return;
        }
        let latest = self.server.streams.get(&host).copied().unwrap_or(0);
        if stream < latest {
            self.coverage.count(Kind::Situation, "a message over an older stream");
            return;
        }
        if stream > latest {
            self.server.streams.insert(host, stream);
        }
        if let ToCoordinator::Hello(session) = &message {
            self.server.hosts.insert(*session, host);
        }
        let message = match message {
            ToCoordinator::Begin(token, row) => {
                ToCoordinator::Begin(u64::from(host) << 32 | token, row)
            }
            other => other,
        };
        self.server_event(message.into());
    }

    pub(super) fn received(&mut self, number: RecordNumber) {
        let server = &mut self.server;
        let count = number.0.saturating_sub(server.drained) as usize;
        server.received = server.received.max(count);
        server.received = server.received.min(server.log.len());
        self.server_event(Event::Received(number));
    }

    /// All records up to this one are on media.
    pub(super) fn durable(&mut self, number: RecordNumber) {
        let server = &mut self.server;
        let count = (number.0.saturating_sub(server.drained) as usize).min(server.received);
        for record in server.log.drain(..count) {
            server.durable.apply(&record.changes).expect("a map takes all");
            server.claims.extend(record.claims);
        }
        server.drained += count as u64;
        server.received -= count;
        let number = RecordNumber(server.drained);
        self.server_event(Event::Durable(number));
    }

    /// Everything is flushed, then the tree.
    pub(super) fn checkpoint(&mut self) {
        self.volume.flush(None);
        self.server.claims.clear();
        let number = RecordNumber(self.server.drained + self.server.received as u64);
        self.durable(number);
        let life = self.server.life;
        self.queue.after(self.prng.millis(150, 3_000), Happening::Checkpoint(life));
    }

    pub(super) fn fence(&mut self, session: SessionId) {
        self.volume.fence(session);
        self.server.sessions.remove(&session);
        if let Some(&mount) = self.mounts.get(&session) {
            self.lost(mount);
        }
        self.coverage.count(Kind::Situation, "a session is fenced");
        self.server_event(Event::Fenced(session));
    }

    pub(super) fn discard(&mut self, number: QuarantineNumber) {
        let view = Transaction::new(&self.server.tree, Context { now: date(Time::ZERO) });
        let runs = view.quarantined(number, 100_000).expect("the tree is whole");
        for run in runs {
            self.volume.discard((run.start.0..run.end().0).map(BlockAddress));
        }
        self.coverage.count(Kind::Situation, "freed blocks are discarded");
        self.server_event(Event::Discarded(number));
    }

    pub(super) fn server_read(&mut self, io: IoNumber, blocks: &[BlockAddress], delay: Duration) {
        let life = self.server.life;
        if let Some(read) = self.volume.read(Writer::Coordinator(life), blocks) {
            let event = Box::new(Event::BlocksRead(io, Ok(read)));
            self.queue.after(delay, Happening::Server(life, event));
        }
    }

    pub(super) fn server_write(
        &mut self,
        life: u64,
        io: IoNumber,
        blocks: &[(BlockAddress, Vec<u8>)],
        delay: Duration,
    ) {
        if let Some(versions) = self.volume.write(Writer::Coordinator(life), blocks) {
            let event = Box::new(Event::BlocksWritten(io, Ok(versions)));
            self.queue.after(delay, Happening::Server(life, event));
        }
    }

    /// The whole tree is what it must be.
    pub(super) fn check_tree(&mut self) {
        let found = check::check(&self.server.tree).expect("a map can be read");
        if !found.is_empty() {
            self.fail("every block is in one place", format!("{found:?}"));
        }
    }
}

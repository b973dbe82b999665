//! Clients and the real coordinator over a map, everything delivered at once and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_sharedfs_client::{
    Client, Command, Event, KernelId, KernelOperation, KernelReply, KernelRequest, Options,
    StreamNumber, Turn,
};
use mooring_sharedfs_core::coordinator::{self as core, Operation, Reply, ToClient, ToCoordinator};
use mooring_sharedfs_core::ops::{FormatOptions, format_volume};
use mooring_sharedfs_core::tree::{MemoryTree, TreeStore};
use mooring_sharedfs_core::{
    BlockAddress, Caller, Context, Mode, SessionId, Timestamp, Transaction, check,
};
use mooring_terms::{Epoch, Sequence, Time, Version};

/// What travels.
enum Letter {
    Up(usize, ToCoordinator),
    Down(usize, ToClient),
    Server(core::Event),
    Client(usize, Event),
}

pub struct Rig {
    pub tree: MemoryTree,
    coordinator: core::Coordinator,
    clients: Vec<Client>,
    sessions: BTreeMap<SessionId, usize>,
    blocks: BTreeMap<BlockAddress, Vec<u8>>,
    writes: u64,
    letters: Vec<Letter>,
    replies: BTreeMap<(usize, KernelId), KernelReply>,
    asked: u64,
    pub now: Time,
    /// Nothing that the clients say arrives.
    pub held: bool,
    /// Steps of batches that the coordinator got.
    pub steps: u64,
    /// Batches of which a step was refused.
    pub refused: u64,
    /// Requests that were no batches.
    pub requests: Vec<Operation>,
}

impl Rig {
    pub fn new(clients: usize, alone: bool) -> Self {
        let mut tree = MemoryTree::default();
        let options = FormatOptions {
            data_first: BlockAddress(16),
            capacity: 10_000,
            slice_blocks: 1 << 20,
            root: (0, 0, Mode::new(0o777)),
            now: Timestamp::default(),
        };
        let record = format_volume(&tree, &options).unwrap();
        tree.apply(&record.changes).unwrap();
        let mut out = Vec::new();
        let mut turn = core::Turn {
            now: Time::ZERO,
            date: Timestamp::default(),
            store: &mut tree,
            out: &mut out,
        };
        let coordinator = core::Coordinator::open(core::Options::default(), &mut turn).unwrap();
        let mut rig = Self {
            tree,
            coordinator,
            clients: Vec::new(),
            sessions: BTreeMap::new(),
            blocks: BTreeMap::new(),
            writes: 0,
            letters: Vec::new(),
            replies: BTreeMap::new(),
            asked: 0,
            now: Time::ZERO,
            held: false,
            steps: 0,
            refused: 0,
            requests: Vec::new(),
        };
        rig.carry_out(out);
        for client in 0..clients {
            let options = Options { alone, ..Options::default() };
            rig.clients.push(Client::new(options));
            rig.letters.push(Letter::Client(client, Event::Connected(stream(client))));
            rig.run();
        }
        rig
    }

    fn date(&self) -> Timestamp {
        let since = self.now.0;
        Timestamp { seconds: since.as_secs() as i64, nanoseconds: since.subsec_nanos() }
    }

    /// Time goes on, for everybody.
    pub fn pass(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.now = (self.now + Duration::from_millis(5)).min(end);
            self.letters.push(Letter::Server(core::Event::Tick));
            for client in 0..self.clients.len() {
                self.letters.push(Letter::Client(client, Event::Tick));
            }
            self.run();
        }
    }

    /// The date moves without anybody's looking.
    pub fn tick_date(&mut self) {
        self.now = self.now + Duration::from_micros(1);
    }

    /// What a client's kernel asks, and is answered.
    pub fn ask(
        &mut self,
        client: usize,
        caller: &Caller,
        operation: KernelOperation,
    ) -> KernelReply {
        self.tick_date();
        let id = self.begin(client, caller, operation);
        for _ in 0..400 {
            if let Some(reply) = self.replies.remove(&(client, id)) {
                return reply;
            }
            self.pass(Duration::from_millis(5));
        }
        panic!("not answered")
    }

    /// What a client's kernel asks.
    pub fn begin(
        &mut self,
        client: usize,
        caller: &Caller,
        operation: KernelOperation,
    ) -> KernelId {
        self.asked += 1;
        let id = KernelId(self.asked);
        let request = KernelRequest { id, caller: caller.clone(), operation };
        self.letters.push(Letter::Client(client, Event::Kernel(request)));
        self.run();
        id
    }

    /// What was answered by now.
    pub fn reply(&mut self, client: usize, id: KernelId) -> Option<KernelReply> {
        self.replies.remove(&(client, id))
    }

    /// The whole tree is in order.
    pub fn check(&self) {
        let found = check::check(&self.tree).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    /// Delivers what was said while nothing arrived.
    pub fn let_go(&mut self) {
        self.held = false;
        self.run();
    }

    fn run(&mut self) {
        let mut waiting = Vec::new();
        while !self.letters.is_empty() {
            match self.letters.remove(0) {
                letter @ Letter::Up(..) if self.held => waiting.push(letter),
                Letter::Up(client, message) => self.arrive(client, message),
                Letter::Down(client, message) => {
                    if let ToClient::Answer(_, answer) = &message
                        && let Reply::Batch { refused: Some(error), done } = &answer.reply
                    {
                        self.refused += 1;
                        eprintln!("refused behind {done}: {error:?}");
                    }
                    self.client(client, Event::Message(stream(client), message));
                }
                Letter::Server(event) => self.server(event),
                Letter::Client(client, event) => self.client(client, event),
            }
        }
        self.letters = waiting;
    }

    fn arrive(&mut self, client: usize, message: ToCoordinator) {
        if let ToCoordinator::Request(request) = &message {
            match &request.operation {
                Operation::Batch { steps } => self.steps += steps.len() as u64,
                other => self.requests.push(other.clone()),
            }
        }
        let message = match message {
            ToCoordinator::Begin(_, row) => ToCoordinator::Begin(client as u64, row),
            other => other,
        };
        self.server(message.into());
    }

    fn client(&mut self, client: usize, event: Event) {
        let (now, date) = (self.now, self.date());
        let mut out = Vec::new();
        let of = &mut self.clients[client];
        of.handle(&mut Turn { now, date, out: &mut out }, event);
        of.check_invariants();
        for command in out {
            let event = match command {
                Command::Answer(id, reply) => {
                    self.replies.insert((client, id), reply);
                    continue;
                }
                Command::Send(_, message) => {
                    self.letters.push(Letter::Up(client, message));
                    continue;
                }
                Command::ReadBlocks(io, blocks) => {
                    let zeros = vec![0; 4096];
                    let read = |at| self.blocks.get(at).unwrap_or(&zeros).clone().into();
                    Event::BlocksRead(io, Ok(blocks.iter().map(read).collect()))
                }
                Command::WriteBlocks(io, pieces) => {
                    let mut versions = Vec::new();
                    for (at, bytes) in pieces {
                        for (i, block) in bytes.chunks(4096).enumerate() {
                            versions.push(self.put(at.plus(i as u64), block.to_vec()));
                        }
                    }
                    Event::BlocksWritten(io, Ok(versions))
                }
                Command::Invalidate(number, _) => Event::Invalidated(number),
                Command::Unmounted => continue,
                other => panic!("nothing here does {other:?}"),
            };
            self.letters.push(Letter::Client(client, event));
        }
    }

    fn put(&mut self, at: BlockAddress, bytes: Vec<u8>) -> Version {
        self.blocks.insert(at, bytes);
        self.writes += 1;
        Version { epoch: Epoch(1), sequence: Sequence(self.writes) }
    }

    fn server(&mut self, event: core::Event) {
        let (now, date) = (self.now, self.date());
        let mut out = Vec::new();
        let mut turn = core::Turn { now, date, store: &mut self.tree, out: &mut out };
        self.coordinator.handle(&mut turn, event).unwrap();
        self.coordinator.check_invariants();
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<core::Command>) {
        for command in out {
            if let Some((session, message)) = ToClient::of(&command) {
                let client = match &message {
                    ToClient::Begun(token, session) => {
                        let client = *token as usize;
                        self.sessions.insert(*session, client);
                        client
                    }
                    _ => self.sessions[&session],
                };
                let message = match message {
                    ToClient::Begun(_, session) => ToClient::Begun(stream(client).0, session),
                    other => other,
                };
                self.letters.push(Letter::Down(client, message));
                continue;
            }
            let event = match command {
                core::Command::Journal(number, _) => core::Event::Received(number),
                core::Command::Fence(session) => core::Event::Fenced(session),
                core::Command::Discard(number) => core::Event::Discarded(number),
                core::Command::Continue => core::Event::Continue,
                core::Command::FlushSlices(io, _) => core::Event::Flushed(io),
                core::Command::Sync => core::Event::Durable(core::RecordNumber(u64::MAX >> 1)),
                core::Command::ReadBlocks(io, blocks) => {
                    let zeros = vec![0; 4096];
                    let read = |at| self.blocks.get(at).unwrap_or(&zeros).clone();
                    core::Event::BlocksRead(io, Ok(blocks.iter().map(read).collect()))
                }
                core::Command::WriteBlocks(io, blocks) => {
                    let versions = blocks.into_iter().map(|(at, bytes)| self.put(at, bytes));
                    core::Event::BlocksWritten(io, Ok(versions.collect()))
                }
                core::Command::Damaged(damage) => panic!("damaged: {damage:?}"),
                _ => continue,
            };
            // What was given out is received at once: nothing may wait before it.
            match event {
                core::Event::Received(_) => self.letters.insert(0, Letter::Server(event)),
                event => self.letters.push(Letter::Server(event)),
            }
        }
    }

    /// What the tree says of an inode.
    pub fn stored(
        &self,
        ino: mooring_sharedfs_core::Ino,
    ) -> Option<mooring_sharedfs_core::Attributes> {
        let view = Transaction::new(&self.tree, Context { now: Timestamp::default() });
        view.getattr(ino).ok()
    }
}

fn stream(client: usize) -> StreamNumber {
    StreamNumber(client as u64 + 1)
}

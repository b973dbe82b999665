//! A client whose coordinator, slices and kernel are the test: scenarios that only a certain order of
//! messages brings about. The whole is in the simulator of shared volumes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;

use bytes::Bytes;
use mooring_sharedfs_client::{
    Client, Command, Event, HandleId, InvalidationNumber, IoNumber, KernelId, KernelOperation,
    KernelReply, KernelRequest, LockKind, Options, StreamNumber, Turn,
};
use mooring_sharedfs_core::coordinator::{
    Answer, Claim, Operation, Reply, Request, RequestId, ToClient, ToCoordinator,
};
use mooring_sharedfs_core::file::{Mapped, Mapping, Segment, Source};
use mooring_sharedfs_core::leases::{LeaseLevel, LeaseNumber, Recall};
use mooring_sharedfs_core::locks::{LockMode, LockRange, LockSpace, Locked, OnConflict, WaitId};
use mooring_sharedfs_core::ops::Removed;
use mooring_sharedfs_core::{
    Access, Attributes, BlockAddress, Caller, Device, FileBlock, FileType, FsError, Ino, Mode,
    Name, QuarantineNumber, Run, SessionId, Timestamp,
};
use mooring_terms::{Epoch, Sequence, Time, Version};

const SESSION: SessionId = SessionId(1);
const FILE: Ino = Ino(5);

struct Rig {
    client: Client,
    stream: StreamNumber,
    asked: u64,
    requests: Vec<Request>,
    /// What else was said to the coordinator.
    said: Vec<ToCoordinator>,
    replies: BTreeMap<KernelId, KernelReply>,
    reads: Vec<IoNumber>,
    /// And the runs of blocks, with how many there are in each.
    writes: Vec<(IoNumber, Vec<(BlockAddress, usize)>)>,
    invalidations: Vec<InvalidationNumber>,
}

fn attributes(size: u64, change: u64) -> Attributes {
    let date = Timestamp::default();
    Attributes {
        ino: FILE,
        file_type: FileType::Regular,
        mode: Mode::new(0o644),
        uid: 0,
        gid: 0,
        links: 1,
        size,
        blocks: 1,
        device: Device::default(),
        atime: date,
        mtime: date,
        ctime: date,
        btime: date,
        change,
    }
}

impl Rig {
    /// A client with a session.
    fn new() -> Self {
        let mut rig = Self {
            client: Client::new(Options::default()),
            stream: StreamNumber(0),
            asked: 0,
            requests: Vec::new(),
            said: Vec::new(),
            replies: BTreeMap::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            invalidations: Vec::new(),
        };
        rig.connect();
        rig.hear(ToClient::Begun(1, SESSION));
        rig.renew();
        rig
    }

    fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        let now = Time::ZERO;
        self.client.handle(&mut Turn { now, date: Timestamp::default(), out: &mut out }, event);
        self.client.check_invariants();
        for command in out {
            match command {
                Command::Answer(id, reply) => drop(self.replies.insert(id, reply)),
                Command::Send(_, ToCoordinator::Request(request)) => self.requests.push(request),
                Command::Send(_, message) => self.said.push(message),
                Command::ReadBlocks(io, _) => self.reads.push(io),
                Command::WriteBlocks(io, blocks) => {
                    let count = |(at, bytes): (BlockAddress, Bytes)| (at, bytes.len() / 4096);
                    self.writes.push((io, blocks.into_iter().map(count).collect()));
                }
                Command::Invalidate(number, _) => self.invalidations.push(number),
                other => panic!("nothing here does {other:?}"),
            }
        }
    }

    fn connect(&mut self) {
        self.stream = StreamNumber(self.stream.0 + 1);
        self.event(Event::Connected(self.stream));
    }

    /// Over a new stream, to the same coordinator.
    fn reconnect(&mut self) {
        self.event(Event::Disconnected(self.stream));
        self.connect();
        self.renew();
    }

    /// The coordinator answers the last renewal.
    fn renew(&mut self) {
        let last = self.said.iter().rev().find_map(|message| match message {
            ToCoordinator::Renew(_, number) => Some(*number),
            _ => None,
        });
        self.hear(ToClient::Renewed(last.unwrap()));
    }

    fn hear(&mut self, message: ToClient) {
        self.event(Event::Message(self.stream, message));
    }

    fn kernel(&mut self, operation: KernelOperation) -> KernelId {
        self.asked += 1;
        let id = KernelId(self.asked);
        self.event(Event::Kernel(KernelRequest { id, caller: Caller::ROOT, operation }));
        id
    }

    /// The only request that was sent since this was asked last.
    fn request(&mut self) -> Request {
        assert_eq!(self.requests.len(), 1, "{:?}", self.requests);
        self.requests.remove(0)
    }

    fn answer(&mut self, id: RequestId, reply: Reply) {
        self.hear(ToClient::Answer(id, Answer { reply, leases: Vec::new(), told: Vec::new() }));
    }

    /// Opens the file, with a lease or without.
    fn open(&mut self, access: Access, lease: Option<LeaseLevel>) -> HandleId {
        let id = self.kernel(KernelOperation::Open { ino: FILE, access });
        let request = self.request();
        let leases = lease.map(|level| (FILE, level, LeaseNumber(1))).into_iter().collect();
        let reply = Reply::Attributes(attributes(0, 1));
        self.hear(ToClient::Answer(request.id, Answer { reply, leases, told: Vec::new() }));
        match self.replies.remove(&id) {
            Some(KernelReply::Opened(handle, _)) => handle,
            other => panic!("not opened: {other:?}"),
        }
    }

    fn ask_for_lock(&mut self) -> KernelId {
        let (owner, range) = (7, LockRange::ALL);
        let (space, kind) = (LockSpace::Flock, LockKind::Wait(LockMode::Write));
        self.kernel(KernelOperation::Lock { ino: FILE, space, owner, kind, range, pid: 1 })
    }
}

fn wait_of(request: &Request) -> WaitId {
    match request.operation {
        Operation::Lock { on_conflict: OnConflict::Wait { wait, .. }, .. } => wait,
        ref other => panic!("no wait for a lock: {other:?}"),
    }
}

fn one_block() -> Reply {
    let source = Source::Blocks(BlockAddress(100), 0);
    Reply::Segments(attributes(4096, 2), vec![Segment { offset: 0, length: 4096, source }])
}

#[test]
fn a_lock_stays_when_its_second_asking_is_answered_after_word_that_it_is_held() {
    let mut rig = Rig::new();
    let id = rig.ask_for_lock();
    let first = rig.request();
    rig.answer(first.id, Reply::Locked(Locked::Waiting));
    rig.reconnect();
    let second = rig.request();
    assert_eq!(wait_of(&second), wait_of(&first));
    rig.hear(ToClient::LockHeld(wait_of(&first)));
    assert_eq!(rig.replies.get(&id), Some(&KernelReply::Done));
    rig.answer(second.id, Reply::Locked(Locked::Held));
    assert_eq!(rig.requests, [], "it would free what the caller holds");
}

#[test]
fn a_lock_that_nobody_waits_for_leaves_what_its_owner_had() {
    let mut rig = Rig::new();
    let lock = |mode, start, end| {
        let (space, kind) = (LockSpace::Range, LockKind::Set(mode));
        let range = LockRange { start, end };
        KernelOperation::Lock { ino: FILE, space, owner: 7, kind, range, pid: 1 }
    };
    rig.kernel(lock(LockMode::Read, 10, 19));
    let request = rig.request();
    rig.answer(request.id, Reply::Locked(Locked::Held));
    let upgrade = rig.kernel(lock(LockMode::Write, 5, 30));
    let request = rig.request();
    rig.event(Event::Interrupt(upgrade));
    assert_eq!(rig.replies.get(&upgrade), Some(&KernelReply::Error(FsError::Interrupted)));
    rig.answer(request.id, Reply::Locked(Locked::Held));
    let asked: Vec<(Option<LockMode>, u64, u64)> = rig
        .requests
        .iter()
        .map(|request| match &request.operation {
            Operation::Lock { request, .. } => {
                (Some(request.mode), request.range.start, request.range.end)
            }
            Operation::Unlock { range, .. } => (None, range.start, range.end),
            other => panic!("nothing asks for {other:?}"),
        })
        .collect();
    assert_eq!(asked, [(Some(LockMode::Read), 10, 19), (None, 5, 9), (None, 20, 30)]);
}

#[test]
fn a_file_that_is_written_at_a_stretch_is_on_its_way_all_the_time_and_committed_in_order() {
    const BLOCKS: u64 = 256;
    let mut rig = Rig::new();
    let handle = rig.open(Access::WRITE, Some(LeaseLevel::Write));
    let write = |rig: &mut Rig, mebibyte: u64| {
        rig.kernel(KernelOperation::Write {
            handle,
            offset: mebibyte << 20,
            bytes: vec![1; 1 << 20].into(),
            append: false,
            cached: false,
            kill_privileges: false,
            sync: false,
        })
    };
    let first = write(&mut rig, 0);
    let request = rig.request();
    assert!(matches!(request.operation, Operation::Mappings { .. }));
    let hole = Mapping { block: FileBlock(0), count: 1 << 20, mapped: Mapped::Hole };
    rig.answer(request.id, Reply::Mappings(vec![hole]));
    let request = rig.request();
    assert!(matches!(request.operation, Operation::Reserve { .. }));
    rig.answer(request.id, Reply::Runs(vec![Run::new(BlockAddress(1000), 16 * BLOCKS)]));
    let others = [write(&mut rig, 1), write(&mut rig, 2)];
    let [(one, of_one), (two, of_two), (three, _)] = &rig.writes[..] else {
        panic!("three rounds, not {:?}", rig.writes)
    };
    let (one, two, three) = (*one, *two, *three);
    assert_eq!(of_one, &[(BlockAddress(1000), 256)], "in one piece");
    assert_eq!(of_two, &[(BlockAddress(1256), 256)]);
    for id in [first, others[0], others[1]] {
        assert_eq!(rig.replies.get(&id), Some(&KernelReply::Written(1 << 20)), "nobody waited");
    }
    let written = |io| {
        let version = Version::new(Epoch(1), Sequence(io));
        Event::BlocksWritten(IoNumber(io), Ok(vec![version; 256]))
    };
    rig.event(written(two.0));
    assert_eq!(rig.requests, [], "what comes before it is not there");
    rig.event(written(one.0));
    let request = rig.request();
    let commit = |request: &Request| match &request.operation {
        Operation::Commit { commit, .. } => commit.clone(),
        other => panic!("no commit: {other:?}"),
    };
    let both = commit(&request);
    assert_eq!(both.size_at_least, 2 << 20);
    let places: Vec<(u64, u64)> =
        both.extents.iter().map(|extent| (extent.block.0, extent.run.count)).collect();
    assert_eq!(places, [(0, 256), (256, 256)]);
    rig.event(written(three.0));
    assert_eq!(rig.requests, [], "one commit at a time");
    rig.answer(request.id, Reply::Attributes(attributes(2 << 20, 2)));
    let request = rig.request();
    assert_eq!(commit(&request).size_at_least, 3 << 20);
    rig.answer(request.id, Reply::Attributes(attributes(3 << 20, 3)));
    assert_eq!(rig.client.dirty_bytes(), 0);
}

#[test]
fn where_bytes_are_is_asked_again_when_the_answer_is_from_before_a_new_stream() {
    let mut rig = Rig::new();
    let handle = rig.open(Access::READ, None);
    rig.kernel(KernelOperation::Read { handle, offset: 0, length: 4096, cached: true });
    let first = rig.request();
    rig.reconnect();
    assert_eq!(rig.request(), first);
    rig.answer(first.id, one_block());
    assert!(rig.reads.is_empty(), "the block may be another file's by now");
    let second = rig.request();
    assert_ne!(second.id, first.id);
    rig.answer(second.id, one_block());
    assert_eq!(rig.reads.len(), 1);
}

#[test]
fn layouts_that_were_asked_for_before_a_reclaim_are_returned_after_it() {
    let mut rig = Rig::new();
    let handle = rig.open(Access::READ, None);
    rig.kernel(KernelOperation::Read { handle, offset: 0, length: 4096, cached: true });
    let read = rig.request();
    rig.answer(read.id, one_block());
    rig.event(Event::Disconnected(rig.stream));
    rig.connect();
    rig.hear(ToClient::ReturnLayouts(QuarantineNumber(3)));
    rig.hear(ToClient::Reclaim);
    rig.hear(ToClient::Claimed(Claim::Done, None));
    rig.renew();
    let returned = ToCoordinator::LayoutsReturned(SESSION, QuarantineNumber(3));
    assert!(!rig.said.contains(&returned), "a read is under way");
    let io = rig.reads.remove(0);
    rig.event(Event::BlocksRead(io, Ok(vec![vec![0; 4096].into()])));
    assert!(rig.said.contains(&returned));
}

#[test]
fn pages_that_were_read_without_a_lease_go_before_attributes_are_told() {
    let mut rig = Rig::new();
    let handle = rig.open(Access::READ, None);
    let read = rig.kernel(KernelOperation::Read { handle, offset: 0, length: 4096, cached: true });
    let request = rig.request();
    rig.answer(request.id, one_block());
    let io = rig.reads.remove(0);
    rig.event(Event::BlocksRead(io, Ok(vec![vec![9; 4096].into()])));
    assert!(matches!(rig.replies.get(&read), Some(KernelReply::Bytes(_))));
    // A mapping would show them for ever.
    assert_eq!(rig.invalidations.len(), 1);
    let number = rig.invalidations.remove(0);
    rig.event(Event::Invalidated(number));
    // Nothing tells that the inode has changed.
    let id = rig.kernel(KernelOperation::Getattr { ino: FILE });
    let request = rig.request();
    rig.answer(request.id, Reply::Attributes(attributes(4096, 2)));
    assert_eq!(rig.replies.get(&id), None);
    let number = rig.invalidations.remove(0);
    rig.event(Event::Invalidated(number));
    assert!(matches!(rig.replies.get(&id), Some(KernelReply::Attributes(..))));
}

#[test]
fn a_recall_is_answered_when_what_was_written_is_committed_and_the_kernel_has_given_up() {
    let mut rig = Rig::new();
    let handle = rig.open(Access::READ.and(Access::WRITE), Some(LeaseLevel::Write));
    let bytes = vec![1; 100];
    let id = rig.kernel(KernelOperation::Write {
        handle,
        offset: 0,
        bytes: bytes.clone().into(),
        append: false,
        cached: false,
        kill_privileges: false,
        sync: false,
    });
    let layout = rig.request();
    let hole =
        Mapping { block: mooring_sharedfs_core::FileBlock(0), count: 256, mapped: Mapped::Hole };
    rig.answer(layout.id, Reply::Mappings(vec![hole]));
    let reserve = rig.request();
    assert!(matches!(reserve.operation, Operation::Reserve { .. }));
    rig.answer(reserve.id, Reply::Runs(vec![Run::new(BlockAddress(100), 256)]));
    assert_eq!(rig.replies.get(&id), Some(&KernelReply::Written(100)));
    let recall =
        Recall { session: SESSION, ino: FILE, keep: LeaseLevel::None, number: LeaseNumber(1) };
    rig.hear(ToClient::Recall(recall));
    let commit = rig.request();
    let Operation::Commit { commit: committed, .. } = &commit.operation else {
        panic!("{commit:?}")
    };
    assert_eq!(committed.inline, Some(bytes));
    assert!(rig.invalidations.is_empty());
    rig.answer(commit.id, Reply::Attributes(attributes(100, 2)));
    let answered = ToCoordinator::Answered(SESSION, FILE, LeaseNumber(1), LeaseLevel::None);
    assert!(!rig.said.contains(&answered), "the kernel has not given up anything");
    let number = rig.invalidations.remove(0);
    rig.event(Event::Invalidated(number));
    assert!(rig.said.contains(&answered));
}

#[test]
fn the_lease_on_a_file_that_is_gone_is_given_back_when_the_kernel_has_forgotten_it() {
    let mut rig = Rig::new();
    let name = Name::new(b"f").unwrap();
    rig.kernel(KernelOperation::Lookup { dir: Ino::ROOT, name: name.clone() });
    let lookup = rig.request();
    let leases = vec![(FILE, LeaseLevel::Read, LeaseNumber(1))];
    let reply = Reply::Attributes(attributes(0, 1));
    rig.hear(ToClient::Answer(lookup.id, Answer { reply, leases, told: Vec::new() }));
    rig.kernel(KernelOperation::Unlink { dir: Ino::ROOT, name });
    let unlink = rig.request();
    let gone = Attributes { links: 0, ..attributes(0, 2) };
    let removed = Removed { attributes: gone, orphan: false };
    rig.answer(unlink.id, Reply::Removed(Some(removed)));
    let given_back = ToCoordinator::Answered(SESSION, FILE, LeaseNumber(1), LeaseLevel::None);
    assert!(!rig.said.contains(&given_back), "the kernel may ask for its attributes");
    rig.event(Event::Kernel(KernelRequest {
        id: KernelId(99),
        caller: Caller::ROOT,
        operation: KernelOperation::Forget { ino: FILE, count: 1 },
    }));
    assert!(rig.said.contains(&given_back));
}

#[test]
fn space_is_reserved_though_everything_else_waits_for_others() {
    let mut rig = Rig::new();
    let handle = rig.open(Access::READ.and(Access::WRITE), Some(LeaseLevel::Write));
    // None of them is answered: a recall that only this client can answer may hold them all up.
    for i in 0..3000 {
        let name = Name::new(format!("f{i}").as_bytes()).unwrap();
        rig.kernel(KernelOperation::Lookup { dir: Ino::ROOT, name });
    }
    assert!(rig.requests.len() < 3000, "some wait for a slot");
    rig.requests.clear();
    let id = rig.kernel(KernelOperation::Write {
        handle,
        offset: 0,
        bytes: vec![1; 100].into(),
        append: false,
        cached: false,
        kill_privileges: false,
        sync: false,
    });
    let layout = rig.request();
    let hole =
        Mapping { block: mooring_sharedfs_core::FileBlock(0), count: 256, mapped: Mapped::Hole };
    rig.answer(layout.id, Reply::Mappings(vec![hole]));
    let reserve = rig.requests.iter().find(|r| matches!(r.operation, Operation::Reserve { .. }));
    let reserve = reserve.expect("it is on its way").id;
    rig.answer(reserve, Reply::Runs(vec![Run::new(BlockAddress(100), 256)]));
    assert_eq!(rig.replies.get(&id), Some(&KernelReply::Written(100)));
}

#[test]
fn a_write_that_is_to_be_on_media_is_answered_when_it_is() {
    let mut rig = Rig::new();
    let handle = rig.open(Access::READ.and(Access::WRITE), Some(LeaseLevel::Write));
    let id = rig.kernel(KernelOperation::Write {
        handle,
        offset: 0,
        bytes: vec![1; 100].into(),
        append: false,
        cached: false,
        kill_privileges: false,
        sync: true,
    });
    let layout = rig.request();
    let hole =
        Mapping { block: mooring_sharedfs_core::FileBlock(0), count: 256, mapped: Mapped::Hole };
    rig.answer(layout.id, Reply::Mappings(vec![hole]));
    let reserve = rig.request();
    rig.answer(reserve.id, Reply::Runs(vec![Run::new(BlockAddress(100), 256)]));
    let commit = rig.request();
    assert!(matches!(commit.operation, Operation::Commit { .. }), "{commit:?}");
    rig.answer(commit.id, Reply::Attributes(attributes(100, 2)));
    let fsync = rig.request();
    assert!(matches!(fsync.operation, Operation::Fsync { ino: FILE }), "{fsync:?}");
    assert_eq!(rig.replies.get(&id), None, "it is not on media");
    rig.answer(fsync.id, Reply::Done);
    assert_eq!(rig.replies.get(&id), Some(&KernelReply::Written(100)));
}

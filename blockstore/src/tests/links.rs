//! Processes beside the daemons: I/O over links, letters to the coordinator, fences.

mod letters;
mod measure;
mod strangers;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mooring_replication::{IoError, IoPart, VolumeBlock, VolumeRange};
use mooring_terms::{
    AttachmentEpoch, BLOCK_SIZE, NodeId, SessionId, SliceId, SliceIndex, Version, VolumeId,
};
use parking_lot::Mutex;

use super::rig::Rig;
use crate::remote::{Client, Coordinator, CoordinatorVolume, Door, SharedVolume};
use crate::volume::Attachment;

const LONG: Duration = Duration::from_secs(20);
/// What is refused stays so for at least that long.
const A_WHILE: Duration = Duration::from_secs(2);
/// Of a test's volume: four slices in 2^20 blocks.
const SLICE_BLOCKS: u64 = 1 << 18;
const PRIMARIES: [u64; 4] = [1, 2, 3, 3];

/// A process's ear.
#[derive(Default)]
struct Ear(Mutex<Vec<Heard>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Met(u64),
    Letter(Bytes),
    Lost,
}

impl Coordinator for Ear {
    fn met(&self, epoch: AttachmentEpoch) {
        self.0.lock().push(Heard::Met(epoch.0));
    }

    fn letter(&self, letter: Bytes) {
        self.0.lock().push(Heard::Letter(letter));
    }

    fn lost(&self) {
        self.0.lock().push(Heard::Lost);
    }
}

impl Ear {
    fn heard(&self, what: &Heard) -> bool {
        self.0.lock().contains(what)
    }
}

/// Three nodes, a shared volume of four slices with its coordinator on node 1, and a door at each
/// node.
struct Shared {
    rig: Rig,
    coordinator: CoordinatorVolume,
    dir: tempfile::TempDir,
    doors: Vec<Option<Door>>,
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn serving(coordinator: &CoordinatorVolume) {
    let state = coordinator.state();
    wait("slice 0 is sealed", || *state.borrow() == Attachment::Serving);
}

impl Shared {
    fn new() -> Self {
        Self::of(3, &PRIMARIES)
    }

    fn of(nodes: u64, primaries: &[u64]) -> Self {
        let rig = Rig::new(nodes, 1);
        rig.make_sliced(1, 1, primaries);
        rig.grant(1, 1, 1);
        let coordinator = rig.node(1).coordinate(1, 1, 7);
        serving(&coordinator);
        let dir = tempfile::tempdir().unwrap();
        let mut shared = Self { rig, coordinator, dir, doors: Vec::new() };
        shared.doors = (1..=nodes).map(|node| Some(shared.open_door(node))).collect();
        shared
    }

    fn open_door(&self, node: u64) -> Door {
        let node = self.rig.node(node);
        Door::open(&self.door(node.id.0), &node.plane, node.id).unwrap()
    }

    fn door(&self, node: u64) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    fn client(&self, node: u64) -> (Arc<Client>, Arc<Ear>) {
        let ear = Arc::new(Ear::default());
        (Client::new(&self.door(node), VolumeId(1), ear.clone()).unwrap(), ear)
    }

    /// A process on a node, with a session.
    fn process(&self, node: u64, session: u64) -> SharedVolume {
        let (client, _) = self.client(node);
        self.coordinator.register(SessionId(session), NodeId(node));
        client.open(SessionId(session)).unwrap()
    }

    fn fence(&self, session: u64) {
        let (done, fenced) = mpsc::channel();
        self.coordinator.fence(SessionId(session), move || done.send(()).unwrap());
        fenced.recv_timeout(LONG).unwrap();
    }
}

/// A block of a slice.
fn at(slice: u64, block: u64) -> u64 {
    slice * SLICE_BLOCKS + block
}

fn slice(index: u32) -> SliceId {
    SliceId { volume: VolumeId(1), index: SliceIndex(index) }
}

type Written = Result<Version, IoError>;

fn begin_write(volume: &SharedVolume, block: u64, byte: u8) -> mpsc::Receiver<Written> {
    let (done, answer) = mpsc::channel();
    let data = Bytes::from(vec![byte; BLOCK_SIZE]);
    let tell = Box::new(move |result: Result<Vec<(SliceIndex, Version)>, IoError>| {
        let _ = done.send(result.map(|versions| versions[0].1));
    });
    volume.write(VolumeBlock(block), data, tell);
    answer
}

fn write(volume: &SharedVolume, block: u64, byte: u8) -> Version {
    begin_write(volume, block, byte).recv_timeout(LONG).unwrap().unwrap()
}

fn begin_read(volume: &SharedVolume, block: u64) -> mpsc::Receiver<Result<Vec<IoPart>, IoError>> {
    let (done, answer) = mpsc::channel();
    let range = VolumeRange { first: VolumeBlock(block), count: 1 };
    let tell = Box::new(move |result| {
        let _ = done.send(result);
    });
    volume.read(range, tell);
    answer
}

fn read(volume: &SharedVolume, block: u64) -> u8 {
    match begin_read(volume, block).recv_timeout(LONG).unwrap().unwrap().as_slice() {
        [IoPart::Data(data)] => data.bytes()[0],
        [IoPart::Zeros(1)] => 0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn processes_on_several_nodes_write_all_slices_and_read_each_others_blocks() {
    let shared = Shared::new();
    let (one, two) = (shared.process(1, 11), shared.process(2, 12));
    for slice in 0..4 {
        let first = write(&one, at(slice, 1), 11);
        let second = write(&two, at(slice, 2), 12);
        assert!(second > first, "one order in slice {slice}");
        assert_eq!((read(&one, at(slice, 2)), read(&two, at(slice, 1))), (12, 11));
    }
    let (done, answer) = mpsc::channel();
    let again = done.clone();
    two.flush(Box::new(move |result| done.send(result).unwrap()));
    assert_eq!(answer.recv_timeout(LONG).unwrap(), Ok(()));
    let all = (0..4).map(SliceIndex).collect();
    one.flush_slices(all, Box::new(move |result| again.send(result).unwrap()));
    assert_eq!(answer.recv_timeout(LONG).unwrap(), Ok(()));
}

#[test]
fn a_process_goes_on_when_its_own_node_dies() {
    let shared = Shared::new();
    let volume = shared.process(3, 11);
    for slice in 0..4 {
        write(&volume, at(slice, 1), 1);
    }
    // Its daemon, the primary of two slices, and its door.
    shared.rig.node(3).kill();
    let mut shared = shared;
    shared.doors[2] = None;
    let start = Instant::now();
    for slice in 0..4 {
        write(&volume, at(slice, 1), 2);
        assert_eq!(read(&volume, at(slice, 1)), 2);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "a stall of {:?}", start.elapsed());
}

#[test]
fn io_goes_on_over_a_restart_of_the_own_daemon() {
    let mut shared = Shared::new();
    let volume = shared.process(2, 11);
    for round in 0..3 {
        let waiting: Vec<_> =
            (0..200).map(|i| begin_write(&volume, at(i % 4, i), round + 1)).collect();
        // Cuts the link.
        shared.doors[1] = None;
        let late: Vec<_> = (0..8).map(|i| begin_write(&volume, at(i % 4, i), round + 1)).collect();
        shared.doors[1] = Some(shared.open_door(2));
        for answer in waiting.into_iter().chain(late) {
            answer.recv_timeout(LONG).unwrap().unwrap();
        }
        for i in 0..200 {
            assert_eq!(read(&volume, at(i % 4, i)), round + 1);
        }
    }
}

#[test]
fn a_fenced_session_is_refused_in_every_slice_and_the_others_go_on() {
    let shared = Shared::new();
    let (one, other) = (shared.process(2, 11), shared.process(3, 12));
    for slice in 0..4 {
        write(&one, at(slice, 1), 1);
    }
    shared.fence(11);
    let late: Vec<_> = (0..4).map(|slice| begin_write(&one, at(slice, 1), 2)).collect();
    let read_late = begin_read(&one, at(2, 1));
    thread::sleep(A_WHILE);
    assert!(read_late.try_recv().is_err(), "a read was served");
    for (slice, late) in (0..).zip(&late) {
        assert!(late.try_recv().is_err(), "slice {slice} served it");
        assert_eq!(read(&other, at(slice, 1)), 1);
        write(&other, at(slice, 1), 3);
    }
    // The mount is told by its coordinator, and closes.
    let start = Instant::now();
    one.close();
    for late in late {
        assert_eq!(late.recv_timeout(LONG).unwrap(), Err(IoError::Closed));
    }
    assert!(start.elapsed() < Duration::from_millis(500), "errors come at once");
    assert_eq!(begin_write(&one, 1, 1).recv_timeout(LONG).unwrap(), Err(IoError::Closed));
}

#[test]
fn a_new_primary_serves_nobody_until_it_is_told() {
    let shared = Shared::new();
    let (gone, lives) = (shared.process(2, 11), shared.process(3, 12));
    write(&gone, at(2, 1), 1);
    write(&lives, at(2, 2), 1);
    shared.fence(11);
    let late = begin_write(&gone, at(2, 1), 2);
    for to in [2, 3, 1] {
        shared.rig.hand_over(slice(2), to);
        write(&lives, at(2, 2), 2);
    }
    thread::sleep(A_WHILE);
    assert!(late.try_recv().is_err(), "a fenced session was let in by a new primary");
    assert_eq!(read(&lives, at(2, 1)), 1);
    // Without a coordinator that tells them, no primary lets anybody in.
    let Shared { rig, coordinator, dir, doors } = shared;
    drop(coordinator);
    rig.hand_over(slice(2), 2);
    let waits = begin_write(&lives, at(2, 2), 3);
    assert!(waits.recv_timeout(A_WHILE).is_err(), "a new primary let a session in by itself");
    drop((gone, lives, doors, dir));
}

#[test]
fn a_session_is_over_by_time_where_the_coordinator_is_gone() {
    let shared = Shared::new();
    let volume = shared.process(2, 11);
    write(&volume, at(1, 1), 1);
    let Shared { rig, coordinator, dir, doors } = shared;
    drop(coordinator);
    thread::sleep(A_WHILE);
    let late = begin_write(&volume, at(1, 1), 2);
    assert!(late.recv_timeout(A_WHILE).is_err(), "nobody renewed it");
    drop((volume, rig, dir, doors));
}

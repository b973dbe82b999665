//! What clients ask for: reads, writes, discards and flushes, several in flight, on purpose in the
//! same few blocks, some of them over the edge between two slices.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mooring_replication::{ClientEvent, Io, IoId, VolumeBlock, VolumeRange};
use mooring_terms::{BLOCK_SIZE, Data, Epoch, SliceId, Time, VolumeId};

use super::client::{Standing, place};
use super::history::{What, number};
use super::plan::{Plan, SLICE_BLOCKS};
use super::prng::Prng;
use super::value::encode;
use super::{Phase, Sim};

/// Blocks in use at the beginning of each slice, and at its end.
const EDGE: u64 = 5;

/// The workload of a run.
#[derive(Debug)]
pub struct Workload {
    prng: Prng,
    /// Operations still to be asked for, a volume.
    left: BTreeMap<VolumeId, u32>,
    /// When they should all have been asked for.
    until: Time,
    /// What is still to be read at the end, a volume.
    last_reads: BTreeMap<VolumeId, Vec<u64>>,
    /// How many operations a client has in flight at most.
    depth: BTreeMap<VolumeId, usize>,
    /// Until when a volume's clients ask for nothing.
    rest: BTreeMap<VolumeId, Time>,
    tails: BTreeMap<SliceId, Epoch>,
    next_io: u64,
    most_blocks: u64,
    /// Operations asked for while faults came.
    asked: u64,
    /// No client is made by itself (in scenarios, which make their own).
    pub paused: bool,
}

impl Workload {
    /// The workload of `plan`.
    #[must_use]
    pub fn new(plan: &Plan, mut prng: Prng) -> Self {
        let volumes = u32::try_from(plan.volumes.len()).expect("few");
        let ids: Vec<VolumeId> = (0..plan.volumes.len()).map(|i| plan.volume_id(i)).collect();
        let share = plan.operations.div_ceil(volumes);
        Self {
            left: ids.iter().map(|&id| (id, share)).collect(),
            until: plan.healed,
            last_reads: BTreeMap::new(),
            depth: ids
                .iter()
                .map(|&id| (id, usize::try_from(prng.within(1..9)).expect("few")))
                .collect(),
            rest: BTreeMap::new(),
            tails: BTreeMap::new(),
            next_io: 1,
            most_blocks: plan.most_blocks,
            asked: 0,
            paused: plan.operations == 0,
            prng,
        }
    }

    /// The newest lost tail of a slice that a client has begun with.
    #[must_use]
    pub fn tail_known(&self, slice: SliceId) -> Epoch {
        self.tails.get(&slice).copied().unwrap_or_default()
    }

    /// A client has begun with this newest lost tail.
    pub fn know_tail(&mut self, slice: SliceId, epoch: Epoch) {
        self.tails.insert(slice, epoch);
    }

    /// Whether all operations have been asked for.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left.values().all(|left| *left == 0) && self.last_reads.values().all(Vec::is_empty)
    }

    /// How many operations clients have asked for, the last reads of everything not counted.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Lets the clients read everything once more.
    pub fn read_everything(&mut self, plan: &Plan) {
        for (i, volume) in plan.volumes.iter().enumerate() {
            let blocks = (0..u64::from(volume.slices)).flat_map(hot_blocks).collect();
            self.last_reads.insert(plan.volume_id(i), blocks);
        }
    }

    fn next_range(&mut self, slices: u64) -> VolumeRange {
        let slice = self.prng.within(0..slices);
        let count = self.prng.within(1..self.most_blocks + 1);
        let first = if self.prng.percent(60) {
            self.prng.within(0..EDGE)
        } else {
            SLICE_BLOCKS - EDGE + self.prng.within(0..EDGE)
        };
        let end = ((slice + 1) * SLICE_BLOCKS).min(slices * SLICE_BLOCKS);
        let first = slice * SLICE_BLOCKS + first;
        // Over the edge into the next slice, if there is one.
        let last = if slice + 1 < slices { end + EDGE } else { end };
        VolumeRange { first: VolumeBlock(first), count: count.min(last - first) }
    }

    fn next_what(&mut self) -> What {
        match self.prng.within(0..100) {
            0..34 => What::Read,
            34..70 => What::Write { fua: false },
            70..76 => What::Write { fua: true },
            76..85 => What::Discard { fua: false },
            85..88 => What::Discard { fua: true },
            _ => What::Flush,
        }
    }
}

/// The blocks of a slice that the workload uses, as blocks of the volume.
pub fn hot_blocks(slice: u64) -> impl Iterator<Item = u64> {
    let start = slice * SLICE_BLOCKS;
    let end = start + SLICE_BLOCKS;
    (start..start + EDGE + 5).chain(end - EDGE..end)
}

impl Sim {
    /// A client may submit its next operation.
    pub(super) fn work(&mut self, number: u32) {
        let now = self.queue.now();
        let Some(client) = self.clients.get(&number) else { return };
        if client.standing != Standing::Serving {
            return;
        }
        let volume = client.volume;
        let depth = self.workload.depth[&volume];
        if self.phase == Phase::Reading {
            self.read_next(number, volume);
            return;
        }
        let left = self.workload.left[&volume];
        let rest = self.workload.rest.get(&volume).copied().unwrap_or_default();
        if left == 0 || client.in_flight.len() >= depth || rest > now {
            return;
        }
        self.workload.left.insert(volume, left - 1);
        let pause = self.pause(now, left);
        if pause > Duration::ZERO {
            self.workload.rest.insert(volume, now + pause);
        }
        let slices = self.raft.state().volume(volume).map_or(1, |v| v.slices.len() as u64);
        let what = self.workload.next_what();
        let range = match what {
            What::Flush => VolumeRange { first: VolumeBlock(0), count: 0 },
            _ => self.workload.next_range(slices),
        };
        self.queue.after(pause, super::Happening::Work(number));
        self.submit(number, what, range);
    }

    /// How long until the next operation: bursts, with pauses that spread them over the faults.
    fn pause(&mut self, now: Time, left: u32) -> Duration {
        if self.workload.prng.percent(60) {
            return Duration::ZERO;
        }
        let span = self.workload.until.since(now).as_micros();
        let mean = u64::try_from(span / u128::from(left.max(1))).unwrap_or(0) * 5 / 2;
        self.workload.prng.micros(0, (mean * 2).max(2_000))
    }

    /// Submits one operation; gives its number.
    pub(super) fn submit(&mut self, client: u32, what: What, range: VolumeRange) -> u64 {
        let volume = self.clients[&client].volume;
        let op = self.history.invoke(volume, client, what, range);
        let io = match what {
            What::Read => Io::Read(range),
            What::Write { fua } => {
                Io::Write { first: range.first, data: data(client, number(op), range), fua }
            }
            What::Discard { fua } => Io::Discard { range, fua },
            What::Flush => Io::Flush,
        };
        let id = IoId(self.workload.next_io);
        self.workload.next_io += 1;
        self.workload.asked += u64::from(self.phase != Phase::Reading);
        if let Some(client) = self.clients.get_mut(&client) {
            client.in_flight.insert(id, op);
        }
        // A flush with nothing to flush is answered by the client itself, rightly.
        if what != What::Flush {
            self.checkers.submitted(client, op);
        }
        self.client_event(client, ClientEvent::Submit { id, io });
        op
    }

    fn read_next(&mut self, number: u32, volume: VolumeId) {
        let Some(client) = self.clients.get(&number) else { return };
        if client.in_flight.len() >= 8 {
            return;
        }
        let Some(block) = self.workload.last_reads.get_mut(&volume).and_then(Vec::pop) else {
            return;
        };
        self.queue.after(Duration::ZERO, super::Happening::Work(number));
        let range = VolumeRange { first: VolumeBlock(block), count: 1 };
        self.submit(number, What::Read, range);
    }

    /// Lets all clients go on.
    pub(super) fn work_all(&mut self) {
        self.workload.rest.clear();
        self.workload.until = self.queue.now();
        let serving: Vec<u32> = self.clients.keys().copied().collect();
        for client in serving {
            self.queue.after(Duration::ZERO, super::Happening::Work(client));
        }
    }
}

/// The data of a write, which may go over the edge between two slices.
fn data(client: u32, number: u32, range: VolumeRange) -> Data {
    let (slice, first) = place(range.first.0);
    let inside = range.count.min(SLICE_BLOCKS - first.0);
    let here = encode(client, number, slice, first, inside);
    if inside == range.count {
        return here;
    }
    let (slice, first) = place(range.first.0 + inside);
    let there = encode(client, number, slice, first, range.count - inside);
    let blocks = usize::try_from(range.count).expect("few blocks");
    let mut bytes = Vec::with_capacity(blocks * BLOCK_SIZE);
    bytes.extend_from_slice(here.bytes());
    bytes.extend_from_slice(there.bytes());
    Data::checksummed(Bytes::from(bytes))
}

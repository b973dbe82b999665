//! The body of a checkpoint: everything that roll-forward builds on, but for the map nodes.
//!
//! ```text
//! body: cut into chunks, each the meta of a record of kind 17
//!   u32 replicas; a replica each:
//!     volume u64, slice u32, flags u8 (1 gathering, 2 damaged), last version, committed u64
//!     state length u32, state; live root
//!     u32 snapshots; each: id u64, order u64, version, root
//!     u32 pinned records; each: sequence u64, address u64, bytes u32
//!   u32 segments; each: state u8 (0 free, 1 open, 2 closed, 3 evacuated, 4 quarantined),
//!     use u32, live u64, end u64
//!   u32 dropped trees; each: level u8, node, keep x 2
//!   version: epoch u32, sequence u64     root: level u8, child
//!   child: kind u8 (0 absent, 1 node, 2 hole, 3 missing, 4 lost); node, or version
//!   node: address u64, length u32, crc u32, newest version, flags u8 (1: something is missing,
//!     2: counted); if counted, blocks beneath that hold data u64
//!   keep: u8 0 | u8 1, level u8, node
//! ```

use bytes::Bytes;
use mooring_terms::{Epoch, Sequence, SliceId, SliceIndex, SnapshotId, Version, VolumeId};

use super::{Put, Take};
use crate::LogNumber;
use crate::address::Address;
use crate::map::{Child, NodeRef, Root};
use crate::replica::Pinned;
use crate::space::{Segment, SegmentState};
use crate::trash::{Dropped, Keep};

/// A snapshot in a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotBody {
    pub(crate) id: SnapshotId,
    pub(crate) order: LogNumber,
    pub(crate) version: Version,
    pub(crate) root: Root,
}

/// A replica in a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReplicaBody {
    pub(crate) slice: SliceId,
    pub(crate) gathering: bool,
    pub(crate) damaged: bool,
    pub(crate) last: Version,
    pub(crate) committed: Sequence,
    pub(crate) state: Bytes,
    pub(crate) root: Root,
    pub(crate) snapshots: Vec<SnapshotBody>,
    pub(crate) pinned: Vec<(Sequence, Pinned)>,
}

/// A checkpoint's body.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Body {
    pub(crate) replicas: Vec<ReplicaBody>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) dropped: Vec<Dropped>,
}

fn put_version(out: &mut Vec<u8>, version: Version) {
    out.put_u32(version.epoch.0);
    out.put_u64(version.sequence.0);
}

fn take_version(take: &mut Take<'_>) -> Option<Version> {
    Some(Version::new(Epoch(take.u32()?), Sequence(take.u64()?)))
}

fn put_node(out: &mut Vec<u8>, node: &NodeRef, counts: bool) {
    out.put_u64(node.address.0);
    out.put_u32(node.length);
    out.put_u32(node.crc);
    put_version(out, node.newest);
    let allocated = node.allocated.filter(|_| counts);
    out.put_u8(u8::from(node.missing) | u8::from(allocated.is_some()) << 1);
    if let Some(allocated) = allocated {
        out.put_u64(allocated);
    }
}

fn take_node(take: &mut Take<'_>) -> Option<NodeRef> {
    let (address, length, crc) = (Address(take.u64()?), take.u32()?, take.u32()?);
    let (newest, flags) = (take_version(take)?, take.u8()?);
    let allocated = if flags & 2 != 0 { Some(take.u64()?) } else { None };
    Some(NodeRef { address, length, crc, newest, missing: flags & 1 != 0, allocated })
}

fn put_root(out: &mut Vec<u8>, root: &Root, counts: bool) {
    out.put_u8(root.level);
    match root.child {
        Child::Absent => out.put_u8(0),
        Child::Node(node) => {
            out.put_u8(1);
            put_node(out, &node, counts);
        }
        Child::Hole(version) => {
            out.put_u8(2);
            put_version(out, version);
        }
        Child::Missing(version) => {
            out.put_u8(3);
            put_version(out, version);
        }
        Child::Lost(version) => {
            out.put_u8(4);
            put_version(out, version);
        }
    }
}

fn take_root(take: &mut Take<'_>) -> Option<Root> {
    let level = take.u8()?;
    let child = match take.u8()? {
        0 => Child::Absent,
        1 => Child::Node(take_node(take)?),
        2 => Child::Hole(take_version(take)?),
        3 => Child::Missing(take_version(take)?),
        4 => Child::Lost(take_version(take)?),
        _ => return None,
    };
    (level <= 5).then_some(Root { level, child })
}

impl Body {
    /// The body's bytes, with counts in them or without.
    pub(crate) fn encode(&self, counts: bool) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u32(self.replicas.len() as u32);
        for replica in &self.replicas {
            encode_replica(&mut out, replica, counts);
        }
        out.put_u32(self.segments.len() as u32);
        for segment in &self.segments {
            out.put_u8(match segment.state {
                SegmentState::Free => 0,
                SegmentState::Open => 1,
                SegmentState::Closed => 2,
                SegmentState::Evacuated(_) => 3,
                SegmentState::Quarantined => 4,
            });
            out.put_u32(segment.use_count);
            out.put_u64(segment.live);
            out.put_u64(segment.end);
        }
        out.put_u32(self.dropped.len() as u32);
        for dropped in &self.dropped {
            out.put_u8(dropped.level);
            put_node(&mut out, &dropped.node, counts);
            for keep in &dropped.keep {
                match keep {
                    None => out.put_u8(0),
                    Some(keep) => {
                        out.put_u8(1);
                        out.put_u8(keep.level);
                        put_node(&mut out, &keep.node, counts);
                    }
                }
            }
        }
        out
    }

    /// `number` is the checkpoint's: what it found evacuated is so as of this checkpoint.
    pub(crate) fn decode(bytes: &[u8], number: u64) -> Option<Self> {
        let mut take = Take(bytes);
        let take = &mut take;
        let replicas = (0..take.u32()?).map(|_| decode_replica(take)).collect::<Option<_>>()?;
        let segments = (0..take.u32()?)
            .map(|_| {
                let state = match take.u8()? {
                    0 => SegmentState::Free,
                    1 => SegmentState::Open,
                    2 => SegmentState::Closed,
                    3 => SegmentState::Evacuated(number),
                    4 => SegmentState::Quarantined,
                    _ => return None,
                };
                let (use_count, live, end) = (take.u32()?, take.u64()?, take.u64()?);
                Some(Segment { state, use_count, live, end })
            })
            .collect::<Option<_>>()?;
        let dropped = (0..take.u32()?)
            .map(|_| {
                let (level, node) = (take.u8()?, take_node(take)?);
                let mut keep = [None; 2];
                for keep in &mut keep {
                    if take.u8()? == 1 {
                        *keep = Some(Keep { level: take.u8()?, node: take_node(take)? });
                    }
                }
                (level <= 5).then_some(Dropped { level, node, keep })
            })
            .collect::<Option<_>>()?;
        take.0.is_empty().then_some(Self { replicas, segments, dropped })
    }
}

fn encode_replica(out: &mut Vec<u8>, replica: &ReplicaBody, counts: bool) {
    out.put_u64(replica.slice.volume.0);
    out.put_u32(replica.slice.index.0);
    out.put_u8(u8::from(replica.gathering) | u8::from(replica.damaged) << 1);
    put_version(out, replica.last);
    out.put_u64(replica.committed.0);
    out.put_u32(replica.state.len() as u32);
    out.put_bytes(&replica.state);
    put_root(out, &replica.root, counts);
    out.put_u32(replica.snapshots.len() as u32);
    for snapshot in &replica.snapshots {
        out.put_u64(snapshot.id.0);
        out.put_u64(snapshot.order.0);
        put_version(out, snapshot.version);
        put_root(out, &snapshot.root, counts);
    }
    out.put_u32(replica.pinned.len() as u32);
    for (sequence, pinned) in &replica.pinned {
        out.put_u64(sequence.0);
        out.put_u64(pinned.record.0);
        out.put_u32(pinned.bytes);
    }
}

fn decode_replica(take: &mut Take<'_>) -> Option<ReplicaBody> {
    let slice = SliceId { volume: VolumeId(take.u64()?), index: SliceIndex(take.u32()?) };
    let flags = take.u8()?;
    let (last, committed) = (take_version(take)?, Sequence(take.u64()?));
    let length = take.u32()? as usize;
    let state = Bytes::copy_from_slice(take.bytes(length)?);
    let root = take_root(take)?;
    let snapshots = (0..take.u32()?)
        .map(|_| {
            let (id, order) = (SnapshotId(take.u64()?), LogNumber(take.u64()?));
            Some(SnapshotBody { id, order, version: take_version(take)?, root: take_root(take)? })
        })
        .collect::<Option<_>>()?;
    let pinned = (0..take.u32()?)
        .map(|_| {
            let sequence = Sequence(take.u64()?);
            Some((sequence, Pinned { record: Address(take.u64()?), bytes: take.u32()? }))
        })
        .collect::<Option<_>>()?;
    Some(ReplicaBody {
        slice,
        gathering: flags & 1 != 0,
        damaged: flags & 2 != 0,
        last,
        committed,
        state,
        root,
        snapshots,
        pinned,
    })
}

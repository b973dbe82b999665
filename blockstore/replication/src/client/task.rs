//! One I/O of the device: split over slices, put together again.

use std::time::Duration;

use mooring_terms::{BlockIndex, BlockRange, Extent, SliceIndex, Time, Version};

use super::command::{IoError, IoPart};
use super::event::{Io, VolumeBlock, VolumeRange};
use super::options::{ClientOptions, ClientRole, TREE_BLOCKS, TREE_FIRST};
use crate::request::Operation;

/// An I/O that is not done.
#[derive(Debug)]
pub(super) struct Task {
    /// What each part of it read, once answered.
    parts: Vec<Option<Vec<IoPart>>>,
    submitted: Time,
    pub(super) deadline: Option<Time>,
}

impl Task {
    /// It was submitted at `now`, and is held for so long.
    pub(super) fn new(parts: usize, now: Time, timeout: Option<Duration>) -> Self {
        let mut task = Self { parts: vec![None; parts], submitted: now, deadline: None };
        task.hold_for(timeout);
        task
    }

    /// It is held for so long, from when it was submitted.
    pub(super) fn hold_for(&mut self, timeout: Option<Duration>) {
        self.deadline = timeout.map(|timeout| self.submitted + timeout);
    }

    /// Part `i` is answered; tells whether all are.
    pub(super) fn answered(&mut self, i: usize, read: Vec<IoPart>) -> bool {
        self.parts[i] = Some(read);
        self.parts.iter().all(Option::is_some)
    }

    /// What all parts read, in order.
    pub(super) fn into_result(self) -> Vec<IoPart> {
        let mut result: Vec<IoPart> = Vec::new();
        for part in self.parts.into_iter().flatten().flatten() {
            match (result.last_mut(), part) {
                (Some(IoPart::Zeros(before)), IoPart::Zeros(more)) => *before += more,
                (Some(IoPart::Versions(before, one)), IoPart::Versions(more, other))
                    if *one == other =>
                {
                    *before += more;
                }
                (_, part) => result.push(part),
            }
        }
        result
    }
}

/// Splits an I/O with a range over the slices.
pub(super) fn split(
    options: &ClientOptions,
    io: &Io,
) -> Result<Vec<(SliceIndex, Operation)>, IoError> {
    let range = match io {
        Io::Read(range) | Io::Discard { range, .. } => *range,
        Io::Versions(range) => *range,
        Io::Write { first, data, .. } => VolumeRange { first: *first, count: data.blocks() },
        Io::Flush | Io::FlushSlices(_) => return Ok(Vec::new()),
    };
    let end = range.first.0.checked_add(range.count).ok_or(IoError::Invalid)?;
    let in_tree = options.role == ClientRole::Coordinator
        && range.first.0 >= TREE_FIRST
        && end <= TREE_FIRST + TREE_BLOCKS;
    if range.count == 0 || !(end <= options.blocks || in_tree) {
        return Err(IoError::Invalid);
    }
    let mut parts = Vec::new();
    let mut at = range.first.0;
    while at < end {
        let (index, first, left) = if in_tree {
            (0, at, end - at)
        } else {
            let first = at % options.slice_blocks;
            (at / options.slice_blocks, first, (options.slice_blocks - first).min(end - at))
        };
        let count = match io {
            Io::Discard { .. } => left,
            _ => left.min(options.max_request_blocks.max(1)),
        };
        let here = BlockRange::new(BlockIndex(first), count);
        let operation = match io {
            Io::Read(_) => Operation::Read(here),
            Io::Versions(_) => Operation::Versions(here),
            Io::Discard { fua, .. } => Operation::Discard { range: here, fua: *fua },
            Io::Write { first: VolumeBlock(start), data, fua } => {
                let skip = usize::try_from(at - start).map_err(|_| IoError::Invalid)?;
                let len = usize::try_from(count).map_err(|_| IoError::Invalid)?;
                let whole = skip == 0 && count == data.blocks();
                let data = if whole { data.clone() } else { data.slice(skip, len) };
                Operation::Write { first: here.first, data, fua: *fua }
            }
            Io::Flush | Io::FlushSlices(_) => Operation::Flush,
        };
        let index = u32::try_from(index).map_err(|_| IoError::Invalid)?;
        parts.push((SliceIndex(index), operation));
        at += count;
    }
    Ok(parts)
}

/// What a look at versions gave; none if it isn't what was asked for.
pub(super) fn version_parts(
    range: BlockRange,
    versions: Vec<(BlockRange, Version)>,
) -> Option<Vec<IoPart>> {
    let mut at = range.first;
    let mut parts = Vec::with_capacity(versions.len());
    for (here, version) in versions {
        if here.first != at {
            return None;
        }
        at = here.end();
        parts.push(IoPart::Versions(here.count, version));
    }
    (at == range.end()).then_some(parts)
}

/// What a read gave; none if it isn't what was asked for.
pub(super) fn read_parts(range: BlockRange, extents: Vec<Extent>) -> Option<Vec<IoPart>> {
    let mut at = range.first;
    let mut parts = Vec::with_capacity(extents.len());
    for extent in extents {
        let here = extent.range();
        if here.first != at {
            return None;
        }
        at = here.end();
        parts.push(match extent {
            Extent::Hole { range, .. } => IoPart::Zeros(range.count),
            Extent::Data { data, .. } => IoPart::Data(data),
            Extent::Missing { .. } => return None,
        });
    }
    (at == range.end()).then_some(parts)
}

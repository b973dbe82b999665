//! Appending: entries become records, one vectored write a call, then they show in the map.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use mooring_terms::{BlockIndex, BlockRange, Body, Data, Entry, SliceId, Version};

use crate::format::record::{Blocks, Logged, Operation};
use crate::log::Piece;
use crate::map::{Content, MAX_BLOCKS};
use crate::pool::Pool;
use crate::read::Root;
use crate::replica::ReplicaState;
use crate::space::Class;
use crate::{EngineError, LogNumber, Result};

/// What an append gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The log number of the call's last record: durable when [`Pool::durable`] has reached it.
    pub log: LogNumber,
}

/// An entry made ready outside of all locks.
struct Ready {
    logged: Logged,
    data: Vec<Bytes>,
    /// To be checked against the map under the log's lock.
    repair: Option<Data>,
}

impl Pool {
    /// Appends entries to a slice's log, in order. When it returns, the kernel has them: kill -9
    /// loses nothing, a power cut may, until [`Pool::sync`]. Entries of one call are one write, but
    /// not one transaction: a power cut may keep a prefix.
    ///
    /// # Errors
    /// [`EngineError::NoSpace`], [`EngineError::CorruptPayload`], [`EngineError::OutOfOrder`],
    /// [`EngineError::TooLarge`], [`EngineError::BadRange`], [`EngineError::NoReplica`]: nothing
    /// was logged. [`EngineError::Io`], [`EngineError::Poisoned`]: the pool takes no more writes.
    pub fn append(&self, slice: SliceId, entries: &[Entry]) -> Result<Appended> {
        let replica = self.find(slice)?;
        let mut ready =
            entries.iter().map(|entry| make_ready(slice, entry)).collect::<Result<Vec<Ready>>>()?;
        let mut pieces = Vec::with_capacity(ready.len());
        let (mut bytes, mut blocks) = (0, 0);
        for entry in &mut ready {
            let piece = Piece::new(&entry.logged, std::mem::take(&mut entry.data));
            self.check_size(piece.bytes())?;
            bytes += piece.bytes();
            blocks += (entry.logged.data_bytes() / mooring_terms::BLOCK_SIZE) as u64;
            pieces.push(piece);
        }
        let class = if blocks > 0 { Class::Ordinary } else { Class::Exempt };
        self.make_room(slice, class, blocks, bytes)?;
        let (log, hints) = {
            let mut log = self.log.lock();
            self.core.check()?;
            check_order(slice, &replica.inner.read(), &ready)?;
            if ready.iter().any(|entry| entry.repair.is_some()) {
                self.choose_repairs(slice, &mut ready, &mut pieces)?;
            }
            let read_soon = replica.read_here.load(Ordering::Relaxed);
            let (placed, hints) = log.write(&self.core, &pieces, read_soon)?;
            for (entry, placed) in ready.iter().zip(&placed) {
                self.apply(&entry.logged, placed);
            }
            (log.last(), hints)
        };
        hints.tell(&self.core);
        self.keep_pace(bytes);
        Ok(Appended { log })
    }

    /// Says whether a slice is read here (until this is called, it is). Of what is appended to one that
    /// isn't, the kernel is told that memory needn't keep it.
    pub fn expect_reads(&self, slice: SliceId, expected: bool) {
        if let Ok(replica) = self.find(slice) {
            replica.read_here.store(expected, Ordering::Relaxed);
        }
    }

    /// Begins to write out what was appended last, where each append has been followed by a sync: to
    /// be called once everybody who waits for the append has been told.
    pub fn write_out_early(&self) {
        let hints = self.log.lock().early();
        hints.tell(&self.core);
    }

    /// Keeps of each repair only what the map still asks for.
    fn choose_repairs(
        &self,
        slice: SliceId,
        ready: &mut Vec<Ready>,
        pieces: &mut Vec<Piece>,
    ) -> Result<()> {
        let all = std::mem::take(ready);
        let old = std::mem::take(pieces);
        for (entry, piece) in all.into_iter().zip(old) {
            let (Some(data), Operation::Repair(blocks)) = (&entry.repair, &entry.logged.operation)
            else {
                ready.push(entry);
                pieces.push(piece);
                continue;
            };
            let version = entry.logged.version;
            for i in 0..blocks.crcs.len() {
                let block = blocks.first + i as u64;
                let present = self.extents(slice, Root::Live, block, block + 1)?;
                let wanted = present.first().is_some_and(|extent| match extent.entry.content {
                    Content::Data { .. } => extent.entry.version == version,
                    Content::Missing | Content::Lost => true,
                    Content::Hole => false,
                });
                if wanted {
                    let (blocks, data) = Blocks::of(BlockIndex(block), &data.slice(i, 1));
                    let operation = Operation::Repair(blocks);
                    let logged = Logged { slice, version, operation, state: None };
                    pieces.push(Piece::new(&logged, data));
                    ready.push(Ready { logged, data: Vec::new(), repair: None });
                }
            }
        }
        Ok(())
    }
}

fn make_ready(slice: SliceId, entry: &Entry) -> Result<Ready> {
    let plain = |version, operation, state| {
        Ok(Ready {
            logged: Logged { slice, version, operation, state },
            data: Vec::new(),
            repair: None,
        })
    };
    match entry {
        Entry::Record { record, state } => match &record.body {
            Body::Write { first, data } => {
                check_data(slice, *first, data)?;
                let (blocks, runs) = Blocks::of(*first, data);
                let operation = Operation::Write(blocks);
                let (version, state) = (record.version, state.clone());
                let logged = Logged { slice, version, operation, state };
                Ok(Ready { logged, data: runs, repair: None })
            }
            Body::Discard(range) => {
                check_range(range)?;
                plain(record.version, Operation::Discard(*range), state.clone())
            }
            Body::Control(bytes) => {
                plain(record.version, Operation::Control(bytes.clone()), state.clone())
            }
        },
        Entry::State(state) => plain(Version::ZERO, Operation::State, Some(state.clone())),
        Entry::Copy { version, first, data } => {
            check_data(slice, *first, data)?;
            let (blocks, runs) = Blocks::of(*first, data);
            let operation = Operation::Copy(blocks);
            let logged = Logged { slice, version: *version, operation, state: None };
            Ok(Ready { logged, data: runs, repair: None })
        }
        Entry::CopyHole { version, range } => {
            check_range(range)?;
            plain(*version, Operation::CopyHole(*range), None)
        }
        Entry::CopyLost { version, range } => {
            check_range(range)?;
            plain(*version, Operation::CopyLost(*range), None)
        }
        Entry::Repair { version, first, data } => {
            check_data(slice, *first, data)?;
            let (blocks, runs) = Blocks::of(*first, data);
            let operation = Operation::Repair(blocks);
            let logged = Logged { slice, version: *version, operation, state: None };
            Ok(Ready { logged, data: runs, repair: Some(data.clone()) })
        }
        Entry::Supersede { after, state } => {
            plain(*after, Operation::Supersede, Some(state.clone()))
        }
        Entry::Position { last, state } => plain(*last, Operation::Position, Some(state.clone())),
        Entry::Joined => plain(Version::ZERO, Operation::Joined, None),
    }
}

fn check_range(range: &BlockRange) -> Result<()> {
    if range.count == 0 || range.end().0 > MAX_BLOCKS {
        return Err(EngineError::BadRange { first: range.first, count: range.count });
    }
    Ok(())
}

fn check_data(slice: SliceId, first: BlockIndex, data: &Data) -> Result<()> {
    check_range(&BlockRange::new(first, data.blocks()))?;
    match data.first_corrupt() {
        Some(i) => Err(EngineError::CorruptPayload { slice, block: first.plus(i as u64) }),
        None => Ok(()),
    }
}

/// Numbered records follow each other, and their epochs never go back.
fn check_order(slice: SliceId, state: &ReplicaState, ready: &[Ready]) -> Result<()> {
    if state.removed {
        return Err(EngineError::NoReplica(slice));
    }
    let mut last = state.last;
    for entry in ready {
        let version = entry.logged.version;
        match entry.logged.operation {
            Operation::Supersede | Operation::Position => last = version,
            _ if entry.logged.numbered() => {
                let follows = version.sequence == last.sequence.next() && version > last;
                if !follows {
                    return Err(EngineError::OutOfOrder { slice, last, found: version });
                }
                last = version;
            }
            _ => {}
        }
    }
    Ok(())
}

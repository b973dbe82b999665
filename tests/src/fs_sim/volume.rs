//! The slices: blocks with versions, what of them is on media, and who may write.
//!
//! A write is applied in one moment. It may go with a power cut unless its slice was flushed since;
//! what is left of each slice is a prefix of what it took. A session is served only where it is
//! registered, and a new primary has none registered.

use std::collections::{BTreeMap, BTreeSet};

use mooring_sharedfs_core::{BlockAddress, SessionId};
use mooring_terms::{Epoch, Sequence, SliceIndex, Time, Version};

use crate::sim::prng::Prng;

/// Blocks of a slice.
pub const SLICE_BLOCKS: u64 = 256;

/// Who asks for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writer {
    /// A mount.
    Session(SessionId),
    /// The coordinator, under the attachment of that epoch.
    Coordinator(u64),
}

struct Undo {
    block: BlockAddress,
    before: Option<(Version, Vec<u8>)>,
}

/// One slice.
pub struct Slice {
    registered: BTreeSet<SessionId>,
    /// A new primary serves whoever comes: a deliberate bug.
    default_allow: bool,
    epoch: u32,
    sequence: u64,
    unflushed: Vec<Undo>,
    /// Until then it has no primary.
    pub away_until: Time,
    /// Until then it is slow.
    pub slow_until: Time,
}

/// The whole volume.
pub struct Volume {
    blocks: BTreeMap<BlockAddress, (Version, Vec<u8>)>,
    slices: Vec<Slice>,
    /// The last attachment that was sealed.
    sealed: u64,
    /// How many writes were refused because of a fence.
    pub refused: u64,
}

impl Volume {
    pub fn new(slices: usize) -> Self {
        let slice = |_| Slice {
            registered: BTreeSet::new(),
            default_allow: false,
            epoch: 1,
            sequence: 0,
            unflushed: Vec::new(),
            away_until: Time::ZERO,
            slow_until: Time::ZERO,
        };
        let slices = (0..slices).map(slice).collect();
        Self { blocks: BTreeMap::new(), slices, sealed: 0, refused: 0 }
    }

    pub fn slices(&self) -> usize {
        self.slices.len()
    }

    pub fn slice_mut(&mut self, index: usize) -> &mut Slice {
        &mut self.slices[index]
    }

    pub fn slice_of(&self, block: BlockAddress) -> usize {
        ((block.0 / SLICE_BLOCKS) as usize).min(self.slices.len() - 1)
    }

    /// When all slices of these blocks serve, and whether one is slow.
    pub fn ready(&self, now: Time, blocks: impl Iterator<Item = BlockAddress>) -> (Time, bool) {
        blocks.fold((now, false), |(at, slow), block| {
            let slice = &self.slices[self.slice_of(block)];
            (at.max(slice.away_until), slow || now < slice.slow_until)
        })
    }

    pub fn seal(&mut self, attachment: u64) {
        self.sealed = attachment;
    }

    pub fn register(&mut self, session: SessionId) {
        for slice in &mut self.slices {
            slice.registered.insert(session);
        }
    }

    /// A new primary learns who is served.
    pub fn register_all(&mut self, index: usize, sessions: &BTreeSet<SessionId>) {
        self.slices[index].registered.extend(sessions);
    }

    pub fn fence(&mut self, session: SessionId) {
        for slice in &mut self.slices {
            slice.registered.remove(&session);
        }
    }

    /// A new primary: it knows no sessions until the coordinator registers them.
    pub fn move_slice(&mut self, index: usize, until: Time, forgets: bool) {
        let slice = &mut self.slices[index];
        slice.registered.clear();
        slice.epoch += 1;
        slice.away_until = until;
        slice.default_allow |= forgets;
    }

    /// What blocks hold; `None` for whoever is fenced.
    pub fn read(&mut self, who: Writer, blocks: &[BlockAddress]) -> Option<Vec<Vec<u8>>> {
        if !blocks.iter().all(|&block| self.serves(who, block)) {
            self.refused += 1;
            return None;
        }
        let zeros = vec![0; 4096];
        let of = |block| self.blocks.get(block).map_or_else(|| zeros.clone(), |b| b.1.clone());
        Some(blocks.iter().map(of).collect())
    }

    /// Writes blocks; `None` for whoever is fenced.
    pub fn write(
        &mut self,
        who: Writer,
        blocks: &[(BlockAddress, Vec<u8>)],
    ) -> Option<Vec<Version>> {
        if !blocks.iter().all(|&(block, _)| self.serves(who, block)) {
            self.refused += 1;
            return None;
        }
        let mut versions = Vec::new();
        for (block, bytes) in blocks {
            let index = self.slice_of(*block);
            let slice = &mut self.slices[index];
            slice.sequence += 1;
            let version = Version::new(Epoch(slice.epoch), Sequence(slice.sequence));
            let before = self.blocks.insert(*block, (version, bytes.clone()));
            slice.unflushed.push(Undo { block: *block, before });
            versions.push(version);
        }
        Some(versions)
    }

    fn serves(&self, who: Writer, block: BlockAddress) -> bool {
        let slice = &self.slices[self.slice_of(block)];
        match who {
            Writer::Session(session) => slice.default_allow || slice.registered.contains(&session),
            Writer::Coordinator(attachment) => attachment >= self.sealed,
        }
    }

    pub fn flush(&mut self, slices: Option<&BTreeSet<SliceIndex>>) {
        for (index, slice) in self.slices.iter_mut().enumerate() {
            if slices.is_none_or(|slices| slices.contains(&SliceIndex(index as u32))) {
                slice.unflushed.clear();
            }
        }
    }

    /// The power goes: of what was not flushed, each slice keeps a prefix.
    pub fn power_cut(&mut self, prng: &mut Prng) {
        for slice in &mut self.slices {
            let kept = prng.within(0..slice.unflushed.len() as u64 + 1) as usize;
            for undo in slice.unflushed.drain(kept..).rev() {
                slice.sequence -= 1;
                match undo.before {
                    Some(before) => self.blocks.insert(undo.block, before),
                    None => self.blocks.remove(&undo.block),
                };
            }
            slice.unflushed.clear();
            slice.registered.clear();
            slice.epoch += 1;
            slice.away_until = Time::ZERO;
        }
    }

    /// What a block holds.
    pub fn block(&self, block: BlockAddress) -> Vec<u8> {
        self.blocks.get(&block).map_or_else(|| vec![0; 4096], |block| block.1.clone())
    }

    /// The block's version, as a recovery compares it with what was claimed.
    pub fn version(&self, block: BlockAddress) -> Version {
        self.blocks.get(&block).map_or(Version::ZERO, |block| block.0)
    }

    /// Discarded blocks hold garbage here, so that whoever reads one is found out.
    pub fn discard(&mut self, blocks: impl Iterator<Item = BlockAddress>) {
        for block in blocks {
            let version = self.version(block);
            self.blocks.insert(block, (version, vec![0xdd; 4096]));
        }
    }
}

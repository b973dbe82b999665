//! The reference: what a replica must hold, as plain maps.

use std::collections::BTreeMap;

use bytes::Bytes;
use mooring_engine::{EngineError, Pool, ReadBlock, ReadContent, Root};
use mooring_terms::{Data, SliceId, SnapshotId, Version};

use super::range;

/// What a block must read as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// Never written. A discard of it may or may not have left a hole with its version, and a
    /// supersede of that discard may or may not have made it missing.
    Never {
        discarded: Option<Version>,
        lost: bool,
    },
    /// Bytes with this checksum.
    Data(Version, u32),
    Hole(Version),
    Missing,
    /// Missing, and nothing older takes its place.
    Lost(Version),
}

const NEVER: Block = Block::Never { discarded: None, lost: false };

/// A replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    pub exists: bool,
    pub last: Version,
    pub state: Bytes,
    pub gathering: bool,
    pub blocks: BTreeMap<u64, Block>,
    pub snapshots: BTreeMap<SnapshotId, BTreeMap<u64, Block>>,
}

impl Model {
    pub fn get(&self, block: u64) -> Block {
        self.blocks.get(&block).copied().unwrap_or(NEVER)
    }

    fn wins(&self, block: u64, version: Version) -> bool {
        match self.get(block) {
            Block::Never { .. } | Block::Missing => true,
            Block::Data(present, _) | Block::Hole(present) => version > present,
            Block::Lost(present) => version >= present,
        }
    }

    /// Blocks of a write or copy; zeros are holes.
    pub fn write(&mut self, version: Version, first: u64, data: &Data, solid: bool) {
        for i in 0..data.crcs().len() {
            let block = first + i as u64;
            if data.block(i).iter().all(|byte| *byte == 0) {
                self.hole(version, block, 1, solid);
            } else if self.wins(block, version) {
                self.blocks.insert(block, Block::Data(version, data.crcs()[i]));
            }
        }
    }

    pub fn hole(&mut self, version: Version, first: u64, count: u64, solid: bool) {
        let solid = solid || self.gathering;
        for block in first..first + count {
            match self.get(block) {
                Block::Never { lost, .. } if !solid => {
                    self.blocks.insert(block, Block::Never { discarded: Some(version), lost });
                }
                _ if self.wins(block, version) => {
                    self.blocks.insert(block, Block::Hole(version));
                }
                _ => {}
            }
        }
    }

    /// What had this version is lost.
    pub fn lost(&mut self, version: Version, first: u64, count: u64) {
        for block in first..first + count {
            let older = match self.get(block) {
                Block::Never { .. } | Block::Missing => true,
                Block::Data(present, _) | Block::Hole(present) | Block::Lost(present) => {
                    version > present
                }
            };
            if older {
                self.blocks.insert(block, Block::Lost(version));
            }
        }
    }

    pub fn supersede(&mut self, after: Version) {
        for block in self.blocks.values_mut() {
            match block {
                Block::Data(version, _) | Block::Hole(version) | Block::Lost(version)
                    if *version > after =>
                {
                    *block = Block::Missing;
                }
                Block::Never { discarded: Some(version), lost } if *version > after => *lost = true,
                _ => {}
            }
        }
        self.last = after;
        self.gathering = true;
    }
}

/// Compares what a pool holds of a slice with the model; `None` if it agrees.
pub fn difference(pool: &Pool, slice: SliceId, model: &Model, extent: u64) -> Option<String> {
    let info = match pool.replica(slice) {
        Ok(info) => info,
        Err(EngineError::NoReplica(_)) if !model.exists => return None,
        Err(error) => return Some(format!("{error}")),
    };
    if !model.exists {
        return Some("it exists".into());
    }
    if info.last != model.last || info.state != model.state {
        return Some(format!(
            "last {} {:?}, not {} {:?}",
            info.last, info.state, model.last, model.state
        ));
    }
    if info.snapshots.len() != model.snapshots.len() {
        return Some(format!("snapshots {:?}, not {:?}", info.snapshots, model.snapshots.keys()));
    }
    let data =
        model.blocks.values().filter(|block| matches!(block, Block::Data(..))).count() as u64;
    if pool.allocated(slice).ok() != Some(data) {
        return Some(format!("{:?} blocks hold data, not {data}", pool.allocated(slice)));
    }
    if let Some(found) = blocks_differ(pool, slice, Root::Live, &model.blocks, extent) {
        return Some(found);
    }
    model.snapshots.iter().find_map(|(id, blocks)| {
        blocks_differ(pool, slice, Root::Snapshot(*id), blocks, extent)
            .map(|found| format!("snapshot {id}: {found}"))
    })
}

fn blocks_differ(
    pool: &Pool,
    slice: SliceId,
    root: Root,
    blocks: &BTreeMap<u64, Block>,
    extent: u64,
) -> Option<String> {
    let mut out = Vec::new();
    if let Err(error) = pool.read_root(slice, root, range(0, extent), &mut out) {
        return Some(format!("{error}"));
    }
    for run in out {
        // Long holes are compared where the model knows something.
        let end = run.range.end().0;
        for (block, expected) in blocks.range(run.range.first.0..end) {
            if let Some(why) = run_differs(&run, *block, expected, root) {
                return Some(why);
            }
        }
        let known = blocks.range(run.range.first.0..end).count() as u64;
        if known < run.range.count
            && !(matches!(run.content, ReadContent::Hole) && run.version == Version::ZERO)
        {
            return Some(format!("{root:?} {:?} {} was never written", run.range, run.version));
        }
    }
    None
}

/// Compares one block.
pub fn block_differs(
    pool: &Pool,
    slice: SliceId,
    one: &BTreeMap<u64, Block>,
    block: u64,
) -> Option<String> {
    let mut out = Vec::new();
    if let Err(error) = pool.read(slice, range(block, 1), &mut out) {
        return Some(format!("{error}"));
    }
    one.get(&block).and_then(|expected| run_differs(&out[0], block, expected, Root::Live))
}

fn run_differs(run: &ReadBlock, block: u64, expected: &Block, root: Root) -> Option<String> {
    let i = (block - run.range.first.0) as usize;
    let agrees = match (&run.content, expected) {
        (ReadContent::Data(data), Block::Data(version, crc)) => {
            run.version == *version
                && data.crcs()[i] == *crc
                && mooring_terms::crc32c(data.block(i)) == *crc
        }
        (ReadContent::Hole, Block::Hole(version)) => run.version == *version,
        (ReadContent::Hole, Block::Never { discarded, .. }) => {
            run.version == Version::ZERO || Some(run.version) == *discarded
        }
        (ReadContent::Missing, Block::Missing) => true,
        (ReadContent::Missing, Block::Lost(version)) => run.version == *version,
        (ReadContent::Missing, Block::Never { lost, .. }) => *lost,
        _ => false,
    };
    let kind = match run.content {
        ReadContent::Hole => "hole",
        ReadContent::Data(_) => "data",
        ReadContent::Missing => "missing",
    };
    (!agrees).then(|| format!("{root:?} block {block}: {kind} {}, not {expected:?}", run.version))
}

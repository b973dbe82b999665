//! Where a file's blocks are, as far as it was told under a lease.

use std::collections::BTreeMap;

use mooring_sharedfs_core::file::{Mapped, Mapping};
use mooring_sharedfs_core::{FileBlock, Run};

/// Pieces of a file that are known; they don't overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout(BTreeMap<FileBlock, Mapping>);

impl Layout {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many pieces are kept.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What holds `block`, and the blocks behind it up to the end of the piece.
    pub(crate) fn at(&self, block: FileBlock) -> Option<Mapping> {
        let (_, piece) = self.0.range(..=block).next_back()?;
        (block < piece.end()).then(|| part(piece, block, piece.end()))
    }

    /// The first block of `from..end` that nothing is known of.
    pub(crate) fn first_unknown(&self, from: FileBlock, end: FileBlock) -> Option<FileBlock> {
        let mut at = from;
        while at < end {
            match self.at(at) {
                Some(piece) => at = piece.end(),
                None => return Some(at),
            }
        }
        None
    }

    /// Learns of a piece, in the place of what was known there.
    pub(crate) fn put(&mut self, new: Mapping) {
        let end = new.end();
        let overlapping: Vec<FileBlock> = self
            .0
            .range(..end)
            .rev()
            .take_while(|(_, piece)| piece.end() > new.block)
            .map(|(&block, _)| block)
            .collect();
        for block in overlapping {
            let Some(piece) = self.0.remove(&block) else { continue };
            for (from, to) in [(piece.block, new.block), (end, piece.end())] {
                if from < to {
                    self.0.insert(from.max(piece.block), part(&piece, from.max(piece.block), to));
                }
            }
        }
        self.insert_joined(new);
    }

    /// Puts a piece where nothing is, together with those beside it that it goes on from or into.
    fn insert_joined(&mut self, mut new: Mapping) {
        if let Some((_, before)) = self.0.range(..new.block).next_back()
            && let Some(both) = joined(before, &new)
        {
            self.0.remove(&both.block);
            new = both;
        }
        if let Some(behind) = self.0.get(&new.end())
            && let Some(both) = joined(&new, behind)
        {
            self.0.remove(&new.end());
            new = both;
        }
        self.0.insert(new.block, new);
    }
}

/// Two pieces as one, if the second goes on where the first ends, in the file and in the volume.
fn joined(first: &Mapping, second: &Mapping) -> Option<Mapping> {
    let mapped = match (first.mapped, second.mapped) {
        _ if first.end() != second.block => return None,
        (Mapped::Hole, Mapped::Hole) => Mapped::Hole,
        (Mapped::Blocks(a, state), Mapped::Blocks(b, same))
            if state == same && a.end() == b.start =>
        {
            Mapped::Blocks(Run::new(a.start, a.count + b.count), state)
        }
        _ => return None,
    };
    Some(Mapping { block: first.block, count: first.count + second.count, mapped })
}

/// The blocks `from..to` of a piece, which they lie in.
fn part(piece: &Mapping, from: FileBlock, to: FileBlock) -> Mapping {
    let count = to.0 - from.0;
    let mapped = match piece.mapped {
        Mapped::Blocks(run, state) => {
            Mapped::Blocks(Run::new(run.start.plus(from.0 - piece.block.0), count), state)
        }
        other => other,
    };
    Mapping { block: from, count, mapped }
}

#[cfg(test)]
mod tests {
    use mooring_sharedfs_core::BlockAddress;
    use mooring_sharedfs_core::format::ExtentState;

    use super::*;

    fn blocks(at: u64, count: u64, address: u64) -> Mapping {
        let run = Run::new(BlockAddress(address), count);
        let mapped = Mapped::Blocks(run, ExtentState::Written);
        Mapping { block: FileBlock(at), count, mapped }
    }

    #[test]
    fn a_piece_takes_the_place_of_what_was_known() {
        let mut layout = Layout::default();
        let hole = Mapping { block: FileBlock(0), count: 100, mapped: Mapped::Hole };
        layout.put(hole);
        layout.put(blocks(10, 5, 1000));
        layout.put(blocks(12, 1, 7));
        let address = |block| match layout.at(FileBlock(block)).map(|piece| piece.mapped) {
            Some(Mapped::Blocks(run, _)) => Some(run.start.0),
            _ => None,
        };
        assert_eq!(
            [9, 10, 11, 12, 13, 14, 15].map(address),
            [None, Some(1000), Some(1001), Some(7), Some(1003), Some(1004), None]
        );
        assert_eq!(layout.first_unknown(FileBlock(0), FileBlock(100)), None);
        assert_eq!(layout.first_unknown(FileBlock(50), FileBlock(101)), Some(FileBlock(100)));
    }

    #[test]
    fn pieces_that_go_on_are_one() {
        let mut layout = Layout::default();
        // Even with another between them at first.
        for (at, count, address) in [(0, 4, 100), (8, 4, 108), (4, 4, 104), (12, 1, 7), (13, 1, 8)]
        {
            layout.put(blocks(at, count, address));
        }
        assert_eq!(layout.len(), 2);
        assert_eq!(layout.at(FileBlock(5)).map(|piece| piece.count), Some(7));
        layout.put(blocks(5, 1, 300));
        assert_eq!(layout.len(), 4);
        layout.put(blocks(5, 1, 105));
        assert_eq!(layout.len(), 2);
    }
}

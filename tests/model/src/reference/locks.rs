//! flock and locks of ranges, both of open files, never waiting.

use std::ops::Range;

use super::{Answer, Expected, OpenFile, Reference, Refusal};

impl Reference {
    pub fn holds_locks(&self, file: u32) -> bool {
        self.holds_flock(file) || self.holds_ranges(file)
    }

    pub fn holds_flock(&self, file: u32) -> bool {
        self.files.get(&file).is_some_and(|of| self.nodes[&of.node].flocks.contains_key(&file))
    }

    pub fn holds_ranges(&self, file: u32) -> bool {
        let holds = |of: &OpenFile| {
            self.nodes[&of.node].ranges.values().any(|holders| holders.contains_key(&file))
        };
        self.files.get(&file).is_some_and(holds)
    }

    pub(super) fn flock(&mut self, file: u32, exclusive: bool) -> Expected {
        let OpenFile { node, .. } = self.open_file(file)?;
        // Changing a lock frees it first, and may then fail: no promise about that.
        if self.holds_flock(file) {
            return Err(Refusal::Skip);
        }
        let flocks = &mut self.node(node).flocks;
        if flocks.values().any(|held| *held || exclusive) {
            return Err(libc::EWOULDBLOCK.into());
        }
        flocks.insert(file, exclusive);
        Ok(Answer::Done)
    }

    pub(super) fn flock_free(&mut self, file: u32) -> Expected {
        let OpenFile { node, .. } = self.open_file(file)?;
        self.node(node).flocks.remove(&file);
        Ok(Answer::Done)
    }

    pub(super) fn range_lock(
        &mut self,
        file: u32,
        range: Range<u64>,
        exclusive: Option<bool>,
    ) -> Expected {
        let OpenFile { node, how, .. } = self.open_file(file)?;
        let Some(exclusive) = exclusive else {
            for at in range {
                self.node(node).ranges.entry(at).or_default().remove(&file);
            }
            return Ok(Answer::Done);
        };
        let may = if exclusive { how.write } else { how.read };
        if !may {
            return Err(libc::EBADF.into());
        }
        let others = self.nodes[&node].ranges.range(range.clone());
        let conflict = |(of, held): (&u32, &bool)| *of != file && (*held || exclusive);
        if others.flat_map(|(_, holders)| holders).any(conflict) {
            return Err(libc::EAGAIN.into());
        }
        for at in range {
            self.node(node).ranges.entry(at).or_default().insert(file, exclusive);
        }
        Ok(Answer::Done)
    }
}

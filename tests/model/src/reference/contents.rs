//! What files hold.

use super::{Answer, CTIME, Expected, Kind, MTIME, NodeId, OpenFile, Reference, Refusal};
use crate::action::{Space, bytes};

/// Bytes of a file that a mapping covers.
pub const MAPPED: u64 = 256 << 10;

impl Reference {
    pub(super) fn resize(&mut self, id: NodeId, size: u64) {
        self.node(id).contents.resize(size as usize, 0);
    }

    fn size(&self, id: NodeId) -> u64 {
        self.nodes[&id].contents.len() as u64
    }

    fn part(&self, id: NodeId, offset: u64, length: u64) -> Vec<u8> {
        let contents = &self.nodes[&id].contents;
        let from = (offset as usize).min(contents.len());
        let to = ((offset + length) as usize).min(contents.len());
        contents[from..to].to_vec()
    }

    fn put(&mut self, id: NodeId, offset: u64, new: &[u8]) {
        let end = offset + new.len() as u64;
        if end > self.size(id) {
            self.resize(id, end);
        }
        self.node(id).contents[offset as usize..end as usize].copy_from_slice(new);
    }

    pub(super) fn read(&mut self, file: u32, offset: u64, length: u64) -> Expected {
        let OpenFile { node, how, .. } = self.open_file(file)?;
        if !how.read {
            return Err(libc::EBADF.into());
        }
        Ok(Answer::Bytes(self.part(node, offset, length)))
    }

    pub(super) fn write(&mut self, file: u32, offset: u64, length: u64, fill: u64) -> Expected {
        let OpenFile { node, how, .. } = self.open_file(file)?;
        if !how.write {
            return Err(libc::EBADF.into());
        }
        if how.append || length == 0 {
            return Err(Refusal::Skip);
        }
        self.put(node, offset, &bytes(fill, length));
        self.modified(node);
        Ok(Answer::Done)
    }

    pub(super) fn append(&mut self, file: u32, length: u64, fill: u64) -> Expected {
        let OpenFile { node, how, .. } = self.open_file(file)?;
        if !how.append || length == 0 {
            return Err(Refusal::Skip);
        }
        self.put(node, self.size(node), &bytes(fill, length));
        self.modified(node);
        Ok(Answer::Done)
    }

    /// Sets a size; whether that sets times if it was that already is left open.
    fn set_size(&mut self, node: NodeId, size: u64) {
        let before = self.nodes[&node].times;
        let same = self.size(node) == size;
        self.resize(node, size);
        self.modified(node);
        if same {
            for which in [MTIME, CTIME] {
                self.node(node).times[which].from = before[which].from;
            }
        }
    }

    pub(super) fn truncate(&mut self, path: &str, size: u64) -> Expected {
        let node = self.find(path, true)?;
        match self.nodes[&node].kind {
            Kind::Regular => self.set_size(node, size),
            Kind::Directory => return Err(libc::EISDIR.into()),
            _ => return Err(libc::EINVAL.into()),
        }
        Ok(Answer::Done)
    }

    pub(super) fn ftruncate(&mut self, file: u32, size: u64) -> Expected {
        let OpenFile { node, how, .. } = self.open_file(file)?;
        if !how.write {
            return Err(libc::EINVAL.into());
        }
        self.set_size(node, size);
        Ok(Answer::Done)
    }

    pub(super) fn fallocate(
        &mut self,
        file: u32,
        space: Space,
        from: u64,
        length: u64,
    ) -> Expected {
        let OpenFile { node, how, .. } = self.open_file(file)?;
        if !how.write {
            return Err(libc::EBADF.into());
        }
        let (to, size) = (from + length, self.size(node));
        if matches!(space, Space::Punch | Space::Zero) && from < size {
            let last = to.min(size);
            self.node(node).contents[from as usize..last as usize].fill(0);
        }
        if matches!(space, Space::Allocate | Space::Zero) && to > size {
            self.resize(node, to);
        }
        self.modified(node);
        Ok(Answer::Done)
    }

    pub(super) fn sync(&mut self, file: u32) -> Expected {
        self.open_file(file)?;
        Ok(Answer::Done)
    }

    pub(super) fn map_read(&mut self, file: u32, offset: u64, length: u64) -> Expected {
        let OpenFile { node, how, .. } = self.open_file(file)?;
        // Behind the end there is a signal, and no answer.
        if !how.read || how.append || offset + length > self.size(node).min(MAPPED) {
            return Err(Refusal::Skip);
        }
        Ok(Answer::Bytes(self.part(node, offset, length)))
    }

    pub(super) fn map_write(&mut self, file: u32, offset: u64, length: u64, fill: u64) -> Expected {
        let OpenFile { node, how, .. } = self.open_file(file)?;
        let size = self.size(node).min(MAPPED);
        let fits = length > 0 && offset + length <= size;
        if !how.read || !how.write || how.append || !fits {
            return Err(Refusal::Skip);
        }
        self.put(node, offset, &bytes(fill, length));
        self.modified(node);
        Ok(Answer::Done)
    }

    pub(super) fn seek(&mut self, file: u32, offset: u64, hole: bool) -> Expected {
        let OpenFile { node, .. } = self.open_file(file)?;
        if offset >= self.size(node) {
            return Err(libc::ENXIO.into());
        }
        Ok(Answer::Place(node, offset, hole))
    }

    pub(super) fn copy_range(&mut self, from: (u32, u64), to: (u32, u64), length: u64) -> Expected {
        let (source, target) = (self.open_file(from.0)?, self.open_file(to.0)?);
        let within = source.host == target.host && source.node != target.node;
        if !within || length == 0 {
            return Err(Refusal::Skip);
        }
        if !source.how.read || !target.how.write || target.how.append {
            return Err(libc::EBADF.into());
        }
        let copied = self.part(source.node, from.1, length);
        if !copied.is_empty() {
            self.put(target.node, to.1, &copied);
            self.modified(target.node);
        }
        Ok(Answer::Count(copied.len() as u64))
    }
}

//! Writing: into pages under a lease to write, against blocks that are reserved; else as bytes to the
//! coordinator.

use bytes::Bytes;
use mooring_sharedfs_core::coordinator::{Operation, Reply, WritePlace};
use mooring_sharedfs_core::file::Mapped;
use mooring_sharedfs_core::format::{FILE_SIZE_MAX, INLINE_BYTES};
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::{Attributes, Caller, FileBlock, FsError, Ino};
use mooring_terms::BLOCK_SIZE;

use crate::client::{Client, Turn};
use crate::inode::{Inode, Local};
use crate::kernel::{HandleId, KernelOperation, KernelReply};
use crate::replies::{Change, Purpose};
use crate::tasks::{Attempt, Stage, Task, TaskId};

impl Client {
    pub(crate) fn try_write(&mut self, turn: &mut Turn<'_>, id: TaskId, task: &Task) -> Attempt {
        let KernelOperation::Write { handle, cached, ref bytes, .. } = task.request.operation
        else {
            return Attempt::error(FsError::Invalid);
        };
        let Some(ino) = self.handles.get(&handle).map(|handle| handle.ino) else {
            return Attempt::error(FsError::Invalid);
        };
        if bytes.is_empty() {
            return Attempt::Answer(KernelReply::Written(0));
        }
        if matches!(task.stage, Stage::Committing(_)) {
            // It was taken, and goes on as the fsync behind it.
            return self.try_fsync(turn, id, task.request.caller.clone(), &task.stage, handle);
        }
        let now = turn.now;
        let inode = self.inode(ino);
        let launders = cached && inode.recalled.is_some();
        // New bytes would keep the recall from ever being answered; laundered ones it waits for.
        if (inode.recalled.is_some() || inode.rewriting > 0) && !launders {
            return Attempt::Park;
        }
        if inode.lease < LeaseLevel::Write {
            if launders || now < inode.contended_until {
                return self.write_through(turn, id, task, ino, launders);
            }
            self.want_to_write(turn, ino);
            return Attempt::Park;
        }
        if !self.is_fresh(now) {
            return Attempt::Park;
        }
        self.accept(turn, id, task, ino)
    }

    /// Has a lease to write asked for.
    pub(crate) fn want_to_write(&mut self, turn: &mut Turn<'_>, ino: Ino) {
        let inode = self.inode(ino);
        if !inode.lease_asked {
            inode.lease_asked = true;
            let asked = Operation::Lease { ino, level: LeaseLevel::Write };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Lease(ino));
        }
    }

    /// Asks for leases to write that were refused while others wanted the file, too: what is stored into a
    /// mapping without one is seen by nobody else.
    pub(crate) fn look_after_mappings(&mut self, turn: &mut Turn<'_>) {
        while let Some(&(at, ino)) = self.mapped.first()
            && at <= turn.now
        {
            self.mapped.remove(&(at, ino));
            let Some(inode) = self.inodes.get(&ino) else { continue };
            let open = inode.maps > 0 && inode.kernel_pages.is_some();
            if open && inode.lease < LeaseLevel::Write && inode.recalled.is_none() {
                self.want_to_write(turn, ino);
            }
        }
    }

    /// Several clients write the inode: its bytes go to the coordinator.
    fn write_through(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        task: &Task,
        ino: Ino,
        launders: bool,
    ) -> Attempt {
        let KernelOperation::Write { offset, ref bytes, append, kill_privileges, .. } =
            task.request.operation
        else {
            return Attempt::error(FsError::Invalid);
        };
        let place = if append { WritePlace::End } else { WritePlace::At(offset) };
        let bytes = bytes.to_vec();
        let asked = Operation::Write { ino, place, bytes, kill_privileges, launders };
        let change = Change { rewrites: Some(ino), ..Change::of(&[ino]) };
        self.begin_change(&change);
        let caller = task.request.caller.clone();
        self.ask(turn, caller, asked, Vec::new(), Purpose::Task(id, change));
        Attempt::Wait(Stage::Asked)
    }

    pub(crate) fn written_through(&self, asked: &KernelOperation) -> KernelReply {
        match asked {
            KernelOperation::Write { bytes, .. } => KernelReply::Written(bytes.len() as u64),
            _ => KernelReply::Done,
        }
    }

    /// Takes bytes into pages, if all that this needs is there.
    fn accept(&mut self, turn: &mut Turn<'_>, id: TaskId, task: &Task, ino: Ino) -> Attempt {
        let KernelOperation::Write {
            handle,
            offset,
            ref bytes,
            append,
            cached,
            kill_privileges,
            sync,
        } = task.request.operation
        else {
            return Attempt::error(FsError::Invalid);
        };
        let Some(seen) = self.need_attributes(turn, ino) else { return Attempt::Park };
        let offset = if append { seen.size } else { offset };
        let end = offset.saturating_add(bytes.len() as u64);
        if end > FILE_SIZE_MAX {
            return Attempt::error(FsError::TooBig);
        }
        // A laundered page that ends behind the file: the kernel writes whole ones.
        let _ = cached;
        let (from, to) = (FileBlock::of(offset), FileBlock::at_or_after(end));
        let unknown = self.inode(ino).layout.first_unknown(from, to);
        if let Some(block) = unknown {
            self.need_layout(turn, ino, block, to);
            return Attempt::Park;
        }
        let beside = match self.blocks_beside(turn, ino, seen, offset, end) {
            Some(beside) => beside,
            None => return Attempt::Park,
        };
        let blocks: Vec<FileBlock> =
            beside.iter().copied().chain((from.0..to.0).map(FileBlock)).collect();
        let size = seen.size.max(end);
        let needed = self.inodes.get(&ino).map_or(0, |inode| {
            blocks.iter().filter(|&&block| needs_promise(inode, block, size)).count()
        });
        if !self.has_space(turn, needed as u64) {
            return match self.pool.refused {
                true => Attempt::error(FsError::NoSpace { coming: false }),
                false => Attempt::Park,
            };
        }
        if self.dirty_bytes() + bytes.len() > self.options.dirty_max && self.dirty_pages > 0 {
            let all: Vec<Ino> = self.due.iter().map(|&(_, ino)| ino).collect();
            all.into_iter().for_each(|ino| self.write_back(turn, ino));
            return Attempt::Park;
        }
        let size = seen.size.max(end);
        self.put_bytes(ino, offset, bytes, &beside, size);
        let mtime = turn.date;
        let inode = self.inode(ino);
        let before = inode.local;
        inode.local = Some(Local {
            size,
            mtime,
            ctime: mtime,
            kill_privileges: kill_privileges || before.is_some_and(|local| local.kill_privileges),
        });
        if let Some(recalled) = &mut inode.recalled {
            recalled.laundered();
        }
        self.dirty.insert(ino);
        self.unwritten_since(turn.now, ino, true);
        self.write_back_if_full(turn, ino);
        self.poked |= inode_is_recalled(self, ino);
        if sync {
            return self.try_fsync(turn, id, task.request.caller.clone(), &task.stage, handle);
        }
        Attempt::Answer(KernelReply::Written(bytes.len() as u64))
    }

    /// Blocks that must be whole before bytes are put beside what they hold, or that change with them:
    /// `None` until all are there. Those that are not written themselves are returned.
    fn blocks_beside(
        &mut self,
        turn: &mut Turn<'_>,
        ino: Ino,
        seen: Attributes,
        offset: u64,
        end: u64,
    ) -> Option<Vec<FileBlock>> {
        let (first, last) = (FileBlock::of(offset), FileBlock::of(end - 1));
        let mut whole = Vec::new();
        if offset > first.offset() && first.offset() < seen.size {
            whole.push(first);
        }
        if end < last.plus(1).offset() && end < seen.size {
            whole.push(last);
        }
        let mut beside = Vec::new();
        // What lies behind the old end becomes visible: zeros, for whatever is there.
        let tail = FileBlock::of(seen.size);
        if offset > seen.size && seen.size > tail.offset() && tail < first {
            beside.push(tail);
        }
        // A file that grows out of the tree takes along what it has there.
        let zero = FileBlock(0);
        if end > INLINE_BYTES as u64 && first > zero && !beside.contains(&zero) {
            if self.inode(ino).layout.at(zero).is_none() {
                self.need_layout(turn, ino, zero, zero.plus(1));
                return None;
            }
            let piece = self.inode(ino).layout.at(zero);
            if piece.is_some_and(|piece| piece.mapped == Mapped::Inline) {
                beside.push(zero);
            }
        }
        let mut ready = true;
        for &block in whole.iter().chain(&beside) {
            ready &= self.need_pages(turn, ino, block, block.plus(1));
        }
        // Holes stay holes.
        beside.retain(|&block| self.inode(ino).pages.get(block).is_some());
        ready.then_some(beside)
    }

    /// Whether so many blocks can be promised. More are asked for if not, and before there are none: the
    /// more often that happens, the more at once.
    fn has_space(&mut self, turn: &mut Turn<'_>, needed: u64) -> bool {
        let available = self.pool.available();
        let few = available < needed + self.pool.ahead() / 2;
        if few && needed > 0 && !self.pool.asked && !self.pool.refused {
            self.pool.asked = true;
            let want = needed.saturating_sub(available).max(self.pool.ask_for_more());
            let asked = Operation::Reserve { want, near: self.pool.near() };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Reserve);
        }
        available >= needed
    }

    /// There is no space for those who wait for it.
    pub(crate) fn refuse_space(&mut self) {
        self.pool.refuse();
        self.poked = true;
    }

    fn put_bytes(&mut self, ino: Ino, offset: u64, bytes: &Bytes, beside: &[FileBlock], size: u64) {
        let inode = self.inode(ino);
        inode.written += 1;
        let number = inode.written;
        let lacked = self.with_pages(ino, |inode| {
            let mut lacked = 0;
            let mut put = |block: FileBlock, at: usize, from: usize, to: usize| {
                let promise = needs_promise(inode, block, size);
                let part = (bytes, from, to);
                lacked += u64::from(inode.pages.write(block, at, part, number, promise));
            };
            beside.iter().for_each(|&block| put(block, 0, 0, 0));
            let mut done = 0;
            while done < bytes.len() {
                let block = FileBlock::of(offset + done as u64);
                let at = (offset + done as u64 - block.offset()) as usize;
                let to = bytes.len().min(done + BLOCK_SIZE - at);
                put(block, at, done, to);
                done = to;
            }
            lacked
        });
        self.pool.promise(lacked);
    }

    /// close(2): what was written leaves the client, and what failed is told.
    pub(crate) fn try_flush(
        &mut self,
        turn: &mut Turn<'_>,
        stage: &Stage,
        handle: HandleId,
        owner: u64,
    ) -> Attempt {
        let Some(ino) = self.handles.get(&handle).map(|handle| handle.ino) else {
            return Attempt::Answer(KernelReply::Done);
        };
        if matches!(stage, Stage::Parked) {
            self.end_owner(turn, ino, mooring_sharedfs_core::locks::LockSpace::Range, owner);
        }
        if self.inodes.get(&ino).is_some_and(|inode| inode.is_alone()) {
            // What was done here is sent within a moment, whoever closes what.
            self.write_back(turn, ino);
            return match self.take_error(handle) {
                true => Attempt::Answer(self.lost(handle)),
                false => Attempt::Answer(KernelReply::Done),
            };
        }
        match self.commit_up_to(turn, stage, handle, ino) {
            Some(wait) => wait,
            None if self.take_error(handle) => Attempt::Answer(self.lost(handle)),
            None => Attempt::Answer(KernelReply::Done),
        }
    }

    /// fsync(2): data, then its commit, then both on media.
    pub(crate) fn try_fsync(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        caller: Caller,
        stage: &Stage,
        handle: HandleId,
    ) -> Attempt {
        let Some(ino) = self.handles.get(&handle).map(|handle| handle.ino) else {
            return Attempt::error(FsError::Invalid);
        };
        let number = match stage {
            Stage::Committing(number) => *number,
            _ => self.inode(ino).written,
        };
        let wait = self.commit_up_to(turn, stage, handle, ino);
        if let Some(wait) = wait
            && !self.inode(ino).is_being_committed(number)
        {
            return wait;
        }
        if self.has_error(handle) {
            self.take_error(handle);
            return Attempt::Answer(self.lost(handle));
        }
        let purpose = Purpose::Task(id, Change::none());
        self.ask(turn, caller, Operation::Fsync { ino }, Vec::new(), purpose);
        Attempt::Wait(Stage::Syncing(number))
    }

    /// What the coordinator had of a file when it was asked is on media.
    pub(crate) fn synced(&mut self, turn: &mut Turn<'_>, id: TaskId, reply: &Reply) {
        let Some(mut task) = self.tasks.remove(&id) else { return };
        let (KernelOperation::Fsync { handle } | KernelOperation::Write { handle, .. }) =
            task.request.operation
        else {
            return self.reply(turn, &task.request, KernelReply::Done);
        };
        let ino = self.handles.get(&handle).map(|handle| handle.ino);
        if let (Stage::Syncing(number), Some(ino)) = (&task.stage, ino)
            && self.inode(ino).is_dirty()
            && self.inode(ino).committed < *number
            && !self.has_error(handle)
        {
            // The commit before it was not done.
            task.stage = Stage::Committing(*number);
            self.tasks.insert(id, task);
            self.parked.insert(id);
            return;
        }
        let reply = match reply {
            Reply::Refused(error) => KernelReply::Error(*error),
            _ if self.take_error(handle) => self.lost(handle),
            _ => self.written_through(&task.request.operation),
        };
        self.reply(turn, &task.request, reply);
    }

    /// Waits until what is written by now is part of the file, or failed.
    fn commit_up_to(
        &mut self,
        turn: &mut Turn<'_>,
        stage: &Stage,
        handle: HandleId,
        ino: Ino,
    ) -> Option<Attempt> {
        let inode = self.inode(ino);
        let number = match stage {
            Stage::Committing(number) => *number,
            _ => inode.written,
        };
        if !inode.is_dirty() || inode.committed >= number || self.has_error(handle) {
            return None;
        }
        self.inode(ino).hurry = true;
        self.write_back(turn, ino);
        self.send_early(turn);
        Some(Attempt::Wait(Stage::Committing(number)))
    }
}

/// Whether a block has to be promised to bytes for it, in a file of this size.
fn needs_promise(inode: &Inode, block: FileBlock, size: u64) -> bool {
    let held = inode.pages.get(block).is_some_and(|page| page.promised || page.writing);
    let placed = || match inode.layout.at(block).map(|piece| piece.mapped) {
        Some(Mapped::Blocks(..)) => true,
        Some(Mapped::Inline) => size <= INLINE_BYTES as u64,
        _ => false,
    };
    !held && !placed()
}

fn inode_is_recalled(client: &Client, ino: Ino) -> bool {
    client.inodes.get(&ino).is_some_and(|inode| inode.recalled.is_some())
}

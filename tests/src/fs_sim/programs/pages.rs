//! Calls through the page cache: reads, and stores into mappings, whose pages are dirty until they are written
//! back: after a while, when the page is asked back, or when somebody on the host goes past the cache.

use mooring_sharedfs_client::{KernelId, KernelOperation, KernelReply};
use mooring_sharedfs_core::{FileBlock, FsError, Ino};

use super::{Asked, Call, Step, ino};
use crate::fs_sim::checkers::{Register, Result};
use crate::fs_sim::kernel::Dirty;
use crate::fs_sim::{CELL, Happening, Sim};
use crate::sim::CoverageKind as Kind;

impl Sim {
    /// read(2) through the page cache.
    pub(super) fn read_cached(&mut self, host: u32, at: usize, file: usize, cell: u64) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let Some(program) = of.programs.get(at) else { return };
        let (Some((_, id, _)), Some(handle)) = (program.call, program.cached[file]) else { return };
        let ino = ino(file);
        let Some(attributes) = of.kernel.attributes(now, ino) else {
            let operation = KernelOperation::Getattr { ino };
            return self.ask_mount(host, at, Asked::Attributes, operation);
        };
        let offset = cell * CELL;
        if offset + CELL > attributes.size {
            return self.read_cell(host, at, file, cell, &[0; CELL as usize], id);
        }
        let block = FileBlock::of(offset);
        if of.kernel.folios.contains(&(ino, block)) {
            return;
        }
        let from = (offset - block.offset()) as usize;
        if let Some(page) = of.kernel.pages.get(&(ino, block)) {
            let bytes = page[from..from + CELL as usize].to_vec();
            self.coverage.count(Kind::Situation, "a page from the kernel's cache");
            return self.read_cell(host, at, file, cell, &bytes, id);
        }
        of.kernel.folios.insert((ino, block));
        let operation =
            KernelOperation::Read { handle, offset: block.offset(), length: 4096, cached: true };
        self.ask_mount(host, at, Asked::Page(block), operation);
    }

    /// A read through the page cache that has its attributes.
    pub(super) fn read_with(&mut self, host: u32, at: usize, file: usize, cell: u64, size: u64) {
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let Some(program) = of.programs.get(at) else { return };
        let (Some((_, id, _)), Some(handle)) = (program.call, program.cached[file]) else { return };
        let (ino, offset) = (ino(file), cell * CELL);
        if offset + CELL > size {
            return self.read_cell(host, at, file, cell, &[0; CELL as usize], id);
        }
        let block = FileBlock::of(offset);
        let from = (offset - block.offset()) as usize;
        if of.kernel.folios.contains(&(ino, block)) {
            return;
        }
        if let Some(page) = of.kernel.pages.get(&(ino, block)) {
            let bytes = page[from..from + CELL as usize].to_vec();
            return self.read_cell(host, at, file, cell, &bytes, id);
        }
        of.kernel.folios.insert((ino, block));
        let operation =
            KernelOperation::Read { handle, offset: block.offset(), length: 4096, cached: true };
        self.ask_mount(host, at, Asked::Page(block), operation);
    }

    /// A store into a mapping: it needs the file's size, and its page.
    pub(super) fn map_write(&mut self, host: u32, at: usize, file: usize, cell: u64) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        match of.kernel.attributes(now, ino(file)) {
            Some(attributes) => self.store_with(host, at, file, cell, attributes.size),
            None => {
                let operation = KernelOperation::Getattr { ino: ino(file) };
                self.ask_mount(host, at, Asked::Attributes, operation);
            }
        }
    }

    pub(super) fn store_with(&mut self, host: u32, at: usize, file: usize, cell: u64, size: u64) {
        // The fault comes through the descriptor that was mapped, or the page is there through another.
        let through_direct = self.prng.percent(50);
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let Some(program) = of.programs.get_mut(at) else { return };
        let mapped = if through_direct { program.direct[file] } else { program.cached[file] };
        let (Some((_, id, _)), Some(handle)) = (program.call, mapped) else { return };
        let (ino, offset) = (ino(file), cell * CELL);
        if offset + CELL > size {
            // There is no page behind the end, but a signal.
            return self.refused(host, at, id);
        }
        let block = FileBlock::of(offset);
        if of.kernel.is_locked(ino, block) {
            return;
        }
        let Some(page) = of.kernel.pages.get_mut(&(ino, block)) else {
            of.kernel.folios.insert((ino, block));
            let operation = KernelOperation::Read {
                handle,
                offset: block.offset(),
                length: 4096,
                cached: true,
            };
            return self.ask_mount(host, at, Asked::Page(block), operation);
        };
        let from = (offset - block.offset()) as usize;
        let bytes = program.value.to_le_bytes().repeat(CELL as usize / 8);
        page[from..from + CELL as usize].copy_from_slice(&bytes);
        program.step = Step::Dirty;
        let length = (size - block.offset()).min(4096) as usize;
        let dirty = Dirty { program: at, call: id, length };
        let stores = of.kernel.dirty.entry((ino, block)).or_default();
        stores.push(dirty);
        let mount = of.mount;
        let delay = self.prng.micros(10, 60_000);
        self.queue.after(delay, Happening::WriteBack(host, mount, ino));
    }

    /// Whatever is dirty of an inode is written.
    pub(in crate::fs_sim) fn write_back(&mut self, host: u32, ino: Ino) {
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let open =
            of.programs.iter().find_map(|program| program.direct.get(ino.0 as usize - 2)?.as_ref());
        let Some(&handle) = open else { return };
        for (block, bytes) in of.kernel.begin_writing(ino) {
            of.requests += 1;
            let id = KernelId(of.requests);
            of.written_back.insert(id, (ino, block));
            let operation = KernelOperation::Write {
                handle,
                offset: block.offset(),
                bytes: bytes.into(),
                append: false,
                cached: true,
                kill_privileges: false,
                sync: false,
            };
            let request = mooring_sharedfs_client::KernelRequest {
                id,
                caller: mooring_sharedfs_core::Caller::ROOT,
                operation,
            };
            let event = Box::new(mooring_sharedfs_client::Event::Kernel(request));
            let (mount, delay) = (of.mount, self.prng.micros(2, 40));
            self.queue.after(delay, Happening::Host(host, mount, event));
        }
    }

    /// A page that was dirty has been written, and the stores into it return; or it is lost.
    pub(super) fn written_back(&mut self, host: u32, id: KernelId, reply: &KernelReply) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let Some((ino, block)) = of.written_back.remove(&id) else { return };
        let mount = of.mount;
        let stores = of.kernel.end_writing(ino, block);
        let written = matches!(reply, KernelReply::Written(_));
        if !written {
            of.kernel.pages.remove(&(ino, block));
        }
        of.kernel.stale_attributes(ino);
        for Dirty { program, call, .. } in stores {
            let current = self.program(host, program).and_then(|program| program.call);
            let Some((Call::MapWrite(file, cell), ..)) = current.filter(|now| now.1 == call) else {
                continue;
            };
            if written {
                self.coverage.count(Kind::Situation, "a dirty page is written back");
                let value = (call << 8) | 1;
                self.fsynced.returned(Register::Cell(file, cell), value, mount, now);
                self.done(host, program, call, Result::Done(value));
            } else {
                self.failed(host, program, call);
            }
        }
        if !written && !matches!(reply, KernelReply::Error(FsError::Unavailable)) {
            self.fail("answers fit", format!("a dirty page was answered {reply:?}"));
        }
        self.end_invalidations(host);
        self.advance_all(host);
    }
}

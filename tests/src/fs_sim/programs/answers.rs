//! What comes of calls: answers of the mount, kept in the kernel's caches and told to the checkers.

use mooring_sharedfs_client::{KernelId, KernelReply};
use mooring_sharedfs_core::{FileBlock, FsError};

use super::{Asked, Call, Step, ino};
use crate::fs_sim::checkers::{Act, Register, Result, foreign};
use crate::fs_sim::{CELL, CELLS, FILES, Happening, LOG, Sim};
use crate::sim::CoverageKind as Kind;

impl Sim {
    /// The mount has answered the kernel.
    pub(in crate::fs_sim) fn replied(&mut self, host: u32, id: KernelId, reply: KernelReply) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let Some(at) = of.asked.remove(&id) else { return self.written_back(host, id, &reply) };
        let Some(program) = of.programs.get_mut(at) else { return };
        let (Some((call, number, _)), Step::Asked(asked, version)) =
            (program.call, std::mem::replace(&mut program.step, Step::Ready))
        else {
            return;
        };
        program.kernel_id = None;
        match (asked, &reply) {
            (Asked::Page(block), _) => {
                let (Call::ReadCell(file, cell, _) | Call::MapWrite(file, cell)) = call else {
                    return;
                };
                of.kernel.folios.remove(&(ino(file), block));
                match reply {
                    KernelReply::Bytes(bytes) => {
                        let mut bytes = bytes.concat();
                        bytes.resize(4096, 0);
                        let from = (cell * CELL - block.offset()) as usize;
                        let of_cell = bytes[from..from + CELL as usize].to_vec();
                        of.kernel.pages.insert((ino(file), block), bytes);
                        self.end_invalidations(host);
                        // A store begins anew: an invalidation may have taken the page.
                        if let Call::ReadCell(..) = call {
                            self.read_cell(host, at, file, cell, &of_cell, number);
                        }
                    }
                    _ => {
                        self.end_invalidations(host);
                        self.failed(host, at, number);
                    }
                }
            }
            (Asked::Attributes, KernelReply::Attributes(attributes, time)) => {
                of.kernel.keep_attributes(*attributes, now + *time, version);
                match call {
                    // Even if they may not be kept, this call goes on with them.
                    Call::ReadCell(file, cell, _) => {
                        self.read_with(host, at, file, cell, attributes.size);
                    }
                    Call::MapWrite(file, cell) => {
                        self.store_with(host, at, file, cell, attributes.size);
                    }
                    _ => {}
                }
            }
            (Asked::Attributes, _) => self.failed(host, at, number),
            (Asked::Source, KernelReply::Entry(entry)) => {
                let ino = entry.attributes.ino;
                let Call::Link(_, to) = call else { return };
                program.linked = Some(ino);
                let mount = of.mount;
                self.begin(number, mount, Register::Names, Act::Link(ino.0, to));
            }
            (Asked::Source, KernelReply::NoEntry(_)) => self.refused(host, at, number),
            (Asked::Source, _) => self.failed(host, at, number),
            _ => self.call_replied(host, at, call, number, version, reply),
        }
        self.advance_all(host);
    }

    pub(super) fn read_cell(
        &mut self,
        host: u32,
        at: usize,
        file: usize,
        cell: u64,
        bytes: &[u8],
        id: u64,
    ) {
        let register = Register::Cell(file, cell);
        match foreign::value_of(bytes, register, &self.written) {
            Ok(value) => {
                let now = self.queue.now();
                let call = self.program(host, at).and_then(|program| program.call);
                let began = call.map_or(now, |(_, _, began)| began);
                let held = self.fsynced.read(register, value, began);
                self.check(held);
                self.done(host, at, id, Result::Done(value));
            }
            Err(violation) => self.check(Err(violation)),
        }
    }

    pub(super) fn call_replied(
        &mut self,
        host: u32,
        at: usize,
        call: Call,
        id: u64,
        version: u64,
        reply: KernelReply,
    ) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let mount = of.mount;
        let began = of.programs[at].call.map_or(now, |(_, _, began)| began);
        let value = of.programs[at].value;
        match (call, reply) {
            (_, KernelReply::Error(FsError::Interrupted)) => self.failed(host, at, id),
            (Call::Open, KernelReply::Opened(handle, flags)) => {
                let program = &mut of.programs[at];
                let file = program.opening / 2;
                if program.opening.is_multiple_of(2) {
                    program.direct[file] = Some(handle);
                } else {
                    program.cached[file] = Some(handle);
                    if !flags.keep_cache {
                        of.kernel.drop_pages(ino(file));
                    }
                }
                let program = &mut of.programs[at];
                program.opening += 1;
                program.step = Step::Ready;
                if program.opening > FILES * 2 {
                    self.done(host, at, id, Result::Done(0));
                }
            }
            (Call::Lookup(of_name), KernelReply::Entry(entry)) => {
                of.kernel.keep_entry(now, of_name, &entry, version);
                self.forget(host, entry.attributes.ino);
                self.done(host, at, id, Result::Done(entry.attributes.ino.0));
            }
            (Call::Lookup(of_name), KernelReply::NoEntry(time)) => {
                of.kernel.keep_name(of_name, None, now + time, version);
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Create(of_name), KernelReply::Created(entry, handle, _)) => {
                let epoch = of.kernel.epoch();
                of.kernel.keep_entry(now, of_name, &entry, epoch.wrapping_sub(1));
                self.forget(host, entry.attributes.ino);
                self.release(host, handle);
                self.done(host, at, id, Result::Done(entry.attributes.ino.0));
            }
            (Call::Symlink(of_name), KernelReply::Entry(entry)) => {
                let epoch = of.kernel.epoch();
                of.kernel.keep_entry(now, of_name, &entry, epoch.wrapping_sub(1));
                self.forget(host, entry.attributes.ino);
                self.done(host, at, id, Result::Done(entry.attributes.ino.0));
            }
            (Call::Link(_, to), KernelReply::Entry(entry)) => {
                of.kernel.forget_name(to);
                of.kernel.stale_attributes(entry.attributes.ino);
                self.forget(host, entry.attributes.ino);
                self.done(host, at, id, Result::Done(0));
            }
            (
                Call::Link(_, to),
                KernelReply::Error(FsError::Exists | FsError::NotFound | FsError::Stale),
            ) => {
                of.kernel.forget_name(to);
                self.done(host, at, id, Result::Refused);
            }
            (Call::Rename(from, to, _), KernelReply::Done) => {
                of.kernel.forget_name(from);
                of.kernel.forget_name(to);
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Rename(from, to, _), KernelReply::Error(FsError::NotFound)) => {
                of.kernel.forget_name(from);
                of.kernel.forget_name(to);
                self.done(host, at, id, Result::Refused);
            }
            (
                Call::Create(of_name) | Call::Symlink(of_name),
                KernelReply::Error(FsError::Exists),
            ) => {
                of.kernel.forget_name(of_name);
                self.done(host, at, id, Result::Refused);
            }
            (Call::Unlink(of_name), KernelReply::Done) => {
                of.kernel.forget_name(of_name);
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Unlink(of_name), KernelReply::Error(FsError::NotFound)) => {
                of.kernel.forget_name(of_name);
                self.done(host, at, id, Result::Refused);
            }
            (Call::ReadCell(file, cell, _), KernelReply::Bytes(bytes)) => {
                let mut bytes = bytes.concat();
                bytes.resize(CELL as usize, 0);
                self.read_cell(host, at, file, cell, &bytes, id);
            }
            (Call::WriteCell(file, cell), KernelReply::Written(_)) => {
                of.kernel.stale_attributes(ino(file));
                let block = FileBlock::of(cell * CELL);
                of.kernel.pages.remove(&(ino(file), block));
                self.fsynced.returned(Register::Cell(file, cell), value, mount, now);
                self.done(host, at, id, Result::Done(value));
            }
            (Call::Truncate(file, cells), KernelReply::Attributes(attributes, _)) => {
                of.kernel.stale_attributes(attributes.ino);
                of.kernel.drop_pages(attributes.ino);
                for cell in cells..CELLS {
                    self.fsynced.returned(Register::Cell(file, cell), 0, mount, now);
                }
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Append, KernelReply::Written(_)) => {
                self.appends.returned(value, now);
                self.done(host, at, id, Result::Done(value));
            }
            (Call::Chmod(file, mode), KernelReply::Attributes(attributes, _)) => {
                self.fsynced.returned(Register::Mode(file), u64::from(mode), mount, now);
                of.kernel.stale_attributes(attributes.ino);
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Stat(file), KernelReply::Attributes(attributes, time)) => {
                let mode = u64::from(attributes.mode.bits());
                let held = self.fsynced.read(Register::Mode(file), mode, began);
                self.check(held);
                let Some(of) = self.hosts.get_mut(&host) else { return };
                of.kernel.keep_attributes(attributes, now + time, version);
                self.done(host, at, id, Result::Done(u64::from(attributes.mode.bits())));
            }
            (Call::Fsync(file), KernelReply::Done) => {
                if file == LOG {
                    self.appends.synced(mount, began);
                } else {
                    self.fsynced.synced(file, mount, began, now);
                }
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Lock(file, flock), KernelReply::Done) => {
                of.programs[at].holds = Some((file, flock));
                self.lock_given(host, at, file, flock);
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Unlock(..), KernelReply::Done) => {
                of.programs[at].holds = None;
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Close(_), KernelReply::Done) => self.done(host, at, id, Result::Done(0)),
            (Call::ReadLog, KernelReply::Bytes(bytes)) => {
                let bytes = bytes.concat();
                let program = &mut of.programs[at];
                program.step = Step::Ready;
                if bytes.is_empty() {
                    let log = std::mem::take(&mut program.log);
                    self.log_read(&log);
                    self.done(host, at, id, Result::Done(0));
                } else {
                    program.log.extend(bytes);
                }
            }
            (_, KernelReply::Error(FsError::NoSpace { .. })) => {
                self.coverage.count(Kind::Situation, "no space");
                self.refused(host, at, id);
            }
            (_, KernelReply::Error(FsError::Unavailable)) => {
                self.coverage.count(Kind::Situation, "an error");
                self.failed(host, at, id);
            }
            (call, reply) => {
                self.fail("answers fit", format!("{call:?} was answered {reply:?}"));
            }
        }
    }

    pub(super) fn unlock_kernel(&mut self, host: u32, at: usize) {
        if let Some(of) = self.hosts.get_mut(&host) {
            of.kernel.locked.retain(|_, by| *by != at);
        }
    }

    /// A call has returned.
    pub(super) fn done(&mut self, host: u32, at: usize, id: u64, result: Result) {
        self.unlock_kernel(host, at);
        let Some(program) = self.program(host, at) else { return };
        let calls = std::mem::take(&mut program.calls);
        (program.call, program.step) = (None, Step::Ready);
        for call in calls {
            self.end(call, Result::Done(0));
        }
        self.end(id, result);
        self.next(host, at);
    }

    /// A call has failed, and nobody knows whether it was done.
    pub(super) fn failed(&mut self, host: u32, at: usize, id: u64) {
        self.unlock_kernel(host, at);
        let Some(program) = self.program(host, at) else { return };
        let calls = std::mem::take(&mut program.calls);
        (program.call, program.step) = (None, Step::Ready);
        for call in calls.into_iter().chain([id]) {
            self.unknown(call);
        }
        self.next(host, at);
    }

    /// A call was refused, and did nothing.
    pub(super) fn refused(&mut self, host: u32, at: usize, id: u64) {
        self.unlock_kernel(host, at);
        let Some(program) = self.program(host, at) else { return };
        let calls = std::mem::take(&mut program.calls);
        (program.call, program.step) = (None, Step::Ready);
        for call in calls.into_iter().chain([id]) {
            self.never(call);
        }
        self.next(host, at);
    }

    pub(super) fn next(&mut self, host: u32, at: usize) {
        let linked = self.program(host, at).and_then(|program| program.linked.take());
        if let Some(ino) = linked {
            self.forget(host, ino);
        }
        let mount = self.hosts[&host].mount;
        let delay = self.prng.micros(10, 100_000);
        self.queue.after(delay, Happening::Work(host, mount, at));
    }
}

//! What runs on the hosts: programs that make one system call after another, through the kernel's caches
//! and locks.

use mooring_sharedfs_client::{HandleId, KernelId, KernelOperation, KernelReply, LockKind};
use mooring_sharedfs_core::locks::{LockMode, LockRange, LockSpace};
use mooring_sharedfs_core::ops::SetAttributes;
use mooring_sharedfs_core::{Access, Caller, FileBlock, FsError, Ino, Mode, Name};
use mooring_terms::Time;

use super::checkers::appends::RECORD;
use super::checkers::{Act, Register, Result, foreign};
use super::{CELL, CELLS, FILES, Happening, LOG, NAMES, Sim};
use crate::sim::CoverageKind as Kind;

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Open,
    Lookup(u8),
    Create(u8),
    Unlink(u8),
    ReadCell(usize, u64, bool),
    WriteCell(usize, u64),
    Truncate(usize, u64),
    Append,
    Fsync(usize),
    Chmod(usize, u16),
    Stat(usize),
    Lock(usize, bool),
    Unlock(usize, bool),
    Close(usize),
    ReadLog,
}

/// Where a call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It may go on.
    Ready,
    /// It waits for an answer to this, which was asked at these versions of the kernel's caches.
    Asked(Asked, u64),
}

/// What the kernel asked the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Call,
    Attributes,
    Page(FileBlock),
}

/// One program.
pub struct Program {
    pub call: Option<(Call, u64, Time)>,
    pub step: Step,
    pub kernel_id: Option<KernelId>,
    /// Of each file: past the page cache, and through it.
    pub direct: [Option<HandleId>; FILES + 1],
    pub cached: [Option<HandleId>; FILES + 1],
    opening: usize,
    value: u64,
    pub left: u32,
    holds: Option<(usize, bool)>,
    /// What a truncate does to cells, one number each.
    calls: Vec<u64>,
    log: Vec<u8>,
}

impl Program {
    pub fn new(left: u32) -> Self {
        Self {
            call: None,
            step: Step::Ready,
            kernel_id: None,
            direct: [None; FILES + 1],
            cached: [None; FILES + 1],
            opening: 0,
            value: 0,
            left,
            holds: None,
            calls: Vec::new(),
            log: Vec::new(),
        }
    }
}

fn ino(file: usize) -> Ino {
    Ino(2 + file as u64)
}

fn name(name: u8) -> Name {
    Name::new(&[b'n', b'0' + name]).expect("a name")
}

fn all() -> Access {
    Access::READ.and(Access::WRITE)
}

impl Sim {
    /// The next call of a program.
    fn choose(&mut self, host: u32, at: usize) -> Call {
        let roll = self.prng.within(0..100);
        let file = self.prng.within(0..FILES as u64) as usize;
        let cell = self.prng.within(0..CELLS);
        let name = self.prng.within(0..u64::from(NAMES)) as u8;
        let program = &self.hosts[&host].programs[at];
        if program.direct[LOG].is_none() {
            return Call::Open;
        }
        if let Some((file, flock)) = program.holds
            && roll < 30
        {
            return Call::Unlock(file, flock);
        }
        let may_lock = program.holds.is_none();
        match roll {
            0..24 => Call::ReadCell(file, cell, roll.is_multiple_of(2)),
            24..46 => Call::WriteCell(file, cell),
            46..49 => {
                // Often to where a file lies in the tree, out of which it then grows again.
                let most = if roll == 46 { CELLS } else { 3 };
                Call::Truncate(file, self.prng.within(0..most))
            }
            49..56 => Call::Append,
            56..61 => Call::Fsync(self.prng.within(0..FILES as u64 + 1) as usize),
            61..68 => Call::Lookup(name),
            68..75 => Call::Create(name),
            75..81 => Call::Unlink(name),
            81..85 => Call::Chmod(file, self.prng.within(1..512) as u16),
            85..91 => Call::Stat(file),
            91..97 if may_lock => Call::Lock(file, roll.is_multiple_of(2)),
            97 => Call::Close(file),
            _ => Call::Lookup(name),
        }
    }

    /// Begins the next call of a program, or ends its work.
    pub(super) fn work(&mut self, host: u32, mount: u64, at: usize) {
        let over = self.reading_log;
        let Some(of) = self.hosts.get_mut(&host).filter(|of| of.mount == mount) else { return };
        let Some(program) = of.programs.get_mut(at) else { return };
        if program.call.is_some() || (program.left == 0 && !over) {
            return;
        }
        program.left = program.left.saturating_sub(1);
        let call = if over { self.final_call(host, at) } else { self.choose(host, at) };
        let Some(program) = self.program(host, at) else { return };
        program.log.clear();
        let now = self.queue.now();
        self.calls += 1;
        let id = self.calls;
        self.coverage.count(Kind::Operation, call_name(call));
        if let Some(program) = self.program(host, at) {
            program.call = Some((call, id, now));
            program.step = Step::Ready;
            program.value = (id << 8) | 1;
            program.calls.clear();
        }
        self.invoked(host, at, call, id);
        self.advance(host, at);
    }

    fn final_call(&mut self, host: u32, at: usize) -> Call {
        let opened = self.hosts[&host].programs[at].direct[LOG].is_some();
        match opened {
            true if self.final_reads < CELLS * FILES as u64 => {
                let next = self.final_reads;
                self.final_reads += 1;
                Call::ReadCell((next / CELLS) as usize, next % CELLS, false)
            }
            true => Call::ReadLog,
            false => Call::Open,
        }
    }

    fn program(&mut self, host: u32, at: usize) -> Option<&mut Program> {
        self.hosts.get_mut(&host)?.programs.get_mut(at)
    }

    fn invoked(&mut self, host: u32, at: usize, call: Call, id: u64) {
        let mount = self.hosts[&host].mount;
        let now = self.queue.now();
        let value = (id << 8) | 1;
        match call {
            Call::ReadCell(file, cell, _) => {
                self.begin(id, mount, Register::Cell(file, cell), Act::Read);
            }
            Call::WriteCell(file, cell) => {
                let register = Register::Cell(file, cell);
                self.written.insert(value, register);
                self.fsynced.began(register, value, mount, now);
                self.begin(id, mount, register, Act::Write(value));
            }
            Call::Truncate(file, cells) => {
                let mut calls = Vec::new();
                for cell in cells..CELLS {
                    self.calls += 1;
                    calls.push(self.calls);
                    let register = Register::Cell(file, cell);
                    self.fsynced.began(register, 0, mount, now);
                    self.begin(self.calls, mount, register, Act::Write(0));
                }
                if let Some(program) = self.program(host, at) {
                    program.calls = calls;
                }
            }
            Call::Append => self.appends.began(value, mount),
            Call::Lookup(name) => self.begin(id, mount, Register::Name(name), Act::Read),
            Call::Create(name) => self.begin(id, mount, Register::Name(name), Act::Create),
            Call::Unlink(name) => self.begin(id, mount, Register::Name(name), Act::Unlink),
            Call::Chmod(file, mode) => {
                self.begin(id, mount, Register::Mode(file), Act::Write(u64::from(mode)));
            }
            Call::Stat(file) => self.begin(id, mount, Register::Mode(file), Act::Read),
            _ => {}
        }
    }

    /// All programs of a host that don't wait for an answer try again: a lock may be free.
    pub(super) fn advance_all(&mut self, host: u32) {
        let count = self.hosts[&host].programs.len();
        for at in 0..count {
            self.advance(host, at);
        }
    }

    fn advance(&mut self, host: u32, at: usize) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let Some(program) = of.programs.get(at) else { return };
        let (Some((call, id, _)), Step::Ready) = (program.call, program.step.clone()) else {
            return;
        };
        let handle = |file: usize| program.direct[file];
        let locks = match call {
            Call::Create(_) | Call::Unlink(_) => Some(Ino::ROOT),
            Call::WriteCell(file, _) | Call::Truncate(file, _) | Call::Chmod(file, _) => {
                Some(ino(file))
            }
            Call::Append => Some(ino(LOG)),
            _ => None,
        };
        if let Some(ino) = locks {
            if of.kernel.locked.get(&ino).is_some_and(|&by| by != at) {
                return;
            }
            of.kernel.locked.insert(ino, at);
        }
        let operation = match call {
            Call::Open => {
                let file = program.opening / 2;
                let access = if program.opening.is_multiple_of(2) { all() } else { Access::READ };
                KernelOperation::Open { ino: ino(file), access }
            }
            Call::Lookup(of_name) => {
                if let Some(known) = of.kernel.name(now, of_name) {
                    self.coverage.count(Kind::Situation, "a name from the kernel's cache");
                    let value = known.map_or(0, |ino| ino.0);
                    return self.done(host, at, id, Result::Done(value));
                }
                KernelOperation::Lookup { dir: Ino::ROOT, name: name(of_name) }
            }
            Call::Create(of_name) => KernelOperation::Create {
                dir: Ino::ROOT,
                name: name(of_name),
                modes: (Mode::new(0o644), Mode::new(0o022)),
                exclusive: true,
                access: all(),
            },
            Call::Unlink(of_name) => {
                KernelOperation::Unlink { dir: Ino::ROOT, name: name(of_name) }
            }
            Call::ReadCell(file, cell, false) => {
                let Some(handle) = handle(file) else { return };
                let (offset, length) = (cell * CELL, CELL);
                KernelOperation::Read { handle, offset, length, cached: false }
            }
            Call::ReadCell(file, cell, true) => return self.read_cached(host, at, file, cell),
            Call::WriteCell(file, cell) => {
                let Some(handle) = handle(file) else { return };
                let bytes = program.value.to_le_bytes().repeat(CELL as usize / 8);
                let offset = cell * CELL;
                write(handle, offset, bytes, false)
            }
            Call::Append => {
                let Some(handle) = handle(LOG) else { return };
                let bytes = program.value.to_le_bytes().repeat(RECORD / 8);
                write(handle, 0, bytes, true)
            }
            Call::Truncate(file, cells) => {
                let size = Some(cells * CELL);
                let set = SetAttributes { size, by_handle: true, ..SetAttributes::default() };
                KernelOperation::Setattr { ino: ino(file), set }
            }
            Call::Chmod(file, mode) => {
                let mode = Some(Mode::new(mode));
                let set = SetAttributes { mode, ..SetAttributes::default() };
                KernelOperation::Setattr { ino: ino(file), set }
            }
            Call::Stat(file) => {
                if let Some(attributes) = of.kernel.attributes(now, ino(file)) {
                    self.coverage.count(Kind::Situation, "attributes from the kernel's cache");
                    let mode = u64::from(attributes.mode.bits());
                    return self.done(host, at, id, Result::Done(mode));
                }
                KernelOperation::Getattr { ino: ino(file) }
            }
            Call::Fsync(file) => {
                let Some(handle) = handle(file) else { return };
                KernelOperation::Fsync { handle }
            }
            Call::Close(file) => {
                let Some(handle) = handle(file) else { return };
                // Closing any descriptor of a file frees the process's ranges of it.
                let who = (of.mount, at);
                if program.holds == Some((file, false)) {
                    of.programs[at].holds = None;
                }
                self.locks.freed(file, false, who);
                KernelOperation::Flush { handle, owner: at as u64 }
            }
            Call::Lock(file, flock) => lock(file, flock, at, LockKind::Wait(LockMode::Write)),
            Call::Unlock(file, flock) => {
                let mount = of.mount;
                self.locks.freed(file, flock, (mount, at));
                lock(file, flock, at, LockKind::Unlock)
            }
            Call::ReadLog => {
                let Some(handle) = handle(LOG) else { return };
                let offset = program.log.len() as u64;
                KernelOperation::Read { handle, offset, length: 1 << 16, cached: false }
            }
        };
        self.ask_mount(host, at, Asked::Call, operation);
    }

    /// read(2) through the page cache.
    fn read_cached(&mut self, host: u32, at: usize, file: usize, cell: u64) {
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
        let (offset, length) = (block.offset(), 4096);
        let operation = KernelOperation::Read { handle, offset, length, cached: true };
        self.ask_mount(host, at, Asked::Page(block), operation);
    }

    fn ask_mount(&mut self, host: u32, at: usize, asked: Asked, operation: KernelOperation) {
        let Some(of) = self.hosts.get_mut(&host) else { return };
        of.requests += 1;
        let id = KernelId(of.requests);
        let version = match &operation {
            KernelOperation::Lookup { .. } => of.kernel.epoch(),
            KernelOperation::Getattr { ino } => of.kernel.version(*ino),
            _ => 0,
        };
        of.asked.insert(id, at);
        if let Some(program) = of.programs.get_mut(at) {
            program.step = Step::Asked(asked, version);
            program.kernel_id = Some(id);
            let blocking =
                matches!(operation, KernelOperation::Lock { kind: LockKind::Wait(_), .. });
            if blocking && self.prng.percent(30) {
                let after = self.prng.millis(5, 1500);
                let mount = of.mount;
                self.queue.after(after, Happening::Interrupt(host, mount, id));
            }
        }
        let delay = self.prng.micros(2, 40);
        let request =
            mooring_sharedfs_client::KernelRequest { id, caller: Caller::ROOT, operation };
        let mount = self.hosts[&host].mount;
        let event = Box::new(mooring_sharedfs_client::Event::Kernel(request));
        self.queue.after(delay, Happening::Host(host, mount, event));
    }

    /// The mount has answered the kernel.
    pub(super) fn replied(&mut self, host: u32, id: KernelId, reply: KernelReply) {
        let now = self.queue.now();
        let Some(of) = self.hosts.get_mut(&host) else { return };
        let Some(at) = of.asked.remove(&id) else { return };
        let Some(program) = of.programs.get_mut(at) else { return };
        let (Some((call, number, _)), Step::Asked(asked, version)) =
            (program.call, std::mem::replace(&mut program.step, Step::Ready))
        else {
            return;
        };
        program.kernel_id = None;
        match (asked, &reply) {
            (Asked::Page(block), _) => {
                let Call::ReadCell(file, cell, _) = call else { return };
                of.kernel.folios.remove(&(ino(file), block));
                match reply {
                    KernelReply::Bytes(bytes) => {
                        let mut bytes = bytes.concat();
                        bytes.resize(4096, 0);
                        let from = (cell * CELL - block.offset()) as usize;
                        let of_cell = bytes[from..from + CELL as usize].to_vec();
                        of.kernel.pages.insert((ino(file), block), bytes);
                        self.end_invalidations(host);
                        self.read_cell(host, at, file, cell, &of_cell, number);
                    }
                    _ => {
                        self.end_invalidations(host);
                        self.failed(host, at, number);
                    }
                }
            }
            (Asked::Attributes, KernelReply::Attributes(attributes, time)) => {
                of.kernel.keep_attributes(*attributes, now + *time, version);
                let Call::ReadCell(file, cell, _) = call else { return };
                // Even if they may not be kept, this read goes on with them.
                self.read_with(host, at, file, cell, attributes.size);
            }
            (Asked::Attributes, _) => self.failed(host, at, number),
            _ => self.call_replied(host, at, call, number, version, reply),
        }
        self.advance_all(host);
    }

    /// A read through the page cache that has its attributes.
    fn read_with(&mut self, host: u32, at: usize, file: usize, cell: u64, size: u64) {
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
        let (offset, length) = (block.offset(), 4096);
        let operation = KernelOperation::Read { handle, offset, length, cached: true };
        self.ask_mount(host, at, Asked::Page(block), operation);
    }

    fn read_cell(&mut self, host: u32, at: usize, file: usize, cell: u64, bytes: &[u8], id: u64) {
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

    fn call_replied(
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
            (Call::Create(of_name), KernelReply::Error(FsError::Exists)) => {
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
            (Call::Chmod(..), KernelReply::Attributes(attributes, _)) => {
                of.kernel.stale_attributes(attributes.ino);
                self.done(host, at, id, Result::Done(0));
            }
            (Call::Stat(_), KernelReply::Attributes(attributes, time)) => {
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

    fn unlock_kernel(&mut self, host: u32, at: usize) {
        if let Some(of) = self.hosts.get_mut(&host) {
            of.kernel.locked.retain(|_, by| *by != at);
        }
    }

    /// A call has returned.
    fn done(&mut self, host: u32, at: usize, id: u64, result: Result) {
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
    fn failed(&mut self, host: u32, at: usize, id: u64) {
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
    fn refused(&mut self, host: u32, at: usize, id: u64) {
        self.unlock_kernel(host, at);
        let Some(program) = self.program(host, at) else { return };
        let calls = std::mem::take(&mut program.calls);
        (program.call, program.step) = (None, Step::Ready);
        for call in calls.into_iter().chain([id]) {
            self.never(call);
        }
        self.next(host, at);
    }

    fn next(&mut self, host: u32, at: usize) {
        let mount = self.hosts[&host].mount;
        let delay = self.prng.micros(10, 100_000);
        self.queue.after(delay, Happening::Work(host, mount, at));
    }
}

fn write(handle: HandleId, offset: u64, bytes: Vec<u8>, append: bool) -> KernelOperation {
    KernelOperation::Write {
        handle,
        offset,
        bytes: bytes.into(),
        append,
        cached: false,
        kill_privileges: false,
        sync: false,
    }
}

fn lock(file: usize, flock: bool, at: usize, kind: LockKind) -> KernelOperation {
    let space = if flock { LockSpace::Flock } else { LockSpace::Range };
    let owner = at as u64 + if flock { 1000 } else { 0 };
    let range = LockRange::ALL;
    KernelOperation::Lock { ino: ino(file), space, owner, kind, range, pid: 1 }
}

fn call_name(call: Call) -> &'static str {
    match call {
        Call::Open => "open",
        Call::Lookup(_) => "lookup",
        Call::Create(_) => "create",
        Call::Unlink(_) => "unlink",
        Call::ReadCell(_, _, true) => "read through the page cache",
        Call::ReadCell(..) => "read",
        Call::WriteCell(..) => "write",
        Call::Truncate(..) => "truncate",
        Call::Append => "append",
        Call::Fsync(_) => "fsync",
        Call::Chmod(..) => "chmod",
        Call::Stat(_) => "stat",
        Call::Lock(..) => "lock",
        Call::Unlock(..) => "unlock",
        Call::Close(_) => "close",
        Call::ReadLog => "read the log",
    }
}

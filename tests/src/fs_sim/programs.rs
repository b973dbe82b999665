//! What runs on the hosts: programs that make one system call after another, through the kernel's caches
//! and locks.

mod answers;
mod pages;

use mooring_sharedfs_client::{HandleId, KernelId, KernelOperation, LockKind};
use mooring_sharedfs_core::locks::{LockMode, LockRange, LockSpace};
use mooring_sharedfs_core::ops::{Make, New, RenameMode, SetAttributes};
use mooring_sharedfs_core::{Access, Caller, FileBlock, Ino, Mode, Name};
use mooring_terms::Time;

use super::checkers::appends::RECORD;
use super::checkers::{Act, Register, Result};
use super::{CELL, CELLS, FILES, Happening, LOG, NAMES, Sim};
use crate::sim::CoverageKind as Kind;

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Open,
    Lookup(u8),
    Create(u8),
    Unlink(u8),
    /// Whether the two are exchanged.
    Rename(u8, u8, bool),
    Link(u8, u8),
    Symlink(u8),
    ReadCell(usize, u64, bool),
    WriteCell(usize, u64),
    /// A store into a shared mapping; it returns when its page has been written back.
    MapWrite(usize, u64),
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
    /// It waits for a page to be written back.
    Dirty,
}

/// What the kernel asked the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Call,
    Attributes,
    Page(FileBlock),
    /// What a name stands for, which another name is to be given to.
    Source,
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
    /// What is being linked.
    linked: Option<Ino>,
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
            linked: None,
            log: Vec::new(),
        }
    }
}

/// Blocks that are more than all files need.
const AMPLE: u64 = 600;

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
        let roll = self.prng.within(0..118);
        let file = self.prng.within(0..FILES as u64) as usize;
        let cell = self.prng.within(0..CELLS);
        let name = self.prng.within(0..u64::from(NAMES)) as u8;
        let other = (name + 1 + self.prng.within(0..u64::from(NAMES) - 1) as u8) % NAMES;
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
            100..107 => Call::Rename(name, other, roll < 102),
            107..110 => Call::Link(name, other),
            110..112 => Call::Symlink(name),
            112..118 if self.may_map(host, file, cell) => Call::MapWrite(file, cell),
            _ => Call::Lookup(name),
        }
    }

    /// Whether a host may write a cell through a mapping. A page that can't be written back for lack of space
    /// is lost without a word; and of two hosts that write one page so at the same time the last one wins,
    /// also in what it did not touch: so each has pages of its own.
    fn may_map(&self, host: u32, file: usize, cell: u64) -> bool {
        let page = FileBlock::of(cell * CELL).0 + file as u64;
        self.plan.capacity >= AMPLE && page % u64::from(self.plan.hosts) == u64::from(host)
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
            program.linked = None;
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
            Call::WriteCell(file, cell) | Call::MapWrite(file, cell) => {
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
            Call::Lookup(name) => self.begin(id, mount, Register::Names, Act::Lookup(name)),
            Call::Create(name) | Call::Symlink(name) => {
                self.begin(id, mount, Register::Names, Act::Create(name));
            }
            Call::Unlink(name) => self.begin(id, mount, Register::Names, Act::Unlink(name)),
            Call::Rename(from, to, exchange) => {
                self.begin(id, mount, Register::Names, Act::Rename(from, to, exchange));
            }
            Call::Chmod(file, mode) => {
                self.fsynced.began(Register::Mode(file), u64::from(mode), mount, now);
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
            Call::Create(_)
            | Call::Symlink(_)
            | Call::Unlink(_)
            | Call::Rename(..)
            | Call::Link(..) => Some(Ino::ROOT),
            // Programs of one host don't write a page in both ways at once: that no kernel puts right.
            Call::WriteCell(file, _)
            | Call::MapWrite(file, _)
            | Call::Truncate(file, _)
            | Call::Chmod(file, _) => Some(ino(file)),
            Call::Append => Some(ino(LOG)),
            _ => None,
        };
        if let Some(ino) = locks {
            if of.kernel.locked.get(&ino).is_some_and(|&by| by != at) {
                return;
            }
            of.kernel.locked.insert(ino, at);
        }
        if let Call::ReadCell(file, _, false) | Call::WriteCell(file, _) | Call::Truncate(file, _) =
            call
            && of.kernel.is_dirty(ino(file))
        {
            // Past the page cache, but not past what is dirty in it.
            return self.write_back(host, ino(file));
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
            Call::Symlink(of_name) => {
                let new = New::Symlink(b"elsewhere".to_vec());
                let make = Make { new, mode: Mode::new(0o777), umask: Mode::default() };
                KernelOperation::Make { dir: Ino::ROOT, name: name(of_name), make }
            }
            Call::Rename(from, to, exchange) => {
                let mode = if exchange { RenameMode::Exchange } else { RenameMode::Replace };
                let (from, to) = ((Ino::ROOT, name(from)), (Ino::ROOT, name(to)));
                KernelOperation::Rename { from, to, mode }
            }
            Call::Link(from, to) => match program.linked {
                Some(ino) => KernelOperation::Link { ino, dir: Ino::ROOT, name: name(to) },
                None => {
                    let source = KernelOperation::Lookup { dir: Ino::ROOT, name: name(from) };
                    return self.ask_mount(host, at, Asked::Source, source);
                }
            },
            Call::ReadCell(file, cell, false) => {
                let Some(handle) = handle(file) else { return };
                let (offset, length) = (cell * CELL, CELL);
                KernelOperation::Read { handle, offset, length, cached: false }
            }
            Call::ReadCell(file, cell, true) => return self.read_cached(host, at, file, cell),
            Call::MapWrite(file, cell) => return self.map_write(host, at, file, cell),
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
        Call::Rename(_, _, false) => "rename",
        Call::Rename(_, _, true) => "exchange two names",
        Call::Link(..) => "link",
        Call::Symlink(_) => "symlink",
        Call::MapWrite(..) => "write into a mapping",
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

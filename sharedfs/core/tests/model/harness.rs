//! The core with what a client and a shell would do around it: a map for a tree, a map for blocks.
//! Blocks that nobody wrote, and blocks that were given back, hold garbage.

use std::collections::{BTreeMap, BTreeSet};

use mooring_sharedfs_core::file::{Base, BlockWrite, Seek, Source};
use mooring_sharedfs_core::format::Record;
use mooring_sharedfs_core::ops::{
    FormatOptions, Make, New, Progress, SetAttributes, SetTime, format_volume,
};
use mooring_sharedfs_core::tree::{MemoryTree, TreeStore};
use mooring_sharedfs_core::{
    Access, Attributes, BlockAddress, Caller, Context, Cookie, Damage, Device, FileType, FsError,
    Ino, Mode, Name, QuarantineNumber, Result, SessionId, Timestamp, Transaction, check,
};

use super::actions::{Action, name_bytes, xattr_name};
use super::reference::{Answer, Thing, World};

const BLOCK: usize = 4096;
const SESSION: SessionId = SessionId(7);
const DATA_FIRST: BlockAddress = BlockAddress(64);

pub struct Harness {
    tree: MemoryTree,
    blocks: BTreeMap<BlockAddress, Vec<u8>>,
    inos: Vec<Ino>,
    open: BTreeSet<Ino>,
    waiting: Vec<QuarantineNumber>,
    near: BlockAddress,
}

pub fn date(step: usize) -> Timestamp {
    Timestamp { seconds: step as i64 + 100, nanoseconds: 5 }
}

impl Harness {
    pub fn new(capacity: u64) -> Self {
        let mut tree = MemoryTree::default();
        let options = FormatOptions {
            data_first: DATA_FIRST,
            capacity,
            // Small, so that extents meet the ends of slices.
            slice_blocks: 16,
            root: (0, 0, Mode::new(0o777)),
            now: Timestamp::default(),
        };
        let record = format_volume(&tree, &options).unwrap();
        tree.apply(&record.changes).unwrap();
        Self {
            tree,
            blocks: BTreeMap::new(),
            inos: vec![Ino::ROOT],
            open: BTreeSet::new(),
            waiting: Vec::new(),
            near: DATA_FIRST,
        }
    }

    pub fn check(&self) -> Vec<Damage> {
        check::check(&self.tree).unwrap()
    }

    fn ino(&self, index: usize) -> Ino {
        self.inos[index % self.inos.len()]
    }

    fn view(&self, step: usize) -> Transaction<'_> {
        Transaction::new(&self.tree, Context { now: date(step) })
    }

    /// Runs an operation; what it did goes through its encoding, as it would through the journal.
    fn run<T>(
        &mut self,
        step: usize,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut transaction = Transaction::new(&self.tree, Context { now: date(step) });
        let result = operation(&mut transaction)?;
        let outcome = transaction.finish();
        let Record { changes, .. } = outcome.record;
        self.tree.apply(&changes).unwrap();
        self.waiting.extend(outcome.freed);
        Ok(result)
    }

    fn steps(
        &mut self,
        step: usize,
        mut operation: impl FnMut(&mut Transaction<'_>) -> Result<Progress>,
    ) -> Result<()> {
        while self.run(step, &mut operation)? == Progress::More {
            assert_eq!(self.check(), vec![], "between two steps");
        }
        Ok(())
    }

    fn store(&mut self, writes: &[BlockWrite]) {
        for write in writes {
            let garbage = || vec![0xEE; BLOCK];
            let block = self.blocks.entry(write.address).or_insert_with(garbage);
            if write.base == Base::Zeros {
                block.fill(0);
            }
            block[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }

    fn made(&mut self, attributes: Attributes) -> Answer {
        if !self.inos.contains(&attributes.ino) {
            self.inos.push(attributes.ino);
        }
        Answer::Ino(attributes.ino.0)
    }

    pub fn act(&mut self, callers: &[Caller], step: usize, action: &Action) -> Answer {
        self.try_act(callers, step, action).unwrap_or_else(|error| Answer::Error(error.errno()))
    }

    fn try_act(&mut self, callers: &[Caller], step: usize, action: &Action) -> Result<Answer> {
        let named = |name: u8| Name::new(&name_bytes(name)).unwrap();
        match *action {
            Action::Lookup { who, dir, name } => {
                let found = self.view(step).lookup(&callers[who], self.ino(dir), &named(name))?;
                Ok(Answer::Ino(found.ino.0))
            }
            Action::Make { who, dir, name, kind, mode } => {
                let dir = self.ino(dir);
                let make = Make { new: new(kind), mode, umask: Mode::new(0o022) };
                let made = self.run(step, |t| t.make(&callers[who], dir, &named(name), &make))?;
                Ok(self.made(made))
            }
            Action::Create { who, dir, name, mode, exclusive, access } => {
                let (dir, access) = (self.ino(dir), Access::from_bits(access));
                let modes = (mode, Mode::new(0o022));
                let opened = self.run(step, |t| {
                    t.create(&callers[who], dir, &named(name), modes, exclusive, access)
                })?;
                Ok(self.made(opened.attributes))
            }
            Action::Link { who, ino, dir, name } => {
                let (ino, dir) = (self.ino(ino), self.ino(dir));
                self.run(step, |t| t.link(&callers[who], ino, dir, &named(name)))?;
                Ok(Answer::Done)
            }
            Action::Unlink { who, dir, name } => {
                let (dir, open) = (self.ino(dir), self.open.clone());
                self.run(step, |t| {
                    t.unlink(&callers[who], dir, &named(name), |ino| open.contains(&ino))
                })?;
                Ok(Answer::Done)
            }
            Action::Rmdir { who, dir, name } => {
                let (dir, open) = (self.ino(dir), self.open.clone());
                self.run(step, |t| {
                    t.rmdir(&callers[who], dir, &named(name), |ino| open.contains(&ino))
                })?;
                Ok(Answer::Done)
            }
            Action::Rename { who, from, to, mode } => {
                let (from_dir, to_dir, open) =
                    (self.ino(from.0), self.ino(to.0), self.open.clone());
                let (from_name, to_name) = (named(from.1), named(to.1));
                let from = (from_dir, &from_name);
                let to = (to_dir, &to_name);
                let is_open = |ino| open.contains(&ino);
                self.run(step, |t| t.rename(&callers[who], from, to, mode, is_open))?;
                // A whiteout is an inode, too.
                self.notice_new_inodes(step);
                Ok(Answer::Done)
            }
            _ => self.act_on_inode(callers, step, action),
        }
    }

    fn act_on_inode(&mut self, callers: &[Caller], step: usize, action: &Action) -> Result<Answer> {
        match *action {
            Action::Chmod { who, ino, mode } => {
                let set = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
                self.setattr(&callers[who], step, ino, set)
            }
            Action::Chown { who, ino, uid, gid } => {
                let set = SetAttributes { uid, gid, ..SetAttributes::default() };
                self.setattr(&callers[who], step, ino, set)
            }
            Action::Times { who, ino, atime, mtime } => {
                let set = SetAttributes { atime, mtime, ..SetAttributes::default() };
                self.setattr(&callers[who], step, ino, set)
            }
            Action::Truncate { who, ino, size } => {
                let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
                if let Ok(zeros) = self.view(step).plan_extend(self.ino(ino), size) {
                    self.store(&zeros);
                }
                self.setattr(&callers[who], step, ino, set)
            }
            Action::Access { who, ino, access } => {
                let access = Access::from_bits(access);
                self.view(step).access(&callers[who], self.ino(ino), access)?;
                Ok(Answer::Done)
            }
            Action::Write { ino, offset, length, byte } => {
                self.write(step, self.ino(ino), offset, &vec![byte; length], true)
            }
            Action::LostWrite { ino, distance, length } => {
                let ino = self.ino(ino);
                let size = self.view(step).getattr(ino)?.size;
                self.write(step, ino, size + distance, &vec![0x55; length], false)
            }
            Action::Readlink { ino } => Ok(Answer::Bytes(self.view(step).readlink(self.ino(ino))?)),
            Action::Open { ino } => {
                let ino = self.ino(ino);
                self.view(step).getattr(ino)?;
                self.open.insert(ino);
                Ok(Answer::Done)
            }
            Action::Close { ino } => {
                let ino = self.ino(ino);
                if self.open.remove(&ino) && self.view(step).getattr(ino)?.links == 0 {
                    self.steps(step, |t| t.reap(ino))?;
                }
                Ok(Answer::Done)
            }
            Action::Release => {
                for number in std::mem::take(&mut self.waiting) {
                    for run in self.view(step).quarantined(number, usize::MAX).unwrap() {
                        for i in 0..run.count {
                            self.blocks.insert(run.start.plus(i), vec![0xDD; BLOCK]);
                        }
                    }
                    while self.run(step, |t| t.release(number, 3))? {}
                }
                Ok(Answer::Done)
            }
            Action::SetXattr { who, ino, name, value, mode } => {
                let (ino, name) = (self.ino(ino), xattr_name(name));
                self.run(step, |t| t.setxattr(&callers[who], ino, name, &[value], mode))?;
                Ok(Answer::Done)
            }
            Action::GetXattr { who, ino, name } => {
                let name = xattr_name(name);
                let value = self.view(step).getxattr(&callers[who], self.ino(ino), name)?;
                Ok(Answer::Bytes(value))
            }
            Action::RemoveXattr { who, ino, name } => {
                let (ino, name) = (self.ino(ino), xattr_name(name));
                self.run(step, |t| t.removexattr(&callers[who], ino, name))?;
                Ok(Answer::Done)
            }
            _ => self.act_on_space(callers, step, action),
        }
    }

    fn act_on_space(&mut self, callers: &[Caller], step: usize, action: &Action) -> Result<Answer> {
        let near = self.near;
        match *action {
            Action::Allocate { who, ino, from, length, keep_size } => {
                let (ino, range) = (self.ino(ino), (from, from + length));
                if !keep_size {
                    let zeros = self.view(step).plan_extend(ino, range.1)?;
                    self.store(&zeros);
                }
                self.steps(step, |t| t.allocate(&callers[who], ino, range, keep_size, near))?;
            }
            Action::Punch { who, ino, from, length } => {
                let (ino, range) = (self.ino(ino), (from, from + length));
                let zeros = self.view(step).plan_zero(ino, range.0, range.1)?;
                self.store(&zeros);
                self.steps(step, |t| t.punch(&callers[who], ino, range))?;
            }
            Action::Zero { who, ino, from, length, keep_size } => {
                let (ino, range) = (self.ino(ino), (from, from + length));
                let mut zeros = self.view(step).plan_zero(ino, range.0, range.1)?;
                if !keep_size {
                    zeros.extend(self.view(step).plan_extend(ino, range.1)?);
                }
                self.store(&zeros);
                self.steps(step, |t| t.zero(&callers[who], ino, range, keep_size, near))?;
            }
            _ => unreachable!("every action is one of the three kinds"),
        }
        Ok(Answer::Done)
    }

    fn setattr(
        &mut self,
        caller: &Caller,
        step: usize,
        ino: usize,
        set: SetAttributes,
    ) -> Result<Answer> {
        let ino = self.ino(ino);
        self.steps(step, |t| Ok(t.setattr(caller, ino, &set)?.1))?;
        Ok(Answer::Done)
    }

    /// A client's write: reserve, plan, write, and commit unless it dies before.
    fn write(
        &mut self,
        step: usize,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        commits: bool,
    ) -> Result<Answer> {
        let mut needed = self.view(step).blocks_needed(ino, offset, bytes.len() as u64)?;
        let near = self.near;
        let mut reserved = Vec::new();
        while needed > 0 {
            let runs = self.run(step, |t| t.reserve(SESSION, needed, near))?;
            needed -= runs.iter().map(|run| run.count).sum::<u64>();
            reserved.extend(runs);
        }
        // The next search begins in the middle of things.
        self.near = BlockAddress(DATA_FIRST.0 + offset * 7 % 4000);
        let plan = self.view(step).plan_write(ino, offset, bytes, &reserved)?;
        self.store(&plan.writes);
        if commits {
            self.run(step, |t| t.commit(SESSION, ino, &plan.commit))?;
        }
        while self.run(step, |t| t.end_reservations(SESSION, 2))? {}
        Ok(Answer::Done)
    }

    fn notice_new_inodes(&mut self, step: usize) {
        let last = self.inos.last().copied().unwrap_or(Ino::ROOT);
        let next = Ino(last.0 + 1);
        if self.view(step).getattr(next).is_ok() {
            self.inos.push(next);
        }
    }

    /// All that can be seen.
    pub fn world(&self) -> World {
        let view = self.view(0);
        let mut world = World { things: BTreeMap::new(), free: view.statfs().unwrap().free };
        for &ino in &self.inos {
            let Ok(attributes) = view.getattr(ino) else { continue };
            world.things.insert(ino.0, self.thing(&attributes));
        }
        let made = view.statfs().unwrap();
        assert_eq!(made.inodes - made.free_inodes, world.things.len() as u64);
        world
    }

    fn thing(&self, attributes: &Attributes) -> Thing {
        let view = self.view(0);
        let mut thing = Thing {
            file_type: attributes.file_type,
            mode: attributes.mode.bits(),
            owner: (attributes.uid, attributes.gid),
            links: attributes.links,
            size: attributes.size,
            blocks: attributes.blocks,
            times: [attributes.atime, attributes.mtime, attributes.ctime, attributes.btime],
            device: attributes.device.0,
            ..Thing::default()
        };
        match attributes.file_type {
            FileType::Directory => {
                thing.size = 0;
                thing.entries = self.list(attributes.ino);
                let parent = view.parent(&Caller::ROOT, attributes.ino);
                thing.parent = parent.map_or(0, |parent| parent.ino.0);
            }
            FileType::Regular => {
                thing.contents = self.contents(attributes);
                thing.data = self.data_blocks(attributes);
            }
            _ => {}
        }
        thing.xattrs = view
            .listxattr(&Caller::ROOT, attributes.ino)
            .unwrap()
            .into_iter()
            .map(|name| {
                let key = Key::new(attributes.ino, &name);
                (name, key.value(&view))
            })
            .collect();
        thing
    }

    /// Reads a directory in small pages.
    fn list(&self, dir: Ino) -> BTreeMap<Vec<u8>, u64> {
        let view = self.view(0);
        let (_, bound) = view.opendir(&Caller::ROOT, dir).unwrap();
        let (mut entries, mut after) = (BTreeMap::new(), Cookie(0));
        loop {
            let page = view.readdir(dir, after, bound, 2, true).unwrap();
            for entry in page.entries {
                assert!(entry.cookie > after, "cookies ascend");
                after = entry.cookie;
                assert_eq!(entry.attributes.map(|a| a.file_type), Some(entry.file_type));
                let twice = entries.insert(entry.name.as_bytes().to_vec(), entry.ino.0);
                assert_eq!(twice, None, "an entry is listed once");
            }
            if page.end {
                return entries;
            }
        }
    }

    fn contents(&self, attributes: &Attributes) -> Vec<u8> {
        let view = self.view(0);
        let mut contents = Vec::new();
        while (contents.len() as u64) < attributes.size {
            let at = contents.len() as u64;
            let (_, segments) = view.read(attributes.ino, at, 9000).unwrap();
            for segment in segments {
                assert_eq!(segment.offset, contents.len() as u64, "no gaps");
                let length = segment.length as usize;
                match segment.source {
                    Source::Zeros => contents.extend(vec![0; length]),
                    Source::Bytes(bytes) => {
                        assert_eq!(bytes.len(), length);
                        contents.extend(bytes);
                    }
                    Source::Blocks(start, offset) => {
                        for i in offset..offset + length {
                            let address = start.plus((i / BLOCK) as u64);
                            let block = self.blocks.get(&address).expect("a block of a file");
                            contents.push(block[i % BLOCK]);
                        }
                    }
                }
            }
        }
        contents
    }

    /// The blocks with data, as `lseek` finds them.
    fn data_blocks(&self, attributes: &Attributes) -> BTreeSet<u64> {
        let view = self.view(0);
        let (ino, mut at, mut found) = (attributes.ino, 0, BTreeSet::new());
        loop {
            let data = match view.seek(ino, at, Seek::Data) {
                Ok(data) => data,
                Err(FsError::NoOffset) => return found,
                Err(error) => panic!("seek: {error}"),
            };
            assert!(data >= at);
            let hole = view.seek(ino, data, Seek::Hole).unwrap();
            assert!(hole > data, "data where data begins");
            found.extend(data / BLOCK as u64..hole.div_ceil(BLOCK as u64));
            at = hole;
        }
    }
}

/// An attribute's value, whoever may read it.
struct Key(Ino, Vec<u8>);

impl Key {
    fn new(ino: Ino, name: &[u8]) -> Self {
        Self(ino, name.to_vec())
    }

    fn value(&self, view: &Transaction<'_>) -> Vec<u8> {
        view.getxattr(&Caller::ROOT, self.0, &self.1).unwrap()
    }
}

fn new(kind: u8) -> New {
    match kind {
        0 => New::Regular,
        1 => New::Directory,
        2 => New::Symlink(b"target".to_vec()),
        3 => New::Fifo,
        4 => New::Socket,
        5 => New::CharDevice(Device(0x0105)),
        _ => New::BlockDevice(Device(0x0801)),
    }
}

/// Keeps `SetTime` in reach of both sides' helpers.
pub fn applied(time: SetTime, old: Timestamp, step: usize) -> Timestamp {
    match time {
        SetTime::Keep => old,
        SetTime::Now => date(step),
        SetTime::At(at) => at,
    }
}

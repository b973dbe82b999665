//! A file system as a beginner would write it: files are vectors of bytes, directories are maps.
//! Written from the manual pages and the behaviour of Linux, not from the core. Inodes are numbered
//! in the order of their making, as the core does.

use std::collections::{BTreeMap, BTreeSet};

use mooring_sharedfs_core::ops::{RenameMode, SetTime, XattrMode};
use mooring_sharedfs_core::{Caller, FileType, Groups, Timestamp};

use super::actions::{Action, name_bytes, xattr_name};
use super::harness::{applied, date};

/// What an action gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Ino(u64),
    Bytes(Vec<u8>),
    Error(i32),
}

/// Everything that can be seen of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    pub file_type: FileType,
    pub mode: u16,
    pub owner: (u32, u32),
    pub links: u32,
    pub size: u64,
    pub blocks: u64,
    pub times: [Timestamp; 4],
    pub device: u32,
    pub contents: Vec<u8>,
    /// Blocks that have data, as `lseek` tells them.
    pub data: BTreeSet<u64>,
    pub entries: BTreeMap<Vec<u8>, u64>,
    pub parent: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for Thing {
    fn default() -> Self {
        Self {
            file_type: FileType::Regular,
            mode: 0,
            owner: (0, 0),
            links: 1,
            size: 0,
            blocks: 0,
            times: [Timestamp::default(); 4],
            device: 0,
            contents: Vec::new(),
            data: BTreeSet::new(),
            entries: BTreeMap::new(),
            parent: 0,
            xattrs: BTreeMap::new(),
        }
    }
}

/// Everything that can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    pub things: BTreeMap<u64, Thing>,
    pub free: u64,
}

#[derive(Clone)]
struct Node {
    thing: Thing,
    /// Blocks that the file occupies.
    held: BTreeSet<u64>,
    target: Vec<u8>,
}

pub struct Reference {
    nodes: BTreeMap<u64, Node>,
    known: Vec<u64>,
    open: BTreeSet<u64>,
    next: u64,
}

type Outcome<T> = Result<T, i32>;

const PRIVILEGE: &[u8] = b"security.capability";

impl Node {
    fn is_dir(&self) -> bool {
        self.thing.file_type == FileType::Directory
    }

    /// Loses setuid, setgid and capabilities.
    fn strip(&mut self) {
        self.thing.mode &= !0o4000;
        if self.thing.mode & 0o010 != 0 {
            self.thing.mode &= !0o2000;
        }
        self.thing.xattrs.remove(PRIVILEGE);
    }

    fn allows(&self, who: &Caller, bits: u8) -> bool {
        if who.privileged {
            return bits & 1 == 0 || self.is_dir() || self.thing.mode & 0o111 != 0;
        }
        let shift = if who.uid == self.thing.owner.0 {
            6
        } else if belongs(who, self.thing.owner.1) {
            3
        } else {
            0
        };
        (self.thing.mode >> shift) as u8 & bits == bits
    }

    fn owned_by(&self, who: &Caller) -> bool {
        who.privileged || who.uid == self.thing.owner.0
    }

    fn changed(&mut self, step: usize) {
        self.thing.times[2] = date(step);
    }

    fn modified(&mut self, step: usize) {
        self.thing.times[1] = date(step);
        self.thing.times[2] = date(step);
    }
}

fn belongs(who: &Caller, gid: u32) -> bool {
    who.gid == gid || matches!(&who.groups, Groups::Known(groups) if groups.contains(&gid))
}

impl Reference {
    pub fn new() -> Self {
        let root = Thing {
            file_type: FileType::Directory,
            mode: 0o777,
            links: 2,
            parent: 1,
            ..Thing::default()
        };
        let root = Node { thing: root, held: BTreeSet::new(), target: Vec::new() };
        Self { nodes: BTreeMap::from([(1, root)]), known: vec![1], open: BTreeSet::new(), next: 2 }
    }

    pub fn world(&self, capacity: u64) -> World {
        let things = self.nodes.iter().map(|(&ino, node)| {
            let mut thing = node.thing.clone();
            thing.blocks = node.held.len() as u64;
            thing.size =
                if node.is_dir() { 0 } else { thing.size.max(thing.contents.len() as u64) };
            thing.links = if node.is_dir() && thing.links > 0 {
                2 + self
                    .nodes
                    .values()
                    .filter(|n| n.is_dir() && n.thing.links > 0 && n.thing.parent == ino)
                    .count() as u32
                    - u32::from(ino == 1)
            } else {
                thing.links
            };
            (ino, thing)
        });
        let used: u64 = self.nodes.values().map(|node| node.held.len() as u64).sum();
        World { things: things.collect(), free: capacity - used }
    }

    fn ino(&self, index: usize) -> u64 {
        self.known[index % self.known.len()]
    }

    fn node(&mut self, ino: u64) -> Outcome<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(libc::ESTALE)
    }

    /// A directory in which `who` may search.
    fn dir(&mut self, who: &Caller, ino: u64) -> Outcome<&mut Node> {
        let node = self.node(ino)?;
        if !node.is_dir() {
            return Err(libc::ENOTDIR);
        }
        if !node.allows(who, 1) {
            return Err(libc::EACCES);
        }
        Ok(node)
    }

    fn may_add(&mut self, who: &Caller, dir: u64) -> Outcome<()> {
        let node = self.node(dir)?;
        if node.thing.links == 0 {
            return Err(libc::ENOENT);
        }
        if node.allows(who, 3) { Ok(()) } else { Err(libc::EACCES) }
    }

    fn may_remove(&mut self, who: &Caller, dir: u64, victim: u64) -> Outcome<()> {
        let victim_owned = self.node(victim)?.owned_by(who);
        let node = self.node(dir)?;
        if !node.allows(who, 3) {
            return Err(libc::EACCES);
        }
        if node.thing.mode & 0o1000 != 0 && !node.owned_by(who) && !victim_owned {
            return Err(libc::EPERM);
        }
        Ok(())
    }

    /// Takes one name from an inode.
    fn forget(&mut self, ino: u64, step: usize) {
        let open = self.open.contains(&ino);
        let node = self.nodes.get_mut(&ino).expect("it had a name");
        node.changed(step);
        if node.is_dir() {
            node.thing.links = 0;
            node.thing.parent = 0;
        } else {
            node.thing.links -= 1;
        }
        if node.thing.links == 0 && !open {
            self.nodes.remove(&ino);
        }
    }

    pub fn act(&mut self, callers: &[Caller], step: usize, action: &Action) -> Answer {
        self.try_act(callers, step, action).unwrap_or_else(Answer::Error)
    }

    fn try_act(&mut self, callers: &[Caller], step: usize, action: &Action) -> Outcome<Answer> {
        match *action {
            Action::Lookup { who, dir, name } => {
                let dir = self.ino(dir);
                let found = self.dir(&callers[who], dir)?.thing.entries.get(&name_bytes(name));
                found.map(|&ino| Answer::Ino(ino)).ok_or(libc::ENOENT)
            }
            Action::Make { who, dir, name, kind, mode } => {
                let dir = self.ino(dir);
                self.make(&callers[who], step, dir, name, kind, mode.bits())
            }
            Action::Create { who, dir, name, mode, exclusive, access } => {
                let (who, dir) = (&callers[who], self.ino(dir));
                let Some(&ino) = self.dir(who, dir)?.thing.entries.get(&name_bytes(name)) else {
                    return self.make(who, step, dir, name, 0, mode.bits());
                };
                if exclusive {
                    return Err(libc::EEXIST);
                }
                let node = self.node(ino)?;
                if node.is_dir() {
                    return Err(libc::EISDIR);
                }
                let followed = node.thing.file_type == FileType::Symlink;
                if !followed && !node.allows(who, access & 7) {
                    return Err(libc::EACCES);
                }
                Ok(Answer::Ino(ino))
            }
            Action::Link { who, ino, dir, name } => {
                let (who, ino, dir) = (&callers[who], self.ino(ino), self.ino(dir));
                if self.dir(who, dir)?.thing.entries.contains_key(&name_bytes(name)) {
                    return Err(libc::EEXIST);
                }
                self.may_add(who, dir)?;
                let node = self.node(ino)?;
                if node.is_dir() {
                    return Err(libc::EPERM);
                }
                if node.thing.links == 0 {
                    return Err(libc::ENOENT);
                }
                node.thing.links += 1;
                node.changed(step);
                let dir = self.node(dir)?;
                dir.thing.entries.insert(name_bytes(name), ino);
                dir.modified(step);
                Ok(Answer::Done)
            }
            Action::Unlink { who, dir, name } | Action::Rmdir { who, dir, name } => {
                let (who, dir) = (&callers[who], self.ino(dir));
                let entry = self.dir(who, dir)?.thing.entries.get(&name_bytes(name)).copied();
                let victim = entry.ok_or(libc::ENOENT)?;
                self.may_remove(who, dir, victim)?;
                let node = self.node(victim)?;
                match (node.is_dir(), matches!(action, Action::Rmdir { .. })) {
                    (true, false) => return Err(libc::EISDIR),
                    (false, true) => return Err(libc::ENOTDIR),
                    (true, true) if !node.thing.entries.is_empty() => return Err(libc::ENOTEMPTY),
                    _ => {}
                }
                let node = self.node(dir)?;
                node.thing.entries.remove(&name_bytes(name));
                node.modified(step);
                self.forget(victim, step);
                Ok(Answer::Done)
            }
            Action::Rename { who, from, to, mode } => {
                let from = (self.ino(from.0), name_bytes(from.1));
                let to = (self.ino(to.0), name_bytes(to.1));
                self.rename(&callers[who], step, from, to, mode)
            }
            Action::Release => Ok(Answer::Done),
            _ => self.act_on_inode(callers, step, action),
        }
    }

    fn make(
        &mut self,
        who: &Caller,
        step: usize,
        dir: u64,
        name: u8,
        kind: u8,
        mode: u16,
    ) -> Outcome<Answer> {
        if self.dir(who, dir)?.thing.entries.contains_key(&name_bytes(name)) {
            return Err(libc::EEXIST);
        }
        self.may_add(who, dir)?;
        if kind >= 5 && !who.privileged {
            return Err(libc::EPERM);
        }
        let above = self.node(dir)?.thing.clone();
        let inherits = above.mode & 0o2000 != 0;
        let mut thing = Thing {
            file_type: [
                FileType::Regular,
                FileType::Directory,
                FileType::Symlink,
                FileType::Fifo,
                FileType::Socket,
                FileType::CharDevice,
                FileType::BlockDevice,
            ][usize::from(kind)],
            mode: mode & !0o022,
            owner: (who.uid, if inherits { above.owner.1 } else { who.gid }),
            times: [date(step); 4],
            device: [0, 0, 0, 0, 0, 0x0105, 0x0801][usize::from(kind)],
            ..Thing::default()
        };
        let mut target = Vec::new();
        match kind {
            1 => {
                thing.mode &= 0o1777;
                thing.mode |= if inherits { 0o2000 } else { 0 };
                thing.links = 2;
                thing.parent = dir;
            }
            2 => {
                thing.mode = 0o777;
                target = b"target".to_vec();
                thing.size = 6;
            }
            // The umask is applied after: what counts is what was asked for.
            _ if inherits
                && mode & 0o2010 == 0o2010
                && !who.privileged
                && !belongs(who, above.owner.1) =>
            {
                thing.mode &= !0o2000;
            }
            _ => {}
        }
        let ino = self.add(Node { thing, held: BTreeSet::new(), target });
        let node = self.node(dir)?;
        node.thing.entries.insert(name_bytes(name), ino);
        node.modified(step);
        Ok(Answer::Ino(ino))
    }

    fn add(&mut self, node: Node) -> u64 {
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        self.known.push(ino);
        ino
    }

    fn is_below(&self, mut dir: u64, above: u64) -> bool {
        loop {
            if dir == above {
                return true;
            }
            if dir == 1 {
                return false;
            }
            dir = self.nodes[&dir].thing.parent;
        }
    }

    fn rename(
        &mut self,
        who: &Caller,
        step: usize,
        from: (u64, Vec<u8>),
        to: (u64, Vec<u8>),
        mode: RenameMode,
    ) -> Outcome<Answer> {
        for dir in [from.0, to.0] {
            self.dir(who, dir)?;
        }
        for dir in [from.0, to.0] {
            if self.node(dir)?.thing.links == 0 {
                return Err(libc::ENOENT);
            }
        }
        let source = *self.node(from.0)?.thing.entries.get(&from.1).ok_or(libc::ENOENT)?;
        let target = self.node(to.0)?.thing.entries.get(&to.1).copied();
        if mode == RenameMode::NoReplace && target.is_some() {
            return Err(libc::EEXIST);
        }
        if mode == RenameMode::Exchange && target.is_none() {
            return Err(libc::ENOENT);
        }
        if from.0 != to.0 && self.nodes[&source].is_dir() && self.is_below(to.0, source) {
            return Err(libc::EINVAL);
        }
        if let Some(target) = target
            && from.0 != to.0
            && self.nodes[&target].is_dir()
            && self.is_below(from.0, target)
        {
            let exchange = mode == RenameMode::Exchange;
            return Err(if exchange { libc::EINVAL } else { libc::ENOTEMPTY });
        }
        if target == Some(source) {
            return Ok(Answer::Done);
        }
        self.may_remove(who, from.0, source)?;
        match target {
            Some(target) => self.may_remove(who, to.0, target)?,
            None => self.may_add(who, to.0)?,
        }
        let source_is_dir = self.nodes[&source].is_dir();
        let target_is_dir = target.is_some_and(|target| self.nodes[&target].is_dir());
        let exchange = mode == RenameMode::Exchange;
        if target.is_some() && !exchange && source_is_dir != target_is_dir {
            return Err(if source_is_dir { libc::ENOTDIR } else { libc::EISDIR });
        }
        if from.0 != to.0 {
            if source_is_dir && !self.nodes[&source].allows(who, 2) {
                return Err(libc::EACCES);
            }
            if exchange && target_is_dir && !self.nodes[&target.unwrap()].allows(who, 2) {
                return Err(libc::EACCES);
            }
        }
        if let Some(target) = target
            && !exchange
            && !self.nodes[&target].thing.entries.is_empty()
        {
            return Err(libc::ENOTEMPTY);
        }

        self.node(from.0)?.thing.entries.remove(&from.1);
        self.node(to.0)?.thing.entries.insert(to.1, source);
        if source_is_dir {
            self.node(source)?.thing.parent = to.0;
        }
        self.node(source)?.changed(step);
        if exchange {
            let target = target.unwrap();
            self.node(from.0)?.thing.entries.insert(from.1.clone(), target);
            if target_is_dir {
                self.node(target)?.thing.parent = from.0;
            }
            self.node(target)?.changed(step);
        }
        self.node(from.0)?.modified(step);
        self.node(to.0)?.modified(step);
        if mode == RenameMode::Whiteout {
            let inherits = self.nodes[&from.0].thing.mode & 0o2000 != 0;
            let gid = if inherits { self.nodes[&from.0].thing.owner.1 } else { who.gid };
            let thing = Thing {
                file_type: FileType::CharDevice,
                owner: (who.uid, gid),
                times: [date(step); 4],
                ..Thing::default()
            };
            let ino = self.add(Node { thing, held: BTreeSet::new(), target: Vec::new() });
            self.node(from.0)?.thing.entries.insert(from.1, ino);
        }
        if let Some(target) = target.filter(|_| !exchange) {
            self.forget(target, step);
        }
        Ok(Answer::Done)
    }

    fn act_on_inode(
        &mut self,
        callers: &[Caller],
        step: usize,
        action: &Action,
    ) -> Outcome<Answer> {
        match *action {
            Action::Chmod { who, ino, mode } => {
                let (who, ino) = (&callers[who], self.ino(ino));
                let node = self.node(ino)?;
                if !node.owned_by(who) {
                    return Err(libc::EPERM);
                }
                node.thing.mode = mode.bits();
                if !who.privileged && !belongs(who, node.thing.owner.1) {
                    node.thing.mode &= !0o2000;
                }
                node.changed(step);
            }
            Action::Chown { who, ino, uid, gid } => {
                let (who, ino) = (&callers[who], self.ino(ino));
                let node = self.node(ino)?;
                let owner = who.uid == node.thing.owner.0;
                let uid_ok = uid.is_none_or(|uid| uid == node.thing.owner.0 && owner);
                let gid_ok =
                    gid.is_none_or(|gid| owner && (gid == node.thing.owner.1 || belongs(who, gid)));
                let may = who.privileged || (uid_ok && gid_ok);
                if !may {
                    return Err(libc::EPERM);
                }
                if !node.is_dir() && (uid.is_some() || gid.is_some()) {
                    node.strip();
                    if !who.privileged && !belongs(who, node.thing.owner.1) {
                        node.thing.mode &= !0o2000;
                    }
                }
                let (old_uid, old_gid) = node.thing.owner;
                node.thing.owner = (uid.unwrap_or(old_uid), gid.unwrap_or(old_gid));
                node.changed(step);
            }
            Action::Times { who, ino, atime, mtime } => {
                let (who, ino) = (&callers[who], self.ino(ino));
                let node = self.node(ino)?;
                let touch = (atime, mtime) == (SetTime::Now, SetTime::Now);
                let nothing = (atime, mtime) == (SetTime::Keep, SetTime::Keep);
                if !nothing && !node.owned_by(who) {
                    if !touch {
                        return Err(libc::EPERM);
                    }
                    if !node.allows(who, 2) {
                        return Err(libc::EACCES);
                    }
                }
                node.thing.times[0] = applied(atime, node.thing.times[0], step);
                node.thing.times[1] = applied(mtime, node.thing.times[1], step);
                node.changed(step);
            }
            Action::Access { who, ino, access } => {
                let (who, ino) = (&callers[who], self.ino(ino));
                if !self.node(ino)?.allows(who, access & 7) {
                    return Err(libc::EACCES);
                }
            }
            Action::Readlink { ino } => {
                let ino = self.ino(ino);
                let node = self.node(ino)?;
                if node.thing.file_type != FileType::Symlink {
                    return Err(libc::EINVAL);
                }
                return Ok(Answer::Bytes(node.target.clone()));
            }
            Action::Open { ino } => {
                let ino = self.ino(ino);
                self.node(ino)?;
                self.open.insert(ino);
            }
            Action::Close { ino } => {
                let ino = self.ino(ino);
                if self.open.remove(&ino) && self.node(ino)?.thing.links == 0 {
                    self.nodes.remove(&ino);
                }
            }
            Action::SetXattr { who, ino, name, value, mode } => {
                let (who, ino) = (&callers[who], self.ino(ino));
                return self.set_xattr(who, step, ino, xattr_name(name), value, mode);
            }
            Action::GetXattr { who, ino, name } => {
                let (who, ino, name) = (&callers[who], self.ino(ino), xattr_name(name));
                let node = self.node(ino)?;
                let plain = matches!(node.thing.file_type, FileType::Regular) || node.is_dir();
                if name.starts_with(b"user.") {
                    if !plain {
                        return Err(libc::ENODATA);
                    }
                    if !node.allows(who, 4) {
                        return Err(libc::EACCES);
                    }
                }
                if name.starts_with(b"trusted.") && !who.privileged {
                    return Err(libc::ENODATA);
                }
                let value = node.thing.xattrs.get(name).ok_or(libc::ENODATA)?;
                return Ok(Answer::Bytes(value.clone()));
            }
            Action::RemoveXattr { who, ino, name } => {
                let (who, ino, name) = (&callers[who], self.ino(ino), xattr_name(name));
                self.may_set_xattr(who, ino, name)?;
                let node = self.node(ino)?;
                node.thing.xattrs.remove(name).ok_or(libc::ENODATA)?;
                node.changed(step);
            }
            _ => return self.act_on_contents(callers, step, action),
        }
        Ok(Answer::Done)
    }

    fn may_set_xattr(&mut self, who: &Caller, ino: u64, name: &[u8]) -> Outcome<()> {
        let node = self.node(ino)?;
        if !name.starts_with(b"user.") {
            return if who.privileged { Ok(()) } else { Err(libc::EPERM) };
        }
        if node.thing.file_type != FileType::Regular && !node.is_dir() {
            return Err(libc::EPERM);
        }
        if node.is_dir() && node.thing.mode & 0o1000 != 0 && !node.owned_by(who) {
            return Err(libc::EPERM);
        }
        if node.allows(who, 2) { Ok(()) } else { Err(libc::EACCES) }
    }

    fn set_xattr(
        &mut self,
        who: &Caller,
        step: usize,
        ino: u64,
        name: &[u8],
        value: u8,
        mode: XattrMode,
    ) -> Outcome<Answer> {
        self.may_set_xattr(who, ino, name)?;
        let node = self.node(ino)?;
        match (mode, node.thing.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(libc::EEXIST),
            (XattrMode::Replace, false) => return Err(libc::ENODATA),
            _ => {}
        }
        node.thing.xattrs.insert(name.to_vec(), vec![value]);
        node.changed(step);
        Ok(Answer::Done)
    }

    fn act_on_contents(
        &mut self,
        callers: &[Caller],
        step: usize,
        action: &Action,
    ) -> Outcome<Answer> {
        let block = |offset: u64| offset / 4096;
        let behind = |offset: u64| offset.div_ceil(4096);
        match *action {
            Action::Write { ino, offset, length, byte } => {
                let node = self.regular(ino)?;
                let end = offset as usize + length;
                if node.thing.contents.len() < end {
                    node.thing.contents.resize(end, 0);
                }
                node.thing.contents[offset as usize..end].fill(byte);
                let touched = block(offset)..behind(end as u64);
                node.held.extend(touched.clone());
                node.thing.data.extend(touched);
                node.modified(step);
            }
            Action::LostWrite { ino, .. } => {
                self.regular_or_attributes(ino)?;
            }
            Action::Truncate { who, ino, size } => {
                let who = &callers[who];
                let ino = self.ino(ino);
                let node = self.node(ino)?;
                match node.thing.file_type {
                    FileType::Regular => {}
                    FileType::Directory => return Err(libc::EISDIR),
                    _ => return Err(libc::EINVAL),
                }
                if !node.allows(who, 2) {
                    return Err(libc::EACCES);
                }
                if (size as usize) < node.thing.contents.len() {
                    node.held.retain(|&held| held < behind(size));
                    node.thing.data.retain(|&data| data < behind(size));
                }
                node.thing.contents.resize(size as usize, 0);
                node.modified(step);
                if !who.privileged {
                    node.strip();
                }
            }
            Action::Allocate { who, ino, from, length, keep_size } => {
                let to = from + length;
                let node = self.regular(ino)?;
                node.held.extend(block(from)..behind(to));
                grow(node, to, keep_size);
                finish(node, &callers[who], step);
            }
            Action::Punch { who, ino, from, length } => {
                let to = from + length;
                let node = self.regular(ino)?;
                for gone in whole(node, from, to) {
                    node.held.remove(&gone);
                    node.thing.data.remove(&gone);
                }
                zero(node, from, to);
                finish(node, &callers[who], step);
            }
            Action::Zero { who, ino, from, length, keep_size } => {
                let to = from + length;
                let node = self.regular(ino)?;
                for unwritten in whole(node, from, to) {
                    node.thing.data.remove(&unwritten);
                }
                node.held.extend(block(from)..behind(to));
                zero(node, from, to);
                grow(node, to, keep_size);
                finish(node, &callers[who], step);
            }
            _ => unreachable!("every action is one of these"),
        }
        Ok(Answer::Done)
    }

    fn regular(&mut self, index: usize) -> Outcome<&mut Node> {
        let ino = self.ino(index);
        let node = self.node(ino)?;
        match node.thing.file_type {
            FileType::Regular => Ok(node),
            FileType::Directory => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }

    fn regular_or_attributes(&mut self, index: usize) -> Outcome<()> {
        self.regular(index).map(drop)
    }
}

/// The blocks of which nothing is left when `from..to` is taken away.
fn whole(node: &Node, from: u64, to: u64) -> Vec<u64> {
    let size = node.thing.contents.len() as u64;
    let last = size.div_ceil(4096);
    let full = |block: u64| {
        let end = ((block + 1) * 4096).min(if block + 1 == last { size } else { u64::MAX });
        block * 4096 >= from && end <= to
    };
    node.held.iter().copied().filter(|&block| full(block)).collect()
}

fn zero(node: &mut Node, from: u64, to: u64) {
    let to = (to as usize).min(node.thing.contents.len());
    if (from as usize) < to {
        node.thing.contents[from as usize..to].fill(0);
    }
}

fn grow(node: &mut Node, to: u64, keep_size: bool) {
    if !keep_size && node.thing.contents.len() < to as usize {
        node.thing.contents.resize(to as usize, 0);
    }
}

fn finish(node: &mut Node, who: &Caller, step: usize) {
    node.modified(step);
    if !who.privileged {
        node.strip();
    }
}

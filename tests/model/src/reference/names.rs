//! Names and attributes.

use super::{ATIME, Answer, Expected, Kind, MTIME, NodeId, OpenFile, Outcome, Reference, Refusal};
use crate::action::{How, Moves};
use crate::paths::{NAME_MAX, Place};
use crate::reference::Stamp;

impl Reference {
    /// A name that is not there yet.
    fn free_name(&self, path: &str) -> Outcome<Place> {
        let place = self.walk(path, false)?;
        if place.node.is_some() { Err(libc::EEXIST) } else { Ok(place) }
    }

    fn enter(&mut self, place: Place, kind: Kind, mode: u32) -> NodeId {
        let id = self.make(kind, mode);
        self.node(place.dir).entries.insert(place.name, id);
        self.modified(place.dir);
        if kind == Kind::Directory {
            self.node(place.dir).links += 1;
        }
        id
    }

    pub(super) fn open(&mut self, host: usize, file: u32, path: &str, how: How) -> Expected {
        if self.files.contains_key(&file) {
            return Err(Refusal::Skip);
        }
        let place = self.walk(path, !(how.create && how.exclusive))?;
        let node = match place.node {
            Some(_) if how.create && how.exclusive => return Err(libc::EEXIST.into()),
            Some(node) => {
                match self.nodes[&node].kind {
                    Kind::Regular => {}
                    Kind::Directory if how.write || how.create => return Err(libc::EISDIR.into()),
                    _ => return Err(Refusal::Skip),
                }
                if how.truncate {
                    self.resize(node, 0);
                    self.modified(node);
                }
                node
            }
            None if how.create => self.enter(place, Kind::Regular, 0o644),
            None => return Err(libc::ENOENT.into()),
        };
        self.node(node).opens += 1;
        self.files.insert(file, OpenFile { host, node, how });
        Ok(Answer::Done)
    }

    pub(super) fn close(&mut self, file: u32) -> Expected {
        let OpenFile { node, .. } = self.open_file(file)?;
        if self.holds_locks(file) {
            return Err(Refusal::Skip);
        }
        self.files.remove(&file);
        self.node(node).opens -= 1;
        self.drop_unused(node);
        Ok(Answer::Done)
    }

    pub(super) fn mkdir(&mut self, path: &str, mode: u32) -> Expected {
        let place = self.free_name(path)?;
        self.enter(place, Kind::Directory, mode);
        Ok(Answer::Done)
    }

    pub(super) fn mkfifo(&mut self, path: &str, mode: u32) -> Expected {
        let place = self.free_name(path)?;
        self.enter(place, Kind::Fifo, mode);
        Ok(Answer::Done)
    }

    pub(super) fn symlink(&mut self, target: &str, path: &str) -> Expected {
        let place = self.free_name(path)?;
        let id = self.enter(place, Kind::Symlink, 0o777);
        target.clone_into(&mut self.node(id).target);
        Ok(Answer::Done)
    }

    pub(super) fn link(&mut self, from: &str, to: &str) -> Expected {
        let node = self.find(from, false)?;
        let place = self.free_name(to)?;
        if self.nodes[&node].kind == Kind::Directory {
            return Err(libc::EPERM.into());
        }
        self.node(place.dir).entries.insert(place.name, node);
        self.modified(place.dir);
        self.node(node).links += 1;
        self.changed(node);
        Ok(Answer::Done)
    }

    /// A name is gone that was this node's.
    fn lose_name(&mut self, id: NodeId) {
        let directory = self.nodes[&id].kind == Kind::Directory;
        self.node(id).links -= if directory { 2 } else { 1 };
        self.changed(id);
        self.drop_unused(id);
    }

    pub(super) fn unlink(&mut self, path: &str) -> Expected {
        let place = self.walk(path, false)?;
        let node = place.node.ok_or(libc::ENOENT)?;
        if self.nodes[&node].kind == Kind::Directory {
            return Err(libc::EISDIR.into());
        }
        self.node(place.dir).entries.remove(&place.name);
        self.modified(place.dir);
        self.lose_name(node);
        Ok(Answer::Done)
    }

    pub(super) fn rmdir(&mut self, path: &str) -> Expected {
        let place = self.walk(path, false)?;
        let node = place.node.ok_or(libc::ENOENT)?;
        if self.nodes[&node].kind != Kind::Directory {
            return Err(libc::ENOTDIR.into());
        }
        if !self.nodes[&node].entries.is_empty() {
            return Err(libc::ENOTEMPTY.into());
        }
        self.node(place.dir).entries.remove(&place.name);
        self.node(place.dir).links -= 1;
        self.modified(place.dir);
        self.lose_name(node);
        Ok(Answer::Done)
    }

    fn is_within(&self, id: NodeId, above: NodeId) -> bool {
        let below = |child: &NodeId| {
            self.nodes[child].kind == Kind::Directory && self.is_within(id, *child)
        };
        id == above || self.nodes[&above].entries.values().any(below)
    }

    fn may_rename(&self, from: &Place, to: &Place, moves: Moves) -> Outcome<NodeId> {
        let source = from.node.ok_or(libc::ENOENT)?;
        match (moves, to.node) {
            (Moves::NoReplace, Some(_)) => return Err(libc::EEXIST),
            (Moves::Exchange, None) => return Err(libc::ENOENT),
            _ => {}
        }
        let is_directory = |id: NodeId| self.nodes[&id].kind == Kind::Directory;
        if from.dir != to.dir && is_directory(source) && self.is_within(to.dir, source) {
            return Err(libc::EINVAL);
        }
        let Some(target) = to.node else { return Ok(source) };
        if from.dir != to.dir && is_directory(target) && self.is_within(from.dir, target) {
            let exchange = moves == Moves::Exchange;
            return Err(if exchange { libc::EINVAL } else { libc::ENOTEMPTY });
        }
        if source == target || moves == Moves::Exchange {
            return Ok(source);
        }
        match (is_directory(source), is_directory(target)) {
            (true, false) => Err(libc::ENOTDIR),
            (false, true) => Err(libc::EISDIR),
            (true, true) if !self.nodes[&target].entries.is_empty() => Err(libc::ENOTEMPTY),
            _ => Ok(source),
        }
    }

    /// Both directories are found first, then the first name, then the second.
    fn both(&self, from: &str, to: &str) -> Outcome<(Place, Place)> {
        let long = |path: &str| path.rsplit('/').next().is_some_and(|name| name.len() > NAME_MAX);
        let of_directory = |walked: &Outcome<Place>, path: &str| {
            walked.as_ref().err().is_some_and(|errno| *errno != libc::ENAMETOOLONG || !long(path))
        };
        let (first, second) = (self.walk(from, false), self.walk(to, false));
        if of_directory(&second, to) && !of_directory(&first, from) {
            second?;
            return Err(libc::ENOENT);
        }
        let first = first?;
        first.node.ok_or(libc::ENOENT)?;
        Ok((first, second?))
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, moves: Moves) -> Expected {
        let (from, to) = self.both(from, to)?;
        let source = self.may_rename(&from, &to, moves)?;
        if to.node == Some(source) {
            return Ok(Answer::Done);
        }
        let (from_dir, to_dir) = (from.dir, to.dir);
        self.node(from_dir).entries.remove(&from.name);
        self.node(to_dir).entries.insert(to.name, source);
        self.count_directory(source, from_dir, to_dir);
        self.changed(source);
        match to.node {
            Some(target) if moves == Moves::Exchange => {
                self.node(from_dir).entries.insert(from.name, target);
                self.count_directory(target, to_dir, from_dir);
                self.changed(target);
            }
            Some(target) => {
                if self.nodes[&target].kind == Kind::Directory {
                    self.node(to_dir).links -= 1;
                }
                self.lose_name(target);
            }
            None => {}
        }
        self.modified(from_dir);
        self.modified(to_dir);
        Ok(Answer::Done)
    }

    /// If it is a directory, the one has lost a `..` and the other has it.
    fn count_directory(&mut self, id: NodeId, from: NodeId, to: NodeId) {
        if self.nodes[&id].kind == Kind::Directory {
            self.node(from).links -= 1;
            self.node(to).links += 1;
        }
    }

    pub(super) fn chmod(&mut self, path: &str, mode: u32) -> Expected {
        let node = self.find(path, true)?;
        self.node(node).mode = mode;
        self.changed(node);
        Ok(Answer::Done)
    }

    pub(super) fn chown(&mut self, path: &str, owner: (u32, u32)) -> Expected {
        let node = self.find(path, true)?;
        self.node(node).owner = owner;
        self.changed(node);
        Ok(Answer::Done)
    }

    pub(super) fn utimens(&mut self, path: &str, times: [Option<i64>; 2]) -> Expected {
        // Nothing to do is done without looking.
        if times == [None; 2] {
            return Err(Refusal::Skip);
        }
        let node = self.find(path, true)?;
        for (which, time) in [ATIME, MTIME].into_iter().zip(times) {
            if let Some(time) = time {
                self.node(node).times[which] = Stamp::at(time);
            }
        }
        self.changed(node);
        Ok(Answer::Done)
    }

    /// Users' attributes are files' and directories' alone.
    fn may_have_xattrs(&self, path: &str) -> Outcome<(NodeId, bool)> {
        let node = self.find(path, true)?;
        let may = matches!(self.nodes[&node].kind, Kind::Regular | Kind::Directory);
        Ok((node, may))
    }

    pub(super) fn set_xattr(&mut self, path: &str, name: &str, value: &[u8]) -> Expected {
        let (node, may) = self.may_have_xattrs(path)?;
        if !may {
            return Err(libc::EPERM.into());
        }
        self.node(node).xattrs.insert(name.to_owned(), value.to_vec());
        self.changed(node);
        Ok(Answer::Done)
    }

    pub(super) fn get_xattr(&mut self, path: &str, name: &str) -> Expected {
        let (node, _) = self.may_have_xattrs(path)?;
        let value = self.nodes[&node].xattrs.get(name).ok_or(libc::ENODATA)?;
        Ok(Answer::Bytes(value.clone()))
    }

    pub(super) fn remove_xattr(&mut self, path: &str, name: &str) -> Expected {
        let (node, may) = self.may_have_xattrs(path)?;
        if !may {
            return Err(libc::EPERM.into());
        }
        self.node(node).xattrs.remove(name).ok_or(libc::ENODATA)?;
        self.changed(node);
        Ok(Answer::Done)
    }
}

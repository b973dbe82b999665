//! A file system as a beginner would write it: files are vectors of bytes, directories are maps. Written
//! from the manual pages and the behaviour of Linux; only the superuser is here.

mod contents;
mod locks;
mod names;

use std::collections::{BTreeMap, BTreeSet};

use crate::action::{Action, Call, How};
use crate::run::Times;
pub use contents::MAPPED;

/// The number of a node; never used again.
pub type NodeId = u64;
/// The directory in which everything is.
pub const ROOT: NodeId = 1;
/// An error is an errno.
pub type Outcome<T> = Result<T, i32>;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Regular,
    Directory,
    Symlink,
    Fifo,
}

/// When something was changed: some time between two, in nanoseconds since 1970. Known once it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub from: i64,
    pub to: i64,
}

impl Stamp {
    pub fn at(time: i64) -> Self {
        Self { from: time, to: time }
    }
}

/// Which of a node's times.
pub const ATIME: usize = 0;
pub const MTIME: usize = 1;
pub const CTIME: usize = 2;

/// A file, a directory...
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u32, u32),
    pub links: u32,
    pub contents: Vec<u8>,
    pub entries: BTreeMap<String, NodeId>,
    pub target: String,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub times: [Stamp; 3],
    /// Its inode number, once that was seen.
    pub ino: Option<u64>,
    opens: u32,
    flocks: BTreeMap<u32, bool>,
    ranges: BTreeMap<u64, BTreeMap<u32, bool>>,
}

/// A file that is open on a host.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile {
    pub host: usize,
    pub node: NodeId,
    pub how: How,
}

/// What a call gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Bytes(Vec<u8>),
    Text(String),
    Names(BTreeSet<String>),
    /// The attributes of this node.
    Attributes(NodeId),
    /// The entries of this node.
    Entries(NodeId),
    /// Somewhere from this offset on in this node, where a hole, or data, begins.
    Place(NodeId, u64, bool),
    Count(u64),
}

/// Why a call gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It fails so.
    Errno(i32),
    /// It is not to be made: a file that isn't open, a pipe that would block.
    Skip,
}

impl From<i32> for Refusal {
    fn from(errno: i32) -> Self {
        Self::Errno(errno)
    }
}

/// What is expected of a call.
pub type Expected = Result<Answer, Refusal>;

/// The whole.
#[derive(Clone, Debug)]
pub struct Reference {
    pub nodes: BTreeMap<NodeId, Node>,
    pub files: BTreeMap<u32, OpenFile>,
    pub times: Times,
    next: NodeId,
    now: i64,
    /// Times that the present call sets.
    set: BTreeSet<(NodeId, usize)>,
}

impl Reference {
    /// An empty directory that was made between now and the end of this call.
    pub fn new(mode: u32, now: i64) -> Self {
        let mut new = Self {
            nodes: BTreeMap::new(),
            files: BTreeMap::new(),
            times: Times::Exact,
            next: ROOT,
            now,
            set: BTreeSet::new(),
        };
        new.make(Kind::Directory, mode);
        new
    }

    fn make(&mut self, kind: Kind, mode: u32) -> NodeId {
        let id = self.next;
        self.next += 1;
        let node = Node {
            kind,
            mode,
            owner: (0, 0),
            links: if kind == Kind::Directory { 2 } else { 1 },
            contents: Vec::new(),
            entries: BTreeMap::new(),
            target: String::new(),
            xattrs: BTreeMap::new(),
            times: [Stamp::at(0); 3],
            ino: None,
            opens: 0,
            flocks: BTreeMap::new(),
            ranges: BTreeMap::new(),
        };
        self.nodes.insert(id, node);
        for which in [ATIME, MTIME, CTIME] {
            self.stamp(id, which);
        }
        id
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("names and open files keep their nodes")
    }

    fn stamp(&mut self, id: NodeId, which: usize) {
        let now = self.now;
        self.node(id).times[which] = Stamp { from: now, to: i64::MAX };
        self.set.insert((id, which));
    }

    fn changed(&mut self, id: NodeId) {
        self.stamp(id, CTIME);
    }

    fn modified(&mut self, id: NodeId) {
        self.stamp(id, MTIME);
        self.stamp(id, CTIME);
    }

    /// The present call has ended: what it set is not later than this.
    pub fn ended(&mut self, now: i64) {
        for (id, which) in std::mem::take(&mut self.set) {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.times[which].to = now;
            }
        }
    }

    /// Nobody uses a node any more.
    fn drop_unused(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        if node.links == 0 && node.opens == 0 {
            self.nodes.remove(&id);
        }
    }

    fn open_file(&self, file: u32) -> Result<OpenFile, Refusal> {
        self.files.get(&file).copied().ok_or(Refusal::Skip)
    }

    /// What a call gives that is made now; and it is made.
    pub fn apply(&mut self, action: &Action, now: i64) -> Expected {
        self.now = now;
        self.set.clear();
        let host = action.host;
        match &action.call {
            Call::Open { file, path, how } => self.open(host, *file, path, *how),
            Call::Close { file } => self.close(*file),
            Call::Read { file, offset, length } => self.read(*file, *offset, *length),
            Call::Write { file, offset, length, fill } => {
                self.write(*file, *offset, *length, *fill)
            }
            Call::Append { file, length, fill } => self.append(*file, *length, *fill),
            Call::Ftruncate { file, size } => self.ftruncate(*file, *size),
            Call::Fallocate { file, space, offset, length } => {
                self.fallocate(*file, *space, *offset, *length)
            }
            Call::Fsync { file, .. } => self.sync(*file),
            Call::Fstat { file } => Ok(Answer::Attributes(self.open_file(*file)?.node)),
            Call::MapRead { file, offset, length } => self.map_read(*file, *offset, *length),
            Call::MapWrite { file, offset, length, fill } => {
                self.map_write(*file, *offset, *length, *fill)
            }
            Call::Seek { file, offset, hole } => self.seek(*file, *offset, *hole),
            Call::CopyRange { from, at, to, offset, length } => {
                self.copy_range((*from, *at), (*to, *offset), *length)
            }
            Call::Flock { file, exclusive } => self.flock(*file, *exclusive),
            Call::FlockFree { file } => self.flock_free(*file),
            Call::RangeLock { file, first, length, exclusive } => {
                self.range_lock(*file, *first..*first + *length, *exclusive)
            }
            Call::Truncate { path, size } => self.truncate(path, *size),
            Call::Mkdir { path, mode } => self.mkdir(path, *mode),
            Call::Mkfifo { path, mode } => self.mkfifo(path, *mode),
            Call::Symlink { target, path } => self.symlink(target, path),
            Call::Link { from, to } => self.link(from, to),
            Call::Unlink { path } => self.unlink(path),
            Call::Rmdir { path } => self.rmdir(path),
            Call::Rename { from, to, moves } => self.rename(from, to, *moves),
            Call::Chmod { path, mode } => self.chmod(path, *mode),
            Call::Chown { path, uid, gid } => self.chown(path, (*uid, *gid)),
            Call::Times { path, atime, mtime } => self.utimens(path, [*atime, *mtime]),
            Call::SetXattr { path, name, value } => self.set_xattr(path, name, value),
            Call::GetXattr { path, name } => self.get_xattr(path, name),
            Call::RemoveXattr { path, name } => self.remove_xattr(path, name),
            Call::ListXattr { path } => {
                let node = self.find(path, true)?;
                Ok(Answer::Names(self.nodes[&node].xattrs.keys().cloned().collect()))
            }
            Call::Stat { path, follow } => Ok(Answer::Attributes(self.find(path, *follow)?)),
            Call::Readlink { path } => {
                let node = self.find(path, false)?;
                match self.nodes[&node].kind {
                    Kind::Symlink => Ok(Answer::Text(self.nodes[&node].target.clone())),
                    _ => Err(libc::EINVAL.into()),
                }
            }
            Call::List { path } => {
                let node = self.find(path, true)?;
                match self.nodes[&node].kind {
                    Kind::Directory => Ok(Answer::Entries(node)),
                    Kind::Fifo => Err(Refusal::Skip),
                    _ => Err(libc::ENOTDIR.into()),
                }
            }
            Call::ReadFile { path } => {
                let node = self.find(path, true)?;
                match self.nodes[&node].kind {
                    Kind::Regular => Ok(Answer::Bytes(self.nodes[&node].contents.clone())),
                    _ => Err(Refusal::Skip),
                }
            }
            Call::Pause { .. } => Ok(Answer::Done),
        }
    }
}

//! What clients ask, and what they are answered.

use serde::{Deserialize, Serialize};

use crate::file::{Commit, Mapping, Seek, Segment};
use crate::leases::LeaseLevel;
use crate::leases::LeaseNumber;
use crate::locks::{
    HeldLock, LockOwner, LockRange, LockRequest, LockSpace, Locked, OnConflict, WaitId,
};
use crate::ops::{
    DirectoryPage, Make, Opened, Removed, RenameMode, SetAttributes, Statistics, XattrMode,
};
use crate::tree::Row;
use crate::{
    Access, Attributes, BlockAddress, Caller, Cookie, FileBlock, FsError, Ino, Mode, Name,
    RequestNumber, Run, SessionId, SlotIndex, Timestamp,
};

/// Which request: the same in every try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId {
    /// Whose.
    pub session: SessionId,
    /// In which slot.
    pub slot: SlotIndex,
    /// Which of that slot.
    pub number: RequestNumber,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which.
    pub id: RequestId,
    /// For whom.
    pub caller: Caller,
    /// What.
    pub operation: Operation,
    /// Leases that the client would like beside the answer. Nobody is asked to give any back for
    /// them; [`Operation::Lease`] does that. [`Request::FOUND`] stands for every inode whose
    /// attributes are in the reply.
    pub wanted: Vec<(Ino, LeaseLevel)>,
}

impl Request {
    /// In [`Request::wanted`]: whatever the reply tells the attributes of.
    pub const FOUND: Ino = Ino(0);
}

/// Where bytes are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WritePlace {
    /// At this offset.
    At(u64),
    /// Behind what the file has when its turn comes.
    End,
}

/// What is asked. The fields are those of the methods of [`crate::Transaction`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each stands with the method of its name")]
pub enum Operation {
    Lookup {
        dir: Ino,
        name: Name,
    },
    Parent {
        dir: Ino,
    },
    Getattr {
        ino: Ino,
    },
    Access {
        ino: Ino,
        access: Access,
    },
    /// Opens an inode: it is kept as long as the session has it open.
    Open {
        ino: Ino,
        access: Access,
    },
    /// Opens or makes a file.
    Create {
        dir: Ino,
        name: Name,
        modes: (Mode, Mode),
        exclusive: bool,
        access: Access,
    },
    /// Closes what was opened once; its locks are freed by [`Operation::EndOwner`].
    Close {
        ino: Ino,
    },
    Make {
        dir: Ino,
        name: Name,
        make: Make,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: Name,
    },
    Unlink {
        dir: Ino,
        name: Name,
    },
    Rmdir {
        dir: Ino,
        name: Name,
    },
    Rename {
        from: (Ino, Name),
        to: (Ino, Name),
        mode: RenameMode,
    },
    Setattr {
        ino: Ino,
        set: SetAttributes,
    },
    Readlink {
        ino: Ino,
    },
    Opendir {
        dir: Ino,
    },
    Readdir {
        dir: Ino,
        after: Cookie,
        bound: Cookie,
        limit: u32,
        plus: bool,
    },
    Getxattr {
        ino: Ino,
        name: Vec<u8>,
    },
    Listxattr {
        ino: Ino,
    },
    Setxattr {
        ino: Ino,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    },
    Removexattr {
        ino: Ino,
        name: Vec<u8>,
    },
    Statfs,
    /// Where bytes are. The answer is good until the layout is recalled.
    Read {
        ino: Ino,
        offset: u64,
        length: u64,
        /// The bytes go where only a recall brings them back from, the pages of the client's kernel: a
        /// lease that is wanted beside them is given even if several clients contend for the inode.
        kept: bool,
    },
    /// Which blocks a file has: a layout.
    Mappings {
        ino: Ino,
        from: FileBlock,
        end: FileBlock,
    },
    Seek {
        ino: Ino,
        offset: u64,
        seek: Seek,
    },
    /// Blocks to write new data into.
    Reserve {
        want: u64,
        near: BlockAddress,
    },
    Commit {
        ino: Ino,
        commit: Commit,
    },
    /// Writes bytes, of whoever holds no lease to write: the coordinator takes the inode's order, puts
    /// them into blocks and moves the size.
    Write {
        ino: Ino,
        place: WritePlace,
        bytes: Vec<u8>,
        kill_privileges: bool,
        /// The bytes come from pages that the client's kernel gives up because of a recall: they belong
        /// before what that recall makes room for, and go before it.
        launders: bool,
    },
    /// Answered when all that was committed and written to the inode so far is on media, with every
    /// operation before.
    Fsync {
        ino: Ino,
    },
    /// Allocate, punch and zero: the parts of blocks are zeroed by the coordinator.
    Allocate {
        ino: Ino,
        range: (u64, u64),
        keep_size: bool,
        near: BlockAddress,
    },
    Punch {
        ino: Ino,
        range: (u64, u64),
    },
    Zero {
        ino: Ino,
        range: (u64, u64),
        keep_size: bool,
        near: BlockAddress,
    },
    /// A lease: whatever stands in its way is recalled first.
    Lease {
        ino: Ino,
        level: LeaseLevel,
    },
    Lock {
        request: LockRequest,
        on_conflict: OnConflict,
    },
    Unlock {
        place: (Ino, LockSpace),
        owner: LockOwner,
        range: LockRange,
    },
    GetLock {
        request: LockRequest,
    },
    CancelLock {
        wait: WaitId,
    },
    EndOwner {
        ino: Ino,
        owner: LockOwner,
    },
    /// Numbers for what will be made in a [`Operation::Batch`].
    Numbers {
        count: u64,
    },
    /// Operations that were done at the client under exclusive leases, in order.
    Batch {
        steps: Vec<Step>,
    },
    /// The exclusive lease on a directory, with all that is in it; `whole`: what others have of that is
    /// recalled, too.
    Take {
        dir: Ino,
        whole: bool,
    },
    /// Makes a file without a name, open from the start: `O_TMPFILE`. [`Operation::Link`] gives it one.
    Tmpfile {
        dir: Ino,
        modes: (Mode, Mode),
        access: Access,
    },
}

/// One operation of a batch. It is done as it was at the client: in the name of `caller`, at its date,
/// with the number that it gave to what it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// For whom.
    pub caller: Caller,
    /// The date that changed inodes get.
    pub date: Timestamp,
    /// The number of what it makes, out of [`Operation::Numbers`].
    pub made: Option<Ino>,
    /// What: `Make`, `Link`, `Unlink`, `Rmdir`, `Rename`, `Setattr` without a size, or `Commit`.
    pub operation: Operation,
}

/// A directory with all that is in it: rows as they stand in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The inodes of the directory and of what is in it, and their ACLs; its entries by name. Keys and
    /// values of [`crate::format`].
    pub rows: Vec<Row>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each carries what the operation's method returns")]
pub enum Reply {
    Done,
    Attributes(Attributes),
    Opened(Opened),
    Removed(Option<Removed>),
    Target(Vec<u8>),
    Directory {
        parent: Ino,
        bound: Cookie,
    },
    Page(DirectoryPage),
    Value(Vec<u8>),
    Names(Vec<Vec<u8>>),
    Statistics(Statistics),
    Segments(Attributes, Vec<Segment>),
    Mappings(Vec<Mapping>),
    Offset(u64),
    Runs(Vec<Run>),
    /// Where the bytes went, and the inode afterwards.
    Written(u64, Attributes),
    /// What the client holds of the inode now; less than it asked for if several hosts contend.
    Lease(Option<(LeaseLevel, LeaseNumber)>),
    Lock(Option<HeldLock>),
    Locked(Locked),
    Cancelled(bool),
    Refused(FsError),
    /// The first of the numbers, and how many.
    Numbers(Ino, u64),
    /// How many steps of a batch were done, and why the next one was not, which can only be a fault of
    /// the client or of the volume.
    Batch {
        done: u64,
        refused: Option<FsError>,
    },
    Taken(Taken),
}

/// A reply with the leases that came with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// The leases that the client holds now, of those that it wanted.
    pub leases: Vec<(Ino, LeaseLevel, LeaseNumber)>,
    /// Directories as they are after the operation, of those that it changed and the client has a lease
    /// on: it needs not ask for what it knew before.
    pub told: Vec<Attributes>,
}

impl Reply {
    /// The inodes whose attributes it tells, so that they can be cached under a lease.
    pub(super) fn found(&self) -> Vec<Ino> {
        match self {
            Self::Attributes(attributes) | Self::Written(_, attributes) => vec![attributes.ino],
            Self::Segments(attributes, _) => vec![attributes.ino],
            Self::Opened(opened) => vec![opened.attributes.ino],
            Self::Page(page) => {
                let told = page.entries.iter().filter(|entry| entry.attributes.is_some());
                told.map(|entry| entry.ino).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Answer {
    /// The answer's bytes, for the reply cache: without leases, which end with the coordinator.
    #[must_use]
    pub(super) fn encode_reply(reply: &Reply) -> Vec<u8> {
        postcard::to_stdvec(reply).expect("a reply is plain data")
    }

    /// Reads a reply from the reply cache.
    #[must_use]
    pub(super) fn decode_reply(bytes: &[u8]) -> Option<Reply> {
        postcard::from_bytes(bytes).ok()
    }
}

//! What is open. Under a lease an open is this client's own matter: nobody can remove the inode without
//! recalling the lease, and before it is given back the coordinator is told of what is open. Without
//! one, each open is asked for.

use mooring_sharedfs_core::coordinator::{Operation, Reply, Request};
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::locks::{LockRange, LockSpace};
use mooring_sharedfs_core::ops::DirectoryPage;
use mooring_sharedfs_core::{Access, Attributes, Caller, Cookie, FileBlock, FsError, Ino};

use crate::client::{Client, Turn};
use crate::kernel::{DirectoryItem, HandleId, KernelOperation, KernelReply, OpenFlags};
use crate::replies::{Change, Purpose};
use crate::tasks::{Attempt, Stage, TaskId};

/// As many names of a directory are kept of those that were listed.
const NAMES_MAX: usize = 16_384;

/// Something that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handle {
    pub(crate) ino: Ino,
    /// A mapping of it can be written to, of which nothing tells but that its pages are read.
    pub(crate) maps: bool,
    /// Writes back that had failed when it was opened, or were told through it.
    errors: u64,
    /// Where reading a directory ends, and whether it has begun.
    bound: Cookie,
    begun: bool,
    /// How it is read.
    pub(crate) stretch: Stretch,
}

/// Reads of a handle that follow each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stretch {
    /// The blocks of the last one, how many went on where the one before ended, and what was read ahead.
    pub(crate) last: (FileBlock, FileBlock),
    pub(crate) reads: u32,
    pub(crate) ahead: FileBlock,
}

impl Client {
    pub(crate) fn try_open(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        caller: Caller,
        ino: Ino,
        access: Access,
    ) -> Attempt {
        // Whom the kernel's checks don't bind, the coordinator checks.
        if caller.is_checked() && self.served(ino).is_some() && self.inode(ino).recalled.is_none() {
            if !self.is_fresh(turn.now) {
                return Attempt::Park;
            }
            let asked = KernelOperation::Open { ino, access };
            return Attempt::Answer(self.opened(&asked, ino));
        }
        let wanted = self.wanted(&[(ino, LeaseLevel::Read)]);
        let purpose = Purpose::Task(id, Change::none());
        self.ask(turn, caller, Operation::Open { ino, access }, wanted, purpose);
        Attempt::Wait(Stage::Asked)
    }

    pub(crate) fn new_handle(&mut self, ino: Ino, maps: bool, bound: Cookie) -> HandleId {
        let inode = self.inode(ino);
        inode.handles += 1;
        inode.maps += u64::from(maps);
        let errors = inode.errors;
        self.last_handle = HandleId(self.last_handle.0 + 1);
        let handle = Handle { ino, maps, errors, bound, begun: false, stretch: Stretch::default() };
        self.handles.insert(self.last_handle, handle);
        self.last_handle
    }

    /// A file is open: for writing past the page cache, or a write would lock pages that a recall waits
    /// for.
    pub(crate) fn opened(&mut self, asked: &KernelOperation, ino: Ino) -> KernelReply {
        let access = match asked {
            KernelOperation::Open { access, .. }
            | KernelOperation::Create { access, .. }
            | KernelOperation::Tmpfile { access, .. } => *access,
            _ => Access::NONE,
        };
        let writes = access.bits() & Access::WRITE.bits() != 0;
        let maps = writes && access.bits() & Access::READ.bits() != 0;
        let inode = self.inode(ino);
        let current = inode.kernel_pages.is_none()
            || inode.kernel_pages == inode.attributes.map(|attributes| attributes.change);
        let keep_cache = !writes && inode.lease >= LeaseLevel::Read && current;
        let handle = self.new_handle(ino, maps, Cookie(0));
        KernelReply::Opened(handle, OpenFlags { direct: writes, keep_cache })
    }

    pub(crate) fn created(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &KernelOperation,
        attributes: Attributes,
    ) -> KernelReply {
        self.inode(attributes.ino).registered += 1;
        self.created_open(turn, asked, attributes).unwrap_or(KernelReply::Done)
    }

    /// What a CREATE that was done here is answered: the open is this client's own matter.
    pub(crate) fn created_here(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &KernelOperation,
        ino: Ino,
    ) -> Option<KernelReply> {
        let attributes = self.known_attributes(ino)?;
        self.created_open(turn, asked, attributes)
    }

    fn created_open(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &KernelOperation,
        attributes: Attributes,
    ) -> Option<KernelReply> {
        let (KernelOperation::Create { dir, .. } | KernelOperation::Tmpfile { dir, .. }) = asked
        else {
            return None;
        };
        Some(match self.opened(asked, attributes.ino) {
            KernelReply::Opened(handle, flags) => {
                let mut entry = self.entry(turn.now, *dir, attributes);
                if self.lookups(attributes.ino) > 0 {
                    // Of what it knows, the kernel would believe this even if it was told meanwhile
                    // to forget it.
                    entry.attr_time = std::time::Duration::ZERO;
                }
                KernelReply::Created(entry, handle, flags)
            }
            other => other,
        })
    }

    /// Whether a write back failed that was not told through the handle.
    pub(crate) fn has_error(&self, id: HandleId) -> bool {
        self.handles.get(&id).is_some_and(|handle| {
            let errors = self.inodes.get(&handle.ino).map_or(0, |inode| inode.errors);
            handle.errors < errors
        })
    }

    /// What is told of writes back that failed.
    pub(crate) fn lost(&self, id: HandleId) -> KernelReply {
        let ino = self.handles.get(&id).map(|handle| handle.ino);
        let error = ino.and_then(|ino| self.inodes.get(&ino)).map(|inode| inode.error);
        KernelReply::Error(error.unwrap_or(FsError::Unavailable))
    }

    /// The handle's errors of writing back, told once.
    pub(crate) fn take_error(&mut self, id: HandleId) -> bool {
        let Some(handle) = self.handles.get_mut(&id) else { return false };
        let errors = self.inodes.get(&handle.ino).map_or(0, |inode| inode.errors);
        let told = handle.errors < errors;
        handle.errors = errors;
        told
    }

    /// Whether the coordinator knows of all that is open and may lose its last name.
    pub(crate) fn victims_are_registered(&mut self, turn: &mut Turn<'_>, change: &Change) -> bool {
        let open: Vec<Ino> = if change.unknown {
            self.inodes.iter().filter(|(_, of)| of.handles > 0).map(|(&ino, _)| ino).collect()
        } else {
            change.inos.clone()
        };
        let mut all = true;
        for ino in open {
            all &= self.is_registered(turn, ino);
        }
        all
    }

    /// Whether the coordinator knows that an inode is open, if it is; it is told if not.
    pub(crate) fn is_registered(&mut self, turn: &mut Turn<'_>, ino: Ino) -> bool {
        let inode = self.inode(ino);
        if inode.handles == 0 || inode.registered > 0 {
            return true;
        }
        if !inode.registering {
            inode.registering = true;
            let asked = Operation::Open { ino, access: Access::NONE };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Register(ino));
        }
        false
    }

    pub(crate) fn registered(&mut self, ino: Ino, reply: &Reply) {
        let inode = self.inode(ino);
        inode.registering = false;
        // Refused: it is gone, and there is nothing to keep.
        inode.registered += 1;
        if matches!(reply, Reply::Refused(_)) {
            inode.errors += u64::from(inode.is_dirty());
        }
        self.to_close.insert(ino);
    }

    /// The last descriptor of a handle is closed.
    pub(crate) fn release(
        &mut self,
        turn: &mut Turn<'_>,
        id: HandleId,
        flock: Option<u64>,
    ) -> Attempt {
        if let Some(handle) = self.handles.remove(&id) {
            if let Some(owner) = flock {
                self.end_owner(turn, handle.ino, LockSpace::Flock, owner);
            }
            let inode = self.inode(handle.ino);
            inode.handles -= 1;
            inode.maps -= u64::from(handle.maps);
            self.to_close.insert(handle.ino);
            self.poked = true;
        }
        Attempt::Answer(KernelReply::Done)
    }

    /// Tells the coordinator what is open no more: once everything is written back, and nothing is
    /// under way on the inode's blocks.
    pub(crate) fn close_what_is_clean(&mut self, turn: &mut Turn<'_>) {
        for ino in self.to_close.clone() {
            let Some(inode) = self.inodes.get_mut(&ino) else {
                self.to_close.remove(&ino);
                continue;
            };
            if inode.registering || inode.handles >= inode.registered {
                if !inode.registering {
                    self.to_close.remove(&ino);
                    self.drop_if_idle(ino);
                }
                continue;
            }
            let last = inode.handles == 0;
            if last && (inode.is_dirty() || inode.reading > 0) {
                if inode.is_dirty() {
                    self.write_back(turn, ino);
                }
                continue;
            }
            if last && inode.lease < LeaseLevel::Read {
                inode.layout.clear();
            }
            inode.registered -= 1;
            inode.closing += 1;
            let asked = Operation::Close { ino };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Close(ino));
            // There may be more to close.
            self.poked = true;
        }
    }

    pub(crate) fn opened_directory(
        &mut self,
        operation: &Operation,
        parent: Ino,
        bound: Cookie,
    ) -> KernelReply {
        let Operation::Opendir { dir } = operation else { return KernelReply::Done };
        self.inode(*dir).registered += 1;
        let handle = self.new_handle(*dir, false, bound);
        KernelReply::OpenedDirectory(handle, parent)
    }

    /// Reads entries. Read from the beginning once more, a directory ends where it ends then.
    pub(crate) fn try_readdir(
        &mut self,
        turn: &mut Turn<'_>,
        id: TaskId,
        caller: Caller,
        handle: HandleId,
        after: Cookie,
        (limit, plus): (u32, bool),
    ) -> Attempt {
        let Some(of) = self.handles.get(&handle) else {
            return Attempt::error(FsError::Invalid);
        };
        let (dir, bound) = (of.ino, of.bound);
        let again = of.begun && after <= Cookie::DOT_DOT;
        let end = (!again).then_some(bound);
        if let Some((page, bound)) = self.page_here(turn, dir, (after, end), (limit, plus)) {
            if let Some(of) = self.handles.get_mut(&handle) {
                (of.bound, of.begun) = (bound, true);
            }
            let asked = KernelOperation::Readdir { handle, after, limit, plus };
            return Attempt::Answer(self.directory_page(turn, &asked, page, false));
        }
        if let Some(of) = self.handles.get_mut(&handle) {
            of.begun = !again;
        }
        let (asked, wanted) = if again {
            (Operation::Opendir { dir }, Vec::new())
        } else {
            let found = if plus { LeaseLevel::Read } else { LeaseLevel::None };
            let wanted = self.wanted(&[(dir, LeaseLevel::Read), (Request::FOUND, found)]);
            (Operation::Readdir { dir, after, bound, limit, plus }, wanted)
        };
        self.ask(turn, caller, asked, wanted, Purpose::Task(id, Change::none()));
        Attempt::Wait(Stage::Asked)
    }

    /// A directory that is read again has a new end.
    pub(crate) fn rebound(&mut self, handle: HandleId, bound: Cookie) {
        if let Some(of) = self.handles.get_mut(&handle) {
            (of.bound, of.begun) = (bound, false);
            let ino = of.ino;
            self.inode(ino).registered += 1;
            self.to_close.insert(ino);
        }
    }

    pub(crate) fn directory_page(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &KernelOperation,
        page: DirectoryPage,
        old: bool,
    ) -> KernelReply {
        let KernelOperation::Readdir { handle, .. } = asked else { return KernelReply::Done };
        let Some(dir) = self.handles.get(handle).map(|of| of.ino) else {
            return KernelReply::Directory(Vec::new());
        };
        let mut items = Vec::new();
        for entry in page.entries {
            if let Some(attributes) = entry.attributes {
                self.learn(attributes, old);
            }
            if self.inode(dir).names.len() < NAMES_MAX {
                self.learn_name(dir, &entry.name, Some(entry.ino), old);
            }
            let told = entry.attributes.map(|attributes| self.entry(turn.now, dir, attributes));
            items.push(DirectoryItem {
                cookie: entry.cookie,
                name: entry.name,
                ino: entry.ino,
                file_type: entry.file_type,
                entry: told,
            });
        }
        KernelReply::Directory(items)
    }

    /// An owner's locks of an inode end with its descriptor.
    pub(crate) fn end_owner(
        &mut self,
        turn: &mut Turn<'_>,
        ino: Ino,
        space: LockSpace,
        owner: u64,
    ) {
        let Some(owner) = self.owner(owner) else { return };
        if self.locks.of(ino, space).any(|lock| lock.owner == owner) {
            self.locks.unlock((ino, space), owner, LockRange::ALL, &mut Vec::new());
            let place = (ino, space);
            let asked = Operation::Unlock { place, owner, range: LockRange::ALL };
            self.ask(turn, Caller::ROOT, asked, Vec::new(), Purpose::Nobody);
        }
    }
}

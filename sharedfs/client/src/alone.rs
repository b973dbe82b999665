//! Operations on directories that nobody else has anything of: done here, answered at once, and told the
//! coordinator in batches ([`crate::early`]).
//!
//! ```text
//!   operation ──> every inode that it touches is alone? ──no──> asked, and waited for
//!                   └─yes──> run on the rows that are known here ──error──> answered
//!                                └──> rows and caches changed, step queued, answered
//! ```
//! *Alone* is an inode under a lease that excludes everybody, whose row is known and of which no change is
//! on its way; a directory, if all its entries are known, too: one that was made here, or taken
//! ([`Client::taken`]). Not done here: what changes contents (data goes its own way, and its commit into
//! the same queue), exchanges, attributes beside those of `stat`, and whatever touches an inode that is
//! not alone.

use mooring_sharedfs_core::coordinator::{Operation, Reply};
use mooring_sharedfs_core::format::{EntryRow, InodeRow, Key, PlaceRow};
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::ops::{Make, New, Progress, RenameMode, SetTime};
use mooring_sharedfs_core::tree::Changes;
use mooring_sharedfs_core::{
    Attributes, Caller, Context, Cookie, FsError, Ino, Name, Result, Transaction,
};

use mooring_terms::Time;

use crate::client::{Client, Turn};
use crate::early::NoNumber;
use crate::inode::Inode;
use crate::kernel::{KernelOperation, KernelReply};
use crate::known::{Folder, Known};
use crate::rows::Rows;
use crate::tasks::Attempt;

/// A directory with more entries is not kept.
const FOLDER_MAX: usize = 32_768;

/// What an operation came to.
enum Done {
    Attributes(Attributes),
    Removed,
}

impl Client {
    /// Does an operation here, if all that it touches is alone.
    pub(crate) fn try_alone(
        &mut self,
        turn: &mut Turn<'_>,
        caller: &Caller,
        asked: &KernelOperation,
    ) -> Option<Attempt> {
        let (operation, dirs) = self.as_step(asked)?;
        let alone = |ino: &Ino| self.inodes.get(ino).is_some_and(|inode| inode.is_alone());
        let here = self.options.alone && self.unknown_changes == 0 && !self.unmounting;
        if !here || !dirs.iter().all(alone) {
            return None;
        }
        if !self.is_fresh(turn.now) || self.is_far_ahead() {
            return Some(Attempt::Park);
        }
        if let Some(found) = self.create_found(turn, caller, asked) {
            return found;
        }
        let made = match &operation {
            Operation::Make { dir, name, .. } if self.known(*dir, name) == Some(None) => {
                if !self.has_room(*dir) {
                    return None;
                }
                match self.number(turn) {
                    Ok(number) => Some(number),
                    Err(NoNumber::Yet) => return Some(Attempt::Park),
                    Err(NoNumber::None) => return None,
                }
            }
            _ => None,
        };
        for victim in self.victims(&operation) {
            let busy = self
                .inodes
                .get(&victim)
                .is_some_and(|inode| inode.handles == 0 && inode.is_written_back());
            if busy || !self.is_registered(turn, victim) {
                return Some(Attempt::Park);
            }
        }
        let rows = Rows { client: self, reads: false };
        let context = Context { now: turn.date };
        let mut transaction = Transaction::new(&rows, context).naming(made);
        let done = match run(&mut transaction, caller, &operation) {
            Ok(done) => done,
            Err(FsError::Unavailable | FsError::Stale | FsError::Damaged(_)) => return None,
            Err(error) => return Some(Attempt::error(error)),
        };
        let changes = transaction.finish().record.changes;
        let inos = self.apply(&changes, made);
        if made.is_some() {
            self.numbers.take();
        }
        self.note_change(turn.now, asked);
        if let Operation::Setattr { ino, set } = &operation {
            self.set_local(*ino, set.mtime != SetTime::Keep, set.mode.is_some());
        }
        self.push_step(turn, (caller.clone(), turn.date), made, operation, inos);
        Some(Attempt::Answer(self.done_alone(turn, asked, &done)))
    }

    /// The step that an operation of the kernel is, and the inodes that must be alone, at least.
    fn as_step(&self, asked: &KernelOperation) -> Option<(Operation, Vec<Ino>)> {
        use KernelOperation as K;
        Some(match asked.clone() {
            K::Make { dir, name, make } => (Operation::Make { dir, name, make }, vec![dir]),
            K::Create { dir, name, modes: (mode, umask), .. } => {
                let make = Make { new: New::Regular, mode, umask };
                (Operation::Make { dir, name, make }, vec![dir])
            }
            K::Unlink { dir, name } => (Operation::Unlink { dir, name }, vec![dir]),
            K::Rmdir { dir, name } => (Operation::Rmdir { dir, name }, vec![dir]),
            K::Rename { from, to, mode: mode @ (RenameMode::Replace | RenameMode::NoReplace) } => {
                let dirs = vec![from.0, to.0];
                (Operation::Rename { from, to, mode }, dirs)
            }
            K::Link { ino, dir, name } => (Operation::Link { ino, dir, name }, vec![dir, ino]),
            K::Setattr { ino, set } if set.size.is_none() => {
                (Operation::Setattr { ino, set }, vec![ino])
            }
            _ => return None,
        })
    }

    /// A CREATE of what is there: it is opened, or refused.
    fn create_found(
        &mut self,
        turn: &mut Turn<'_>,
        caller: &Caller,
        asked: &KernelOperation,
    ) -> Option<Option<Attempt>> {
        let KernelOperation::Create { dir, name, modes, exclusive, access } = asked else {
            return None;
        };
        self.known(*dir, name)??;
        let rows = Rows { client: self, reads: true };
        let mut transaction = Transaction::new(&rows, Context { now: turn.date });
        let found = transaction.create(caller, *dir, name, *modes, *exclusive, *access);
        Some(match found {
            Ok(opened)
                if opened.attributes.file_type == mooring_sharedfs_core::FileType::Regular =>
            {
                Some(Attempt::Answer(self.created_here(turn, asked, opened.attributes.ino)?))
            }
            Ok(_) | Err(FsError::Unavailable | FsError::Stale | FsError::Damaged(_)) => None,
            Err(error) => Some(Attempt::error(error)),
        })
    }

    /// Whether something more can be made in a directory and kept.
    fn has_room(&self, dir: Ino) -> bool {
        let folder = self.inodes.get(&dir).and_then(|inode| inode.known.as_ref()?.folder.as_ref());
        self.leases <= self.options.leases_max + self.options.leases_max / 8
            && folder.is_some_and(|folder| folder.entries.len() < FOLDER_MAX)
    }

    /// What an operation takes a name from.
    fn victims(&self, operation: &Operation) -> Vec<Ino> {
        let named = |dir: Ino, name: &Name| self.known(dir, name).flatten().into_iter().collect();
        match operation {
            Operation::Unlink { dir, name } | Operation::Rmdir { dir, name } => named(*dir, name),
            Operation::Rename { to, .. } => named(to.0, &to.1),
            _ => Vec::new(),
        }
    }

    /// Changes what is known. The inodes that have changed are returned.
    fn apply(&mut self, changes: &Changes, made: Option<Ino>) -> Vec<Ino> {
        let mut inos = Vec::new();
        for (key, value) in changes.iter() {
            match Key::decode(key) {
                Some(Key::Inode(ino)) => {
                    let Some(row) = value.and_then(|value| InodeRow::decode(ino, value)) else {
                        continue;
                    };
                    inos.push(ino);
                    if made == Some(ino) {
                        self.born(&row);
                    }
                    let inode = self.inode(ino);
                    inode.attributes = Some(row.attributes);
                    if let Some(local) = &mut inode.local {
                        local.ctime = row.attributes.ctime;
                    }
                    if let Some(known) = &mut inode.known {
                        known.learn(&row);
                    }
                }
                Some(Key::Orphan(ino)) => self.removed_here(ino),
                Some(key) => self.apply_beside(key, value),
                None => {}
            }
        }
        inos
    }

    /// Changes a row beside an inode's.
    fn apply_beside(&mut self, key: Key, value: Option<&[u8]>) {
        let (Key::Entry(ino, _) | Key::Place(ino, _) | Key::Xattr(ino, _) | Key::Inline(ino)) = key
        else {
            return;
        };
        if matches!(key, Key::Entry(..)) && value.is_some() {
            self.names += 1;
        }
        let Some(known) = self.inode(ino).known.as_deref_mut() else { return };
        match (key, &mut known.folder) {
            (Key::Entry(_, name), Some(folder)) => {
                match value.and_then(EntryRow::decode) {
                    Some(entry) => drop(folder.entries.insert(name, entry)),
                    None => drop(folder.entries.remove(&name)),
                };
            }
            (Key::Place(_, cookie), Some(folder)) => {
                match value.and_then(PlaceRow::decode) {
                    Some(place) => drop(folder.places.insert(cookie, place.name)),
                    None => drop(folder.places.remove(&cookie)),
                };
            }
            (Key::Xattr(_, name), _) => {
                match value {
                    Some(value) => drop(known.acls.insert(name, value.to_vec())),
                    None => drop(known.acls.remove(&name)),
                };
            }
            (Key::Inline(_), _) => known.target = value.map(<[u8]>::to_vec),
            _ => {}
        }
    }

    /// Something was made here: nobody else can know of it.
    fn born(&mut self, row: &InodeRow) {
        let directory = row.attributes.is_directory();
        let level = if directory { LeaseLevel::Exclusive } else { LeaseLevel::Write };
        let mut known = Known::of(row);
        known.folder = directory.then(Folder::default);
        let inode = self.inode(row.attributes.ino);
        inode.lease = level;
        inode.known = Some(Box::new(known));
        self.leases += 1;
    }

    /// An inode has lost its last name here: what was written and not sent is nobody's, unless it is open.
    fn removed_here(&mut self, ino: Ino) {
        let inode = self.inode(ino);
        inode.gone = true;
        if inode.handles > 0 || !inode.rounds.is_empty() {
            return;
        }
        inode.local = None;
        let promised = self.with_pages(ino, |inode| {
            let promised = inode.pages.promised();
            inode.pages.clear();
            promised
        });
        self.pool.release(promised);
        self.unwritten_since(Time::ZERO, ino, false);
        self.dirty.remove(&ino);
    }

    /// The coordinator has removed an inode, too, and forgotten the lease on it.
    pub(crate) fn bury(&mut self, ino: Ino) {
        let done = self.early.done();
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let open = inode.handles + inode.registered + inode.closing > 0 || inode.registering;
        let busy = open || inode.recalled.is_some() || inode.is_dirty() || inode.early > done;
        if !inode.gone || busy || inode.lease == LeaseLevel::None {
            return;
        }
        inode.lease = LeaseLevel::None;
        self.leases = self.leases.saturating_sub(1);
        self.with_pages(ino, Inode::forget);
        self.drop_if_idle(ino);
    }

    /// Dates that were set are those of what is written and not committed, too.
    fn set_local(&mut self, ino: Ino, mtime: bool, mode: bool) {
        let inode = self.inode(ino);
        let (Some(local), Some(attributes)) = (&mut inode.local, inode.attributes) else { return };
        if mtime {
            local.mtime = attributes.mtime;
        }
        if mode {
            local.kill_privileges = false;
            inode.rounds.iter_mut().for_each(crate::write_back::Round::keep_privileges);
        }
    }

    fn done_alone(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &KernelOperation,
        done: &Done,
    ) -> KernelReply {
        match (done, asked) {
            (Done::Attributes(made), KernelOperation::Create { .. }) => {
                self.created_here(turn, asked, made.ino).unwrap_or(KernelReply::Done)
            }
            (
                Done::Attributes(told),
                KernelOperation::Make { dir, .. } | KernelOperation::Link { dir, .. },
            ) => KernelReply::Entry(self.entry(turn.now, *dir, *told)),
            (Done::Attributes(told), _) => {
                let time = self.attr_time(turn.now, told.ino);
                KernelReply::Attributes(self.with_local(*told), time)
            }
            (Done::Removed, _) => KernelReply::Done,
        }
    }

    /// Opens a directory all of which is known.
    pub(crate) fn try_opendir(
        &mut self,
        turn: &mut Turn<'_>,
        caller: &Caller,
        dir: Ino,
    ) -> Option<Attempt> {
        let alone = self.inodes.get(&dir).is_some_and(|inode| inode.is_whole());
        if !alone || self.unknown_changes > 0 || !self.is_fresh(turn.now) {
            return None;
        }
        let rows = Rows { client: self, reads: true };
        let opened = Transaction::new(&rows, Context { now: turn.date }).opendir(caller, dir);
        match opened {
            Ok((parent, bound)) => {
                let handle = self.new_handle(dir, false, bound);
                Some(Attempt::Answer(KernelReply::OpenedDirectory(handle, parent)))
            }
            Err(FsError::Access) => Some(Attempt::error(FsError::Access)),
            Err(_) => None,
        }
    }

    /// A page of a directory all of which is known. From the beginning once more, it ends where the
    /// directory ends now: the new end is returned, too.
    pub(crate) fn page_here(
        &self,
        turn: &Turn<'_>,
        dir: Ino,
        (after, bound): (Cookie, Option<Cookie>),
        (limit, plus): (u32, bool),
    ) -> Option<(mooring_sharedfs_core::ops::DirectoryPage, Cookie)> {
        let whole = self.inodes.get(&dir).is_some_and(|inode| inode.is_whole());
        if !whole || self.unknown_changes > 0 || !self.is_fresh(turn.now) {
            return None;
        }
        let rows = Rows { client: self, reads: true };
        let transaction = Transaction::new(&rows, Context { now: turn.date });
        let bound = match bound {
            Some(bound) => bound,
            None => transaction.opendir(&Caller::ROOT, dir).ok()?.1,
        };
        let limit = limit.clamp(1, 4096) as usize;
        let page = transaction.readdir(dir, after, bound, limit, plus).ok()?;
        Some((page, bound))
    }

    /// A change that was asked for, and not done here: what is known of these is not all any more.
    pub(crate) fn forget_known(&mut self, inos: &[Ino]) {
        for ino in inos {
            if let Some(inode) = self.inodes.get_mut(ino) {
                inode.known = None;
            }
        }
    }

    /// A directory that the coordinator has made is empty, and this client's alone.
    pub(crate) fn made_alone(&mut self, dir: Ino, attributes: Attributes) {
        let inode = self.inode(attributes.ino);
        if !attributes.is_directory()
            || inode.lease < LeaseLevel::Exclusive
            || inode.attributes != Some(attributes)
        {
            return;
        }
        let flags = mooring_sharedfs_core::format::InodeFlags::default();
        let next_cookie = Cookie::FIRST;
        let row = InodeRow { attributes, flags, parent: dir, next_cookie, entries: 0 };
        let mut known = Known::of(&row);
        known.folder = Some(Folder::default());
        inode.known = Some(Box::new(known));
    }

    /// A directory was taken, with all that is in it.
    pub(crate) fn taken(&mut self, turn: &Turn<'_>, dir: Ino, reply: &Reply, old: bool) {
        self.inode(dir).taking = false;
        let Reply::Taken(taken) = reply else {
            return self.not_taken(turn, dir);
        };
        let inode = self.inode(dir);
        let good = inode.lease >= LeaseLevel::Exclusive && inode.changing == 0;
        if !good || old || inode.recalled.is_some() || self.unknown_changes > 0 {
            return self.not_taken(turn, dir);
        }
        for (key, value) in &taken.rows {
            let Some(Key::Inode(ino)) = Key::decode(key) else { continue };
            let Some(row) = InodeRow::decode(ino, value) else { continue };
            let inode = self.inode(ino);
            inode.learn(row.attributes);
            let current = inode.attributes == Some(row.attributes) && inode.changing == 0;
            let alone = inode.lease >= LeaseLevel::Sole && inode.known.is_none();
            if current && alone && (ino == dir || !inode.is_dirty()) {
                let mut known = Known::of(&row);
                known.folder = (ino == dir).then(Folder::default);
                inode.names.clear();
                inode.known = Some(Box::new(known));
            }
            self.drop_if_idle(ino);
        }
        for (key, value) in &taken.rows {
            let Some(key) = Key::decode(key) else { continue };
            if let Key::Entry(_, name) = &key
                && let Some(entry) = EntryRow::decode(value)
            {
                let place =
                    PlaceRow { ino: entry.ino, file_type: entry.file_type, name: name.clone() };
                self.apply_beside(Key::Place(dir, entry.cookie), Some(&place.encode()));
            }
            if matches!(key, Key::Entry(..) | Key::Xattr(..)) {
                self.apply_beside(key, Some(value));
            }
        }
        if !self.inodes.get(&dir).is_some_and(|inode| inode.is_whole()) {
            self.not_taken(turn, dir);
        }
    }

    fn not_taken(&mut self, turn: &Turn<'_>, dir: Ino) {
        let after = turn.now + self.options.contention * 2;
        let inode = self.inode(dir);
        inode.changes = 0;
        inode.take_after = after;
    }
}

fn run(t: &mut Transaction<'_>, caller: &Caller, operation: &Operation) -> Result<Done> {
    // Whoever loses its last name is an orphan here: its rows are the coordinator's to delete.
    let open = |_| true;
    Ok(match operation {
        Operation::Make { dir, name, make } => Done::Attributes(t.make(caller, *dir, name, make)?),
        Operation::Link { ino, dir, name } => Done::Attributes(t.link(caller, *ino, *dir, name)?),
        Operation::Unlink { dir, name } => {
            t.unlink(caller, *dir, name, open)?;
            Done::Removed
        }
        Operation::Rmdir { dir, name } => {
            t.rmdir(caller, *dir, name, open)?;
            Done::Removed
        }
        Operation::Rename { from, to, mode } => {
            t.rename(caller, (from.0, &from.1), (to.0, &to.1), *mode, open)?;
            Done::Removed
        }
        Operation::Setattr { ino, set } => match t.setattr(caller, *ino, set)? {
            (attributes, Progress::Done) => Done::Attributes(attributes),
            (_, Progress::More) => return Err(FsError::Unavailable),
        },
        _ => return Err(FsError::Unavailable),
    })
}

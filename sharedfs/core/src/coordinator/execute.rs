//! Doing one request: on the tree, or on the tables of leases and locks.

use std::collections::BTreeSet;

use super::data::Planned;
use super::ending::Work;
use super::event::Command;
use super::request::{Answer, Operation, Reply, Request};
use super::take::take;
use super::{Coordinator, Turn};
use crate::leases::{LeaseLevel, Need};
use crate::locks::{Locked, OnConflict, WaitId};
use crate::ops::Progress;
use crate::tree::TreeStore;
use crate::{Caller, Context, FsError, Ino, QuarantineNumber, Result, SessionId, Transaction};

/// How far a request has come.
pub(super) enum Executed {
    /// It is done.
    Replied(Reply),
    /// A step of it is done.
    Step(Progress),
}

impl Coordinator {
    /// Does a request whose needs are met.
    pub(super) fn execute<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        request: &Request,
        needs: &[(Ino, Need)],
        planned: Option<&mut Planned>,
    ) -> Result<Executed> {
        if let Some(reply) = self.execute_on_tables(turn, request)? {
            return Ok(Executed::Replied(reply));
        }
        if let Operation::Batch { steps } = &request.operation {
            return self.execute_batch(turn, request.id, steps);
        }
        let id = request.id;
        let mut transaction = Transaction::new(turn.store, Context { now: turn.date });
        if let Operation::Commit { commit, .. } = &request.operation
            && self.names_lost(commit, transaction.slice_blocks()?)
        {
            return Err(FsError::Lost);
        }
        let open = |ino: Ino| self.opens.is_open(ino);
        let mut written;
        let (reply, progress) = match (&request.operation, planned) {
            (Operation::Write { .. }, Some(planned)) => {
                let reply = Self::commit_bytes(&mut transaction, planned)?;
                written = Some((planned.ino(), planned.commit.clone()));
                (reply, Progress::Done)
            }
            (_, planned) => {
                // The zeros of a size that moves, and of ragged ends.
                written = planned.map(|planned| (planned.ino(), planned.commit.clone()));
                if let (Some((ino, commit)), Some(size)) = (&written, grows_to(&request.operation))
                {
                    transaction.claim_zeros_of(*ino, size, &commit.overwritten)?;
                }
                run(&mut transaction, request, open)?
            }
        };
        if progress == Progress::Done && transaction.has_changes() {
            let bytes = Answer::encode_reply(&reply);
            transaction.record_reply(id.session, id.slot, id.number, bytes);
        }
        let outcome = transaction.finish();
        self.record(turn, outcome.record)?;
        if let Operation::Commit { ino, commit } = &request.operation {
            written = Some((*ino, commit.clone()));
        }
        if let Some((ino, commit)) = written {
            self.wrote(turn, ino, &commit)?;
        }
        if let Some(number) = outcome.freed {
            let changed = needs.iter().filter(|(_, need)| *need == Need::Change);
            let holders: BTreeSet<SessionId> = changed
                .flat_map(|(ino, _)| self.layouts.get(ino).into_iter().flatten().copied())
                .collect();
            self.freed(turn, number, holders);
        }
        if progress == Progress::More {
            return Ok(Executed::Step(Progress::More));
        }
        self.remember(turn, request, &reply);
        Ok(Executed::Replied(reply))
    }

    /// Blocks were freed, which `holders` may still name. They are told behind the answers in which they
    /// learned of them, or they would say that they name none and learn of them afterwards.
    pub(super) fn freed<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        number: QuarantineNumber,
        holders: BTreeSet<SessionId>,
    ) {
        #[cfg(feature = "mutations")]
        let holders = match self.is_mutated(crate::Mutation::LayoutsKept) {
            true => BTreeSet::new(),
            false => holders,
        };
        let mut commands = Vec::new();
        self.quarantine.freed(number, self.recorded, holders, &mut commands);
        for command in commands {
            self.tell(turn.out, command);
        }
    }

    /// What the tables learn from a request that was done on the tree.
    fn remember<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, request: &Request, reply: &Reply) {
        let session = request.id.session;
        match (&request.operation, reply) {
            (Operation::Open { ino, .. }, _) => self.opens.open(session, *ino),
            (Operation::Opendir { dir }, _) => self.opens.open(session, *dir),
            (Operation::Create { .. } | Operation::Tmpfile { .. }, Reply::Opened(opened)) => {
                self.opens.open(session, opened.attributes.ino);
            }
            (
                Operation::Read { ino, .. }
                | Operation::Mappings { ino, .. }
                | Operation::Commit { ino, .. },
                _,
            ) => drop(self.layouts.entry(*ino).or_default().insert(session)),
            (Operation::Take { dir, .. }, Reply::Taken(taken)) => {
                self.grant_taken(turn.now, session, *dir, taken);
            }
            (_, Reply::Removed(Some(removed))) if removed.orphan => {
                let ino = removed.attributes.ino;
                if !self.opens.is_open(ino) {
                    self.work.insert(Work::Reap(ino));
                    turn.out.push(Command::Continue);
                }
            }
            _ => {}
        }
    }

    /// Does a request that isn't on the tree; `None` if it is.
    fn execute_on_tables<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        request: &Request,
    ) -> Result<Option<Reply>> {
        let session = request.id.session;
        let mut held = Vec::new();
        let reply = match &request.operation {
            Operation::Close { ino } => {
                if self.opens.close(session, *ino) {
                    self.closed(turn, session, *ino);
                }
                Reply::Done
            }
            Operation::Lease { ino, level } => {
                let view = Transaction::new(turn.store, Context { now: turn.date });
                view.getattr(*ino)?;
                let level = (*level).min(LeaseLevel::Write);
                Reply::Lease(self.leases.grant(turn.now, session, *ino, level))
            }
            Operation::Lock { request: lock, on_conflict } => {
                if lock.owner.session != session {
                    return Err(FsError::Invalid);
                }
                self.lock(session, lock, *on_conflict, &mut held)?
            }
            Operation::Unlock { place, owner, range } if owner.session == session => {
                self.locks.unlock(*place, *owner, *range, &mut held);
                Reply::Done
            }
            Operation::GetLock { request: lock } => Reply::Lock(self.locks.conflict(lock)),
            Operation::CancelLock { wait } => Reply::Cancelled(self.cancel_lock(session, *wait)),
            Operation::EndOwner { ino, owner } if owner.session == session => {
                self.locks.end_owner(*ino, *owner, &mut held);
                self.forget_lock_waits();
                Reply::Done
            }
            Operation::Unlock { .. } | Operation::EndOwner { .. } => return Err(FsError::Invalid),
            _ => return Ok(None),
        };
        self.tell_locks(turn, held);
        Ok(Some(reply))
    }

    fn lock(
        &mut self,
        session: SessionId,
        lock: &crate::locks::LockRequest,
        on_conflict: OnConflict,
        held: &mut Vec<WaitId>,
    ) -> Result<Reply> {
        if let OnConflict::Wait { wait, .. } = on_conflict {
            // Asked again over a new stream: one of the two would be given the lock for nobody.
            self.cancel_lock(session, wait);
        }
        let id = WaitId(self.last_lock_wait + 1);
        let (own, on_conflict) = match on_conflict {
            OnConflict::Fail => (None, OnConflict::Fail),
            OnConflict::Wait { wait, process } => {
                (Some(wait), OnConflict::Wait { wait: id, process })
            }
        };
        let locked = self.locks.set(*lock, on_conflict, held)?;
        if let (Locked::Waiting, Some(wait)) = (locked, own) {
            self.last_lock_wait = id.0;
            self.lock_waits.insert(id, (session, wait));
        }
        Ok(Reply::Locked(locked))
    }

    /// Ends a client's wait; whether there was one.
    fn cancel_lock(&mut self, session: SessionId, wait: WaitId) -> bool {
        let known = self.lock_waits.iter().find(|(_, of)| **of == (session, wait));
        let Some(id) = known.map(|(&id, _)| id) else { return false };
        self.lock_waits.remove(&id);
        self.locks.cancel(id)
    }

    /// Tells clients that locks they waited for are held.
    pub(super) fn tell_locks<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, held: Vec<WaitId>) {
        for id in held {
            if let Some((session, wait)) = self.lock_waits.remove(&id) {
                self.tell(turn.out, Command::LockHeld(session, wait));
            }
        }
    }

    /// Forgets waits that the table of locks has forgotten.
    pub(super) fn forget_lock_waits(&mut self) {
        let locks = &self.locks;
        self.lock_waits.retain(|&id, _| locks.is_waiting(id));
    }

    /// A session names no blocks of an inode any more, unless it has it open or holds a lease: it has
    /// done what it began with them before it said so.
    pub(super) fn forget_layout(&mut self, session: SessionId, ino: Ino) {
        let may_name = self.opens.is_open_by(session, ino)
            || self.leases.level(session, ino) > LeaseLevel::None;
        if let Some(holders) = self.layouts.get_mut(&ino).filter(|_| !may_name) {
            holders.remove(&session);
            if holders.is_empty() {
                self.layouts.remove(&ino);
            }
        }
    }

    /// A session has an inode open no more.
    pub(super) fn closed<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        session: SessionId,
        ino: Ino,
    ) {
        self.forget_layout(session, ino);
        if !self.opens.is_open(ino) {
            self.work.insert(Work::Reap(ino));
            turn.out.push(Command::Continue);
        }
    }
}

/// The size that an operation moves a file up to, if it was less.
fn grows_to(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::Setattr { set, .. } => set.size,
        Operation::Allocate { range, keep_size: false, .. }
        | Operation::Zero { range, keep_size: false, .. } => Some(range.1),
        _ => None,
    }
}

/// Does an operation on the tree.
fn run(
    t: &mut Transaction<'_>,
    request: &Request,
    open: impl Fn(Ino) -> bool,
) -> Result<(Reply, Progress)> {
    let (caller, session) = (&request.caller, request.id.session);
    let reply = match &request.operation {
        Operation::Lookup { dir, name } => Reply::Attributes(t.lookup(caller, *dir, name)?),
        Operation::Parent { dir } => Reply::Attributes(t.parent(caller, *dir)?),
        Operation::Getattr { ino } => Reply::Attributes(t.getattr(*ino)?),
        Operation::Access { ino, access } => {
            t.access(caller, *ino, *access)?;
            Reply::Done
        }
        Operation::Open { ino, access } => Reply::Attributes(t.open(caller, *ino, *access)?),
        Operation::Create { dir, name, modes, exclusive, access } => {
            Reply::Opened(t.create(caller, *dir, name, *modes, *exclusive, *access)?)
        }
        Operation::Tmpfile { dir, modes, .. } => Reply::Opened(t.tmpfile(caller, *dir, *modes)?),
        Operation::Make { dir, name, make } => Reply::Attributes(t.make(caller, *dir, name, make)?),
        Operation::Link { ino, dir, name } => Reply::Attributes(t.link(caller, *ino, *dir, name)?),
        Operation::Unlink { dir, name } => {
            Reply::Removed(Some(t.unlink(caller, *dir, name, open)?))
        }
        Operation::Rmdir { dir, name } => Reply::Removed(Some(t.rmdir(caller, *dir, name, open)?)),
        Operation::Rename { from, to, mode } => {
            let (from, to) = ((from.0, &from.1), (to.0, &to.1));
            Reply::Removed(t.rename(caller, from, to, *mode, open)?)
        }
        Operation::Setattr { ino, set } => {
            let (attributes, progress) = t.setattr(caller, *ino, set)?;
            return Ok((Reply::Attributes(attributes), progress));
        }
        Operation::Readlink { ino } => Reply::Target(t.readlink(*ino)?),
        Operation::Opendir { dir } => {
            let (parent, bound) = t.opendir(caller, *dir)?;
            Reply::Directory { parent, bound }
        }
        Operation::Readdir { dir, after, bound, limit, plus } => {
            let limit = (*limit).clamp(1, 4096) as usize;
            Reply::Page(t.readdir(*dir, *after, *bound, limit, *plus)?)
        }
        Operation::Getxattr { ino, name } => Reply::Value(t.getxattr(caller, *ino, name)?),
        Operation::Listxattr { ino } => Reply::Names(t.listxattr(caller, *ino)?),
        Operation::Setxattr { ino, name, value, mode } => {
            t.setxattr(caller, *ino, name, value, *mode)?;
            Reply::Done
        }
        Operation::Removexattr { ino, name } => {
            t.removexattr(caller, *ino, name)?;
            Reply::Done
        }
        Operation::Statfs => Reply::Statistics(t.statfs()?),
        Operation::Read { ino, offset, length, .. } => {
            let (attributes, segments) = t.read(*ino, *offset, *length)?;
            Reply::Segments(attributes, segments)
        }
        Operation::Mappings { ino, from, end } => {
            Reply::Mappings(t.mappings(*ino, *from, *end, 1024)?)
        }
        Operation::Seek { ino, offset, seek } => Reply::Offset(t.seek(*ino, *offset, *seek)?),
        Operation::Reserve { want, near } => {
            let want = (*want).min(t.fair_share()?);
            Reply::Runs(t.reserve(session, want, *near)?)
        }
        Operation::Commit { ino, commit } => Reply::Attributes(t.commit(session, *ino, commit)?),
        Operation::Numbers { count } => {
            let (first, count) = t.take_numbers(*count)?;
            Reply::Numbers(first, count)
        }
        Operation::Take { dir, .. } => Reply::Taken(take(t, *dir)?),
        _ => return run_on_space(t, caller, &request.operation),
    };
    Ok((reply, Progress::Done))
}

fn run_on_space(
    t: &mut Transaction<'_>,
    caller: &Caller,
    operation: &Operation,
) -> Result<(Reply, Progress)> {
    let progress = match *operation {
        Operation::Allocate { ino, range, keep_size, near } => {
            t.allocate(caller, ino, range, keep_size, near)?
        }
        Operation::Punch { ino, range } => t.punch(caller, ino, range)?,
        Operation::Zero { ino, range, keep_size, near } => {
            t.zero(caller, ino, range, keep_size, near)?
        }
        _ => return Err(FsError::NotSupported),
    };
    Ok((Reply::Done, progress))
}

//! Requests that wait, and taking them up again.

use super::data::Planned;
use super::ending::Work;
use super::event::Command;
use super::execute::Executed;
use super::fsync::Syncing;
use super::request::{Answer, Reply, Request};
use super::{Coordinator, Operation, Turn};
use crate::format::InodeFlags;
use crate::leases::{LeaseLevel, Need};
use crate::ops::Progress;
use crate::sessions::SessionState;
use crate::tree::TreeStore;
use crate::{Attributes, Context, Cookie, FsError, Ino, Result, Transaction};

/// A request that is not done yet.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    request: Request,
    /// What it needed when it was tried last.
    needs: Vec<(Ino, Need)>,
    /// Some of it was done, or there was no space: its turn comes with [`super::Event::Continue`].
    later: bool,
    /// How far it is with blocks and flushes.
    pub(super) stage: Stage,
}

/// How far a request is with what it waits for beside others' leases.
#[derive(Clone, Debug, Default)]
pub(super) enum Stage {
    /// Nothing was begun.
    #[default]
    New,
    /// Blocks are being read that are to be changed in part.
    Reading(Planned),
    /// Blocks are being written.
    Writing(Planned),
    /// All blocks are as they must be: it can be executed.
    Prepared(Planned),
    /// It waits for what was written to be on media.
    Syncing(Syncing),
}

impl Waiting {
    pub(super) fn new(request: Request) -> Self {
        Self { request, needs: Vec::new(), later: false, stage: Stage::New }
    }

    /// Whether it holds its inode.
    pub(super) fn is_working(&self) -> bool {
        matches!(self.stage, Stage::Reading(_) | Stage::Writing(_) | Stage::Prepared(_))
    }

    /// Whether it does something with an inode.
    pub(super) fn needs_of(&self, ino: Ino) -> bool {
        self.needs.iter().any(|&(of, _)| of == ino)
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }
}

impl Coordinator {
    /// Tries all that wait, in the order of their coming.
    pub(super) fn retry<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>) -> Result<()> {
        let arrivals: Vec<u64> = self.waiting.keys().copied().collect();
        for arrival in arrivals {
            if self.waiting.get(&arrival).is_some_and(|waiting| !waiting.later) {
                self.retry_one(turn, arrival)?;
            }
        }
        Ok(())
    }

    /// Lets those go on that waited for [`super::Event::Continue`].
    pub(super) fn retry_later(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.later = false;
        }
    }

    /// Tries one request.
    pub(super) fn retry_one<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        arrival: u64,
    ) -> Result<()> {
        let Some(mut waiting) = self.waiting.remove(&arrival) else { return Ok(()) };
        let session = waiting.request.id.session;
        if matches!(waiting.stage, Stage::Reading(_) | Stage::Writing(_)) {
            // Even if its session is over: the bytes on their way keep the inode busy.
            self.waiting.insert(arrival, waiting);
            return Ok(());
        }
        if self.sessions.state(session) != Some(SessionState::Active) {
            if let Stage::Prepared(planned) = &waiting.stage {
                self.free_from(arrival, planned);
            }
            turn.out.push(Command::NoSession(waiting.request.id));
            return Ok(());
        }
        if let Stage::Syncing(syncing) = waiting.stage {
            if self.is_synced(syncing) {
                self.answer(turn, &waiting.request, Reply::Done);
            } else {
                self.waiting.insert(arrival, waiting);
            }
            return Ok(());
        }
        if matches!(waiting.stage, Stage::Prepared(_)) {
            return self.perform(turn, arrival, waiting);
        }
        let view = Transaction::new(turn.store, Context { now: turn.date });
        waiting.needs = match waiting.request.operation.needs(&view) {
            Ok(needs) => needs,
            Err(error) => return self.refuse(turn, &waiting.request, error),
        };
        let busy = waiting.needs.iter().any(|(ino, _)| self.busy.contains_key(ino));
        let launders = self.launders(&waiting.request);
        if self.sessions.in_grace() || busy || (!launders && self.is_behind(arrival, &waiting)) {
            self.waiting.insert(arrival, waiting);
            return Ok(());
        }
        let in_the_way = !launders
            && waiting.needs.iter().any(|&(ino, need)| !self.leases.allows(session, ino, need));
        if in_the_way {
            let mut recalls = Vec::new();
            for &(ino, need) in &waiting.needs {
                self.leases.recall(turn.now, session, ino, need, &mut recalls);
            }
            // Behind the answers that granted what is recalled.
            for recall in recalls {
                self.tell(turn.out, Command::Recall(recall));
            }
            #[cfg(feature = "mutations")]
            if self.is_mutated(crate::Mutation::RecallUnawaited) {
                return self.prepare(turn, arrival, waiting);
            }
            self.waiting.insert(arrival, waiting);
            return Ok(());
        }
        self.prepare(turn, arrival, waiting)
    }

    /// Does what must come before a request that may be executed, or executes it.
    fn prepare<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        arrival: u64,
        mut waiting: Waiting,
    ) -> Result<()> {
        if let Some(ino) = Self::fsync_of(&waiting.request.operation) {
            if self.take_loss(waiting.request.id.session, ino) {
                return self.refuse(turn, &waiting.request, FsError::Lost);
            }
            waiting.stage = self.begin_fsync(ino, turn.out);
            self.waiting.insert(arrival, waiting);
            return self.retry_one(turn, arrival);
        }
        if !Self::changes_blocks(&waiting.request.operation) {
            return self.perform(turn, arrival, waiting);
        }
        match self.begin_blocks(turn, arrival, &waiting.request) {
            Ok(stage) => {
                waiting.stage = stage;
                if matches!(waiting.stage, Stage::Prepared(_)) {
                    return self.perform(turn, arrival, waiting);
                }
                self.waiting.insert(arrival, waiting);
                Ok(())
            }
            Err(FsError::NoSpace { coming: true }) if self.space_is_coming() => {
                self.wait_for_space(turn, arrival, waiting);
                Ok(())
            }
            Err(FsError::Unavailable) => Err(FsError::Unavailable),
            Err(error) => self.refuse(turn, &waiting.request, error),
        }
    }

    fn space_is_coming(&self) -> bool {
        self.quarantined().next().is_some() || self.work.contains(&Work::ReservationsOfNobody)
    }

    /// Blocks are on their way back: they will do.
    fn wait_for_space<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        arrival: u64,
        mut waiting: Waiting,
    ) {
        waiting.later = true;
        waiting.stage = Stage::New;
        self.waiting.insert(arrival, waiting);
        turn.out.push(Command::Sync);
    }

    /// Whether a request writes pages that its client's kernel gives up because of a recall.
    fn launders(&self, request: &Request) -> bool {
        match request.operation {
            Operation::Write { ino, launders: true, .. } => {
                self.leases.is_recalled(request.id.session, ino)
            }
            _ => false,
        }
    }

    /// Executes a request for which everything is prepared.
    fn perform<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        arrival: u64,
        mut waiting: Waiting,
    ) -> Result<()> {
        let mut stage = std::mem::take(&mut waiting.stage);
        let mut planned = match &mut stage {
            Stage::Prepared(planned) => Some(planned),
            _ => None,
        };
        let mut executed =
            self.execute(turn, &waiting.request, &waiting.needs, planned.as_deref_mut());
        if matches!(executed, Err(FsError::NoSpace { .. }))
            && planned.as_mut().is_some_and(|planned| Self::pay(planned))
        {
            executed = self.execute(turn, &waiting.request, &waiting.needs, planned);
        }
        let was_busy = matches!(stage, Stage::Prepared(_));
        if let Stage::Prepared(planned) = &stage
            && !matches!(executed, Ok(Executed::Step(Progress::More)))
        {
            self.free_from(arrival, planned);
        }
        match executed {
            Ok(Executed::Replied(reply)) => self.answer(turn, &waiting.request, reply),
            Ok(Executed::Step(Progress::More)) => {
                if let Stage::Prepared(planned) = &stage {
                    // What was prepared must still hold when the last step is done.
                    self.busy.insert(planned.ino(), arrival);
                }
                waiting.stage = stage;
                waiting.later = true;
                self.waiting.insert(arrival, waiting);
                turn.out.push(Command::Continue);
            }
            Ok(Executed::Step(Progress::Done)) => {
                self.answer(turn, &waiting.request, Reply::Done);
            }
            Err(FsError::NoSpace { coming: true }) if self.space_is_coming() => {
                self.wait_for_space(turn, arrival, waiting);
            }
            Err(FsError::Unavailable) => return Err(FsError::Unavailable),
            Err(error) => self.refuse(turn, &waiting.request, error)?,
        }
        if was_busy {
            // Others may have waited for it.
            turn.out.push(Command::Continue);
        }
        Ok(())
    }

    pub(super) fn refuse<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        request: &Request,
        error: FsError,
    ) -> Result<()> {
        if let FsError::Damaged(damage) = error {
            turn.out.push(Command::Damaged(damage));
        }
        self.answer(turn, request, Reply::Refused(error));
        Ok(())
    }

    /// Answers a request that is done, with what it gets of the leases that it wanted.
    fn answer<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, request: &Request, reply: Reply) {
        let id = request.id;
        let bytes = Answer::encode_reply(&reply);
        self.sessions.replied(id.session, id.slot, id.number, &bytes);
        let mut leases = std::mem::take(&mut self.granted);
        let refused = matches!(reply, Reply::Refused(_));
        let found = if refused { Vec::new() } else { reply.found() };
        let wanted = request.wanted.iter().flat_map(|&(ino, level)| {
            let inos = if ino == Request::FOUND { found.clone() } else { vec![ino] };
            inos.into_iter().map(move |ino| (ino, level))
        });
        let kept = matches!(request.operation, Operation::Read { kept: true, .. });
        for (ino, level) in wanted.filter(|_| !refused) {
            if kept {
                let granted = self.leases.grant_kept(id.session, ino);
                leases.extend(granted.map(|(level, number)| (ino, level, number)));
                continue;
            }
            // A later request would only have it recalled at once.
            if self.waiting.values().any(|waiting| waiting.needs_of(ino)) {
                continue;
            }
            let level = self.most(turn, ino, level);
            if let Some((level, number)) = self.leases.grant(turn.now, id.session, ino, level) {
                leases.push((ino, level, number));
            }
        }
        let told = if refused { Vec::new() } else { self.changed_directories(turn, request) };
        self.tell(turn.out, Command::Answer(id, Answer { reply, leases, told }));
    }

    /// What may be granted of what is wanted: `Exclusive` on a directory that is new and empty, of which
    /// the client therefore knows everything.
    fn most<S: TreeStore>(&self, turn: &Turn<'_, S>, ino: Ino, wanted: LeaseLevel) -> LeaseLevel {
        if wanted < LeaseLevel::Exclusive {
            return wanted;
        }
        let view = Transaction::new(turn.store, Context { now: turn.date });
        let new = view.inode(ino).is_ok_and(|row| {
            let empty = (row.entries, row.next_cookie) == (0, Cookie::FIRST);
            row.attributes.is_directory() && empty && row.flags == InodeFlags::default()
        });
        if new { wanted } else { LeaseLevel::Sole }
    }

    /// The directories that a request has changed, for a client that may cache them.
    fn changed_directories<S: TreeStore>(
        &self,
        turn: &Turn<'_, S>,
        request: &Request,
    ) -> Vec<Attributes> {
        let dirs = match &request.operation {
            Operation::Create { dir, .. }
            | Operation::Make { dir, .. }
            | Operation::Link { dir, .. }
            | Operation::Unlink { dir, .. }
            | Operation::Rmdir { dir, .. } => vec![*dir],
            Operation::Rename { from, to, .. } if from.0 == to.0 => vec![from.0],
            Operation::Rename { from, to, .. } => vec![from.0, to.0],
            _ => return Vec::new(),
        };
        let view = Transaction::new(turn.store, Context { now: turn.date });
        let leased = |ino: &Ino| self.leases.level(request.id.session, *ino) >= LeaseLevel::Read;
        dirs.into_iter().filter(leased).filter_map(|ino| view.getattr(ino).ok()).collect()
    }

    /// Whether somebody who came earlier waits for one of the same inodes. Whoever holds a lease that
    /// covers what it asks passes: it may be writing back what the other waits for.
    fn is_behind(&self, arrival: u64, waiting: &Waiting) -> bool {
        let session = waiting.request.id.session;
        let mut earlier = self.waiting.range(..arrival).map(|(_, earlier)| earlier);
        earlier.any(|earlier| {
            earlier.request.id.session != session
                && waiting.needs.iter().any(|&(ino, need)| {
                    let meets = earlier.needs.iter().any(|&(other, others)| {
                        other == ino && (need == Need::Change || others == Need::Change)
                    });
                    let covering = match need {
                        Need::Read => LeaseLevel::Read,
                        Need::Change => LeaseLevel::Write,
                    };
                    meets && self.leases.level(session, ino) < covering
                })
        })
    }
}

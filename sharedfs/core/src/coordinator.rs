//! The coordinator of one shared volume: takes events, gives commands, and decides in between.
//!
//! ```text
//!   Request ──> slots ──> needs ──free──> execute ──> tree + Journal ──received──> Answer
//!                           └──others hold leases──> Recall, wait ──Answered──> again
//! ```
//! `handle` does no I/O but on the tree, which the shell's thread may wait for. The rules of order,
//! each with its reason:
//!
//! - *An answer goes out when every record given out before it is received by all replicas*: also
//!   that of a read, which may have seen what such a record did.
//! - *Nothing overtakes an answer*: a recall goes out behind the answer that granted what it recalls,
//!   and the wish to have layouts returned behind the answer that gave them. Else a client would
//!   answer that it has nothing, and have it afterwards.
//! - *Requests that wait are taken in the order of their coming*, and a later one doesn't pass an
//!   earlier one on the same inode: nobody waits for ever, and no circle can arise, as nobody holds
//!   anything while waiting. One passes all the same: whoever still holds a lease that covers what
//!   it asks. It may be asking in order to answer the recall that the earlier one waits for.
//! - *A session that is over keeps its leases and locks until it is fenced*: until then it can write.
//! - *Freed blocks are given away again* when the record that freed them is durable, every client
//!   that had a layout of the file has said that it names them no more (or is fenced), and they are
//!   discarded: in this order, or a late write or discard would hit somebody else's data.
//! - *In the grace period nothing is served but reclaims*, or a lease would be given that somebody
//!   still holds and hasn't reclaimed yet.
//!
//! Invariants: see [`Coordinator::check_invariants`].

mod batch;
mod data;
mod ending;
mod event;
mod execute;
mod fsync;
mod letter;
mod message;
mod needs;
mod opens;
mod quarantine;
mod request;
mod status;
mod take;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_terms::{Epoch, SliceIndex, Time};

pub use event::{Claim, Command, Event, IoNumber, RecordNumber, RenewNumber};
pub use letter::{LETTER_MAX, LetterError, MESSAGES_MAX, Message, read_letter, write_letters};
pub use message::{ToClient, ToCoordinator, VERSION};
pub use request::{Answer, Operation, Reply, Request, RequestId, Step, Taken, WritePlace};
pub use status::ClientStatus;

#[cfg(feature = "mutations")]
use crate::Mutation;
use crate::format::{Record, SessionRow};
use crate::leases::{Bounds, LeaseLevel, LeaseNumber, Leases};
use crate::locks::{Locks, WaitId};
use crate::sessions::{EndReason, SessionState, Sessions, SlotCheck};
use crate::tree::TreeStore;
use crate::{
    BlockAddress, Context, FsError, Ino, QuarantineNumber, Result, Run, SessionId, Timestamp,
    Transaction,
};
use ending::Work;
use fsync::Unflushed;
use opens::Opens;
use quarantine::Quarantine;
use waiting::Waiting;

/// Times.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a session lives without being heard: that of a slice.
    pub lease: Duration,
    /// How long clients have to reclaim after a failover.
    pub grace: Duration,
    /// How long an inode counts as contended after a recall.
    pub contention: Duration,
    /// How long a client that is heard may take to answer a recall before it is fenced: 15 s. It has
    /// to write back no more than its bound of dirty bytes (64 MiB: a few seconds on a slow network),
    /// and may meet a slice in the middle of a failover (5 s at most) once or twice on its way.
    pub recall: Duration,
    /// How many leases a session can have: what is granted beyond is nothing, and the client works
    /// uncached. Bounds the coordinator's memory to some 100 bytes a lease and client.
    pub leases_max: usize,
    /// How many ranges a session can hold locked and wait for; ENOLCK beyond.
    pub locks_max: usize,
    /// A deliberate bug, for tests.
    #[cfg(feature = "mutations")]
    pub mutation: Option<Mutation>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(1200),
            grace: Duration::from_secs(1),
            contention: Duration::from_millis(500),
            recall: Duration::from_secs(15),
            leases_max: 262_144,
            locks_max: 65_536,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// What an event comes with: when, and the tree.
pub struct Turn<'a, S> {
    /// The moment, for leases.
    pub now: Time,
    /// The date, for inodes.
    pub date: Timestamp,
    /// The tree.
    pub store: &'a mut S,
    /// What is to be done.
    pub out: &'a mut Vec<Command>,
}

/// All that a coordinator knows beside the tree.
pub struct Coordinator {
    sessions: Sessions,
    leases: Leases,
    locks: Locks,
    opens: Opens,
    /// Who was told where blocks of a file are, as long as it has the file open.
    layouts: BTreeMap<Ino, BTreeSet<SessionId>>,
    /// Requests that wait, by the order of their coming.
    waiting: BTreeMap<u64, Waiting>,
    arrivals: u64,
    /// Events so far.
    handled: u64,
    /// Clients' waits for locks, by the number that the table of locks knows.
    lock_waits: BTreeMap<WaitId, (SessionId, WaitId)>,
    last_lock_wait: u64,
    quarantine: Quarantine,
    work: BTreeSet<Work>,
    /// Inodes whose blocks a request is writing, and which.
    busy: BTreeMap<Ino, u64>,
    /// Blocks of session 0 that nothing was put into.
    own_blocks: Vec<Run>,
    /// Where the last of them were found.
    own_place: BlockAddress,
    /// What is being done with blocks, and for which request.
    ios: BTreeMap<IoNumber, u64>,
    last_io: IoNumber,
    /// Leases that go with the next answer.
    granted: Vec<(Ino, LeaseLevel, LeaseNumber)>,
    unflushed: Unflushed,
    /// Slices that began an epoch without all that was acknowledged before, and the newest such epoch.
    tail_lost: BTreeMap<SliceIndex, Epoch>,
    /// Files that lost what was not fsynced, and the sessions whose next fsync of them has to say so.
    lost: BTreeMap<Ino, BTreeSet<SessionId>>,
    recorded: RecordNumber,
    received: RecordNumber,
    durable: RecordNumber,
    #[cfg(feature = "mutations")]
    mutation: Option<Mutation>,
    /// What may be told once the record is received.
    held: BTreeMap<RecordNumber, Vec<Command>>,
}

impl Coordinator {
    /// A coordinator that takes over the volume in `turn.store`: with the sessions, orphans and freed
    /// blocks that the tree knows of. By now nobody else can write the volume, every lease of the
    /// coordinator before is over by time, and what was replayed is durable.
    ///
    /// # Errors
    /// The tree can't be read.
    pub fn open<S: TreeStore>(options: Options, turn: &mut Turn<'_, S>) -> Result<Self> {
        let mut coordinator = Self {
            sessions: Sessions::new(options.lease),
            leases: Leases::new(Bounds {
                contention: options.contention,
                recall: options.recall,
                held: options.leases_max,
            }),
            locks: Locks::bounded(options.locks_max),
            opens: Opens::default(),
            layouts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            arrivals: 0,
            handled: 0,
            lock_waits: BTreeMap::new(),
            last_lock_wait: 0,
            quarantine: Quarantine::default(),
            work: BTreeSet::new(),
            busy: BTreeMap::new(),
            own_blocks: Vec::new(),
            own_place: BlockAddress(0),
            ios: BTreeMap::new(),
            last_io: IoNumber(0),
            granted: Vec::new(),
            unflushed: Unflushed::default(),
            tail_lost: BTreeMap::new(),
            lost: BTreeMap::new(),
            recorded: RecordNumber(0),
            received: RecordNumber(0),
            durable: RecordNumber(0),
            #[cfg(feature = "mutations")]
            mutation: options.mutation,
            held: BTreeMap::new(),
        };
        let view = Transaction::new(turn.store, Context { now: turn.date });
        let grace_end = turn.now + options.grace;
        for session in view.sessions()? {
            let found = session.and_then(|(id, row)| match view.replies(id) {
                Ok(replies) => Ok((id, row, Some(replies))),
                // Nobody knows what was done for it already: it is over.
                Err(FsError::Damaged(damage)) => {
                    turn.out.push(Command::Damaged(damage));
                    Ok((id, row, None))
                }
                Err(error) => Err(error),
            });
            let (id, row, replies) = match found {
                Ok(found) => found,
                // One that nobody knows any more.
                Err(FsError::Damaged(damage)) => {
                    turn.out.push(Command::Damaged(damage));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(replies) = replies.filter(|_| row.slots > 0) else {
                coordinator.work.insert(Work::EndSession(id));
                continue;
            };
            #[cfg(feature = "mutations")]
            let replies = match options.mutation {
                Some(Mutation::RepliesLost) => Vec::new(),
                _ => replies,
            };
            coordinator.sessions.restore(grace_end, id, row, replies);
            turn.out.push(Command::Register(id));
        }
        let sessions: BTreeSet<SessionId> =
            coordinator.sessions.serving().map(|(id, _)| id).collect();
        for number in view.quarantine_numbers()? {
            coordinator.quarantine.restore(number, sessions.clone(), turn.out);
        }
        coordinator.work.insert(Work::Orphans(Ino(0)));
        coordinator.work.insert(Work::ReservationsOfNobody);
        coordinator.flush_everything(turn.out);
        turn.out.push(Command::Continue);
        Ok(coordinator)
    }

    /// Takes an event.
    ///
    /// # Errors
    /// The tree failed: the coordinator is to be dropped with it.
    pub fn handle<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, event: Event) -> Result<()> {
        match event {
            Event::Begin { token, row } => self.begin(turn, token, row)?,
            Event::Request(request) => self.request(turn, request)?,
            Event::Renew(session, number) => self.renew(turn, session, number),
            Event::Connected(session) => self.connected(turn, session),
            Event::Answered { session, ino, number, kept } => {
                // From whoever it is: even a session that is ending may only give back.
                self.sessions.heard(turn.now, session);
                if self.leases.answered(session, ino, number, kept) {
                    if kept == LeaseLevel::None {
                        self.forget_layout(session, ino);
                    }
                    self.retry(turn)?;
                }
            }
            Event::LayoutsReturned { session, number } => {
                self.quarantine.returned(session, number, turn.out);
            }
            Event::Received(number) => self.received(turn, number),
            Event::Durable(number) => self.durable(turn, number)?,
            Event::BlocksRead(io, read) => self.blocks_read(turn, io, read)?,
            Event::BlocksWritten(io, versions) => self.blocks_written(turn, io, versions)?,
            Event::Flushed(io) => self.flushed(turn, io)?,
            Event::Fenced(session) => self.fenced(turn, session)?,
            Event::Discarded(number) => {
                self.work.insert(Work::Release(number));
                turn.out.push(Command::Continue);
            }
            Event::End(session) => {
                self.end(turn.out, session, EndReason::Ended);
            }
            Event::Reclaim { session, claim } => self.reclaim(turn, session, claim)?,
            Event::Continue => self.work(turn)?,
            Event::Tick => {}
        }
        self.expire(turn)?;
        self.handled += 1;
        // With many inodes now and then only: every look goes through all of them.
        if cfg!(debug_assertions) && self.handled.is_multiple_of(1 + self.leases.inodes() / 256) {
            self.check_invariants();
        }
        Ok(())
    }

    /// When [`Event::Tick`] is needed at the latest.
    #[must_use]
    pub fn next_tick(&self) -> Option<Time> {
        let served = |session| {
            self.sessions.state(session).is_some_and(|state| state != SessionState::Ending)
        };
        self.sessions.next_expiry().into_iter().chain(self.leases.next_overdue(served)).min()
    }

    fn begin<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        token: u64,
        row: SessionRow,
    ) -> Result<()> {
        // None would say that it is over.
        let row = SessionRow { slots: row.slots.max(1), ..row };
        let mut transaction = Transaction::new(turn.store, Context { now: turn.date });
        let session = match transaction.begin_session(&row) {
            Ok(session) => session,
            Err(FsError::Damaged(damage)) => {
                turn.out.push(Command::Damaged(damage));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let record = transaction.finish().record;
        self.record(turn, record)?;
        self.sessions.begin(turn.now, session, row);
        turn.out.push(Command::Register(session));
        self.tell(turn.out, Command::Begun(token, session));
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<Command>, session: SessionId, reason: EndReason) {
        if self.sessions.end(session, reason) {
            out.push(Command::Ended(session, reason));
            out.push(Command::Fence(session));
        }
    }

    /// Whether this deliberate bug is on.
    #[cfg(feature = "mutations")]
    fn is_mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// A client asks whether its session is still there: only the answer lets it serve from caches.
    fn renew<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        session: SessionId,
        number: RenewNumber,
    ) {
        turn.out.push(
            match (self.sessions.heard(turn.now, session), self.sessions.state(session)) {
                (true, Some(SessionState::Reclaiming)) => Command::Reclaim(session),
                (true, _) => Command::Renewed(session, number),
                (false, _) => Command::Ended(session, self.sessions.reason(session)),
            },
        );
    }

    /// What was asked of a client may be lost with its stream: it is asked again.
    fn connected<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, session: SessionId) {
        let recalls: Vec<Command> = self.leases.recalls_of(session).map(Command::Recall).collect();
        let returns = self.quarantine.asked_of(session).map(|n| Command::ReturnLayouts(session, n));
        let again: Vec<Command> = recalls.into_iter().chain(returns).collect();
        for command in again {
            self.tell(turn.out, command);
        }
    }

    fn request<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, request: Request) -> Result<()> {
        let id = request.id;
        if !self.sessions.heard(turn.now, id.session) {
            turn.out.push(Command::NoSession(id));
            return Ok(());
        }
        if self.sessions.state(id.session) == Some(SessionState::Reclaiming) {
            turn.out.push(Command::ReclaimFirst(id));
            return Ok(());
        }
        let check = self.sessions.check(id.session, id.slot, id.number);
        #[cfg(feature = "mutations")]
        let check = match (check, &request.operation) {
            (SlotCheck::Replay(_), Operation::Batch { .. })
                if self.is_mutated(Mutation::BatchTwice) =>
            {
                SlotCheck::Execute
            }
            (check, _) => check,
        };
        match check {
            SlotCheck::Execute => {
                self.arrivals += 1;
                self.waiting.insert(self.arrivals, Waiting::new(request));
                self.retry_one(turn, self.arrivals)
            }
            SlotCheck::Replay(bytes) => {
                let reply = Answer::decode_reply(&bytes);
                let reply = reply.unwrap_or(Reply::Refused(FsError::Unavailable));
                // It may be the first time that it is sent, if the record is still on the way.
                self.tell(
                    turn.out,
                    Command::Answer(id, Answer { reply, leases: Vec::new(), told: Vec::new() }),
                );
                Ok(())
            }
            SlotCheck::Underway | SlotCheck::Old => Ok(()),
            SlotCheck::Misordered | SlotCheck::NoSession => {
                turn.out.push(Command::NoSession(id));
                Ok(())
            }
        }
    }

    /// Applies a record and has it journaled.
    fn record<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, record: Record) -> Result<()> {
        if record.changes.is_empty() {
            return Ok(());
        }
        turn.store.apply(&record.changes)?;
        self.recorded = RecordNumber(self.recorded.0 + 1);
        turn.out.push(Command::Journal(self.recorded, record));
        Ok(())
    }

    /// Has something told once all records so far are received.
    fn tell(&mut self, out: &mut Vec<Command>, command: Command) {
        if self.received == self.recorded {
            out.push(command);
        } else {
            self.held.entry(self.recorded).or_default().push(command);
        }
    }

    fn received<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>, number: RecordNumber) {
        assert!(number <= self.recorded, "received what was never given out");
        self.received = self.received.max(number);
        let later = self.held.split_off(&RecordNumber(self.received.0 + 1));
        for (_, commands) in std::mem::replace(&mut self.held, later) {
            turn.out.extend(commands);
        }
    }

    /// Ends sessions whose time is over, and the grace period with the last of them.
    fn expire<S: TreeStore>(&mut self, turn: &mut Turn<'_, S>) -> Result<()> {
        let was_in_grace = self.sessions.in_grace();
        for session in self.sessions.expire(turn.now) {
            turn.out.push(Command::Ended(session, EndReason::Silent));
            turn.out.push(Command::Fence(session));
        }
        for session in self.leases.overdue(turn.now) {
            self.end(turn.out, session, EndReason::RecallUnanswered);
        }
        if was_in_grace && !self.sessions.in_grace() {
            self.retry(turn)?;
            turn.out.push(Command::Continue);
        }
        Ok(())
    }

    fn reclaim<S: TreeStore>(
        &mut self,
        turn: &mut Turn<'_, S>,
        session: SessionId,
        claim: Claim,
    ) -> Result<()> {
        if self.sessions.state(session) != Some(SessionState::Reclaiming)
            || !self.sessions.heard(turn.now, session)
        {
            return Ok(());
        }
        let mut lease = None;
        match claim {
            Claim::Open(ino, count) => self.opens.reclaim(session, ino, count),
            // What its client has of it is not what the file holds.
            Claim::Lease(ino, _) if self.lost.contains_key(&ino) => {}
            Claim::Lease(ino, level) => lease = self.leases.reclaim(session, ino, level),
            #[cfg(feature = "mutations")]
            Claim::Lock(_) if self.is_mutated(Mutation::LocksDropped) => {}
            Claim::Lock(request) if request.owner.session == session => {
                // Nobody else could get it: locks are given away only after the grace period.
                self.locks.reclaim(&request);
            }
            Claim::Lock(_) => {}
            Claim::Done => {
                self.sessions.reclaimed(turn.now, session);
                if !self.sessions.in_grace() {
                    self.retry(turn)?;
                    turn.out.push(Command::Continue);
                }
            }
        }
        turn.out.push(Command::Claimed(session, claim, lease));
        Ok(())
    }

    /// Panics if the coordinator contradicts itself.
    ///
    /// # Panics
    /// If leases or locks are held that exclude each other, or something waits that nobody will
    /// ever wake.
    pub fn check_invariants(&self) {
        self.leases.check_invariants();
        self.locks.check_invariants();
        assert!(self.received <= self.recorded);
        for (number, commands) in &self.held {
            assert!(*number > self.received && !commands.is_empty(), "{number:?} was received");
        }
        for (ino, by) in &self.busy {
            let working = self.waiting.get(by).is_some_and(Waiting::is_working);
            assert!(working, "{ino:?} is busy with nothing");
        }
        assert_eq!(self.lock_waits.len(), self.locks.waiting(), "waits without a client");
    }

    /// The sessions that are served, and those that have still to reclaim.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionRow)> {
        self.sessions.serving()
    }

    /// Whose a session is, or was until it is fenced.
    #[must_use]
    pub fn session_row(&self, session: SessionId) -> Option<&SessionRow> {
        self.sessions.row(session)
    }

    /// Whether clients of the coordinator before are reclaiming, and nothing else is served.
    #[must_use]
    pub fn in_grace(&self) -> bool {
        self.sessions.in_grace()
    }

    /// How many requests wait for recalls, space or the end of the grace period.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The leases, for status.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The locks, for status.
    #[must_use]
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// The freed blocks that can't be given away yet.
    pub fn quarantined(&self) -> impl Iterator<Item = QuarantineNumber> + '_ {
        self.quarantine.numbers()
    }
}

//! The coordinator's thread: gathers what has come, gives it to the core, journals, answers.
//!
//! ```text
//!   wait ──> take all that has come ──> settle: say what may be said
//!     ^                                         journal; Received; say the rest
//!     └──────────────────────────────────────── sync, checkpoint, if it is time
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use bytes::Bytes;
use mooring_sharedfs_core::coordinator::{
    self, Event, Operation, RecordNumber, ToClient, ToCoordinator, Turn, read_letter, write_letters,
};
use mooring_sharedfs_core::format::Record;
use mooring_sharedfs_store::{Blocks, Store};
use mooring_terms::{NodeId, SliceIndex, Time};

use crate::checkpoint::Checkpoints;
use crate::clock::Clock;
use crate::coordinator::{Parts, Shown, State};
use crate::opening::{Ready, open};
use crate::options::Options;
use crate::peers::{PeerId, Peers};
use crate::questions::Question;
use crate::report::{Observer, Report, Stopped};
use crate::slices::{SliceError, Slices};
use crate::streams::{Streams, Taken};
use crate::syncing::Syncing;

/// No batch has more bytes of records, but for one record that has.
const BATCH_BYTES: usize = 512 << 10;

/// While slice 0's lease can't be vouched for, it is looked at so often.
const LOOK: Duration = Duration::from_millis(5);

/// What comes to the thread.
pub(crate) enum Arrival {
    /// A client has written.
    Letter(PeerId, Bytes),
    /// A stream is gone.
    Gone(PeerId),
    /// Something that the core had done with slices is done; or can't be.
    Done(Result<Event, SliceError>),
    /// The journal is durable up to this record.
    Synced(Result<RecordNumber, SliceError>),
    /// What records claim is on media, for a checkpoint.
    Claimed(Result<(), SliceError>),
    /// Somebody asks.
    Question(Question),
    /// End.
    Stop,
}

/// All that the thread has.
pub(crate) struct Shell<B> {
    pub(crate) core: coordinator::Coordinator,
    pub(crate) store: Store<B>,
    pub(crate) slices: Arc<dyn Slices>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) options: Options,
    pub(crate) streams: Streams,
    /// For what is done on other threads.
    pub(crate) sender: Sender<Arrival>,
    arrivals: Receiver<Arrival>,
    /// What came while something was waited for.
    backlog: VecDeque<Arrival>,
    clock: Clock,
    /// To be journaled.
    pub(crate) records: Vec<Record>,
    pub(crate) record_bytes: usize,
    pub(crate) recorded: RecordNumber,
    /// To be said.
    pub(crate) outbox: Vec<(PeerId, Vec<ToClient>)>,
    /// The core has more to do.
    pub(crate) again: bool,
    pub(crate) syncing: Syncing,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) questions: Vec<Question>,
    pub(crate) shown: Arc<Shown>,
    in_grace: bool,
}

impl<B: Blocks> Shell<B> {
    /// The body of the thread.
    pub(crate) fn live(
        parts: Parts<B>,
        sender: Sender<Arrival>,
        arrivals: Receiver<Arrival>,
        shown: &Arc<Shown>,
    ) {
        let (observer, slices) = (Arc::clone(&parts.observer), Arc::clone(&parts.slices));
        let stopped = match Self::open(parts, sender, arrivals, Arc::clone(shown)) {
            Ok((mut shell, begun)) => {
                let stopped = shell.serve(begun);
                // Nothing more is heard here: clients look for the next.
                let peers: Vec<PeerId> = shell.streams.peers().collect();
                peers.into_iter().for_each(|peer| shell.peers.cut(peer));
                stopped
            }
            Err(stopped) => stopped,
        };
        // A failure is what became of the fence, if there was one.
        let is_fenced = slices.is_over() && !matches!(stopped, Stopped::Asked);
        let stopped = if is_fenced { Stopped::Fenced } else { stopped };
        shown.set_state(State::Stopped);
        observer.report(Report::Stopped(stopped));
    }

    fn open(
        parts: Parts<B>,
        sender: Sender<Arrival>,
        arrivals: Receiver<Arrival>,
        shown: Arc<Shown>,
    ) -> Result<(Self, Vec<coordinator::Command>), Stopped> {
        let Parts { blocks, slices, peers, observer, options } = parts;
        let ready = open(&blocks, &*slices, &*observer, &options)?;
        let Ready { mut store, replayed, claimed, lost } = ready;
        let clock = Clock::new();
        let mut out = Vec::new();
        let mut turn =
            Turn { now: clock.now(), date: Clock::date(), store: &mut store, out: &mut out };
        let mut core = coordinator::Coordinator::open(options.core, &mut turn)?;
        lost.into_iter().for_each(|ino| core.lost_data(ino));
        let sessions = core.sessions().count();
        observer.report(Report::Opened { replayed, sessions });
        shown.set_state(State::Grace);
        let shell = Self {
            core,
            store,
            slices,
            peers,
            observer,
            streams: Streams::default(),
            sender,
            arrivals,
            backlog: VecDeque::new(),
            clock,
            records: Vec::new(),
            record_bytes: 0,
            recorded: RecordNumber(0),
            outbox: Vec::new(),
            again: false,
            syncing: Syncing::default(),
            questions: Vec::new(),
            checkpoints: Checkpoints::new(claimed, replayed > 0),
            options,
            shown,
            in_grace: true,
        };
        Ok((shell, out))
    }

    fn serve(&mut self, begun: Vec<coordinator::Command>) -> Stopped {
        let mut first = self.carry_out(begun);
        loop {
            let turned = match std::mem::replace(&mut first, Ok(())) {
                Ok(()) => self.turn(),
                Err(stopped) => Err(stopped),
            };
            if let Err(stopped) = turned {
                return stopped;
            }
        }
    }

    /// One turn: from waiting to waiting.
    fn turn(&mut self) -> Result<(), Stopped> {
        let first = self.wait()?;
        let continues = std::mem::take(&mut self.again);
        let mut next = first;
        while let Some(arrival) = next {
            self.arrived(arrival)?;
            next = if self.record_bytes < BATCH_BYTES { self.next() } else { None };
        }
        if continues {
            self.handle(Event::Continue)?;
        }
        if self.core.next_tick().is_some_and(|at| at <= self.clock.now()) {
            self.handle(Event::Tick)?;
        }
        self.settle()?;
        self.answer()?;
        self.keep_safe()?;
        self.show();
        Ok(())
    }

    /// What comes next; nothing, if it is time for something else.
    fn wait(&mut self) -> Result<Option<Arrival>, Stopped> {
        if let Some(arrival) = self.next() {
            return Ok(Some(arrival));
        }
        self.clock.look();
        let due = [self.core.next_tick(), self.next_sync(), self.next_checkpoint()];
        let due = due.into_iter().flatten().min();
        let wait = match due {
            _ if self.again => Duration::ZERO,
            Some(due) => due.since(self.clock.now()),
            None => Duration::from_secs(3600),
        };
        match self.arrivals.recv_timeout(wait) {
            Ok(arrival) => {
                self.clock.waited(wait);
                Ok(Some(arrival))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.clock.waited(wait);
                Ok(None)
            }
            Err(RecvTimeoutError::Disconnected) => Err(Stopped::Asked),
        }
    }

    fn next(&mut self) -> Option<Arrival> {
        self.backlog.pop_front().or_else(|| self.arrivals.try_recv().ok())
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<(), Stopped> {
        match arrival {
            Arrival::Letter(from, letter) => {
                self.shown.waiting.fetch_sub(letter.len(), Ordering::Relaxed);
                self.shown.count(|counters| counters.letters += 1);
                self.letter(from, &letter)
            }
            Arrival::Gone(peer) => {
                self.streams.gone(peer);
                Ok(())
            }
            Arrival::Done(event) => self.handle(event?),
            Arrival::Synced(number) => self.synced(number?),
            Arrival::Claimed(flushed) => {
                flushed?;
                self.checkpoint()
            }
            Arrival::Question(question) => {
                self.questions.push(question);
                Ok(())
            }
            Arrival::Stop => Err(Stopped::Asked),
        }
    }

    fn letter(&mut self, from: PeerId, letter: &[u8]) -> Result<(), Stopped> {
        let messages = match read_letter::<ToCoordinator>(letter) {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(node = %from.node, %error, "a letter is not understood");
                self.cut(from);
                return Ok(());
            }
        };
        for message in messages {
            self.look_after_losses(&message);
            let core = &self.core;
            let node_of = |session| core.session_row(session).map(|row| NodeId(row.node));
            match self.streams.take(from, message, node_of) {
                Taken::Event(message) => self.handle(message.into())?,
                Taken::Supersedes(message, older) => {
                    self.cut(older);
                    self.handle(message.into())?;
                }
                Taken::Nothing => {}
                Taken::Rubbish => {
                    tracing::warn!(node = %from.node, "a client says what none would");
                    self.cut(from);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Tells the core what the slices have lost that a commit names.
    fn look_after_losses(&mut self, message: &ToCoordinator) {
        let ToCoordinator::Request(request) = message else { return };
        let Operation::Commit { commit, .. } = &request.operation else { return };
        let new =
            commit.extents.iter().map(|extent| extent.run.start.0 / self.options.slice_blocks);
        let new = new.map(|slice| SliceIndex(u32::try_from(slice).unwrap_or(u32::MAX)));
        let named: BTreeSet<SliceIndex> = new.chain(commit.overwritten.keys().copied()).collect();
        for slice in named {
            self.core.lost_tail(slice, self.slices.tail_lost(slice));
        }
    }

    /// Cuts a stream; what was to be said on it goes with it.
    pub(crate) fn cut(&mut self, peer: PeerId) {
        self.streams.gone(peer);
        self.outbox.retain(|(to, _)| *to != peer);
        self.peers.cut(peer);
    }

    /// Gives the core an event, and does what it wants.
    pub(crate) fn handle(&mut self, event: Event) -> Result<(), Stopped> {
        self.clock.look();
        let mut out = Vec::new();
        let mut turn = Turn {
            now: self.clock.now(),
            date: Clock::date(),
            store: &mut self.store,
            out: &mut out,
        };
        self.core.handle(&mut turn, event)?;
        self.carry_out(out)
    }

    /// Journals what was done, and says what may be said before and after.
    pub(crate) fn settle(&mut self) -> Result<(), Stopped> {
        loop {
            self.say()?;
            if self.records.is_empty() {
                return Ok(());
            }
            let records = std::mem::take(&mut self.records);
            self.record_bytes = 0;
            self.journal(&records)?;
            self.shown.count(|counters| {
                counters.batches += 1;
                counters.records += records.len() as u64;
            });
            self.note_records(&records);
            self.handle(Event::Received(self.recorded))?;
        }
    }

    /// Sends what may be said, if nobody else can have said otherwise meanwhile.
    fn say(&mut self) -> Result<(), Stopped> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        while self.slices.leased_for().is_none() {
            if self.slices.is_over() {
                return Err(Stopped::Fenced);
            }
            match self.arrivals.recv_timeout(LOOK) {
                Ok(Arrival::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(Stopped::Asked);
                }
                Ok(arrival) => self.backlog.push_back(arrival),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        for (peer, messages) in std::mem::take(&mut self.outbox) {
            let sent = write_letters(&messages)
                .into_iter()
                .all(|letter| self.peers.send(peer, Bytes::from(letter)));
            if !sent {
                self.cut(peer);
            }
        }
        Ok(())
    }

    /// Says something on the stream of a session, behind what was said there.
    pub(crate) fn tell(&mut self, peer: PeerId, message: ToClient) {
        match self.outbox.iter_mut().find(|(to, _)| *to == peer) {
            Some((_, messages)) => messages.push(message),
            None => self.outbox.push((peer, vec![message])),
        }
    }

    fn show(&mut self) {
        if self.in_grace && !self.core.in_grace() {
            self.in_grace = false;
            self.shown.set_state(State::Serving);
            self.observer.report(Report::Serving);
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }
}

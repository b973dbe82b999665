//! The client's core with what its lock covers: the requests that wait, and the stream to the
//! coordinator. Letters are queued under the lock: so they go in the order in which the core said them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mooring_fuse::Answer;
use mooring_sharedfs_client::{
    Client, Command, Event, HandleId, Invalidation, InvalidationNumber, IoNumber, KernelId,
    KernelOperation, KernelReply, KernelRequest, StreamNumber, Turn,
};
use mooring_sharedfs_core::coordinator::{ToCoordinator, write_letters};
use mooring_sharedfs_core::ops::SetAttributes;
use mooring_sharedfs_core::sessions::EndReason;
use mooring_sharedfs_core::{BlockAddress, Caller, FsError, Ino};
use mooring_terms::Time;

use crate::capabilities::{self, Reach};
use crate::clock;
use crate::post::Post;
use crate::request::Form;

/// Numbers of requests that the shell makes itself begin here; the kernel's are far below.
const OWN: u64 = 1 << 62;

/// What is to be done when the lock is let go.
#[allow(clippy::large_enum_variant, reason = "the largest is the usual one, and none is kept")]
pub(crate) enum Work {
    /// Answer the kernel.
    Answer(Waiting, KernelReply),
    /// Read blocks.
    Read(IoNumber, Vec<BlockAddress>),
    /// Write blocks.
    Write(IoNumber, Vec<(BlockAddress, Bytes)>),
    /// Have the kernel forget.
    Invalidate(InvalidationNumber, Invalidation),
    /// Give up a stream.
    Cut(Arc<dyn Post>),
    /// The session is over.
    Ended(EndReason),
    /// Everything is written back.
    Unmounted,
    /// A tick is needed earlier than the ticker thinks.
    Wake,
    /// Somebody was refused what their capabilities may allow.
    Refused(Waiting, KernelOperation, KernelReply),
}

/// A request of the kernel that waits for its answer.
pub(crate) struct Waiting {
    pub(crate) answer: Answer,
    pub(crate) form: Form,
    /// Of the directory that is listed.
    pub(crate) parent: Ino,
    pub(crate) caller: Caller,
    /// What is asked, where capabilities of the caller may make up for a refusal.
    retried: Option<Box<KernelOperation>>,
    /// The process that asks.
    pub(crate) pid: u32,
    /// When it was asked, unless it may wait as long as it likes.
    since: Option<Time>,
    /// It has waited too long.
    is_late: bool,
}

/// What waits for a reply of the core.
enum Asked {
    Kernel(Waiting),
    /// A CREATE found a file, which is being emptied; then this is answered.
    Emptied(Waiting, KernelReply),
    /// The owner is asked for of an inode that somebody was refused to change.
    Owner(Box<Refused>),
}

/// What somebody was refused who has capabilities for some inodes.
pub(crate) struct Refused {
    pub(crate) waiting: Waiting,
    pub(crate) operation: KernelOperation,
    pub(crate) refusal: KernelReply,
    pub(crate) reach: Reach,
}

/// All that the lock covers.
pub(crate) struct Core {
    pub(crate) client: Client,
    /// Root is nobody here: capabilities make up for no refusal.
    squash: bool,
    asked: HashMap<KernelId, Asked>,
    /// The parents of open directories.
    parents: HashMap<HandleId, Ino>,
    stream: Option<Arc<dyn Post>>,
    number: StreamNumber,
    last_own: u64,
    /// When the ticker comes.
    planned: Option<Time>,
    commands: Vec<Command>,
    /// Requests that were answered at once.
    pub(crate) at_once: u64,
}

impl Core {
    pub(crate) fn new(client: Client, squash: bool) -> Self {
        Self {
            client,
            squash,
            asked: HashMap::new(),
            parents: HashMap::new(),
            stream: None,
            number: StreamNumber(0),
            last_own: OWN,
            planned: None,
            commands: Vec::new(),
            at_once: 0,
        }
    }

    /// A request of the kernel.
    pub(crate) fn request(
        &mut self,
        request: KernelRequest,
        answer: Answer,
        form: Form,
        pid: u32,
    ) -> Vec<Work> {
        let parent = match form {
            Form::Listing(listing) => self.parents.get(&listing.handle).copied(),
            _ => None,
        };
        if let KernelOperation::Release { handle, .. } = request.operation {
            self.parents.remove(&handle);
        }
        let (caller, parent) = (request.caller.clone(), parent.unwrap_or(Ino::ROOT));
        let may_retry = !self.squash && !caller.privileged && caller.is_checked();
        let retried = may_retry && capabilities::needed(&request.operation).is_some();
        let retried = retried.then(|| Box::new(request.operation.clone()));
        let waits = matches!(request.operation, KernelOperation::Lock { .. });
        let since = (!waits).then(clock::now);
        let waiting = Waiting { answer, form, parent, caller, retried, pid, since, is_late: false };
        let id = request.id;
        self.asked.insert(id, Asked::Kernel(waiting));
        let work = self.take(Event::Kernel(request));
        self.at_once += u64::from(!self.asked.contains_key(&id));
        work
    }

    /// Asks once more, for somebody who may do everything.
    pub(crate) fn request_as_root(
        &mut self,
        waiting: Waiting,
        operation: KernelOperation,
    ) -> Vec<Work> {
        let event = self.as_root(waiting, operation);
        self.take(event)
    }

    fn as_root(&mut self, waiting: Waiting, operation: KernelOperation) -> Event {
        let id = self.own_id();
        let caller = Caller { privileged: true, ..waiting.caller.clone() };
        self.asked.insert(id, Asked::Kernel(waiting));
        Event::Kernel(KernelRequest { id, caller, operation })
    }

    /// The same, if the inode's owner and group, as they are now, are within reach.
    pub(crate) fn request_within_reach(&mut self, ino: Ino, refused: Refused) -> Vec<Work> {
        let id = self.own_id();
        self.asked.insert(id, Asked::Owner(Box::new(refused)));
        let operation = KernelOperation::Getattr { ino };
        self.take(Event::Kernel(KernelRequest { id, caller: Caller::ROOT, operation }))
    }

    /// Ends the waits of requests that were asked before `before`: they are answered with an error. What was
    /// asked may be done all the same. Locks may be waited for.
    pub(crate) fn give_up(&mut self, before: Time) -> Vec<Work> {
        let mut late = Vec::new();
        for (id, asked) in &mut self.asked {
            let waiting = match asked {
                Asked::Kernel(waiting) | Asked::Emptied(waiting, _) => waiting,
                Asked::Owner(refused) => &mut refused.waiting,
            };
            if waiting.since.is_some_and(|since| since < before) {
                waiting.is_late = true;
                late.push(*id);
            }
        }
        late.into_iter().flat_map(|id| self.take(Event::Interrupt(id))).collect()
    }

    /// Asks for something in the shell's own name; nobody waits.
    pub(crate) fn request_unanswered(&mut self, operation: KernelOperation) -> Vec<Work> {
        let id = self.own_id();
        self.take(Event::Kernel(KernelRequest { id, caller: Caller::ROOT, operation }))
    }

    fn own_id(&mut self) -> KernelId {
        self.last_own += 1;
        KernelId(self.last_own)
    }

    /// A stream to a coordinator is open.
    pub(crate) fn met(&mut self, post: Arc<dyn Post>) -> (StreamNumber, Vec<Work>) {
        self.number = StreamNumber(self.number.0 + 1);
        let before = self.stream.replace(post);
        let mut work = self.take(Event::Connected(self.number));
        work.extend(before.map(Work::Cut));
        (self.number, work)
    }

    /// A stream is broken.
    pub(crate) fn lost(&mut self, stream: StreamNumber) -> Vec<Work> {
        if stream == self.number {
            self.stream = None;
        }
        self.take(Event::Disconnected(stream))
    }

    /// Takes an event, and says what is to be done.
    pub(crate) fn take(&mut self, event: Event) -> Vec<Work> {
        let mut work = Vec::new();
        let mut events = VecDeque::from([event]);
        while let Some(next) = events.pop_front() {
            let mut commands = std::mem::take(&mut self.commands);
            let mut turn = Turn { now: clock::now(), date: clock::date(), out: &mut commands };
            self.client.handle(&mut turn, next);
            let mut letter = Vec::new();
            for command in commands.drain(..) {
                events.extend(self.sort(command, &mut letter, &mut work));
            }
            self.commands = commands;
            self.send(&letter);
        }
        self.plan(&mut work);
        work
    }

    /// Puts a command where it belongs. Returns what is to happen next, under the same lock.
    fn sort(
        &mut self,
        command: Command,
        letter: &mut Vec<ToCoordinator>,
        work: &mut Vec<Work>,
    ) -> Option<Event> {
        match command {
            Command::Answer(id, reply) => return self.answer(id, reply, work),
            Command::Send(stream, message) => {
                if stream == self.number && self.stream.is_some() {
                    letter.push(message);
                }
            }
            Command::Reconnect => work.extend(self.stream.take().map(Work::Cut)),
            Command::ReadBlocks(io, blocks) => work.push(Work::Read(io, blocks)),
            Command::WriteBlocks(io, blocks) => work.push(Work::Write(io, blocks)),
            Command::Invalidate(number, what) => work.push(Work::Invalidate(number, what)),
            Command::Ended(reason) => work.push(Work::Ended(reason)),
            Command::Unmounted => work.push(Work::Unmounted),
        }
        None
    }

    fn answer(&mut self, id: KernelId, reply: KernelReply, work: &mut Vec<Work>) -> Option<Event> {
        match self.asked.remove(&id)? {
            Asked::Kernel(mut waiting) => {
                if let (Some(asked), true) = (waiting.retried.take(), is_refusal(&reply)) {
                    work.push(Work::Refused(waiting, *asked, reply));
                    return None;
                }
                let reply = waiting.told(reply);
                if let Some(set) = empties(&waiting, &reply) {
                    let id = self.own_id();
                    let caller = waiting.caller.clone();
                    self.asked.insert(id, Asked::Emptied(waiting, reply));
                    return Some(Event::Kernel(KernelRequest { id, caller, operation: set }));
                }
                if let KernelReply::OpenedDirectory(handle, parent) = reply {
                    self.parents.insert(handle, parent);
                }
                work.push(Work::Answer(waiting, reply));
            }
            Asked::Emptied(waiting, KernelReply::Created(mut entry, handle, flags)) => {
                let reply = match reply {
                    KernelReply::Attributes(now, _) => {
                        entry.attributes = now;
                        KernelReply::Created(entry, handle, flags)
                    }
                    // It stays open for nobody; the next request of its caller finds it as it is.
                    error => waiting.told(error),
                };
                work.push(Work::Answer(waiting, reply));
            }
            Asked::Emptied(..) => {}
            Asked::Owner(refused) => {
                let Refused { waiting, operation, refusal, reach } = *refused;
                match reply {
                    KernelReply::Attributes(of, _) if reach.covers(of.uid, of.gid) => {
                        return Some(self.as_root(waiting, operation));
                    }
                    _ => work.push(Work::Answer(waiting, refusal)),
                }
            }
        }
        None
    }

    fn send(&mut self, messages: &[ToCoordinator]) {
        let Some(post) = self.stream.as_ref().filter(|_| !messages.is_empty()) else { return };
        for letter in write_letters(messages) {
            if post.send(letter.into()).is_err() {
                // Whoever lost it says so.
                return;
            }
        }
    }

    fn plan(&mut self, work: &mut Vec<Work>) {
        let Some(next) = self.client.next_tick() else { return };
        if self.planned.is_none_or(|planned| next < planned) {
            self.planned = Some(next);
            work.push(Work::Wake);
        }
    }

    /// When the ticker is to come, for the ticker.
    pub(crate) fn planned(&mut self) -> Option<Time> {
        self.planned = self.client.next_tick();
        self.planned
    }
}

impl Waiting {
    /// A reply as its caller is told it: whoever has waited too long was not interrupted.
    fn told(&self, reply: KernelReply) -> KernelReply {
        match reply {
            KernelReply::Error(FsError::Interrupted) if self.is_late => {
                KernelReply::Error(FsError::Unavailable)
            }
            reply => reply,
        }
    }
}

fn is_refusal(reply: &KernelReply) -> bool {
    matches!(reply, KernelReply::Error(FsError::NotPermitted | FsError::Access))
}

/// What empties a file that a CREATE with O_TRUNC has found: another host made it since the kernel
/// looked, which therefore takes it for new.
fn empties(waiting: &Waiting, reply: &KernelReply) -> Option<KernelOperation> {
    match (waiting.form, reply) {
        (Form::Open { truncates: true, .. }, KernelReply::Created(entry, ..))
            if entry.attributes.size > 0 =>
        {
            let set = SetAttributes { size: Some(0), by_handle: true, ..SetAttributes::default() };
            Some(KernelOperation::Setattr { ino: entry.attributes.ino, set })
        }
        _ => None,
    }
}

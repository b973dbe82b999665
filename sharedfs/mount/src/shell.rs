//! Carries out what the client's core says.
//!
//! ```text
//!   session thread ──┐                          ┌──> answers, on the same thread
//!   letter           ├──> lock: core.take(event) ──┼──> DataBlocks ──done──> an event again
//!   done, tick ──────┘     letters are queued   └──> KernelCaches, on threads of its own
//! ```
//! Nothing waits here, and nothing but the core runs under the lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mooring_fuse::request::Request;
use mooring_fuse::{FileSystem, Write};
use mooring_sharedfs_client::{
    Event, HandleId, KernelId, KernelOperation, KernelReply, KernelRequest, LockKind,
};
use mooring_sharedfs_core::Ino;
use mooring_sharedfs_core::sessions::EndReason;
use mooring_terms::Time;
use parking_lot::{Condvar, Mutex};

use crate::answer::{Answered, Content, answer};
use crate::blocks::DataBlocks;
use crate::capabilities::{self, Reach};
use crate::clock;
use crate::core::{Core, Refused, Waiting, Work};
use crate::kernel_caches::KernelCaches;
use crate::request::{Form, translate, translate_write};
use crate::statistics::Counters;

/// How far a mount is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phase {
    /// Nothing is mounted any more.
    pub(crate) kernel_gone: bool,
    /// Everything is written back, and the session given up.
    pub(crate) unmounted: bool,
    /// The session is over.
    pub(crate) ended: Option<EndReason>,
}

/// What a mount does otherwise than others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manners {
    /// Requests that have waited so long get an error.
    pub(crate) soft: Option<Duration>,
    /// Root is nobody.
    pub(crate) squash: bool,
}

/// The core and what carries out its commands.
pub(crate) struct Shell {
    core: Mutex<Core>,
    data: Arc<dyn DataBlocks>,
    caches: KernelCaches,
    counters: Counters,
    manners: Manners,
    phase: Mutex<Phase>,
    changed: Condvar,
    /// Whether the ticker is to look again when it has to come.
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Shell {
    pub(crate) fn new(
        core: Core,
        data: Arc<dyn DataBlocks>,
        caches: KernelCaches,
        manners: Manners,
    ) -> Self {
        Self {
            core: Mutex::new(core),
            data,
            caches,
            counters: Counters::default(),
            manners,
            phase: Mutex::default(),
            changed: Condvar::new(),
            woken: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn caches(&self) -> &KernelCaches {
        &self.caches
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Does something under the lock, then what comes of it.
    pub(crate) fn with_core<R>(
        self: &Arc<Self>,
        run: impl FnOnce(&mut Core) -> (R, Vec<Work>),
    ) -> R {
        let (result, work) = run(&mut self.core.lock());
        work.into_iter().for_each(|work| self.carry_out(work));
        result
    }

    /// Looks at the core.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Core) -> R) -> R {
        look(&self.core.lock())
    }

    pub(crate) fn event(self: &Arc<Self>, event: Event) {
        self.with_core(|core| ((), core.take(event)));
    }

    fn carry_out(self: &Arc<Self>, work: Work) {
        match work {
            Work::Answer(waiting, reply) => self.answer(waiting, reply),
            Work::Read(io, blocks) => {
                let shell = self.clone();
                let done = move |read| shell.event(Event::BlocksRead(io, read));
                self.data.read(blocks, Box::new(done));
            }
            Work::Write(io, blocks) => {
                let shell = self.clone();
                let done = move |versions: mooring_sharedfs_core::Result<_>| {
                    let failed = u64::from(versions.is_err());
                    shell.counters.write_back_errors.fetch_add(failed, Ordering::Relaxed);
                    shell.event(Event::BlocksWritten(io, versions));
                };
                self.data.write(blocks, Box::new(done));
            }
            Work::Invalidate(number, what) => self.caches.invalidate(self, number, what),
            Work::Cut(post) => post.cut(),
            Work::Ended(reason) => {
                tracing::warn!(?reason, "the mount's session is over: it gives errors from now on");
                self.change(|phase| phase.ended = Some(reason));
            }
            Work::Unmounted => self.change(|phase| phase.unmounted = true),
            Work::Wake => self.wake_ticker(),
            Work::Refused(waiting, operation, refusal) => {
                self.refused(waiting, operation, refusal);
            }
        }
    }

    /// Somebody was refused what only an owner may do. If their capabilities allow it, it is asked for once
    /// more.
    fn refused(
        self: &Arc<Self>,
        waiting: Waiting,
        operation: KernelOperation,
        refusal: KernelReply,
    ) {
        let Some(needed) = capabilities::needed(&operation) else {
            return self.answer(waiting, refusal);
        };
        let reach = capabilities::reach_of(waiting.pid, needed);
        match (&reach, &operation) {
            (Reach::Nothing, _) => self.answer(waiting, refusal),
            (Reach::Everything, _) => {
                self.with_core(|core| ((), core.request_as_root(waiting, operation)));
            }
            (
                Reach::Mapped { .. },
                KernelOperation::Setattr { ino, .. }
                | KernelOperation::Setxattr { ino, .. }
                | KernelOperation::Removexattr { ino, .. },
            ) => {
                let ino = *ino;
                let refused = Refused { waiting, operation, refusal, reach };
                self.with_core(|core| ((), core.request_within_reach(ino, refused)));
            }
            // Of names it is not known here whose inodes they are.
            (Reach::Mapped { .. }, _) => self.answer(waiting, refusal),
        }
    }

    /// Has requests that have waited too long answered with errors, until the mount is over; where it is wanted.
    pub(crate) fn give_up_late_ones(self: &Arc<Self>) {
        let Some(most) = self.manners.soft else { return };
        let pause = (most / 8).clamp(Duration::from_millis(20), Duration::from_secs(1));
        while !self.wait_for(Some(pause), |phase| phase.kernel_gone) {
            if let Some(before) = clock::now().0.checked_sub(most) {
                self.with_core(|core| ((), core.give_up(Time(before))));
            }
        }
    }

    fn answer(self: &Arc<Self>, waiting: Waiting, reply: KernelReply) {
        self.counters.answered(&reply);
        let gives = Gives::of(&reply, waiting.form);
        let Answered { content, left_out } = answer(reply, waiting.form, waiting.parent);
        let taken = match content {
            Content::Error(errno) => return waiting.answer.error(errno),
            Content::Frame(frame) => waiting.answer.deliver(&[frame.bytes()]),
            Content::Bytes(bytes) => waiting.answer.deliver(&[&bytes]),
            Content::Pieces(pieces) => {
                let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
                waiting.answer.deliver(&pieces)
            }
        };
        if taken {
            left_out.into_iter().for_each(|ino| self.forget(ino, 1));
        } else {
            self.take_back(gives);
        }
    }

    /// The kernel did not take an answer: what it would have got is nobody's.
    fn take_back(self: &Arc<Self>, gives: Gives) {
        for ino in gives.lookups {
            self.forget(ino, 1);
        }
        if let Some(handle) = gives.handle {
            let release = KernelOperation::Release { handle, flock: None };
            self.with_core(|core| ((), core.request_unanswered(release)));
        }
        if let Some(Form::Lock(lock)) = gives.lock {
            let (ino, space, owner, range) = (lock.ino, lock.space, lock.owner, lock.range);
            let kind = LockKind::Unlock;
            let unlock = KernelOperation::Lock { ino, space, owner, kind, range, pid: 0 };
            self.with_core(|core| ((), core.request_unanswered(unlock)));
        }
    }

    fn forget(self: &Arc<Self>, ino: Ino, count: u64) {
        let forget = KernelOperation::Forget { ino, count };
        self.with_core(|core| ((), core.request_unanswered(forget)));
    }

    fn change(&self, change: impl FnOnce(&mut Phase)) {
        change(&mut self.phase.lock());
        self.changed.notify_all();
        // The ticker may have nothing to do any more.
        self.wake_ticker();
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// Waits until `reached`; `false` when that took longer than `most`.
    pub(crate) fn wait_for(
        &self,
        most: Option<Duration>,
        reached: impl Fn(&Phase) -> bool,
    ) -> bool {
        let mut phase = self.phase.lock();
        match most {
            Some(most) => {
                !self.changed.wait_while_for(&mut phase, |phase| !reached(phase), most).timed_out()
            }
            None => {
                self.changed.wait_while(&mut phase, |phase| !reached(phase));
                true
            }
        }
    }

    fn wake_ticker(&self) {
        *self.woken.lock() = true;
        self.wake.notify_one();
    }

    /// Tells the core that time has passed, until the mount is over.
    pub(crate) fn tick(self: &Arc<Self>) {
        loop {
            let planned = self.core.lock().planned();
            {
                let mut woken = self.woken.lock();
                let phase = self.phase();
                if phase.unmounted || (phase.ended.is_some() && phase.kernel_gone) {
                    return;
                }
                if !*woken {
                    match planned.map(|planned| planned.0.saturating_sub(clock::now().0)) {
                        Some(left) => {
                            self.wake.wait_for(&mut woken, left);
                        }
                        None => self.wake.wait(&mut woken),
                    }
                }
                if std::mem::take(&mut *woken) {
                    continue;
                }
            }
            self.event(Event::Tick);
        }
    }
}

/// What an answer gives the kernel, to be taken back if it doesn't take it.
struct Gives {
    lookups: Vec<Ino>,
    handle: Option<HandleId>,
    lock: Option<Form>,
}

impl Gives {
    fn of(reply: &KernelReply, form: Form) -> Self {
        let mut gives = Self { lookups: Vec::new(), handle: None, lock: None };
        match reply {
            KernelReply::Entry(entry) => gives.lookups.push(entry.attributes.ino),
            KernelReply::Created(entry, handle, _) => {
                gives.lookups.push(entry.attributes.ino);
                gives.handle = Some(*handle);
            }
            KernelReply::Opened(handle, _) | KernelReply::OpenedDirectory(handle, _) => {
                gives.handle = Some(*handle);
            }
            KernelReply::Directory(items) => {
                let told = items.iter().filter(|item| item.entry.is_some());
                gives.lookups.extend(told.map(|item| item.ino));
            }
            KernelReply::Done if matches!(form, Form::Lock(_)) => gives.lock = Some(form),
            _ => {}
        }
        gives
    }
}

/// The shell as the kernel's session sees it.
pub(crate) struct Served(pub(crate) Arc<Shell>);

impl Served {
    fn ask(&self, request: KernelRequest, answer: mooring_fuse::Answer, form: Form, pid: u32) {
        self.0.counters.asked(&request.operation);
        self.0.with_core(|core| ((), core.request(request, answer, form, pid)));
    }
}

impl FileSystem for Served {
    fn request(&self, request: &Request<'_>, answer: mooring_fuse::Answer) {
        match translate(request, self.0.manners.squash) {
            Ok((asked, form)) => self.ask(asked, answer, form, request.header.pid),
            Err(errno) => answer.error(errno),
        }
    }

    fn write(&self, write: Write, answer: mooring_fuse::Answer) {
        let pid = write.header.pid;
        self.ask(translate_write(write), answer, Form::Plain, pid);
    }

    fn forget(&self, node: u64, lookups: u64) {
        self.0.forget(Ino(node), lookups);
    }

    fn interrupted(&self, unique: u64) {
        self.0.event(Event::Interrupt(KernelId(unique)));
    }

    fn ended(&self) {
        self.0.change(|phase| phase.kernel_gone = true);
        self.0.caches.end();
        self.0.event(Event::Unmount);
    }
}

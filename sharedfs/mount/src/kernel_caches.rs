//! Has the kernel give up what it has cached, on threads of their own.
//!
//! An invalidation of pages waits for pages that are locked by reads in flight, and has dirty ones
//! written, through this very mount. So each that waits has a thread: one that waits for another host
//! never holds up one that the other host waits for.
//!
//! *An inode that the kernel doesn't know yet.* It was told of it by an answer that the caller's thread
//! hasn't looked at: when it does, it will believe what stands there. (Of inodes that it knows, it drops
//! attributes that were asked for before an invalidation.) So an invalidation that finds nothing is tried
//! again for as long as what was told may be kept, which is a session's lease, or until the kernel has
//! said that it forgot the inode.

#![allow(clippy::disallowed_methods, reason = "a shell: it waits in real time")]

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mooring_fuse::Notifier;
use mooring_sharedfs_client::{Event, Invalidation, InvalidationNumber};
use parking_lot::{Condvar, Mutex};

use crate::shell::Shell;

/// How long a thread without work stays.
const STAYS: Duration = Duration::from_secs(10);

/// How long until the kernel is asked again for an inode that it doesn't know.
const AGAIN: Duration = Duration::from_micros(200);

/// The kernel's caches, from outside.
pub(crate) struct KernelCaches {
    notifier: OnceLock<Notifier>,
    /// For how long the kernel keeps what it was told, at the longest.
    lease: Duration,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    ended: bool,
}

struct Job {
    shell: Arc<Shell>,
    number: InvalidationNumber,
    what: Invalidation,
}

impl KernelCaches {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { notifier: OnceLock::new(), lease, queue: Arc::default() }
    }

    /// The mount's session has begun.
    pub(crate) fn begin(&self, notifier: Notifier) {
        // There is one session; a second call would be a mistake without consequence.
        let _ = self.notifier.set(notifier);
    }

    /// Nothing is mounted any more, and nothing cached.
    pub(crate) fn end(&self) {
        self.queue.state.lock().ended = true;
        self.queue.more.notify_all();
    }

    /// Has the kernel forget, and tells the core when it has.
    pub(crate) fn invalidate(
        &self,
        shell: &Arc<Shell>,
        number: InvalidationNumber,
        what: Invalidation,
    ) {
        let job = Job { shell: shell.clone(), number, what };
        let mut state = self.queue.state.lock();
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle {
            self.queue.more.notify_one();
            return;
        }
        drop(state);
        let queue = self.queue.clone();
        let thread = std::thread::Builder::new().name("kernel-caches".to_owned());
        if let Err(error) = thread.spawn(move || queue.work()) {
            // Those that are there come to it in the end, if none waits for it.
            tracing::error!(%error, "no thread for an invalidation");
            self.queue.more.notify_one();
        }
    }

    fn run(&self, job: &Job) {
        let Some(notifier) = self.notifier.get() else { return };
        let node = job.what.ino.0;
        let began = Instant::now();
        loop {
            if job.what.names {
                notifier.increase_epoch();
            }
            let known = match job.what.pages {
                true => notifier.invalidate_data(node, 0, 0),
                false => notifier.invalidate_attributes(node),
            };
            let told = || job.shell.look(|core| core.client.lookups(job.what.ino)) > 0;
            if known || self.queue.state.lock().ended || began.elapsed() >= self.lease || !told() {
                return;
            }
            std::thread::sleep(AGAIN);
        }
    }
}

impl Queue {
    fn work(&self) {
        while let Some(job) = self.next() {
            job.shell.caches().run(&job);
            job.shell.event(Event::Invalidated(job.number));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.ended {
                return None;
            }
            state.idle += 1;
            let waited = self.more.wait_for(&mut state, STAYS);
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                return None;
            }
        }
    }
}

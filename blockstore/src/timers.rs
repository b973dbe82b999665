//! Deadlines of slices and volumes: one thread a node, asleep until the next one is due.
//!
//! A subject has at most one deadline. Setting a later or no deadline is cheap: an entry that is out
//! of date when it comes up is dropped.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::thread;

use mooring_terms::Time;
use parking_lot::{Condvar, Mutex};

use crate::clock;

/// What a subject's deadline is due to.
pub trait Due<S>: Send + Sync {
    /// The deadline of `subject` has passed.
    fn due(&self, subject: S);
}

/// The deadlines of one node.
pub struct Timers<S> {
    state: Mutex<State<S>>,
    changed: Condvar,
}

struct State<S> {
    order: BTreeSet<(Time, S)>,
    of: HashMap<S, Time>,
    /// To be called at once, whatever deadlines are set meanwhile.
    woken: BTreeSet<S>,
    asleep: Asleep,
    stopped: bool,
}

/// Until when the thread sleeps, so that it is woken only for what is due before. A deadline that
/// comes and goes with each request costs no wake-up that way; the thread wakes in vain once.
#[derive(Clone, Copy)]
enum Asleep {
    /// It is up, and will look before it sleeps.
    No,
    Until(Time),
    /// Until it is woken.
    ForGood,
}

impl Asleep {
    fn beyond(self, deadline: Time) -> bool {
        match self {
            Self::No => false,
            Self::Until(end) => end > deadline,
            Self::ForGood => true,
        }
    }
}

impl<S: Copy + Ord + Hash + Send + 'static> Timers<S> {
    /// No deadlines, and no thread yet: see [`Timers::start`].
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                order: BTreeSet::new(),
                of: HashMap::new(),
                woken: BTreeSet::new(),
                asleep: Asleep::No,
                stopped: false,
            }),
            changed: Condvar::new(),
        })
    }

    /// Starts the thread that calls `target` for every deadline that passes. It ends with
    /// [`Timers::stop`] or when `target` is gone.
    pub fn start<T: Due<S> + ?Sized + 'static>(self: &Arc<Self>, name: &str, target: Weak<T>) {
        let timers = Arc::clone(self);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(due) = timers.wait() {
                    let Some(target) = target.upgrade() else { return };
                    for subject in due {
                        target.due(subject);
                    }
                }
            })
            .expect("a thread can be started");
    }

    /// The subject's deadline from now on; `None` for none.
    pub fn set(&self, subject: S, deadline: Option<Time>) {
        let mut state = self.state.lock();
        if state.of.get(&subject).copied() == deadline {
            return;
        }
        if let Some(old) = state.of.remove(&subject) {
            state.order.remove(&(old, subject));
        }
        if let Some(deadline) = deadline {
            state.of.insert(subject, deadline);
            state.order.insert((deadline, subject));
            if state.asleep.beyond(deadline) {
                drop(state);
                self.changed.notify_one();
            }
        }
    }

    /// Calls the subject soon; its deadline stays.
    pub fn wake(&self, subject: S) {
        if self.state.lock().woken.insert(subject) {
            self.changed.notify_one();
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Sleeps until something is due; `None` when stopped.
    fn wait(&self) -> Option<Vec<S>> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if !state.woken.is_empty() {
                return Some(std::mem::take(&mut state.woken).into_iter().collect());
            }
            let Some(&(deadline, _)) = state.order.first() else {
                state.asleep = Asleep::ForGood;
                self.changed.wait(&mut state);
                state.asleep = Asleep::No;
                continue;
            };
            let now = clock::now();
            if deadline > now {
                state.asleep = Asleep::Until(deadline);
                self.changed.wait_for(&mut state, deadline.since(now));
                state.asleep = Asleep::No;
                continue;
            }
            let mut due = Vec::new();
            while let Some(&(deadline, subject)) = state.order.first() {
                if deadline > now {
                    break;
                }
                state.order.remove(&(deadline, subject));
                state.of.remove(&subject);
                due.push(subject);
            }
            return Some(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    struct Recorder(Mutex<mpsc::Sender<u32>>);

    impl Due<u32> for Recorder {
        fn due(&self, subject: u32) {
            self.0.lock().send(subject).expect("the test listens");
        }
    }

    #[test]
    fn deadlines_come_in_order_and_replaced_ones_do_not() {
        let (send, receive) = mpsc::channel();
        let recorder = Arc::new(Recorder(Mutex::new(send)));
        let timers = Timers::new();
        timers.start("timers-test", Arc::downgrade(&recorder));
        let start = clock::now();
        let after = |ms| Some(start + Duration::from_millis(ms));
        timers.set(1, after(60));
        timers.set(2, after(20));
        timers.set(3, after(30));
        timers.set(3, None);
        timers.set(4, after(5_000));
        timers.set(4, after(90));
        let got: Vec<u32> = (0..3)
            .map(|_| receive.recv_timeout(Duration::from_secs(5)).expect("a deadline"))
            .collect();
        assert_eq!(got, [2, 1, 4]);
        assert!(clock::now().since(start) >= Duration::from_millis(90));
        timers.stop();
    }
}

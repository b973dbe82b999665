//! A pure core and the queue of its commands, run in order by whichever thread comes first.
//!
//! ```text
//!   thread A: enter ── core.handle ── queue: c1 c2 ──┐ runs c1 c2, then c3, then leaves
//!   thread B: enter ── core.handle ── queue: c3 ─────┘ (A is running: B leaves at once)
//! ```
//!
//! Nobody hands work to another thread, so an idle system answers without a wake-up; under load one
//! thread runs what many have queued, which is where group commit comes from.
//!
//! Invariants:
//! - commands are run in the order in which the core gave them, by one thread at a time;
//! - no lock is held while they run, so a command may come back to the same core: what that adds is
//!   run by the thread that is running already.

use std::mem;

use parking_lot::Mutex;

/// See the module.
pub struct Serial<T, C> {
    inner: Mutex<Inner<T, C>>,
}

struct Inner<T, C> {
    core: T,
    queue: Vec<C>,
    running: bool,
}

impl<T, C> Serial<T, C> {
    /// A core with an empty queue.
    pub fn new(core: T) -> Self {
        Self { inner: Mutex::new(Inner { core, queue: Vec::new(), running: false }) }
    }

    /// Lets `step` drive the core and queue commands; then, unless another thread is at it, runs
    /// what is queued until nothing is left. Says whether this thread was the one that ran.
    ///
    /// A panic in `run` leaves the queue locked for good: the daemon ends on a panic.
    pub fn enter(
        &self,
        step: impl FnOnce(&mut T, &mut Vec<C>),
        mut run: impl FnMut(Vec<C>),
    ) -> bool {
        let mut inner = self.inner.lock();
        let Inner { core, queue, running } = &mut *inner;
        step(core, queue);
        if *running || queue.is_empty() {
            return false;
        }
        inner.running = true;
        loop {
            let batch = mem::take(&mut inner.queue);
            drop(inner);
            run(batch);
            inner = self.inner.lock();
            if inner.queue.is_empty() {
                inner.running = false;
                return true;
            }
        }
    }

    /// Lets `step` drive the core and queue commands, and leaves them. Says whether somebody has to
    /// [`Serial::run`] the queue: it is not empty, and nobody is at it.
    #[must_use]
    pub fn tell(&self, step: impl FnOnce(&mut T, &mut Vec<C>)) -> bool {
        let mut inner = self.inner.lock();
        let Inner { core, queue, running } = &mut *inner;
        step(core, queue);
        !*running && !queue.is_empty()
    }

    /// Runs what is queued until nothing is left, unless another thread is at it.
    pub fn run(&self, run: impl FnMut(Vec<C>)) {
        self.enter(|_, _| (), run);
    }

    /// Looks at the core.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.inner.lock().core)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn commands_run_in_order_whoever_queues_them() {
        let serial = Arc::new(Serial::new(0_u32));
        let ran = Arc::new(Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        serial.enter(
                            |count, queue| {
                                *count += 1;
                                queue.push(*count);
                            },
                            |batch| ran.lock().extend(batch),
                        );
                    }
                });
            }
        });
        assert_eq!(*ran.lock(), (1..=2_000).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_told_waits_until_somebody_runs_it() {
        let serial = Serial::new(());
        assert!(!serial.tell(|(), _| ()), "there is nothing to run");
        assert!(serial.tell(|(), queue| queue.push(1)));
        assert!(serial.tell(|(), queue| queue.push(2)));
        let ran = Mutex::new(Vec::new());
        serial.run(|batch| {
            let first = batch == [1, 2];
            ran.lock().extend(batch);
            if first {
                assert!(!serial.tell(|(), queue| queue.push(3)), "somebody is at it");
            }
        });
        assert_eq!(*ran.lock(), [1, 2, 3]);
    }

    #[test]
    fn a_command_that_comes_back_is_run_after_those_before_it() {
        let serial = Serial::new(());
        let ran = Mutex::new(Vec::new());
        serial.enter(
            |(), queue| queue.extend([1, 2]),
            |batch| {
                for command in batch {
                    ran.lock().push(command);
                    if command == 1 {
                        let ran_here = serial.enter(|(), queue| queue.push(3), |_| unreachable!());
                        assert!(!ran_here);
                    }
                }
            },
        );
        assert_eq!(*ran.lock(), [1, 2, 3]);
    }
}

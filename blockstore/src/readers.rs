//! A pool's threads for reads that would hold up something else: a stream's reader, or the reads
//! behind them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

/// A job: one read, with what is to become of its answer.
type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads and a queue.
pub struct Readers {
    state: Mutex<State>,
    more: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    stopped: bool,
}

impl Readers {
    /// Starts `threads` threads named `name`. They end with [`Readers::stop`].
    #[must_use]
    pub fn start(name: &str, threads: usize) -> Arc<Self> {
        let readers = Arc::new(Self {
            state: Mutex::new(State { jobs: VecDeque::new(), stopped: false }),
            more: Condvar::new(),
        });
        for number in 0..threads {
            let readers = Arc::clone(&readers);
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    while let Some(job) = readers.next() {
                        job();
                    }
                })
                .expect("a thread can be started");
        }
        readers
    }

    /// Queues a job. The queue is bounded by what the cores let be in flight.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.state.lock().jobs.push_back(Box::new(job));
        self.more.notify_one();
    }

    /// Ends the threads; queued jobs are dropped.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.jobs.clear();
        drop(state);
        self.more.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            self.more.wait(&mut state);
        }
    }
}

//! The post of a stream's thread, and whoever takes it while a call of the handler doesn't return.
//!
//! ```text
//!   thread A: read ── leave the reader at the post ── handler.message ... (a disk hangs) ... ends
//!   thread B:              relieve: take the reader ── next message ── read ── ...
//! ```
//! Invariant: the reader is with the thread that holds the post, or lies there during a call.

use std::cell::Cell;

use parking_lot::Mutex;

thread_local! {
    static RELIEVED: Cell<bool> = const { Cell::new(false) };
}

/// Whether another thread goes on in this one's place if a call of the handler on it takes long and
/// [`crate::Transport::relieve`] is called.
#[must_use]
pub fn is_relieved() -> bool {
    RELIEVED.get()
}

/// The post of a thread that works with an `R`.
pub(crate) struct Post<R> {
    state: Mutex<State<R>>,
}

struct State<R> {
    /// There during a call.
    reader: Option<R>,
    /// Counts those that have held the post.
    holder: u64,
    /// Calls that have begun.
    calls: u64,
    /// Calls that had begun when the post was looked at.
    seen: u64,
}

impl<R> Post<R> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { reader: None, holder: 0, calls: 0, seen: 0 }) }
    }

    /// This thread is one that can be relieved from now on.
    pub(crate) fn begin() {
        RELIEVED.set(true);
    }

    /// Makes a call that may take long. Gives the reader back, unless somebody else goes on with it:
    /// then this thread is to end.
    pub(crate) fn call(&self, holder: u64, reader: R, call: impl FnOnce()) -> Option<R> {
        {
            let mut state = self.state.lock();
            state.calls += 1;
            state.reader = Some(reader);
        }
        call();
        let mut state = self.state.lock();
        if state.holder == holder { state.reader.take() } else { None }
    }

    /// Takes the post, if its thread has been in one call since the last time this was asked. Gives
    /// the number of the new holder.
    pub(crate) fn relieve(&self) -> Option<(u64, R)> {
        let mut state = self.state.lock();
        if state.reader.is_none() || state.calls != state.seen {
            state.seen = state.calls;
            return None;
        }
        let reader = state.reader.take()?;
        state.holder += 1;
        Some((state.holder, reader))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn only_who_stays_in_one_call_is_relieved_and_ends() {
        let post = Post::new();
        let (inside, is_inside) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let post = &post;
            let stuck = scope.spawn(move || {
                let reader = post.call(0, "reader", || ()).expect("nobody took it");
                post.call(0, reader, || {
                    inside.send(()).unwrap();
                    may_leave.recv().unwrap();
                })
            });
            is_inside.recv().unwrap();
            assert_eq!(post.relieve(), None, "the first look only notes the call");
            let (holder, reader) = post.relieve().expect("it is still in that call");
            assert_eq!(post.relieve(), None, "there is nothing more to take");
            assert_eq!(post.call(holder, reader, || ()), Some("reader"));
            leave.send(()).unwrap();
            assert_eq!(stuck.join().unwrap(), None, "whoever was relieved has nothing left");
        });
    }
}

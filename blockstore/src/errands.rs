//! Work that may wait for a disk, done where waiting does no harm.
//!
//! ```text
//!   thread ── scope { events, cores, commands ── later(errand) } ── the errands, one by one
//! ```
//! Commands of cores are run while others queue behind whoever runs them, so none of them may wait for a
//! disk. What has to is put aside as an errand, and done by the same thread once it has left every
//! queue: at queue depth 1 that costs nothing, where a hand-over to another thread costs a wake-up.
//!
//! A disk may hang. Only a thread whose place somebody else takes meanwhile does such work itself
//! ([`Cover`]); any other leaves it to the pool's own thread. What lies in one pool must not wait for
//! the disk of another: with errands of several, the thread waits only for the last one's.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::slice::Errand;

/// Who takes the place of a thread while it waits for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// Nobody: it must not wait.
    None,
    /// The transport goes on with the thread's stream on another thread. Reads are left to the
    /// pool's readers: the stream has more to deliver.
    Stream,
    /// Another thread of the same device goes on; this one has nothing better to do than to wait.
    Caller,
    /// It is the pool's own thread, which is there to wait.
    Pool,
}

struct Scope {
    depth: u32,
    errands: VecDeque<Errand>,
}

impl Scope {
    /// The next errand, what covers the thread while it does it, and whether it is the last one.
    fn next(&mut self, cover: Cover) -> Option<(Errand, Cover, bool)> {
        let errand = self.errands.pop_front()?;
        let holds_up = self.errands.iter().any(|other| !other.shares_pool_with(&errand));
        let cover = if holds_up { Cover::None } else { cover };
        Some((errand, cover, self.errands.is_empty()))
    }
}

thread_local! {
    static SCOPE: RefCell<Scope> =
        const { RefCell::new(Scope { depth: 0, errands: VecDeque::new() }) };
}

/// Runs `work`, and then, in the outermost scope of the thread, what it left for later. An inner scope
/// has the cover of the outermost.
pub fn scope<R>(cover: Cover, work: impl FnOnce() -> R) -> R {
    let outermost = SCOPE.with_borrow_mut(|scope| {
        scope.depth += 1;
        scope.depth == 1
    });
    let result = work();
    if outermost {
        while let Some((errand, cover, last)) = SCOPE.with_borrow_mut(|scope| scope.next(cover)) {
            errand.perform(cover, last);
        }
    }
    SCOPE.with_borrow_mut(|scope| scope.depth -= 1);
    result
}

/// Leaves an errand to the end of the outermost scope of this thread.
///
/// # Panics
/// If there is none: whatever drives a core opens one.
pub fn later(errand: Errand) {
    SCOPE.with_borrow_mut(|scope| {
        assert!(scope.depth > 0, "a core is driven inside a scope");
        scope.errands.push_back(errand);
    });
}

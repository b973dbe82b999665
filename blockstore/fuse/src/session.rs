//! Serves a file system: one thread a channel reads requests, answers come from anywhere.
//!
//! ```text
//!   session thread: receive -> decode -> FileSystem::request ... Answer ── writev ──> its channel
//!   watch thread:   callers that a signal wants back ── /proc ──> EINTR
//! ```
//! It must not: wait for an answer; answer over another channel than the request's own.

#![allow(clippy::disallowed_methods, reason = "a shell: it measures how long requests wait")]

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{Condvar, Mutex};

use crate::abi::{Frame, InHeader, InvalidateEntry, InvalidateInode, OutHeader, notify};
use crate::buffer::RequestBuffer;
use crate::channel::Channel;
use crate::error::FuseError;
use crate::interrupts::{PATIENCE, Pending};
use crate::request::{Operation, Request};

/// What is served.
pub trait FileSystem: Send + Sync + 'static {
    /// A request, on a session thread: what takes long is answered from elsewhere. Never a WRITE.
    fn request(&self, request: &Request<'_>, answer: Answer);

    /// A WRITE, with bytes that may be kept.
    fn write(&self, write: Write, answer: Answer);

    /// The kernel forgets `lookups` of the times that it was told of `node`.
    fn forget(&self, node: u64, lookups: u64);

    /// The caller of the request with this number is about to be freed with EINTR: what it waited
    /// for it no longer wants. An answer that comes all the same is dropped.
    fn interrupted(&self, unique: u64);

    /// No more requests come: it was unmounted, or the connection was aborted.
    fn ended(&self);
}

/// A WRITE.
#[derive(Clone, Debug)]
pub struct Write {
    /// Number, node, caller.
    pub header: InHeader,
    /// Open file.
    pub fh: u64,
    /// Offset in bytes.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// [`crate::abi::write`] bits.
    pub write_flags: u32,
    /// `O_*` flags of the open file.
    pub flags: u32,
}

/// What serves one mount.
pub struct Session<F> {
    shared: Arc<Shared>,
    file_system: Arc<F>,
    serving: AtomicUsize,
}

/// What answers need, however long they take.
struct Shared {
    channels: Vec<Channel>,
    waiting: DashMap<u64, Waiting>,
    watched: Mutex<Watched>,
    more: Condvar,
}

/// A request that waits for its answer.
#[derive(Clone, Copy)]
struct Waiting {
    channel: usize,
    caller: u32,
    since: Instant,
    for_lock: bool,
}

/// Requests whose callers have a signal pending.
#[derive(Default)]
struct Watched {
    requests: Vec<u64>,
    ended: bool,
}

impl<F: FileSystem> Session<F> {
    /// Starts a thread for each descriptor of /dev/fuse, and one that watches interrupted callers;
    /// they end with the mount.
    ///
    /// # Errors
    /// [`FuseError::System`] if a thread or its memory can't be had.
    pub fn start(
        name: &str,
        file_system: Arc<F>,
        descriptors: Vec<OwnedFd>,
        max_write: u32,
    ) -> Result<Arc<Self>, FuseError> {
        let buffers = descriptors
            .iter()
            .map(|_| RequestBuffer::new(max_write))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| FuseError::system("mapping request buffers for", name, source))?;
        let session = Arc::new(Self {
            serving: AtomicUsize::new(descriptors.len()),
            shared: Arc::new(Shared {
                channels: descriptors.into_iter().map(Channel::Kernel).collect(),
                waiting: DashMap::new(),
                watched: Mutex::default(),
                more: Condvar::new(),
            }),
            file_system,
        });
        for (channel, buffer) in buffers.into_iter().enumerate() {
            let serving = session.clone();
            spawn(name, format!("fuse-{channel}"), move || serving.serve(channel, buffer))?;
        }
        let watching = session.clone();
        spawn(name, "fuse-signals".to_owned(), move || watching.watch())?;
        Ok(session)
    }

    /// What tells the kernel to forget.
    #[must_use]
    pub fn notifier(&self) -> Notifier {
        Notifier(self.shared.clone())
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.waiting.len()
    }

    fn serve(self: Arc<Self>, channel: usize, mut buffer: RequestBuffer) {
        while let Some(length) = self.shared.channels[channel].receive(buffer.space()) {
            self.handle(channel, length, &mut buffer);
        }
        if self.serving.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.watched.lock().ended = true;
            self.shared.more.notify_all();
            self.file_system.ended();
        }
    }

    fn handle(&self, channel: usize, length: usize, buffer: &mut RequestBuffer) {
        let request = match Request::decode(buffer.request(length)) {
            Ok(request) => request,
            Err(malformed) => {
                tracing::error!(%malformed, "from the kernel");
                if let Some(unique) = malformed.unique() {
                    self.shared.send_error(channel, unique, libc::EIO);
                }
                return;
            }
        };
        let header = request.header;
        match request.operation {
            Operation::Forget { lookups } => self.file_system.forget(header.node, lookups),
            Operation::BatchForget { nodes } => {
                for one in nodes.iter() {
                    self.file_system.forget(one.node, one.lookups);
                }
            }
            Operation::Interrupt { unique } => self.interrupt(channel, header.unique, unique),
            Operation::Write { fh, offset, data, write_flags, flags } => {
                let length = data.len();
                let data = buffer.take_payload(length);
                let answer = self.enter(channel, header, false);
                let write = Write { header, fh, offset, data, write_flags, flags };
                self.file_system.write(write, answer);
            }
            operation => {
                let for_lock = matches!(operation, Operation::Setlk { wait: true, .. });
                let answer = self.enter(channel, header, for_lock);
                self.file_system.request(&request, answer);
            }
        }
    }

    fn enter(&self, channel: usize, header: InHeader, for_lock: bool) -> Answer {
        let waiting = Waiting { channel, caller: header.pid, since: Instant::now(), for_lock };
        self.shared.waiting.insert(header.unique, waiting);
        Answer { shared: self.shared.clone(), unique: header.unique, open: true }
    }

    fn interrupt(&self, channel: usize, own: u64, unique: u64) {
        if !self.shared.waiting.contains_key(&unique) {
            // Not here yet (another thread is about to take it in), or answered already, which the
            // kernel knows: EAGAIN makes it ask again in the first case only.
            return self.shared.send_error(channel, own, libc::EAGAIN);
        }
        self.shared.watched.lock().requests.push(unique);
        self.shared.more.notify_one();
    }

    /// Frees callers that a signal wants back, as long as the session lasts.
    fn watch(&self) {
        loop {
            let requests = {
                let mut watched = self.shared.watched.lock();
                while watched.requests.is_empty() && !watched.ended {
                    self.shared.more.wait(&mut watched);
                }
                if watched.ended {
                    return;
                }
                std::mem::take(&mut watched.requests)
            };
            let still: Vec<u64> =
                requests.into_iter().filter(|unique| !self.free_if_wanted(*unique)).collect();
            if still.is_empty() {
                continue;
            }
            let mut watched = self.shared.watched.lock();
            watched.requests.extend(still);
            // Longer for many: a look at /proc costs some microseconds each.
            self.shared.more.wait_for(&mut watched, PATIENCE / 2);
        }
    }

    /// Whether nobody needs to look after this request any more.
    fn free_if_wanted(&self, unique: u64) -> bool {
        let Some(waiting) = self.shared.waiting.get(&unique).map(|waiting| *waiting) else {
            return true;
        };
        let waited = waiting.since.elapsed();
        // A caller that can't be found has ended, or is in a namespace that isn't seen from here:
        // for the latter every signal counts, since nothing more can be known.
        let frees = Pending::of(waiting.caller)
            .is_none_or(|pending| pending.frees(waiting.for_lock, waited));
        if frees && self.shared.settle(unique).is_some() {
            // In this order: what the caller asks next must not overtake that it gave this up.
            self.file_system.interrupted(unique);
            self.shared.send_error(waiting.channel, unique, libc::EINTR);
        }
        frees
    }
}

fn spawn(name: &str, thread: String, run: impl FnOnce() + Send + 'static) -> Result<(), FuseError> {
    std::thread::Builder::new()
        .name(thread)
        .spawn(run)
        .map(drop)
        .map_err(|source| FuseError::system("starting a session thread for", name, source))
}

impl Shared {
    /// The channel to answer over, if nobody has answered yet; the caller must do it now.
    fn settle(&self, unique: u64) -> Option<usize> {
        self.waiting.remove(&unique).map(|(_, waiting)| waiting.channel)
    }

    fn send_error(&self, channel: usize, unique: u64, errno: i32) {
        self.send(channel, unique, -errno, &[]);
    }

    /// Whether the kernel has taken it.
    fn send(&self, channel: usize, unique: u64, error: i32, parts: &[&[u8]]) -> bool {
        match self.write(channel, unique, error, parts) {
            Ok(()) => return true,
            // The request was aborted meanwhile; nobody waits for the answer.
            Err(gone) if is_gone(&gone) => {}
            Err(source) if error == 0 => {
                tracing::error!(unique, %source, "the kernel refused an answer");
                self.send_error(channel, unique, libc::EIO);
            }
            Err(source) => tracing::error!(unique, %source, "the kernel refused an error"),
        }
        false
    }

    fn write(
        &self,
        channel: usize,
        unique: u64,
        error: i32,
        parts: &[&[u8]],
    ) -> std::io::Result<()> {
        let length = OutHeader::SIZE + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut header = Frame::new();
        OutHeader { len: length as u32, error, unique }.encode(&mut header);
        if parts.len() > PIECES_MAX {
            return self.write(channel, unique, error, &[&parts.concat()]);
        }
        let mut slices = Vec::with_capacity(1 + parts.len());
        slices.push(IoSlice::new(header.bytes()));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        self.channels[channel].send(&mut slices)
    }
}

/// Pieces that one writev takes, less one for the header.
const PIECES_MAX: usize = libc::UIO_MAXIOV as usize - 1;

fn is_gone(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENODEV | libc::EPIPE | libc::ECONNRESET)
    )
}

/// The right to answer one request, from any thread. Dropped without an answer, it answers EIO.
pub struct Answer {
    shared: Arc<Shared>,
    unique: u64,
    open: bool,
}

impl Answer {
    /// The request's number.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// Answers with bytes, put together from `parts`; none where there is nothing to tell.
    pub fn parts(self, parts: &[&[u8]]) {
        self.finish(0, parts);
    }

    /// As [`Answer::parts`], and says whether the kernel has taken it: what an answer gives (a lookup
    /// to be forgotten, an open file to be closed) is the kernel's only then. It isn't if the caller
    /// was freed before ([`FileSystem::interrupted`]), or nothing is mounted any more.
    #[must_use]
    pub fn deliver(self, parts: &[&[u8]]) -> bool {
        self.finish(0, parts)
    }

    /// Answers with what [`crate::reply`] has put together.
    pub fn frame(self, frame: &Frame) {
        self.finish(0, &[frame.bytes()]);
    }

    /// Answers that it is done.
    pub fn done(self) {
        self.finish(0, &[]);
    }

    /// Answers with an error.
    pub fn error(self, errno: i32) {
        self.finish(-errno, &[]);
    }

    fn finish(mut self, error: i32, parts: &[&[u8]]) -> bool {
        self.open = false;
        let channel = self.shared.settle(self.unique);
        channel.is_some_and(|channel| self.shared.send(channel, self.unique, error, parts))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.open
            && let Some(channel) = self.shared.settle(self.unique)
        {
            tracing::warn!(unique = self.unique, "a request was given up");
            self.shared.send_error(channel, self.unique, libc::EIO);
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({})", self.unique)
    }
}

/// Tells the kernel what to forget. The calls may wait for locks of the kernel that requests in
/// flight hold: never on a session thread, and never under a lock that answering needs.
#[derive(Clone)]
pub struct Notifier(Arc<Shared>);

impl Notifier {
    /// Drops cached attributes of a node, and waits for no lock. `false`: the kernel has no such
    /// node. It may get it yet, by an answer that was sent and that its caller hasn't looked at.
    pub fn invalidate_attributes(&self, node: u64) -> bool {
        self.invalidate(InvalidateInode { node, offset: -1, length: 0 })
    }

    /// Drops cached attributes and bytes of a node, from `offset` on, `length` of them (0: to the
    /// end). Returns when dirty mapped pages among them have been written through the file system.
    /// `false`: as [`Notifier::invalidate_attributes`] says.
    pub fn invalidate_data(&self, node: u64, offset: u64, length: u64) -> bool {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let length = i64::try_from(length).unwrap_or(0);
        self.invalidate(InvalidateInode { node, offset, length })
    }

    fn invalidate(&self, what: InvalidateInode) -> bool {
        let mut frame = Frame::new();
        what.encode(&mut frame);
        self.notify(notify::INVALIDATE_INODE, &[frame.bytes()])
    }

    /// Lets every cached name be looked up again (protocol 7.44, Linux 6.16), and waits for no lock.
    pub fn increase_epoch(&self) {
        self.notify(notify::INCREASE_EPOCH, &[]);
    }

    /// Drops a cached name. Waits for the lock of the directory, which every request that changes it
    /// holds.
    pub fn invalidate_entry(&self, parent: u64, name: &[u8]) {
        let mut frame = Frame::new();
        InvalidateEntry { parent, name_len: name.len() as u32, flags: 0 }.encode(&mut frame);
        self.notify(notify::INVALIDATE_ENTRY, &[frame.bytes(), name, b"\0"]);
    }

    fn notify(&self, code: i32, parts: &[&[u8]]) -> bool {
        match self.0.write(0, 0, code, parts) {
            Ok(()) => return true,
            // Nothing was cached, or nothing is mounted any more.
            Err(gone) if is_gone(&gone) => {}
            Err(source) => tracing::error!(code, %source, "the kernel refused a notification"),
        }
        false
    }
}

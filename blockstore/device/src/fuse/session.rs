//! Serves the requests of one file system: one thread a channel, answers from anywhere.
//!
//! ```text
//!   session thread: receive -> decode -> dispatch ─┬─ answered here (names, attributes, open)
//!                                                  └─ BlockIo ... Answer ── writev ──> channel
//! ```
//! It must not: wait for an answer; answer a request on another channel than its own; turn a request
//! whose answer was dropped into an error (the kernel keeps it for the successor).

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

use mooring_fuse::abi::{Frame, OutHeader, UNIQUE_RESEND, WriteOut, setattr};
use mooring_fuse::request::{Operation, Request};
use mooring_fuse::{Channel, RequestBuffer};

use super::burst::Burst;
use super::files;
use super::in_flight::{InFlight, Place};
use super::limits::Limits;
use crate::io::{BlockIo, BlockRequest, IoError};
use crate::{DeviceError, DeviceStats};

/// Pieces that one writev takes, less one for the header.
const PIECES_MAX: usize = libc::UIO_MAXIOV as usize - 1;

/// What serves one file system.
pub(crate) struct Session {
    name: String,
    io: Arc<dyn BlockIo>,
    channels: Vec<Channel>,
    /// The size that the kernel knows, in bytes; what it asks for lies inside.
    size: AtomicU64,
    in_flight: InFlight,
    failed: AtomicBool,
    /// Threads to which requests still can come.
    serving: AtomicUsize,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    flushes: AtomicU64,
    discards: AtomicU64,
    zeroes: AtomicU64,
    errors: AtomicU64,
    resent: AtomicU64,
}

impl Session {
    /// Starts a thread for each channel; they end with the file system.
    ///
    /// # Errors
    /// [`DeviceError::System`] if a thread or its memory can't be had.
    pub(crate) fn start(
        name: &str,
        io: Arc<dyn BlockIo>,
        channels: Vec<Channel>,
        limits: Limits,
    ) -> Result<Arc<Self>, DeviceError> {
        let buffers = channels
            .iter()
            .map(|_| RequestBuffer::new(limits.max_write))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| DeviceError::system("mapping request buffers for", name, source))?;
        for channel in &channels {
            // A process that died in the middle of a burst has left it as it was then.
            channel.set_waiting(true);
        }
        let session = Arc::new(Self {
            serving: AtomicUsize::new(channels.len()),
            name: name.to_owned(),
            size: AtomicU64::new(io.size_bytes()),
            io,
            channels,
            in_flight: InFlight::new(limits.in_flight),
            failed: AtomicBool::new(false),
            counters: Counters::default(),
        });
        for (channel, buffer) in buffers.into_iter().enumerate() {
            let serving = session.clone();
            std::thread::Builder::new()
                .name(format!("device-{channel}-{name}"))
                .spawn(move || serving.serve(channel, buffer))
                .map_err(|source| {
                    DeviceError::system("starting a session thread for", name, source)
                })?;
        }
        Ok(session)
    }

    /// The descriptors of /dev/fuse; `None` if a holder has them, and forwards.
    pub(crate) fn kernel_fds(&self) -> Option<Vec<BorrowedFd<'_>>> {
        self.channels
            .iter()
            .map(|channel| match channel {
                Channel::Kernel(fuse) => Some(fuse.as_fd()),
                Channel::Forwarded { .. } => None,
            })
            .collect()
    }

    /// Takes over the volume's size; returns it in bytes.
    pub(crate) fn grow(&self) -> u64 {
        let size = self.io.size_bytes();
        self.size.fetch_max(size, Ordering::AcqRel).max(size)
    }

    /// Answers everything that waits with EIO, and everything that comes later.
    ///
    /// With `aborted` the kernel has given its side up already, and needs no answers.
    pub(crate) fn fail(&self, aborted: bool) {
        self.failed.store(true, Ordering::SeqCst);
        let waiting = self.in_flight.close();
        if !aborted {
            for (unique, channel) in waiting {
                self.answer_errno(channel, unique, libc::EIO);
            }
        }
    }

    /// Whether the device works: nobody has failed it, and the kernel's side stands.
    pub(crate) fn is_serving(&self) -> bool {
        !self.failed.load(Ordering::SeqCst) && self.serving.load(Ordering::Acquire) > 0
    }

    pub(crate) fn stats(&self) -> DeviceStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeviceStats {
            reads: of(&self.counters.reads),
            read_bytes: of(&self.counters.read_bytes),
            writes: of(&self.counters.writes),
            write_bytes: of(&self.counters.write_bytes),
            flushes: of(&self.counters.flushes),
            discards: of(&self.counters.discards),
            zeroes: of(&self.counters.zeroes),
            errors: of(&self.counters.errors),
            resent: of(&self.counters.resent),
            in_flight: self.in_flight.count(),
        }
    }

    fn serve(self: Arc<Self>, channel: usize, mut buffer: RequestBuffer) {
        set_io_flusher();
        let mut burst = Burst::default();
        while let Some(length) = self.channels[channel].receive(buffer.space()) {
            self.handle(channel, length, &mut buffer, &mut burst);
            if burst.takes_more() && self.in_flight.is_shared() {
                self.gather(channel, &mut buffer, &mut burst);
            }
            if let Some(requests) = burst.take() {
                self.io.submit(requests);
            }
        }
        self.serving.fetch_sub(1, Ordering::AcqRel);
        tracing::debug!(device = self.name, channel, "the kernel has closed the session");
    }

    /// Adds what waits already to a burst: many writes at once are one to every replica.
    fn gather(self: &Arc<Self>, channel: usize, buffer: &mut RequestBuffer, burst: &mut Burst) {
        if !self.channels[channel].set_waiting(false) {
            return;
        }
        while burst.takes_more() {
            match self.channels[channel].receive_at_once(buffer.space()) {
                Some(length) => self.handle(channel, length, buffer, burst),
                None => break,
            }
        }
        self.channels[channel].set_waiting(true);
    }

    fn handle(
        self: &Arc<Self>,
        channel: usize,
        length: usize,
        buffer: &mut RequestBuffer,
        burst: &mut Burst,
    ) {
        let request = match Request::decode(buffer.request(length)) {
            Ok(request) => request,
            Err(malformed) => {
                tracing::error!(device = self.name, %malformed, "from the kernel");
                if let Some(unique) = malformed.unique() {
                    self.answer_errno(channel, unique, libc::EIO);
                }
                return;
            }
        };
        let (unique, node) = (request.header.unique, request.header.node);
        if unique & UNIQUE_RESEND != 0 {
            self.counters.resent.fetch_add(1, Ordering::Relaxed);
        }
        match request.operation {
            Operation::Read { offset, size, .. } if node == files::DISK => {
                self.read(channel, unique, offset, size, burst)
            }
            Operation::Write { offset, data, .. } if node == files::DISK => {
                let length = data.len();
                match self.checked(offset, length as u64) {
                    Err(error) => self.refuse(channel, unique, error),
                    Ok(()) => {
                        let data = buffer.take_payload(length);
                        self.write(channel, unique, offset, data, burst);
                    }
                }
            }
            Operation::Fsync { .. } => self.fsync(channel, unique, node, burst),
            Operation::Fallocate { offset, length, mode, .. } if node == files::DISK => {
                self.fallocate(channel, unique, (offset, length), mode, burst);
            }
            Operation::Interrupt { unique: target } => self.interrupt(channel, unique, target),
            other => self.answer_name_space(channel, unique, node, other),
        }
    }

    /// What needs no volume: names, attributes, opening and closing.
    fn answer_name_space(&self, channel: usize, unique: u64, node: u64, operation: Operation<'_>) {
        let size = self.size.load(Ordering::Acquire);
        let answer = match operation {
            Operation::Forget { .. } | Operation::BatchForget { .. } => return,
            Operation::Lookup { name } => files::entry(node, name, size).ok_or(libc::ENOENT),
            Operation::Getattr { .. } => files::attributes(node, size).ok_or(libc::ENOENT),
            // The size is the volume's; times and owners may be set, to no effect.
            Operation::Setattr { set } if set.valid & setattr::SIZE != 0 => Err(libc::EPERM),
            Operation::Setattr { .. } => files::attributes(node, size).ok_or(libc::ENOENT),
            Operation::Open { .. } if node == files::DISK => Ok(files::opened()),
            Operation::Open { .. } => Err(libc::EISDIR),
            Operation::Opendir { .. } if node == files::ROOT => Ok(files::opened_directory()),
            Operation::Opendir { .. } | Operation::Readdir { .. } if node != files::ROOT => {
                Err(libc::ENOTDIR)
            }
            Operation::Readdir { offset, size, .. } => Ok(files::listing(offset, size)),
            Operation::Statfs => Ok(files::statfs(size)),
            Operation::Flush { .. }
            | Operation::Release { .. }
            | Operation::Releasedir { .. }
            | Operation::Destroy => Ok(Frame::new()),
            Operation::Read { .. } | Operation::Write { .. } | Operation::Fallocate { .. } => {
                Err(libc::EBADF)
            }
            // The handshake is over before the first thread starts.
            Operation::Init { .. } => Err(libc::EPROTO),
            // The kernel takes ENOSYS for "never ask again" and goes on without.
            _ => Err(libc::ENOSYS),
        };
        match answer {
            Ok(frame) => self.answer_parts(channel, unique, 0, &[frame.bytes()]),
            Err(errno) => self.answer_errno(channel, unique, errno),
        }
    }

    fn read(
        self: &Arc<Self>,
        channel: usize,
        unique: u64,
        offset: u64,
        size: u32,
        burst: &mut Burst,
    ) {
        // Whoever reads the file itself is told its end.
        let end = self.size.load(Ordering::Acquire);
        let length = u64::from(size).min(end.saturating_sub(offset)) as u32;
        if length == 0 {
            return self.answer_parts(channel, unique, 0, &[]);
        }
        if let Err(error) = self.checked(offset, u64::from(length)) {
            return self.refuse(channel, unique, error);
        }
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        self.counters.read_bytes.fetch_add(u64::from(length), Ordering::Relaxed);
        let Some(answer) = self.enter(channel, unique) else { return };
        let done = Box::new(move |result| answer.read(result, length));
        burst.end_with(BlockRequest::Read { offset, length, done });
    }

    fn write(
        self: &Arc<Self>,
        channel: usize,
        unique: u64,
        offset: u64,
        data: Bytes,
        burst: &mut Burst,
    ) {
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.counters.write_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let size = data.len() as u32;
        let Some(answer) = self.enter(channel, unique) else { return };
        // FUSE has no FUA; the loop device sends a flush where its user wants one.
        let done = Box::new(move |result| answer.written(result, size));
        burst.add(size as usize, BlockRequest::Write { offset, data, fua: false, done });
    }

    fn fsync(self: &Arc<Self>, channel: usize, unique: u64, node: u64, burst: &mut Burst) {
        if node != files::DISK {
            return self.answer_parts(channel, unique, 0, &[]);
        }
        if self.failed.load(Ordering::SeqCst) {
            return self.refuse(channel, unique, IoError::Fenced);
        }
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        let Some(answer) = self.enter(channel, unique) else { return };
        let done = Box::new(move |result| answer.done(result));
        burst.end_with(BlockRequest::Flush { done });
    }

    fn fallocate(
        self: &Arc<Self>,
        channel: usize,
        unique: u64,
        (offset, length): (u64, u64),
        mode: u32,
        burst: &mut Burst,
    ) {
        const PUNCH: u32 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
        const ZERO: u32 = (libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE) as u32;
        if mode != PUNCH && mode != ZERO {
            return self.answer_errno(channel, unique, libc::EOPNOTSUPP);
        }
        if let Err(error) = self.checked(offset, length) {
            return self.refuse(channel, unique, error);
        }
        let Some(answer) = self.enter(channel, unique) else { return };
        let done = Box::new(move |result| answer.done(result));
        if mode == PUNCH {
            self.counters.discards.fetch_add(1, Ordering::Relaxed);
            burst.end_with(BlockRequest::Discard { offset, length, done });
        } else {
            self.counters.zeroes.fetch_add(1, Ordering::Relaxed);
            burst.end_with(BlockRequest::WriteZeroes { offset, length, done });
        }
    }

    /// A waiting request whose caller has a signal pending is given up: its caller is freed, while
    /// the volume may still carry it out, as with any interrupted system call.
    fn interrupt(&self, channel: usize, unique: u64, target: u64) {
        match self.in_flight.settle_unique(target) {
            Some(owner) => self.answer_errno(owner, target, libc::EINTR),
            // Not here yet (another thread is about to take it in), or answered already, which the
            // kernel knows: EAGAIN makes it ask again in the first case only.
            None => self.answer_errno(channel, unique, libc::EAGAIN),
        }
    }

    fn checked(&self, offset: u64, length: u64) -> Result<(), IoError> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(IoError::Fenced);
        }
        let end = offset.checked_add(length).ok_or(IoError::Invalid)?;
        let aligned = offset.is_multiple_of(4096) && length.is_multiple_of(4096);
        if !aligned || length == 0 || end > self.size.load(Ordering::Acquire) {
            return Err(IoError::Invalid);
        }
        Ok(())
    }

    /// The right to answer; `None` if the device has failed meanwhile, and the request with it.
    fn enter(self: &Arc<Self>, channel: usize, unique: u64) -> Option<Answer> {
        let Some(place) = self.in_flight.enter(unique, channel) else {
            self.refuse(channel, unique, IoError::Fenced);
            return None;
        };
        Some(Answer { session: self.clone(), channel, place, unique, open: true })
    }

    fn refuse(&self, channel: usize, unique: u64, error: IoError) {
        self.counters.errors.fetch_add(1, Ordering::Relaxed);
        self.answer_errno(channel, unique, error.errno());
    }

    fn answer_errno(&self, channel: usize, unique: u64, errno: i32) {
        self.answer_parts(channel, unique, -errno, &[]);
    }

    fn answer_parts(&self, channel: usize, unique: u64, error: i32, parts: &[&[u8]]) {
        let length = OutHeader::SIZE + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut header = Frame::new();
        OutHeader { len: length as u32, error, unique }.encode(&mut header);
        let mut slices = Vec::with_capacity(1 + parts.len());
        slices.push(IoSlice::new(header.bytes()));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        match self.channels[channel].send(&mut slices) {
            Ok(()) => {}
            // The request was interrupted or aborted meanwhile; nobody waits for the answer.
            Err(gone)
                if matches!(
                    gone.raw_os_error(),
                    Some(libc::ENOENT | libc::ENODEV | libc::EPIPE | libc::ECONNRESET)
                ) => {}
            Err(source) if error == 0 => {
                tracing::error!(device = self.name, unique, %source, "the kernel refused an answer");
                self.answer_errno(channel, unique, libc::EIO);
            }
            Err(source) => {
                tracing::error!(device = self.name, unique, %source, "the kernel refused an error")
            }
        }
    }
}

/// The right to answer one request. Dropped without an answer, it leaves the request with the
/// kernel, which keeps it for the next process; its place in the table stays taken, so that
/// `fail` still finds it.
struct Answer {
    session: Arc<Session>,
    channel: usize,
    place: Place,
    unique: u64,
    open: bool,
}

impl Answer {
    fn done(self, result: Result<(), IoError>) {
        self.finish(result.map(|()| [].as_slice()));
    }

    fn written(self, result: Result<(), IoError>, size: u32) {
        let mut frame = Frame::new();
        WriteOut { size, padding: 0 }.encode(&mut frame);
        self.finish(
            result
                .map(|()| [frame.bytes()])
                .as_ref()
                .map(|parts| parts.as_slice())
                .map_err(|error| *error),
        );
    }

    fn read(self, result: Result<Vec<Bytes>, IoError>, length: u32) {
        match result {
            Err(error) => self.finish(Err(error)),
            Ok(pieces) if pieces.iter().map(Bytes::len).sum::<usize>() != length as usize => {
                tracing::error!(
                    device = self.session.name,
                    length,
                    "a read was answered with another length"
                );
                self.finish(Err(IoError::Corrupt));
            }
            Ok(pieces) if pieces.len() > PIECES_MAX => self.finish(Ok(&[&pieces.concat()])),
            Ok(pieces) => {
                let parts: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
                self.finish(Ok(&parts));
            }
        }
    }

    fn finish(mut self, result: Result<&[&[u8]], IoError>) {
        self.open = false;
        if self.session.in_flight.settle(self.place, self.unique) {
            match result {
                Ok(parts) => self.session.answer_parts(self.channel, self.unique, 0, parts),
                Err(error) => self.session.refuse(self.channel, self.unique, error),
            }
        }
        self.session.in_flight.leave(self.place);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.open {
            let (device, unique) = (self.session.name.as_str(), self.unique);
            tracing::warn!(
                device,
                unique,
                "a request was left unanswered, for the next process to serve"
            );
        }
    }
}

/// Memory that this thread asks for while it serves I/O must not wait for that same I/O to write
/// dirty pages out (needs CAP_SYS_RESOURCE).
fn set_io_flusher() {
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    // SAFETY: the call takes numbers only.
    if unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } != 0 {
        tracing::debug!(error = %std::io::Error::last_os_error(), "PR_SET_IO_FLUSHER is not permitted");
    }
}

//! A volume in use on this node: what everything above the block store sees.
//!
//! ```text
//!   device ── read, write, flush, discard ──> client core ── requests ──> primaries, here or there
//!          <── done ───────────────────────── client core <── replies ───
//! ```
//!
//! A primary on this node is a function call away. I/O waits while primaries can't be reached, and
//! fails at once and for good when a newer attachment has fenced this one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use mooring_device::{
    BlockIo, BlockRequest, Done, Extent as DeviceExtent, IoError as DeviceError, ReadDone,
    StatusDone,
};
use mooring_replication::{
    ClientCommand, ClientEvent, ClientId, Io, IoError, IoId, IoPart, ReplyMessage, RequestMessage,
    StreamId, VolumeBlock, VolumeClient, VolumeRange,
};
use mooring_terms::{
    AttachmentEpoch, BLOCK_SIZE, BlockIndex, BlockRange, Data, Epoch, NodeId, SessionId, SliceId,
    SliceIndex, VolumeId,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::agenda::Agenda;
use crate::clock;
use crate::errands::{self, Cover};
use crate::remote::Fences;
use crate::serial::Serial;
use crate::slice::Run;
use crate::timers::Timers;

/// What a volume needs of its node.
pub trait VolumePorts: Send + Sync {
    /// Wants a stream to `node` for `client`; answered through [`Volume::connected`] or
    /// [`Volume::disconnected`], perhaps before this returns.
    fn connect(&self, volume: &Arc<Volume>, node: NodeId);
    /// Sends a request. One to this node's own slices is told to them, and left on `agenda`.
    fn request(&self, node: NodeId, message: RequestMessage, agenda: &mut Agenda);
    /// What of a slice are holes, as [`Slice::holes`](crate::slice::Slice::holes) tells; `None` where
    /// this node has no replica that can.
    fn holes(&self, slice: SliceId, range: BlockRange) -> Option<Vec<Run>>;
    /// Reads a slice's configuration linearizably; it comes back by [`Volume::configured`].
    fn query_config(&self, volume: VolumeId, slice: SliceIndex);
    /// A session's: asks the coordinator to be let in.
    fn knock(&self, _volume: VolumeId, _slice: SliceIndex) {}
    /// A coordinator's: tells a session that it is let in.
    fn admitted(&self, _volume: VolumeId, _slice: SliceIndex, _session: SessionId) {}
}

/// What has become of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The seal is on its way to the slices.
    Opening,
    /// Every slice has sealed it: I/O is served.
    Serving,
    /// A newer attachment has begun; everything fails.
    Fenced {
        /// The newer one.
        by: AttachmentEpoch,
    },
    /// All replicas lost writes that had been acknowledged and not flushed; everything fails, and
    /// the volume must be attached anew.
    TailLost,
    /// It was ended here; everything fails.
    Closed,
}

impl Attachment {
    /// Whether it is over, for good.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Fenced { .. } | Self::TailLost | Self::Closed)
    }
}

/// A volume in use.
pub struct Volume {
    id: VolumeId,
    client: ClientId,
    epoch: AttachmentEpoch,
    read_only: bool,
    slice_blocks: u64,
    serial: Serial<VolumeClient, ClientCommand>,
    /// I/Os that wait for their answer.
    waiting: DashMap<IoId, Mutex<Waiting>>,
    next_io: AtomicU64,
    next_stream: AtomicU64,
    size_bytes: AtomicU64,
    io_timeout: Mutex<Option<Duration>>,
    broken: AtomicBool,
    state: watch::Sender<Attachment>,
    timers: Arc<Timers<VolumeId>>,
    ports: Weak<dyn VolumePorts>,
    /// Whether one of the device's threads waits for a disk of this node: the others must not.
    waits: AtomicBool,
    /// The newest stream to each node.
    newest: Mutex<BTreeMap<NodeId, StreamId>>,
    this: Weak<Self>,
    /// The last I/O error, for status.
    last_error: Mutex<Option<IoError>>,
    /// A coordinator's: who waits for fences.
    fences: OnceLock<Arc<Fences>>,
}

enum Waiting {
    Read(ReadDone),
    Other(Done),
    Parts(PartsDone),
}

/// What is told of an I/O on a shared volume.
pub type PartsDone = Box<dyn FnOnce(Result<Vec<IoPart>, IoError>) + Send>;

/// What a volume is opened with.
pub struct VolumeParts {
    /// Which volume.
    pub id: VolumeId,
    /// This client.
    pub client: ClientId,
    /// The attachment.
    pub epoch: AttachmentEpoch,
    /// Whether writes are refused here.
    pub read_only: bool,
    /// Its size.
    pub size_bytes: u64,
    /// The size of its slices.
    pub slice_blocks: u64,
    /// For how long its I/O may wait.
    pub io_timeout: Option<Duration>,
    /// The number of its first stream: above those of every daemon that had this client before.
    pub first_stream: u64,
    /// The client core.
    pub core: VolumeClient,
}

/// Zeros that answers share: as many as one read of a device asks for.
const ZEROS: usize = 256 << 10;

/// Written to, not only mapped: the kernel copies answers while the process may be dying.
static ZERO_BYTES: LazyLock<Bytes> = LazyLock::new(|| {
    let mut zeros = vec![1; ZEROS];
    zeros.fill(0);
    Bytes::from(zeros)
});

impl Volume {
    /// A volume whose client has not been told anything yet.
    pub fn new(
        parts: VolumeParts,
        timers: Arc<Timers<VolumeId>>,
        ports: Weak<dyn VolumePorts>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id: parts.id,
            client: parts.client,
            epoch: parts.epoch,
            read_only: parts.read_only,
            slice_blocks: parts.slice_blocks.max(1),
            serial: Serial::new(parts.core),
            waiting: DashMap::new(),
            next_io: AtomicU64::new(1),
            next_stream: AtomicU64::new(parts.first_stream),
            size_bytes: AtomicU64::new(parts.size_bytes),
            io_timeout: Mutex::new(parts.io_timeout),
            broken: AtomicBool::new(false),
            state: watch::Sender::new(Attachment::Opening),
            timers,
            ports,
            waits: AtomicBool::new(false),
            newest: Mutex::new(BTreeMap::new()),
            this: this.clone(),
            last_error: Mutex::new(None),
            fences: OnceLock::new(),
        })
    }

    /// Whether everything fails from now on: fenced, or closed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Which volume.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// This client of it.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// The attachment it does I/O under.
    #[must_use]
    pub fn epoch(&self) -> AttachmentEpoch {
        self.epoch
    }

    /// Whether writes are refused here.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What has become of the attachment, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Attachment> {
        self.state.subscribe()
    }

    /// The last error that an I/O got; `None` if none ever did.
    #[must_use]
    pub fn last_error(&self) -> Option<IoError> {
        *self.last_error.lock()
    }

    /// How many I/Os wait for their answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// A new stream to `node` begins: its number, to be told to the node first.
    pub fn next_stream(&self) -> StreamId {
        StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// The stream to `node` is up, and the node knows of it.
    pub fn connected(&self, node: NodeId, stream: StreamId) {
        self.drive(|core, queue| {
            // Two introductions to one node may cross; the node goes by the higher number.
            let mut newest = self.newest.lock();
            let known = newest.entry(node).or_insert(stream);
            if stream < *known {
                return;
            }
            *known = stream;
            core.handle(clock::now(), ClientEvent::Connected { node, stream }, queue);
        });
    }

    /// The stream to `node` is gone.
    pub fn disconnected(&self, node: NodeId) {
        self.deliver(ClientEvent::Disconnected { node });
    }

    /// The nodes that know its client.
    #[must_use]
    pub fn introduced_to(&self) -> Vec<NodeId> {
        self.newest.lock().keys().copied().collect()
    }

    /// A primary's answer.
    pub fn reply(&self, from: NodeId, message: ReplyMessage) {
        self.deliver(ClientEvent::Reply { from, message });
    }

    /// As [`Volume::reply`], and leaves what follows from it to whoever carries out `agenda`.
    pub fn accept_reply(&self, from: NodeId, message: ReplyMessage, agenda: &mut Agenda) {
        let waiting = self.serial.tell(|core, queue| {
            core.handle(clock::now(), ClientEvent::Reply { from, message }, queue);
            self.set_timer(core);
        });
        if waiting && let Some(this) = self.this.upgrade() {
            agenda.add_volume(this);
        }
    }

    /// Does what the core has said, unless another thread is at it.
    pub fn run_queue(&self, agenda: &mut Agenda) {
        self.serial.run(|batch| self.run_all(batch, agenda));
    }

    /// A slice's configuration.
    pub fn configured(&self, slice: SliceIndex, config: mooring_config::SliceConfig) {
        self.deliver(ClientEvent::Config { slice, config });
    }

    /// The volume has grown.
    pub fn resized(&self, bytes: u64) {
        self.size_bytes.fetch_max(bytes, Ordering::AcqRel);
        self.deliver(ClientEvent::Resized { blocks: bytes / BLOCK_SIZE as u64 });
    }

    /// How long I/O is held, what waits already included; `None` is for ever.
    pub fn set_io_timeout(&self, timeout: Option<Duration>) {
        *self.io_timeout.lock() = timeout;
        self.deliver(ClientEvent::IoTimeout { timeout });
    }

    /// Gives up: everything that waits and everything that comes fails.
    pub fn close(&self) {
        self.end(Attachment::Closed);
    }

    /// As [`Volume::close`], because a newer attachment has been granted elsewhere.
    pub fn fence(&self, by: AttachmentEpoch) {
        self.end(Attachment::Fenced { by });
    }

    fn end(&self, end: Attachment) {
        self.broken.store(true, Ordering::Release);
        self.deliver(ClientEvent::Close);
        self.state.send_if_modified(|state| {
            let open = !state.is_over();
            if open {
                *state = end;
            }
            open
        });
    }

    /// Tells the core something that no device says.
    pub(crate) fn tell(&self, event: ClientEvent) {
        self.deliver(event);
    }

    /// An I/O on a shared volume.
    pub(crate) fn submit_io(&self, io: Io, done: PartsDone) {
        self.submit_all(std::iter::once((io, Waiting::Parts(done))));
    }

    /// The newest epoch of a slice that began without all that was acknowledged before, as of its last
    /// answer.
    pub(crate) fn tail_lost(&self, slice: SliceIndex) -> Epoch {
        self.serial.look(|core| core.tail_lost(slice))
    }

    /// I/Os on a shared volume that are asked for together.
    pub(crate) fn submit_ios(&self, ios: impl IntoIterator<Item = (Io, PartsDone)>) {
        self.submit_all(ios.into_iter().map(|(io, done)| (io, Waiting::Parts(done))));
    }

    /// Who is told of fences; a coordinator's.
    pub(crate) fn set_fences(&self, fences: Arc<Fences>) {
        // A coordinator sets them once.
        let _ = self.fences.set(fences);
    }

    /// The client's deadline has come.
    pub fn tick(&self) {
        self.deliver(ClientEvent::Tick);
    }

    /// Tells the core of requests, in order, and then does what it says to all of them.
    fn submit_all(&self, requests: impl IntoIterator<Item = (Io, Waiting)>) {
        for (io, waiting) in requests {
            let id = IoId(self.next_io.fetch_add(1, Ordering::Relaxed));
            self.waiting.insert(id, Mutex::new(waiting));
            // Whether the queue has to be run shows when that is tried.
            let _ = self.serial.tell(|core, queue| {
                core.handle(clock::now(), ClientEvent::Submit { id, io }, queue);
                self.set_timer(core);
            });
        }
        // One thread of the device at a time does what waits for a disk itself: it has nothing better
        // to do, and if the disk hangs, the others go on.
        let may_wait = !self.waits.swap(true, Ordering::Acquire);
        let cover = if may_wait { Cover::Caller } else { Cover::None };
        let mut agenda = Agenda::default();
        if let Some(this) = self.this.upgrade() {
            agenda.add_volume(this);
        }
        agenda.carry_out(cover);
        if may_wait {
            self.waits.store(false, Ordering::Release);
        }
    }

    /// Says when the core wants to be called. One that is over wants nothing, and must not take away what its
    /// successor in the same volume waits for.
    fn set_timer(&self, core: &VolumeClient) {
        if !core.is_over() {
            self.timers.set(self.id, core.deadline());
        }
    }

    fn deliver(&self, event: ClientEvent) {
        self.drive(|core, queue| core.handle(clock::now(), event, queue));
    }

    fn drive(&self, step: impl FnOnce(&mut VolumeClient, &mut Vec<ClientCommand>)) {
        let mut agenda = Agenda::default();
        errands::scope(Cover::None, || {
            self.serial.enter(
                |core, queue| {
                    step(core, queue);
                    self.set_timer(core);
                },
                |batch| self.run_all(batch, &mut agenda),
            );
            agenda.carry_out(Cover::None);
        });
    }

    fn run_all(&self, batch: Vec<ClientCommand>, agenda: &mut Agenda) {
        for command in batch {
            self.run(command, agenda);
        }
    }

    fn run(&self, command: ClientCommand, agenda: &mut Agenda) {
        match command {
            ClientCommand::Connect { node } => {
                if let (Some(ports), Some(this)) = (self.ports.upgrade(), self.this.upgrade()) {
                    ports.connect(&this, node);
                }
            }
            ClientCommand::Send { node, message } => {
                if let Some(ports) = self.ports.upgrade() {
                    ports.request(node, message, agenda);
                }
            }
            ClientCommand::QueryConfig { slice } => {
                if let Some(ports) = self.ports.upgrade() {
                    ports.query_config(self.id, slice);
                }
            }
            ClientCommand::Done { id, result } => self.done(id, result),
            ClientCommand::Sealed => {
                self.state.send_if_modified(|state| {
                    let opening = *state == Attachment::Opening;
                    if opening {
                        *state = Attachment::Serving;
                    }
                    opening
                });
            }
            ClientCommand::Fenced { by } => {
                self.broken.store(true, Ordering::Release);
                self.state.send_replace(Attachment::Fenced { by });
            }
            ClientCommand::Knock { slice } => {
                if let Some(ports) = self.ports.upgrade() {
                    ports.knock(self.id, slice);
                }
            }
            ClientCommand::Admitted { slice, session } => {
                if let Some(ports) = self.ports.upgrade() {
                    ports.admitted(self.id, slice, session);
                }
            }
            ClientCommand::SessionFenced { session } => {
                if let Some(fences) = self.fences.get() {
                    fences.done(session);
                }
            }
            ClientCommand::TailLost => {
                self.broken.store(true, Ordering::Release);
                self.state.send_replace(Attachment::TailLost);
            }
        }
    }

    fn done(&self, id: IoId, result: Result<Vec<IoPart>, IoError>) {
        let Some((_, waiting)) = self.waiting.remove(&id) else { return };
        if let Err(error) = &result {
            *self.last_error.lock() = Some(*error);
        }
        match waiting.into_inner() {
            Waiting::Read(done) => done(result.map_err(device_error).and_then(|p| self.bytes(p))),
            Waiting::Other(done) => done(result.map(drop).map_err(device_error)),
            Waiting::Parts(done) => done(result),
        }
    }

    /// The bytes of a read, verified one last time on this side of the network.
    fn bytes(&self, parts: Vec<IoPart>) -> Result<Vec<Bytes>, DeviceError> {
        let mut all = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                IoPart::Data(data) => {
                    if data.first_corrupt().is_some() {
                        tracing::error!(volume = %self.id, "a block was damaged between primary and device");
                        return Err(DeviceError::Corrupt);
                    }
                    all.push(data.bytes().clone());
                }
                IoPart::Versions(..) | IoPart::Written(..) => {}
                IoPart::Zeros(blocks) => {
                    let mut left = usize::try_from(blocks).unwrap_or(usize::MAX) * BLOCK_SIZE;
                    while left > 0 {
                        let piece = left.min(ZEROS);
                        all.push(ZERO_BYTES.slice(..piece));
                        left -= piece;
                    }
                }
            }
        }
        Ok(all)
    }

    fn range(offset: u64, length: u64) -> VolumeRange {
        let block = BLOCK_SIZE as u64;
        VolumeRange { first: VolumeBlock(offset / block), count: length / block }
    }

    /// The holes of the slice at `offset`, if its primary is here: its store can be asked. Elsewhere it
    /// would take a request of its own.
    fn holes(&self, offset: u64, length: u64) -> Option<Vec<DeviceExtent>> {
        let block = BLOCK_SIZE as u64;
        let (first, count) = (offset / block, length / block);
        let index = SliceIndex(u32::try_from(first / self.slice_blocks).ok()?);
        let first = first % self.slice_blocks;
        let range = BlockRange::new(BlockIndex(first), count.min(self.slice_blocks - first));
        let slice = SliceId { volume: self.id, index };
        let runs = self.ports.upgrade()?.holes(slice, range)?;
        let extent = |run: &Run| DeviceExtent { length: run.blocks * block, hole: run.hole };
        Some(runs.iter().map(extent).collect())
    }

    fn refusal(&self) -> Option<DeviceError> {
        if self.broken.load(Ordering::Acquire) {
            Some(DeviceError::Fenced)
        } else if self.read_only {
            Some(DeviceError::ReadOnly)
        } else {
            None
        }
    }
}

impl Volume {
    /// What the core is to do for a request; none if its caller was answered here.
    fn io_of(&self, request: BlockRequest) -> Option<(Io, Waiting)> {
        match request {
            BlockRequest::Read { offset, length, done } => {
                Some((Io::Read(Self::range(offset, length.into())), Waiting::Read(done)))
            }
            BlockRequest::Flush { done } => Some((Io::Flush, Waiting::Other(done))),
            BlockRequest::Write { offset, data, fua, done } => self.change(done, || {
                let first = Self::range(offset, 0).first;
                Io::Write { first, data: Data::checksummed(data), fua }
            }),
            // A hole reads as zeros, and costs nothing.
            BlockRequest::Discard { offset, length, done }
            | BlockRequest::WriteZeroes { offset, length, done } => {
                self.change(done, || Io::Discard { range: Self::range(offset, length), fua: false })
            }
            BlockRequest::Status { offset, length, done } => {
                self.tell_status(offset, length, done);
                None
            }
        }
    }

    /// A change of the contents; none if it is refused, and its caller was told.
    fn change(&self, done: Done, io: impl FnOnce() -> Io) -> Option<(Io, Waiting)> {
        match self.refusal() {
            Some(error) => {
                done(Err(error));
                None
            }
            None => Some((io(), Waiting::Other(done))),
        }
    }

    fn tell_status(&self, offset: u64, length: u64, done: StatusDone) {
        if self.broken.load(Ordering::Acquire) {
            return done(Err(DeviceError::Fenced));
        }
        let unknown = || vec![DeviceExtent { length, hole: false }];
        done(Ok(self.holes(offset, length).unwrap_or_else(unknown)));
    }
}

impl BlockIo for Volume {
    fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    fn io_timeout(&self) -> Option<Duration> {
        *self.io_timeout.lock()
    }

    fn read(&self, offset: u64, length: u32, done: ReadDone) {
        self.submit_all(self.io_of(BlockRequest::Read { offset, length, done }));
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool, done: Done) {
        self.submit_all(self.io_of(BlockRequest::Write { offset, data, fua, done }));
    }

    fn flush(&self, done: Done) {
        self.submit_all(self.io_of(BlockRequest::Flush { done }));
    }

    fn discard(&self, offset: u64, length: u64, done: Done) {
        self.submit_all(self.io_of(BlockRequest::Discard { offset, length, done }));
    }

    fn status(&self, offset: u64, length: u64, done: StatusDone) {
        self.tell_status(offset, length, done);
    }

    fn write_zeroes(&self, offset: u64, length: u64, done: Done) {
        self.submit_all(self.io_of(BlockRequest::WriteZeroes { offset, length, done }));
    }

    fn submit(&self, requests: Vec<BlockRequest>) {
        self.submit_all(requests.into_iter().filter_map(|request| self.io_of(request)));
    }
}

/// What the device is told of a client's error.
fn device_error(error: IoError) -> DeviceError {
    match error {
        IoError::Fenced { .. } => DeviceError::Fenced,
        IoError::Closed | IoError::TailLost => DeviceError::Stopped,
        IoError::NoSpace { .. } => DeviceError::NoSpace,
        IoError::Corrupt { .. } => DeviceError::Corrupt,
        IoError::Invalid => DeviceError::Invalid,
        IoError::TimedOut => DeviceError::TimedOut,
    }
}

//! A coordinator's volume: the blocks of a shared volume under the attachment, and who else may touch
//! them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use mooring_replication::{ClientEvent, Io, IoPart, VolumeBlock, VolumeRange};
use mooring_terms::{
    AttachmentEpoch, Data, Epoch, NodeId, SessionId, SliceId, SliceIndex, VolumeId,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::letters::Letters;
use super::shared::{Answer, Versions, written};
use crate::clock;
use crate::data_plane::DataPlane;
use crate::volume::{Attachment, Volume};

/// How often a new coordinator looks whether slice 0 is surely its own, and how many times at the most.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const FIRST_LOOKS: u32 = 500;

/// What is done when a fence is.
type Fenced = Box<dyn FnOnce() + Send>;

/// A shared volume, as its coordinator sees it: on the node of slice 0's primary. I/O waits while
/// primaries can't be reached, and fails at once and for good when the attachment is over
/// ([`CoordinatorVolume::state`]); then the coordinator ends. Nothing here blocks; answers come on any
/// thread, perhaps before the call returns. Closed when dropped: its clients are told.
pub struct CoordinatorVolume {
    volume: Arc<Volume>,
    plane: Arc<DataPlane>,
    fences: Arc<Fences>,
}

/// Who waits for fences.
#[derive(Default)]
pub(crate) struct Fences(Mutex<BTreeMap<SessionId, Fenced>>);

impl Fences {
    pub(crate) fn done(&self, session: SessionId) {
        let waiting = self.0.lock().remove(&session);
        if let Some(waiting) = waiting {
            waiting();
        }
    }
}

impl CoordinatorVolume {
    /// Of a volume that was opened as a coordinator; `lease` is that of slices.
    pub(crate) fn new(volume: Arc<Volume>, plane: Arc<DataPlane>, lease: Duration) -> Self {
        let fences = Arc::new(Fences::default());
        volume.set_fences(Arc::clone(&fences));
        plane.desk().open(volume.id(), volume.epoch());
        let (renewing, of) = (Arc::downgrade(&volume), Arc::downgrade(&plane));
        let begun = std::thread::Builder::new()
            .name("session-renewal".to_owned())
            // Three times within a lease, and a bit.
            .spawn(move || renew(&renewing, &of, lease.mul_f64(0.3)));
        if let Err(error) = begun {
            tracing::error!(%error, "no thread to renew sessions: they will be over");
        }
        Self { volume, plane, fences }
    }

    /// Which volume.
    #[must_use]
    pub fn id(&self) -> VolumeId {
        self.volume.id()
    }

    /// The attachment.
    #[must_use]
    pub fn epoch(&self) -> AttachmentEpoch {
        self.volume.epoch()
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        mooring_device::BlockIo::size_bytes(&*self.volume)
    }

    /// What has become of the attachment: it serves when slice 0 has sealed it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Attachment> {
        self.volume.state()
    }

    /// For how long slice 0 can't be another's: what is to be looked at before each answer.
    /// `None`: it may be now.
    #[must_use]
    pub fn leased_for(&self) -> Option<Duration> {
        let until = leased_until(&self.plane, self.volume.id(), self.volume.epoch())?;
        Some(until.since(clock::now()))
    }

    /// The newest epoch of a slice that began without all that was acknowledged before; `Epoch(0)` if none
    /// did. As of the slice's last answer here; one that begins later ends the attachment, with
    /// [`Attachment::TailLost`].
    #[must_use]
    pub fn tail_lost(&self, slice: SliceIndex) -> Epoch {
        self.volume.tail_lost(slice)
    }

    /// Gives what clients write to `letters` from now on; they are told that there is a coordinator.
    /// Once only; until the volume is dropped.
    pub fn receive_letters(&self, letters: Arc<dyn Letters>) {
        self.plane.desk().receive(self.id(), self.epoch(), letters);
    }

    /// Lets a session of a client on `node` do I/O, wherever it asks to, over links of that node alone.
    /// A session of the coordinator before is registered again with this one, as soon as it is known.
    /// Never one that was fenced.
    pub fn register(&self, session: SessionId, node: NodeId) {
        self.plane.desk().register(self.id(), session, node);
        self.volume.tell(ClientEvent::Register { session, node });
    }

    /// Has nothing of a session served any more, in any slice, ever; then calls `done`, on any thread,
    /// perhaps before this returns: by message in a round trip, by time in two leases and a half at the most.
    /// A session that was never registered here is fenced as well: the coordinator before may have
    /// let it in. Not called if the volume is dropped first.
    pub fn fence(&self, session: SessionId, done: impl FnOnce() + Send + 'static) {
        self.plane.desk().forget(self.id(), session);
        self.fences.0.lock().insert(session, Box::new(done));
        self.volume.tell(ClientEvent::Fence { session });
    }

    /// Reads blocks, those of the tree's range too ([`TREE_FIRST`](crate::TREE_FIRST)).
    pub fn read(&self, range: VolumeRange, done: Answer<Vec<IoPart>>) {
        self.volume.submit_io(Io::Read(range), done);
    }

    /// Writes whole blocks; `fua`: answered when they are durable on every in-sync replica.
    ///
    /// # Panics
    /// If the data is not whole blocks.
    pub fn write(&self, first: VolumeBlock, data: Bytes, fua: bool, done: Answer<Versions>) {
        let data = Data::checksummed(data);
        self.volume.submit_io(Io::Write { first, data, fua }, written(done));
    }

    /// Discards blocks.
    pub fn discard(&self, range: VolumeRange, done: Answer<Versions>) {
        self.volume.submit_io(Io::Discard { range, fua: false }, written(done));
    }

    /// Makes durable what this coordinator wrote.
    pub fn flush(&self, done: Answer<()>) {
        self.volume.submit_io(Io::Flush, Box::new(|result| done(result.map(drop))));
    }

    /// Makes everything in these slices durable, whoever wrote it; at once where nothing is pending.
    pub fn flush_slices(&self, slices: Vec<SliceIndex>, done: Answer<()>) {
        self.volume.submit_io(Io::FlushSlices(slices), Box::new(|result| done(result.map(drop))));
    }

    /// The versions of blocks ([`IoPart::Versions`]).
    pub fn versions(&self, range: VolumeRange, done: Answer<Vec<IoPart>>) {
        self.volume.submit_io(Io::Versions(range), done);
    }
}

impl Drop for CoordinatorVolume {
    fn drop(&mut self) {
        self.plane.desk().close(self.id(), self.epoch());
        self.volume.close();
        self.plane.remove_volume(&self.volume);
    }
}

/// Until when slice 0 is surely this node's, under the attachment.
fn leased_until(
    plane: &DataPlane,
    volume: VolumeId,
    epoch: AttachmentEpoch,
) -> Option<mooring_terms::Time> {
    plane.slice(SliceId { volume, index: SliceIndex(0) })?.leased_until(epoch)
}

/// The body of the thread that renews sessions, until the volume is closed. Clients of the coordinator before
/// wait for the first lease: it is looked for often, for as long as a failover takes.
fn renew(volume: &Weak<Volume>, plane: &Weak<DataPlane>, pause: Duration) {
    let mut looks = FIRST_LOOKS;
    loop {
        std::thread::sleep(if looks > 0 { FIRST_LOOK } else { pause });
        looks = looks.saturating_sub(1);
        let (Some(volume), Some(plane)) = (volume.upgrade(), plane.upgrade()) else { return };
        if volume.is_broken() {
            return;
        }
        if let Some(until) = leased_until(&plane, volume.id(), volume.epoch()) {
            volume.tell(ClientEvent::Leased { until });
            looks = 0;
        }
    }
}

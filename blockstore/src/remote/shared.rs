//! A shared volume as its client's process sees it: blocks, in slices, each on its primary.

use std::sync::Arc;

use bytes::Bytes;
use mooring_replication::{Io, IoError, IoPart, VolumeBlock, VolumeRange};
use mooring_terms::{Data, SliceIndex, Version};

use super::client::Client;
use crate::volume::Volume;

/// What an I/O came to; called on any thread, once.
pub type Answer<T> = Box<dyn FnOnce(Result<T, IoError>) + Send>;

/// What was written, in each slice that it touches.
pub type Versions = Vec<(SliceIndex, Version)>;

/// A shared volume under a session. I/O goes to the primaries of the slices, wherever they are, and
/// waits while they or the coordinator can't be reached. It fails with [`IoError::Closed`] when the
/// volume is closed, which whoever has the session does when the coordinator says that it is over, or
/// nothing was heard of it for a lease. Nothing that is asked for here blocks; answers come on any
/// thread, perhaps before the call returns, and must not hold it up. Closed when dropped; keeps its
/// client alive.
pub struct SharedVolume {
    volume: Arc<Volume>,
    /// Its links.
    _client: Arc<Client>,
}

impl SharedVolume {
    pub(super) fn new(volume: Arc<Volume>, client: Arc<Client>) -> Self {
        Self { volume, _client: client }
    }

    /// Reads blocks: data with its checksums, which who uses it verifies, and runs of zeros.
    pub fn read(&self, range: VolumeRange, done: Answer<Vec<IoPart>>) {
        self.volume.submit_io(Io::Read(range), done);
    }

    /// Reads many at once, each as [`SharedVolume::read`] does: what goes to one node goes together.
    pub fn read_all(&self, reads: impl IntoIterator<Item = (VolumeRange, Answer<Vec<IoPart>>)>) {
        let reads = reads.into_iter().map(|(range, done)| (Io::Read(range), done));
        self.volume.submit_ios(reads);
    }

    /// Writes whole blocks. Answered when every in-sync replica has them; gives their versions, which
    /// the commit names.
    ///
    /// # Panics
    /// If the data is not whole blocks.
    pub fn write(&self, first: VolumeBlock, data: Bytes, done: Answer<Versions>) {
        let data = Data::checksummed(data);
        self.volume.submit_io(Io::Write { first, data, fua: false }, written(done));
    }

    /// Writes many at once, each as [`SharedVolume::write`] does: what goes to one node goes together.
    ///
    /// # Panics
    /// If the data of one is not whole blocks.
    pub fn write_all(
        &self,
        writes: impl IntoIterator<Item = (VolumeBlock, Bytes, Answer<Versions>)>,
    ) {
        let writes = writes.into_iter().map(|(first, data, done)| {
            let data = Data::checksummed(data);
            (Io::Write { first, data, fua: false }, written(done))
        });
        self.volume.submit_ios(writes);
    }

    /// Discards blocks: they read as zeros, and cost nothing.
    pub fn discard(&self, range: VolumeRange, done: Answer<Versions>) {
        self.volume.submit_io(Io::Discard { range, fua: false }, written(done));
    }

    /// Makes everything that was answered here durable, in every slice that was written.
    pub fn flush(&self, done: Answer<()>) {
        self.volume.submit_io(Io::Flush, Box::new(|result| done(result.map(drop))));
    }

    /// Makes everything in these slices durable, whoever wrote it.
    pub fn flush_slices(&self, slices: Vec<SliceIndex>, done: Answer<()>) {
        self.volume.submit_io(Io::FlushSlices(slices), Box::new(|result| done(result.map(drop))));
    }

    /// The versions of blocks ([`IoPart::Versions`]), without their data.
    pub fn versions(&self, range: VolumeRange, done: Answer<Vec<IoPart>>) {
        self.volume.submit_io(Io::Versions(range), done);
    }

    /// I/Os that wait.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.volume.in_flight()
    }

    /// Everything that waits and everything that comes fails from now on, with
    /// [`IoError::Closed`]: the session is over. Letters go on.
    pub fn close(&self) {
        self.volume.close();
    }
}

impl Drop for SharedVolume {
    fn drop(&mut self) {
        self.close();
    }
}

/// Picks the versions out.
pub(crate) fn written(done: Answer<Versions>) -> Answer<Vec<IoPart>> {
    Box::new(|result| {
        let version = |part: IoPart| match part {
            IoPart::Written(slice, version) => Some((slice, version)),
            _ => None,
        };
        done(result.map(|parts| parts.into_iter().filter_map(version).collect()));
    })
}

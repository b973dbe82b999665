//! A coordinator's slices and blocks, on the block store.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use blockstore::{Attachment, CoordinatorVolume, IoError, IoPart, VolumeBlock, VolumeRange};
use bytes::Bytes;
use mooring_sharedfs_coordinator::{Done, SliceError, Slices};
use mooring_sharedfs_core::{BlockAddress, Run, SessionId};
use mooring_sharedfs_store::Blocks;
use mooring_terms::{BLOCK_SIZE, Epoch, NodeId, SliceIndex, Version};
use parking_lot::Mutex;

/// Between two tries of a write for which a pool has no space: journal and tree can't do without.
const SPACE_PAUSE: Duration = Duration::from_millis(200);

/// The slices of one shared volume, under its coordinator's attachment.
pub struct VolumeSlices {
    volume: CoordinatorVolume,
    slice_blocks: u64,
    /// How many slices there are.
    count: u32,
}

impl VolumeSlices {
    /// Of a volume whose attachment is sealed in slice 0.
    pub fn new(volume: CoordinatorVolume, slice_blocks: u64) -> Self {
        let blocks = volume.size() / BLOCK_SIZE as u64;
        let count = u32::try_from(blocks.div_ceil(slice_blocks)).unwrap_or(u32::MAX);
        Self { volume, slice_blocks, count }
    }

    /// The volume.
    pub fn volume(&self) -> &CoordinatorVolume {
        &self.volume
    }

    fn write_run(&self, first: BlockAddress, bytes: Bytes, done: Done<Vec<Version>>) {
        let count = bytes.len() / BLOCK_SIZE;
        self.volume.write(
            VolumeBlock(first.0),
            bytes,
            false,
            Box::new(move |written| {
                // A run lies in one slice; each part of it has a version, and the last is the newest.
                let version = |parts: Vec<(SliceIndex, Version)>| {
                    let newest = parts.into_iter().map(|(_, version)| version).max();
                    vec![newest.unwrap_or(Version::ZERO); count]
                };
                done(written.map(version).map_err(refused));
            }),
        );
    }

    /// Blocks that follow each other in one slice, each with its index, as runs.
    fn runs<T>(&self, blocks: Vec<(BlockAddress, T)>) -> Vec<(BlockAddress, Vec<T>)> {
        let mut runs: Vec<(BlockAddress, Vec<T>)> = Vec::new();
        for (block, what) in blocks {
            match runs.last_mut() {
                Some((first, run))
                    if first.0 + run.len() as u64 == block.0
                        && !block.0.is_multiple_of(self.slice_blocks) =>
                {
                    run.push(what);
                }
                _ => runs.push((block, vec![what])),
            }
        }
        runs
    }
}

impl fmt::Debug for VolumeSlices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slices of volume {}", self.volume.id())
    }
}

fn range(first: BlockAddress, count: u64) -> VolumeRange {
    VolumeRange { first: VolumeBlock(first.0), count }
}

fn refused(error: IoError) -> SliceError {
    match error {
        IoError::Fenced { .. } | IoError::Closed => SliceError::Fenced,
        IoError::NoSpace { .. } => SliceError::NoSpace,
        IoError::Corrupt { block, .. } => SliceError::Damaged(BlockAddress(block.0)),
        // A range that isn't in the volume is none that the coordinator names.
        IoError::TailLost | IoError::TimedOut | IoError::Invalid => SliceError::Lost,
    }
}

/// The bytes of what was read, checked.
fn bytes_of(first: BlockAddress, parts: Vec<IoPart>) -> Result<Vec<u8>, SliceError> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            IoPart::Data(data) => {
                if let Some(at) = data.first_corrupt() {
                    let before = bytes.len() / BLOCK_SIZE + at;
                    return Err(SliceError::Damaged(first.plus(before as u64)));
                }
                bytes.extend_from_slice(data.bytes());
            }
            IoPart::Zeros(count) => {
                let count = usize::try_from(count).unwrap_or(0);
                bytes.resize(bytes.len() + count * BLOCK_SIZE, 0);
            }
            IoPart::Versions(..) | IoPart::Written(..) => {}
        }
    }
    Ok(bytes)
}

/// Gathers the outcomes of several parts: all of them in order, or the first error.
struct Gather<T> {
    outcomes: Vec<Option<Result<T, SliceError>>>,
    left: usize,
    done: Option<Done<Vec<T>>>,
}

/// One callback for each of `count` parts; `done` is called after the last.
fn gather<T: Send + 'static>(count: usize, done: Done<Vec<T>>) -> Vec<Done<T>> {
    if count == 0 {
        done(Ok(Vec::new()));
        return Vec::new();
    }
    let outcomes = (0..count).map(|_| None).collect();
    let gather = Arc::new(Mutex::new(Gather { outcomes, left: count, done: Some(done) }));
    let part = |i: usize| -> Done<T> {
        let gather = Arc::clone(&gather);
        Box::new(move |outcome| {
            let mut all = gather.lock();
            all.outcomes[i] = Some(outcome);
            all.left -= 1;
            if all.left > 0 {
                return;
            }
            let outcomes = std::mem::take(&mut all.outcomes);
            let done = all.done.take();
            drop(all);
            if let Some(done) = done {
                done(outcomes.into_iter().flatten().collect());
            }
        })
    };
    (0..count).map(part).collect()
}

impl Slices for VolumeSlices {
    fn leased_for(&self) -> Option<Duration> {
        // Slice 0 may still be this node's when the attachment is over.
        self.volume.leased_for().filter(|left| !left.is_zero() && !self.is_over())
    }

    fn is_over(&self) -> bool {
        self.volume.state().borrow().is_over()
    }

    fn read(&self, blocks: Vec<BlockAddress>, done: Done<Vec<Vec<u8>>>) {
        let runs = self.runs(blocks.into_iter().map(|block| (block, ())).collect());
        let flat: Done<Vec<Vec<Vec<u8>>>> = Box::new(|read| {
            done(read.map(|runs| runs.into_iter().flatten().collect()));
        });
        let parts = gather(runs.len(), flat);
        for ((first, run), done) in runs.into_iter().zip(parts) {
            let answer = move |read: Result<Vec<IoPart>, IoError>| {
                let bytes = read.map_err(refused).and_then(|parts| bytes_of(first, parts));
                done(bytes.map(|bytes| bytes.chunks(BLOCK_SIZE).map(<[u8]>::to_vec).collect()));
            };
            self.volume.read(range(first, run.len() as u64), Box::new(answer));
        }
    }

    fn write(&self, blocks: Vec<(BlockAddress, Vec<u8>)>, done: Done<Vec<Version>>) {
        let runs = self.runs(blocks);
        let flat: Done<Vec<Vec<Version>>> = Box::new(|written| {
            done(written.map(|runs| runs.into_iter().flatten().collect()));
        });
        let parts = gather(runs.len(), flat);
        for ((first, run), done) in runs.into_iter().zip(parts) {
            self.write_run(first, run.concat().into(), done);
        }
    }

    fn discard(&self, runs: Vec<Run>, done: Done<()>) {
        let parts = gather(runs.len(), Box::new(|all: Result<Vec<()>, _>| done(all.map(drop))));
        for (run, done) in runs.into_iter().zip(parts) {
            let answer = |discarded: Result<_, IoError>| done(discarded.map(drop).map_err(refused));
            self.volume.discard(range(run.start, run.count), Box::new(answer));
        }
    }

    fn flush(&self, slices: Option<BTreeSet<SliceIndex>>, done: Done<()>) {
        let slices = match slices {
            Some(slices) => slices.into_iter().collect(),
            None => (0..self.count).map(SliceIndex).collect(),
        };
        let answer = |flushed: Result<(), IoError>| done(flushed.map_err(refused));
        self.volume.flush_slices(slices, Box::new(answer));
    }

    fn versions(&self, run: Run, done: Done<Vec<(Run, Version)>>) {
        let with_runs = move |parts: Vec<IoPart>| {
            let mut at = run.start;
            let versions = parts.into_iter().filter_map(|part| match part {
                IoPart::Versions(count, version) => {
                    let here = Run::new(at, count);
                    at = here.end();
                    Some((here, version))
                }
                _ => None,
            });
            versions.collect()
        };
        let answer = move |parts: Result<Vec<IoPart>, IoError>| {
            done(parts.map(with_runs).map_err(refused));
        };
        self.volume.versions(range(run.start, run.count), Box::new(answer));
    }

    fn tail_lost(&self, slice: SliceIndex) -> Epoch {
        self.volume.tail_lost(slice)
    }

    fn register(&self, session: SessionId, node: NodeId) {
        self.volume.register(mooring_terms::SessionId(session.0), node);
    }

    fn fence(&self, session: SessionId, done: Done<()>) {
        self.volume.fence(mooring_terms::SessionId(session.0), || done(Ok(())));
    }
}

/// Waits for an I/O.
fn wait<T: Send + 'static>(
    begin: impl FnOnce(Box<dyn FnOnce(Result<T, IoError>) + Send>),
) -> io::Result<T> {
    let (told, outcome) = channel();
    begin(Box::new(move |result| told.send(result).unwrap_or_default()));
    outcome.recv().unwrap_or(Err(IoError::Closed)).map_err(io::Error::other)
}

fn is_no_space(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<IoError>());
    matches!(inner, Some(IoError::NoSpace { .. }))
}

impl VolumeSlices {
    /// Tries until a pool has space: what can't be written here must not be given up.
    fn with_space<T>(&self, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut told = false;
        loop {
            match attempt() {
                Err(error) if is_no_space(&error) && !self.is_over() => {
                    if !told {
                        tracing::warn!(volume = %self.volume.id(), %error, "metadata waits for space");
                        told = true;
                    }
                    std::thread::sleep(SPACE_PAUSE);
                }
                other => return other,
            }
        }
    }
}

impl Blocks for VolumeSlices {
    fn read(&self, first: BlockAddress, out: &mut [u8]) -> io::Result<()> {
        let count = (out.len() / BLOCK_SIZE) as u64;
        let parts = wait(|done| self.volume.read(range(first, count), done))?;
        let bytes = bytes_of(first, parts).map_err(io::Error::other)?;
        if bytes.len() != out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.copy_from_slice(&bytes);
        Ok(())
    }

    fn write(&self, first: BlockAddress, bytes: &[u8]) -> io::Result<()> {
        let bytes = Bytes::copy_from_slice(bytes);
        let write = || {
            let bytes = bytes.clone();
            wait(|done| self.volume.write(VolumeBlock(first.0), bytes, false, done)).map(drop)
        };
        self.with_space(write)
    }

    fn discard(&self, run: Run) -> io::Result<()> {
        self.with_space(|| {
            wait(|done| self.volume.discard(range(run.start, run.count), done)).map(drop)
        })
    }

    fn flush(&self) -> io::Result<()> {
        wait(|done| self.volume.flush(done))
    }
}

/// Whether an attachment serves, or is over; `None` while it opens.
pub fn serves(attachment: &Attachment) -> Option<bool> {
    match attachment {
        Attachment::Opening => None,
        Attachment::Serving => Some(true),
        other => Some(!other.is_over()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_gathered_in_order_and_the_first_error_is_told() {
        let (told, outcome) = channel();
        let all = |told: std::sync::mpsc::Sender<_>| -> Done<Vec<u32>> {
            Box::new(move |result| told.send(result).unwrap())
        };
        let mut parts = gather(3, all(told.clone()));
        parts.pop().unwrap()(Ok(3));
        parts.remove(0)(Ok(1));
        assert!(outcome.try_recv().is_err(), "one is missing");
        parts.remove(0)(Ok(2));
        assert_eq!(outcome.recv().unwrap(), Ok(vec![1, 2, 3]));
        let mut parts = gather(2, all(told.clone()));
        parts.remove(1)(Err(SliceError::NoSpace));
        parts.remove(0)(Ok(1));
        assert_eq!(outcome.recv().unwrap(), Err(SliceError::NoSpace));
        assert!(gather(0, all(told)).is_empty());
        assert_eq!(outcome.recv().unwrap(), Ok(Vec::new()));
    }
}

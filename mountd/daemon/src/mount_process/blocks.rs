//! A file's blocks on the volume: straight at the slice primaries, under the mount's session.

use std::sync::{Arc, OnceLock, Weak};

use blockstore::{Answer, Client, IoError, IoPart, SharedVolume, VolumeBlock, VolumeRange};
use bytes::Bytes;
use mooring_sharedfs_core::{BlockAddress, FsError, Result};
use mooring_sharedfs_mount::{BlocksRead, BlocksWritten, DataBlocks, Mount};
use mooring_terms::{BLOCK_SIZE, SessionId, Version};
use parking_lot::Mutex;

/// The most blocks of one I/O: 1 MiB.
const RUN_MAX: u64 = 256;

/// From this many bytes on they stay where they were received.
const SHARED: usize = 256 << 10;

/// The volume, once there is a session.
pub struct VolumeBlocks {
    client: Arc<Client>,
    slice_blocks: u64,
    mount: OnceLock<Weak<Mount>>,
    volume: OnceLock<Option<SharedVolume>>,
}

impl VolumeBlocks {
    pub fn new(client: Arc<Client>) -> Self {
        let slice_blocks = client.slice_blocks();
        Self { client, slice_blocks, mount: OnceLock::new(), volume: OnceLock::new() }
    }

    /// Whose session it is.
    pub fn begin(&self, mount: &Arc<Mount>) {
        // Set once, by whoever has made both.
        let _ = self.mount.set(Arc::downgrade(mount));
    }

    /// The volume. Nothing is read or written before there is a session.
    fn volume(&self) -> Option<&SharedVolume> {
        let open = || {
            let mount = self.mount.get()?.upgrade()?;
            let session = SessionId(mount.status().session?.0);
            let opened = self.client.open(session);
            opened.inspect_err(|error| tracing::error!(%error, "opening the volume")).ok()
        };
        self.volume.get_or_init(open).as_ref()
    }

    /// Blocks that follow each other in one slice, as runs of at most [`RUN_MAX`].
    fn runs(&self, blocks: &[BlockAddress]) -> Vec<VolumeRange> {
        let mut runs: Vec<VolumeRange> = Vec::new();
        for block in blocks {
            match runs.last_mut() {
                Some(run)
                    if run.first.0 + run.count == block.0
                        && run.count < RUN_MAX
                        && !block.0.is_multiple_of(self.slice_blocks) =>
                {
                    run.count += 1;
                }
                _ => runs.push(VolumeRange { first: VolumeBlock(block.0), count: 1 }),
            }
        }
        runs
    }

    /// Bytes of blocks that follow each other in one slice, together, as far as they are short: long ones are
    /// not worth a copy.
    fn joined(&self, blocks: Vec<(BlockAddress, Bytes)>) -> Vec<(BlockAddress, Bytes)> {
        let mut runs: Vec<(BlockAddress, u64, Vec<Bytes>)> = Vec::new();
        for (first, bytes) in blocks {
            let count = (bytes.len() / BLOCK_SIZE) as u64;
            match runs.last_mut() {
                Some((start, length, pieces))
                    if start.0 + *length == first.0
                        && *length + count <= RUN_MAX
                        && !first.0.is_multiple_of(self.slice_blocks) =>
                {
                    *length += count;
                    pieces.push(bytes);
                }
                _ => runs.push((first, count, vec![bytes])),
            }
        }
        let join = |(first, _, mut pieces): (BlockAddress, u64, Vec<Bytes>)| match pieces.len() {
            1 => (first, pieces.remove(0)),
            _ => (first, pieces.concat().into()),
        };
        runs.into_iter().map(join).collect()
    }
}

impl DataBlocks for VolumeBlocks {
    fn read(&self, blocks: Vec<BlockAddress>, done: BlocksRead) {
        let Some(volume) = self.volume() else { return done(Err(FsError::Unavailable)) };
        let runs = self.runs(&blocks);
        let parts = gather(runs.len(), done);
        let reads = runs.into_iter().zip(parts).map(|(range, done)| {
            let answer = move |read: std::result::Result<Vec<IoPart>, IoError>| {
                done(read.map_err(refused).and_then(blocks_of));
            };
            (range, Box::new(answer) as Answer<Vec<IoPart>>)
        });
        volume.read_all(reads);
    }

    fn write(&self, blocks: Vec<(BlockAddress, Bytes)>, done: BlocksWritten) {
        let Some(volume) = self.volume() else { return done(Err(FsError::Unavailable)) };
        let runs = self.joined(blocks);
        let parts = gather(runs.len(), done);
        let writes = runs.into_iter().zip(parts).map(|((first, data), done)| {
            let count = data.len() / BLOCK_SIZE;
            let answer = move |written: std::result::Result<blockstore::Versions, IoError>| {
                // A run lies in one slice.
                let version = |versions: blockstore::Versions| {
                    let newest = versions.into_iter().map(|(_, version)| version).max();
                    vec![newest.unwrap_or(Version::ZERO); count]
                };
                done(written.map(version).map_err(refused));
            };
            (VolumeBlock(first.0), data, Box::new(answer) as Answer<blockstore::Versions>)
        });
        volume.write_all(writes);
    }
}

fn refused(error: IoError) -> FsError {
    match error {
        IoError::Fenced { .. } | IoError::Closed => {}
        // A pool is full, which the volume's own accounts say nothing of.
        IoError::NoSpace { .. } => return FsError::NoSpace { coming: false },
        error => tracing::error!(%error, "an I/O of the volume failed"),
    }
    FsError::Unavailable
}

/// The blocks of what was read, checked.
fn blocks_of(parts: Vec<IoPart>) -> Result<Vec<Bytes>> {
    let mut pieces = Vec::new();
    for part in parts {
        match part {
            IoPart::Data(data) => {
                if let Some(at) = data.first_corrupt() {
                    tracing::error!(at, "a block came with bytes that its checksum does not fit");
                    return Err(FsError::Unavailable);
                }
                // Short ones lie in the memory that letters were received into, beside much else.
                let shared = data.bytes().len() >= SHARED;
                pieces.push(match shared {
                    true => data.bytes().clone(),
                    false => Bytes::copy_from_slice(data.bytes()),
                });
            }
            IoPart::Zeros(count) => {
                pieces.extend((0..count).map(|_| Bytes::from_static(&[0; BLOCK_SIZE])));
            }
            IoPart::Versions(..) | IoPart::Written(..) => {}
        }
    }
    Ok(pieces)
}

type Done<T> = Box<dyn FnOnce(Result<Vec<T>>) + Send>;

/// Outcomes of runs, in order, until the last is there.
struct Gather<T> {
    outcomes: Vec<Option<Result<Vec<T>>>>,
    left: usize,
    done: Option<Done<T>>,
}

/// One callback for each of `count` runs; `done` is called after the last, with all or the first error.
fn gather<T: Send + 'static>(count: usize, done: Done<T>) -> Vec<Done<T>> {
    if count == 0 {
        done(Ok(Vec::new()));
        return Vec::new();
    }
    if count == 1 {
        return vec![done];
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
            let whole: Result<Vec<Vec<T>>> = outcomes.into_iter().flatten().collect();
            if let Some(done) = done {
                done(whole.map(|runs| runs.into_iter().flatten().collect()));
            }
        })
    };
    (0..count).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_in_the_order_of_asking_whoever_is_first() {
        let (told, heard) = std::sync::mpsc::channel();
        let mut parts = gather::<u8>(3, Box::new(move |all| drop(told.send(all))));
        let (last, middle, first) = (parts.pop(), parts.pop(), parts.pop());
        last.unwrap()(Ok(vec![3]));
        first.unwrap()(Ok(vec![1, 1]));
        assert!(heard.try_recv().is_err());
        middle.unwrap()(Ok(vec![2]));
        assert_eq!(heard.try_recv().unwrap(), Ok(vec![1, 1, 2, 3]));
    }

    #[test]
    fn one_that_fails_fails_all_once() {
        let (told, heard) = std::sync::mpsc::channel();
        let parts = gather::<u8>(2, Box::new(move |all| drop(told.send(all))));
        let outcomes = [Err(FsError::Unavailable), Ok(vec![1])];
        parts.into_iter().zip(outcomes).for_each(|(part, outcome)| part(outcome));
        assert_eq!(heard.try_recv().unwrap(), Err(FsError::Unavailable));
        assert!(heard.try_recv().is_err());
    }
}

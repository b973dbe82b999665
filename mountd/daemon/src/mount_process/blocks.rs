//! A file's blocks on the volume: straight at the slice primaries, under the mount's session.

use std::sync::{Arc, OnceLock, Weak};

use blockstore::{Client, IoError, IoPart, SharedVolume, VolumeBlock, VolumeRange};
use bytes::Bytes;
use mooring_sharedfs_core::{BlockAddress, FsError, Result};
use mooring_sharedfs_mount::{BlocksRead, BlocksWritten, DataBlocks, Mount};
use mooring_terms::{BLOCK_SIZE, SessionId, Version};
use parking_lot::Mutex;

/// The most blocks of one I/O: 1 MiB.
const RUN_MAX: usize = 256;

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
    fn runs<T>(&self, blocks: Vec<(BlockAddress, T)>) -> Vec<(BlockAddress, Vec<T>)> {
        let mut runs: Vec<(BlockAddress, Vec<T>)> = Vec::new();
        for (block, what) in blocks {
            match runs.last_mut() {
                Some((first, run))
                    if first.0 + run.len() as u64 == block.0
                        && run.len() < RUN_MAX
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

impl DataBlocks for VolumeBlocks {
    fn read(&self, blocks: Vec<BlockAddress>, done: BlocksRead) {
        let Some(volume) = self.volume() else { return done(Err(FsError::Unavailable)) };
        let runs = self.runs(blocks.into_iter().map(|block| (block, ())).collect());
        let parts = gather(runs.len(), done);
        for ((first, run), done) in runs.into_iter().zip(parts) {
            let range = VolumeRange { first: VolumeBlock(first.0), count: run.len() as u64 };
            let answer = move |read: std::result::Result<Vec<IoPart>, IoError>| {
                done(read.map_err(refused).and_then(blocks_of));
            };
            volume.read(range, Box::new(answer));
        }
    }

    fn write(&self, blocks: Vec<(BlockAddress, Bytes)>, done: BlocksWritten) {
        let Some(volume) = self.volume() else { return done(Err(FsError::Unavailable)) };
        let runs = self.runs(blocks);
        let parts = gather(runs.len(), done);
        for ((first, mut run), done) in runs.into_iter().zip(parts) {
            let count = run.len();
            let data = match run.pop() {
                Some(only) if count == 1 => only,
                last => run.into_iter().chain(last).collect::<Vec<_>>().concat().into(),
            };
            let answer = move |written: std::result::Result<blockstore::Versions, IoError>| {
                // A run lies in one slice.
                let version = |versions: blockstore::Versions| {
                    let newest = versions.into_iter().map(|(_, version)| version).max();
                    vec![newest.unwrap_or(Version::ZERO); count]
                };
                done(written.map(version).map_err(refused));
            };
            volume.write(VolumeBlock(first.0), data, Box::new(answer));
        }
    }
}

fn refused(error: IoError) -> FsError {
    match error {
        IoError::Fenced { .. } | IoError::Closed => {}
        error => tracing::error!(%error, "an I/O of the volume failed"),
    }
    FsError::Unavailable
}

/// The blocks of what was read, checked.
fn blocks_of(parts: Vec<IoPart>) -> Result<Vec<Vec<u8>>> {
    let mut blocks = Vec::new();
    for part in parts {
        match part {
            IoPart::Data(data) => {
                if let Some(at) = data.first_corrupt() {
                    tracing::error!(at, "a block came with bytes that its checksum does not fit");
                    return Err(FsError::Unavailable);
                }
                blocks.extend(data.bytes().chunks(BLOCK_SIZE).map(<[u8]>::to_vec));
            }
            IoPart::Zeros(count) => blocks.extend((0..count).map(|_| vec![0; BLOCK_SIZE])),
            IoPart::Versions(..) | IoPart::Written(..) => {}
        }
    }
    Ok(blocks)
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

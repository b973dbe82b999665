//! Blocks in memory, as a mount reads and writes them: on threads, like the real ones.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use mooring_sharedfs_coordinator::MemorySlices;
use mooring_sharedfs_core::{BlockAddress, FsError, SessionId};
use mooring_sharedfs_mount::{BlocksRead, BlocksWritten, DataBlocks, Mount};
use mooring_terms::BLOCK_SIZE;
use parking_lot::Mutex;

/// How many requests are carried out at once.
const THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// Blocks of one mount.
pub struct MemoryBlocks {
    slices: Arc<MemorySlices>,
    mount: Arc<OnceLock<Weak<Mount>>>,
    jobs: Mutex<Sender<Job>>,
}

impl MemoryBlocks {
    pub fn new(slices: Arc<MemorySlices>) -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let queue = queue.clone();
            std::thread::spawn(move || {
                loop {
                    let job = queue.lock().recv();
                    let Ok(job) = job else { return };
                    job();
                }
            });
        }
        Self { slices, mount: Arc::default(), jobs: Mutex::new(jobs) }
    }

    /// Whose blocks they are.
    pub fn of(&self, mount: &Arc<Mount>) {
        self.mount.set(Arc::downgrade(mount)).expect("once");
    }

    fn run(&self, job: impl FnOnce(SessionId) + Send + 'static) {
        let mount = self.mount.clone();
        let job = move || {
            let mount = mount.get().and_then(Weak::upgrade);
            let session = mount.and_then(|mount| mount.status().session);
            job(session.expect("nothing is read before there is a session"));
        };
        // The threads end with the process.
        let _ = self.jobs.lock().send(Box::new(job));
    }
}

impl DataBlocks for MemoryBlocks {
    fn read(&self, blocks: Vec<BlockAddress>, done: BlocksRead) {
        let slices = self.slices.clone();
        self.run(move |session| {
            let read = slices.read(session, &blocks);
            done(read.map_err(|_| FsError::Unavailable));
        });
    }

    fn write(&self, blocks: Vec<(BlockAddress, Bytes)>, done: BlocksWritten) {
        let slices = self.slices.clone();
        self.run(move |session| {
            let blocks: Vec<(BlockAddress, Bytes)> = blocks
                .into_iter()
                .flat_map(|(first, bytes)| {
                    (0..bytes.len() / BLOCK_SIZE).map(move |i| {
                        let block = bytes.slice(i * BLOCK_SIZE..(i + 1) * BLOCK_SIZE);
                        (first.plus(i as u64), block)
                    })
                })
                .collect();
            done(slices.write(session, &blocks).map_err(|_| FsError::Unavailable));
        });
    }
}

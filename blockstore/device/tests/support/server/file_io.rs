//! A volume that is a plain file: what was answered survives the process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use mooring_device::{BlockIo, Done, IoError, ReadDone};
use rustix::fs::{FallocateFlags, fallocate};

/// Threads that carry requests out: several, so that a kill finds requests in every state.
const WORKERS: usize = 4;

pub struct FileIo {
    file: Arc<File>,
    work: Mutex<Sender<Work>>,
}

type Work = Box<dyn FnOnce(&File) + Send>;

impl FileIo {
    pub fn open(file: File) -> Self {
        let file = Arc::new(file);
        let (work, queue) = channel::<Work>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..WORKERS {
            let (file, queue) = (file.clone(), queue.clone());
            std::thread::spawn(move || {
                while let Some(work) = next(&queue) {
                    work(&file);
                }
            });
        }
        Self { file, work: Mutex::new(work) }
    }

    fn run(&self, work: impl FnOnce(&File) + Send + 'static) {
        let sender = self.work.lock().expect("no worker panics");
        sender.send(Box::new(work)).expect("the workers live as long as this");
    }

    fn allocate(&self, offset: u64, length: u64, flags: FallocateFlags, done: Done) {
        self.run(move |file| {
            done(
                fallocate(file, flags | FallocateFlags::KEEP_SIZE, offset, length)
                    .map_err(|_| IoError::Stopped),
            );
        });
    }
}

fn next(queue: &Mutex<Receiver<Work>>) -> Option<Work> {
    queue.lock().ok()?.recv().ok()
}

impl BlockIo for FileIo {
    fn size_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read(&self, offset: u64, length: u32, done: ReadDone) {
        self.run(move |file| {
            let mut bytes = vec![0; length as usize];
            let read = file.read_exact_at(&mut bytes, offset);
            done(read.map(|()| vec![Bytes::from(bytes)]).map_err(|_| IoError::Stopped));
        });
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool, done: Done) {
        self.run(move |file| done(file.write_all_at(&data, offset).map_err(|_| IoError::Stopped)));
    }

    fn flush(&self, done: Done) {
        self.run(move |file| done(file.sync_data().map_err(|_| IoError::Stopped)));
    }

    fn discard(&self, offset: u64, length: u64, done: Done) {
        self.allocate(offset, length, FallocateFlags::PUNCH_HOLE, done);
    }

    fn write_zeroes(&self, offset: u64, length: u64, done: Done) {
        self.allocate(offset, length, FallocateFlags::ZERO_RANGE, done);
    }
}

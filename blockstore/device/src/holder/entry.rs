//! What the holder keeps under one name.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::forward::Queue;

/// Descriptors with their blob and owner.
pub(super) struct Entry {
    pub(super) blob: Vec<u8>,
    /// The connection that owns the name, as long as it stands.
    pub(super) owner: Option<u64>,
    kept: Kept,
}

enum Kept {
    /// Handed back as they are.
    Descriptors(Vec<OwnedFd>),
    /// Read here; what is handed back are streams.
    Forwarded(Vec<Arc<Queue>>),
}

impl Entry {
    /// # Errors
    /// No thread or memory for forwarding.
    pub(super) fn new(
        blob: Vec<u8>,
        fds: Vec<OwnedFd>,
        forward: Option<u32>,
        owner: u64,
    ) -> io::Result<Self> {
        let kept = match forward {
            Some(max_write) => {
                let start = |fd| Queue::start(fd, max_write);
                Kept::Forwarded(fds.into_iter().map(start).collect::<Result<_, _>>()?)
            }
            None => Kept::Descriptors(fds),
        };
        Ok(Self { blob, owner: Some(owner), kept })
    }

    pub(super) fn is_forwarded(&self) -> bool {
        matches!(self.kept, Kept::Forwarded(_))
    }

    /// What the owner is given: the descriptors again, or new streams.
    ///
    /// # Errors
    /// No descriptors, or the forwarded file system is gone.
    pub(super) fn hand_out(&self) -> io::Result<Vec<OwnedFd>> {
        match &self.kept {
            Kept::Descriptors(fds) => {
                fds.iter().map(|fd| fd.as_fd().try_clone_to_owned()).collect()
            }
            Kept::Forwarded(queues) => queues.iter().map(Queue::connect).collect(),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Kept::Forwarded(queues) = &self.kept {
            for queue in queues {
                queue.stop();
            }
        }
    }
}

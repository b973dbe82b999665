//! What the kernel knows by a number: a descriptor that names it, and how often it was told of.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use dashmap::DashMap;
use rustix::fs::Stat;

/// Device and inode: the same file, the same number.
type Identity = (u64, u64);

struct Known {
    number: u64,
    lookups: u64,
}

/// All of them.
pub(crate) struct Nodes {
    by_number: DashMap<u64, (Identity, Arc<OwnedFd>)>,
    by_identity: DashMap<Identity, Known>,
    root: Arc<OwnedFd>,
}

impl Nodes {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { by_number: DashMap::new(), by_identity: DashMap::new(), root: Arc::new(root) }
    }

    /// The descriptor of a node (opened with O_PATH).
    pub(crate) fn get(&self, number: u64) -> io::Result<Arc<OwnedFd>> {
        if number == fuser::INodeNo::ROOT.0 {
            return Ok(self.root.clone());
        }
        let found = self.by_number.get(&number).map(|node| node.1.clone());
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))
    }

    /// Counts a lookup of what `fd` names; returns its number.
    pub(crate) fn looked_up(&self, fd: OwnedFd, stat: &Stat) -> u64 {
        let identity = (stat.st_dev, stat.st_ino);
        // The entry's lock is held over both tables: a FORGET can't come in between.
        let mut known = self.by_identity.entry(identity).or_insert_with(|| {
            // The inode's own number, unless it is taken (the root's is).
            let number = stat.st_ino.max(2);
            self.by_number.insert(number, (identity, Arc::new(fd)));
            Known { number, lookups: 0 }
        });
        known.lookups += 1;
        known.number
    }

    pub(crate) fn forget(&self, number: u64, lookups: u64) {
        let Some(identity) = self.by_number.get(&number).map(|node| node.0) else { return };
        self.by_identity.remove_if_mut(&identity, |_, known| {
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 {
                self.by_number.remove(&known.number);
            }
            known.lookups == 0
        });
    }
}

/// Where a node can be opened again, whatever its name is now.
pub(crate) fn reopening(node: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", node.as_raw_fd()))
}

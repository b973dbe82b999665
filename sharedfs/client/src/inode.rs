//! What a client has of one inode.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mooring_sharedfs_core::leases::{LeaseLevel, LeaseNumber};
use mooring_sharedfs_core::{Attributes, FileBlock, FsError, Ino, Name, Timestamp};
use mooring_terms::Time;

use crate::layout::Layout;
use crate::pages::Pages;
use crate::recall::Recalled;
use crate::write_back::Round;

/// Size and date that are not committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) kill_privileges: bool,
}

/// One inode. What is cached is good as long as `lease` is at least `Read`.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) lease: LeaseLevel,
    pub(crate) number: LeaseNumber,
    /// Grants up to this number are old: they were given back.
    pub(crate) floor: LeaseNumber,
    /// Raised whenever caches end: what was asked for before is not cached any more.
    pub(crate) term: u64,
    pub(crate) recalled: Option<Recalled>,
    /// A greater lease was asked for.
    pub(crate) lease_asked: bool,
    /// Until then several clients want it: writes go through the coordinator.
    pub(crate) contended_until: Time,
    pub(crate) attributes: Option<Attributes>,
    pub(crate) attributes_asked: bool,
    /// Own changes on their way.
    pub(crate) changing: u32,
    /// Of them, those that change what the file holds.
    pub(crate) rewriting: u32,
    /// Names in a directory, and those that are known not to be there.
    pub(crate) names: BTreeMap<Name, Option<Ino>>,
    pub(crate) layout: Layout,
    pub(crate) layout_asked: bool,
    pub(crate) pages: Pages,
    /// Blocks that are being read.
    pub(crate) loading: BTreeSet<FileBlock>,
    /// Requests and I/O under way that name blocks of the file.
    pub(crate) reading: u32,
    pub(crate) local: Option<Local>,
    /// Counts writes; and up to where they are committed.
    pub(crate) written: u64,
    pub(crate) committed: u64,
    /// Rounds of writing back that are no part of the file yet, in order; and how many of the first are in a
    /// commit on its way.
    pub(crate) rounds: VecDeque<Round>,
    pub(crate) committing: usize,
    /// When what no round has taken is to be written back.
    pub(crate) due: Option<Time>,
    /// Writes back that failed, and why the last one did.
    pub(crate) errors: u64,
    pub(crate) error: FsError,
    /// What is open here; what of that the coordinator knows; closes on their way.
    pub(crate) handles: u64,
    /// Of what is open, how much can be mapped and written to.
    pub(crate) maps: u64,
    pub(crate) registered: u64,
    pub(crate) closing: u64,
    pub(crate) registering: bool,
    /// The kernel may have pages, of the inode as it was at this change.
    pub(crate) kernel_pages: Option<u64>,
    /// This client has taken its last name.
    pub(crate) gone: bool,
}

impl Inode {
    /// No inode is ever at this change: pages as of it are given up before attributes are told.
    pub(crate) const UNVOUCHED: u64 = u64::MAX;

    pub(crate) fn new(floor: LeaseNumber) -> Self {
        Self {
            lease: LeaseLevel::None,
            number: LeaseNumber(0),
            floor,
            term: 0,
            recalled: None,
            lease_asked: false,
            contended_until: Time::ZERO,
            attributes: None,
            attributes_asked: false,
            changing: 0,
            rewriting: 0,
            names: BTreeMap::new(),
            layout: Layout::default(),
            layout_asked: false,
            pages: Pages::default(),
            loading: BTreeSet::new(),
            reading: 0,
            local: None,
            written: 0,
            committed: 0,
            rounds: VecDeque::new(),
            committing: 0,
            due: None,
            errors: 0,
            error: FsError::Unavailable,
            handles: 0,
            maps: 0,
            registered: 0,
            closing: 0,
            registering: false,
            kernel_pages: None,
            gone: false,
        }
    }

    /// Whether something was accepted that is not part of the file yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.local.is_some() || !self.rounds.is_empty() || self.pages.dirty() > 0
    }

    /// Whether what was written up to this number is in a commit on its way that nothing at the coordinator
    /// holds up: an fsync that is asked for now comes behind it. (Bytes for the tree may have to wait for
    /// space.)
    pub(crate) fn is_being_committed(&self, number: u64) -> bool {
        let rounds = self.rounds.iter().take(self.committing);
        self.lease >= LeaseLevel::Write
            && rounds.clone().all(|round| !round.lies_in_tree())
            && rounds.last().is_some_and(|round| round.number() >= number)
    }

    /// Up to where the file reaches when all rounds are part of it.
    pub(crate) fn size_under_way(&self) -> u64 {
        let committed = self.attributes.map_or(0, |attributes| attributes.size);
        self.rounds.back().map_or(committed, |round| round.size().max(committed))
    }

    /// The attributes with what this client has changed on top.
    pub(crate) fn seen(&self) -> Option<Attributes> {
        let mut seen = self.attributes?;
        if let Some(local) = self.local {
            seen.size = seen.size.max(local.size);
            seen.mtime = local.mtime;
            seen.ctime = seen.ctime.max(local.mtime);
            seen.blocks += self.pages.promised();
            if local.kill_privileges {
                seen.mode = seen.mode.without_privileges();
            }
        }
        Some(seen)
    }

    /// Learns attributes, unless it knows newer ones.
    pub(crate) fn learn(&mut self, attributes: Attributes) {
        if self.lease < LeaseLevel::Read {
            return;
        }
        if self.attributes.is_none_or(|known| known.change <= attributes.change) {
            self.attributes = Some(attributes);
        }
    }

    /// Forgets all that the lease vouched for.
    pub(crate) fn forget(&mut self) {
        self.attributes = None;
        self.names.clear();
        self.layout.clear();
        self.pages.drop_clean();
        self.term += 1;
    }

    /// Whether nobody would miss it.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_dirty()
            && self.recalled.is_none()
            && self.changing == 0
            && self.reading == 0
            && self.handles + self.registered + self.closing == 0
            && self.kernel_pages.is_none()
            && !self.lease_asked
            && !self.attributes_asked
            && !self.layout_asked
            && !self.registering
    }
}

//! What a client has of one inode.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mooring_sharedfs_core::file::Mapped;
use mooring_sharedfs_core::leases::{LeaseLevel, LeaseNumber};
use mooring_sharedfs_core::{Attributes, FileBlock, FsError, Ino, Name, Timestamp};
use mooring_terms::Time;

use crate::early::StepNumber;
use crate::known::Known;
use crate::layout::Layout;
use crate::pages::Pages;
use crate::recall::Recalled;
use crate::write_back::Round;

/// Size and date that are not committed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
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
    /// The rest of its row, of an inode that nobody else can change.
    pub(crate) known: Option<Box<Known>>,
    /// The last step that was done here and touched it.
    pub(crate) early: StepNumber,
    /// Somebody waits for what is written back.
    pub(crate) hurry: bool,
    /// Changes of a directory that were asked for, and whether it is being taken; not before then.
    pub(crate) changes: u32,
    pub(crate) taking: bool,
    pub(crate) take_after: Time,
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
    /// That commit is a step of a batch.
    pub(crate) queued: bool,
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
            known: None,
            early: StepNumber(0),
            hurry: false,
            changes: 0,
            taking: false,
            take_after: Time::ZERO,
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
            queued: false,
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
    /// space, unless they are paid for.)
    pub(crate) fn is_being_committed(&self, number: u64) -> bool {
        let mut rounds = self.rounds.iter().take(self.committing);
        self.lease >= LeaseLevel::Write
            && (self.queued || rounds.clone().all(|round| !round.lies_in_tree()))
            && rounds.next_back().is_some_and(|round| round.number() >= number)
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
            seen.ctime = seen.ctime.max(local.ctime);
            seen.blocks += self.unsettled();
            if local.kill_privileges {
                seen.mode = seen.mode.without_privileges();
            }
        }
        Some(seen)
    }

    /// Blocks that are promised to it or on their way, and that its attributes don't count.
    pub(crate) fn unsettled(&self) -> u64 {
        let placed: u64 = self.rounds.iter().map(Round::placed).sum();
        let first = FileBlock(0);
        // What grows out of the tree is promised a block, and gives up the one that it has there.
        let moves = self.pages.get(first).is_some_and(|page| page.promised)
            && self.layout.at(first).is_some_and(|piece| piece.mapped == Mapped::Inline);
        self.pages.promised() + placed - u64::from(moves)
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
        self.known = None;
        self.layout.clear();
        self.pages.drop_clean();
        self.term += 1;
    }

    /// Forgets the names in a directory, and with them that they are all.
    pub(crate) fn forget_names(&mut self) {
        self.names.clear();
        if self.known.as_ref().is_some_and(|known| known.folder.is_some()) {
            self.known = None;
        }
    }

    /// Whether this client alone has it, and knows its row: operations can be done on it here.
    pub(crate) fn is_alone(&self) -> bool {
        self.lease >= LeaseLevel::Sole
            && self.known.is_some()
            && self.attributes.is_some()
            && self.recalled.is_none()
            && self.changing == 0
            && self.rewriting == 0
    }

    /// Whether it is a directory that is alone, with all its entries.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_alone() && self.known.as_ref().is_some_and(|known| known.folder.is_some())
    }

    /// Whether its blocks are being written, and their commit is still to be asked for.
    pub(crate) fn is_written_back(&self) -> bool {
        self.rounds.len() > self.committing
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
            && !self.taking
    }
}

//! Superblock, journal and tree as one.

use std::io;
use std::sync::Arc;

use mooring_sharedfs_core::format::{DataClaim, KeyRange, Record, Superblock, SuperblockError};
use mooring_sharedfs_core::tree::{Changes, Row, Tree, TreeStore};
use mooring_sharedfs_core::{BlockAddress, JournalNumber, Result as FsResult};
use mooring_terms::{BLOCK_SIZE, ErrorKind};

use crate::Blocks;
use crate::journal::{Journal, Position};
use crate::redb_tree::{RedbTree, Snapshot};

/// Why a store can't be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no shared file system on these blocks.
    #[error("there is no shared file system here")]
    Absent,
    /// It was written by a newer program.
    #[error("written in format {0}, which this program doesn't know")]
    Format(u32),
    /// The superblock is damaged.
    #[error("the superblock is damaged")]
    Superblock,
    /// A batch of the journal has the right checksum and makes no sense.
    #[error("batch {0} of the journal is damaged")]
    Journal(JournalNumber),
    /// The tree's own structure is damaged.
    #[error("the tree is damaged")]
    Tree,
    /// More in one batch than there is room for in the journal.
    #[error("a batch is too large for what is left of the journal")]
    TooLarge,
    /// The volume failed; the store is to be dropped.
    #[error("the volume failed: {0}")]
    Io(#[from] io::Error),
    /// redb failed; the store is to be dropped.
    #[error("the tree failed: {0}")]
    Redb(redb::Error),
}

/// redb has an error type for every call.
macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Redb(error.into())
            }
        })*
    };
}
from_redb!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError,
    SetDurabilityError
);

impl From<SuperblockError> for StoreError {
    fn from(error: SuperblockError) -> Self {
        match error {
            SuperblockError::Absent => Self::Absent,
            SuperblockError::Format(format) => Self::Format(format),
            SuperblockError::Damaged => Self::Superblock,
        }
    }
}

impl StoreError {
    /// What the caller must do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Absent => ErrorKind::NotFound,
            Self::Format(_) | Self::TooLarge => ErrorKind::Invalid,
            Self::Superblock | Self::Journal(_) | Self::Tree => ErrorKind::Corrupt,
            Self::Io(_) | Self::Redb(_) => ErrorKind::Fatal,
        }
    }
}

/// A shared volume's metadata, open.
pub struct Store<B> {
    blocks: Arc<B>,
    superblock: Superblock,
    journal: Journal,
    tree: RedbTree,
}

/// Whether records can be written into the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// They fit.
    Enough,
    /// After a [checkpoint](Store::checkpoint).
    AfterCheckpoint,
    /// They are more than half of the whole ring: [`Store::checkpoint_applied`] does without.
    Never,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// How many batches of the journal were replayed.
    pub replayed: u64,
    /// What they say about data: after a power cut a slice may not have reached it.
    pub claims: Vec<DataClaim>,
}

impl<B: Blocks> Store<B> {
    /// Makes a file system: `record` holds its first rows. What was on the blocks is not looked at;
    /// the tree's blocks must be zeros.
    ///
    /// # Errors
    /// The volume failed.
    pub fn format(
        blocks: &Arc<B>,
        superblock: &Superblock,
        record: &Record,
        cache: usize,
    ) -> Result<(), StoreError> {
        let (mut tree, _) = RedbTree::open(blocks.clone(), superblock.tree_first, cache)?;
        tree.pending(&record.changes);
        tree.commit()?;
        tree.checkpoint(Position::START)?;
        // Last, so that there is a file system only when all of it is there.
        blocks.write(BlockAddress(0), &superblock.encode())?;
        blocks.flush()?;
        Ok(())
    }

    /// Opens a file system: the tree as of its last checkpoint, and the journal since. `attachment`
    /// is the epoch under which the caller holds the volume; by now nobody else can write it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(
        blocks: Arc<B>,
        attachment: u64,
        cache: usize,
    ) -> Result<(Self, Opened), StoreError> {
        let mut block = vec![0; BLOCK_SIZE];
        blocks.read(BlockAddress(0), &mut block)?;
        let superblock = Superblock::decode(&block)?;
        let (mut tree, position) = RedbTree::open(blocks.clone(), superblock.tree_first, cache)?;
        let tail = position.ok_or(StoreError::Tree)?;
        let mut journal = Journal::new(superblock, attachment, tail);
        let mut opened = Opened::default();
        while let Some(batch) = journal.read_next(&*blocks)? {
            opened.replayed += 1;
            for record in batch.records {
                tree.pending(&record.changes);
                opened.claims.extend(record.claims);
            }
            tree.commit()?;
        }
        Ok((Self { blocks, superblock, journal, tree }, opened))
    }

    /// The blocks that it is on.
    #[must_use]
    pub fn blocks(&self) -> &B {
        &self.blocks
    }

    /// Where everything is.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Writes the records of operations that were applied into the journal: when it returns every
    /// in-sync replica has them, and the operations can be answered. The caller has asked whether there
    /// is [room](Store::room), and has made some: it alone knows which slices are to be flushed before a
    /// checkpoint.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], and nothing was done; or the volume failed: the store is to be dropped.
    pub fn write(&mut self, records: &[Record]) -> Result<JournalNumber, StoreError> {
        let body = records.iter().map(Record::bytes).sum();
        if self.room(body) != Room::Enough {
            return Err(StoreError::TooLarge);
        }
        self.journal.write(&*self.blocks, records)?;
        self.tree.commit()?;
        Ok(self.journal.head.number)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The volume failed; the store is to be dropped.
    pub fn flush(&self) -> Result<(), StoreError> {
        Ok(self.blocks.flush()?)
    }

    /// The tree as of the last [`Store::write`], for whoever reads all of it on another thread.
    ///
    /// # Errors
    /// The volume failed; the store is to be dropped.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.tree.snapshot()
    }

    /// Whether records of `body_bytes` ([`Record::bytes`]) can be written now.
    #[must_use]
    pub fn room(&self, body_bytes: usize) -> Room {
        match self.journal.fits(body_bytes) {
            Some(true) => Room::Enough,
            Some(false) => Room::AfterCheckpoint,
            None => Room::Never,
        }
    }

    /// Whether less than half of the journal is left.
    #[must_use]
    pub fn is_almost_full(&self) -> bool {
        let used = self.journal.head.block - self.journal.tail.block;
        used > self.superblock.journal.count / 2
    }

    /// Makes the tree durable as of the last [`Store::write`], and gives the journal's ring back up to
    /// there. The caller has flushed the slices whose data these operations claim.
    ///
    /// # Errors
    /// The volume failed; the store is to be dropped.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        let position = self.journal.head;
        self.tree.checkpoint(position)?;
        self.journal.tail = position;
        Ok(())
    }

    /// Makes durable all that was applied, also what no record in the journal tells, and gives the
    /// journal's ring back: for changes that are too large for it, or that put right what its records
    /// say. All of it or, if this fails, nothing. The caller has flushed the slices whose data these
    /// operations claim.
    ///
    /// # Errors
    /// The volume failed; the store is to be dropped.
    pub fn checkpoint_applied(&mut self) -> Result<(), StoreError> {
        self.tree.commit()?;
        self.checkpoint()
    }
}

impl RedbTree {
    /// Applies changes; unlike [`TreeStore::apply`] it says that it can't fail.
    fn pending(&mut self, changes: &Changes) {
        self.apply(changes).expect("applying only remembers");
    }
}

impl<B: Blocks> Tree for Store<B> {
    fn get(&self, key: &[u8]) -> FsResult<Option<Vec<u8>>> {
        self.tree.get(key)
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> FsResult<Vec<Row>> {
        self.tree.scan(range, limit)
    }

    fn scan_back(&self, range: &KeyRange, limit: usize) -> FsResult<Vec<Row>> {
        self.tree.scan_back(range, limit)
    }
}

impl<B: Blocks> TreeStore for Store<B> {
    /// What is applied is seen by the next operation; [`Store::write`] must be given its record
    /// before anybody hears of it.
    fn apply(&mut self, changes: &Changes) -> FsResult<()> {
        self.tree.apply(changes)
    }
}

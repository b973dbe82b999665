//! The tree in redb: one table of rows, one of what the store itself must know.

use std::sync::Arc;

use mooring_sharedfs_core::format::KeyRange;
use mooring_sharedfs_core::tree::{Changes, Row, Tree, TreeStore};
use mooring_sharedfs_core::{BlockAddress, Damage, FsError, Result};
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use crate::backend::BlockFile;
use crate::journal::Position;
use crate::{Blocks, StoreError};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
const POSITION: &str = "position";

/// Rows in redb, with what was applied and not yet put there on top.
pub(crate) struct RedbTree {
    database: Database,
    /// The rows as of the last commit.
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pending: Changes,
}

impl RedbTree {
    /// Opens or makes the tree on the blocks from `first` on; `cache` bytes of it stay in memory.
    pub(crate) fn open<B: Blocks>(
        blocks: Arc<B>,
        first: BlockAddress,
        cache: usize,
    ) -> std::result::Result<(Self, Option<Position>), StoreError> {
        let file = BlockFile::open(blocks, first)?;
        let database = Database::builder().set_cache_size(cache).create_with_backend(file)?;
        let position = Self::position(&database)?;
        let rows = Self::rows(&database)?;
        Ok((Self { database, rows, pending: Changes::default() }, position))
    }

    /// Makes sure that the tables are there, and reads the last checkpoint's position.
    fn position(database: &Database) -> std::result::Result<Option<Position>, StoreError> {
        if let Ok(about) = database.begin_read()?.open_table(ABOUT) {
            let Some(bytes) = about.get(POSITION)? else { return Ok(None) };
            return Position::decode(bytes.value()).map(Some).ok_or(StoreError::Tree);
        }
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        transaction.open_table(ROWS)?;
        transaction.open_table(ABOUT)?;
        transaction.commit()?;
        Ok(None)
    }

    fn rows(
        database: &Database,
    ) -> std::result::Result<ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        Ok(database.begin_read()?.open_table(ROWS)?)
    }

    /// Puts what was applied into redb, not durably. From here on it is read from there.
    pub(crate) fn commit(&mut self) -> std::result::Result<(), StoreError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        {
            let mut rows = transaction.open_table(ROWS)?;
            for (key, value) in self.pending.iter() {
                match value {
                    Some(value) => drop(rows.insert(key, value)?),
                    None => drop(rows.remove(key)?),
                }
            }
        }
        transaction.commit()?;
        self.pending = Changes::default();
        self.rows = Self::rows(&self.database)?;
        Ok(())
    }

    /// Makes everything that was committed durable, and `position` with it: the journal up to there
    /// is not needed any more. What is pending stays so.
    pub(crate) fn checkpoint(&mut self, position: Position) -> std::result::Result<(), StoreError> {
        let mut transaction = self.database.begin_write()?;
        // Else the next opening would read all of it.
        transaction.set_quick_repair(true);
        transaction.open_table(ABOUT)?.insert(POSITION, position.encode().as_slice())?;
        transaction.commit()?;
        self.rows = Self::rows(&self.database)?;
        Ok(())
    }
}

impl RedbTree {
    /// The rows as of the last commit, whatever comes after.
    pub(crate) fn snapshot(&self) -> std::result::Result<Snapshot, StoreError> {
        Ok(Snapshot { rows: Self::rows(&self.database)? })
    }
}

/// A tree as it was at one moment. As long as it is there, what has changed since takes space twice.
pub struct Snapshot {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Tree for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.rows.get(key).map_err(core_error)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        let rows = self.rows.range(range.from.as_slice()..range.end.as_slice());
        rows.map_err(core_error)?.take(limit).map(row).collect()
    }

    fn scan_back(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        let rows = self.rows.range(range.from.as_slice()..range.end.as_slice());
        rows.map_err(core_error)?.rev().take(limit).map(row).collect()
    }
}

/// redb's errors as the core knows them: damage is its own checksums' finding.
fn core_error(error: redb::StorageError) -> FsError {
    match error {
        redb::StorageError::Corrupted(_) => FsError::Damaged(Damage::Store),
        _ => FsError::Unavailable,
    }
}

impl Tree for RedbTree {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(changed) = self.pending.get(key) {
            return Ok(changed.map(<[u8]>::to_vec));
        }
        let value = self.rows.get(key).map_err(core_error)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        self.pending.over(range, limit, |limit| {
            let rows = self.rows.range(range.from.as_slice()..range.end.as_slice());
            rows.map_err(core_error)?.take(limit).map(row).collect()
        })
    }

    fn scan_back(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        self.pending.over_back(range, limit, |limit| {
            let rows = self.rows.range(range.from.as_slice()..range.end.as_slice());
            rows.map_err(core_error)?.rev().take(limit).map(row).collect()
        })
    }
}

type Guarded<'a> = (redb::AccessGuard<'a, &'static [u8]>, redb::AccessGuard<'a, &'static [u8]>);

fn row(row: std::result::Result<Guarded<'_>, redb::StorageError>) -> Result<Row> {
    let (key, value) = row.map_err(core_error)?;
    Ok((key.value().to_vec(), value.value().to_vec()))
}

impl TreeStore for RedbTree {
    fn apply(&mut self, changes: &Changes) -> Result<()> {
        self.pending.append(changes);
        Ok(())
    }
}

//! One operation's view of the tree: what the tree holds, with the operation's own changes on top.
//!
//! ```text
//!   Transaction::new(&tree, context) ──> operations (`ops`, `file`) ──> finish ──> Outcome
//!                                              └── an error: drop it, and nothing has happened
//! ```
//! The operations stand in [`crate::ops`] and [`crate::file`], as methods, by subject.

use crate::error::Damage;
use crate::format::{DataClaim, InodeRow, Key, KeyRange, Record, StateRow};
use crate::tree::{Changes, Row, Tree};
use crate::{FsError, Ino, QuarantineNumber, Result, Timestamp};

/// What an operation must be told.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The date that changed inodes get.
    pub now: Timestamp,
}

/// One operation's view of the tree, and its changes.
pub struct Transaction<'t> {
    tree: &'t dyn Tree,
    context: Context,
    changes: Changes,
    claims: Vec<DataClaim>,
    state: Option<StateRow>,
    /// Under which number this operation's freed blocks wait, once it has freed some.
    freed: Option<QuarantineNumber>,
    /// The number of what the operation makes, if that was given out before.
    pub(crate) made: Option<Ino>,
}

/// What an operation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What goes into the journal and the tree.
    pub record: Record,
    /// The number under which the blocks that it freed wait in quarantine.
    pub freed: Option<QuarantineNumber>,
}

impl<'t> Transaction<'t> {
    /// Begins an operation on `tree`.
    #[must_use]
    pub fn new(tree: &'t dyn Tree, context: Context) -> Self {
        let (changes, claims) = (Changes::default(), Vec::new());
        Self { tree, context, changes, claims, state: None, freed: None, made: None }
    }

    /// What the operation makes gets this number, which [`Transaction::take_numbers`] gave out.
    #[must_use]
    pub fn naming(mut self, made: Option<Ino>) -> Self {
        self.made = made;
        self
    }

    /// What the operation did. Nothing of it has happened yet: the caller journals and applies it.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        if let Some(state) = self.state {
            self.put(&Key::State, state.encode());
        }
        Outcome { record: Record { changes: self.changes, claims: self.claims }, freed: self.freed }
    }

    /// Whether the operation has changed anything.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty() || self.state.is_some()
    }

    /// The date of this operation.
    pub(crate) fn now(&self) -> Timestamp {
        self.context.now
    }

    /// The value at `key`.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let key = key.encode();
        match self.changes.get(&key) {
            Some(changed) => Ok(changed.map(<[u8]>::to_vec)),
            None => self.tree.get(&key),
        }
    }

    /// Puts a row.
    pub(crate) fn put(&mut self, key: &Key, value: Vec<u8>) {
        self.changes.insert(key.encode(), Some(value));
    }

    /// Deletes a row, if there is one.
    pub(crate) fn delete(&mut self, key: &Key) {
        self.changes.insert(key.encode(), None);
    }

    /// The first `limit` rows of `range`, in ascending order.
    pub(crate) fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        self.changes.over(range, limit, |limit| self.tree.scan(range, limit))
    }

    /// The last `limit` rows of `range`, in descending order.
    pub(crate) fn scan_back(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        self.changes.over_back(range, limit, |limit| self.tree.scan_back(range, limit))
    }

    /// The volume's counters, for reading.
    pub(crate) fn state(&self) -> Result<StateRow> {
        match self.state {
            Some(state) => Ok(state),
            None => {
                let row = self.get(&Key::State)?.ok_or(Damage::NoState)?;
                StateRow::decode(&row).ok_or_else(|| damaged(&Key::State))
            }
        }
    }

    /// How many blocks a slice has: no extent lies in two.
    pub(crate) fn slice_blocks(&self) -> Result<u64> {
        Ok(self.state()?.slice_blocks)
    }

    /// The volume's counters, to be changed.
    pub(crate) fn state_mut(&mut self) -> Result<&mut StateRow> {
        let state = self.state()?;
        Ok(self.state.insert(state))
    }

    /// Puts the counters of a file system that is being made.
    pub(crate) fn begin_state(&mut self, state: StateRow) {
        self.state = Some(state);
    }

    /// An inode that the caller names.
    ///
    /// # Errors
    /// [`FsError::Stale`] if there is no such inode (any more).
    pub(crate) fn inode(&self, ino: Ino) -> Result<InodeRow> {
        self.find_inode(ino)?.ok_or(FsError::Stale)
    }

    /// An inode that the tree itself names: it must be there.
    pub(crate) fn named_inode(&self, ino: Ino) -> Result<InodeRow> {
        self.find_inode(ino)?.ok_or(FsError::Damaged(Damage::NoInode(ino)))
    }

    fn find_inode(&self, ino: Ino) -> Result<Option<InodeRow>> {
        let key = Key::Inode(ino);
        let Some(row) = self.get(&key)? else { return Ok(None) };
        InodeRow::decode(ino, &row).map(Some).ok_or_else(|| damaged(&key))
    }

    /// Puts an inode that was changed, and counts the change.
    pub(crate) fn put_inode(&mut self, row: &mut InodeRow) {
        row.attributes.change += 1;
        self.put(&Key::Inode(row.attributes.ino), row.encode());
    }

    /// Remembers which version the data of an extent must have.
    pub(crate) fn claim(&mut self, claim: DataClaim) {
        self.claims.push(claim);
    }

    /// The number under which this operation's freed blocks wait.
    pub(crate) fn quarantine_number(&mut self) -> Result<QuarantineNumber> {
        if let Some(number) = self.freed {
            return Ok(number);
        }
        let state = self.state_mut()?;
        let number = state.next_quarantine;
        state.next_quarantine = QuarantineNumber(number.0 + 1);
        self.freed = Some(number);
        Ok(number)
    }
}

/// The error for a row that can't be decoded.
pub(crate) fn damaged(key: &Key) -> FsError {
    FsError::Damaged(Damage::Row(key.encode()[0]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::{MemoryTree, TreeStore};

    fn key() -> impl Strategy<Value = Key> {
        (1..20_u64).prop_map(|ino| Key::Inode(Ino(ino)))
    }

    proptest! {
        #[test]
        fn a_transaction_sees_what_the_tree_would_hold(
            before in proptest::collection::btree_map(key(), any::<u8>(), 0..12),
            changes in proptest::collection::vec((key(), proptest::option::of(any::<u8>())), 0..12),
            from in key(),
            end in key(),
            limit in 0..6_usize,
        ) {
            let mut tree = MemoryTree::default();
            let mut first = Changes::default();
            for (key, value) in &before {
                first.insert(key.encode(), Some(vec![*value]));
            }
            tree.apply(&first).unwrap();
            let mut transaction = Transaction::new(&tree, Context { now: Timestamp::default() });
            for (key, value) in &changes {
                match value {
                    Some(value) => transaction.put(key, vec![*value]),
                    None => transaction.delete(key),
                }
            }
            let range = KeyRange::between(&from, &end);
            let seen = transaction.scan(&range, limit).unwrap();
            let seen_back = transaction.scan_back(&range, limit).unwrap();
            let got = transaction.get(&from).unwrap();
            let outcome = transaction.finish();
            tree.apply(&outcome.record.changes).unwrap();
            prop_assert_eq!(seen, tree.scan(&range, limit).unwrap());
            prop_assert_eq!(seen_back, tree.scan_back(&range, limit).unwrap());
            prop_assert_eq!(got, tree.get(&from.encode()).unwrap());
        }
    }
}

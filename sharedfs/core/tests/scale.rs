//! What operations on names cost in directories of any size: in rows of the tree that are looked at, which
//! is what takes time and what no machine changes. It must not grow with the directory.

use std::cell::Cell;

use mooring_sharedfs_core::format::KeyRange;
use mooring_sharedfs_core::ops::{FormatOptions, Make, New, RenameMode, format_volume};
use mooring_sharedfs_core::tree::{MemoryTree, Row, Tree, TreeStore};
use mooring_sharedfs_core::{
    BlockAddress, Caller, Context, Cookie, Ino, Mode, Name, Result, Timestamp, Transaction,
};

/// A tree that counts the rows that are looked at.
#[derive(Default)]
struct Counting {
    rows: MemoryTree,
    looked_at: Cell<usize>,
}

impl Counting {
    fn count(&self, rows: usize) {
        self.looked_at.set(self.looked_at.get() + rows);
    }
}

impl Tree for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.count(1);
        self.rows.get(key)
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        let found = self.rows.scan(range, limit)?;
        self.count(1 + found.len());
        Ok(found)
    }

    fn scan_back(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>> {
        let found = self.rows.scan_back(range, limit)?;
        self.count(1 + found.len());
        Ok(found)
    }
}

fn name(number: usize) -> Name {
    Name::new(format!("file{number}").as_bytes()).expect("a name")
}

/// Runs an operation; how many rows were looked at.
fn cost<T>(
    tree: &mut Counting,
    operation: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
) -> (T, usize) {
    tree.looked_at.set(0);
    let mut transaction = Transaction::new(tree, Context { now: Timestamp::default() });
    let result = operation(&mut transaction).expect("nothing stands in its way");
    let changes = transaction.finish().record.changes;
    let looked_at = tree.looked_at.get();
    tree.rows.apply(&changes).expect("a map takes all");
    (result, looked_at)
}

fn make(tree: &mut Counting, number: usize) -> (Ino, usize) {
    let make = Make { new: New::Regular, mode: Mode::new(0o644), umask: Mode::default() };
    let (made, rows) = cost(tree, |t| t.make(&Caller::ROOT, Ino::ROOT, &name(number), &make));
    (made.ino, rows)
}

/// The costs in a directory of so many entries: of each operation, in the same order.
fn costs(tree: &mut Counting, entries: usize) -> Vec<(&'static str, usize)> {
    let root = &Caller::ROOT;
    let middle = name(entries / 2);
    let (ino, made) = make(tree, entries);
    let (_, found) = cost(tree, |t| t.lookup(root, Ino::ROOT, &middle));
    let (_, looked) = cost(tree, |t| t.getattr(ino));
    let (page, listed) = cost(tree, |t| {
        let (_, bound) = t.opendir(root, Ino::ROOT)?;
        t.readdir(Ino::ROOT, Cookie(entries as u64 / 2), bound, 100, true)
    });
    assert_eq!(page.entries.len(), 100);
    let (_, linked) = cost(tree, |t| t.link(root, ino, Ino::ROOT, &name(entries + 1)));
    let (from, to) = ((Ino::ROOT, &name(entries + 1)), (Ino::ROOT, &name(entries + 2)));
    let (_, renamed) = cost(tree, |t| t.rename(root, from, to, RenameMode::Replace, |_| false));
    let (_, unlinked) = cost(tree, |t| t.unlink(root, Ino::ROOT, to.1, |_| false));
    vec![
        ("create", made),
        ("lookup", found),
        ("getattr", looked),
        ("a page of readdir", listed),
        ("link", linked),
        ("rename", renamed),
        ("unlink", unlinked),
    ]
}

#[test]
fn no_operation_costs_more_in_a_directory_of_150_thousand_entries_than_in_one_of_a_thousand() {
    const SMALL: usize = 1_000;
    const LARGE: usize = 150_000;
    let mut tree = Counting::default();
    let options = FormatOptions {
        data_first: BlockAddress(64),
        capacity: 1 << 20,
        slice_blocks: 1 << 16,
        root: (0, 0, Mode::new(0o777)),
        now: Timestamp::default(),
    };
    let record = format_volume(&tree, &options).expect("a new tree");
    tree.rows.apply(&record.changes).expect("a map takes all");
    for number in 0..SMALL {
        make(&mut tree, number);
    }
    let small = costs(&mut tree, SMALL);
    let most = (SMALL + 3..LARGE).map(|number| make(&mut tree, number).1).max();
    let large = costs(&mut tree, LARGE);
    println!("rows that are looked at: {large:?}, {most:?} at most for a create");
    assert_eq!(large, small);
    assert!(most.is_some_and(|most| most < 40), "{most:?}");
}

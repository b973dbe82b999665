//! Checks a whole tree: what `fsck` finds, and what every test asks after every step.
//!
//! Reads every row once or twice. In memory it keeps some twenty bytes an inode and as many an
//! extent, so it is for checks, not for the way of a request.

use std::collections::BTreeMap;

use crate::error::Damage;
use crate::format::{
    CountRow, EntryRow, ExtentRow, ExtentState, INLINE_BYTES, InodeRow, Key, KeyRange, PlaceRow,
    ReplyRow, SessionRow, StateRow,
};
use crate::tree::{Row, Tree};
use crate::{Acl, FileBlock, FileType, Ino, Result, Run};

/// How many rows are read at once.
const PAGE: usize = 1024;

/// What is wrong with the tree: nothing, if it is sound. At most a few hundred findings.
///
/// # Errors
/// Only if the tree can't be read; whatever can be read and is wrong is a finding.
pub fn check(tree: &dyn Tree) -> Result<Vec<Damage>> {
    let mut check = Check::default();
    let mut range = KeyRange::all();
    loop {
        let rows = tree.scan(&range, PAGE)?;
        let Some((last, _)) = rows.last() else { break };
        range.from.clone_from(last);
        range.from.push(0);
        for row in &rows {
            check.row(row);
        }
    }
    check.conclude();
    Ok(check.findings)
}

const FINDINGS_MAX: usize = 500;

/// What is known of an inode from all rows that are not its own.
#[derive(Default)]
struct Around {
    row: Option<InodeRow>,
    /// Entries that name it.
    named: u32,
    /// Entries that are in it, by name and by cookie; both as a sum of what they say, so that two
    /// lists in different orders can be compared.
    by_name: (u64, u64),
    by_cookie: (u64, u64),
    /// Directories whose `..` it is.
    subdirectories: u32,
    /// Data blocks, and the end of the last extent.
    blocks: u64,
    end: FileBlock,
    written_end: FileBlock,
    inline: Option<usize>,
    acls: (bool, bool),
    xattrs: bool,
    orphan: bool,
    parent_named: Option<Ino>,
}

#[derive(Default)]
struct Check {
    findings: Vec<Damage>,
    state: Option<StateRow>,
    inodes: BTreeMap<Ino, Around>,
    runs: Vec<Run>,
    last_free: Option<Run>,
    free: u64,
    reserved: u64,
    quarantined: u64,
}

impl Check {
    fn found(&mut self, damage: Damage) {
        if self.findings.len() < FINDINGS_MAX && !self.findings.contains(&damage) {
            self.findings.push(damage);
        }
    }

    fn row(&mut self, (key, value): &Row) {
        let sound = Key::decode(key).is_some_and(|key| self.known(key, value).is_some());
        if !sound {
            self.found(Damage::Row(key.first().copied().unwrap_or(0)));
        }
    }

    /// Takes a row in; `None` if it can't be decoded.
    fn known(&mut self, key: Key, value: &[u8]) -> Option<()> {
        match key {
            Key::State => self.state = Some(StateRow::decode(value)?),
            Key::Inode(ino) => self.around(ino).row = Some(InodeRow::decode(ino, value)?),
            Key::Entry(dir, name) => {
                let entry = EntryRow::decode(value)?;
                let around = self.around(entry.ino);
                around.named += 1;
                if entry.file_type == FileType::Directory {
                    around.parent_named = Some(dir);
                    self.around(dir).subdirectories += 1;
                }
                let sum = fingerprint(name.as_bytes(), entry.ino, entry.cookie.0, entry.file_type);
                let around = self.around(dir);
                around.by_name = (around.by_name.0 + 1, around.by_name.1.wrapping_add(sum));
            }
            Key::Place(dir, cookie) => {
                let place = PlaceRow::decode(value)?;
                let name = place.name.as_bytes();
                let sum = fingerprint(name, place.ino, cookie.0, place.file_type);
                let around = self.around(dir);
                around.by_cookie = (around.by_cookie.0 + 1, around.by_cookie.1.wrapping_add(sum));
                if around.row.is_some_and(|row| row.next_cookie <= cookie) {
                    self.found(Damage::Entries(dir));
                }
            }
            Key::Inline(ino) => self.around(ino).inline = Some(value.len()),
            Key::Extent(ino, block) => self.extent(ino, block, ExtentRow::decode(value)?),
            Key::Xattr(ino, name) => self.xattr(ino, &name, value)?,
            Key::Orphan(ino) => self.around(ino).orphan = true,
            Key::Free(start) => {
                let run = Run::new(start, CountRow::decode(value)?.0);
                if self.last_free.is_some_and(|last| last.end() >= run.start) {
                    self.found(Damage::Space(start));
                }
                self.last_free = Some(run);
                self.free += run.count;
                self.runs.push(run);
            }
            Key::Session(_) => drop(SessionRow::decode(value)?),
            Key::Reply(..) => drop(ReplyRow::decode(value)?),
            Key::Reservation(_, start) => {
                let run = Run::new(start, CountRow::decode(value)?.0);
                self.reserved += run.count;
                self.runs.push(run);
            }
            Key::Quarantine(_, start) => {
                let run = Run::new(start, CountRow::decode(value)?.0);
                self.quarantined += run.count;
                self.runs.push(run);
            }
        }
        Some(())
    }

    fn around(&mut self, ino: Ino) -> &mut Around {
        self.inodes.entry(ino).or_default()
    }

    fn extent(&mut self, ino: Ino, block: FileBlock, row: ExtentRow) {
        self.runs.push(row.run);
        let end = block.plus(row.run.count);
        let around = self.around(ino);
        let overlaps = block < around.end || (around.inline.is_some() && block == FileBlock(0));
        around.end = end;
        around.blocks += row.run.count;
        if row.state == ExtentState::Written {
            around.written_end = end;
        }
        if overlaps {
            self.found(Damage::Extents(ino));
        }
    }

    fn xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Option<()> {
        let around = self.around(ino);
        match name {
            b"system.posix_acl_access" => around.acls.0 = true,
            b"system.posix_acl_default" => around.acls.1 = true,
            _ => {
                around.xattrs = true;
                return Some(());
            }
        }
        Acl::decode(value).ok().map(drop)
    }

    fn conclude(&mut self) {
        let Some(state) = self.state else { return self.found(Damage::NoState) };
        let inodes = std::mem::take(&mut self.inodes);
        let mut charged = 0;
        for (&ino, around) in &inodes {
            let Some(row) = &around.row else {
                self.found(Damage::NoInode(ino));
                continue;
            };
            let regular = row.attributes.file_type == FileType::Regular;
            charged += u64::from(regular && around.inline.is_some());
            if ino >= state.next_ino {
                self.found(Damage::Counters);
            }
            self.inode(row, around, ino);
        }
        self.space(&state);
        let counted = (self.free, self.reserved, self.quarantined, charged, inodes.len() as u64);
        let said = (state.free, state.reserved, state.quarantined, state.charged, state.inodes);
        if counted != said {
            self.found(Damage::Counters);
        }
    }

    fn inode(&mut self, row: &InodeRow, around: &Around, ino: Ino) {
        let attributes = &row.attributes;
        let directory = attributes.is_directory();
        let root = ino == Ino::ROOT;
        let links = match (directory, around.orphan) {
            (true, false) => 2 + around.subdirectories,
            (true, true) => 0,
            (false, _) => around.named,
        };
        let named_once = around.named == u32::from(!root && !around.orphan);
        if attributes.links != links || around.orphan != (links == 0) || (directory && !named_once)
        {
            self.found(Damage::Links(ino));
        }
        let parent = if root { Some(ino) } else { around.parent_named };
        let parent_right = parent.unwrap_or(Ino(0)) == row.parent;
        let entries = around.by_name == around.by_cookie && around.by_name.0 == row.entries;
        if !entries || (directory && !parent_right) || (!directory && row.entries > 0) {
            self.found(Damage::Entries(ino));
        }
        let symlink = attributes.file_type == FileType::Symlink;
        if symlink && around.inline.map(|length| length as u64) != Some(attributes.size) {
            self.found(Damage::Target(ino));
        }
        let inline_fits = around.inline.is_none_or(|length| {
            (1..=INLINE_BYTES).contains(&length) && length as u64 <= attributes.size
        });
        let blocks = around.blocks + u64::from(around.inline.is_some() && !symlink);
        let written_fits = around.written_end <= FileBlock::at_or_after(attributes.size);
        let regular = attributes.file_type == FileType::Regular;
        if !inline_fits
            || row.flags.inline != around.inline.is_some()
            || attributes.blocks != blocks
            || !(written_fits || around.orphan)
            || (!regular && around.blocks > 0)
        {
            self.found(Damage::Extents(ino));
        }
        let flags = (row.flags.access_acl, row.flags.default_acl);
        if flags != around.acls || (around.xattrs && !row.flags.xattrs) {
            self.found(Damage::Row(Key::Xattr(ino, Box::default()).encode()[0]));
        }
    }

    /// Every block of the data area is somewhere, and nowhere twice.
    fn space(&mut self, state: &StateRow) {
        let mut runs = std::mem::take(&mut self.runs);
        runs.sort_unstable();
        let mut at = state.data_first;
        for run in runs {
            if run.start != at {
                self.found(Damage::Space(at.min(run.start)));
            }
            at = at.max(run.end());
        }
        if at != state.data_first.plus(state.capacity) {
            self.found(Damage::Space(at));
        }
    }
}

/// A number that is likely to differ for entries that differ.
fn fingerprint(name: &[u8], ino: Ino, cookie: u64, file_type: FileType) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let numbers = [ino.0, cookie, file_type as u64];
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    for byte in name.iter().copied().chain(bytes) {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    sum
}

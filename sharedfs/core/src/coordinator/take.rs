//! The exclusive lease on a directory that is there already: given with all that is in it, so that its
//! holder can do what the coordinator would.

use mooring_terms::Time;

use super::Coordinator;
use super::request::Taken;
use crate::format::{EntryRow, InodeRow, Key, KeyRange};
use crate::leases::LeaseLevel;
use crate::transaction::damaged;
use crate::{FsError, Ino, Result, SessionId, Transaction};

/// No directory with more entries is taken: the answer is one letter, and the client keeps all of it.
pub const TAKEN_MAX: usize = 2048;

/// A directory with what is in it.
///
/// # Errors
/// [`FsError::NotDirectory`], [`FsError::Stale`]; [`FsError::TooBig`] for more than [`TAKEN_MAX`] entries.
pub(super) fn take(t: &Transaction<'_>, dir: Ino) -> Result<Taken> {
    let row = t.inode(dir)?;
    if !row.attributes.is_directory() {
        return Err(FsError::NotDirectory);
    }
    if row.entries > TAKEN_MAX as u64 {
        return Err(FsError::TooBig);
    }
    let entries = t.scan(&KeyRange::entries(dir), TAKEN_MAX + 1)?;
    let mut rows = Vec::with_capacity(2 * entries.len() + 1);
    put_inode(t, &row, &mut rows)?;
    for (key, value) in entries {
        let entry = EntryRow::decode(&value).ok_or_else(|| damaged(&Key::Inode(dir)))?;
        put_inode(t, &t.named_inode(entry.ino)?, &mut rows)?;
        rows.push((key, value));
    }
    Ok(Taken { rows })
}

/// What a directory that can be taken has in it.
///
/// # Errors
/// Damage.
pub(super) fn children(t: &Transaction<'_>, dir: Ino) -> Result<Vec<Ino>> {
    let entries = t.scan(&KeyRange::entries(dir), TAKEN_MAX + 1)?;
    if entries.len() > TAKEN_MAX {
        return Ok(Vec::new());
    }
    let ino = |(_, value): &(Vec<u8>, Vec<u8>)| EntryRow::decode(value).map(|entry| entry.ino);
    Ok(entries.iter().filter_map(ino).collect())
}

fn put_inode(t: &Transaction<'_>, row: &InodeRow, rows: &mut Vec<crate::tree::Row>) -> Result<()> {
    let ino = row.attributes.ino;
    rows.push((Key::Inode(ino).encode(), row.encode()));
    if row.flags.access_acl || row.flags.default_acl {
        for (key, value) in t.scan(&KeyRange::xattrs(ino), 64)? {
            if matches!(Key::decode(&key), Some(Key::Xattr(_, name)) if name.starts_with(b"system."))
            {
                rows.push((key, value));
            }
        }
    }
    Ok(())
}

impl Coordinator {
    /// Gives leases on what was taken: the exclusive one on the directory, which nobody else has anything
    /// of by now, and what is free of the rest.
    pub(super) fn grant_taken(&mut self, now: Time, session: SessionId, dir: Ino, taken: &Taken) {
        for (key, value) in &taken.rows {
            let Some(Key::Inode(ino)) = Key::decode(key) else { continue };
            let Some(row) = InodeRow::decode(ino, value) else { continue };
            let wanted = match (ino == dir, row.attributes.is_directory()) {
                (true, _) => LeaseLevel::Exclusive,
                (false, true) => LeaseLevel::Sole,
                (false, false) => LeaseLevel::Write,
            };
            // A later request would only have it recalled at once.
            if self.waiting.values().any(|waiting| waiting.needs_of(ino)) {
                continue;
            }
            if let Some((level, number)) = self.leases.grant(now, session, ino, wanted) {
                self.granted.push((ino, level, number));
            }
        }
    }
}

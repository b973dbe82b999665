//! Whether what came is what was expected; what can't be known before is learned from what came.

use std::collections::BTreeMap;
use std::fs::{FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::hosts::Got;
use crate::reference::{
    ATIME, Answer, CTIME, Kind, MTIME, NodeId, Outcome, Reference, Refusal, Stamp,
};
use crate::run::Times;

const SECOND: i64 = 1_000_000_000;
/// The longest that a kernel's coarse clock stands still.
const TICK: i64 = 10_000_000;

fn kind_of(found: FileType) -> Option<Kind> {
    match found {
        found if found.is_file() => Some(Kind::Regular),
        found if found.is_dir() => Some(Kind::Directory),
        found if found.is_symlink() => Some(Kind::Symlink),
        found if found.is_fifo() => Some(Kind::Fifo),
        _ => None,
    }
}

impl Reference {
    /// Compares.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn compare(
        &mut self,
        expected: &Result<Answer, Refusal>,
        got: &Outcome<Got>,
    ) -> Result<(), String> {
        let wrong = || Err(format!("expected {}, got {}", brief(expected), brief(got)));
        let answer = match (expected, got) {
            (Err(Refusal::Errno(wanted)), Err(came)) if wanted == came => return Ok(()),
            (Err(Refusal::Skip), _) => return Ok(()),
            (Ok(answer), Ok(_)) => answer,
            _ => return wrong(),
        };
        let Ok(got) = got else { return wrong() };
        match (answer, got) {
            (Answer::Done, Got::Done) => Ok(()),
            (Answer::Bytes(wanted), Got::Bytes(came)) => same_bytes(wanted, came),
            (Answer::Text(wanted), Got::Text(came)) if wanted == came => Ok(()),
            (Answer::Names(wanted), Got::Names(came)) if wanted == came => Ok(()),
            (Answer::Count(wanted), Got::Count(came)) if wanted == came => Ok(()),
            (Answer::Attributes(node), Got::Attributes(came)) => self.attributes(*node, came),
            (Answer::Entries(node), Got::Entries(came)) => self.entries(*node, came),
            (Answer::Place(node, from, hole), Got::Place(came)) => {
                self.place(*node, (*from, *came), *hole)
            }
            _ => wrong(),
        }
    }

    fn attributes(&mut self, id: NodeId, came: &Metadata) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).expect("the reference has just named it");
        let size = match node.kind {
            Kind::Regular => node.contents.len() as u64,
            Kind::Symlink => node.target.len() as u64,
            _ => came.len(),
        };
        let wanted = (Some(node.kind), node.mode, node.links, size, node.owner);
        let kind = kind_of(came.file_type());
        let links = u32::try_from(came.nlink()).unwrap_or(u32::MAX);
        let found = (kind, came.mode() & 0o7777, links, came.len(), (came.uid(), came.gid()));
        if wanted != found {
            return Err(format!(
                "attributes (kind, mode, links, size, owner): expected {wanted:?}, got {found:?}"
            ));
        }
        same_ino(&mut node.ino, came.ino())?;
        for (which, name, seconds, nanoseconds) in [
            (ATIME, "atime", came.atime(), came.atime_nsec()),
            (MTIME, "mtime", came.mtime(), came.mtime_nsec()),
            (CTIME, "ctime", came.ctime(), came.ctime_nsec()),
        ] {
            let time = seconds * SECOND + nanoseconds;
            let mut window = node.times[which];
            if self.times == Times::Coarse {
                if which == ATIME {
                    continue;
                }
                if window.from != window.to {
                    window.from -= TICK;
                }
            }
            if time < window.from || time > window.to {
                let (early, late) = (window.from - time, time - window.to);
                return Err(format!(
                    "{name} is {time}: {early} ns before {}, or {late} ns behind {}",
                    window.from, window.to
                ));
            }
            node.times[which] = Stamp::at(time);
        }
        Ok(())
    }

    fn entries(&mut self, id: NodeId, came: &[(String, u64, FileType)]) -> Result<(), String> {
        let wanted = self.nodes[&id].entries.clone();
        let found: BTreeMap<&String, (u64, FileType)> =
            came.iter().map(|(name, ino, kind)| (name, (*ino, *kind))).collect();
        if found.len() != came.len() || !wanted.keys().eq(found.keys().copied()) {
            let came: Vec<_> = came.iter().map(|(name, ..)| name).collect();
            return Err(format!("entries: expected {:?}, got {came:?}", wanted.keys()));
        }
        for (name, (ino, kind)) in found {
            let node = self.nodes.get_mut(&wanted[name]).expect("entries have nodes");
            if kind_of(kind) != Some(node.kind) {
                return Err(format!("entry {name}: expected {:?}, got {kind:?}", node.kind));
            }
            same_ino(&mut node.ino, ino).map_err(|error| format!("entry {name}: {error}"))?;
        }
        Ok(())
    }

    /// A hole that is told must hold zeros; data may be told where there are zeros.
    fn place(&self, id: NodeId, (from, found): (u64, u64), hole: bool) -> Result<(), String> {
        let contents = &self.nodes[&id].contents;
        let size = contents.len() as u64;
        let within = found >= from && found <= size;
        let zeros = |range: &[u8]| range.iter().all(|byte| *byte == 0);
        let right = match hole {
            _ if !within => false,
            true => found == size || contents[found as usize] == 0,
            false => zeros(&contents[from as usize..found as usize]),
        };
        if right { Ok(()) } else { Err(format!("from {from}, hole {hole}: {found}, size {size}")) }
    }
}

fn same_ino(known: &mut Option<u64>, came: u64) -> Result<(), String> {
    match *known.get_or_insert(came) {
        before if before != came => Err(format!("inode {came} was {before}")),
        _ => Ok(()),
    }
}

fn same_bytes(wanted: &[u8], came: &[u8]) -> Result<(), String> {
    if wanted == came {
        return Ok(());
    }
    let same = wanted.iter().zip(came).take_while(|(one, other)| one == other).count();
    let differ = wanted.iter().zip(came).filter(|(one, other)| one != other).count();
    let part = |bytes: &[u8]| bytes[same..].iter().take(16).copied().collect::<Vec<u8>>();
    Err(format!(
        "bytes: expected {} of them, got {}; the first {same} are right, {differ} differ; there: expected {:?}, got {:?}",
        wanted.len(),
        came.len(),
        part(wanted),
        part(came)
    ))
}

/// Not all the bytes.
fn brief(what: &impl std::fmt::Debug) -> String {
    let mut text = format!("{what:?}");
    if text.len() > 300 {
        let end = (0..=300).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

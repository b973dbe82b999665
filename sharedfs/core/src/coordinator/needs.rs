//! Which inodes an operation reads or changes: what others may keep of them meanwhile.

use super::request::Operation;
use super::take::children;
use crate::leases::{LeaseLevel, Need};
use crate::{Ino, Name, Result, Transaction};

impl Operation {
    /// The inodes that the operation touches, found by name where it names them. An inode that isn't
    /// there is left out: executing will say so.
    pub(super) fn needs(&self, view: &Transaction<'_>) -> Result<Vec<(Ino, Need)>> {
        use Need::{Change, Read};
        let named = |dir: Ino, name: &Name| view.entry_ino(dir, name);
        let mut needs = match self {
            Self::Lookup { dir, name } => with(vec![(*dir, Read)], named(*dir, name)?, Read),
            Self::Parent { dir } | Self::Opendir { dir } => vec![(*dir, Read)],
            Self::Readdir { dir, .. } | Self::Tmpfile { dir, .. } => vec![(*dir, Read)],
            Self::Getattr { ino }
            | Self::Access { ino, .. }
            | Self::Open { ino, .. }
            | Self::Readlink { ino }
            | Self::Getxattr { ino, .. }
            | Self::Listxattr { ino }
            | Self::Read { ino, .. }
            | Self::Mappings { ino, .. }
            | Self::Seek { ino, .. } => vec![(*ino, Read)],
            Self::Create { dir, name, .. } => match named(*dir, name)? {
                Some(ino) => vec![(*dir, Read), (ino, Read)],
                None => vec![(*dir, Change)],
            },
            Self::Make { dir, .. } => vec![(*dir, Change)],
            Self::Link { ino, dir, .. } => vec![(*dir, Change), (*ino, Change)],
            Self::Unlink { dir, name } | Self::Rmdir { dir, name } => {
                with(vec![(*dir, Change)], named(*dir, name)?, Change)
            }
            Self::Rename { from, to, .. } => {
                let both = vec![(from.0, Change), (to.0, Change)];
                let both = with(both, named(from.0, &from.1)?, Change);
                with(both, named(to.0, &to.1)?, Change)
            }
            Self::Setattr { ino, .. }
            | Self::Setxattr { ino, .. }
            | Self::Removexattr { ino, .. }
            | Self::Commit { ino, .. }
            | Self::Write { ino, .. }
            | Self::Allocate { ino, .. }
            | Self::Punch { ino, .. }
            | Self::Zero { ino, .. } => vec![(*ino, Change)],
            // What another client has accepted and not committed is the file's too.
            Self::Fsync { ino }
            | Self::Lease { ino, level: LeaseLevel::None | LeaseLevel::Read } => vec![(*ino, Read)],
            Self::Lease { ino, .. } => vec![(*ino, Change)],
            Self::Take { dir, whole } => {
                let inside = if *whole { children(view, *dir)? } else { Vec::new() };
                inside.into_iter().chain([*dir]).map(|ino| (ino, Change)).collect()
            }
            Self::Batch { steps } => {
                let mut needs = Vec::new();
                for step in steps {
                    // What the batch itself makes nobody else can know of.
                    needs.extend(step.operation.needs(view)?);
                }
                needs
            }
            Self::Close { .. }
            | Self::Numbers { .. }
            | Self::Statfs
            | Self::Reserve { .. }
            | Self::Lock { .. }
            | Self::Unlock { .. }
            | Self::GetLock { .. }
            | Self::CancelLock { .. }
            | Self::EndOwner { .. } => Vec::new(),
        };
        // One need an inode: the greater one.
        needs.sort_unstable();
        needs.reverse();
        needs.dedup_by_key(|(ino, _)| *ino);
        Ok(needs)
    }
}

fn with(mut needs: Vec<(Ino, Need)>, ino: Option<Ino>, need: Need) -> Vec<(Ino, Need)> {
    needs.extend(ino.map(|ino| (ino, need)));
    needs
}

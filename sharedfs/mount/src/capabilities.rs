//! What a caller may do that is not root: the kernel tells file systems of this kind a user's number and a process's,
//! and not its capabilities.
//!
//! The kernel has checked them (`default_permissions`), against the owners and modes that it knew. The
//! coordinator checks owners again, against those that there are: a file may have been given away on another host
//! a moment ago. It would refuse whoever is not the owner; so only then the process is looked at in /proc.
//!
//! - In the user namespace of the mount, its capabilities count.
//! - In another (a container without root's rights), they count for inodes whose owner and group that namespace
//!   has: as in the kernel.
//! - A process that can't be seen from here (another pid namespace's) has none.

use std::fs;
use std::os::unix::fs::MetadataExt;

use mooring_sharedfs_client::KernelOperation;
use mooring_sharedfs_core::ops::{New, SetTime};

/// Capabilities, by their bits (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities(u64);

const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const FOWNER: u64 = 1 << 3;
const MKNOD: u64 = 1 << 27;

/// Which capabilities an operation takes that its caller was refused; none could help with what is left out.
pub(crate) fn needed(operation: &KernelOperation) -> Option<Capabilities> {
    use KernelOperation as K;
    Some(Capabilities(match operation {
        K::Setattr { set, .. } => {
            let owner = set.uid.is_some() || set.gid.is_some();
            let times = set.atime != SetTime::Keep || set.mtime != SetTime::Keep;
            let flags = [
                (owner, CHOWN),
                (set.mode.is_some() || times, FOWNER),
                (set.size.is_some() && !set.by_handle, DAC_OVERRIDE),
            ];
            flags.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum()
        }
        K::Setxattr { .. } | K::Removexattr { .. } => FOWNER,
        // Sticky directories.
        K::Unlink { .. } | K::Rmdir { .. } | K::Rename { .. } => FOWNER,
        K::Make { make, .. } => match make.new {
            New::CharDevice(_) | New::BlockDevice(_) => MKNOD,
            _ => return None,
        },
        _ => return None,
    }))
}

/// For which inodes a process has what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// Those whose owner and group are in these ranges: the first, and how many.
    Mapped { users: Vec<(u32, u32)>, groups: Vec<(u32, u32)> },
}

impl Reach {
    /// Whether an inode with this owner and group is one of them.
    pub(crate) fn covers(&self, uid: u32, gid: u32) -> bool {
        let within = |ranges: &[(u32, u32)], id: u32| {
            ranges.iter().any(|(first, count)| id.checked_sub(*first).is_some_and(|at| at < *count))
        };
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Mapped { users, groups } => within(users, uid) && within(groups, gid),
        }
    }
}

/// Looks at a process.
pub(crate) fn reach_of(pid: u32, needed: Capabilities) -> Reach {
    reach(pid, needed).unwrap_or(Reach::Nothing)
}

fn reach(pid: u32, needed: Capabilities) -> Option<Reach> {
    if pid == 0 {
        return None;
    }
    let process = format!("/proc/{pid}");
    let status = fs::read_to_string(format!("{process}/status")).ok()?;
    if effective(&status)? & needed.0 != needed.0 {
        return None;
    }
    let namespace =
        |of: &str| fs::metadata(format!("{of}/ns/user")).ok().map(|it| (it.dev(), it.ino()));
    if namespace(&process)? == namespace("/proc/self")? {
        return Some(Reach::Everything);
    }
    let map = |name: &str| fs::read_to_string(format!("{process}/{name}")).ok();
    Some(Reach::Mapped { users: ranges(&map("uid_map")?), groups: ranges(&map("gid_map")?) })
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// What the ids of a namespace are outside of it: `INSIDE OUTSIDE COUNT` a line.
fn ranges(map: &str) -> Vec<(u32, u32)> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace().skip(1).map(str::parse::<u32>);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    map.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use mooring_sharedfs_core::Ino;
    use mooring_sharedfs_core::ops::SetAttributes;

    use super::*;

    #[test]
    fn each_operation_takes_the_capability_that_linux_asks_for() {
        let set = |set| needed(&KernelOperation::Setattr { ino: Ino(5), set });
        let none = SetAttributes::default();
        assert_eq!(set(SetAttributes { uid: Some(1), ..none }), Some(Capabilities(CHOWN)));
        let mode = Some(mooring_sharedfs_core::Mode::new(0o600));
        assert_eq!(set(SetAttributes { mode, ..none }), Some(Capabilities(FOWNER)));
        let both = SetAttributes { gid: Some(1), mtime: SetTime::Now, ..none };
        assert_eq!(set(both), Some(Capabilities(CHOWN | FOWNER)));
        assert_eq!(needed(&KernelOperation::Getattr { ino: Ino(5) }), None);
    }

    #[test]
    fn a_namespace_reaches_what_it_has_names_for() {
        let reach = Reach::Mapped {
            users: ranges("         0       1000          1\n         1     100000      65536\n"),
            groups: ranges("0 100000 65536"),
        };
        for (uid, gid, covered) in [
            (1000, 100_000, true),
            (165_535, 165_535, true),
            (0, 100_000, false),
            (1001, 100_000, false),
            (165_536, 100_000, false),
            (100_000, 1000, false),
        ] {
            assert_eq!(reach.covers(uid, gid), covered, "{uid}:{gid}");
        }
    }

    #[test]
    fn this_process_has_what_its_status_says() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let has = effective(&status).unwrap() & FOWNER != 0;
        let reach = reach_of(std::process::id(), Capabilities(FOWNER));
        assert_eq!(reach, if has { Reach::Everything } else { Reach::Nothing });
        // A process that isn't seen, and a capability that there isn't.
        assert_eq!(reach_of(0, Capabilities(0)), Reach::Nothing);
        assert_eq!(reach_of(std::process::id(), Capabilities(1 << 63)), Reach::Nothing);
    }
}

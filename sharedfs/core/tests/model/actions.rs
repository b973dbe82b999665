//! What can be done, with small numbers for names, inodes and callers.

use mooring_sharedfs_core::ops::{RenameMode, SetTime, XattrMode};
use mooring_sharedfs_core::{Mode, Timestamp};
use proptest::prelude::*;

/// One thing that somebody does. Inodes are chosen among those that ever were, by number.
#[derive(Clone, Debug)]
pub enum Action {
    Lookup {
        who: usize,
        dir: usize,
        name: u8,
    },
    Make {
        who: usize,
        dir: usize,
        name: u8,
        kind: u8,
        mode: Mode,
    },
    Create {
        who: usize,
        dir: usize,
        name: u8,
        mode: Mode,
        exclusive: bool,
        access: u8,
    },
    Link {
        who: usize,
        ino: usize,
        dir: usize,
        name: u8,
    },
    Unlink {
        who: usize,
        dir: usize,
        name: u8,
    },
    Rmdir {
        who: usize,
        dir: usize,
        name: u8,
    },
    Rename {
        who: usize,
        from: (usize, u8),
        to: (usize, u8),
        mode: RenameMode,
    },
    Chmod {
        who: usize,
        ino: usize,
        mode: Mode,
    },
    Chown {
        who: usize,
        ino: usize,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Times {
        who: usize,
        ino: usize,
        atime: SetTime,
        mtime: SetTime,
    },
    Truncate {
        who: usize,
        ino: usize,
        size: u64,
    },
    Access {
        who: usize,
        ino: usize,
        access: u8,
    },
    Write {
        ino: usize,
        offset: u64,
        length: usize,
        byte: u8,
    },
    /// A write whose writer dies after the blocks and before the commit, behind the end of the file.
    LostWrite {
        ino: usize,
        distance: u64,
        length: usize,
    },
    Allocate {
        who: usize,
        ino: usize,
        from: u64,
        length: u64,
        keep_size: bool,
    },
    Punch {
        who: usize,
        ino: usize,
        from: u64,
        length: u64,
    },
    Zero {
        who: usize,
        ino: usize,
        from: u64,
        length: u64,
        keep_size: bool,
    },
    Readlink {
        ino: usize,
    },
    SetXattr {
        who: usize,
        ino: usize,
        name: u8,
        value: u8,
        mode: XattrMode,
    },
    GetXattr {
        who: usize,
        ino: usize,
        name: u8,
    },
    RemoveXattr {
        who: usize,
        ino: usize,
        name: u8,
    },
    Open {
        ino: usize,
    },
    Close {
        ino: usize,
    },
    /// Nobody can write any more what was freed.
    Release,
}

fn who() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0_usize), 2 => 1..4_usize]
}

fn dir() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0_usize), 3 => 0..8_usize]
}

fn ino() -> impl Strategy<Value = usize> {
    0..10_usize
}

fn name() -> impl Strategy<Value = u8> {
    0..4_u8
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(0o777),
        Just(0o755),
        Just(0o644),
        Just(0o1777),
        Just(0o2775),
        Just(0o6755),
        Just(0o000),
        0..0o10000_u16
    ]
    .prop_map(Mode::new)
}

fn time() -> impl Strategy<Value = SetTime> {
    prop_oneof![
        Just(SetTime::Keep),
        Just(SetTime::Now),
        (-5..5_i64).prop_map(|seconds| SetTime::At(Timestamp { seconds, nanoseconds: 7 })),
    ]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..200_u64,
        4 => 0..30_000_u64,
        2 => (0..8_u64).prop_map(|block| block * 4096),
        1 => (0..8_u64, 1..4_u64).prop_map(|(block, less)| (block * 4096).saturating_sub(less)),
    ]
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 1..300_u64,
        3 => 1..20_000_u64,
        2 => (1..5_u64).prop_map(|blocks| blocks * 4096),
    ]
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![
        4 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange),
        1 => Just(RenameMode::Whiteout),
    ]
}

fn xattr_mode() -> impl Strategy<Value = XattrMode> {
    prop_oneof![Just(XattrMode::Set), Just(XattrMode::Create), Just(XattrMode::Replace)]
}

pub fn make_file(name: u8) -> Action {
    Action::Make { who: 0, dir: 0, name, kind: 0, mode: Mode::new(0o666) }
}

pub fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => namespace(),
        5 => attributes(),
        5 => contents(ino().boxed()),
        2 => xattrs(),
        2 => prop_oneof![
            ino().prop_map(|ino| Action::Open { ino }),
            ino().prop_map(|ino| Action::Close { ino }),
            Just(Action::Release),
        ],
    ]
}

pub fn contents_action() -> impl Strategy<Value = Action> {
    prop_oneof![12 => contents((1..3_usize).boxed()), 1 => Just(Action::Release)]
}

fn namespace() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => (who(), dir(), name()).prop_map(|(who, dir, name)| Action::Lookup { who, dir, name }),
        4 => (who(), dir(), name(), prop_oneof![Just(1_u8), 0..7_u8], mode())
            .prop_map(|(who, dir, name, kind, mode)| Action::Make { who, dir, name, kind, mode }),
        2 => (who(), dir(), name(), mode(), any::<bool>(), 0..8_u8).prop_map(
            |(who, dir, name, mode, exclusive, access)| {
                Action::Create { who, dir, name, mode, exclusive, access }
            }
        ),
        1 => (who(), ino(), dir(), name())
            .prop_map(|(who, ino, dir, name)| Action::Link { who, ino, dir, name }),
        2 => (who(), dir(), name()).prop_map(|(who, dir, name)| Action::Unlink { who, dir, name }),
        1 => (who(), dir(), name()).prop_map(|(who, dir, name)| Action::Rmdir { who, dir, name }),
        4 => (who(), (dir(), name()), (dir(), name()), rename_mode())
            .prop_map(|(who, from, to, mode)| Action::Rename { who, from, to, mode }),
    ]
}

fn attributes() -> impl Strategy<Value = Action> {
    let uid = || proptest::option::of(1000..1002_u32);
    let gid = || proptest::option::of(100..102_u32);
    prop_oneof![
        (who(), ino(), mode()).prop_map(|(who, ino, mode)| Action::Chmod { who, ino, mode }),
        (who(), ino(), uid(), gid()).prop_map(|(who, ino, uid, gid)| Action::Chown {
            who,
            ino,
            uid,
            gid
        }),
        (who(), ino(), time(), time()).prop_map(|(who, ino, atime, mtime)| Action::Times {
            who,
            ino,
            atime,
            mtime
        }),
        (who(), ino(), 0..8_u8).prop_map(|(who, ino, access)| Action::Access { who, ino, access }),
        ino().prop_map(|ino| Action::Readlink { ino }),
    ]
}

fn contents(ino: BoxedStrategy<usize>) -> impl Strategy<Value = Action> {
    let range = || (ino.clone(), offset(), length());
    prop_oneof![
        6 => (range(), any::<u8>()).prop_map(|((ino, offset, length), byte)| Action::Write {
            ino,
            offset,
            length: length as usize,
            byte
        }),
        1 => (range()).prop_map(|(ino, distance, length)| Action::LostWrite {
            ino,
            distance,
            length: length as usize
        }),
        3 => (who(), ino.clone(), offset())
            .prop_map(|(who, ino, size)| Action::Truncate { who, ino, size }),
        2 => (who(), range(), any::<bool>()).prop_map(|(who, (ino, from, length), keep_size)| {
            Action::Allocate { who, ino, from, length, keep_size }
        }),
        2 => (who(), range())
            .prop_map(|(who, (ino, from, length))| Action::Punch { who, ino, from, length }),
        2 => (who(), range(), any::<bool>()).prop_map(|(who, (ino, from, length), keep_size)| {
            Action::Zero { who, ino, from, length, keep_size }
        }),
    ]
}

fn xattrs() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => (who(), ino(), 0..4_u8, any::<u8>(), xattr_mode()).prop_map(
            |(who, ino, name, value, mode)| Action::SetXattr { who, ino, name, value, mode }
        ),
        1 => (who(), ino(), 0..4_u8).prop_map(|(who, ino, name)| Action::GetXattr { who, ino, name }),
        1 => (who(), ino(), 0..4_u8)
            .prop_map(|(who, ino, name)| Action::RemoveXattr { who, ino, name }),
    ]
}

pub fn name_bytes(name: u8) -> Vec<u8> {
    vec![b'a' + name]
}

/// Two names of users, one that only the privileged see, and the one that goes with privileges.
pub fn xattr_name(name: u8) -> &'static [u8] {
    [&b"user.a"[..], b"user.b", b"trusted.c", b"security.capability"][usize::from(name)]
}

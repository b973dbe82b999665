//! The kernel's requests in the words of the client's core. Pure.
//!
//! A node's number is its inode's: those are given once in a volume's life, so no table is needed, and
//! no generation.

use mooring_fuse::Write;
use mooring_fuse::abi::{LockIn, SetattrIn, lock, read, setattr, write};
use mooring_fuse::request::{Operation, Request};
use mooring_sharedfs_client::{
    AllocateMode, HandleId, KernelId, KernelOperation, KernelRequest, LockKind,
};
use mooring_sharedfs_core::file::Seek;
use mooring_sharedfs_core::locks::{LockMode, LockRange, LockSpace};
use mooring_sharedfs_core::ops::{Make, New, RenameMode, SetAttributes, SetTime, XattrMode};
use mooring_sharedfs_core::{
    Access, Caller, Cookie, Device, Groups, Ino, Mode, Name, NameError, Timestamp,
};

/// What has to be known of a request to put its answer together, beside the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nothing.
    Plain,
    /// The attributes are told as STATX has them.
    Statx,
    /// So much room; none asks for the size alone.
    Sized(u32),
    /// Names of a directory, behind this place.
    Listing(Listing),
    /// An open file: whether it was opened with O_DIRECT, and whether a CREATE that finds a file empties
    /// it (the kernel does so itself with a file that it knew of).
    Open { o_direct: bool, truncates: bool },
    /// The kernel believes the attributes even if it was told meanwhile to forget them: it may not keep
    /// them.
    Unkept,
    /// A lock, which is freed again if its caller is gone when it comes.
    Lock(WantedLock),
}

/// A lock that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WantedLock {
    pub(crate) ino: Ino,
    pub(crate) space: LockSpace,
    pub(crate) owner: u64,
    pub(crate) range: LockRange,
}

/// Which names of a directory are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) dir: Ino,
    pub(crate) handle: HandleId,
    pub(crate) after: Cookie,
    pub(crate) room: u32,
    pub(crate) plus: bool,
}

/// An errno.
pub(crate) type Refused = i32;

/// Bytes of a name in a listing, with and without attributes, at the least; and what most names are
/// longer than, so that not many are fetched for which there is no room.
const PLAIN_BYTES: u32 = 24 + 16;
const PLUS_BYTES: u32 = 128 + PLAIN_BYTES;

/// A request in the core's words, and what its answer needs.
///
/// # Errors
/// The errno to answer with.
pub(crate) fn translate(
    request: &Request<'_>,
    squash: bool,
) -> Result<(KernelRequest, Form), Refused> {
    let header = &request.header;
    let (operation, form) = operation(Ino(header.node), &request.operation)?;
    let caller = caller(header.uid, header.gid, squash);
    Ok((KernelRequest { id: KernelId(header.unique), caller, operation }, form))
}

/// A WRITE in the core's words.
pub(crate) fn translate_write(write: Write) -> KernelRequest {
    let cached = write.write_flags & write::CACHE != 0;
    let operation = KernelOperation::Write {
        handle: HandleId(write.fh),
        offset: write.offset,
        bytes: write.data,
        append: !cached && has(write.flags, libc::O_APPEND),
        cached,
        kill_privileges: write.write_flags & write::KILL_SUIDGID != 0,
        sync: !cached && has(write.flags, libc::O_DSYNC),
    };
    let id = KernelId(write.header.unique);
    // Whoever has it open was let in.
    KernelRequest { id, caller: caller(write.header.uid, write.header.gid, false), operation }
}

/// Who root is where it is squashed: the user that owns nothing.
const NOBODY: u32 = 65534;

/// The kernel has checked permissions (`default_permissions`), against attributes that it was told; but it lets
/// root do everything, so who is squashed is checked by the coordinator.
fn caller(uid: u32, gid: u32, squash: bool) -> Caller {
    if squash && uid == 0 {
        return Caller::user(NOBODY, NOBODY);
    }
    Caller { uid, gid, groups: Groups::CheckedByKernel, privileged: uid == 0 }
}

fn operation(ino: Ino, operation: &Operation<'_>) -> Result<(KernelOperation, Form), Refused> {
    use KernelOperation as K;
    Ok(match *operation {
        Operation::Lookup { name: of } => plain(K::Lookup { dir: ino, name: name(of)? }),
        Operation::Getattr { .. } => plain(K::Getattr { ino }),
        Operation::Statx { .. } => (K::Getattr { ino }, Form::Statx),
        Operation::Setattr { set } => (K::Setattr { ino, set: set_attributes(&set) }, Form::Unkept),
        Operation::Access { mask } => {
            plain(K::Access { ino, access: Access::from_bits(mask as u8) })
        }
        Operation::Readlink => plain(K::Readlink { ino }),
        Operation::Symlink { name: of, target } => {
            let make = make(New::Symlink(target.to_vec()), 0o777, 0);
            plain(K::Make { dir: ino, name: name(of)?, make })
        }
        Operation::Mknod { name: of, mode, rdev, umask } => {
            let make = make(new(mode, rdev)?, mode, umask);
            plain(K::Make { dir: ino, name: name(of)?, make })
        }
        Operation::Mkdir { name: of, mode, umask } => {
            let make = make(New::Directory, mode, umask);
            plain(K::Make { dir: ino, name: name(of)?, make })
        }
        Operation::Unlink { name: of } => plain(K::Unlink { dir: ino, name: name(of)? }),
        Operation::Rmdir { name: of } => plain(K::Rmdir { dir: ino, name: name(of)? }),
        Operation::Rename { name: of, to, to_name, flags } => {
            let (from, to) = ((ino, name(of)?), (Ino(to), name(to_name)?));
            plain(K::Rename { from, to, mode: rename_mode(flags)? })
        }
        Operation::Link { node, name: of } => {
            (K::Link { ino: Ino(node), dir: ino, name: name(of)? }, Form::Unkept)
        }
        Operation::Statfs => plain(K::Statfs),
        Operation::Open { .. }
        | Operation::Create { .. }
        | Operation::Read { .. }
        | Operation::Flush { .. }
        | Operation::Fsync { .. }
        | Operation::Release { .. }
        | Operation::Fallocate { .. }
        | Operation::Lseek { .. } => return of_file(ino, operation),
        Operation::Opendir { .. }
        | Operation::Readdir { .. }
        | Operation::Fsyncdir { .. }
        | Operation::Releasedir { .. } => return of_directory(ino, operation),
        Operation::Getxattr { .. }
        | Operation::Listxattr { .. }
        | Operation::Setxattr { .. }
        | Operation::Removexattr { .. } => return of_xattr(ino, operation),
        Operation::Getlk { lock } => plain(get_lock(ino, &lock)?),
        Operation::Setlk { lock, wait } => return set_lock(ino, &lock, wait),
        // The kernel copies by itself, through the page cache, and asks no more.
        Operation::CopyFileRange { .. } => return Err(libc::ENOSYS),
        Operation::Tmpfile { flags, mode, umask } => {
            let modes = (Mode::new(mode as u16), Mode::new(umask as u16));
            let form = Form::Open { o_direct: has(flags, libc::O_DIRECT), truncates: false };
            (K::Tmpfile { dir: ino, modes, access: access(flags) }, form)
        }
        // What is never answered, or comes by other ways; IOCTL, POLL and what is new.
        Operation::Init { .. }
        | Operation::Write { .. }
        | Operation::Forget { .. }
        | Operation::BatchForget { .. }
        | Operation::Interrupt { .. }
        | Operation::Destroy
        | Operation::Unknown => return Err(libc::ENOSYS),
    })
}

fn of_file(ino: Ino, operation: &Operation<'_>) -> Result<(KernelOperation, Form), Refused> {
    use KernelOperation as K;
    Ok(match *operation {
        Operation::Open { flags, .. } => {
            let form = Form::Open { o_direct: has(flags, libc::O_DIRECT), truncates: false };
            (K::Open { ino, access: access(flags) }, form)
        }
        Operation::Create { name: of, flags, mode, umask } => {
            let exclusive = has(flags, libc::O_EXCL);
            let modes = (Mode::new(mode as u16), Mode::new(umask as u16));
            let asked =
                K::Create { dir: ino, name: name(of)?, modes, exclusive, access: access(flags) };
            let truncates = has(flags, libc::O_TRUNC) && !exclusive;
            (asked, Form::Open { o_direct: has(flags, libc::O_DIRECT), truncates })
        }
        Operation::Read { fh, offset, size, read_flags, .. } => {
            // Also through descriptors past the page cache: the faults of a mapping fill it.
            let cached = read_flags & read::LOCK_OWNER == 0;
            plain(K::Read { handle: HandleId(fh), offset, length: u64::from(size), cached })
        }
        Operation::Flush { fh, owner } => plain(K::Flush { handle: HandleId(fh), owner }),
        Operation::Fsync { fh, .. } => plain(K::Fsync { handle: HandleId(fh) }),
        Operation::Release { fh, owner, release_flags } => {
            let unlocks = release_flags & mooring_fuse::abi::release::FLOCK_UNLOCK != 0;
            plain(K::Release { handle: HandleId(fh), flock: unlocks.then_some(owner) })
        }
        Operation::Fallocate { fh, offset, length, mode } => {
            let (mode, keep_size) = allocate_mode(mode)?;
            let end = offset.checked_add(length).ok_or(libc::EFBIG)?;
            plain(K::Allocate { handle: HandleId(fh), mode, range: (offset, end), keep_size })
        }
        Operation::Lseek { fh, offset, whence } => {
            let seek = match whence as i32 {
                libc::SEEK_DATA => Seek::Data,
                libc::SEEK_HOLE => Seek::Hole,
                _ => return Err(libc::EINVAL),
            };
            plain(K::Seek { handle: HandleId(fh), offset, seek })
        }
        _ => return Err(libc::ENOSYS),
    })
}

fn of_directory(ino: Ino, operation: &Operation<'_>) -> Result<(KernelOperation, Form), Refused> {
    use KernelOperation as K;
    Ok(match *operation {
        Operation::Opendir { .. } => plain(K::Opendir { dir: ino }),
        Operation::Readdir { fh, offset, size, plus } => {
            let (handle, after) = (HandleId(fh), Cookie(offset));
            let limit = (size / if plus { PLUS_BYTES } else { PLAIN_BYTES }).max(1);
            let listing = Listing { dir: ino, handle, after, room: size, plus };
            (K::Readdir { handle, after, limit, plus }, Form::Listing(listing))
        }
        Operation::Fsyncdir { fh, .. } => plain(K::Fsync { handle: HandleId(fh) }),
        Operation::Releasedir { fh } => plain(K::Release { handle: HandleId(fh), flock: None }),
        _ => return Err(libc::ENOSYS),
    })
}

fn of_xattr(ino: Ino, operation: &Operation<'_>) -> Result<(KernelOperation, Form), Refused> {
    use KernelOperation as K;
    Ok(match *operation {
        Operation::Getxattr { name, size } => {
            (K::Getxattr { ino, name: name.to_vec() }, Form::Sized(size))
        }
        Operation::Listxattr { size } => (K::Listxattr { ino }, Form::Sized(size)),
        Operation::Setxattr { name, value, flags } => {
            let mode = match flags as i32 {
                0 => XattrMode::Set,
                libc::XATTR_CREATE => XattrMode::Create,
                libc::XATTR_REPLACE => XattrMode::Replace,
                _ => return Err(libc::EINVAL),
            };
            plain(K::Setxattr { ino, name: name.to_vec(), value: value.to_vec(), mode })
        }
        Operation::Removexattr { name } => plain(K::Removexattr { ino, name: name.to_vec() }),
        _ => return Err(libc::ENOSYS),
    })
}

fn plain(operation: KernelOperation) -> (KernelOperation, Form) {
    (operation, Form::Plain)
}

fn has(flags: u32, bits: i32) -> bool {
    flags & bits as u32 == bits as u32
}

fn name(bytes: &[u8]) -> Result<Name, Refused> {
    Name::new(bytes).map_err(|error| match error {
        NameError::TooLong => libc::ENAMETOOLONG,
        NameError::Invalid => libc::EINVAL,
    })
}

fn access(flags: u32) -> Access {
    match flags as i32 & libc::O_ACCMODE {
        libc::O_RDONLY => Access::READ,
        libc::O_WRONLY => Access::WRITE,
        _ => Access::READ.and(Access::WRITE),
    }
}

fn make(new: New, mode: u32, umask: u32) -> Make {
    Make { new, mode: Mode::new(mode as u16), umask: Mode::new(umask as u16) }
}

fn new(mode: u32, rdev: u32) -> Result<New, Refused> {
    Ok(match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => New::Regular,
        libc::S_IFIFO => New::Fifo,
        libc::S_IFSOCK => New::Socket,
        libc::S_IFCHR => New::CharDevice(Device(rdev)),
        libc::S_IFBLK => New::BlockDevice(Device(rdev)),
        _ => return Err(libc::EINVAL),
    })
}

fn rename_mode(flags: u32) -> Result<RenameMode, Refused> {
    match flags {
        0 => Ok(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        libc::RENAME_WHITEOUT => Ok(RenameMode::Whiteout),
        _ => Err(libc::EINVAL),
    }
}

fn set_attributes(set: &SetattrIn) -> SetAttributes {
    let valid = |bit| set.valid & bit != 0;
    let time = |bit, now, seconds: u64, nanoseconds| match (valid(bit), valid(now)) {
        (false, _) => SetTime::Keep,
        (true, true) => SetTime::Now,
        // The kernel keeps the sign.
        (true, false) => SetTime::At(Timestamp { seconds: seconds as i64, nanoseconds }),
    };
    SetAttributes {
        mode: valid(setattr::MODE).then(|| Mode::new(set.mode as u16)),
        uid: valid(setattr::UID).then_some(set.uid),
        gid: valid(setattr::GID).then_some(set.gid),
        size: valid(setattr::SIZE).then_some(set.size),
        atime: time(setattr::ATIME, setattr::ATIME_NOW, set.atime, set.atime_nsec),
        mtime: time(setattr::MTIME, setattr::MTIME_NOW, set.mtime, set.mtime_nsec),
        by_handle: valid(setattr::FH),
    }
}

fn allocate_mode(mode: u32) -> Result<(AllocateMode, bool), Refused> {
    let keep_size = has(mode, libc::FALLOC_FL_KEEP_SIZE);
    match mode as i32 & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Ok((AllocateMode::Allocate, keep_size)),
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => Ok((AllocateMode::Punch, true)),
        libc::FALLOC_FL_ZERO_RANGE => Ok((AllocateMode::Zero, keep_size)),
        _ => Err(libc::EOPNOTSUPP),
    }
}

fn space_and_range(asked: &LockIn) -> (LockSpace, LockRange) {
    if asked.flags & lock::FLOCK != 0 {
        return (LockSpace::Flock, LockRange::ALL);
    }
    // The kernel's end of all files.
    let end = if asked.end >= i64::MAX as u64 { u64::MAX } else { asked.end };
    (LockSpace::Range, LockRange { start: asked.start, end })
}

fn lock_mode(kind: u32) -> Result<LockMode, Refused> {
    match kind as i32 {
        libc::F_RDLCK => Ok(LockMode::Read),
        libc::F_WRLCK => Ok(LockMode::Write),
        _ => Err(libc::EINVAL),
    }
}

fn set_lock(ino: Ino, asked: &LockIn, wait: bool) -> Result<(KernelOperation, Form), Refused> {
    let (space, range) = space_and_range(asked);
    let owner = asked.owner;
    let (kind, form) = if asked.kind as i32 == libc::F_UNLCK {
        (LockKind::Unlock, Form::Plain)
    } else {
        let mode = lock_mode(asked.kind)?;
        let kind = if wait { LockKind::Wait(mode) } else { LockKind::Set(mode) };
        (kind, Form::Lock(WantedLock { ino, space, owner, range }))
    };
    Ok((KernelOperation::Lock { ino, space, owner, kind, range, pid: asked.pid }, form))
}

fn get_lock(ino: Ino, asked: &LockIn) -> Result<KernelOperation, Refused> {
    let (space, range) = space_and_range(asked);
    let mode = lock_mode(asked.kind)?;
    Ok(KernelOperation::Getlock { ino, space, owner: asked.owner, mode, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_to_the_end_of_the_file_has_no_end() {
        let asked = LockIn { start: 7, end: i64::MAX as u64, ..LockIn::default() };
        assert_eq!(
            space_and_range(&asked),
            (LockSpace::Range, LockRange { start: 7, end: u64::MAX })
        );
        let flock = LockIn { flags: lock::FLOCK, ..asked };
        assert_eq!(space_and_range(&flock), (LockSpace::Flock, LockRange::ALL));
    }

    #[test]
    fn dates_before_1970_and_now_are_told_apart() {
        let set = SetattrIn {
            valid: setattr::ATIME | setattr::MTIME | setattr::MTIME_NOW,
            atime: (-5_i64) as u64,
            atime_nsec: 9,
            ..SetattrIn::default()
        };
        let translated = set_attributes(&set);
        let past = Timestamp { seconds: -5, nanoseconds: 9 };
        assert_eq!((translated.atime, translated.mtime), (SetTime::At(past), SetTime::Now));
        assert_eq!((translated.size, translated.mode), (None, None));
    }

    #[test]
    fn bytes_of_the_page_cache_are_never_appended() {
        let write = |write_flags| Write {
            header: mooring_fuse::abi::InHeader::default(),
            fh: 3,
            offset: 10,
            data: bytes::Bytes::from_static(b"x"),
            write_flags,
            flags: (libc::O_WRONLY | libc::O_APPEND) as u32,
        };
        let appends = |write_flags| match translate_write(write(write_flags)).operation {
            KernelOperation::Write { append, .. } => append,
            _ => unreachable!("a write is a write"),
        };
        assert!(appends(0));
        assert!(!appends(write::CACHE));
        let syncs = |flags: i32| {
            let mut asked = write(0);
            asked.flags |= flags as u32;
            matches!(translate_write(asked).operation, KernelOperation::Write { sync: true, .. })
        };
        assert!(syncs(libc::O_DSYNC) && syncs(libc::O_SYNC) && !syncs(0));
    }

    #[test]
    fn holes_keep_the_size() {
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        assert_eq!(allocate_mode(punch as u32), Ok((AllocateMode::Punch, true)));
        assert_eq!(allocate_mode(libc::FALLOC_FL_PUNCH_HOLE as u32), Err(libc::EOPNOTSUPP));
        assert_eq!(allocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE as u32), Err(libc::EOPNOTSUPP));
    }

    #[test]
    fn root_is_nobody_where_it_is_squashed_and_nobody_else_is() {
        assert_eq!(caller(0, 0, true), Caller::user(NOBODY, NOBODY));
        assert!(caller(0, 0, false).privileged);
        for squash in [false, true] {
            let user = caller(1000, 100, squash);
            assert_eq!((user.uid, user.gid, user.privileged), (1000, 100, false));
        }
    }
}

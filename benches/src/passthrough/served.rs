//! Each request, done on the directory beneath.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, Dev, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid};

use crate::nodes::{Nodes, reopening};

/// For how long the kernel may use names and attributes: as libfuse's own passthrough.
const VALID: Duration = Duration::from_secs(1);

/// The largest write in bytes.
const MAX_WRITE: u32 = 1 << 20;

/// The file system.
pub(crate) struct Passthrough {
    nodes: Nodes,
    files: DashMap<u64, Arc<File>>,
    directories: DashMap<u64, Vec<Listed>>,
    next_handle: AtomicU64,
}

/// One name of a directory that was opened.
struct Listed {
    ino: u64,
    kind: FileType,
    name: Vec<u8>,
}

impl Passthrough {
    /// # Errors
    /// `source` can't be opened.
    pub(crate) fn new(source: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            nodes: Nodes::new(rustix::fs::open(source, flags, Mode::empty())?),
            files: DashMap::new(),
            directories: DashMap::new(),
            next_handle: AtomicU64::new(1),
        })
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let directory = self.nodes.get(parent.0)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*directory, name, flags, Mode::empty())?;
        let stat = stat_of(&fd)?;
        Ok(attributes(self.nodes.looked_up(fd, &stat), &stat))
    }

    fn stat(&self, node: INodeNo) -> io::Result<FileAttr> {
        Ok(attributes(node.0, &stat_of(&*self.nodes.get(node.0)?)?))
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let found = self.files.get(&handle.0).map(|file| file.clone());
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn opened(&self, file: OwnedFd) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.files.insert(handle, Arc::new(File::from(file)));
        FileHandle(handle)
    }

    fn open_node(&self, node: INodeNo, flags: OpenFlags) -> io::Result<FileHandle> {
        let node = self.nodes.get(node.0)?;
        let flags = OFlags::from_bits_retain(flags.0 as u32) & !OFlags::NOFOLLOW;
        Ok(self.opened(rustix::fs::open(reopening(&node), flags | OFlags::CLOEXEC, Mode::empty())?))
    }

    fn create_file(
        &self,
        (req, parent, name): (&Request, INodeNo, &OsStr),
        mode: u32,
        flags: i32,
    ) -> io::Result<(FileAttr, FileHandle)> {
        let directory = self.nodes.get(parent.0)?;
        let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*directory, name, flags, Mode::from_raw_mode(mode))?;
        give_to(req, &file)?;
        Ok((self.find(parent, name)?, self.opened(file)))
    }

    fn list(&self, node: INodeNo) -> io::Result<FileHandle> {
        let node = self.nodes.get(node.0)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(reopening(&node), flags, Mode::empty())?;
        let mut buffer = Vec::with_capacity(64 << 10);
        let mut raw = RawDir::new(directory, buffer.spare_capacity_mut());
        let mut listed = Vec::new();
        while let Some(entry) = raw.next() {
            let entry = entry?;
            listed.push(Listed {
                ino: entry.ino(),
                kind: kind(entry.file_type()),
                name: entry.file_name().to_bytes().to_vec(),
            });
        }
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.directories.insert(handle, listed);
        Ok(FileHandle(handle))
    }

    fn change(&self, node: INodeNo, change: &Change) -> io::Result<FileAttr> {
        let fd = self.nodes.get(node.0)?;
        let path = reopening(&fd);
        if let Some(mode) = change.mode {
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode))?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            rustix::fs::chownat(&*fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(size) = change.size {
            File::options().write(true).open(&path)?.set_len(size)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(change.atime),
                last_modification: timespec(change.mtime),
            };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::empty())?;
        }
        self.stat(node)
    }
}

struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

fn stat_of(fd: impl AsFd) -> io::Result<Stat> {
    Ok(rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?)
}

/// What the caller makes is the caller's, not ours.
fn give_to(req: &Request, fd: impl AsFd) -> io::Result<()> {
    if req.uid() == 0 && req.gid() == 0 {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(req.uid())), Some(Gid::from_raw(req.gid())));
    Ok(rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)?)
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec { tv_sec: since.as_secs() as i64, tv_nsec: i64::from(since.subsec_nanos()) }
        }
    }
}

fn date(seconds: i64, nanoseconds: u64) -> SystemTime {
    let since = Duration::new(seconds.unsigned_abs(), nanoseconds as u32);
    if seconds >= 0 { UNIX_EPOCH + since } else { UNIX_EPOCH - since }
}

fn kind(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Raw;
    match kind {
        Raw::Directory => FileType::Directory,
        Raw::Symlink => FileType::Symlink,
        Raw::Fifo => FileType::NamedPipe,
        Raw::Socket => FileType::Socket,
        Raw::CharacterDevice => FileType::CharDevice,
        Raw::BlockDevice => FileType::BlockDevice,
        Raw::RegularFile | Raw::Unknown => FileType::RegularFile,
    }
}

fn attributes(node: u64, stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(node),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: date(stat.st_atime, stat.st_atime_nsec),
        mtime: date(stat.st_mtime, stat.st_mtime_nsec),
        ctime: date(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers with what was done, or why it wasn't.
macro_rules! answer {
    ($reply:expr, $done:expr, $value:ident => $ok:expr) => {
        let done = || -> io::Result<_> { $done };
        match done() {
            Ok($value) => $ok,
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        // What this kernel lacks it does without.
        let _ = config.add_capabilities(wanted & config.capabilities());
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(128);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.find(parent, name), found => reply.entry(&VALID, &found, Generation(0)));
    }

    fn forget(&self, _: &Request, node: INodeNo, lookups: u64) {
        self.nodes.forget(node.0, lookups);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.stat(node), found => reply.attr(&VALID, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, atime, mtime };
        answer!(reply, self.change(node, &change), found => reply.attr(&VALID, &found));
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        answer!(
            reply,
            Ok(rustix::fs::readlinkat(&*self.nodes.get(node.0)?, "", Vec::new())?),
            target => reply.data(target.as_bytes())
        );
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = || -> io::Result<FileAttr> {
            let directory = self.nodes.get(parent.0)?;
            let kind = rustix::fs::FileType::from_raw_mode(mode);
            let permissions = Mode::from_raw_mode(mode);
            rustix::fs::mknodat(&*directory, name, kind, permissions, Dev::from(rdev))?;
            self.owned(req, parent, name)
        };
        answer!(reply, made(), found => reply.entry(&VALID, &found, Generation(0)));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = || -> io::Result<FileAttr> {
            let directory = self.nodes.get(parent.0)?;
            rustix::fs::mkdirat(&*directory, name, Mode::from_raw_mode(mode))?;
            self.owned(req, parent, name)
        };
        answer!(reply, made(), found => reply.entry(&VALID, &found, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(
            reply,
            Ok(rustix::fs::unlinkat(&*self.nodes.get(parent.0)?, name, AtFlags::empty())?),
            _done => reply.ok()
        );
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(
            reply,
            Ok(rustix::fs::unlinkat(&*self.nodes.get(parent.0)?, name, AtFlags::REMOVEDIR)?),
            _done => reply.ok()
        );
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = || -> io::Result<FileAttr> {
            rustix::fs::symlinkat(target, &*self.nodes.get(parent.0)?, name)?;
            self.owned(req, parent, name)
        };
        answer!(reply, made(), found => reply.entry(&VALID, &found, Generation(0)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        answer!(
            reply,
            Ok(rustix::fs::renameat_with(
                &*self.nodes.get(parent.0)?, name, &*self.nodes.get(to.0)?, to_name, flags
            )?),
            _done => reply.ok()
        );
    }

    fn link(&self, _: &Request, node: INodeNo, to: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let made = || -> io::Result<FileAttr> {
            let (source, target) = (self.nodes.get(node.0)?, self.nodes.get(to.0)?);
            let flags = AtFlags::SYMLINK_FOLLOW;
            rustix::fs::linkat(rustix::fs::CWD, reopening(&source), &*target, name, flags)?;
            self.find(to, name)
        };
        answer!(reply, made(), found => reply.entry(&VALID, &found, Generation(0)));
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.open_node(node, flags), handle => {
            reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        answer!(reply, self.create_file((req, parent, name), mode, flags), made => {
            reply.created(&VALID, &made.0, Generation(0), made.1, FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; size as usize];
            let length = self.file(handle)?.read_at(&mut bytes, offset)?;
            bytes.truncate(length);
            Ok(bytes)
        };
        answer!(reply, read(), bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.file(handle)?.write_at(data, offset), size => reply.written(size as u32));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Asked once: the kernel then closes without it.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        let synced = || {
            let file = self.file(handle)?;
            if data { file.sync_data() } else { file.sync_all() }
        };
        answer!(reply, synced(), _done => reply.ok());
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.list(node), handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(listed) = self.directories.get(&handle.0) else {
            return reply.error(Errno::EBADF);
        };
        for (at, entry) in listed.iter().enumerate().skip(offset as usize) {
            let name = OsStr::from_bytes(&entry.name);
            if reply.add(INodeNo(entry.ino), at as u64 + 1, entry.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some(listed) = self.directories.get(&handle.0) else {
            return reply.error(Errno::EBADF);
        };
        for (at, entry) in listed.iter().enumerate().skip(offset as usize) {
            let name = OsStr::from_bytes(&entry.name);
            let of_itself = entry.name == b"." || entry.name == b"..";
            let found = if of_itself { self.stat(node) } else { self.find(node, name) };
            // Gone meanwhile: it is left out.
            let Ok(found) = found else { continue };
            if reply.add(found.ino, at as u64 + 1, name, &VALID, &found, Generation(0)) {
                if !of_itself {
                    self.nodes.forget(found.ino.0, 1);
                }
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.directories.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = || File::open(reopening(&*self.nodes.get(node.0)?))?.sync_all();
        answer!(reply, synced(), _done => reply.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let found = || Ok(rustix::fs::fstatvfs(&*self.nodes.get(INodeNo::ROOT.0)?)?);
        answer!(reply, found(), it => reply.statfs(
            it.f_blocks,
            it.f_bfree,
            it.f_bavail,
            it.f_files,
            it.f_ffree,
            it.f_bsize as u32,
            it.f_namemax as u32,
            it.f_frsize as u32,
        ));
    }
}

impl Passthrough {
    /// Gives the caller what was made just now, and looks it up.
    fn owned(&self, req: &Request, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let made = self.find(parent, name)?;
        give_to(req, &*self.nodes.get(made.ino.0)?)?;
        self.stat(made.ino)
    }
}

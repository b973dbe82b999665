//! The real calls, below one directory a host.
#![allow(clippy::disallowed_methods, reason = "a pause is real")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FlockOperation, Mode, RenameFlags, SeekFrom, Timespec,
    Timestamps, XattrFlags,
};

use crate::action::{Action, Call, How, Moves, Space, bytes};
use crate::reference::{MAPPED, Outcome};

/// What a call gave.
#[derive(Debug)]
pub enum Got {
    Done,
    Bytes(Vec<u8>),
    Text(String),
    Names(BTreeSet<String>),
    Attributes(Box<Metadata>),
    /// Name, inode number and type of each.
    Entries(Vec<(String, u64, FileType)>),
    Place(u64),
    Count(u64),
}

/// A mapping of the first bytes of a file.
struct Map {
    start: *mut u8,
}

impl Map {
    fn new(open: &Open) -> io::Result<Self> {
        let mut prot = rustix::mm::ProtFlags::READ;
        if open.how.write {
            prot |= rustix::mm::ProtFlags::WRITE;
        }
        let flags = rustix::mm::MapFlags::SHARED;
        let length = MAPPED as usize;
        // SAFETY: a new mapping aliases nothing; it may reach behind the file's end.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, prot, flags, &open.file, 0)? };
        Ok(Self { start: start.cast() })
    }

    fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        // SAFETY: the reference has seen to it that the file reaches there, and nobody else works meanwhile.
        (offset..offset + length)
            .map(|at| unsafe { self.start.add(at as usize).read_volatile() })
            .collect()
    }

    fn write(&self, offset: u64, new: &[u8]) {
        for (at, byte) in (offset..).zip(new) {
            // SAFETY: as above.
            unsafe { self.start.add(at as usize).write_volatile(*byte) };
        }
    }

    fn sync(&self) -> io::Result<()> {
        // SAFETY: mapped by `new`.
        unsafe {
            rustix::mm::msync(self.start.cast(), MAPPED as usize, rustix::mm::MsyncFlags::SYNC)?
        };
        Ok(())
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no reference into it lives.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), MAPPED as usize) };
    }
}

struct Open {
    // Before the file: dirty pages are to be the file's before it is closed.
    map: Option<Map>,
    file: File,
    how: How,
}

/// All hosts, with what is open on them.
pub struct Hosts {
    roots: Vec<PathBuf>,
    open: BTreeMap<u32, Open>,
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("names have no zeros")
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(-1)
}

impl Hosts {
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, open: BTreeMap::new() }
    }

    /// Makes a call.
    pub fn call(&mut self, action: &Action) -> Outcome<Got> {
        let got = match &action.call {
            Call::Open { .. }
            | Call::Close { .. }
            | Call::Read { .. }
            | Call::Write { .. }
            | Call::Append { .. }
            | Call::Ftruncate { .. }
            | Call::Fallocate { .. }
            | Call::Fsync { .. }
            | Call::Fstat { .. }
            | Call::Seek { .. } => self.call_on_file(action),
            Call::MapRead { .. } | Call::MapWrite { .. } => self.call_on_map(action),
            Call::CopyRange { .. }
            | Call::Flock { .. }
            | Call::FlockFree { .. }
            | Call::RangeLock { .. } => self.call_on_files(action),
            Call::Pause { milliseconds } => {
                std::thread::sleep(Duration::from_millis(*milliseconds));
                Ok(Got::Done)
            }
            _ => self.call_on_path(&self.roots[action.host], &action.call),
        };
        got.map_err(|error| errno(&error))
    }

    fn file(&self, number: u32) -> &File {
        &self.open[&number].file
    }

    fn call_on_file(&mut self, action: &Action) -> io::Result<Got> {
        match &action.call {
            Call::Open { file, path, how } => {
                let opened = open(&self.roots[action.host].join(path), *how)?;
                self.open.insert(*file, Open { map: None, file: opened, how: *how });
            }
            Call::Close { file } => {
                let Open { map, file, .. } = self.open.remove(file).expect("it is open");
                drop(map);
                close(file)?;
            }
            Call::Read { file, offset, length } => {
                return read_at(self.file(*file), *offset, *length).map(Got::Bytes);
            }
            Call::Write { file, offset, length, fill } => {
                self.file(*file).write_all_at(&bytes(*fill, *length), *offset)?;
            }
            Call::Append { file, length, fill } => {
                self.file(*file).write_all(&bytes(*fill, *length))?;
            }
            Call::Ftruncate { file, size } => rustix::fs::ftruncate(self.file(*file), *size)?,
            Call::Fallocate { file, space, offset, length } => {
                let flags = match space {
                    Space::Allocate => FallocateFlags::empty(),
                    Space::AllocateKeep => FallocateFlags::KEEP_SIZE,
                    Space::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    Space::Zero => FallocateFlags::ZERO_RANGE,
                };
                rustix::fs::fallocate(self.file(*file), flags, *offset, *length)?;
            }
            Call::Fsync { file, data: true } => self.file(*file).sync_data()?,
            Call::Fsync { file, data: false } => self.file(*file).sync_all()?,
            Call::Fstat { file } => {
                return Ok(Got::Attributes(Box::new(self.file(*file).metadata()?)));
            }
            Call::Seek { file, offset, hole } => {
                let from = if *hole { SeekFrom::Hole(*offset) } else { SeekFrom::Data(*offset) };
                let found = match rustix::fs::seek(self.file(*file), from) {
                    // Nothing but a hole from here on: the end is as good.
                    Err(rustix::io::Errno::NXIO) if !hole => {
                        match self.file(*file).metadata()?.len() {
                            size if *offset < size => Ok(size),
                            _ => Err(rustix::io::Errno::NXIO),
                        }
                    }
                    found => found,
                };
                return Ok(Got::Place(found?));
            }
            _ => unreachable!("calls are sorted by `call`"),
        }
        Ok(Got::Done)
    }

    fn map(&mut self, file: u32) -> io::Result<&Map> {
        let open = self.open.get_mut(&file).expect("it is open");
        if open.map.is_none() {
            open.map = Some(Map::new(open)?);
        }
        Ok(open.map.as_ref().expect("it was made"))
    }

    /// Has the kernel look how long a file is: it asks nobody when a page is wanted, or bytes are copied.
    fn look_at_size(&self, file: u32) -> io::Result<()> {
        self.file(file).metadata().map(drop)
    }

    fn call_on_map(&mut self, action: &Action) -> io::Result<Got> {
        if let Call::MapRead { file, .. } | Call::MapWrite { file, .. } = &action.call {
            self.look_at_size(*file)?;
        }
        match &action.call {
            Call::MapRead { file, offset, length } => {
                return Ok(Got::Bytes(self.map(*file)?.read(*offset, *length)));
            }
            Call::MapWrite { file, offset, length, fill } => {
                let map = self.map(*file)?;
                map.write(*offset, &bytes(*fill, *length));
                map.sync()?;
            }
            _ => unreachable!("calls are sorted by `call`"),
        }
        Ok(Got::Done)
    }

    fn call_on_files(&mut self, action: &Action) -> io::Result<Got> {
        match &action.call {
            Call::CopyRange { from, at, to, offset, length } => {
                self.look_at_size(*from)?;
                let (source, target) = (self.file(*from), self.file(*to));
                let (mut at, mut offset, mut copied) = (*at, *offset, 0);
                while copied < *length {
                    let left = (*length - copied) as usize;
                    let one = rustix::fs::copy_file_range(
                        source,
                        Some(&mut at),
                        target,
                        Some(&mut offset),
                        left,
                    )?;
                    if one == 0 {
                        break;
                    }
                    copied += one as u64;
                }
                return Ok(Got::Count(copied));
            }
            Call::Flock { file, exclusive } => {
                let how = if *exclusive {
                    FlockOperation::NonBlockingLockExclusive
                } else {
                    FlockOperation::NonBlockingLockShared
                };
                rustix::fs::flock(self.file(*file), how)?;
            }
            Call::FlockFree { file } => {
                rustix::fs::flock(self.file(*file), FlockOperation::Unlock)?;
            }
            Call::RangeLock { file, first, length, exclusive } => {
                let kind = match exclusive {
                    Some(true) => libc::F_WRLCK,
                    Some(false) => libc::F_RDLCK,
                    None => libc::F_UNLCK,
                };
                range_lock(self.file(*file), kind, *first, *length)?;
            }
            _ => unreachable!("calls are sorted by `call`"),
        }
        Ok(Got::Done)
    }

    fn call_on_path(&self, root: &Path, call: &Call) -> io::Result<Got> {
        match call {
            Call::Truncate { path, size } => {
                // Not by opening it: that is another request.
                let path = c_path(&root.join(path));
                // SAFETY: the path ends with a zero.
                let done = unsafe { libc::truncate(path.as_ptr(), *size as i64) };
                if done != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Call::Mkdir { path, mode } => {
                rustix::fs::mkdir(root.join(path), Mode::from_bits_retain(*mode))?;
            }
            Call::Mkfifo { path, mode } => {
                let mode = Mode::from_bits_retain(*mode);
                rustix::fs::mknodat(CWD, root.join(path), rustix::fs::FileType::Fifo, mode, 0)?;
            }
            Call::Symlink { target, path } => rustix::fs::symlink(target, root.join(path))?,
            Call::Link { from, to } => {
                rustix::fs::linkat(CWD, root.join(from), CWD, root.join(to), AtFlags::empty())?;
            }
            Call::Unlink { path } => rustix::fs::unlink(root.join(path))?,
            Call::Rmdir { path } => rustix::fs::rmdir(root.join(path))?,
            Call::Rename { from, to, moves } => {
                let flags = match moves {
                    Moves::Replace => RenameFlags::empty(),
                    Moves::NoReplace => RenameFlags::NOREPLACE,
                    Moves::Exchange => RenameFlags::EXCHANGE,
                };
                rename(&root.join(from), &root.join(to), flags)?;
            }
            Call::Chmod { path, mode } => {
                rustix::fs::chmod(root.join(path), Mode::from_bits_retain(*mode))?;
            }
            Call::Chown { path, uid, gid } => {
                std::os::unix::fs::chown(root.join(path), Some(*uid), Some(*gid))?;
            }
            Call::Times { path, atime, mtime } => {
                let times = Timestamps {
                    last_access: timespec(*atime),
                    last_modification: timespec(*mtime),
                };
                rustix::fs::utimensat(CWD, root.join(path), &times, AtFlags::empty())?;
            }
            Call::SetXattr { path, name, value } => {
                rustix::fs::setxattr(root.join(path), name.as_str(), value, XattrFlags::empty())?;
            }
            Call::RemoveXattr { path, name } => {
                rustix::fs::removexattr(root.join(path), name.as_str())?;
            }
            _ => return look(root, call),
        }
        Ok(Got::Done)
    }
}

/// Calls that change nothing.
fn look(root: &Path, call: &Call) -> io::Result<Got> {
    match call {
        Call::GetXattr { path, name } => {
            let mut value = vec![0; 4096];
            let length = rustix::fs::getxattr(root.join(path), name.as_str(), &mut value)?;
            value.truncate(length);
            Ok(Got::Bytes(value))
        }
        Call::ListXattr { path } => {
            let mut list = vec![0_u8; 4096];
            let length = rustix::fs::listxattr(root.join(path), &mut list)?;
            let names = list[..length].split(|byte| *byte == 0);
            let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
            Ok(Got::Names(names.filter(|name| name.starts_with("user.")).collect()))
        }
        Call::Stat { path, follow: true } => {
            Ok(Got::Attributes(Box::new(fs::metadata(root.join(path))?)))
        }
        Call::Stat { path, follow: false } => {
            Ok(Got::Attributes(Box::new(fs::symlink_metadata(root.join(path))?)))
        }
        Call::Readlink { path } => {
            let target = fs::read_link(root.join(path))?;
            Ok(Got::Text(target.to_string_lossy().into_owned()))
        }
        Call::List { path } => {
            let mut entries = Vec::new();
            for entry in fs::read_dir(root.join(path))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                entries.push((name, entry.ino(), entry.file_type()?));
            }
            Ok(Got::Entries(entries))
        }
        Call::ReadFile { path } => Ok(Got::Bytes(fs::read(root.join(path))?)),
        _ => unreachable!("calls are sorted by `call`"),
    }
}

fn open(path: &Path, how: How) -> io::Result<File> {
    let mut flags = 0;
    for (asked, flag) in [
        (how.append, libc::O_APPEND),
        (how.create, libc::O_CREAT),
        (how.create && how.exclusive, libc::O_EXCL),
        (how.truncate, libc::O_TRUNC),
        (how.sync, libc::O_SYNC),
    ] {
        if asked {
            flags |= flag;
        }
    }
    let access = match (how.read, how.write) {
        (true, true) => libc::O_RDWR,
        (false, true) => libc::O_WRONLY,
        _ => libc::O_RDONLY,
    };
    let path = c_path(path);
    // SAFETY: the path ends with a zero.
    let fd = unsafe { libc::open(path.as_ptr(), access | flags | libc::O_CLOEXEC, 0o644) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and is nobody else's.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// rename(2). A directory that another host has moved, and that this kernel has met elsewhere, it can't put in
/// its new place while it holds its own lock of renames: it says ESTALE, until somebody has looked there.
fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    let tried = rustix::fs::renameat_with(CWD, from, CWD, to, flags);
    if tried != Err(rustix::io::Errno::STALE) {
        return Ok(tried?);
    }
    for path in [from, to] {
        // Whether it is there or not.
        let _ = fs::symlink_metadata(path);
    }
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, flags)?)
}

/// close(2), which may tell of an error.
fn close(file: File) -> io::Result<()> {
    let fd = std::os::fd::IntoRawFd::into_raw_fd(file);
    // SAFETY: it was ours.
    if unsafe { libc::close(fd) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut read = vec![0; length as usize];
    let mut done = 0;
    while done < read.len() {
        match file.read_at(&mut read[done..], offset + done as u64)? {
            0 => break,
            more => done += more,
        }
    }
    read.truncate(done);
    Ok(read)
}

fn range_lock(file: &File, kind: libc::c_int, first: u64, length: u64) -> io::Result<()> {
    let wanted = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: first as i64,
        l_len: length as i64,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the lock lives as long as the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const wanted) };
    if done != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn timespec(time: Option<i64>) -> Timespec {
    const SECOND: i64 = 1_000_000_000;
    match time {
        Some(time) => {
            Timespec { tv_sec: time.div_euclid(SECOND), tv_nsec: time.rem_euclid(SECOND) as _ }
        }
        None => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT as _ },
    }
}

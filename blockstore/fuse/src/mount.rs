//! Mounting, finding, aborting and unmounting the file system: mount(2) and /dev/fuse, no helper
//! programs.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use rustix::fs::{Mode, OFlags};

use crate::FuseError;
use crate::abi::{Frame, InitOut, OutHeader};
use crate::buffer::RequestBuffer;
use crate::channel::receive_one;
use crate::handshake::{Agreed, Features, Limits, negotiate};
use crate::request::{Operation, Request};

/// `FUSE_DEV_IOC_CLONE`: _IOR(229, 0, u32).
const DEV_IOC_CLONE: libc::Ioctl = 0x8004_e500;

/// One of our mounts, as the mount table of this process shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The type under which it is known in the mount table.
    pub fstype: String,
    /// Where.
    pub point: PathBuf,
    /// The file system's device number, which its files show in `st_dev`: major, minor. No two file
    /// systems of the machine have the same at one time.
    pub device: (u32, u32),
}

impl Mounted {
    /// All mounts of this type that this process can see.
    ///
    /// # Errors
    /// What reading /proc/self/mountinfo says.
    pub fn all(fstype: &str) -> io::Result<Vec<Self>> {
        Ok(parse_mountinfo(&std::fs::read("/proc/self/mountinfo")?, fstype))
    }

    /// The topmost mount of this type at `point`.
    ///
    /// # Errors
    /// As [`Mounted::all`].
    pub fn at(fstype: &str, point: &Path) -> io::Result<Option<Self>> {
        Ok(Self::all(fstype)?.into_iter().rfind(|mounted| mounted.point == point))
    }

    /// Where it stands among the mounts at its point.
    ///
    /// # Errors
    /// As [`Mounted::all`].
    pub fn place(&self) -> io::Result<Place> {
        Ok(self.place_in(&std::fs::read("/proc/self/mountinfo")?))
    }

    fn place_in(&self, table: &[u8]) -> Place {
        let there: Vec<_> = parse(table).filter(|mounted| mounted.point == self.point).collect();
        match there.iter().rposition(|mounted| mounted == self) {
            None => Place::Nowhere,
            Some(at) if at + 1 == there.len() => Place::OnTop,
            Some(_) => Place::Covered,
        }
    }

    /// Aborts the connection: all that waits in the kernel gets an error now, and all that comes
    /// later. Unmounts the file system, if nothing holds it any more. Returns whether it was there.
    ///
    /// # Errors
    /// What umount2 says, but for "busy": then it was aborted and stays mounted.
    pub fn abort(&self) -> io::Result<bool> {
        // Never somebody else's file system that was mounted here meanwhile.
        if self.place()? != Place::OnTop {
            return Ok(false);
        }
        match nix::mount::umount2(&self.point, MntFlags::MNT_FORCE | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EBUSY) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the mount out of the mount table, if it is there; the file system ends when nothing
    /// holds it any more.
    ///
    /// # Errors
    /// What umount2 says.
    pub fn unmount_lazily(&self) -> io::Result<()> {
        if self.place()? == Place::OnTop {
            nix::mount::umount2(&self.point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        }
        Ok(())
    }

    /// The device number as the loop driver reports it for its backing file.
    pub fn encoded_device(&self) -> u64 {
        let (major, minor) = (u64::from(self.device.0), u64::from(self.device.1));
        (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
    }
}

/// Where a mount stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is not in the mount table (any more).
    Nowhere,
    /// Whoever unmounts its point unmounts it.
    OnTop,
    /// Something else was mounted over it.
    Covered,
}

fn parse_mountinfo(text: &[u8], wanted: &str) -> Vec<Mounted> {
    parse(text).filter(|mounted| mounted.fstype == wanted).collect()
}

/// All mounts of a table, in the order in which they were made.
fn parse(text: &[u8]) -> impl Iterator<Item = Mounted> {
    let line = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = std::str::from_utf8(fields.nth(2)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let point = unescape(fields.nth(1)?);
        let fstype = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Mounted {
            fstype: String::from_utf8_lossy(fstype).into_owned(),
            point,
            device: (major.parse().ok()?, minor.parse().ok()?),
        })
    };
    text.split(|byte| *byte == b'\n').filter_map(line)
}

/// Turns `\040` and the like back into bytes.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// How a file system is to be mounted.
#[derive(Clone, Copy, Debug)]
pub struct MountOptions<'a> {
    /// The type in the mount table: `fuse.` and a name.
    pub fstype: &'a str,
    /// What stands before it there.
    pub source: &'a str,
    /// Flags of mount(2).
    pub flags: MsFlags,
    /// Further options of the FUSE file system, separated by commas: `default_permissions`, ...
    pub options: &'a str,
    /// Whether nothing that is mounted or unmounted beneath concerns other mount namespaces.
    pub private: bool,
    /// How many descriptors are wanted: one for each session thread.
    pub threads: usize,
    /// Bounds of the session.
    pub limits: Limits,
    /// What the kernel is to have.
    pub features: Features,
}

/// Mounts a file system at `point` (an existing directory), does the handshake, and returns its
/// descriptors, one for each thread.
///
/// # Errors
/// [`FuseError::Unsupported`] without /dev/fuse or the right to mount,
/// [`FuseError::Handshake`] if the kernel is too old.
pub fn mount(
    point: &Path,
    options: &MountOptions<'_>,
) -> Result<(Vec<OwnedFd>, Agreed), FuseError> {
    let fuse = open_fuse()?;
    let comma = if options.options.is_empty() { "" } else { "," };
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,max_read={}{comma}{}",
        fuse.as_raw_fd(),
        options.limits.max_write,
        options.options,
    );
    let kind = Some(options.fstype);
    nix::mount::mount(Some(options.source), point, kind, options.flags, Some(data.as_str()))
        .map_err(|error| FuseError::Unsupported {
            what: "mounting a FUSE file system",
            advice: "it takes root with CAP_SYS_ADMIN in this mount namespace",
            source: error.into(),
        })?;
    let finish = || {
        if options.private {
            let none: Option<&Path> = None;
            nix::mount::mount(none, point, none, MsFlags::MS_PRIVATE, none).map_err(|source| {
                FuseError::system("making private the mount at", point, source)
            })?;
        }
        let agreed = handshake(&fuse, options)?;
        let clones = (1..options.threads).map(|_| clone(&fuse)).collect::<Result<Vec<_>, _>>()?;
        Ok((clones, agreed))
    };
    match finish() {
        Ok((clones, agreed)) => Ok((std::iter::once(fuse).chain(clones).collect(), agreed)),
        Err(error) => {
            let left = Mounted::at(options.fstype, point)
                .and_then(|mounted| mounted.map_or(Ok(()), |it| it.unmount_lazily()));
            if let Err(left) = left {
                tracing::error!(point = %point.display(), error = %left, "a mount is left behind");
            }
            Err(error)
        }
    }
}

fn open_fuse() -> Result<OwnedFd, FuseError> {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        FuseError::Unsupported {
            what: "/dev/fuse",
            advice: "load the fuse module (`modprobe fuse`), or give the container the device",
            source: error.into(),
        }
    })
}

/// A second descriptor on the connection of `fuse`, with a queue of its own.
fn clone(fuse: &OwnedFd) -> Result<OwnedFd, FuseError> {
    let fresh = open_fuse()?;
    let source = fuse.as_raw_fd() as u32;
    // SAFETY: the ioctl reads the u32 that is pointed to.
    let result = unsafe { libc::ioctl(fresh.as_raw_fd(), DEV_IOC_CLONE, &raw const source) };
    if result != 0 {
        return Err(FuseError::system("cloning", "/dev/fuse", io::Error::last_os_error()));
    }
    Ok(fresh)
}

/// Answers INIT, which the kernel has sent by the time mount(2) returns.
fn handshake(fuse: &OwnedFd, options: &MountOptions<'_>) -> Result<Agreed, FuseError> {
    let failed = |reason| FuseError::Handshake { reason };
    let mut buffer = RequestBuffer::new(options.limits.max_write)
        .map_err(|source| FuseError::system("mapping memory for", "/dev/fuse", source))?;
    let length = receive_one(fuse, buffer.space()).ok_or(failed("it closed the connection"))?;
    let request = Request::decode(buffer.request(length))
        .map_err(|_| failed("its first request is malformed"))?;
    let Operation::Init { major, minor, max_readahead, flags } = request.operation else {
        return Err(failed("its first request is not INIT"));
    };
    let version = (major, minor);
    let (answer, agreed) =
        negotiate(version, max_readahead, flags, options.limits, options.features)
            .map_err(failed)?;
    tracing::debug!(kernel_minor = minor, agreed.minor, agreed.flags, "FUSE handshake");
    let mut frame = Frame::new();
    let len = (OutHeader::SIZE + InitOut::SIZE) as u32;
    OutHeader { len, error: 0, unique: request.header.unique }.encode(&mut frame);
    answer.encode(&mut frame);
    rustix::io::write(fuse.as_fd(), frame.bytes())
        .map_err(|source| FuseError::system("answering INIT on", "/dev/fuse", source))?;
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_found_and_no_others() {
        let table = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            40 35 0:300 / /run/a\\040b/vol rw,nosuid shared:7 - fuse.mooring-device mooring:vol rw,user_id=0\n\
            41 35 0:44 / /run/x rw - fuse.other mooring:vol rw\n\
            broken line\n";
        let found = parse_mountinfo(table, "fuse.mooring-device");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].point, Path::new("/run/a b/vol"));
        assert_eq!(found[0].device, (0, 300));
        assert_eq!(found[0].encoded_device(), 300 & 0xff | (256 << 12));
    }

    #[test]
    fn a_mount_knows_whether_another_lies_over_it() {
        let ours = b"40 35 0:300 / /mnt/a rw shared:7 - fuse.mooring home rw\n";
        let mounted = parse_mountinfo(ours, "fuse.mooring").remove(0);
        assert_eq!(mounted.place_in(ours), Place::OnTop);
        let over = b"41 40 8:1 / /mnt/a rw - ext4 /dev/sda1 rw\n";
        assert_eq!(mounted.place_in(&[&ours[..], over].concat()), Place::Covered);
        assert_eq!(mounted.place_in(&[&over[..], ours].concat()), Place::OnTop);
        let beside = b"42 40 8:1 / /mnt/a/b rw - ext4 /dev/sda1 rw\n";
        assert_eq!(mounted.place_in(&[&ours[..], beside].concat()), Place::OnTop);
        // Another of our own, as after a second mount of the same volume.
        let again = b"43 40 0:301 / /mnt/a rw - fuse.mooring home rw\n";
        assert_eq!(mounted.place_in(&[&ours[..], again].concat()), Place::Covered);
        assert_eq!(mounted.place_in(over), Place::Nowhere);
    }
}

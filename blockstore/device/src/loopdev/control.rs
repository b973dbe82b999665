//! The loop driver's ioctls.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::DeviceError;

const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;

const LO_FLAGS_DIRECT_IO: u32 = 16;

/// The block device major of loop devices.
pub(crate) const LOOP_MAJOR: u32 = 7;

/// Other processes take free loop devices too; after this many lost races something else is wrong.
const RACES_MAX: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<Info>() == 232);

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

impl Info {
    fn empty() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// What a loop device stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backing {
    /// `st_dev` of the file, as the kernel encodes it.
    pub(crate) device: u64,
    /// The file's inode.
    pub(crate) inode: u64,
}

/// The node of loop device `number`.
pub(crate) fn node(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// Opens the node of a loop device, made if a container's /dev hasn't got it.
///
/// # Errors
/// What open or mknod says.
pub(crate) fn open(number: u32, flags: OFlags) -> io::Result<OwnedFd> {
    let path = node(number);
    let open = || rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {
            let device = rustix::fs::makedev(LOOP_MAJOR, number);
            let mode = Mode::RUSR | Mode::WUSR;
            match rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::BlockDevice,
                mode,
                device,
            ) {
                Ok(()) | Err(Errno::EXIST) => Ok(open()?),
                Err(error) => Err(error.into()),
            }
        }
        other => Ok(other?),
    }
}

/// Takes a free loop device for `backing`: direct I/O, 4096-byte sectors, kept until it is cleared.
/// Returns its number.
///
/// # Errors
/// [`DeviceError::Unsupported`] without loop devices, [`DeviceError::System`] for the rest.
pub(crate) fn configure(backing: BorrowedFd<'_>, name: &str) -> Result<u32, DeviceError> {
    let unsupported = |source: io::Error| DeviceError::Unsupported {
        what: "/dev/loop-control",
        advice: "load the loop module (`modprobe loop`), or give the container loop devices",
        source,
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control = rustix::fs::open("/dev/loop-control", flags, Mode::empty())
        .map_err(|error| unsupported(error.into()))?;
    let mut info = Info { flags: LO_FLAGS_DIRECT_IO, ..Info::empty() };
    let label = format!("mooring:{name}");
    let label = &label.as_bytes()[..label.len().min(info.file_name.len() - 1)];
    info.file_name[..label.len()].copy_from_slice(label);
    let config =
        Config { fd: backing.as_raw_fd() as u32, block_size: 4096, info, reserved: [0; 8] };
    for _ in 0..RACES_MAX {
        // SAFETY: the ioctl takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        let number = u32::try_from(number).map_err(|_| unsupported(io::Error::last_os_error()))?;
        let device = open(number, OFlags::RDWR)
            .map_err(|source| DeviceError::system("opening", node(number), source))?;
        // SAFETY: the ioctl reads a `loop_config`, which `config` is.
        match call(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }) {
            Ok(()) => return Ok(number),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(source) => return Err(DeviceError::system("configuring", node(number), source)),
        }
    }
    Err(DeviceError::system("finding a free one with", "/dev/loop-control", Errno::BUSY))
}

/// What loop device `number` stands on; `None` if it is free.
///
/// # Errors
/// What the kernel says, but for "no backing file" and "no such device".
pub(crate) fn backing(number: u32) -> io::Result<Option<Backing>> {
    let device = match open(number, OFlags::RDONLY) {
        Ok(device) => device,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    backing_of(device.as_fd())
}

/// The same for an open loop device.
pub(crate) fn backing_of(device: BorrowedFd<'_>) -> io::Result<Option<Backing>> {
    let mut info = Info::empty();
    // SAFETY: the ioctl writes a `loop_info64`, which `info` is.
    match call(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) }) {
        Ok(()) => Ok(Some(Backing { device: info.device, inode: info.inode })),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lets go of the backing file: now, or when the last user of the device closes it.
///
/// # Errors
/// What the kernel says, but for "nothing to let go".
pub(crate) fn clear(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    match call(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        other => other,
    }
}

/// Makes the device as large as its file is now.
///
/// # Errors
/// What the kernel says.
pub(crate) fn take_over_size(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    call(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY) })
}

/// The size of a block device in bytes.
///
/// # Errors
/// What the kernel says.
pub(crate) fn size_bytes(device: BorrowedFd<'_>) -> io::Result<u64> {
    let mut size = 0_u64;
    // SAFETY: the ioctl writes a u64.
    call(unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut size) })?;
    Ok(size)
}

fn call(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Numbers of the loop devices whose backing file is called `file_name` or lies at `path`.
///
/// Only what /sys says is asked here: asking a loop device itself waits for its file's server, which
/// for somebody else's device may be dead.
///
/// # Errors
/// What reading /sys/block says.
pub(crate) fn candidates(path: &Path, file_name: &str) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("loop"))
            .and_then(|digits| digits.parse().ok());
        numbers.extend(number.filter(|number| stands_on(*number, path, file_name)));
    }
    Ok(numbers)
}

/// Whether the backing file of loop device `number` is called `file_name` or lies at `path`; asked as in
/// [`candidates`].
pub(crate) fn stands_on(number: u32, path: &Path, file_name: &str) -> bool {
    let backing = std::fs::read(format!("/sys/block/loop{number}/loop/backing_file"));
    let backing = backing.unwrap_or_default();
    let backing = backing.strip_suffix(b"\n").unwrap_or(&backing);
    // After a lazy unmount the file shows its path inside the file system only.
    let detached = backing.strip_prefix(b"/") == Some(file_name.as_bytes());
    detached || backing == path.as_os_str().as_bytes()
}

//! The kernel's mount table, which is the only record of what is mounted: nothing is remembered
//! beside it, so nothing can contradict it after a restart of the daemon.

use std::io;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::mpsc;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The device's major and minor number.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The file system's type.
    pub file_system: String,
    /// What is mounted: a device, or the name of a shared volume.
    pub source: String,
    /// Options of this mount: `rw,noatime`.
    pub options: String,
}

/// The mounts of this process's mount namespace, in the order in which they were made.
///
/// # Errors
/// If /proc isn't mounted.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(std::fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse).collect())
}

/// Those of `table` that are of the block device at `path`.
///
/// # Errors
/// If the device can't be read.
pub fn of_device<'a>(table: &'a [Mount], path: &Path) -> io::Result<Vec<&'a Mount>> {
    let stat = rustix::fs::stat(path)?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(table.iter().filter(|mount| mount.device == device).collect())
}

/// A message for each change of the mount table (several changes may be one message). The kernel
/// tells; nothing is polled for.
#[must_use]
pub fn changes() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    let watch = move || -> io::Result<()> {
        let table = std::fs::File::open("/proc/self/mountinfo")?;
        loop {
            let mut ready = [PollFd::new(&table, PollFlags::PRI)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            match sender.try_send(()) {
                Err(mpsc::error::TrySendError::Closed(())) => return Ok(()),
                // Full: whoever reads has not yet looked since the message before.
                Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
            }
        }
    };
    let watch = move || {
        if let Err(error) = watch() {
            tracing::warn!(%error, "the mount table can't be watched: what umount(8) ends stays attached");
        }
    };
    std::thread::Builder::new()
        .name("mount-table".to_owned())
        .spawn(watch)
        .expect("a thread can be started");
    receiver
}

/// One line of mountinfo, as proc(5) describes it:
/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse(line: &str) -> Option<Mount> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let _root = fields.next()?;
    let dir = unescape(fields.next()?);
    let options = fields.next()?.to_owned();
    let mut of = rest.split(' ');
    let file_system = of.next()?.to_owned();
    let source = unescape(of.next().unwrap_or_default()).display().to_string();
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        dir,
        file_system,
        source,
        options,
    })
}

/// Space, tab, newline and backslash come as three octal digits behind a backslash.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if first == b'\\' => {
                bytes.push(code);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_spaces_in_its_directory_is_understood() {
        let line =
            r"36 35 7:3 / /mnt/my\040data\134x rw,noatime shared:1 master:2 - ext4 /dev/loop3 rw";
        let mount = parse(line).expect("a valid line");
        assert_eq!(mount.device, (7, 3));
        assert_eq!(mount.dir, Path::new(r"/mnt/my data\x"));
        assert_eq!((mount.file_system.as_str(), mount.source.as_str()), ("ext4", "/dev/loop3"));
        assert_eq!(mount.options, "rw,noatime");
    }

    #[test]
    fn rubbish_is_no_mount() {
        for line in ["", "36 35", "36 35 x:y / /mnt rw - ext4", "a - b"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(read().expect("/proc is there").iter().any(|m| m.dir == Path::new("/")));
    }
}

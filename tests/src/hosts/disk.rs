//! Disks that fail: pools on loop devices whose files can be taken away, and bytes that rot.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::failure::{Failure, Result};
use super::host::Host;
use super::{loops, machine};

/// A block device of a host, on a file of the host's directory. It is there for as long as this value
/// is, through power cuts of the host.
#[derive(Debug)]
pub struct LoopDisk {
    device: PathBuf,
    file: PathBuf,
    bytes: u64,
}

impl Host {
    /// Makes a block device of so many bytes, all zero; its file takes space as it is written.
    ///
    /// # Errors
    /// The file or the device can't be made.
    pub fn disk_device(&self, name: &str, bytes: u64) -> Result<LoopDisk> {
        let file = self.directory().join(format!("{name}.disk"));
        let made = File::create_new(&file).and_then(|made| made.set_len(bytes));
        made.map_err(Failure::io(file.display().to_string()))?;
        let output = losetup(&["--show", "--find"], &file)?;
        Ok(LoopDisk { device: PathBuf::from(output.trim()), file, bytes })
    }
}

impl LoopDisk {
    /// `/dev/loopN`, the same in all hosts.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The file that has the device's bytes.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The disk dies: from now on each read and write is an I/O error, and what it held is gone.
    ///
    /// # Errors
    /// The file can't be truncated.
    pub fn fail(&self) -> Result<()> {
        self.set_size(0)
    }

    /// A new, empty disk of the same size is put in its place.
    ///
    /// # Errors
    /// The file can't be grown.
    pub fn replace(&self) -> Result<()> {
        self.set_size(self.bytes)
    }

    fn set_size(&self, bytes: u64) -> Result<()> {
        let file = File::options().write(true).open(&self.file);
        file.and_then(|file| file.set_len(bytes))
            .map_err(Failure::io(self.file.display().to_string()))?;
        // Only so does the device learn of it. Without, writes would make the file grow again.
        losetup(&["--set-capacity"], &self.device).map(|_| ())
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        loops::detach(&self.device);
    }
}

fn losetup(arguments: &[&str], subject: &Path) -> Result<String> {
    let output = Command::new("losetup")
        .args(arguments)
        .arg(subject)
        .env("PATH", machine::search_path())
        .output()
        .map_err(Failure::io("starting losetup"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::Command {
        place: "machine".into(),
        command: format!("losetup {} {}", arguments.join(" "), subject.display()),
        code: output.status.code().unwrap_or(-1),
        printed: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Inverts `count` bytes of a file from `offset` on, as a disk does that rots.
///
/// # Errors
/// The file ends before, or can't be read or written.
pub fn corrupt(file: &Path, offset: u64, count: usize) -> Result<()> {
    let name = || file.display().to_string();
    let handle = File::options().read(true).write(true).open(file).map_err(Failure::io(name()))?;
    let mut bytes = vec![0; count];
    handle.read_exact_at(&mut bytes, offset).map_err(Failure::io(name()))?;
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    handle.write_all_at(&bytes, offset).map_err(Failure::io(name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_meant_are_inverted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0u8, 1, 2, 3]).unwrap();
        corrupt(file.path(), 1, 2).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [0, 0xfe, 0xfd, 3]);
        assert!(corrupt(file.path(), 3, 2).is_err(), "past the end");
    }
}

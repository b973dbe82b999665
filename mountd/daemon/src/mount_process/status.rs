//! What the process says of itself, in a file that is locked as long as it lives: whoever finds the file
//! unlocked knows that it is dead.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::arguments::MountArguments;

/// The file, locked.
pub struct StatusFile(File);

/// What stands in it.
#[derive(Serialize)]
struct Said<'a> {
    pid: u32,
    volume: u64,
    name: &'a str,
    dir: &'a Path,
    options: &'a [String],
    session: u64,
    /// Milliseconds since 1970.
    mounted_at: u64,
}

impl StatusFile {
    /// Makes and locks it.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` if another process has it.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(file))
    }

    /// Says who this is.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&mut self, of: &MountArguments, dir: &Path, session: u64) -> io::Result<()> {
        let said = Said {
            pid: std::process::id(),
            volume: of.volume,
            name: &of.name,
            dir,
            options: &of.options,
            session,
            mounted_at: blockstore::unix_ms(),
        };
        let text = serde_json::to_vec(&said)?;
        self.0.seek(SeekFrom::Start(0))?;
        self.0.set_len(0)?;
        self.0.write_all(&text)?;
        self.0.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_living_process_is_locked() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("mount");
        let living = StatusFile::lock(&path).unwrap();
        assert_eq!(StatusFile::lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(living);
        StatusFile::lock(&path).unwrap();
    }
}

//! What the daemon and the process of a shared mount know of each other over the other's death: two files.
//!
//! ```text
//!   RUN/mounts/.ID   what was asked for. Made and locked by the daemon before the process begins, which
//!                    inherits the lock as its standard input: whoever finds it free knows that it is dead
//!   RUN/mounts/ID    what the process says of itself, replaced as a whole: first before it mounts
//! ```
//! Whenever the daemon dies, the next one finds every process: one that was never begun has left a lock that is
//! free, and one that was, holds it, whether it has said anything yet or not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The volume's number.
    pub volume: u64,
    /// And name.
    pub name: String,
    /// Where.
    pub dir: PathBuf,
    /// How: `ro`, `soft`...
    pub options: Vec<String>,
}

/// What a process says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Itself.
    pub pid: u32,
    /// What it was asked for.
    pub asked: Asked,
    /// Its session, once it has one: from then on it is mounted for those who asked.
    pub session: Option<u64>,
    /// Bytes that are to be written back, since the kernel has unmounted it.
    pub unwritten: Option<u64>,
    /// Bytes that were accepted and could not be stored.
    pub lost: u64,
    /// What it has done, as of a second ago.
    pub done: Done,
}

/// What a mount has done since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Requests of the kernel, by kind.
    pub operations: BTreeMap<String, u64>,
    /// Of them, answered from what the mount had.
    pub at_once: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Leases that others wanted.
    pub recalls: u64,
    /// Writes of blocks that failed.
    pub write_back_errors: u64,
    /// Bytes that are not stored yet.
    pub dirty_bytes: u64,
}

/// The two files of one process.
#[derive(Clone, Debug)]
pub struct MountFiles {
    said: PathBuf,
    lock: PathBuf,
}

impl MountFiles {
    /// Those of the process named `id` in `directory`.
    fn new(directory: &Path, id: &str) -> Self {
        Self { said: directory.join(id), lock: directory.join(format!(".{id}")) }
    }

    /// Makes those of a new process, and gives the lock that is to be its standard input.
    ///
    /// # Errors
    /// What the system says.
    pub fn make(directory: &Path, id: &str, asked: &Asked) -> io::Result<(Self, File)> {
        let files = Self::new(directory, id);
        let text = serde_json::to_vec(asked)?;
        // Under another name until it is locked: nobody finds it free.
        let fresh = directory.join(format!("..{id}"));
        std::fs::write(&fresh, text)?;
        let lock = File::open(&fresh)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        std::fs::rename(&fresh, &files.lock)?;
        Ok((files, lock))
    }

    /// All that are in `directory`, with what was asked of each. What a daemon has not come to lock is
    /// removed; what can't be read stays, for whoever can: its process may live.
    ///
    /// # Errors
    /// What the system says.
    pub fn all(directory: &Path) -> io::Result<Vec<(Self, Asked)>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix('.')) else { continue };
            if id.starts_with('.') {
                let _ = std::fs::remove_file(entry.path());
                continue;
            }
            let asked = std::fs::read(entry.path())
                .and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from));
            match asked {
                Ok(asked) => all.push((Self::new(directory, id), asked)),
                Err(error) => {
                    tracing::error!(file = %entry.path().display(), %error, "a mount is served by a process that is not known");
                }
            }
        }
        Ok(all)
    }

    /// Where the process says of itself.
    #[must_use]
    pub fn said_path(&self) -> &Path {
        &self.said
    }

    /// What it says of itself; nothing before it has begun to mount.
    #[must_use]
    pub fn said(&self) -> Option<Said> {
        serde_json::from_slice(&std::fs::read(&self.said).ok()?).ok()
    }

    /// Whether the process lives.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_held(&self) -> io::Result<bool> {
        match flock(File::open(&self.lock)?, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait_for_end(&self) -> io::Result<()> {
        let lock = File::open(&self.lock)?;
        loop {
            match flock(&lock, FlockOperation::LockShared) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Removes everything.
    pub fn remove(&self) {
        // What it was about to say goes first, and the lock last: until then the next daemon finds the rest.
        for path in [&being_said(&self.said), &self.said, &self.lock] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "it stays, though its process is dead");
                }
                _ => {}
            }
        }
    }
}

/// Where it is written before it replaces what was said.
fn being_said(path: &Path) -> PathBuf {
    path.with_extension("new")
}

impl Said {
    /// Replaces what stands at `path`.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = being_said(path);
        std::fs::write(&fresh, serde_json::to_vec(self)?)?;
        std::fs::rename(&fresh, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        let options = vec!["ro".to_owned()];
        Asked { volume: 7, name: "home".to_owned(), dir: "/mnt/home".into(), options }
    }

    #[test]
    fn a_process_is_found_from_before_its_birth_until_its_lock_is_free() {
        let directory = tempfile::TempDir::new().unwrap();
        let (files, lock) = MountFiles::make(directory.path(), "a", &asked()).unwrap();
        let found = MountFiles::all(directory.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, asked());
        assert_eq!(found[0].0.said(), None, "it has said nothing yet");
        // A duplicate, as the process has it: the lock is held until the last is closed.
        let inherited = lock.try_clone().unwrap();
        drop(lock);
        assert!(files.is_held().unwrap());
        drop(inherited);
        assert!(!files.is_held().unwrap());
        files.wait_for_end().unwrap();
        files.remove();
        assert!(MountFiles::all(directory.path()).unwrap().is_empty());
    }

    #[test]
    fn what_a_process_says_is_replaced_as_a_whole() {
        let directory = tempfile::TempDir::new().unwrap();
        let (files, _lock) = MountFiles::make(directory.path(), "a", &asked()).unwrap();
        let mut said = Said {
            pid: 4711,
            asked: asked(),
            session: None,
            unwritten: None,
            lost: 0,
            done: Done::default(),
        };
        said.write(files.said_path()).unwrap();
        assert_eq!(files.said().unwrap(), said);
        (said.session, said.unwritten) = (Some(3), Some(8192));
        said.write(files.said_path()).unwrap();
        assert_eq!(files.said().unwrap(), said);
        // Nodes tell each other, too.
        let told = postcard::to_stdvec(&said).unwrap();
        assert_eq!(postcard::from_bytes::<Said>(&told).unwrap(), said);
        // One word, for whoever looks for it with a shell.
        let text = std::fs::read_to_string(files.said_path()).unwrap();
        assert!(text.contains(r#""pid":4711"#), "{text}");
        assert_eq!(MountFiles::all(directory.path()).unwrap().len(), 1);
    }

    #[test]
    fn what_was_not_locked_yet_was_never_begun_and_what_is_not_understood_stays() {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::write(directory.path().join("..b"), b"{").unwrap();
        // Of a process that may live: another version's.
        let unknown = directory.path().join(".c");
        std::fs::write(&unknown, b"{").unwrap();
        assert!(MountFiles::all(directory.path()).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(unknown.exists());
    }
}

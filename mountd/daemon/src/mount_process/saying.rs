//! What the process says of itself, for the daemon that started it and those after it.

use std::path::PathBuf;

use mooring_sharedfs_mount::Mount;

use crate::arguments::MountArguments;
use crate::mount_files::{Asked, Done, Said};

/// What was said last, and where.
pub struct Saying {
    path: PathBuf,
    said: Said,
}

impl Saying {
    /// Says who it is: before it mounts, so that no mount is ever without somebody who answers for it.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(of: &MountArguments) -> std::io::Result<Self> {
        let asked = Asked {
            volume: of.volume,
            name: of.name.clone(),
            dir: of.dir.clone(),
            options: of.options.clone(),
        };
        let pid = std::process::id();
        let said =
            Said { pid, asked, session: None, unwritten: None, lost: 0, done: Done::default() };
        said.write(&of.status)?;
        Ok(Self { path: of.status.clone(), said })
    }

    /// It is mounted and served.
    ///
    /// # Errors
    /// What the system says.
    pub fn serves(&mut self, mount: &Mount) -> std::io::Result<()> {
        self.said.session = Some(mount.status().session.map_or(0, |session| session.0));
        self.said.write(&self.path)
    }

    /// What it has done, if that is more than was said last.
    pub fn tells(&mut self, mount: &Mount) {
        let seen = mount.statistics();
        let operations = seen.operations.into_iter().map(|(kind, count)| (kind.to_owned(), count));
        let done = Done {
            operations: operations.collect(),
            at_once: seen.at_once,
            read_bytes: seen.read_bytes,
            written_bytes: seen.written_bytes,
            recalls: seen.recalls,
            write_back_errors: seen.write_back_errors,
            dirty_bytes: seen.dirty_bytes,
        };
        if done != self.said.done {
            self.said.done = done;
            self.say();
        }
    }

    /// It is unmounted, and writes back.
    pub fn writes_back(&mut self, mount: &Mount) {
        let status = mount.status();
        let (unwritten, lost) = (status.dirty_bytes as u64, status.lost_bytes as u64);
        if self.said.unwritten == Some(unwritten) && self.said.lost == lost {
            return;
        }
        (self.said.unwritten, self.said.lost) = (Some(unwritten), lost);
        self.say();
    }

    /// It ends, and with it what is not written back.
    pub fn ends(&mut self, mount: &Mount) {
        let status = mount.status();
        self.said.unwritten = Some(0);
        self.said.lost = (status.dirty_bytes + status.lost_bytes) as u64;
        self.say();
    }

    fn say(&self) {
        if let Err(error) = self.said.write(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "the daemon can't be told");
        }
    }
}

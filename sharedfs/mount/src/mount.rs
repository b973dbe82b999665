//! One mount of a shared volume: the kernel's session, the shell, and the threads of both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mooring_fuse::abi::init;
use mooring_fuse::{Agreed, Features, Limits, MountOptions, Mounted, Place, Session};
use mooring_sharedfs_client::{Client, Event, Options, StreamNumber};
use mooring_sharedfs_core::SessionId;
use mooring_sharedfs_core::coordinator::{LetterError, ToClient, read_letter};
use mooring_sharedfs_core::sessions::EndReason;
use nix::mount::{MntFlags, MsFlags};

use crate::blocks::DataBlocks;
use crate::clock;
use crate::core::Core;
use crate::error::MountError;
use crate::kernel_caches::KernelCaches;
use crate::post::Post;
use crate::shell::{Manners, Phase, Served, Shell};
use crate::statistics::Statistics;

/// The type under which shared volumes stand in the mount table.
pub const FSTYPE: &str = "fuse.mooring";

/// The longest write, and what each session thread keeps ready for it.
const MAX_WRITE: u32 = 1 << 20;

/// Requests that nobody waits for with a thread: read-ahead, writes of mapped pages, asynchronous I/O.
const MAX_BACKGROUND: u16 = 128;

/// From this minor version on the kernel has `FUSE_NOTIFY_INC_EPOCH` (Linux 6.16).
const MINOR_WITH_EPOCH: u32 = 44;

/// What is to be mounted, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where: an existing directory.
    pub point: PathBuf,
    /// The volume's name, as the mount table shows it.
    pub source: String,
    /// Flags of mount(2): `MS_RDONLY`, `MS_NOSUID`...
    pub flags: MsFlags,
    /// How many threads read requests.
    pub threads: usize,
    /// Requests that have waited so long get `EIO` (`soft`); waits for locks don't. None: they wait until
    /// they are answered.
    pub soft: Option<Duration>,
    /// Root of this host is nobody on the volume (`squash`).
    pub squash: bool,
    /// Who the mount is, its times and its bounds. `mount` is drawn here. `epoch` counts only where the
    /// kernel has it, and is better left off: names that the kernel is made to look up anew that way lose
    /// what is mounted on them.
    pub options: Options,
}

/// What a mount is doing.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Its session with the coordinator, once there is one.
    pub session: Option<SessionId>,
    /// Whether the session's lease is there.
    pub served: bool,
    /// Why the session is over, if it is: every request gets an error.
    pub ended: Option<EndReason>,
    /// Whether the kernel has unmounted it.
    pub unmounted: bool,
    /// Requests of the kernel without an answer.
    pub waiting: usize,
    /// Requests to the coordinator without an answer.
    pub asked: usize,
    /// Bytes that were written and are not part of their files yet.
    pub dirty_bytes: usize,
    /// Those of them that are lost, since the session is over.
    pub lost_bytes: usize,
}

/// A mounted shared volume. Dropped, it is taken out of the mount table, and what still waits gets
/// errors: [`Mount::unmount`] comes first where anything is to be kept.
pub struct Mount {
    shell: Arc<Shell>,
    session: Arc<Session<Served>>,
    mounted: Mounted,
    lease: Duration,
}

impl Mount {
    /// Mounts the volume. Requests wait until a stream to the coordinator is [met](Mount::met).
    ///
    /// # Errors
    /// [`MountError::Fuse`]: no /dev/fuse, not root, no such directory, a kernel that is too old;
    /// [`MountError::Thread`].
    pub fn start(settings: Settings, data: Arc<dyn DataBlocks>) -> Result<Self, MountError> {
        let Settings { point, source, flags, threads, soft, squash, mut options } = settings;
        let point = point.canonicalize().unwrap_or(point);
        let (descriptors, agreed) = mount(&point, &source, flags, threads.max(1))?;
        let mounted = mounted_at(&point)?;
        options.epoch &= agreed.minor >= MINOR_WITH_EPOCH;
        options.mount = draw();
        let lease = options.lease;
        let core = Core::new(Client::new(options), squash);
        let manners = Manners { soft, squash };
        let shell = Arc::new(Shell::new(core, data, KernelCaches::new(lease), manners));
        let started = || {
            let served = Arc::new(Served(shell.clone()));
            let session = Session::start(&source, served, descriptors, MAX_WRITE)?;
            shell.caches().begin(session.notifier());
            let ticking = shell.clone();
            let ticker = std::thread::Builder::new().name("mount-ticker".to_owned());
            ticker.spawn(move || ticking.tick()).map_err(MountError::Thread)?;
            if soft.is_some() {
                let watching = shell.clone();
                let soft = std::thread::Builder::new().name("mount-soft".to_owned());
                soft.spawn(move || watching.give_up_late_ones()).map_err(MountError::Thread)?;
            }
            Ok(session)
        };
        match started() {
            Ok(session) => Ok(Self { shell, session, mounted, lease }),
            Err(error) => {
                take_away(&mounted);
                Err(error)
            }
        }
    }

    /// A stream to whoever is coordinator is open: what was met before is given up. The number goes
    /// with all that comes over it.
    pub fn met(&self, post: Arc<dyn Post>) -> StreamNumber {
        self.shell.with_core(|core| core.met(post))
    }

    /// A letter of the coordinator, in the order of sending.
    ///
    /// # Errors
    /// It is none: the stream has to be cut.
    pub fn letter(&self, stream: StreamNumber, letter: &[u8]) -> Result<(), LetterError> {
        for message in read_letter::<ToClient>(letter)? {
            if matches!(message, ToClient::Recall(_)) {
                self.shell.counters().recalls.fetch_add(1, Ordering::Relaxed);
            }
            self.shell.event(Event::Message(stream, message));
        }
        Ok(())
    }

    /// A stream is gone.
    pub fn lost(&self, stream: StreamNumber) {
        self.shell.with_core(|core| ((), core.lost(stream)));
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let Phase { kernel_gone, ended, .. } = self.shell.phase();
        self.shell.look(|core| {
            let (waiting, asked) = core.client.outstanding();
            Status {
                session: core.client.session(),
                served: core.client.is_served(clock::now()),
                ended,
                unmounted: kernel_gone,
                waiting,
                asked,
                dirty_bytes: core.client.dirty_bytes(),
                lost_bytes: core.client.lost_bytes(),
            }
        })
    }

    /// What it has done since it began.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let (dirty, at_once) =
            self.shell.look(|core| (core.client.dirty_bytes() as u64, core.at_once));
        self.shell.counters().read(dirty, at_once)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.mounted.point
    }

    /// How many requests of the kernel have no answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.session.in_flight()
    }

    /// Unmounts, as umount(8) does, and writes back what is dirty; `lazily`: also what is in use, which
    /// ends when nobody uses it any more.
    ///
    /// # Errors
    /// [`MountError::Unmount`]: it is in use, or something else is mounted over it, which is left alone;
    /// [`MountError::NotWrittenBack`] when that took longer than `most`, or, lazily, when it is still in
    /// use.
    pub fn unmount(&self, lazily: bool, most: Duration) -> Result<(), MountError> {
        let flags = if lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        if !self.shell.phase().kernel_gone {
            let failed = |source| MountError::Unmount { point: self.mounted.point.clone(), source };
            match self.mounted.place().map_err(failed)? {
                Place::OnTop => {
                    nix::mount::umount2(&self.mounted.point, flags | MntFlags::UMOUNT_NOFOLLOW)
                        .map_err(|error| failed(error.into()))?;
                }
                Place::Covered => {
                    let why = "something else is mounted over it";
                    return Err(failed(std::io::Error::new(std::io::ErrorKind::ResourceBusy, why)));
                }
                // It ends when nobody uses it any more.
                Place::Nowhere => {}
            }
        }
        if self.wait_for_end(Some(most)) { Ok(()) } else { Err(MountError::NotWrittenBack(most)) }
    }

    /// Waits until the kernel has unmounted it, whoever asked for that, and everything is written back
    /// or lost with the session; `false` when that took longer than `most`.
    pub fn wait_for_end(&self, most: Option<Duration>) -> bool {
        self.shell
            .wait_for(most, |phase| phase.kernel_gone && (phase.unmounted || phase.ended.is_some()))
    }

    /// Waits until the session is over, or the kernel has unmounted it; `false` when that took longer
    /// than `most`.
    pub fn wait_for_change(&self, most: Option<Duration>) -> bool {
        self.shell.wait_for(most, |phase| phase.kernel_gone || phase.ended.is_some())
    }

    /// Waits until the kernel has unmounted it, whoever asked for that.
    pub fn wait_for_unmount(&self) {
        self.shell.wait_for(None, |phase| phase.kernel_gone);
    }

    /// How long its session lives without being heard.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.shell.phase().kernel_gone {
            take_away(&self.mounted);
        }
    }
}

/// Aborts what is mounted, and takes it out of the mount table.
fn take_away(mounted: &Mounted) {
    if let Err(error) = mounted.abort().and_then(|_| mounted.unmount_lazily()) {
        tracing::error!(point = %mounted.point.display(), %error, "a mount is left behind");
    }
}

fn mounted_at(point: &Path) -> Result<Mounted, MountError> {
    let unmount = |source| MountError::Unmount { point: point.to_owned(), source };
    Mounted::at(FSTYPE, point)
        .map_err(unmount)?
        .ok_or_else(|| unmount(std::io::ErrorKind::NotFound.into()))
}

fn mount(
    point: &Path,
    source: &str,
    flags: MsFlags,
    threads: usize,
) -> Result<(Vec<std::os::fd::OwnedFd>, Agreed), MountError> {
    let options = MountOptions {
        fstype: FSTYPE,
        source,
        flags,
        // The kernel checks permissions, for everybody.
        options: "default_permissions,allow_other",
        private: false,
        threads,
        limits: Limits { max_write: MAX_WRITE, max_background: MAX_BACKGROUND },
        features: Features {
            needed: init::ASYNC_READ
                | init::POSIX_LOCKS
                | init::FLOCK_LOCKS
                | init::BIG_WRITES
                | init::DONT_MASK
                | init::MAX_PAGES,
            wanted: init::AUTO_INVAL_DATA
                | init::DO_READDIRPLUS
                | init::READDIRPLUS_AUTO
                | init::ASYNC_DIO
                | init::PARALLEL_DIROPS
                | init::POSIX_ACL
                | init::CACHE_SYMLINKS
                | init::HANDLE_KILLPRIV_V2
                | init::DIRECT_IO_ALLOW_MMAP,
        },
    };
    Ok(mooring_fuse::mount(point, &options)?)
}

/// Which of its node's mounts this is.
#[allow(clippy::disallowed_methods, reason = "a shell: it draws the mount's number")]
fn draw() -> u64 {
    rand::random()
}

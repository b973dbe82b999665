//! Mounts of shared volumes: processes that outlive the daemon, started and watched by it.
//!
//! ```text
//!   mount ──> files, lock ──> mountd mount ... ──"ok" on its stdout──> in the mount table
//!                                  │ holds the lock as long as it lives
//!   a restarted daemon lists the files: whose lock is held, runs; the others' mounts are dead
//! ```
//! The kernel's mount table says what is mounted; the files (`mount_files.rs`) say which process serves it. A
//! process that died leaves a mount that gives errors: it is unmounted lazily, and people are told. One that is
//! unmounted writes back, and says what of that is left, and what is lost.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use blockstore::{About, Node, Severity};
use mooring_terms::VolumeId;
use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use crate::attachments::blocking;
use crate::error::DaemonError;
use crate::filesystem::FileSystemError;
use crate::mount_files::{Asked, MountFiles, Said};
use crate::mount_table::Mount;
use crate::{filesystem, mount_table};

/// The type of our mounts in the mount table.
pub const FILE_SYSTEM: &str = "fuse.mooring";

/// How long a mount may take: a failover of the coordinator in the middle is waited for.
const MOUNT_WAIT: Duration = Duration::from_secs(40);
/// How often it is asked whether a mount that another daemon has begun is done.
const SETTLE_AGAIN: Duration = Duration::from_millis(20);
/// How long an unmount waits for a process to write back and give its session up. It goes on afterwards, and
/// whoever waits is told.
const WRITE_BACK_WAIT: Duration = Duration::from_secs(30);
/// How long one that is told to end has, before it is killed.
const KILL_AFTER: Duration = Duration::from_secs(2);
/// How long one that is killed has to be gone.
const GONE_WAIT: Duration = Duration::from_secs(5);

/// The processes that serve mounts of shared volumes on this node.
pub struct SharedMounts {
    node: Arc<Node>,
    /// Where processes link themselves to the daemon.
    door: PathBuf,
    /// Where they say who they are.
    files: PathBuf,
    running: Mutex<Vec<Arc<Process>>>,
    /// Held while a dead mount is taken away.
    sweeping: Mutex<()>,
}

/// One process.
pub struct Process {
    files: MountFiles,
    asked: Asked,
    /// If this daemon has started it.
    pid: Option<u32>,
    /// Told when it has ended.
    ended: watch::Sender<Option<Ended>>,
}

/// What a process left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    /// Bytes that were accepted and could not be stored.
    lost: u64,
}

/// What is to be mounted.
#[derive(Clone, Debug)]
pub struct SharedMount {
    /// The volume.
    pub volume: VolumeId,
    /// Its name.
    pub name: String,
    /// Where.
    pub dir: PathBuf,
    /// How: `ro`, `soft`...
    pub options: Vec<String>,
    /// How long the volume's I/O waits, if not for ever.
    pub io_timeout_ms: Option<u64>,
}

impl SharedMounts {
    /// Those that an earlier daemon has started, and that run still.
    ///
    /// # Errors
    /// The directory for their files can't be made or read.
    pub fn open(node: Arc<Node>, run: &Path) -> std::io::Result<Arc<Self>> {
        let files = run.join("mounts");
        std::fs::create_dir_all(&files)?;
        let found = MountFiles::all(&files)?;
        let door = run.join("links.sock");
        let (running, sweeping) = (Mutex::default(), Mutex::default());
        let this = Arc::new(Self { node, door, files, running, sweeping });
        for (files, asked) in found {
            this.watch(Process::new(files, asked, None), None)?;
        }
        Ok(this)
    }

    /// Starts a process that mounts a volume, and waits until it has.
    ///
    /// # Errors
    /// What the process says.
    pub async fn mount(self: &Arc<Self>, wanted: SharedMount) -> Result<(), DaemonError> {
        let this = Arc::clone(self);
        blocking(move || this.mount_now(&wanted)).await?
    }

    /// Waits until what was begun on a directory, perhaps by an earlier daemon, is mounted or has failed.
    pub async fn settle(&self, dir: &Path) {
        let deadline = tokio::time::Instant::now() + MOUNT_WAIT;
        let is_under_way = || self.on(dir).iter().any(|process| !process.has_served());
        while is_under_way() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(SETTLE_AGAIN).await;
        }
    }

    fn mount_now(self: &Arc<Self>, wanted: &SharedMount) -> Result<(), DaemonError> {
        let failed = |why: String| DaemonError::SharedMount { volume: wanted.name.clone(), why };
        let asked = Asked {
            volume: wanted.volume.0,
            name: wanted.name.clone(),
            dir: wanted.dir.clone(),
            options: wanted.options.clone(),
        };
        let id = format!("{:016x}", rand::random::<u64>());
        let (files, lock) = MountFiles::make(&self.files, &id, &asked)
            .map_err(|error| failed(format!("its files can't be made: {error}")))?;
        let mut command = self.command(wanted, files.said_path());
        let mut child = command.stdin(Stdio::from(lock)).spawn().map_err(|error| {
            files.remove();
            failed(format!("its process can't be started: {error}"))
        })?;
        // The lock is the child's alone.
        drop(command);
        let stdout = child.stdout.take();
        let process = Process::new(files, asked, Some(child.id()));
        self.watch(Arc::clone(&process), Some(child)).map_err(DaemonError::Thread)?;
        let said = stdout.ok_or("its process says nothing").and_then(answer_on);
        if said.as_deref() == Ok("ok") {
            return Ok(());
        }
        // It may have ended by itself; then there is nothing to kill.
        process.signal(Signal::KILL);
        process.wait_for_end(GONE_WAIT);
        Err(failed(match said {
            Ok(said) => said.trim_start_matches("error: ").to_owned(),
            Err(why) => why.to_owned(),
        }))
    }

    fn command(&self, wanted: &SharedMount, said: &Path) -> Command {
        let program = std::env::current_exe().ok().filter(|program| program.exists());
        let mut command = Command::new(program.unwrap_or_else(|| PathBuf::from("/proc/self/exe")));
        command.arg0("mountd").arg("mount").arg("--door").arg(&self.door);
        command.arg("--volume").arg(wanted.volume.0.to_string());
        command.arg("--name").arg(&wanted.name).arg("--dir").arg(&wanted.dir);
        command.arg("--ready-fd").arg("1").arg("--status").arg(said);
        if !wanted.options.is_empty() {
            command.arg("--options").arg(wanted.options.join(","));
        }
        if let Some(millis) = wanted.io_timeout_ms {
            command.arg("--io-timeout-ms").arg(millis.to_string());
        }
        // A group of its own: what is sent to the daemon's is not for it.
        command.stdout(Stdio::piped()).process_group(0);
        command
    }

    /// Watches a process until it ends.
    fn watch(
        self: &Arc<Self>,
        process: Arc<Process>,
        mut child: Option<Child>,
    ) -> std::io::Result<()> {
        self.running.lock().push(Arc::clone(&process));
        let (this, watched) = (Arc::clone(self), Arc::clone(&process));
        let watch = move || {
            if let Err(error) = watched.files.wait_for_end() {
                tracing::error!(%error, "a mount's process can't be watched");
            }
            if let Some(child) = &mut child {
                // Only so that nothing is left of it in the table of processes.
                let _ = child.wait();
            }
            this.ended(&watched);
        };
        let thread = std::thread::Builder::new().name("mount-watch".to_owned()).spawn(watch);
        if let Err(error) = thread {
            // Without somebody who watches it there is to be no mount. The next daemon finds what is left.
            process.signal(Signal::KILL);
            self.running.lock().retain(|one| !Arc::ptr_eq(one, &process));
            return Err(error);
        }
        Ok(())
    }

    fn ended(&self, process: &Arc<Process>) {
        let said = process.files.said();
        let (name, dir) = (&process.asked.name, &process.asked.dir);
        let served = said.as_ref().is_some_and(|said| said.session.is_some());
        let lost = said.as_ref().map_or(0, |said| said.lost + said.unwritten.unwrap_or(0));
        // Another one's mount there is not asked: who serves it may have to wait for the volume.
        let covered = self.on(dir).iter().any(|other| !Arc::ptr_eq(other, process));
        let died = !covered && {
            // Two who see the same dead mount would unmount what lies under it, too.
            let _turn = self.sweeping.lock();
            take_dead_away(name, dir)
        };
        if died && served {
            let pid = said.map_or(0, |said| said.pid);
            let message = format!(
                "volume {name}: the process {pid} that served the mount on {} has died; what was not fsynced there is lost, and the mount is gone",
                dir.display()
            );
            self.push(process, "mount-died", message);
        } else if lost > 0 {
            let message = format!(
                "volume {name}: {lost} bytes that were written on {} and not fsynced could not be stored before the mount ended: they are lost",
                dir.display()
            );
            self.push(process, "mount-lost-data", message);
        }
        process.files.remove();
        self.running.lock().retain(|one| !Arc::ptr_eq(one, process));
        process.ended.send_replace(Some(Ended { lost }));
    }

    fn push(&self, process: &Process, kind: &'static str, message: String) {
        let about = About { volume: Some(VolumeId(process.asked.volume)), ..About::default() };
        self.node.events().push(Severity::Error, kind, message, about);
    }

    /// Whoever serves a mount on a directory, or is about to; not those who only write back what was written
    /// to one that has gone.
    fn on(&self, dir: &Path) -> Vec<Arc<Process>> {
        let running = self.running.lock();
        let on =
            running.iter().filter(|process| process.asked.dir == dir && !process.writes_back());
        on.cloned().collect()
    }

    /// What those say who serve mounts of a volume, or of any.
    pub fn said(&self, volume: Option<VolumeId>) -> Vec<Said> {
        let running = self.running.lock().clone();
        let of =
            running.iter().filter(|process| volume.is_none_or(|id| process.asked.volume == id.0));
        of.filter_map(|process| process.files.said()).collect()
    }

    /// Takes away what is mounted and dead, which could not be done when its process ended: something lay over
    /// it.
    pub fn sweep(self: &Arc<Self>, table: &[Mount]) {
        let ours = || table.iter().filter(|mount| mount.file_system == FILE_SYSTEM);
        let is_served = |mount: &&Mount| !self.on(&mount.dir).is_empty();
        // Containers mount it elsewhere once more. None of those is asked: who serves them may have to wait for
        // the volume.
        let served: BTreeSet<(u32, u32)> = ours().filter(is_served).map(|one| one.device).collect();
        let alone = ours().filter(|mount| !served.contains(&mount.device));
        let alone: Vec<Mount> = alone.filter(|mount| !is_served(mount)).cloned().collect();
        if alone.is_empty() {
            return;
        }
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            // One who sweeps is enough: what has changed meanwhile is looked at with the next change.
            let Some(_turn) = this.sweeping.try_lock() else { return };
            for mount in alone {
                take_dead_away(&mount.source, &mount.dir);
            }
        });
    }

    /// Unmounts, and waits until the process has written back and given its session up.
    ///
    /// # Errors
    /// It is in use, unless forced: then it goes though files are open, and what was not written is lost.
    /// [`DaemonError::NotWrittenBack`]: it is unmounted, and what was written waits for the volume.
    /// [`DaemonError::LostAtUnmount`]: it is unmounted, and something is lost.
    pub async fn unmount(&self, name: &str, dir: &Path, force: bool) -> Result<(), DaemonError> {
        let processes = self.on(dir);
        let (unmounted, of) = (dir.to_owned(), name.to_owned());
        blocking(move || unmount_ours(&of, &unmounted, force)).await??;
        for process in processes {
            if force {
                process.signal(Signal::TERM);
            }
            let wait = if force { KILL_AFTER } else { WRITE_BACK_WAIT };
            let mut ended = process.ended(wait).await;
            if ended.is_none() && force {
                process.signal(Signal::KILL);
                ended = process.ended(GONE_WAIT).await;
            }
            let dir = dir.to_owned();
            match ended {
                _ if force => {}
                Some(Ended { lost: 0 }) => {}
                Some(Ended { lost }) => {
                    return Err(DaemonError::LostAtUnmount { dir, bytes: lost });
                }
                None => {
                    let bytes = process.files.said().and_then(|said| said.unwritten).unwrap_or(0);
                    return Err(DaemonError::NotWrittenBack { dir, bytes });
                }
            }
        }
        Ok(())
    }
}

impl Process {
    fn new(files: MountFiles, asked: Asked, pid: Option<u32>) -> Arc<Self> {
        Arc::new(Self { files, asked, pid, ended: watch::Sender::new(None) })
    }

    fn has_served(&self) -> bool {
        self.files.said().is_some_and(|said| said.session.is_some())
    }

    fn writes_back(&self) -> bool {
        self.files.said().is_some_and(|said| said.unwritten.is_some())
    }

    /// Sends it a signal, and nobody else: a process that has its number now may be another.
    fn signal(&self, signal: Signal) {
        let pid = self.pid.or_else(|| self.files.said().map(|said| said.pid));
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
        // Whoever holds the lock after its number was looked up is who was found under it.
        if self.files.is_held().unwrap_or(false) {
            // It may have ended meanwhile.
            let _ = pidfd_send_signal(process, signal);
        }
    }

    /// Waits until it has ended, for so long at most.
    async fn ended(&self, wait: Duration) -> Option<Ended> {
        let mut ended = self.ended.subscribe();
        let ends = ended.wait_for(Option::is_some);
        tokio::time::timeout(wait, ends).await.ok().and_then(|ended| *ended.ok()?)
    }

    /// The same, on a thread.
    fn wait_for_end(&self, wait: Duration) {
        let mut left = wait;
        while self.ended.borrow().is_none() && !left.is_zero() {
            std::thread::sleep(SETTLE_AGAIN);
            left = left.saturating_sub(SETTLE_AGAIN);
        }
    }
}

/// What a process says on its standard output: `ok`, or why not.
fn answer_on(stdout: ChildStdout) -> Result<String, &'static str> {
    let (told, heard) = channel();
    let reader = std::thread::Builder::new().name("mount-answer".to_owned()).spawn(move || {
        let mut line = String::new();
        let mut reader = BufReader::new(stdout.take(4096));
        // Nobody listens any more after the wait.
        if reader.read_line(&mut line).is_ok() {
            let _ = told.send(line.trim_end().to_owned());
        }
    });
    if reader.is_err() {
        return Err("the system has no thread left");
    }
    match heard.recv_timeout(MOUNT_WAIT) {
        Ok(line) if !line.is_empty() => Ok(line),
        Ok(_) => Err("its process has ended (the daemon's log says why)"),
        Err(_) => Err("the volume does not answer: too few of its replicas can be reached"),
    }
}

/// Unmounts the shared volume that is mounted on `dir`, and nothing else that lies there now.
fn unmount_ours(name: &str, dir: &Path, force: bool) -> Result<(), DaemonError> {
    let unreadable =
        |source| FileSystemError::Run { tool: "/proc/self/mountinfo".to_owned(), source };
    let table = mount_table::read().map_err(unreadable)?;
    match table.iter().rfind(|mount| mount.dir == dir) {
        Some(top) if top.file_system == FILE_SYSTEM && top.source == name => {
            Ok(filesystem::unmount(dir, force)?)
        }
        Some(_) => Err(DaemonError::Covered { volume: name.to_owned(), dir: dir.to_owned() }),
        None => Err(DaemonError::NotMounted { what: dir.display().to_string() }),
    }
}

/// Unmounts what is seen on a directory, if that is a shared volume that nobody serves; whether it was.
fn take_dead_away(name: &str, dir: &Path) -> bool {
    let is_dead = is_mounted(name, dir) && is_dead(dir);
    if is_dead && let Err(error) = filesystem::unmount(dir, true) {
        tracing::error!(volume = name, %error, "the dead mount stays");
    }
    is_dead
}

/// Whether a shared volume is what is seen on a directory.
fn is_mounted(name: &str, dir: &Path) -> bool {
    let table = mount_table::read().unwrap_or_default();
    let top = table.iter().rfind(|mount| mount.dir == dir);
    top.is_some_and(|mount| mount.file_system == FILE_SYSTEM && mount.source == name)
}

/// Whether the kernel says that nobody serves the mount; the second error is that of who was just waiting.
fn is_dead(dir: &Path) -> bool {
    use rustix::io::Errno;

    matches!(rustix::fs::statfs(dir), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

//! Mounts of shared volumes: processes that outlive the daemon, started and watched by it.
//!
//! ```text
//!   mount ──> mountd mount ... ──"ok" on its stdout──> in the mount table
//!                  │ holds a lock on its file in RUN/mounts as long as it lives
//!   a restarted daemon lists the files: whose lock is held, runs; the others' mounts are dead
//! ```
//! The kernel's mount table says what is mounted; the files say which process serves it. A process that
//! died leaves a mount that gives errors: it is unmounted lazily, and people are told.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use blockstore::{About, Node, Severity};
use mooring_terms::VolumeId;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use serde::Deserialize;

use crate::attachments::blocking;
use crate::error::DaemonError;
use crate::{filesystem, mount_table};

/// The type of our mounts in the mount table.
pub const FILE_SYSTEM: &str = "fuse.mooring";

/// How long a mount may take: a failover of the coordinator in the middle is waited for.
const MOUNT_WAIT: Duration = Duration::from_secs(40);
/// How long a process has after its unmount to give its session back.
const END_WAIT: Duration = Duration::from_secs(10);
/// How long one that is told to end has, before it is killed.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// The processes that serve mounts of shared volumes on this node.
pub struct SharedMounts {
    node: Arc<Node>,
    /// Where processes link themselves to the daemon.
    door: PathBuf,
    /// Where they say who they are.
    files: PathBuf,
    running: Mutex<Vec<Arc<Process>>>,
}

/// One process.
pub struct Process {
    file: PathBuf,
    said: Said,
    /// Told when it has ended.
    ended: tokio::sync::watch::Sender<bool>,
}

/// What a process says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Said {
    /// Itself.
    pub pid: i32,
    /// The volume's number.
    pub volume: u64,
    /// And name.
    pub name: String,
    /// Where.
    pub dir: PathBuf,
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
}

impl SharedMounts {
    /// Those that an earlier daemon has started, and that run still.
    ///
    /// # Errors
    /// The directory for their files can't be made or read.
    pub fn open(node: Arc<Node>, run: &Path) -> std::io::Result<Arc<Self>> {
        let files = run.join("mounts");
        std::fs::create_dir_all(&files)?;
        let door = run.join("links.sock");
        let this = Arc::new(Self { node, door, files: files.clone(), running: Mutex::default() });
        for entry in std::fs::read_dir(&files)? {
            let file = entry?.path();
            match said_in(&file) {
                Some(said) => this.watch(file, said, None)?,
                // One that was killed before it said anything.
                None => drop(std::fs::remove_file(&file)),
            }
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

    fn mount_now(self: &Arc<Self>, wanted: &SharedMount) -> Result<(), DaemonError> {
        let failed = |why: String| DaemonError::SharedMount { volume: wanted.name.clone(), why };
        let file = self.files.join(format!("{:016x}", rand::random::<u64>()));
        let mut child = self
            .command(wanted, &file)
            .spawn()
            .map_err(|error| failed(format!("its process can't be started: {error}")))?;
        let said = answer_of(&mut child);
        if said.as_deref() != Ok("ok") {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
            let _ = std::fs::remove_file(&file);
            let why = match said {
                Ok(said) => said.trim_start_matches("error: ").to_owned(),
                Err(why) => why.to_owned(),
            };
            return Err(failed(why));
        }
        let said = said_in(&file).ok_or_else(|| failed("it does not say who it is".to_owned()))?;
        self.watch(file, said, Some(child)).map_err(DaemonError::Thread)
    }

    fn command(&self, wanted: &SharedMount, file: &Path) -> Command {
        let program = std::env::current_exe().ok().filter(|program| program.exists());
        let mut command = Command::new(program.unwrap_or_else(|| PathBuf::from("/proc/self/exe")));
        command.arg0("mountd").arg("mount").arg("--door").arg(&self.door);
        command.arg("--volume").arg(wanted.volume.0.to_string());
        command.arg("--name").arg(&wanted.name).arg("--dir").arg(&wanted.dir);
        command.arg("--ready-fd").arg("1").arg("--status").arg(file);
        if !wanted.options.is_empty() {
            command.arg("--options").arg(wanted.options.join(","));
        }
        // A group of its own: what is sent to the daemon's is not for it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        command
    }

    /// Watches a process until it ends.
    fn watch(
        self: &Arc<Self>,
        file: PathBuf,
        said: Said,
        child: Option<Child>,
    ) -> std::io::Result<()> {
        let process =
            Arc::new(Process { file, said, ended: tokio::sync::watch::Sender::new(false) });
        self.running.lock().push(Arc::clone(&process));
        let this = Arc::clone(self);
        std::thread::Builder::new()
            .name("mount-watch".to_owned())
            .spawn(move || {
                if let Some(mut child) = child {
                    // Only so that nothing is left of it in the table of processes.
                    let _ = child.wait();
                }
                if let Err(error) = wait_for_lock(&process.file) {
                    tracing::error!(%error, "a mount's process can't be watched");
                    return;
                }
                this.ended(&process);
            })
            .map(drop)
    }

    fn ended(&self, process: &Arc<Process>) {
        self.running.lock().retain(|one| !Arc::ptr_eq(one, process));
        let _ = std::fs::remove_file(&process.file);
        let (name, dir) = (&process.said.name, &process.said.dir);
        if is_mounted(dir) && is_dead(dir) {
            let unmounted = filesystem::unmount(dir, true);
            self.node.events().push(
                Severity::Error,
                "mount-died",
                format!(
                    "volume {name}: the process {} that served the mount on {} has died; what was not fsynced there is lost, and the mount is gone",
                    process.said.pid,
                    dir.display()
                ),
                About { volume: Some(VolumeId(process.said.volume)), ..About::default() },
            );
            if let Err(error) = unmounted {
                tracing::error!(volume = name, %error, "the dead mount stays");
            }
        }
        process.ended.send_replace(true);
    }

    fn on(&self, dir: &Path) -> Vec<Arc<Process>> {
        let running = self.running.lock();
        running.iter().filter(|process| process.said.dir == dir).cloned().collect()
    }

    /// Unmounts, and waits until the process has given its session back.
    ///
    /// # Errors
    /// It is in use, unless forced: then it goes though files are open, and what was not written is lost.
    pub async fn unmount(&self, dir: &Path, force: bool) -> Result<(), DaemonError> {
        let processes = self.on(dir);
        let dir = dir.to_owned();
        blocking(move || filesystem::unmount(&dir, force)).await??;
        for process in processes {
            let mut ended = process.ended.subscribe();
            if force {
                signal(process.said.pid, rustix::process::Signal::TERM);
            }
            let wait = if force { KILL_AFTER } else { END_WAIT };
            let ends = ended.wait_for(|ended| *ended);
            if tokio::time::timeout(wait, ends).await.is_err() {
                signal(process.said.pid, rustix::process::Signal::KILL);
            }
        }
        Ok(())
    }
}

/// What a process says on its standard output: `ok`, or why not.
fn answer_of(child: &mut Child) -> Result<String, &'static str> {
    let Some(stdout) = child.stdout.take() else { return Err("its process says nothing") };
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

fn said_in(file: &Path) -> Option<Said> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Waits until nobody has the lock on a process's file any more: then it has ended.
fn wait_for_lock(file: &Path) -> std::io::Result<()> {
    let file = File::open(file)?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn is_mounted(dir: &Path) -> bool {
    let table = mount_table::read().unwrap_or_default();
    table.iter().any(|mount| mount.dir == dir && mount.file_system == FILE_SYSTEM)
}

/// Whether the kernel says that nobody serves the mount.
fn is_dead(dir: &Path) -> bool {
    matches!(rustix::fs::statfs(dir), Err(rustix::io::Errno::NOTCONN))
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

//! A command in a host, running or ended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::failure::{Failure, Result};
use super::{enter, milliseconds, seconds, tasks};

/// What a command printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its standard output, with what isn't UTF-8 replaced.
    pub stdout: String,
    /// Its standard error, likewise.
    pub stderr: String,
    /// The exit code, or 128 and the signal's number.
    pub code: i32,
}

impl Output {
    /// Whether it ended with 0.
    pub fn succeeded(&self) -> bool {
        self.code == 0
    }
}

/// A command that runs in a host. Dropping it kills the command and what it started in its group.
#[derive(Debug)]
pub struct Process {
    place: String,
    command: String,
    child: Arc<Mutex<Child>>,
    pid: i32,
    stdout: PathBuf,
    stderr: PathBuf,
    dropped: OnDrop,
}

/// The processes that were started in a host, to be reaped at its end: as long as one of them is
/// waiting for its parent, which is us, the host's first process waits too.
#[derive(Debug, Default)]
pub(super) struct Children(Mutex<Vec<Arc<Mutex<Child>>>>);

impl Children {
    pub(super) fn add(&self, process: &Process) {
        self.reap();
        self.lock().push(Arc::clone(&process.child));
    }

    pub(super) fn reap(&self) {
        self.lock().retain(|child| matches!(look(child), Ok(None)));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Mutex<Child>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a child ended, if it has; the answer stays the same however often it is asked for.
fn look(child: &Mutex<Child>) -> io::Result<Option<ExitStatus>> {
    child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()
}

/// What dropping the handle does to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDrop {
    KillGroup,
    LeaveRunning,
}

impl Process {
    /// Starts a line of bash in the host whose first process is `init`, its outputs added to two files.
    pub(super) fn start(
        (place, init): (String, i32),
        text: &str,
        environment: &[(&str, &OsStr)],
        (stdout, stderr): (PathBuf, PathBuf),
        dropped: OnDrop,
    ) -> Result<Self> {
        let append = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.map_err(Failure::io(path.display().to_string()))
        };
        let mut command = Command::new("bash");
        command.args(["-c", text]).envs(environment.iter().copied()).process_group(0);
        command.stdin(Stdio::null()).stdout(append(&stdout)?).stderr(append(&stderr)?);
        let child = enter::spawn_in(init, &mut command)
            .map_err(Failure::io(format!("{place}: starting `{text}`")))?;
        let pid = child.id().cast_signed();
        let child = Arc::new(Mutex::new(child));
        Ok(Self { place, command: text.into(), child, pid, stdout, stderr, dropped })
    }

    /// The id, on the machine, of the process: bash, or what it has become by `exec`.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal to that process, not to what it started.
    pub fn signal(&self, signal: Signal) {
        tasks::signal(self.pid, signal);
    }

    /// Kills that process (not what it started, such as a daemon's holder) and waits for its end.
    ///
    /// # Errors
    /// It doesn't end within 30 s.
    pub fn kill(&self) -> Result<()> {
        if self.is_running() {
            self.signal(Signal::SIGKILL);
        }
        self.status(seconds(30)).map(|_| ())
    }

    /// Whether the command has not ended yet.
    pub fn is_running(&self) -> bool {
        matches!(look(&self.child), Ok(None))
    }

    /// What it has printed up to now.
    pub fn printed(&self) -> String {
        let (stdout, stderr) = (read(&self.stdout), read(&self.stderr));
        if self.stdout == self.stderr { stdout } else { stdout + &stderr }
    }

    /// Waits for the end, at most for `limit`; then the command is killed.
    ///
    /// # Errors
    /// [`Failure::Timeout`] with what was printed up to then.
    pub fn finish(self, limit: Duration) -> Result<Output> {
        let status = self.status(limit)?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Output { stdout: read(&self.stdout), stderr: read(&self.stderr), code })
    }

    /// Like [`Process::finish`], and a status other than 0 is a failure too.
    ///
    /// # Errors
    /// Also [`Failure::Command`].
    pub fn succeed(self, limit: Duration) -> Result<Output> {
        let (place, command) = (self.place.clone(), self.command.clone());
        let output = self.finish(limit)?;
        if output.succeeded() {
            return Ok(output);
        }
        let printed = format!("{}{}", output.stdout, output.stderr);
        Err(Failure::Command { place, command, code: output.code, printed })
    }

    fn status(&self, limit: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        let mut pause = milliseconds(1);
        loop {
            let ended = look(&self.child);
            if let Some(status) = ended.map_err(Failure::io(format!("`{}`", self.command)))? {
                return Ok(status);
            }
            if began.elapsed() >= limit {
                let what = format!("{}: the end of `{}`", self.place, self.command);
                return Err(Failure::Timeout { what, after: limit, last: self.printed() });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(milliseconds(20));
        }
    }

    fn kill_group(&self) {
        if self.is_running() {
            // Gone meanwhile is as good.
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        // A process that hangs in the kernel must not hang the test too: the host's end reports it.
        let _ = self.status(seconds(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        match self.dropped {
            OnDrop::KillGroup => self.kill_group(),
            OnDrop::LeaveRunning => {}
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

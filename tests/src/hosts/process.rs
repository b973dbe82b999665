//! A command in a host, running or ended.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::failure::{Failure, Result};
use super::{milliseconds, seconds, tasks};

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
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    dropped: OnDrop,
}

/// What dropping the handle does to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDrop {
    KillGroup,
    LeaveRunning,
}

impl Process {
    /// Starts `command` (a program that runs `text` in `place`), its outputs going to the two files.
    pub(super) fn start(
        mut command: Command,
        place: String,
        text: String,
        (stdout, stderr): (PathBuf, PathBuf),
        dropped: OnDrop,
    ) -> Result<Self> {
        let append = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.map_err(Failure::io(path.display().to_string()))
        };
        command.stdin(Stdio::null()).stdout(append(&stdout)?).stderr(append(&stderr)?);
        let child = command
            .process_group(0)
            .spawn()
            .map_err(Failure::io(format!("{place}: starting `{text}`")))?;
        Ok(Self { place, command: text, child, stdout, stderr, dropped })
    }

    /// The id, on the machine, of the command itself.
    ///
    /// # Errors
    /// [`Failure::Timeout`] if it doesn't start or is over at once.
    pub fn pid(&self) -> Result<i32> {
        // nsenter enters the host's pid namespace by a child: that is the command.
        let nsenter = self.child.id().cast_signed();
        let mut found = None;
        let what = format!("{}: a process of `{}`", self.place, self.command);
        super::wait_until(seconds(5), &what, || {
            found = tasks::child_of(nsenter);
            Ok(found.is_some())
        })?;
        found.ok_or(Failure::Wrong(what))
    }

    /// Sends a signal to the command itself, not to what it started.
    ///
    /// # Errors
    /// The command is over.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        tasks::signal(self.pid()?, signal);
        Ok(())
    }

    /// Kills the command (not what it started, such as a daemon's holder) and waits for its end.
    ///
    /// # Errors
    /// It doesn't end within 30 s.
    pub fn kill(&mut self) -> Result<()> {
        if self.is_running() {
            self.signal(Signal::SIGKILL)?;
        }
        self.status(seconds(30)).map(|_| ())
    }

    /// Whether the command has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
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
    pub fn finish(mut self, limit: Duration) -> Result<Output> {
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

    fn status(&mut self, limit: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        let mut pause = milliseconds(1);
        loop {
            let ended = self.child.try_wait();
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

    fn kill_group(&mut self) {
        if self.is_running() {
            // nsenter and the command share a group, though not a pid namespace.
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
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

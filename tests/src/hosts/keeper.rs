//! The process that keeps a namespace: it ends when we do, or when told.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::failure::{Failure, Result};
use super::tasks;

/// A namespace's first process, held by a pipe: when this end closes, even by our own violent death,
/// the process reads the end of its input and ends, and its namespaces with it.
#[derive(Debug)]
pub(super) struct Keeper {
    child: Child,
    /// The id, on the machine, of the process that says `ready`: the first in its pid namespace.
    pid: i32,
    _pipe: Option<ChildStdin>,
}

impl Keeper {
    /// Starts `command`, which must print `ready PID` and then read its input to the end.
    ///
    /// # Errors
    /// It says anything else; `log` has what it had to complain of.
    pub(super) fn start(mut command: Command, name: &str, log: &Path) -> Result<Self> {
        let complaints = File::create(log).map_err(Failure::io(log.display().to_string()))?;
        command.env("PATH", super::machine::search_path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints);
        // Signals for the test's group are not for the hosts: they end by the pipe.
        let starting = || format!("starting {name}");
        let mut child = command.process_group(0).spawn().map_err(Failure::io(starting()))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(Failure::io(starting()))?;
        }
        let pid = line.strip_prefix("ready ").and_then(|pid| pid.trim().parse().ok());
        let pipe = child.stdin.take();
        match pid {
            Some(pid) => Ok(Self { child, pid, _pipe: pipe }),
            None => {
                drop(pipe);
                let _ = child.wait();
                let because = std::fs::read_to_string(log).unwrap_or_default();
                Err(Failure::Unreadable { what: starting(), because: line + &because })
            }
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Kills the process, and with it all of its pid namespace, if it has one; says whether all was
    /// over within `limit`. `reap` must reap those of its processes that are children of ours.
    pub(super) fn kill(&mut self, limit: Duration, reap: impl Fn()) -> bool {
        tasks::signal(self.pid, Signal::SIGKILL);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() >= limit {
                return false;
            }
            reap();
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // What can't be ended was reported by whoever called `kill`; the closing pipe tries again.
        self.kill(Duration::from_secs(1), || {});
    }
}

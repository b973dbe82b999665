//! `mountd` on a host: started, killed, restarted, and its log.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::failure::{Failure, Result};
use super::host::Host;
use super::process::{OnDrop, Process};
use super::{seconds, wait_until};

/// Where the daemon listens for `mountctl`.
const SOCKET: &str = "/run/mooring/mountd.sock";

/// How long it may take until it answers there.
const START_LIMIT: Duration = seconds(30);

/// A daemon that was started: what it was told, and its process.
#[derive(Debug)]
pub(super) struct Daemon {
    arguments: Vec<String>,
    process: Process,
}

/// The daemon of a host.
impl Host {
    /// Starts `mountd run --data /var/lib/mooring --listen ADDRESS:7700 ARGUMENTS...` and waits until
    /// it answers on its socket. Its log, over all restarts, is the file [`Host::mountd_log`].
    ///
    /// # Errors
    /// It ends, or doesn't answer within 30 s; the message has the end of its log.
    pub fn mountd(&self, arguments: &[&str]) -> Result<()> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.into()).collect();
        self.start_mountd(arguments)
    }

    /// Starts it again with the arguments it had.
    ///
    /// # Errors
    /// As [`Host::mountd`]; also if none was ever started since the host was booted.
    pub fn restart_mountd(&self) -> Result<()> {
        let arguments = self.daemon().as_ref().map(|daemon| daemon.arguments.clone());
        let none = || Failure::Wrong(format!("{}: mountd was never started", self.name()));
        self.start_mountd(arguments.ok_or_else(none)?)
    }

    /// `kill -9` for the daemon alone: a holder that it started lives on.
    ///
    /// # Errors
    /// It isn't running, or can't be ended.
    pub fn kill_mountd(&self) -> Result<()> {
        self.with_running(Process::kill)
    }

    /// Asks the daemon to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// It isn't running, or goes on for another 30 s.
    pub fn stop_mountd(&self) -> Result<()> {
        self.signal_mountd(Signal::SIGTERM)?;
        let what = format!("{}: the end of mountd", self.name());
        wait_until(seconds(30), &what, || Ok(!self.mountd_is_running()))
    }

    /// Sends a signal to the daemon alone.
    ///
    /// # Errors
    /// It isn't running.
    pub fn signal_mountd(&self, signal: Signal) -> Result<()> {
        self.with_running(|process| {
            process.signal(signal);
            Ok(())
        })
    }

    /// The daemon's process id on the machine.
    ///
    /// # Errors
    /// It isn't running.
    pub fn mountd_pid(&self) -> Result<i32> {
        self.with_running(|process| Ok(process.pid()))
    }

    /// Whether the daemon runs.
    pub fn mountd_is_running(&self) -> bool {
        self.daemon().as_ref().is_some_and(|daemon| daemon.process.is_running())
    }

    /// The file with all that daemons of this host have printed.
    pub fn mountd_log(&self) -> PathBuf {
        self.directory().join("mountd.log")
    }

    /// The last lines of that file.
    pub fn last_lines(&self, count: usize) -> String {
        let log = fs::read(self.mountd_log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    fn start_mountd(&self, arguments: Vec<String>) -> Result<()> {
        if self.mountd_is_running() {
            return Err(Failure::Wrong(format!("{}: mountd is running already", self.name())));
        }
        let quoted: String =
            arguments.iter().map(|argument| format!(" {}", quote(argument))).collect();
        let address = self.address();
        let text =
            format!("exec mountd run --data /var/lib/mooring --listen {address}:7700{quoted}");
        let log = self.mountd_log();
        // The host, not this handle, is what ends a daemon.
        let process = self.start(&text, (log.clone(), log), OnDrop::LeaveRunning)?;
        *self.daemon() = Some(Daemon { arguments, process });
        self.wait_for_mountd()
    }

    fn wait_for_mountd(&self) -> Result<()> {
        let socket = self.path(SOCKET)?;
        let mut running = true;
        let what = format!("{}: mountd answers", self.name());
        let answered = wait_until(START_LIMIT, &what, || {
            running = self.mountd_is_running();
            Ok(!running || UnixStream::connect(&socket).is_ok())
        });
        let printed = self.last_lines(30);
        match answered {
            Ok(()) if running => Ok(()),
            Ok(()) => {
                let (place, command) = (self.name(), "mountd run".into());
                Err(Failure::Command { place, command, code: -1, printed })
            }
            Err(_) => Err(Failure::Timeout { what, after: START_LIMIT, last: printed }),
        }
    }

    fn with_running<T>(&self, act: impl FnOnce(&Process) -> Result<T>) -> Result<T> {
        let slot = self.daemon();
        let running = slot.as_ref().map(|daemon| &daemon.process);
        if let Some(process) = running
            && process.is_running()
        {
            return act(process);
        }
        Err(Failure::Wrong(format!("{}: mountd isn't running", self.name())))
    }
}

/// An argument as bash reads it back.
fn quote(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

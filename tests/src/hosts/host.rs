//! One host: its power, its cable, and what runs on it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::daemon::Daemon;
use super::failure::{Failure, Result};
use super::keeper::Keeper;
use super::loops::{self, DeviceNumber};
use super::network::{self, Network};
use super::process::{Children, OnDrop, Output, Process};
use super::{seconds, tasks};

/// How long a command may take that nobody gave another limit.
const COMMAND_LIMIT: Duration = seconds(60);

/// One host of a set. On from the start; a power cut ends everything in it at once.
#[derive(Debug)]
pub struct Host {
    number: usize,
    directory: PathBuf,
    network: Arc<Network>,
    keeper: Mutex<Option<Keeper>>,
    commands: AtomicUsize,
    children: Children,
    pub(super) daemon: Mutex<Option<Daemon>>,
}

impl Host {
    /// Makes host `number`, off, with its files below `directory`.
    pub(super) fn new(number: usize, directory: PathBuf, network: Arc<Network>) -> Result<Self> {
        for folder in ["disk", "mnt", "output"] {
            let path = directory.join(folder);
            fs::create_dir_all(&path).map_err(Failure::io(path.display().to_string()))?;
        }
        let names: String =
            (1..=99).map(|host| format!("{} host{host}\n", network::address(host))).collect();
        let names = format!("127.0.0.1 localhost host{number}\n{names}");
        fs::write(directory.join("hosts"), names).map_err(Failure::io("the file of names"))?;
        Ok(Self {
            number,
            directory,
            network,
            keeper: Mutex::new(None),
            commands: AtomicUsize::new(0),
            children: Children::default(),
            daemon: Mutex::new(None),
        })
    }

    /// The host's number: 1 for the first.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The host's IPv4 address on the set's network.
    pub fn address(&self) -> String {
        network::address(self.number)
    }

    /// Where, on the machine, the host's /var/lib/mooring lies: there even while the host is off.
    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// The machine's name for an absolute path in the host, good for as long as the host is on.
    ///
    /// # Errors
    /// [`Failure::Off`].
    pub fn path(&self, inside: impl AsRef<Path>) -> Result<PathBuf> {
        let inside = inside.as_ref();
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        Ok(PathBuf::from(format!("/proc/{}/root", self.init()?)).join(relative))
    }

    // -- power -----------------------------------------------------------------------------------

    /// Whether the host is on.
    pub fn is_on(&self) -> bool {
        self.keeper().is_some()
    }

    /// Switches the host on, with the disk it had and nothing running.
    ///
    /// # Errors
    /// It doesn't come up; the message has the reason.
    pub fn boot(&self) -> Result<()> {
        let mut keeper = self.keeper();
        if keeper.is_some() {
            return Ok(());
        }
        loops::note_machine_mounts(&self.directory)?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork"])
            .args(["--propagation", "private", "bash", "-c", include_str!("boot.sh"), "boot"])
            .arg(&self.directory)
            .arg(self.number.to_string())
            .current_dir("/")
            .env("MOORING_HOST", &self.directory);
        let started = Keeper::start(command, &self.name(), &self.directory.join("boot.log"))?;
        self.network.connect(self.number, started.pid())?;
        *keeper = Some(started);
        Ok(())
    }

    /// Takes the power: the network hears nothing more, every process ends, every mount is gone, and
    /// so are loop devices on file systems that only this host had. The disk stays as it is, with the
    /// page cache: nothing that was written is lost.
    ///
    /// # Errors
    /// [`Failure::Stuck`] if a process can't be ended within 30 s.
    pub fn power_cut(&self) -> Result<()> {
        let mut slot = self.keeper();
        let Some(mut keeper) = slot.take() else { return Ok(()) };
        let own = self.own_devices(keeper.pid());
        // Its end of the cable dies with it, in a moment of the kernel's choice; now is better.
        let disconnected = self.network.disconnect(self.number);
        let ended = keeper.kill(seconds(30), || self.children.reap());
        self.daemon().take();
        loops::detach_on_devices(&own)?;
        if !ended {
            let processes = tasks::in_namespace_of(keeper.pid());
            let processes = processes.into_iter().map(tasks::describe).collect();
            return Err(Failure::Stuck { host: self.number, processes });
        }
        disconnected
    }

    // -- the cable -------------------------------------------------------------------------------

    /// Pulls the network cable: no packet in or out, and the host sees its link go.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn cut_cable(&self) -> Result<()> {
        self.network.pull(self.number)
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn plug_cable(&self) -> Result<()> {
        self.network.plug(self.number)
    }

    /// Limits what reaches the host, in tc's words: `100mbit`.
    ///
    /// # Errors
    /// `tc` doesn't know the rate, or the kernel has no token bucket.
    pub fn limit_network(&self, rate: &str) -> Result<()> {
        self.network.limit(self.number, Some(rate))
    }

    /// Lifts the limit.
    ///
    /// # Errors
    /// `tc` fails.
    pub fn unlimit_network(&self) -> Result<()> {
        self.network.limit(self.number, None)
    }

    // -- processes -------------------------------------------------------------------------------

    /// Runs a line of bash and waits for its end, at most a minute; another status than 0 is a failure.
    ///
    /// # Errors
    /// [`Failure::Command`], [`Failure::Timeout`], [`Failure::Off`].
    pub fn run(&self, command: impl AsRef<str>) -> Result<Output> {
        self.run_for(COMMAND_LIMIT, command)
    }

    /// Like [`Host::run`], with a limit of its own.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_for(&self, limit: Duration, command: impl AsRef<str>) -> Result<Output> {
        self.spawn(command)?.succeed(limit)
    }

    /// Like [`Host::run`], whatever the status is.
    ///
    /// # Errors
    /// [`Failure::Timeout`], [`Failure::Off`].
    pub fn attempt(&self, command: impl AsRef<str>) -> Result<Output> {
        self.spawn(command)?.finish(COMMAND_LIMIT)
    }

    /// Starts a line of bash and goes on.
    ///
    /// # Errors
    /// [`Failure::Off`], or the machine is out of processes.
    pub fn spawn(&self, command: impl AsRef<str>) -> Result<Process> {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let output = self.directory.join("output");
        let files = (output.join(format!("{number}.out")), output.join(format!("{number}.err")));
        self.start(command.as_ref(), files, OnDrop::KillGroup)
    }

    pub(super) fn start(
        &self,
        text: &str,
        files: (PathBuf, PathBuf),
        dropped: OnDrop,
    ) -> Result<Process> {
        let path = super::machine::search_path();
        let environment =
            [("PATH", OsStr::new(&path)), ("MOORING_HOST", self.directory.as_os_str())];
        let place = (self.name(), self.init()?);
        let process = Process::start(place, text, &environment, files, dropped)?;
        self.children.add(&process);
        Ok(process)
    }

    /// Sends a signal to every process of the host: with SIGSTOP a host that hangs.
    ///
    /// # Errors
    /// [`Failure::Off`].
    pub fn signal_processes(&self, signal: Signal) -> Result<()> {
        let init = self.init()?;
        // Twice, since the first round can miss a process that was being forked.
        for _ in 0..2 {
            for pid in tasks::in_namespace_of(init) {
                tasks::signal(pid, signal);
            }
        }
        Ok(())
    }

    /// Stops every process of the host where it is; its kernel, network stack included, goes on.
    ///
    /// # Errors
    /// [`Failure::Off`].
    pub fn stop_processes(&self) -> Result<()> {
        self.signal_processes(Signal::SIGSTOP)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`Failure::Off`].
    pub fn resume_processes(&self) -> Result<()> {
        self.signal_processes(Signal::SIGCONT)
    }

    // -- within the harness ----------------------------------------------------------------------

    /// The machine's id of the host's first process.
    ///
    /// # Errors
    /// [`Failure::Off`].
    pub fn init(&self) -> Result<i32> {
        self.keeper().as_ref().map(Keeper::pid).ok_or(Failure::Off { host: self.number })
    }

    /// What it is called: `host1`.
    pub fn name(&self) -> String {
        format!("host{}", self.number)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Keeper>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn daemon(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file systems that processes of the host have mounted and the machine has and had not.
    fn own_devices(&self, init: i32) -> BTreeSet<DeviceNumber> {
        let mut own = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for pid in tasks::in_namespace_of(init) {
            if seen.insert(fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()) {
                own.extend(loops::devices_mounted_in(format!("/proc/{pid}/mountinfo")));
            }
        }
        loops::remove_machine_mounts(&self.directory, &mut own);
        own
    }
}

//! Several mounts of one shared volume on this machine, really mounted, and one coordinator over memory.
//!
//! ```text
//!   the test (calls, and is stopped by whoever it waits for)
//!      │ system calls on DIR/m0, DIR/m1, ...          │ commands over a socket
//!      v                                              v
//!   kernel ──/dev/fuse──> the test's own program once more, serving: mounts, coordinator, memory
//! ```
//! Two processes, since who waits for a file system that it serves itself can't even be killed. The one
//! that serves is killed when the test takes longer than its time, which frees whoever waits; and the
//! mounts are in a mount namespace of the test's own, so that nothing is left behind.
#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]
#![allow(dead_code, reason = "each test program uses a part of it")]

mod links;
mod server;
mod slices;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use parking_lot::Mutex;
use tempfile::TempDir;

/// Says to the program that it is the one that serves, and where the test listens.
const SERVES: &str = "MOORING_RIG";

/// How long a test may take, if it doesn't say.
const LIMIT: Duration = Duration::from_secs(90);

/// Mounts `m0`, `m1`, ... of one volume.
pub struct Rig {
    directory: TempDir,
    server: Arc<Mutex<Child>>,
    commands: Mutex<BufReader<UnixStream>>,
    mounts: usize,
    over: Arc<AtomicBool>,
}

impl Rig {
    /// So many mounts, or `None` where nothing can be mounted. In the program that serves this serves
    /// and doesn't return: so nothing that matters stands before it in a test.
    #[must_use]
    pub fn start(mounts: usize) -> Option<Self> {
        Self::start_for(mounts, LIMIT)
    }

    /// The same, for a test that may take so long.
    #[must_use]
    pub fn start_for(mounts: usize, limit: Duration) -> Option<Self> {
        Self::start_as(&vec![""; mounts], limit)
    }

    /// Mounts with these options each.
    #[must_use]
    pub fn start_as(options: &[&str], limit: Duration) -> Option<Self> {
        let mounts = options.len();
        if let Some(socket) = std::env::var_os(SERVES) {
            server::serve(Path::new(&socket));
        }
        if let Err(reason) = can_mount() {
            skip(&reason);
            return None;
        }
        let directory = TempDir::with_prefix("mooring-mount-").expect("a directory");
        for i in 0..mounts {
            std::fs::create_dir(directory.path().join(format!("m{i}"))).expect("a mount point");
        }
        // Tests have other users go in.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("it is ours");
        let socket = directory.path().join("commands");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let server = Arc::new(Mutex::new(spawn(&socket)));
        let over = Arc::new(AtomicBool::new(false));
        watch(server.clone(), over.clone(), limit);
        let (stream, _) = listener.accept().expect("the server connects");
        let commands = Mutex::new(BufReader::new(stream));
        let rig = Self { directory, server, commands, mounts, over };
        for (i, options) in options.iter().enumerate() {
            rig.tell(&format!("mount {} {options}", rig.root(i).display()));
        }
        Some(rig)
    }

    /// Where mount `i` is.
    pub fn root(&self, i: usize) -> PathBuf {
        self.directory.path().join(format!("m{i}"))
    }

    /// A path on mount `i`.
    pub fn path(&self, i: usize, name: &str) -> PathBuf {
        self.root(i).join(name)
    }

    /// How many there are.
    pub fn mounts(&self) -> usize {
        self.mounts
    }

    /// Has the server do something; what it says.
    ///
    /// # Panics
    /// If it can't, or is gone.
    pub fn tell(&self, command: &str) -> String {
        let mut commands = self.commands.lock();
        writeln!(commands.get_mut(), "{command}").expect("the server listens");
        let mut said = String::new();
        commands.read_line(&mut said).expect("the server answers");
        let said = said.trim_end();
        let said = said.strip_prefix("ok");
        said.unwrap_or_else(|| panic!("{command}: {said:?}")).trim().to_owned()
    }

    /// The coordinator is gone; another follows on the same volume.
    pub fn fail_over(&self) {
        self.tell("failover");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let mut server = self.server.lock();
        // Its end ends the mounts; what is left of them goes with the namespace.
        let _ = server.kill();
        let _ = server.wait();
        for i in 0..self.mounts {
            let flags = nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW;
            let _ = nix::mount::umount2(&self.root(i), flags);
        }
    }
}

/// Starts this program once more, with this very test, as the one that serves.
fn spawn(socket: &Path) -> Child {
    let thread = std::thread::current();
    let test = thread.name().expect("tests run in threads of their name");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--nocapture"]).env(SERVES, socket);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // Not longer than the test's thread.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().expect("the server")
}

/// Kills the server when a test takes too long: everybody who waits is free then.
fn watch(server: Arc<Mutex<Child>>, over: Arc<AtomicBool>, limit: Duration) {
    std::thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < limit && !over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if !over.load(Ordering::SeqCst) {
            eprintln!("after {limit:?} the test is not over: the mounts end");
            let _ = server.lock().kill();
        }
    });
}

/// Makes a mount namespace for the test's thread and all that it starts.
fn can_mount() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting takes root".to_owned());
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("there is no /dev/fuse".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("no mount namespace: {error}"))?;
    let none: Option<&Path> = None;
    let private = nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC;
    nix::mount::mount(none, "/", none, private, none)
        .map_err(|error| format!("no private mounts: {error}"))
}

/// Says that a test doesn't run here, and why: on the screen, and in the file of `tests/run`.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("mount::{}: {reason}", thread.name().unwrap_or("?"));
    eprintln!("SKIPPED {line}");
    let Some(file) = std::env::var_os("MOORING_SKIPS") else { return };
    let file = std::fs::File::options().append(true).create(true).open(file);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    written.expect("MOORING_SKIPS names a file that can be written");
}

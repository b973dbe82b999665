//! What the tests share: a place with guards that clean it up, and programs run with a time limit.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]

pub mod leftovers;
pub mod memory_io;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_device::LoopHost;
use mooring_device::holder::{HolderClient, ensure_running};
use tempfile::TempDir;

/// The processes under test.
pub const SERVER: &str = env!("CARGO_BIN_EXE_mooring-device-server");

/// Seconds after which a program is taken to hang.
const PROGRAM_LIMIT_S: &str = "120";

/// A directory of its own with a holder; everything in it ends with it, also after a failure.
pub struct Place {
    directory: TempDir,
    server: Option<Server>,
}

struct Server {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Place {
    /// # Panics
    /// Without root, /dev/fuse, loop devices or the programs: these tests need them all.
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "the device tests must run as root");
        for node in ["/dev/fuse", "/dev/loop-control"] {
            let found =
                fs::metadata(node).is_ok_and(|metadata| metadata.file_type().is_char_device());
            assert!(
                found,
                "the device tests need {node}: `modprobe fuse loop`, or give the container the devices"
            );
        }
        for program in [
            "fio",
            "mkfs.ext4",
            "mkfs.xfs",
            "e2fsck",
            "resize2fs",
            "blkdiscard",
            "fstrim",
            "nbdcopy",
            "qemu-io",
        ] {
            let found =
                Command::new(program).arg("--version").stdin(Stdio::null()).output().is_ok();
            assert!(found, "the device tests need {program}: `deploy/setup test`");
        }
        leftovers::sweep();
        let directory = TempDir::with_prefix(leftovers::PREFIX).expect("a temporary directory");
        leftovers::mark(directory.path(), std::process::id());
        Self { directory, server: None }
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn devices(&self) -> PathBuf {
        self.path("devices")
    }

    pub fn socket(&self) -> PathBuf {
        self.path("holder.sock")
    }

    /// A connection to this place's holder, which is started if need be.
    pub fn holder(&self) -> Arc<HolderClient> {
        let socket = self.socket();
        let mut command = Command::new(SERVER);
        Arc::new(ensure_running(&socket, command.arg("holder").arg(&socket)).expect("a holder"))
    }

    /// Devices of this process, with the holder.
    pub fn host(&self) -> LoopHost {
        LoopHost::new(&self.devices(), Some(self.holder())).expect("a place for devices")
    }

    /// A file of zeros.
    pub fn file(&self, bytes: u64) -> PathBuf {
        let path = self.path("volume");
        fs::File::create(&path).and_then(|file| file.set_len(bytes)).expect("a file");
        path
    }

    /// Starts the daemon under test on [`Place::file`], and returns its device's node.
    pub fn start(&mut self, handover: &str) -> PathBuf {
        self.launch(handover);
        let node = self.read_line();
        assert!(node.starts_with("/dev/loop"), "the server must say its device, not {node:?}");
        PathBuf::from(node)
    }

    /// Starts the daemon and doesn't wait for it.
    pub fn launch(&mut self, handover: &str) {
        assert!(self.server.is_none(), "one at a time");
        let mut process = Command::new(SERVER)
            .arg("serve")
            .arg(self.devices())
            .arg(self.socket())
            .arg("vol")
            .arg(self.path("volume"))
            .arg(handover)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        self.server = Some(Server { process, input, output });
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("a running server");
        server.process.kill().expect("it can be killed");
        server.process.wait().expect("it ends");
    }

    /// Gives the server a command.
    pub fn tell(&mut self, command: &str) -> String {
        let server = self.server.as_mut().expect("a running server");
        writeln!(server.input, "{command}").expect("it listens");
        self.read_line()
    }

    fn read_line(&mut self) -> String {
        let server = self.server.as_mut().expect("a running server");
        let mut line = String::new();
        server.output.read_line(&mut line).expect("it talks");
        line.trim().to_owned()
    }

    /// Mounts the file system on `node`; it is unmounted with the place at the latest.
    pub fn mount(&self, node: &Path, name: &str) -> PathBuf {
        let point = self.path(name);
        fs::create_dir_all(&point).expect("a directory");
        run("mount", [node, point.as_path()]);
        point
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let server = self.server.take();
        leftovers::clear(self.directory.path(), || {
            if let Some(mut server) = server {
                let _ = server.process.kill();
                let _ = server.process.wait();
            }
        });
    }
}

/// Runs a program, and returns what it says; it must succeed within the limit.
pub fn run(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
) -> String {
    let output = try_run(program, arguments);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{program} failed with {}: {text}", output.status);
    text
}

/// Runs a program within the limit.
pub fn try_run(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
) -> Output {
    Command::new("timeout")
        .args(["-k", "5", PROGRAM_LIMIT_S, program])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// A child process that ends with its value.
pub struct Background(pub Child);

impl Background {
    pub fn start(
        program: &str,
        arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
    ) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        Self(child)
    }

    /// Waits for its end; `None` if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        eventually(limit, || self.0.try_wait().expect("it is ours"))
    }

    /// What it said; it must have ended.
    pub fn said(mut self) -> String {
        use std::io::Read;
        let mut text = String::new();
        for pipe in [
            self.0.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
            self.0.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
        ]
        .into_iter()
        .flatten()
        {
            BufReader::new(pipe).read_to_string(&mut text).expect("text");
        }
        text
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // Not waited for: if it hangs in the kernel, the place's clean-up frees it.
    }
}

/// Polls until there is something, or the limit is over.
pub fn eventually<T>(limit: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = poll();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tasks of this machine that wait uninterruptibly and have `word` in their command line or are
/// named after the loop device.
pub fn stuck_tasks(word: &str) -> Vec<String> {
    let mut stuck = Vec::new();
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(status) = fs::read_to_string(process.path().join("status")) else { continue };
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        let named =
            command.contains(word) || status.lines().next().is_some_and(|name| name.contains(word));
        if named && status.contains("State:\tD") {
            stuck.push(format!("{} {command}", process.path().display()));
        }
    }
    stuck
}

/// A block device's logical sector size in bytes.
pub fn sector_size(node: &Path) -> u64 {
    run("blockdev", ["--getss", node.to_str().expect("text")]).trim().parse().expect("a number")
}

/// Whether anything of the place `root` still stands behind a loop device.
pub fn loop_backed_by(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").expect("/sys").flatten() {
        let backing =
            fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim()).starts_with(root) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// Blocks of 512 bytes that a file occupies.
pub fn allocated(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").blocks()
}

//! A file system of one file, whose reads and blocking locks wait until they are released.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_fuse::abi::{init, lock, open};
use mooring_fuse::reply::{self, Entry, Listing, NodeAttributes};
use mooring_fuse::request::{Operation, Request};
use mooring_fuse::{Answer, Features, FileSystem, Limits, MountOptions, Session, Write, mount};
use nix::mount::MsFlags;
use parking_lot::Mutex;
use tempfile::TempDir;

pub const ROOT: u64 = 1;
pub const SLOW: u64 = 2;

const LONG: Duration = Duration::from_secs(3600);
const MAX_WRITE: u32 = 128 << 10;

/// The file system.
#[derive(Default)]
pub struct Toy(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: Vec<Answer>,
    released: bool,
    hidden: bool,
    size: Option<u64>,
    interrupted: usize,
    locks: Vec<(bool, u64, u64)>,
    written: Vec<u8>,
}

impl Toy {
    /// Answers all reads that wait, and those to come.
    pub fn release(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.released = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|answer| answer.parts(&[b"late"]));
    }

    pub fn interrupted(&self) -> usize {
        self.0.lock().interrupted
    }

    pub fn locks(&self) -> Vec<(bool, u64, u64)> {
        self.0.lock().locks.clone()
    }

    pub fn written(&self) -> Vec<u8> {
        self.0.lock().written.clone()
    }

    pub fn set_size(&self, size: u64) {
        self.0.lock().size = Some(size);
    }

    pub fn hide(&self) {
        self.0.lock().hidden = true;
    }

    fn attributes(&self, node: u64) -> NodeAttributes {
        let size = self.0.lock().size.unwrap_or(4);
        let (mode, links) =
            if node == ROOT { (libc::S_IFDIR | 0o755, 2) } else { (libc::S_IFREG | 0o644, 1) };
        NodeAttributes { ino: node, size, mode, links, ..NodeAttributes::default() }
    }

    fn found(&self) -> Entry {
        Entry { attributes: self.attributes(SLOW), entry_valid: LONG, attributes_valid: LONG }
    }

    fn read(&self, offset: u64, answer: Answer) {
        let mut state = self.0.lock();
        if !state.released {
            return state.waiting.push(answer);
        }
        drop(state);
        if offset == 0 { answer.parts(&[b"la", b"te"]) } else { answer.done() }
    }

    fn list(&self, offset: u64, size: u32, plus: bool, answer: Answer) {
        let mut listing = Listing::new(size);
        if offset == 0 {
            let kind = u32::from(libc::DT_REG);
            let fits = match plus {
                true => listing.push_plus(&self.found(), SLOW, 1, kind, b"slow"),
                false => listing.push(SLOW, 1, kind, b"slow"),
            };
            assert!(fits, "the kernel asks for more than one name");
        }
        answer.parts(&[listing.bytes()]);
    }
}

impl FileSystem for Toy {
    fn request(&self, request: &Request<'_>, answer: Answer) {
        let node = request.header.node;
        match request.operation {
            Operation::Lookup { name: b"slow" } if !self.0.lock().hidden => {
                answer.frame(&reply::entry(&self.found()));
            }
            Operation::Lookup { .. } => answer.error(libc::ENOENT),
            Operation::Getattr { .. } | Operation::Setattr { .. } => {
                answer.frame(&reply::attributes(&self.attributes(node), LONG));
            }
            Operation::Open { .. } => answer.frame(&reply::opened(7, open::DIRECT_IO)),
            Operation::Opendir { .. } => answer.frame(&reply::opened(0, 0)),
            Operation::Read { offset, .. } => self.read(offset, answer),
            Operation::Readdir { offset, size, plus, .. } => self.list(offset, size, plus, answer),
            Operation::Setlk { wait: true, .. } => self.0.lock().waiting.push(answer),
            Operation::Setlk { lock: asked, .. } => {
                let of_flock = asked.flags & lock::FLOCK != 0;
                if asked.kind != libc::F_UNLCK as u32 {
                    self.0.lock().locks.push((of_flock, asked.start, asked.end));
                }
                answer.done();
            }
            Operation::Flush { .. } | Operation::Release { .. } | Operation::Releasedir { .. } => {
                answer.done();
            }
            _ => answer.error(libc::ENOSYS),
        }
    }

    fn write(&self, write: Write, answer: Answer) {
        let mut state = self.0.lock();
        assert_eq!(write.offset, state.written.len() as u64, "writes come in order here");
        state.written.extend_from_slice(&write.data);
        answer.frame(&reply::written(write.data.len() as u32));
    }

    fn forget(&self, _node: u64, _lookups: u64) {}

    fn interrupted(&self, unique: u64) {
        let mut state = self.0.lock();
        state.interrupted += 1;
        state.waiting.retain(|answer| answer.unique() != unique);
    }

    fn ended(&self) {}
}

/// It, mounted; unmounted at the end, also after a failure.
pub struct Mounted {
    directory: TempDir,
    toy: Arc<Toy>,
    session: Arc<Session<Toy>>,
}

impl Mounted {
    /// # Panics
    /// Without root or /dev/fuse: these tests need them.
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests must run as root");
        let directory = TempDir::with_prefix("mooring-fuse-").expect("a directory");
        let options = MountOptions {
            fstype: "fuse.mooring-toy",
            source: "toy",
            flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            options: "default_permissions,allow_other",
            private: true,
            threads: 2,
            limits: Limits { max_write: MAX_WRITE, max_background: 64 },
            features: Features {
                needed: init::ASYNC_READ | init::BIG_WRITES | init::MAX_PAGES,
                wanted: init::POSIX_LOCKS
                    | init::FLOCK_LOCKS
                    | init::DO_READDIRPLUS
                    | init::HANDLE_KILLPRIV_V2,
            },
        };
        let (descriptors, _) = mount(directory.path(), &options).expect("a mount");
        let toy = Arc::new(Toy::default());
        let session =
            Session::start("toy", toy.clone(), descriptors, MAX_WRITE).expect("a session");
        Self { directory, toy, session }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn toy(&self) -> &Toy {
        &self.toy
    }

    pub fn session(&self) -> &Session<Toy> {
        &self.session
    }

    /// Returns when so many reads or locks wait for an answer.
    pub fn until_requests_wait(&self, count: usize) {
        let began = Instant::now();
        while self.toy.0.lock().waiting.len() < count {
            assert!(began.elapsed() < Duration::from_secs(20), "no request came");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.toy.release();
        let flags = nix::mount::MntFlags::MNT_FORCE | nix::mount::MntFlags::MNT_DETACH;
        if let Err(error) = nix::mount::umount2(self.root(), flags) {
            eprintln!("left mounted: {}: {error}", self.root().display());
        }
    }
}

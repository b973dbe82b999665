//! What serves: it does what the test says, one line after the other.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooring_sharedfs_coordinator::{
    Coordinator, MemorySlices, Observer, Options as CoordinatorOptions, Parts, Report,
};
use mooring_sharedfs_mount::{Mount, Options, Settings};
use mooring_terms::AttachmentEpoch;
use nix::mount::MsFlags;

use super::links::{Links, ToMounts};
use super::slices::MemoryBlocks;

/// 4 GiB in slices of 256 MiB.
const BLOCKS: u64 = 1 << 20;
const SLICE_BLOCKS: u64 = 1 << 16;

/// How long anything that the test asks for may take.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    slices: Arc<MemorySlices>,
    links: Arc<Links>,
    mounts: u64,
}

/// What coordinators report: on the screen of the test.
struct Reports;

impl Observer for Reports {
    fn report(&self, report: Report) {
        eprintln!("coordinator: {report:?}");
    }
}

/// Serves until the test is over.
pub fn serve(socket: &Path) -> ! {
    let stream = UnixStream::connect(socket).expect("the test listens");
    let mut answers = stream.try_clone().expect("a socket");
    let slices = MemorySlices::new(SLICE_BLOCKS);
    let links = Arc::<Links>::default();
    let mut server = Server { slices, links, mounts: 0 };
    server.begin_coordinator();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let said = match server.command(&line) {
            Ok(said) => format!("ok {said}"),
            Err(error) => format!("error {error}"),
        };
        if writeln!(answers, "{said}").is_err() {
            break;
        }
    }
    // Without unwinding: whatever is mounted ends with the process.
    std::process::exit(0);
}

impl Server {
    fn begin_coordinator(&self) {
        let attachment = self.slices.attach();
        let epoch = AttachmentEpoch(attachment.epoch());
        let options = CoordinatorOptions::new(epoch, BLOCKS, SLICE_BLOCKS);
        let parts = Parts {
            blocks: Arc::new(attachment.clone()),
            slices: Arc::new(attachment),
            peers: Arc::new(ToMounts(Arc::downgrade(&self.links))),
            observer: Arc::new(Reports),
            options,
        };
        let coordinator = Coordinator::start(parts).expect("a coordinator");
        self.links.set_coordinator(Some(coordinator));
    }

    fn command(&mut self, line: &str) -> Result<String, String> {
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "mount" => self.mount(argument).map(|()| String::new()),
            "umount" => self.unmount(argument).map(|()| String::new()),
            "status" => Ok(format!("{:?}", self.of(argument)?.status())),
            "cut" => {
                self.links.cut_node(number(argument)?);
                Ok(String::new())
            }
            "away" => {
                self.links.set_coordinator(None);
                self.links.cut_all();
                Ok(String::new())
            }
            "statistics" => Ok(format!("{:?}", self.of(argument)?.statistics())),
            "back" => {
                self.begin_coordinator();
                Ok(String::new())
            }
            "failover" => {
                self.links.set_coordinator(None);
                self.links.cut_all();
                self.begin_coordinator();
                Ok(String::new())
            }
            _ => Err(format!("no command {command}")),
        }
    }

    fn of(&self, argument: &str) -> Result<Arc<Mount>, String> {
        self.links.mount(number(argument)?).ok_or_else(|| format!("no mount {argument}"))
    }

    /// Mounts at a directory, after which options may be given: `soft`, `squash`, `ro`. The first is node 0.
    fn mount(&mut self, argument: &str) -> Result<(), String> {
        let (point, given) = argument.split_once(' ').unwrap_or((argument, ""));
        let is = |option: &str| given.split(',').any(|one| one == option);
        let node = self.mounts;
        self.mounts += 1;
        let options = Options { node, slice_blocks: SLICE_BLOCKS, ..Options::default() };
        let settings = Settings {
            point: point.into(),
            source: "rig".to_owned(),
            flags: if is("ro") { MsFlags::MS_RDONLY } else { MsFlags::empty() },
            threads: 2,
            soft: is("soft").then_some(Duration::from_millis(500)),
            squash: is("squash"),
            options,
        };
        let blocks = Arc::new(MemoryBlocks::new(self.slices.clone()));
        let mount = Mount::start(settings, blocks.clone()).map_err(|error| error.to_string())?;
        let mount = Arc::new(mount);
        blocks.of(&mount);
        self.links.add(node, mount.clone());
        let began = Instant::now();
        while !mount.status().served {
            if began.elapsed() > PATIENCE {
                return Err("no session".to_owned());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn unmount(&self, argument: &str) -> Result<(), String> {
        let mount = self.of(argument)?;
        mount.unmount(false, PATIENCE).map_err(|error| error.to_string())?;
        self.links.remove(number(argument)?);
        Ok(())
    }
}

fn number(argument: &str) -> Result<u64, String> {
    argument.parse().map_err(|_| format!("no number: {argument}"))
}

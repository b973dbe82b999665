//! `mountd mount`: the process that serves one mount of a shared volume. It outlives the daemon.
//!
//! ```text
//!   daemon ── starts ──> status file, locked ──> volume met ──> mounted ──> session ──> "ok"
//!                                                                  │
//!   kernel ──/dev/fuse── Mount ── way.rs: letters ────────> the volume's coordinator
//!                          └───── blocks.rs: data ────────> slice primaries
//! ```
//! It ends when the kernel has unmounted it, by whoever's wish, and everything is written back; SIGTERM asks
//! for that, and takes the mount away even from those who use it. When its session is over (it was evicted,
//! or couldn't be heard) it gives errors until it is unmounted.
#![allow(clippy::disallowed_methods, reason = "a shell: it has deadlines")]

mod blocks;
mod status;
mod way;

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockstore::{Client, RemoteError};
use mooring_sharedfs_mount::{Mount, MountError, Options, Settings};
use nix::mount::MsFlags;
use nix::sys::signal::{SigSet, Signal};

use crate::arguments::MountArguments;
use blocks::VolumeBlocks;
use status::StatusFile;
use way::Way;

/// How long the coordinator may take to give a session: a failover in the middle is waited for. Less
/// than the daemon waits for us.
const SESSION_WAIT: Duration = Duration::from_secs(35);

/// How long what is dirty may take to be written back at the end, before it is given up.
const END_WAIT: Duration = Duration::from_secs(10);

/// Threads that read requests of the kernel.
const THREADS: usize = 2;

/// Why a shared volume could not be mounted.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}: no such mount option")]
    Option(String),
    #[error("the status file {path}: {source}", path = path.display())]
    Status { path: std::path::PathBuf, source: std::io::Error },
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("no coordinator of the volume has answered within {SESSION_WAIT:?}")]
    NoSession,
}

/// Mounts, serves until it is unmounted, and ends.
pub fn run(arguments: MountArguments) -> ExitCode {
    keep_memory_small();
    let signals = block_signals();
    // SAFETY: whoever starts us gives us this descriptor, for this.
    let mut ready = File::from(unsafe { OwnedFd::from_raw_fd(arguments.ready_fd) });
    let (mount, client, _status) = match begin(&arguments) {
        Ok(begun) => begun,
        Err(failure) => {
            // Nobody to tell is nothing to fail for.
            let _ = writeln!(ready, "error: {failure}");
            eprintln!("mountd: {failure}");
            return ExitCode::FAILURE;
        }
    };
    let _ = writeln!(ready, "ok");
    drop(ready);
    tracing::info!(volume = arguments.name, point = %mount.point().display(), "mounted");
    let asked = mount.clone();
    let listener = std::thread::Builder::new().name("signals".to_owned());
    if let Err(error) = listener.spawn(move || end_on_signal(signals, &asked)) {
        tracing::error!(%error, "nobody listens for signals: only umount ends this mount");
    }
    serve(&mount);
    client.close();
    ExitCode::SUCCESS
}

/// Has the allocator give back what is free, instead of keeping it for each of some dozen threads.
fn keep_memory_small() {
    use nix::libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
    for (option, value) in
        [(M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 512 << 10), (M_TRIM_THRESHOLD, 1 << 20)]
    {
        // SAFETY: it takes two numbers, and nobody else has begun yet.
        if unsafe { mallopt(option, value) } == 0 {
            tracing::debug!(option, value, "the allocator does not know an option");
        }
    }
}

/// Signals that end it come to one thread alone; threads started from now on never see them.
fn block_signals() -> SigSet {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|one| signals.add(one));
    if let Err(error) = signals.thread_block() {
        tracing::error!(%error, "signals can't be blocked: one of them ends this mount at once");
    }
    signals
}

fn begin(arguments: &MountArguments) -> Result<(Arc<Mount>, Arc<Client>, StatusFile), Failure> {
    let flags = mount_flags(&arguments.options)?;
    let failed = |source| Failure::Status { path: arguments.status.clone(), source };
    let mut status = StatusFile::lock(&arguments.status).map_err(failed)?;
    let way = Arc::new(Way::default());
    let client = Client::new(&arguments.door, arguments.volume(), way.clone())?;
    way.to(&client);
    let data = Arc::new(VolumeBlocks::new(client.clone()));
    let settings = Settings {
        point: arguments.dir.clone(),
        source: arguments.name.clone(),
        flags,
        threads: THREADS,
        options: Options {
            node: client.node().0,
            slice_blocks: client.slice_blocks(),
            ..Options::default()
        },
    };
    let mount = Arc::new(Mount::start(settings, data.clone())?);
    data.begin(&mount);
    way.begin(&mount);
    let began = Instant::now();
    while !mount.status().served {
        if began.elapsed() > SESSION_WAIT || mount.status().ended.is_some() {
            client.close();
            // Dropped, it is taken out of the mount table.
            return Err(Failure::NoSession);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let session = mount.status().session.map_or(0, |session| session.0);
    status.write(arguments, mount.point(), session).map_err(failed)?;
    Ok((mount, client, status))
}

fn mount_flags(options: &[String]) -> Result<MsFlags, Failure> {
    let mut flags = MsFlags::empty();
    for option in options.iter().filter(|option| !option.is_empty()) {
        flags |= match option.as_str() {
            "rw" | "defaults" => MsFlags::empty(),
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            // Reading changes no access times in any case.
            "noatime" => MsFlags::MS_NOATIME,
            _ => return Err(Failure::Option(option.clone())),
        };
    }
    Ok(flags)
}

/// Returns when nothing is mounted any more, and everything is written back or lost with the session.
fn serve(mount: &Mount) {
    mount.wait_for_change(None);
    if !mount.status().unmounted {
        // It was evicted, or not heard. Who uses it gets errors until it is unmounted.
        mount.wait_for_unmount();
        return;
    }
    if !mount.wait_for_end(Some(END_WAIT)) {
        let bytes = mount.status().dirty_bytes;
        tracing::error!(bytes, "not everything could be written back before the end: it is lost");
    }
}

/// Unmounts at the first signal; lazily, if it is in use.
fn end_on_signal(signals: SigSet, mount: &Mount) {
    while let Err(error) = signals.wait() {
        tracing::debug!(%error, "waiting for signals");
    }
    let busy = match mount.unmount(false, END_WAIT) {
        Ok(()) => return,
        Err(MountError::Unmount { source, .. }) => source,
        Err(error) => {
            tracing::error!(%error, "ending");
            std::process::exit(0);
        }
    };
    tracing::warn!(%busy, "it is in use: taken out of the mount table, and ended");
    if let Err(error) = mount.unmount(true, END_WAIT) {
        tracing::warn!(%error, "whoever uses it still gets errors");
    }
    std::process::exit(0);
}

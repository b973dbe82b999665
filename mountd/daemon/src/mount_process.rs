//! `mountd mount`: the process that serves one mount of a shared volume. It outlives the daemon.
//!
//! ```text
//!   daemon ── starts ──> says who it is ──> volume met ──> mounted ──> session ──> "ok"
//!                                                                  │
//!   kernel ──/dev/fuse── Mount ── way.rs: letters ────────> the volume's coordinator
//!                          └───── blocks.rs: data ────────> slice primaries
//! ```
//! It ends when the kernel has unmounted it, by whoever's wish, and everything is written back, however long
//! the volume is away; SIGTERM takes the mount away even from those who use it, and gives up soon. When its
//! session is over (it was evicted, or couldn't be heard) it gives errors until it is unmounted. Its standard
//! input is its lock (`mount_files.rs`), and stays open until it ends.
#![allow(clippy::disallowed_methods, reason = "a shell: it has deadlines")]

mod blocks;
mod saying;
mod way;

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockstore::{Client, RemoteError};
use mooring_api::Span;
use mooring_sharedfs_mount::{Mount, MountError, Options, Settings};
use nix::mount::MsFlags;
use nix::sys::signal::{SigSet, Signal};

use crate::arguments::MountArguments;
use blocks::VolumeBlocks;
use saying::Saying;
use way::Way;

/// How long the coordinator may take to give a session: a failover in the middle is waited for. Less
/// than the daemon waits for us.
const SESSION_WAIT: Duration = Duration::from_secs(35);

/// How long what is dirty may take to be written back after a signal, before it is given up.
const END_WAIT: Duration = Duration::from_secs(10);

/// The same after an unmount. The session does not live so long without the volume, unless nobody else
/// could end it: then the whole volume is away, and what was accepted waits for it.
const WRITE_BACK_WAIT: Duration = Duration::from_secs(3600);

/// How often the daemon is told meanwhile how much is left.
const SAY_AGAIN: Duration = Duration::from_millis(500);

/// How often people are told what the mount does, if it does anything.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// What `soft` waits where the volume's I/O may wait for ever.
const SOFT_WAIT: Duration = Duration::from_secs(30);

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
    let (mount, client, mut saying) = match begin(&arguments) {
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
    serve(&mount, &mut saying);
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

fn begin(arguments: &MountArguments) -> Result<(Arc<Mount>, Arc<Client>, Saying), Failure> {
    let manners = manners(&arguments.options, arguments.io_timeout_ms)?;
    let failed = |source| Failure::Status { path: arguments.status.clone(), source };
    let mut saying = Saying::begin(arguments).map_err(failed)?;
    let way = Arc::new(Way::default());
    let client = Client::new(&arguments.door, arguments.volume(), way.clone())?;
    way.to(&client);
    let data = Arc::new(VolumeBlocks::new(client.clone()));
    let settings = Settings {
        point: arguments.dir.clone(),
        source: arguments.name.clone(),
        flags: manners.flags,
        threads: THREADS,
        soft: manners.soft,
        squash: manners.squash,
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
    saying.serves(&mount).map_err(failed)?;
    Ok((mount, client, saying))
}

/// How a volume is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Manners {
    flags: MsFlags,
    soft: Option<Duration>,
    squash: bool,
}

/// What the options say; `soft` alone waits as long as the volume's devices would.
fn manners(options: &[String], io_timeout_ms: Option<u64>) -> Result<Manners, Failure> {
    let mut manners = Manners { flags: MsFlags::empty(), soft: None, squash: false };
    for option in options.iter().filter(|option| !option.is_empty()) {
        let unknown = || Failure::Option(option.clone());
        manners.flags |= match option.as_str() {
            "rw" | "defaults" => MsFlags::empty(),
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            // Reading changes no access times in any case.
            "noatime" => MsFlags::MS_NOATIME,
            "soft" => {
                manners.soft = Some(io_timeout_ms.map_or(SOFT_WAIT, Duration::from_millis));
                MsFlags::empty()
            }
            "squash" => {
                manners.squash = true;
                MsFlags::empty()
            }
            other => {
                let span = other.strip_prefix("soft=").ok_or_else(unknown)?;
                let span: Span = span.parse().map_err(|_| unknown())?;
                manners.soft = Some(Duration::from_millis(span.ms()));
                MsFlags::empty()
            }
        };
    }
    Ok(manners)
}

/// Returns when nothing is mounted any more, and everything is written back or lost with the session.
fn serve(mount: &Mount, saying: &mut Saying) {
    while !mount.wait_for_change(Some(TELL_AGAIN)) {
        saying.tells(mount);
    }
    if !mount.status().unmounted {
        // It was evicted, or not heard. Who uses it gets errors until it is unmounted.
        mount.wait_for_unmount();
    }
    let began = Instant::now();
    loop {
        saying.writes_back(mount);
        if mount.wait_for_end(Some(SAY_AGAIN)) || began.elapsed() > WRITE_BACK_WAIT {
            break;
        }
    }
    saying.ends(mount);
    let status = mount.status();
    let bytes = status.dirty_bytes + status.lost_bytes;
    if bytes > 0 {
        tracing::error!(bytes, "not everything could be written back before the end: it is lost");
    }
}

/// Unmounts at the first signal, lazily if it is in use, and ends the process when everything is written
/// back or given up.
fn end_on_signal(signals: SigSet, mount: &Mount) {
    while let Err(error) = signals.wait() {
        tracing::debug!(%error, "waiting for signals");
    }
    let busy = match mount.unmount(false, END_WAIT) {
        // The process ends by itself.
        Ok(()) => return,
        Err(error @ MountError::Unmount { .. }) => error,
        Err(error) => {
            tracing::error!(%error, "ending");
            std::process::exit(1);
        }
    };
    tracing::warn!(%busy, "it is in use: taken out of the mount table, and ended");
    if let Err(error) = mount.unmount(true, END_WAIT) {
        tracing::warn!(%error, "whoever uses it still gets errors");
    }
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str], io_timeout_ms: Option<u64>) -> Option<Manners> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        manners(&options, io_timeout_ms).ok()
    }

    #[test]
    fn soft_waits_as_long_as_it_says_or_as_the_volume_does() {
        let soft = |options: &[&str], volume| of(options, volume).unwrap().soft;
        assert_eq!(soft(&["rw"], Some(7000)), None);
        assert_eq!(soft(&["soft"], Some(7000)), Some(Duration::from_secs(7)));
        assert_eq!(soft(&["soft"], None), Some(SOFT_WAIT));
        assert_eq!(soft(&["soft=1m"], Some(7000)), Some(Duration::from_secs(60)));
    }

    #[test]
    fn options_are_known_or_refused() {
        let known = of(&["ro", "nosuid", "squash", ""], None).unwrap();
        assert_eq!(known.flags, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
        assert!(known.squash);
        for option in ["soft=", "soft=x", "squash=1", "size=3"] {
            assert!(of(&[option], None).is_none(), "{option}");
        }
    }
}

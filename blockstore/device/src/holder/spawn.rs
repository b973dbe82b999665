//! Starting the holder where none runs.
#![allow(clippy::disallowed_methods, reason = "waits for a process, in real time")]

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{HolderClient, HolderError};

/// How long a holder may take to listen.
const START_WAIT: Duration = Duration::from_secs(10);

/// Connects to the holder at `socket`; if none is there, starts `command`, which must call
/// [`run`](super::run) with this path, and connects to that.
///
/// The command starts in a session of its own, with all of this process's descriptors closed; what
/// it says goes to a file beside the socket (`.log`).
///
/// # Errors
/// [`HolderError::Start`] if it can't be started or doesn't listen within ten seconds.
pub fn ensure_running(socket: &Path, command: &mut Command) -> Result<HolderClient, HolderError> {
    match HolderClient::connect(socket) {
        Err(HolderError::NotRunning { .. }) => {}
        other => return other,
    }
    let failed = |source: io::Error| HolderError::Start { socket: socket.to_owned(), source };
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(socket.with_extension("log"))
        .map_err(failed)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/");
    // SAFETY: between fork and exec only system calls are made, no allocation, no lock.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            close_all_on_exec();
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(failed)?;
    let deadline = Instant::now() + START_WAIT;
    let client = loop {
        match HolderClient::connect(socket) {
            Err(HolderError::NotRunning { source, .. }) if Instant::now() >= deadline => {
                return Err(failed(source));
            }
            Err(HolderError::NotRunning { .. }) => std::thread::sleep(Duration::from_millis(5)),
            other => break other?,
        }
    };
    // Somebody must take its exit status if it ends before this process does. Another daemon may have
    // started one at the same time; then ours has ended already.
    std::thread::Builder::new()
        .name("holder-wait".to_owned())
        .spawn(move || match child.wait() {
            Ok(status) => tracing::info!(%status, "the holder started from here has ended"),
            Err(error) => tracing::warn!(%error, "waiting for the holder"),
        })
        .map_err(failed)?;
    Ok(client)
}

/// Nothing of the daemon's may live on in the holder, whatever some library has left open.
fn close_all_on_exec() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: the call takes numbers only. Where it is not known (before Linux 5.11), what was
    // opened close-on-exec, as all of our own descriptors are, closes anyway.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        );
    }
}

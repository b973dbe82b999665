//! The daemon of a Mooring node.
//!
//! ```text
//!   mountctl, plugins ── HTTP+JSON ──> api ──> daemon ──┬──> attachments, mounts (this crate)
//!                                                       └──> blockstore::Node
//! ```
//!
//! This crate is wiring: the API, attaching and mounting, supervision. Data and configuration are the
//! block store's business.
#![allow(clippy::disallowed_methods, reason = "a shell: it has deadlines and pauses")]

mod api;
mod arguments;
mod attachments;
mod config;
mod daemon;
mod device_hosts;
mod error;
mod filesystem;
mod holder_watch;
mod mount_files;
mod mount_process;
mod mount_table;
mod mounts;
mod shared;
mod tasks;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::arguments::{Action, Arguments};
use crate::config::{Config, LogFormat};

fn main() -> ExitCode {
    // The holder keeps descriptors for daemons that die; it needs no runtime and no configuration.
    let arguments = match Arguments::parse().action {
        Action::Holder { socket } => {
            return match mooring_device::holder::run(&socket) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => refused(&error),
            };
        }
        Action::Mount(arguments) => {
            begin_logging(&Config::default());
            abort_on_panic();
            return mount_process::run(arguments);
        }
        Action::Run(arguments) => arguments,
    };
    let (config, start) = match arguments.resolve() {
        Ok(resolved) => resolved,
        Err(error) => return refused(&error),
    };
    begin_logging(&config);
    abort_on_panic();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return refused(&error),
    };
    let ended = runtime.block_on(daemon::run(config, start));
    // What still waits for the kernel or a disk ends with the process, as with kill -9.
    runtime.shutdown_timeout(Duration::from_millis(500));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refused(&error),
    }
}

fn refused(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("mountd: {error}");
    ExitCode::FAILURE
}

fn begin_logging(config: &Config) {
    let filter =
        EnvFilter::try_new(&config.log).unwrap_or_else(|_| EnvFilter::new("info,openraft=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        // It would print that the standard error is gone on the standard error, and panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// A panic is a broken invariant: going on could lose data, and a thread that is gone would leave
/// its slice without anybody to serve it. The daemon ends, the holder keeps the devices, and the next
/// daemon goes on with them.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        tracing::error!(%panic, "a broken invariant ends the daemon");
        std::process::abort();
    }));
}

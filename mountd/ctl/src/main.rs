//! `mountctl`: Mooring's command line. Also `mount.mooring`, by which mount(8) and fstab mount
//! volumes, when it is called by that name.
//!
//! ```text
//!   argv ──> cli (what is asked) ──> run (asks mountd) ──> render (what people read)
//!                                     \_ progress (how far a task has come)
//!   mount.mooring NAME DIR -o ... ──> mount_helper ──> the same request as `mountctl mount`
//! ```
//!
//! Invariants:
//! - stdout has what was asked for and nothing else; all the rest is on stderr;
//! - no colour and no moving bar unless a person looks at a terminal;
//! - a failure says what to do, and its exit code says of what kind it is;
//! - a token is printed by `cluster token` and by nothing else;
//! - it decides nothing: whatever mountd can refuse, mountd refuses.

mod cli;
mod failure;
mod mount_helper;
mod mount_options;
mod output;
mod progress;
mod render;
mod run;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::output::Output;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the system gives no event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    let arguments: Vec<_> = std::env::args_os().collect();
    if mount_helper::is_called(arguments.first()) {
        return runtime.block_on(mount_helper::main(&arguments[1..]));
    }
    let cli = Cli::parse_from(arguments);
    let output = Output::of_process(cli.json);
    match runtime.block_on(run::run(cli, &output)) {
        Ok(code) => code,
        Err(failure) => output.fail(&failure),
    }
}

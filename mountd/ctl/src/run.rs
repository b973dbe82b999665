//! What each command does: one request to mountd, or a few, and its answer shown.

mod cluster;
mod decode;
mod device;
mod event;
mod node;
mod pool;
mod volume;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use mooring_api::{Client, DEFAULT_SOCKET, Endpoint, ErrorKind, Health, Secret};

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// Does what `cli` asks for.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn run(cli: Cli, output: &Output) -> Result<ExitCode, Failure> {
    let mut client = Client::new(endpoint(cli.socket));
    if let Some(timeout) = cli.timeout {
        client = client.with_timeout(timeout.duration());
    }
    match cli.command {
        Command::Status => return status(&client, output).await,
        Command::Cluster(command) => cluster::run(&client, output, command).await?,
        Command::Node(command) => node::run(&client, output, command).await?,
        Command::Pool(command) => pool::run(&client, output, command).await?,
        Command::Volume(command) => volume::run(&client, output, command).await?,
        Command::Attach(args) => device::attach(&client, output, args).await?,
        Command::Detach(args) => device::detach(&client, output, args).await?,
        Command::Mount(args) => device::mount(&client, output, args).await?,
        Command::Umount(args) => device::umount(&client, output, args).await?,
        Command::Events(args) => event::run(&client, output, args).await?,
        Command::Decode { file } => decode::run(output, &file)?,
        Command::Completion { shell } => completion(shell, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the daemon is: as told, as `MOORING_SOCKET` says, or at its usual place.
pub fn endpoint(told: Option<String>) -> Endpoint {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let place = told.filter(|place| !place.is_empty()).or_else(|| set("MOORING_SOCKET"));
    let place = place.as_deref().unwrap_or(DEFAULT_SOCKET);
    Endpoint::parse(place, set("MOORING_TOKEN").map(Secret::new))
}

/// `path` as the daemon needs it: absolute, as text. Doesn't touch what it names: that may be a
/// mount that hangs.
///
/// # Errors
/// If it isn't UTF-8, or there is no current directory.
pub fn absolute(path: &Path) -> Result<String, Failure> {
    let wrong = || Failure::Path { path: path.to_owned() };
    let absolute: PathBuf = std::path::absolute(path).map_err(|_| wrong())?;
    absolute.into_os_string().into_string().map_err(|_| wrong())
}

async fn status(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let status = client.status().await?;
    output.answer(&status, render::status)?;
    Ok(match status.health {
        Health::Ok | Health::Degraded => ExitCode::SUCCESS,
        Health::Down => ExitCode::from(ErrorKind::Unavailable.exit_code()),
    })
}

fn completion(shell: clap_complete::Shell, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mountctl", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())
}

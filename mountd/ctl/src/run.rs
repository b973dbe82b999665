//! What each command does: one request to mountd, or a few, and its answer shown.

mod cluster;
mod decode;
mod device;
mod event;
mod node;
mod pool;
mod shared;
mod token;
mod volume;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use mooring_api::{Client, ClientError, DEFAULT_SOCKET, Endpoint, ErrorKind, Health, Secret};

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// The largest token file that is read: a token is far smaller, a wrong file may be endless.
const TOKEN_FILE_LIMIT: u64 = 64 << 10;

/// Does what `cli` asks for.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn run(cli: Cli, output: &Output) -> Result<ExitCode, Failure> {
    let place =
        Place { socket: cli.socket, host: cli.host, token_file: cli.token_file, ca: cli.ca };
    let mut client = Client::new(place.endpoint()?);
    if let Some(timeout) = cli.timeout {
        client = client.with_timeout(timeout.duration());
    }
    match cli.command {
        Command::Status => return status(&client, output).await,
        Command::Cluster(command) => cluster::run(&client, output, command).await?,
        Command::Token(command) => token::run(&client, output, command).await?,
        Command::Node(command) => node::run(&client, output, command).await?,
        Command::Pool(command) => pool::run(&client, output, command).await?,
        Command::Volume(command) => volume::run(&client, output, command).await?,
        Command::Attach(args) => device::attach(&client, output, args).await?,
        Command::Detach(args) => device::detach(&client, output, args).await?,
        Command::Mount(args) => device::mount(&client, output, args).await?,
        Command::Umount(args) => device::umount(&client, output, args).await?,
        Command::Leases { volume, statistics } => {
            shared::leases(&client, output, &volume, statistics).await?;
        }
        Command::Evict { volume, client: which } => {
            shared::evict(&client, output, &volume, which).await?;
        }
        Command::Fsck { volume } => return shared::fsck(&client, output, &volume).await,
        Command::Events(args) => event::run(&client, output, args).await?,
        Command::Decode { file } => decode::run(output, &file)?,
        Command::Completion { shell } => completion(shell, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the daemon is, as far as one was told.
#[derive(Default)]
pub struct Place {
    /// Its socket.
    pub socket: Option<String>,
    /// The address of its port.
    pub host: Option<String>,
    /// A file with the token to show there.
    pub token_file: Option<PathBuf>,
    /// A file with the certificate to check the node against.
    pub ca: Option<PathBuf>,
}

impl Place {
    /// The endpoint: as told, else as the environment says, else the usual socket.
    ///
    /// # Errors
    /// A file that can't be read, or holds nothing of use.
    pub fn endpoint(self) -> Result<Endpoint, Failure> {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let told = self.host.map(|host| format!("https://{host}"));
        let told = told.or(self.socket).filter(|place| !place.is_empty());
        let place = told.or_else(|| set("MOORING_SOCKET"));
        let place = place.as_deref().unwrap_or(DEFAULT_SOCKET);
        let token = match (self.token_file, set("MOORING_TOKEN"), set("MOORING_TOKEN_FILE")) {
            (Some(file), _, _) => Some(token_in(file)?),
            (None, Some(token), _) => Some(Secret::new(token)),
            (None, None, Some(file)) => Some(token_in(file.into())?),
            (None, None, None) => None,
        };
        let Some(address) = place.strip_prefix("https://") else {
            return Ok(Endpoint::parse(place, token));
        };
        let ca = self.ca.or_else(|| set("MOORING_CA").map(PathBuf::from));
        let Some(path) = ca else { return Err(ClientError::NoAuthority.into()) };
        let pem = std::fs::read(&path).map_err(|source| Failure::CaFile { path, source })?;
        Ok(Endpoint::tls(address.trim_end_matches('/'), &pem, token)?)
    }
}

/// The token in a file; `-` is stdin.
///
/// # Errors
/// If it can't be read, or is empty.
pub fn token_in(path: PathBuf) -> Result<Secret, Failure> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(TOKEN_FILE_LIMIT).read_to_string(&mut text),
        false => std::fs::File::open(&path)
            .and_then(|file| file.take(TOKEN_FILE_LIMIT).read_to_string(&mut text)),
    };
    if let Err(source) = read {
        return Err(Failure::TokenFile { path, source });
    }
    match text.trim() {
        "" => Err(Failure::NoToken { path }),
        token => Ok(Secret::new(token)),
    }
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

//! `mountctl leases`, `evict`, `fsck`

use std::process::ExitCode;

use mooring_api::{Check, Client, ErrorKind, VolumeName};

use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// Lists the clients of a shared volume.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn leases(
    client: &Client,
    output: &Output,
    volume: &VolumeName,
    statistics: bool,
) -> Result<(), Failure> {
    let clients = client.shared_clients(volume).await?;
    output.answer(&clients, |clients, look| render::shared_clients(clients, statistics, look))
}

/// Ends a client's mount.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn evict(
    client: &Client,
    output: &Output,
    volume: &VolumeName,
    which: u64,
) -> Result<(), Failure> {
    client.evict(volume, which).await?;
    output.note(&format!("client {which} of {volume} is ended"));
    Ok(())
}

/// Checks a shared volume's structure.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn fsck(
    client: &Client,
    output: &Output,
    volume: &VolumeName,
) -> Result<ExitCode, Failure> {
    let check = client.check(volume).await?;
    output.answer(&check, |check, _| text(check))?;
    Ok(match check.findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(ErrorKind::Corrupt.exit_code()),
    })
}

fn text(check: &Check) -> String {
    let Check { volume, findings } = check;
    if findings.is_empty() {
        return format!("{volume} is sound");
    }
    let found: Vec<String> = findings.iter().map(|finding| format!("  {finding}")).collect();
    format!("{volume} is damaged:\n{}", found.join("\n"))
}

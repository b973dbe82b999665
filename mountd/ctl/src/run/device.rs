//! `mountctl attach`, `detach`, `mount`, `umount`

use std::path::Path;

use mooring_api::{Attach, Client, ForceQuery, MountVolume, UnmountQuery, Unmounted, VolumeName};

use crate::cli::{AttachArgs, DetachArgs, MountArgs, UmountArgs};
use crate::failure::Failure;
use crate::mount_options::MountOptions;
use crate::output::Output;
use crate::run::absolute;

/// Attaches a volume here, and prints its device.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn attach(client: &Client, output: &Output, args: AttachArgs) -> Result<(), Failure> {
    let AttachArgs { volume, backend, read_only, force } = args;
    let attachment = client.attach(&volume, &Attach { backend, read_only, force }).await?;
    let Some(device) = attachment.device.clone() else { return Err(Failure::NoDevice { volume }) };
    output.answer(&attachment, |_, _| device)
}

/// Detaches a volume.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn detach(client: &Client, output: &Output, args: DetachArgs) -> Result<(), Failure> {
    let DetachArgs { volume, force } = args;
    client.detach(&volume, ForceQuery { force }).await?;
    output.note(&format!("{volume} is detached"));
    Ok(())
}

/// Mounts a volume here.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn mount(client: &Client, output: &Output, args: MountArgs) -> Result<(), Failure> {
    let mut options = MountOptions::default();
    for list in &args.options {
        options.add(list)?;
    }
    let request = MountVolume {
        volume: args.volume,
        dir: absolute(&args.dir)?,
        options: options.passed,
        read_only: options.read_only,
        backend: args.backend.or(options.backend),
        force: args.force,
    };
    let mounted = client.mount(&request).await?;
    if output.json() {
        return output.answer(&mounted, |_, _| String::new());
    }
    let verb = if mounted.mounted { "mounted" } else { "there already" };
    let formatted = if mounted.formatted { ", formatted just now" } else { "" };
    let grown = if mounted.grown { ", grown to the volume's size" } else { "" };
    let mount = &mounted.mount;
    output.note(&format!("{} {verb} on {}{formatted}{grown}", mount.volume, mount.dir));
    Ok(())
}

/// Unmounts a volume, a directory, or everything here.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn umount(client: &Client, output: &Output, args: UmountArgs) -> Result<(), Failure> {
    let mut query = UnmountQuery { all: args.all, force: args.force, ..Default::default() };
    match args.target.as_deref().map(Target::of) {
        Some(Target::Volume(volume)) => query.volume = Some(volume),
        Some(Target::Dir(dir)) => query.dir = Some(absolute(Path::new(dir))?),
        None => {}
    }
    let unmounted = client.unmount(&query).await?;
    if output.json() {
        return output.answer(&unmounted, |_, _| String::new());
    }
    if unmounted.is_empty() {
        output.note("nothing is mounted here");
    }
    for Unmounted { volume, dir, detached } in &unmounted {
        let detached = if *detached { ", and detached" } else { "" };
        output.note(&format!("{volume} unmounted from {dir}{detached}"));
    }
    Ok(())
}

/// What `umount` was told.
#[derive(Debug, PartialEq, Eq)]
enum Target<'a> {
    Volume(VolumeName),
    Dir(&'a str),
}

impl<'a> Target<'a> {
    /// A volume's name has no slash and doesn't begin with a dot; everything else is a directory.
    fn of(text: &'a str) -> Self {
        VolumeName::new(text).map_or(Self::Dir(text), Self::Volume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_and_directories_are_told_apart() {
        assert_eq!(Target::of("db"), Target::Volume(VolumeName::new("db").unwrap()));
        for dir in ["/mnt", "./db", ".", "..", "a/b", "db/"] {
            assert_eq!(Target::of(dir), Target::Dir(dir));
        }
    }
}

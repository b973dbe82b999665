//! The floor of every shared file system: a directory of this machine, seen through FUSE.
//!
//! ```text
//!   mooring-passthrough SOURCE MOUNTPOINT      serves until it is unmounted, or killed
//! ```
//! It does what an application asks on the directory beneath and nothing else, with the protocol
//! library that most Rust file systems use, two threads and cloned descriptors: what is slower than
//! it is slow by itself, and not by FUSE.

mod nodes;
mod served;

use std::path::PathBuf;
use std::process::ExitCode;

use fuser::{Config, MountOption, SessionACL};

use served::Passthrough;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [source, point] = arguments.as_slice() else {
        eprintln!("usage: mooring-passthrough SOURCE MOUNTPOINT");
        return ExitCode::from(2);
    };
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("passthrough".into()), MountOption::DefaultPermissions];
    config.acl = SessionACL::All;
    config.n_threads = Some(2);
    config.clone_fd = true;
    let served =
        Passthrough::new(source).and_then(|file_system| fuser::mount(file_system, point, &config));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} through {}: {error}", source.display(), point.display());
            ExitCode::FAILURE
        }
    }
}

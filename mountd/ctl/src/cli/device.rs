//! `mountctl attach`, `detach`, `mount`, `umount`, `events`

use std::path::PathBuf;

use clap::Args;
use mooring_api::{Backend, VolumeName};

use super::{BACKENDS, word};

/// How to attach a volume.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  dev=$(mountctl attach db) && fdisk -l $dev\n  \
    uri=$(mountctl attach vm --backend nbd-socket) && nbdcopy disk.img $uri")]
pub struct AttachArgs {
    /// Which volume
    pub volume: VolumeName,
    /// How to make the device [default: the best that this kernel has; see: status]
    #[arg(long, value_parser = word::<Backend>(BACKENDS))]
    pub backend: Option<Backend>,
    /// Refuse writes
    #[arg(long)]
    pub read_only: bool,
    /// Take it from the node that has it, though that node is alive
    #[arg(long)]
    pub force: bool,
}

/// How to detach a volume.
#[derive(Args, Debug)]
pub struct DetachArgs {
    /// Which volume
    pub volume: VolumeName,
    /// Even if it is mounted, open, or on another node; its device turns to errors
    #[arg(long)]
    pub force: bool,
}

/// How to mount a volume.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mountctl mount db /srv/db\n  \
    mountctl mount db /srv/db -o ro,noatime\n\n\
    In fstab:   db  /srv/db  mooring  _netdev  0 0\n\
    (wait=2m there waits longer for the cluster at boot)")]
pub struct MountArgs {
    /// Which volume
    pub volume: VolumeName,
    /// An existing directory
    pub dir: PathBuf,
    /// Options of the file system and of mount(8), such as ro,noatime; backend=B for the device
    #[arg(short = 'o', long = "options", value_name = "LIST")]
    pub options: Vec<String>,
    /// How to make the device [default: the best that this kernel has; see: status]
    #[arg(long, value_parser = word::<Backend>(BACKENDS))]
    pub backend: Option<Backend>,
    /// Take it from the node that has it, though that node is alive
    #[arg(long)]
    pub force: bool,
}

/// What to unmount.
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// A volume's name, or a directory (with a slash in it)
    #[arg(value_name = "NAME|DIR", required_unless_present = "all", conflicts_with = "all")]
    pub target: Option<String>,
    /// Everything that is mounted on this node
    #[arg(long)]
    pub all: bool,
    /// Though files are open; what wasn't written is lost
    #[arg(long)]
    pub force: bool,
}

/// Which events to show.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Go on with those to come, until interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// Only those with a greater number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,
}

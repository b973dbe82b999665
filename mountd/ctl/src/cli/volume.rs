//! `mountctl volume ...`

use std::str::FromStr;

use clap::{Args, Subcommand};
use mooring_api::{
    ByteSize, Class, ClassChoice, FileSystem, IoTimeout, Label, LabelKey, LabelValue, NameError,
    NodeName, Span, SpanError, VolumeName,
};

use super::{CLASSES, FILE_SYSTEMS, word};

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume; says what it chose where you didn't
    Create(CreateArgs),
    /// List volumes
    Ls,
    /// Show one volume: slices, epochs, replicas, lag, attachment
    Inspect {
        /// Which volume
        volume: VolumeName,
        /// Show the progress of its resyncs until all replicas are in sync
        #[arg(long, conflicts_with = "json")]
        follow: bool,
    },
    /// Grow a volume, in use or not; its file system grows with it
    #[command(after_help = "Example:\n  mountctl volume resize db 20G")]
    Resize {
        /// Which volume
        volume: VolumeName,
        /// Its new size
        size: ByteSize,
    },
    /// Change what was chosen at creation, in use or not
    #[command(after_help = SET_HELP)]
    Set {
        /// Which volume
        volume: VolumeName,
        /// What to change
        #[arg(required = true, value_name = "KEY=VALUE")]
        settings: Vec<Setting>,
    },
    /// Declare an older replica the history, when all newer ones are gone for good
    #[command(after_help = "Without --force, says up to which version that node has the data, \
        and what would be lost.")]
    AcceptLoss {
        /// Which volume
        volume: VolumeName,
        /// The node whose replicas become the history
        #[arg(long, value_name = "NODE")]
        from: NodeName,
        /// Do it
        #[arg(long)]
        force: bool,
    },
    /// Remove a volume and its data
    Rm {
        /// Which volume
        volume: VolumeName,
        /// Even if it is attached; its device turns to errors
        #[arg(long)]
        force: bool,
    },
}

const SET_HELP: &str = "\
Keys:
  replicas=N             how many copies
  min_in_sync=N          the fewest in-sync replicas that may go on
  class=C                only pools of this class: high, medium, low; any for all
  replace_after=TIME     how long a lost replica is waited for, such as 10m
  io_timeout=TIME        how long I/O waits for the volume before it fails; none for ever
  label.KEY=VALUE        a label; without a value, removes it

Example:
  mountctl volume set db replicas=3 replace_after=30m label.app=shop";

/// What a new volume is to be like.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mountctl volume create db --size 10G\n  \
    mountctl volume create scratch --size 1T --replicas 1 --fs xfs --class high")]
pub struct CreateArgs {
    /// Its name
    pub volume: VolumeName,
    /// How large; space is taken only by what is written [default: 10G]
    #[arg(long)]
    pub size: Option<ByteSize>,
    /// How many copies [default: 3, or the number of nodes with pools]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub replicas: Option<u32>,
    /// What to format it with at the first mount; raw: never [default: ext4]
    #[arg(long, value_parser = word::<FileSystem>(FILE_SYSTEMS))]
    pub fs: Option<FileSystem>,
    /// For many nodes at once (being built: it can be created, and not mounted yet)
    #[arg(long, conflicts_with = "fs")]
    pub shared: bool,
    /// How much of it one slice covers: the unit of placement and of order [default: all of it, 4G of
    /// a shared one]
    #[arg(long, value_name = "SIZE")]
    pub slice_size: Option<ByteSize>,
    /// Only in pools of this class [default: any]
    #[arg(long, value_parser = word::<Class>(CLASSES))]
    pub class: Option<Class>,
    /// Only on this node; can be repeated [default: any]
    #[arg(long = "node", value_name = "NODE")]
    pub nodes: Vec<NodeName>,
    /// A label; can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
}

/// One `KEY=VALUE` of `volume set`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `replicas=N`
    Replicas(u32),
    /// `min_in_sync=N`
    MinInSync(u32),
    /// `class=C`
    Class(ClassChoice),
    /// `replace_after=TIME`
    ReplaceAfter(Span),
    /// `io_timeout=TIME`
    IoTimeout(IoTimeout),
    /// `label.KEY=VALUE`
    Label(Label),
    /// `label.KEY=`
    NoLabel(LabelKey),
}

/// Why a text is no setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No `=`.
    #[error("write KEY=VALUE")]
    NoEquals,
    /// A key that doesn't exist.
    #[error(
        "there is no such key; there are replicas, min_in_sync, class, replace_after, io_timeout \
         and label.KEY"
    )]
    UnknownKey,
    /// Not a number from 1.
    #[error("the value must be a whole number, at least 1")]
    NotCount,
    /// Not a class.
    #[error("the value must be high, medium, low or any")]
    NotClass,
    /// Not a duration.
    #[error(transparent)]
    NotSpan(#[from] SpanError),
    /// Not a label.
    #[error(transparent)]
    NotLabel(#[from] NameError),
}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let (key, value) = text.split_once('=').ok_or(SettingError::NoEquals)?;
        let count = || {
            let count = value.parse().ok().filter(|count: &u32| *count >= 1);
            count.ok_or(SettingError::NotCount)
        };
        match key {
            "replicas" => Ok(Self::Replicas(count()?)),
            "min_in_sync" => Ok(Self::MinInSync(count()?)),
            "class" => match value {
                "any" => Ok(Self::Class(ClassChoice::Any)),
                "high" => Ok(Self::Class(ClassChoice::High)),
                "medium" => Ok(Self::Class(ClassChoice::Medium)),
                "low" => Ok(Self::Class(ClassChoice::Low)),
                _ => Err(SettingError::NotClass),
            },
            "replace_after" => Ok(Self::ReplaceAfter(value.parse()?)),
            "io_timeout" => Ok(Self::IoTimeout(value.parse()?)),
            _ => {
                let key = key.strip_prefix("label.").ok_or(SettingError::UnknownKey)?;
                let key = LabelKey::new(key)?;
                Ok(match value {
                    "" => Self::NoLabel(key),
                    _ => Self::Label(Label { key, value: LabelValue::new(value)? }),
                })
            }
        }
    }
}

//! Volumes: what a user asks for, what it became, and who has it attached.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use mooring_terms::{AttachmentEpoch, BLOCK_SIZE, NodeId, SliceId, SliceIndex, VolumeId};
use serde::{Deserialize, Serialize};

use crate::{Boot, Class, Labels, SliceConfig, UnixMillis};

/// Blocks of a slice that is to hold a whole private volume, however it grows: 4 PiB.
pub const WHOLE_VOLUME_SLICE_BLOCKS: u64 = 1 << 40;
/// Blocks of a slice of a shared volume, where none are asked for: 4 GiB, so that many primaries are
/// at work.
pub const SHARED_SLICE_BLOCKS: u64 = 1 << 20;
/// More slices than that are not made by default; larger volumes have larger ones: a node does
/// something for each of them at a failover.
pub const MAX_DEFAULT_SLICES: u64 = 8_192;
/// The largest volume, in bytes: 1 PiB.
pub const MAX_VOLUME_BYTES: u64 = 1 << 50;
/// The smallest volume, in bytes: no file system fits into less.
pub const MIN_VOLUME_BYTES: u64 = 1 << 20;
/// The most slices a volume may have.
pub const MAX_SLICES: u64 = 65_536;
/// The most replicas of a slice.
pub const MAX_REPLICAS: u32 = 7;
/// How long a lost replica is waited for before it is placed elsewhere, unless the volume says
/// otherwise: 10 minutes.
pub const DEFAULT_REPLACE_AFTER_MS: u64 = 10 * 60 * 1_000;

/// A volume: an address space of 4 KiB blocks, in slices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its number, never given again.
    pub id: VolumeId,
    /// Its name, unique; a DNS label.
    pub name: String,
    /// What it is to be like.
    pub spec: VolumeSpec,
    /// When it was created.
    pub created: UnixMillis,
    /// We made its file system, at first use.
    pub formatted: bool,
    /// Its slices, by index.
    pub slices: Vec<Arc<SliceConfig>>,
    /// Who does I/O on it.
    pub attachment: Option<Attachment>,
    /// The epoch of the last attachment granted; zero if there was none.
    pub last_attachment: AttachmentEpoch,
}

/// What a volume is to be like, every default resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Bytes; whole blocks.
    pub size: u64,
    /// Blocks a slice.
    pub slice_blocks: u64,
    /// How many replicas each slice is to have.
    pub replicas: u32,
    /// The in-sync set never shrinks below this; `None` for 2 with three or more replicas, else 1.
    pub min_in_sync: Option<u32>,
    /// The file system on it.
    pub fs: Filesystem,
    /// Which pools it wants.
    pub class: Option<ClassWish>,
    /// The user's labels.
    pub labels: Labels,
    /// Nodes that must each hold a replica.
    pub nodes: Vec<NodeId>,
    /// Volumes that name the same group keep their replicas on different nodes, where they can.
    pub spread: Option<String>,
    /// Volumes that name the same group keep their replicas on the same nodes, where they can.
    pub gather: Option<String>,
    /// A replica lost for longer than this is placed elsewhere, in milliseconds.
    pub replace_after_ms: u64,
    /// I/O that can't be served for this long fails, in milliseconds; `None` waits for ever.
    pub io_timeout_ms: Option<u64>,
}

/// A wish for pools of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassWish {
    /// The class.
    pub class: Class,
    /// Whether nothing else will do.
    pub required: bool,
}

/// The file system of a volume; what makes it private or shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Filesystem {
    /// ext4, made at first use.
    Ext4,
    /// XFS, made at first use.
    Xfs,
    /// A raw device; never formatted by us.
    Raw,
    /// Our own, for many nodes at once: the volume is shared. Since cluster version 2.
    Shared,
}

/// A word that names no file system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no file system: say ext4, xfs, raw or shared")]
pub struct NotAFilesystem {
    /// What was given.
    pub word: String,
}

/// The right of one node to do I/O on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its epoch; the seal of each slice carries it.
    pub epoch: AttachmentEpoch,
    /// Who holds it.
    pub node: NodeId,
    /// The start of that node that asked for it, or that still serves it.
    pub boot: Boot,
    /// What the holder may do.
    pub mode: AttachMode,
    /// When it was granted.
    pub since: UnixMillis,
}

/// What the holder of an attachment may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AttachMode {
    /// Read and write.
    ReadWrite,
    /// Read; the device refuses writes.
    ReadOnly,
}

impl VolumeSpec {
    /// The effective minimum of the in-sync set.
    #[must_use]
    pub fn effective_min_in_sync(&self) -> u32 {
        self.min_in_sync.unwrap_or(if self.replicas >= 3 { 2 } else { 1 })
    }

    /// How many slices cover the volume's size.
    #[must_use]
    pub fn slice_count(&self) -> u64 {
        (self.size / BLOCK_SIZE as u64).div_ceil(self.slice_blocks).max(1)
    }

    /// Whether many nodes use it at once, through a coordinator.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.fs == Filesystem::Shared
    }

    /// The blocks of a slice for which none were asked, in a volume of `size` bytes.
    #[must_use]
    pub fn default_slice_blocks(fs: Filesystem, size: u64) -> u64 {
        if fs != Filesystem::Shared {
            return WHOLE_VOLUME_SLICE_BLOCKS;
        }
        let mut blocks = SHARED_SLICE_BLOCKS;
        while (size / BLOCK_SIZE as u64).div_ceil(blocks) > MAX_DEFAULT_SLICES {
            blocks *= 2;
        }
        blocks
    }

    /// Bytes of the volume that lie in one slice, at most: what placement counts.
    #[must_use]
    pub fn slice_bytes(&self) -> u64 {
        self.size.min(self.slice_blocks.saturating_mul(BLOCK_SIZE as u64))
    }
}

impl Volume {
    /// The slices with their ids.
    pub fn slices(&self) -> impl Iterator<Item = (SliceId, &Arc<SliceConfig>)> {
        self.slices.iter().enumerate().map(|(index, config)| (self.slice_id(index), config))
    }

    /// The id of the slice at `index`.
    #[must_use]
    pub fn slice_id(&self, index: usize) -> SliceId {
        let index = u32::try_from(index).expect("a volume has at most MAX_SLICES slices");
        SliceId { volume: self.id, index: SliceIndex(index) }
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Raw => "raw",
            Self::Shared => "shared",
        })
    }
}

impl FromStr for Filesystem {
    type Err = NotAFilesystem;

    fn from_str(word: &str) -> Result<Self, NotAFilesystem> {
        match word {
            "ext4" => Ok(Self::Ext4),
            "xfs" => Ok(Self::Xfs),
            "raw" => Ok(Self::Raw),
            "shared" => Ok(Self::Shared),
            _ => Err(NotAFilesystem { word: word.to_owned() }),
        }
    }
}

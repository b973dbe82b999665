//! What a user asks for when a volume is created or changed: fields not given take defaults.

use mooring_terms::{BLOCK_SIZE, NodeId};
use serde::{Deserialize, Serialize};

use crate::refused::Fault;
use crate::volume::{
    DEFAULT_REPLACE_AFTER_MS, MAX_REPLICAS, MAX_SLICES, MAX_VOLUME_BYTES, MIN_VOLUME_BYTES,
    WHOLE_VOLUME_SLICE_BLOCKS,
};
use crate::{ClassWish, ClusterState, Filesystem, Labels, Refused, VolumeSpec};

/// A volume as asked for. What is `None` or empty was not given: it takes its default at creation,
/// and is not compared when the same volume is created again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRequest {
    /// Bytes; rounded up to whole blocks. Default 10 GiB.
    pub size: Option<u64>,
    /// Blocks a slice; default one slice for the whole volume, 4 GiB each for a shared one.
    pub slice_blocks: Option<u64>,
    /// Default 3, or as many as there are nodes with pools if that is less.
    pub replicas: Option<u32>,
    /// Default 2 with three or more replicas, else 1.
    pub min_in_sync: Option<u32>,
    /// Default ext4.
    pub fs: Option<Filesystem>,
    /// Default any.
    pub class: Option<ClassWish>,
    /// The user's labels.
    pub labels: Labels,
    /// Nodes that must each hold a replica.
    pub nodes: Vec<NodeId>,
    /// Group to keep apart from.
    pub spread: Option<String>,
    /// Group to stay with.
    pub gather: Option<String>,
    /// Milliseconds; default 10 minutes.
    pub replace_after_ms: Option<u64>,
    /// Milliseconds; default none.
    pub io_timeout_ms: Option<u64>,
}

/// One change to a volume in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting {
    /// How many replicas.
    Replicas(u32),
    /// The smallest in-sync set; `None` for the default.
    MinInSync(Option<u32>),
    /// How long a lost replica is waited for, in milliseconds.
    ReplaceAfter(u64),
    /// Which pools; `None` for any. What lies elsewhere stays where it is.
    Class(Option<ClassWish>),
    /// A label; `None` removes it.
    Label(String, Option<String>),
    /// How long I/O is held, in milliseconds; `None` for ever.
    IoTimeout(Option<u64>),
}

/// The size of a volume for which none was given: 10 GiB.
const DEFAULT_SIZE: u64 = 10 << 30;

impl VolumeRequest {
    /// Fills in the defaults, as the cluster stands, and checks every field.
    ///
    /// # Errors
    /// [`Refused::BadVolume`] with everything that is wrong, or [`Refused::NoPlacement`] when not a
    /// single node has a pool.
    pub fn resolve(&self, state: &ClusterState) -> Result<VolumeSpec, Refused> {
        let block = BLOCK_SIZE as u64;
        let size = self.size.unwrap_or(DEFAULT_SIZE);
        let fs = self.fs.unwrap_or(Filesystem::Ext4);
        let default_replicas = || {
            let wished = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            state.nodes_with_pools().clamp(1, 3).max(wished)
        };
        let mut nodes = self.nodes.clone();
        nodes.sort_unstable();
        nodes.dedup();
        let spec = VolumeSpec {
            size: size.checked_next_multiple_of(block).unwrap_or(u64::MAX),
            slice_blocks: self.slice_blocks.unwrap_or(VolumeSpec::default_slice_blocks(fs, size)),
            replicas: self.replicas.unwrap_or_else(default_replicas),
            min_in_sync: self.min_in_sync,
            fs,
            class: self.class,
            labels: self.labels.clone(),
            nodes,
            spread: self.spread.clone(),
            gather: self.gather.clone(),
            replace_after_ms: self.replace_after_ms.unwrap_or(DEFAULT_REPLACE_AFTER_MS),
            io_timeout_ms: self.io_timeout_ms,
        };
        spec.check()?;
        Ok(spec)
    }

    /// What was given here and is otherwise in `spec`, as (field, there, here).
    #[must_use]
    pub fn differences(&self, spec: &VolumeSpec) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare = |field: &'static str, is: String, asked: Option<String>| {
            if let Some(asked) = asked
                && asked != is
            {
                found.push(Difference { field: field.to_owned(), is, asked });
            }
        };
        let block = BLOCK_SIZE as u64;
        let size = self.size.map(|size| size.checked_next_multiple_of(block).unwrap_or(u64::MAX));
        compare("size", spec.size.to_string(), size.map(|v| v.to_string()));
        let slice_blocks = self.slice_blocks.map(|v| v.to_string());
        compare("slice_blocks", spec.slice_blocks.to_string(), slice_blocks);
        compare("replicas", spec.replicas.to_string(), self.replicas.map(|v| v.to_string()));
        let min = self.min_in_sync.map(|v| v.to_string());
        compare("min_in_sync", spec.effective_min_in_sync().to_string(), min);
        compare("fs", spec.fs.to_string(), self.fs.map(|v| v.to_string()));
        let class = |wish: Option<ClassWish>| wish.map_or("any".into(), |w| w.class.to_string());
        compare("class", class(spec.class), self.class.map(|v| class(Some(v))));
        let labels = (!self.labels.is_empty()).then(|| format!("{:?}", self.labels));
        compare("labels", format!("{:?}", spec.labels), labels);
        let mut nodes = self.nodes.clone();
        nodes.sort_unstable();
        nodes.dedup();
        compare(
            "nodes",
            format!("{:?}", spec.nodes),
            (!nodes.is_empty()).then(|| format!("{nodes:?}")),
        );
        let group = |group: &Option<String>| group.clone().unwrap_or_else(|| "none".into());
        compare("spread", group(&spec.spread), self.spread.clone());
        compare("gather", group(&spec.gather), self.gather.clone());
        let replace_after = self.replace_after_ms.map(|v| v.to_string());
        compare("replace_after_ms", spec.replace_after_ms.to_string(), replace_after);
        let io_timeout = spec.io_timeout_ms.map_or("none".into(), |v| v.to_string());
        compare("io_timeout_ms", io_timeout, self.io_timeout_ms.map(|v| v.to_string()));
        found
    }
}

/// A field in which a volume is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// Its value.
    pub is: String,
    /// The value asked for.
    pub asked: String,
}

impl VolumeSpec {
    /// Checks every field on its own and against the others.
    ///
    /// # Errors
    /// [`Refused::BadVolume`] with all faults at once.
    pub fn check(&self) -> Result<(), Refused> {
        let mut faults = Vec::new();
        if !(MIN_VOLUME_BYTES..=MAX_VOLUME_BYTES).contains(&self.size) {
            faults.push(Fault::Size { size: self.size });
        } else if !self.size.is_multiple_of(BLOCK_SIZE as u64) {
            faults.push(Fault::NotBlocks { size: self.size });
        }
        if self.slice_blocks == 0 || self.slice_blocks > WHOLE_VOLUME_SLICE_BLOCKS {
            faults.push(Fault::SliceBlocks { blocks: self.slice_blocks });
        } else if self.slice_count() > MAX_SLICES {
            faults.push(Fault::TooManySlices { slices: self.slice_count() });
        }
        if !(1..=MAX_REPLICAS).contains(&self.replicas) {
            faults.push(Fault::Replicas { replicas: self.replicas });
        } else if !(1..=self.replicas).contains(&self.effective_min_in_sync()) {
            let min = self.effective_min_in_sync();
            faults.push(Fault::MinInSync { min, replicas: self.replicas });
        }
        if self.nodes.len() > self.replicas as usize {
            let nodes = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            faults.push(Fault::TooManyNodes { nodes, replicas: self.replicas });
        }
        if faults.is_empty() { Ok(()) } else { Err(Refused::BadVolume { faults }) }
    }

    /// The specification with `settings` in it, checked.
    ///
    /// # Errors
    /// [`Refused::BadVolume`].
    pub fn with(&self, settings: &[Setting]) -> Result<Self, Refused> {
        let mut spec = self.clone();
        for setting in settings {
            match setting {
                Setting::Replicas(replicas) => spec.replicas = *replicas,
                Setting::MinInSync(min) => spec.min_in_sync = *min,
                Setting::ReplaceAfter(millis) => spec.replace_after_ms = *millis,
                Setting::Class(wish) => spec.class = *wish,
                Setting::Label(key, Some(value)) => {
                    spec.labels.insert(key.clone(), value.clone());
                }
                Setting::Label(key, None) => {
                    spec.labels.remove(key);
                }
                Setting::IoTimeout(millis) => spec.io_timeout_ms = *millis,
            }
        }
        spec.check()?;
        Ok(spec)
    }
}

impl Setting {
    /// Reads `key=value` as `mountctl volume set` takes it: `replicas=3`, `min_in_sync=2|default`,
    /// `replace_after=10m`, `class=high|any`, `io_timeout=30s|none`, `label.KEY=VALUE` (an empty
    /// value removes the label). Durations: `ms`, `s`, `m`, `h`, `d`; without a unit, seconds.
    ///
    /// # Errors
    /// [`Refused::BadSetting`].
    pub fn parse(key: &str, value: &str) -> Result<Self, Refused> {
        let bad = || Refused::BadSetting { key: key.to_owned(), value: value.to_owned() };
        let number = || value.parse::<u32>().map_err(|_| bad());
        if let Some(label) = key.strip_prefix("label.").filter(|label| !label.is_empty()) {
            let value = (!value.is_empty()).then(|| value.to_owned());
            return Ok(Self::Label(label.to_owned(), value));
        }
        match key {
            "replicas" => number().map(Self::Replicas),
            "min_in_sync" if value == "default" => Ok(Self::MinInSync(None)),
            "min_in_sync" => number().map(|min| Self::MinInSync(Some(min))),
            "replace_after" => millis(value).map(Self::ReplaceAfter).ok_or_else(bad),
            "class" if value == "any" => Ok(Self::Class(None)),
            "class" => {
                let class = value.parse().map_err(|_| bad())?;
                Ok(Self::Class(Some(ClassWish { class, required: true })))
            }
            "io_timeout" if value == "none" => Ok(Self::IoTimeout(None)),
            "io_timeout" => millis(value).map(|v| Self::IoTimeout(Some(v))).ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

/// Milliseconds in a duration like `90s`, `10m` or `250ms`.
fn millis(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

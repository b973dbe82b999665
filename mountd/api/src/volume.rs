//! Volumes: what users create, and what becomes of it.

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::device::{Attachment, Mount};
use crate::name::{LabelKey, Labels, NodeName, VolumeName};
use crate::pool::Class;
use crate::size::ByteSize;
use crate::slice::{Slice, Version};
use crate::span::Span;
use crate::status::{Health, Reason};
use crate::timestamp::Timestamp;

/// What a volume is formatted with when it is first mounted.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    /// ext4.
    #[default]
    Ext4,
    /// XFS.
    Xfs,
    /// Nothing: the volume is its user's block device, and never formatted.
    Raw,
    /// Mooring's own, for many nodes at once: the volume is shared.
    Shared,
}

/// Body of `POST /v1/volumes`. What isn't given is chosen, and the answer says what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// Its name, unique in the cluster.
    pub name: VolumeName,
    /// Its size, rounded up to 4 KiB; default 10 GiB. Space is taken only by what is written.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// How many copies; default the lesser of 3 and the number of nodes with pools.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// The fewest in-sync replicas that may go on; default 2 with three or more replicas, else 1.
    #[serde(default)]
    pub min_in_sync: Option<u32>,
    /// What to format it with; default ext4.
    #[serde(default)]
    pub fs: Option<FileSystem>,
    /// How much of it one slice covers, rounded up to 4 KiB; default all of it, 4 GiB of a shared one.
    #[serde(default)]
    pub slice_size: Option<ByteSize>,
    /// Only pools of this class; default any.
    #[serde(default)]
    pub class: Option<Class>,
    /// Only these nodes; default any.
    #[serde(default)]
    pub nodes: Vec<NodeName>,
    /// Labels.
    #[serde(default)]
    pub labels: Labels,
    /// How long a lost replica is waited for before it is placed elsewhere; default 10 minutes.
    #[serde(default)]
    pub replace_after: Option<Span>,
    /// How long I/O waits for the volume to come back before it fails; default for ever.
    #[serde(default)]
    pub io_timeout: Option<Span>,
}

impl CreateVolume {
    /// A volume with every default.
    #[must_use]
    pub fn new(name: VolumeName) -> Self {
        Self {
            name,
            size: None,
            replicas: None,
            min_in_sync: None,
            fs: None,
            slice_size: None,
            class: None,
            nodes: Vec::new(),
            labels: Labels::new(),
            replace_after: None,
            io_timeout: None,
        }
    }
}

/// A choice that the cluster made because the request left it open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Chosen {
    /// The option: `replicas`.
    pub option: String,
    /// What was chosen: `2`.
    pub value: String,
    /// Why: "2 nodes have pools".
    pub why: String,
}

/// The answer to `POST /v1/volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedVolume {
    /// The volume.
    pub volume: Volume,
    /// False if it was there already, as asked for.
    pub created: bool,
    /// The choices made.
    pub chosen: Vec<Chosen>,
}

/// A volume, as `GET /v1/volumes` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// Its number, never reused.
    pub id: u64,
    /// Its size.
    pub size: ByteSize,
    /// How much of it is written, in one copy; none if not known now.
    pub used: Option<ByteSize>,
    /// What it is formatted with.
    pub fs: FileSystem,
    /// How it is.
    pub health: Health,
    /// Why it isn't ok, in a few words; empty if it is.
    pub why: String,
    /// What its user asked for, or was chosen.
    pub policy: VolumePolicy,
    /// How many replicas are in sync: the fewest over its slices.
    pub in_sync: u32,
    /// The node it is attached to.
    pub attached_to: Option<NodeName>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What a volume's user decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumePolicy {
    /// How many copies.
    pub replicas: u32,
    /// The fewest in-sync replicas that may go on.
    pub min_in_sync: u32,
    /// Only pools of this class; none for any.
    pub class: Option<Class>,
    /// Only these nodes; empty for any.
    pub nodes: Vec<NodeName>,
    /// Labels.
    pub labels: Labels,
    /// How long a lost replica is waited for before it is placed elsewhere.
    pub replace_after: Span,
    /// How long I/O waits for the volume to come back before it fails; none for ever.
    pub io_timeout: Option<Span>,
}

/// Body of `PATCH /v1/volumes/{volume}`: what to change, the rest stays. Can be done while in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeVolume {
    /// How many copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// The fewest in-sync replicas that may go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_in_sync: Option<u32>,
    /// The class of its pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassChoice>,
    /// How long a lost replica is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace_after: Option<Span>,
    /// How long I/O waits for the volume to come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_timeout: Option<IoTimeout>,
    /// Labels to add or change.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub set_labels: Labels,
    /// Labels to remove; those that aren't there are passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_labels: Vec<LabelKey>,
}

/// A class, or the end of a choice of class.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ClassChoice {
    /// Pools of any class.
    Any,
    /// Only pools of class high.
    High,
    /// Only pools of class medium.
    Medium,
    /// Only pools of class low.
    Low,
}

impl ClassChoice {
    /// The class chosen; none for any.
    #[must_use]
    pub fn class(self) -> Option<Class> {
        match self {
            Self::Any => None,
            Self::High => Some(Class::High),
            Self::Medium => Some(Class::Medium),
            Self::Low => Some(Class::Low),
        }
    }
}

/// How long I/O waits for a volume to come back. JSON: a duration, or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IoTimeout {
    /// For ever.
    None,
    /// So long; then it fails.
    After(Span),
}

impl IoTimeout {
    /// The limit; none for ever.
    #[must_use]
    pub fn span(self) -> Option<Span> {
        match self {
            Self::None => None,
            Self::After(span) => Some(span),
        }
    }
}

impl PartialSchema for IoTimeout {
    fn schema() -> RefOr<Schema> {
        String::schema()
    }
}

impl ToSchema for IoTimeout {}

impl std::str::FromStr for IoTimeout {
    type Err = crate::span::SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "none" => Ok(Self::None),
            text => text.parse().map(Self::After),
        }
    }
}

impl TryFrom<String> for IoTimeout {
    type Error = crate::span::SpanError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<IoTimeout> for String {
    fn from(timeout: IoTimeout) -> Self {
        timeout.span().map_or_else(|| "none".to_owned(), |span| span.to_string())
    }
}

/// A volume in full, as `GET /v1/volumes/{volume}` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeDetail {
    /// As listed.
    pub volume: Volume,
    /// Why it isn't ok, worst first.
    pub reasons: Vec<Reason>,
    /// How much of its address space one slice covers.
    pub slice_size: ByteSize,
    /// Its slices, by index.
    pub slices: Vec<Slice>,
    /// Its attachment.
    pub attachment: Option<Attachment>,
    /// Where it is mounted on the attaching node, as far as the node that answers knows; of a shared
    /// volume, on the node that answers.
    pub mounts: Vec<Mount>,
    /// A shared volume's: the nodes that have it mounted, as its coordinator knows them.
    #[serde(default)]
    pub mounted_on: Vec<NodeName>,
}

/// Body of `PUT /v1/volumes/{volume}/size`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// The new size, rounded up to 4 KiB; not below the present one.
    pub size: ByteSize,
}

/// Body of `POST /v1/volumes/{volume}/accept-loss`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptLoss {
    /// The node whose replicas become the history.
    pub from: NodeName,
    /// Must be true: what the other replicas had beyond is lost. Without it, the answer is an
    /// `in-use` error that says up to which version `from` has the data.
    #[serde(default)]
    pub force: bool,
}

/// The answer to `accept-loss`: what the volume's history is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptedLoss {
    /// The volume.
    pub volume: VolumeName,
    /// The node whose replicas are the history.
    pub from: NodeName,
    /// Up to which version each slice has its writes, by slice index; slices that lost nothing are
    /// left out.
    pub slices: Vec<AcceptedSlice>,
}

/// One slice of an accepted loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptedSlice {
    /// The slice.
    pub slice: u32,
    /// The last version kept.
    pub kept: Version,
}

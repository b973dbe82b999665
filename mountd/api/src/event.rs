//! Events: what happened that a person may ask about later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::name::{NodeName, VolumeName};
use crate::pool::PoolId;
use crate::timestamp::Timestamp;

/// How much an event matters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Info,
    /// A promise is weaker than it should be.
    Warning,
    /// Something was lost or refused, or has stopped.
    Error,
}

/// One event, as the node that answers saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number on that node: rising, never reused.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// What kind, for programs: `epoch-started`, `replica-lost`, `replica-joined`,
    /// `primary-moved`, `attached`, `detached`, `fenced`, `tail-lost`, `loss-accepted`,
    /// `pool-failed`, `node-joined`, `node-removed`... More may come.
    pub kind: String,
    /// What happened, in one sentence.
    pub message: String,
    /// The node it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The volume it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeName>,
    /// The pool it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
    /// Facts for programs by name, such as `epoch`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// Query of `GET /v1/events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Only events with a greater number.
    #[serde(default)]
    pub after: u64,
    /// If there are none, wait for one: up to [`crate::EVENTS_WAIT`].
    #[serde(default)]
    pub follow: bool,
}

/// The answer to `GET /v1/events`: at most [`crate::EVENTS_PAGE`], oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// The events; may be none.
    pub events: Vec<Event>,
    /// What to give as `after` next time.
    pub next: u64,
    /// Whether events after the number asked for were forgotten before they were read.
    pub gap: bool,
}

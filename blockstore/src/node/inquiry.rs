//! What nodes ask each other beside Raft: answered by the node that knows, at once or not at all.
//!
//! Version history
//! - 1: ping, status, hand over.
//! - 2: used. (A node that doesn't know a question doesn't answer it.)
//! - 3: above.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mooring_control::rpc::{Malformed, Service};
use mooring_replication::{Event, Role as ReplicaRole, Status as ReplicaStatus};
use mooring_terms::{
    BLOCK_SIZE, BlockIndex, Epoch, NodeId, PoolId, Sequence, SliceId, Version, VolumeId,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Node, NodeError};
use crate::clock;
use crate::speed::Speed;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A question and the type of its answer.
pub trait Question: Serialize + DeserializeOwned + Send + Sync {
    /// What comes back.
    type Answer: Serialize + DeserializeOwned + Send + 'static;
    /// The service's name.
    const NAME: &'static str;
}

/// Are you alive, and in which start?
#[derive(Serialize, Deserialize)]
pub struct Ping;

impl Question for Ping {
    type Answer = u64;
    const NAME: &'static str = "ping";
}

/// How are the replicas of these volumes (of all, if none is named) that you hold, and your pools?
#[derive(Serialize, Deserialize)]
pub struct Status {
    /// The volumes.
    pub volumes: Vec<VolumeId>,
}

impl Question for Status {
    type Answer = NodeReport;
    const NAME: &'static str = "status";
}

/// How many blocks of the replicas of these volumes (of all, if none is named) that you hold hold
/// data?
#[derive(Serialize, Deserialize)]
pub struct Used {
    /// The volumes.
    pub volumes: Vec<VolumeId>,
}

impl Question for Used {
    type Answer = BTreeMap<SliceId, u64>;
    const NAME: &'static str = "used";
}

/// Hand this slice's primary over.
#[derive(Serialize, Deserialize)]
pub struct HandOver {
    /// The slice.
    pub slice: SliceId,
    /// To the replica on this node.
    pub to: NodeId,
}

impl Question for HandOver {
    type Answer = ();
    const NAME: &'static str = "hand-over";
}

/// A question of whoever stands on the block store, to the same on another node.
#[derive(Serialize, Deserialize)]
pub struct Above(pub Vec<u8>);

impl Question for Above {
    type Answer = Option<Vec<u8>>;
    const NAME: &'static str = "above";
}

/// Answers questions of the same program on other nodes; `None`: it doesn't know this one. Called on a
/// thread that may wait, for up to a second.
pub type AnswerAbove = dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync;

/// What a node says about itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// The replicas asked about.
    pub slices: BTreeMap<SliceId, SliceReport>,
    /// Its open pools.
    pub pools: BTreeMap<PoolId, PoolReport>,
    /// Its software's version.
    pub version: String,
}

/// A replica, as its node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceReport {
    /// Whether it is primary and serves.
    pub serves: bool,
    /// What it is, in a word.
    pub role: String,
    /// The newest epoch that it knows.
    pub epoch: Epoch,
    /// Fewer replicas are in sync than the volume demands: I/O waits.
    pub too_few: bool,
    /// The last version of its log.
    pub last: Version,
    /// The last sequence that is on its media.
    pub durable: Sequence,
    /// At a primary with secondaries: for how many milliseconds it may still serve without an answer
    /// of the one that was silent for longest.
    pub lease_left_ms: Option<u64>,
    /// At a primary: the other replicas.
    pub others: Vec<OtherReport>,
}

/// Another replica, as the primary sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherReport {
    /// Its node.
    pub node: NodeId,
    /// The last sequence that is with its kernel.
    pub received: Sequence,
    /// The last sequence that is on its media.
    pub durable: Sequence,
    /// Records it has not received.
    pub lag: u64,
    /// How far it is, where it is being brought level.
    pub join: Option<JoinReport>,
}

/// How far a replica is that is being brought level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReport {
    /// Bytes copied to it so far.
    pub copied_bytes: u64,
    /// The block of the slice that is looked at; none when all have been, and what was copied is
    /// made durable.
    pub at: Option<BlockIndex>,
}

impl From<ReplicaStatus> for SliceReport {
    fn from(status: ReplicaStatus) -> Self {
        Self {
            serves: matches!(status.role, ReplicaRole::Primary | ReplicaRole::Leaving),
            role: format!("{:?}", status.role).to_lowercase(),
            epoch: status.epoch,
            too_few: status.too_few,
            last: status.last,
            durable: status.durable,
            lease_left_ms: None,
            others: status
                .replicas
                .iter()
                .map(|other| OtherReport {
                    node: other.node,
                    received: other.received,
                    durable: other.durable,
                    lag: other.lag,
                    join: other
                        .join
                        .map(|join| JoinReport { copied_bytes: join.copied_bytes, at: join.at }),
                })
                .collect(),
        }
    }
}

/// What a pool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// Bytes it may hold.
    pub size: u64,
    /// Bytes of live data.
    pub live: u64,
    /// Bytes that can be written before reclaim has to free some.
    pub free: u64,
    /// An I/O error has stopped it.
    pub failed: bool,
    /// Durable records were found missing when it was opened.
    pub damaged: bool,
    /// What was measured when it was added.
    pub speed: Option<Speed>,
}

impl Node {
    /// Asks a node; this one answers itself.
    ///
    /// # Errors
    /// [`NodeError::Silent`], [`NodeError::Unreadable`].
    pub async fn ask<Q: Question>(
        &self,
        node: NodeId,
        question: &Q,
    ) -> Result<Q::Answer, NodeError> {
        let body = Bytes::from(postcard::to_stdvec(question).expect("plain data encodes"));
        let answer = if node == self.id {
            let this = self.this.upgrade().ok_or(NodeError::Silent(node))?;
            tokio::task::spawn_blocking(move || this.answer(Q::NAME, &body))
                .await
                .map_err(|_| NodeError::Silent(node))?
                .map_err(|Malformed| NodeError::Unreadable(node))?
        } else {
            self.rpc
                .call(node, Q::NAME, body, PATIENCE)
                .await
                .map_err(|_| NodeError::Silent(node))?
        };
        postcard::from_bytes(&answer).map_err(|_| NodeError::Unreadable(node))
    }

    /// Asks whoever stands on the block store at another node, or at this one. `None`: it doesn't
    /// know the question.
    ///
    /// # Errors
    /// [`NodeError::Silent`], [`NodeError::Unreadable`].
    pub async fn ask_above(
        &self,
        node: NodeId,
        question: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, NodeError> {
        self.ask(node, &Above(question)).await
    }

    /// Has questions from other nodes answered by `answer` from now on; the first that is given.
    pub fn answer_above(&self, answer: Arc<AnswerAbove>) {
        // Once, by whoever started the node.
        let _ = self.above.set(answer);
    }

    /// Whether a node answers within a moment.
    pub async fn is_alive(&self, node: NodeId) -> bool {
        self.ask(node, &Ping).await.is_ok()
    }

    /// Asks every node in the configuration at once; those that don't answer are left out.
    pub async fn reports(self: &Arc<Self>, volumes: &[VolumeId]) -> BTreeMap<NodeId, NodeReport> {
        self.ask_all(|| Status { volumes: volumes.to_vec() }).await
    }

    /// Asks every node in the configuration at once how many bytes of data each of its replicas of these
    /// volumes holds (of all, if none is named): a block once, and not what only snapshots hold. Those
    /// that don't answer are left out.
    pub async fn used(
        self: &Arc<Self>,
        volumes: &[VolumeId],
    ) -> BTreeMap<NodeId, BTreeMap<SliceId, u64>> {
        let mut used = self.ask_all(|| Used { volumes: volumes.to_vec() }).await;
        for blocks in used.values_mut().flat_map(BTreeMap::values_mut) {
            *blocks = blocks.saturating_mul(BLOCK_SIZE as u64);
        }
        used
    }

    /// How many blocks of each replica here hold data. Looks into maps, and may read them.
    #[must_use]
    pub fn allocated(&self, volumes: &[VolumeId]) -> BTreeMap<SliceId, u64> {
        let mut slices = self.plane.slices();
        slices.retain(|slice| volumes.is_empty() || volumes.contains(&slice.id().volume));
        // One that hangs would be waited for, again and again.
        slices.retain(|slice| !slice.pool().is_failed() && !slice.pool().hangs());
        slices.iter().filter_map(|slice| Some((slice.id(), slice.allocated()?))).collect()
    }

    async fn ask_all<Q: Question + 'static>(
        self: &Arc<Self>,
        question: impl Fn() -> Q,
    ) -> BTreeMap<NodeId, Q::Answer> {
        let nodes: Vec<NodeId> = self.state().nodes().keys().copied().collect();
        let mut asked = tokio::task::JoinSet::new();
        for id in nodes {
            let (node, question) = (Arc::clone(self), question());
            asked.spawn(async move {
                // This node, too, may wait for a disk.
                (id, tokio::time::timeout(PATIENCE, node.ask(id, &question)).await)
            });
        }
        let mut answers = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            if let Ok((id, Ok(Ok(answer)))) = answer {
                answers.insert(id, answer);
            }
        }
        answers
    }

    /// What this node says about itself.
    #[must_use]
    pub fn report(&self, volumes: &[VolumeId]) -> NodeReport {
        let mut report =
            NodeReport { version: env!("CARGO_PKG_VERSION").to_owned(), ..NodeReport::default() };
        for slice in self.plane.slices() {
            let id = slice.id();
            if volumes.is_empty() || volumes.contains(&id.volume) {
                let status = slice.status();
                let left = self.lease_left(id, &status);
                let lease_left_ms =
                    left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                report.slices.insert(id, SliceReport { lease_left_ms, ..status.into() });
            }
        }
        for open in self.pools.all() {
            let usage = open.pool.engine().usage();
            report.pools.insert(
                open.pool.id(),
                PoolReport {
                    size: usage.size,
                    live: usage.live,
                    free: usage.free,
                    failed: open.pool.is_failed(),
                    damaged: open.damaged,
                    speed: open.speed,
                },
            );
        }
        report
    }

    /// How long a primary may still serve, if none of its secondaries answers any more.
    fn lease_left(&self, slice: SliceId, status: &ReplicaStatus) -> Option<Duration> {
        if !matches!(status.role, ReplicaRole::Primary | ReplicaRole::Leaving) {
            return None;
        }
        let lease = self.options.replication.lease;
        let now = clock::now();
        let left = |node: &NodeId| {
            let answered =
                self.plane.beacons().with(|leases| leases.answered(*node, slice, status.epoch));
            answered.map_or(Duration::ZERO, |at| lease.saturating_sub(now.since(at)))
        };
        status.in_sync.iter().filter(|node| **node != self.id).map(left).min()
    }

    fn answer(&self, name: &str, body: &[u8]) -> Result<Bytes, Malformed> {
        let encoded = match name {
            Ping::NAME => postcard::to_stdvec(&self.boot.0),
            Status::NAME => {
                let Status { volumes } = decode(body)?;
                postcard::to_stdvec(&self.report(&volumes))
            }
            Used::NAME => {
                let Used { volumes } = decode(body)?;
                postcard::to_stdvec(&self.allocated(&volumes))
            }
            Above::NAME => {
                let Above(question) = decode(body)?;
                let answer = self.above.get().and_then(|answer| answer(&question));
                postcard::to_stdvec(&answer)
            }
            HandOver::NAME => {
                let HandOver { slice, to } = decode(body)?;
                if let Some(slice) = self.plane.slice(slice) {
                    slice.deliver(Event::HandOver { to });
                }
                postcard::to_stdvec(&())
            }
            _ => return Err(Malformed),
        };
        Ok(encoded.expect("plain data encodes").into())
    }

    /// Answers other nodes' questions from now on.
    pub(super) fn serve_inquiries(self: &Arc<Self>) {
        for name in [Ping::NAME, Status::NAME, Used::NAME, HandOver::NAME, Above::NAME] {
            let node = Arc::downgrade(self);
            self.rpc.serve(name, Arc::new(Inquiries { node, name }));
        }
    }
}

/// One kind of question.
struct Inquiries {
    node: Weak<Node>,
    name: &'static str,
}

#[async_trait]
impl Service for Inquiries {
    async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, Malformed> {
        let node = self.node.upgrade().ok_or(Malformed)?;
        let name = self.name;
        // A hand-over may write: not on a thread of the runtime.
        tokio::task::spawn_blocking(move || node.answer(name, &body))
            .await
            .map_err(|_| Malformed)?
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Malformed> {
    postcard::from_bytes(body).map_err(|_| Malformed)
}

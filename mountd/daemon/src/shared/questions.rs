//! What daemons ask each other about coordinators: each knows which node has the one of a volume, and that node
//! answers.
//!
//! Version history
//! - 1: clients, evict, check; mounts, which is for the node where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use blockstore::{Node, NodeError};
use mooring_config::Volume;
use mooring_sharedfs_core::coordinator::ClientStatus;
use mooring_sharedfs_core::{Damage, SessionId};
use mooring_terms::{NodeId, SliceId, SliceIndex, VolumeId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Coordinators, SharedMounts};
use crate::error::DaemonError;
use crate::mount_files::Said;

/// The most that a check may take.
const CHECK_MOST: Duration = Duration::from_secs(600);
/// How often it is asked whether it is done.
const CHECK_AGAIN: Duration = Duration::from_millis(100);
/// How long the outcome of a check waits for whoever began it.
const COLLECT: Duration = Duration::from_secs(60);
/// How long a coordinator that is just being begun, or has just moved, is asked again.
const ASK_FOR: Duration = Duration::from_secs(8);
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// How long a node may take to say what its mounts do: people wait for it.
const MOUNTS_WAIT: Duration = Duration::from_secs(1);

/// A question about one volume.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Question {
    Clients,
    Evict(SessionId),
    /// Begin a check, under this number.
    Check(u64),
    /// Whether that check is done.
    Checked(u64),
    /// What the mounts of the volume on the asked node have done.
    Mounts,
}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Answer {
    /// The coordinator isn't here, or can't answer now.
    Elsewhere,
    Clients(Vec<ClientStatus>),
    Evicted(bool),
    Checking,
    Checked(Vec<Damage>),
    /// The tree can't be read.
    Unreadable,
    Mounts(Vec<Said>),
}

/// Checks that run here, or whose outcome was not asked for yet: for [`COLLECT`] it is kept.
#[derive(Default)]
pub struct Checks(Arc<Mutex<Outcomes>>);

/// By the number of the check, when it was begun or done, and what came of it.
type Outcomes = BTreeMap<u64, (Instant, Option<Answer>)>;

/// Forgets what nobody has come for.
fn forget_old(outcomes: &mut Outcomes, now: Instant) {
    outcomes.retain(|_, (at, outcome)| outcome.is_none() || now - *at < COLLECT);
}

impl Coordinators {
    /// Answers what other daemons ask, and this one itself.
    pub fn answer(&self, question: &[u8], mounts: &SharedMounts) -> Option<Vec<u8>> {
        let (volume, question): (VolumeId, Question) = postcard::from_bytes(question).ok()?;
        let answer = match question {
            Question::Mounts => Answer::Mounts(mounts.said(Some(volume))),
            question => self.answer_now(volume, question).unwrap_or(Answer::Elsewhere),
        };
        postcard::to_stdvec(&answer).ok()
    }

    fn answer_now(&self, volume: VolumeId, question: Question) -> Option<Answer> {
        let coordinator = self.get(volume)?;
        Some(match question {
            Question::Clients => Answer::Clients(coordinator.clients().ok()?),
            Question::Evict(session) => Answer::Evicted(coordinator.evict(session).ok()?),
            Question::Check(number) => {
                let checks = Arc::clone(&self.checks().0);
                let now = Instant::now();
                forget_old(&mut checks.lock(), now);
                checks.lock().insert(number, (now, None));
                let check = move || {
                    let answer = match coordinator.check(CHECK_MOST) {
                        Ok(Ok(found)) => Answer::Checked(found),
                        Ok(Err(_)) => Answer::Unreadable,
                        Err(_) => Answer::Elsewhere,
                    };
                    checks.lock().insert(number, (Instant::now(), Some(answer)));
                };
                std::thread::Builder::new().name("fsck-wait".to_owned()).spawn(check).ok()?;
                Answer::Checking
            }
            Question::Checked(number) => {
                let mut checks = self.checks().0.lock();
                match checks.get(&number)?.1.clone() {
                    None => Answer::Checking,
                    Some(answer) => {
                        checks.remove(&number);
                        answer
                    }
                }
            }
            Question::Mounts => return None,
        })
    }

    /// The clients of a shared volume, wherever its coordinator is.
    ///
    /// # Errors
    /// There is none now.
    pub async fn clients(
        &self,
        volume: VolumeId,
        name: &str,
    ) -> Result<Vec<ClientStatus>, DaemonError> {
        match self.ask_until(volume, name, Question::Clients).await? {
            Answer::Clients(clients) => Ok(clients),
            _ => Err(DaemonError::UnexpectedAnswer),
        }
    }

    /// The nodes that have a shared volume mounted, if its coordinator answers at once.
    pub async fn mounted_on(&self, row: &Volume) -> Vec<NodeId> {
        if !row.spec.is_shared() {
            return Vec::new();
        }
        match self.ask(row.id, &row.name, Question::Clients).await {
            Ok(Answer::Clients(clients)) => {
                let nodes = clients.iter().map(|client| NodeId(client.row.node));
                nodes.collect::<BTreeSet<_>>().into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Ends a client's session. Whether there was one.
    ///
    /// # Errors
    /// There is no coordinator now.
    pub async fn evict(
        &self,
        volume: VolumeId,
        name: &str,
        client: u64,
    ) -> Result<bool, DaemonError> {
        match self.ask_until(volume, name, Question::Evict(SessionId(client))).await? {
            Answer::Evicted(was_there) => Ok(was_there),
            _ => Err(DaemonError::UnexpectedAnswer),
        }
    }

    /// Checks a shared volume's structure.
    ///
    /// # Errors
    /// There is no coordinator, or it changed meanwhile.
    pub async fn check(&self, volume: VolumeId, name: &str) -> Result<Vec<Damage>, DaemonError> {
        let number = rand::random();
        self.ask_until(volume, name, Question::Check(number)).await?;
        loop {
            match self.ask(volume, name, Question::Checked(number)).await? {
                Answer::Checking => tokio::time::sleep(CHECK_AGAIN).await,
                Answer::Checked(found) => return Ok(found),
                Answer::Unreadable => return Ok(vec![Damage::Store]),
                _ => return Err(DaemonError::NoCoordinator { volume: name.to_owned() }),
            }
        }
    }

    /// Asks whoever is coordinator, for as long as a failover takes.
    async fn ask_until(
        &self,
        volume: VolumeId,
        name: &str,
        question: Question,
    ) -> Result<Answer, DaemonError> {
        let deadline = tokio::time::Instant::now() + ASK_FOR;
        loop {
            match self.ask(volume, name, question).await {
                Ok(Answer::Elsewhere) | Err(DaemonError::Node(NodeError::Silent(_)))
                    if tokio::time::Instant::now() < deadline => {}
                Ok(Answer::Elsewhere) | Err(DaemonError::Node(NodeError::Silent(_))) => {
                    return Err(DaemonError::NoCoordinator { volume: name.to_owned() });
                }
                other => return other,
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn ask(
        &self,
        volume: VolumeId,
        name: &str,
        question: Question,
    ) -> Result<Answer, DaemonError> {
        let unknown = || DaemonError::NotFound { what: "volume", name: name.to_owned() };
        let at = coordinator_of(self.node(), volume).ok_or_else(unknown)?;
        ask_node(self.node(), at, volume, question).await
    }
}

/// What the mounts of a volume on these nodes have done; nodes that don't answer soon are left out.
pub async fn mounts_of(node: &Arc<Node>, volume: VolumeId, nodes: BTreeSet<NodeId>) -> Vec<Said> {
    let mut asked = tokio::task::JoinSet::new();
    for at in nodes {
        let node = Arc::clone(node);
        asked.spawn(async move {
            let answer = ask_node(&node, at, volume, Question::Mounts);
            match tokio::time::timeout(MOUNTS_WAIT, answer).await {
                Ok(Ok(Answer::Mounts(said))) => said,
                _ => Vec::new(),
            }
        });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

async fn ask_node(
    node: &Node,
    at: NodeId,
    volume: VolumeId,
    question: Question,
) -> Result<Answer, DaemonError> {
    let question = postcard::to_stdvec(&(volume, question)).expect("plain data encodes");
    let answer = node.ask_above(at, question).await?;
    let answer = answer.ok_or(DaemonError::UnexpectedAnswer)?;
    postcard::from_bytes(&answer).map_err(|_| DaemonError::UnexpectedAnswer)
}

/// The node where a volume's coordinator belongs.
fn coordinator_of(node: &Node, volume: VolumeId) -> Option<NodeId> {
    let state = node.state();
    let slice = state.slice(SliceId { volume, index: SliceIndex(0) })?;
    Some(slice.primary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_nobody_comes_for_is_forgotten_and_a_check_that_runs_is_not() {
        let now = Instant::now();
        let later = now + COLLECT;
        let mut outcomes = Outcomes::new();
        outcomes.insert(1, (now, Some(Answer::Checking)));
        outcomes.insert(2, (now, None));
        outcomes.insert(3, (later, Some(Answer::Checking)));
        forget_old(&mut outcomes, later);
        assert_eq!(outcomes.keys().copied().collect::<Vec<_>>(), [2, 3]);
    }
}

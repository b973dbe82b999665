//! What is wrong with a cluster, and what to do about it: concluded from one look at it, and from
//! nothing else.
//!
//! ```text
//!   Reading ──> counts, voters ─┬─> reasons, worst first ──> one line
//!               nodes, pools   ─┤
//!               volumes        ─┘
//! ```
//!
//! A reason says what is wrong in one sentence, and what to do in another, naming the command; where
//! waiting is enough, it says so.

mod volumes;

use std::cmp::Reverse;

use mooring_api::{ClusterStatus, Counts, Health, Reason, VoterStatus};
use mooring_config::{Node, PoolState, VoterCount};

use super::reading::Reading;
use super::views;

pub use volumes::volume;

/// How many names a sentence holds.
const NAMED: usize = 3;

/// What one look at a cluster shows.
pub struct Diagnosis {
    /// The cluster; none if the node belongs to none.
    pub cluster: Option<ClusterStatus>,
    /// What is wrong, worst first.
    pub reasons: Vec<Reason>,
}

impl Diagnosis {
    /// Of a cluster.
    #[must_use]
    pub fn of(reading: &Reading) -> Self {
        let state = &reading.state;
        let voters = voters(reading);
        let reachable = voters.iter().filter(|voter| voter.reachable).count();
        let quorum = reading.raft.leader.is_some() && 2 * reachable > voters.len();
        let mut counts = Counts {
            nodes: count(state.nodes().len()),
            pools: count(state.pools().len()),
            volumes: count(state.volumes().len()),
            ..Counts::default()
        };
        let mut reasons = Vec::new();
        reasons.extend(voting(reading, &voters, quorum));
        for node in state.nodes().values() {
            if is_up(reading, node) {
                counts.nodes_up += 1;
            } else {
                reasons.push(silent_node(reading, node, quorum));
            }
        }
        count_pools(reading, &mut counts, &mut reasons);
        for (_, row) in state.volumes().iter() {
            let (health, why) = volume(reading, row);
            reasons.extend(why);
            match health {
                Health::Ok => counts.volumes_ok += 1,
                Health::Degraded => counts.volumes_degraded += 1,
                Health::Down => counts.volumes_down += 1,
            }
        }
        reasons.sort_by_key(|reason| Reverse(reason.health));
        let cluster = ClusterStatus {
            id: state.identity().map(|identity| identity.cluster.to_string()).unwrap_or_default(),
            version: state.version().0,
            leader: reading.raft.leader.map(|id| views::name(&state.node_name(id))),
            term: reading.raft.term,
            applied: reading.raft.applied,
            survives_a_failure: voters.len() >= 3 && reachable > voters.len() / 2 + 1,
            voters,
            quorum,
            counts,
        };
        Self { cluster: Some(cluster), reasons }
    }

    /// Of a node that belongs to no cluster.
    #[must_use]
    pub fn without_cluster() -> Self {
        let reason = reason(
            Health::Down,
            "this node belongs to no cluster",
            "`mountctl cluster create` makes one, `mountctl cluster join` joins one",
        );
        Self { cluster: None, reasons: vec![reason] }
    }

    /// Completes the counts with what the look at the cluster doesn't show.
    pub fn counts(&mut self, complete: impl FnOnce(&mut Counts)) {
        if let Some(cluster) = &mut self.cluster {
            complete(&mut cluster.counts);
        }
    }

    /// The worst of the reasons.
    #[must_use]
    pub fn health(&self) -> Health {
        self.reasons.first().map_or(Health::Ok, |reason| reason.health)
    }

    /// All in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Some(cluster) = &self.cluster else { return "no cluster yet".to_owned() };
        let Counts { nodes, nodes_up, volumes, volumes_ok, .. } = cluster.counts;
        let all = format!("{nodes_up} of {nodes} nodes up, {volumes_ok} of {volumes} volumes ok");
        let word = match self.health() {
            Health::Ok => return format!("ok: {all}"),
            Health::Degraded => "degraded",
            Health::Down if !cluster.quorum => "down in part (no quorum)",
            Health::Down => "down in part",
        };
        match self.reasons.len() {
            1 => format!("{word}: {all}"),
            several => format!("{word}: {all}; {several} reasons"),
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn reason(health: Health, what: impl Into<String>, remedy: impl Into<String>) -> Reason {
    Reason { health, what: what.into(), remedy: remedy.into() }
}

fn is_up(reading: &Reading, node: &Node) -> bool {
    node.id == reading.me || reading.answers(node.id)
}

/// Names for a sentence; of many, the first few.
fn list(names: &[String]) -> String {
    match names.len() {
        0..=NAMED => names.join(", "),
        many => format!("{} and {} more", names[..NAMED].join(", "), many - NAMED),
    }
}

fn voters(reading: &Reading) -> Vec<VoterStatus> {
    let status = |id| VoterStatus {
        node: views::name(&reading.state.node_name(id)),
        reachable: id == reading.me || reading.answers(id),
        silent_for: reading.raft.silence.get(&id).map(|silence| views::span(*silence)),
    };
    reading.raft.voters.iter().copied().map(status).collect()
}

/// What the voters can't do, as they are.
fn voting(reading: &Reading, voters: &[VoterStatus], quorum: bool) -> Option<Reason> {
    let all = voters.len();
    let silent: Vec<String> = voters
        .iter()
        .filter(|voter| !voter.reachable)
        .map(|voter| voter.node.to_string())
        .collect();
    if !quorum && 2 * (all - silent.len()) <= all {
        return Some(reason(
            Health::Down,
            format!(
                "the configuration can't be changed: {} of {all} voters don't answer ({}). I/O goes on, but nothing fails over, and nothing can be created, attached or removed",
                silent.len(),
                list(&silent)
            ),
            "bring back enough of them for a majority",
        ));
    }
    if !quorum {
        return Some(reason(
            Health::Degraded,
            "the voters have no leader at the moment: nothing can be changed until they have elected one",
            "wait a second; if it stays so, look into the daemons' logs (journalctl -u mountd)",
        ));
    }
    let nodes = reading.state.nodes().len();
    let only = voters.first().map(|voter| voter.node.to_string()).unwrap_or_default();
    match (nodes, all, reading.state.voter_count()) {
        (0 | 1, _, _) => None,
        (_, 3.., _) => None,
        (2, _, _) => Some(reason(
            Health::Degraded,
            format!(
                "with two nodes {only} alone votes: if it is lost, nothing can be changed, and no volume fails over"
            ),
            "add a third node, one without a pool will do: mountctl cluster token here, mountctl cluster join there",
        )),
        (_, _, VoterCount::One) => Some(reason(
            Health::Degraded,
            format!(
                "{only} alone votes, as it was told to: if it is lost, nothing can be changed, and no volume fails over"
            ),
            "let three nodes vote: mountctl cluster voters 3",
        )),
        _ => Some(reason(
            Health::Degraded,
            format!("{only} alone votes yet: two more nodes are about to"),
            "wait some seconds; it needs two other nodes that answer and aren't being drained",
        )),
    }
}

fn silent_node(reading: &Reading, node: &Node, quorum: bool) -> Reason {
    let mut what = format!("node {} does not answer", node.name);
    let voters = &reading.raft.voters;
    if quorum && voters.len() > 1 && voters.contains(&node.id) {
        let silent = voters.iter().filter(|id| **id != reading.me && !reading.answers(**id));
        if 2 * (voters.len() - silent.count() - 1) <= voters.len() {
            what.push_str(&format!(
                "; it is one of {} voters, and no other may be lost meanwhile",
                voters.len()
            ));
        }
    }
    let held: Vec<String> = reading
        .state
        .volumes()
        .iter()
        .filter(|(_, row)| row.attachment.is_some_and(|held| held.node == node.id))
        .map(|(_, row)| row.name.clone())
        .collect();
    let mut remedy =
        format!("bring it back; if it is lost for good: mountctl node rm {} --force", node.name);
    if !held.is_empty() {
        what.push_str(&format!("; it has {} attached", list(&held)));
        remedy.push_str(". What it has attached can be mounted elsewhere now: mountctl mount NAME DIR takes it over");
    }
    reason(Health::Degraded, what, remedy)
}

fn count_pools(reading: &Reading, counts: &mut Counts, reasons: &mut Vec<Reason>) {
    for pool in reading.state.pools().values() {
        let on = reading.state.node_name(pool.node);
        let named = format!("pool {} ({} on {on})", pool.id, pool.path);
        let failed = |why: &str| {
            reason(
                Health::Degraded,
                format!("{named} has failed: {why}"),
                format!(
                    "replace the disk: mountctl pool rm {} --force, then mountctl pool add on {on}",
                    pool.id
                ),
            )
        };
        let report = reading.pool(pool.node, pool.id);
        let found = match (&pool.state, report) {
            (PoolState::Failed { reason, .. }, _) => failed(reason),
            // That its node doesn't answer is said of the node.
            (_, None) => continue,
            (_, Some(report)) if report.failed => failed("an I/O error has stopped it"),
            (_, Some(report)) if report.damaged => reason(
                Health::Degraded,
                format!("{named} has lost records that were durable: its disk can't be trusted"),
                "its replicas are made whole from the others, wait for that; then replace the disk",
            ),
            (_, Some(report)) if report.free == 0 => reason(
                Health::Degraded,
                format!("{named} is full: writes to the volumes in it get \"no space\""),
                format!(
                    "delete files and run fstrim on the mounts, remove volumes, or add a pool on {on} or elsewhere: mountctl pool add PATH"
                ),
            ),
            (_, Some(report)) if report.free < report.size / 20 => {
                counts.pools_ok += 1;
                reason(
                    Health::Degraded,
                    format!(
                        "{named} is nearly full: {} of {} are left",
                        mooring_api::ByteSize(report.free),
                        mooring_api::ByteSize(report.size)
                    ),
                    "delete files and run fstrim on the mounts, or add a pool: mountctl pool add PATH",
                )
            }
            (_, Some(_)) => {
                counts.pools_ok += 1;
                continue;
            }
        };
        reasons.push(found);
    }
}

#[cfg(test)]
mod tests;

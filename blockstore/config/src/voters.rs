//! Which nodes are to vote.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::NodeId;

use crate::{ClusterState, NodeState, VoterCount};

/// The voters that the cluster is to have, given those it has and the nodes that the leader finds
/// gone: three with three or more nodes, else one, unless an operator says otherwise.
///
/// As few changes as possible: voters stay while they have a row. A voter that is gone is replaced
/// only if a node that is there can take its place, since a change needs the old majority anyway;
/// nothing is changed while there is nobody to change it to. New voters come from zones (else racks,
/// regions) that have none yet.
#[must_use]
pub fn desired_voters(
    state: &ClusterState,
    current: &BTreeSet<NodeId>,
    gone: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let nodes = state.nodes();
    let wanted = match state.voter_count() {
        VoterCount::Auto if nodes.len() >= 3 => 3,
        VoterCount::Three => nodes.len().min(3),
        VoterCount::Auto | VoterCount::One => 1,
    };
    // Two voters are worse than one: either's loss stops both.
    let wanted = if wanted == 2 { 1 } else { wanted };
    let mut voters: BTreeSet<NodeId> =
        current.iter().copied().filter(|id| nodes.contains_key(id)).collect();
    let candidates: Vec<NodeId> = nodes
        .values()
        .filter(|node| node.state == NodeState::Active && !gone.contains(&node.id))
        .map(|node| node.id)
        .filter(|id| !voters.contains(id))
        .collect();
    let lost: Vec<NodeId> = voters.iter().copied().filter(|id| gone.contains(id)).collect();
    let spare = candidates.len().saturating_sub(wanted.saturating_sub(voters.len()));
    for id in lost.into_iter().take(spare) {
        voters.remove(&id);
    }
    let mut candidates = candidates;
    while voters.len() < wanted && !candidates.is_empty() {
        let used = domains(state, &voters);
        let best = (0..candidates.len())
            .min_by_key(|i| {
                let key = domain(state, candidates[*i]);
                (used.get(&key).copied().unwrap_or(0), candidates[*i])
            })
            .expect("the list is not empty");
        voters.insert(candidates.remove(best));
    }
    while voters.len() > wanted {
        let there: Vec<NodeId> = voters.iter().copied().filter(|id| !gone.contains(id)).collect();
        let last = voters.iter().copied().find(|id| gone.contains(id));
        match last.or(there.last().copied()) {
            Some(id) => voters.remove(&id),
            None => break,
        };
    }
    // Three or one, never two: with one candidate missing, what there is stays.
    if voters.len() == 2 && !voters.is_superset(current) {
        return current.iter().copied().filter(|id| nodes.contains_key(id)).collect();
    }
    voters
}

/// The failure domain of a node: region, zone, rack.
fn domain(state: &ClusterState, id: NodeId) -> [Option<String>; 3] {
    let label = |key| state.node(id).and_then(|node| node.label(key)).map(ToOwned::to_owned);
    [label("region"), label("zone"), label("rack")]
}

/// How many of `voters` each failure domain has.
fn domains(
    state: &ClusterState,
    voters: &BTreeSet<NodeId>,
) -> BTreeMap<[Option<String>; 3], usize> {
    let mut used = BTreeMap::new();
    for voter in voters {
        *used.entry(domain(state, *voter)).or_default() += 1;
    }
    used
}

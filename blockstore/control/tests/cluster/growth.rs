//! Nodes come and go: learners, voters, removal, snapshots to the new.

use std::collections::BTreeSet;

use mooring_config::{Command, VoterCount};
use mooring_terms::NodeId;

use crate::{Cluster, label_of};

/// The voters as a node knows them; none while they are being changed.
fn voters(c: &Cluster, node: u64) -> BTreeSet<NodeId> {
    let status = c.at(node).status();
    if status.changing { BTreeSet::new() } else { status.voters }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_voter_for_two_nodes_three_for_three_and_more() {
    let mut c = Cluster::of(2).await;
    assert_eq!(voters(&c, 1), [NodeId(1)].into());
    c.join(3, 2).await;
    c.until("there are three voters", |c| (1..=3).all(|n| voters(c, n).len() == 3)).await;
    c.join(4, 3).await;
    c.until("node 4 follows", |c| c.at(4).state().nodes().len() == 4).await;
    c.label(4, "rack", "r").await;
    c.settled().await;
    assert!(!voters(&c, 4).contains(&NodeId(4)));
    c.must(4, Command::SetVoters(VoterCount::One)).await;
    c.until("there is one voter", |c| (1..=4).all(|n| voters(c, n).len() == 1)).await;
    c.label(2, "rack", "s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_voter_is_replaced_and_a_removed_leader_makes_way() {
    let mut c = Cluster::of(4).await;
    let remove = |node: u64| Command::RemoveNode {
        node: NodeId(node),
        gone: false,
        force: false,
        gossip_key: [node as u8; 32],
    };
    let leader = c.leader().unwrap();
    let voter = voters(&c, leader).iter().map(|id| id.0).find(|id| *id != leader).unwrap();
    c.must(leader, remove(voter)).await;
    c.network.isolate(NodeId(voter));
    c.stop(voter).await;
    c.until("the spare node votes", |c| {
        c.nodes.keys().all(|n| voters(c, *n).len() == 3 && !voters(c, *n).contains(&NodeId(voter)))
    })
    .await;
    c.settled().await;
    assert_eq!(c.at(leader).state().gossip_keys().len(), 2, "the gossip key was rotated");

    let other = *c.nodes.keys().find(|n| **n != leader).unwrap();
    c.must(other, remove(leader)).await;
    c.network.isolate(NodeId(leader));
    c.stop(leader).await;
    c.until("two nodes have one voter", |c| c.nodes.keys().all(|n| voters(c, *n).len() == 1)).await;
    for number in c.nodes.keys() {
        assert_eq!(c.at(*number).state().nodes().len(), 2);
    }
    c.must(other, Command::SetVoters(VoterCount::Auto)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_node_gets_a_snapshot_when_the_log_is_gone() {
    let mut c = Cluster::of(1).await;
    let control = c.at(1).clone();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let control = control.clone();
        tasks.spawn(async move {
            for round in 0..100 {
                let labels = vec![(format!("k{task}"), Some(round.to_string()))];
                let command = Command::LabelNode { node: NodeId(1), labels };
                control.propose(crate::by(), command).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    // Batches make few entries of many proposals: fill the log until a snapshot must have been made.
    for round in 0..2_600 {
        c.label(1, "round", &round.to_string()).await;
    }
    c.join(2, 1).await;
    c.until("node 2 is level", |c| label_of(c.at(2), "round").as_deref() == Some("2599")).await;
    assert_eq!(label_of(c.at(2), "k63").as_deref(), Some("99"));
    c.stop(2).await;
    c.start(2).await;
    assert_eq!(label_of(c.at(2), "k63").as_deref(), Some("99"), "from its own disk");
    c.settled().await;
}

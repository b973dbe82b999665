//! What a node is told of the difference of two states.

use mooring_config::changes::{Change, between};
use mooring_config::{ChangeReason, ClusterState, Command, SliceChange};
use mooring_terms::NodeId;

use crate::{Cluster, first_slice};

#[test]
fn each_kind_of_change_is_named_once_and_several_commands_are_one_change() {
    let mut c = Cluster::of(3);
    let before = c.state.clone();
    assert_eq!(between(&before, &c.state), []);
    let v = c.volume("data", 3);
    c.must(Command::DrainNode { node: NodeId(2), drain: true });
    c.must(Command::DrainNode { node: NodeId(2), drain: false });
    c.must(Command::RotateGossipKey([8; 32]));
    let changes = between(&before, &c.state);
    assert_eq!(changes.len(), 3, "the drain has left no difference: {changes:?}");
    assert!(matches!(changes[0], Change::GossipKeys));
    assert!(
        matches!(&changes[1], Change::Volume { volume, before: None, after: Some(_) } if *volume == v)
    );
    assert!(matches!(&changes[2], Change::Slice { before: None, after: Some(_), .. }));

    let before = c.state.clone();
    let config = c.slice(v);
    let others: Vec<_> =
        config.in_sync.iter().filter(|m| m.node != config.primary).copied().collect();
    let change = SliceChange {
        slice: first_slice(v),
        expected: config.epoch,
        by: others[0].node,
        primary: others[0].node,
        in_sync: others,
        reason: ChangeReason::PrimaryLost,
    };
    c.must(Command::change_slices(vec![change]));
    let changes = between(&before, &c.state);
    assert_eq!(changes.len(), 1, "a slice's change is not its volume's: {changes:?}");
    assert!((1..=3).all(|n| changes[0].concerns_replica_on(NodeId(n))));
    assert!(!changes[0].concerns_replica_on(NodeId(9)));

    let before = c.state.clone();
    c.must(Command::RemoveVolume { volume: v, force: false });
    let changes = between(&before, &c.state);
    assert!(matches!(&changes[0], Change::Volume { before: Some(_), after: None, .. }));
    assert!(matches!(&changes[1], Change::Slice { before: Some(_), after: None, .. }));
}

#[test]
fn a_state_that_shares_nothing_is_compared_by_value() {
    let mut c = Cluster::of(3);
    for number in 0..20 {
        c.volume(&format!("v{number}"), 3);
    }
    let bytes = postcard::to_stdvec(&c.state).unwrap();
    let copy: ClusterState = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(between(&copy, &c.state), []);
    let all = between(&ClusterState::default(), &c.state);
    let slices = all.iter().filter(|change| matches!(change, Change::Slice { .. })).count();
    let nodes = all.iter().filter(|change| matches!(change, Change::Node { .. })).count();
    assert_eq!((slices, nodes), (20, 3));
}

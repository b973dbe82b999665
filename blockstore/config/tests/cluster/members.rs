//! Nodes, pools and tokens: admitted, drained, removed; keys rotated.

use mooring_config::{
    Admission, AttachMode, Boot, ClusterVersion, Command, Done, NEWEST_VERSION, NodeState, Refused,
    Rights, Role, TokenHash, UnixMillis, VoterCount, WrappedKey, desired_voters,
};
use mooring_terms::{ErrorKind, NodeId};

use crate::{Cluster, TOKEN, new_node};

fn admit(token: TokenHash, name: &str, number: u64) -> Command {
    let node = new_node(name, number, &[]);
    Command::AdmitNode(Box::new(Admission { token, node }))
}

fn remove(node: u64, gone: bool, force: bool) -> Command {
    Command::RemoveNode { node: NodeId(node), gone, force, gossip_key: [node as u8; 32] }
}

#[test]
fn tokens_are_counted_and_end() {
    let mut c = Cluster::new();
    let hash = TokenHash([1; 32]);
    let expires = UnixMillis(c.now + 10);
    c.must(Command::CreateJoinToken { hash, expires, uses: 2 });
    c.must(admit(hash, "a", 10));
    assert_eq!(c.must(admit(hash, "a", 10)), Done::Node(NodeId(2)), "asked again, not counted");
    c.must(admit(hash, "b", 11));
    assert_eq!(c.refused(admit(hash, "c", 12)), Refused::TokenUseless, "used up");
    let expires = UnixMillis(c.now + 10);
    c.must(Command::CreateJoinToken { hash, expires, uses: 2 });
    c.now += 20;
    assert_eq!(c.refused(admit(hash, "c", 12)), Refused::TokenUseless, "over");
    let past = UnixMillis(5);
    assert_eq!(
        c.refused(Command::CreateJoinToken { hash, expires: past, uses: 1 }),
        Refused::TokenUseless
    );
    let unknown = TokenHash([9; 32]);
    assert_eq!(c.refused(admit(unknown, "c", 12)), Refused::TokenUseless);
    c.must(Command::RevokeJoinToken { hash: TOKEN });
    assert_eq!(c.refused(admit(TOKEN, "c", 12)), Refused::TokenUseless, "revoked");
    assert_eq!(c.refused(Command::RevokeJoinToken { hash: TOKEN }).kind(), ErrorKind::NotFound);
}

#[test]
fn names_are_unique_and_versions_must_fit() {
    let mut c = Cluster::new();
    let refused = c.refused(admit(TOKEN, "n1", 10));
    assert!(refused.to_string().contains("is taken by node 1"), "{refused}");
    assert!(matches!(c.refused(admit(TOKEN, "N 2", 10)), Refused::BadName { .. }));
    let mut old = new_node("old", 11, &[]);
    old.version = ClusterVersion(0);
    let admission = Admission { token: TOKEN, node: old };
    let refused = c.refused(Command::AdmitNode(Box::new(admission)));
    assert!(matches!(refused, Refused::VersionTooOld { .. }));
    let newer = ClusterVersion(NEWEST_VERSION.0 + 1);
    assert!(matches!(c.refused(Command::RaiseVersion(newer)), Refused::NodeTooOld { .. }));
    let older = ClusterVersion(0);
    assert!(matches!(c.refused(Command::RaiseVersion(older)), Refused::VersionGoesBack { .. }));
    c.must(Command::RaiseVersion(NEWEST_VERSION));
}

#[test]
fn the_version_is_raised_once_every_node_can_write_it() {
    let mut c = Cluster::new();
    assert_eq!(c.state.version_to_raise(), None);
    let newer = ClusterVersion(NEWEST_VERSION.0 + 1);
    let nodes: Vec<NodeId> = c.state.nodes().keys().copied().collect();
    for (i, node) in nodes.iter().enumerate() {
        assert_eq!(c.state.version_to_raise(), None, "after {i} of {}", nodes.len());
        c.must(Command::NodeStarted {
            node: *node,
            boot: Boot(7),
            addresses: vec![],
            version: newer,
            still_held: vec![],
        });
    }
    assert_eq!(c.state.version_to_raise(), Some(newer));
    c.must(Command::RaiseVersion(newer));
    assert_eq!((c.state.version(), c.state.version_to_raise()), (newer, None));
    // An older daemon must not run in it any more.
    let back = Command::NodeStarted {
        node: nodes[0],
        boot: Boot(8),
        addresses: vec![],
        version: NEWEST_VERSION,
        still_held: vec![],
    };
    assert!(matches!(c.refused(back), Refused::VersionTooOld { .. }));
}

#[test]
fn nothing_happens_before_creation_and_creation_happens_once() {
    let mut state = mooring_config::ClusterState::default();
    let by = mooring_config::Actor::system(NodeId(1));
    let early = state.apply(UnixMillis(1), &by, &Command::SetVoters(VoterCount::One));
    assert_eq!(early, Err(Refused::NotCreated));
    let mut c = Cluster::new();
    let genesis = mooring_config::Genesis {
        cluster: mooring_config::ClusterId([2; 16]),
        name: "other".to_owned(),
        ca_certificate: vec![],
        ca_key: WrappedKey::default(),
        gossip_key: [0; 32],
        version: NEWEST_VERSION,
        first: new_node("x", 5, &[]),
    };
    let refused = c.refused(Command::Create(Box::new(genesis)));
    assert!(matches!(refused, Refused::AlreadyCreated { name } if name == "test"));
}

#[test]
fn time_never_goes_back() {
    let mut c = Cluster::of(1);
    c.now = 5_000;
    c.must(Command::SetVoters(VoterCount::One));
    c.now = 100;
    c.must(Command::SetVoters(VoterCount::Auto));
    assert_eq!(c.state.now(), UnixMillis(5_001));
}

#[test]
fn removal_asks_for_draining_and_force_spares_what_can_be_spared() {
    let mut c = Cluster::of(4);
    let v = c.volume("data", 3);
    let config = c.slice(v);
    let holder = config.in_sync.iter().find(|m| m.node != config.primary).unwrap().node;
    let refused = c.refused(remove(holder.0, true, false));
    assert!(
        refused.to_string().contains("holds 1 replicas (of data): drain it first"),
        "{refused}"
    );
    let keys: Vec<u32> = c.state.gossip_keys().iter().map(|key| key.id).collect();
    assert_eq!(keys, [1]);
    c.must(remove(holder.0, true, true));
    assert_eq!(c.slice(v).in_sync.len(), 2);
    assert!(c.state.node(holder).is_none() && c.state.pools().values().all(|p| p.node != holder));
    let keys: Vec<u32> = c.state.gossip_keys().iter().map(|key| key.id).collect();
    assert_eq!(keys, [1, 2], "the new one is in use, the old one ends soon");

    let primary = c.slice(v).primary;
    let refused = c.refused(remove(primary.0, true, true));
    assert!(refused.to_string().contains("data can't spare the replicas"), "{refused}");
    assert_eq!(c.refused(remove(9, true, true)).kind(), ErrorKind::NotFound);
    let mut c = Cluster::new();
    assert_eq!(c.refused(remove(1, true, true)), Refused::LastNode);
}

#[test]
fn a_removed_nodes_attachments_end_only_if_it_is_gone_or_forced() {
    let mut c = Cluster::of(3);
    let request = mooring_config::VolumeRequest {
        replicas: Some(1),
        nodes: vec![NodeId(1)],
        ..mooring_config::VolumeRequest::default()
    };
    let v = c.volume_of("data", &request);
    let attach = Command::Attach {
        volume: v,
        node: NodeId(3),
        boot: Boot(1),
        mode: AttachMode::ReadWrite,
        holder_gone: false,
        force: false,
    };
    c.must(attach);
    let refused = c.refused(remove(3, false, false));
    assert!(matches!(refused, Refused::NodeHasAttachments { .. }), "{refused}");
    c.must(remove(3, true, false));
    assert_eq!(c.get(v).attachment, None);
}

#[test]
fn pools_are_added_once_emptied_and_removed() {
    let mut c = Cluster::of(4);
    let v = c.volume("data", 3);
    let config = c.slice(v);
    let member = *config.in_sync.iter().find(|m| m.node != config.primary).unwrap();
    let row = c.state.pool(member.pool).unwrap().clone();
    let again = Command::AddPool {
        node: row.node,
        path: row.path.clone(),
        size: 1,
        class: row.class,
        measured: false,
        incarnation: row.incarnation,
    };
    assert!(matches!(c.refused(again), Refused::PoolExists { .. }));
    let command = Command::RemovePool { pool: member.pool, force: false };
    assert!(matches!(c.refused(command), Refused::PoolHoldsReplicas { replicas: 1, .. }));
    c.must(Command::RemovePool { pool: member.pool, force: true });
    assert_eq!(c.slice(v).in_sync.len(), 2);
    c.must(Command::SetPoolClass {
        pool: c.pool_of(config.primary),
        class: mooring_config::Class::Low,
        measured: false,
    });
}

#[test]
fn drained_nodes_take_no_replicas() {
    let mut c = Cluster::of(3);
    c.must(Command::DrainNode { node: NodeId(2), drain: true });
    assert_eq!(c.state.node(NodeId(2)).unwrap().state, NodeState::Draining);
    let request = mooring_config::VolumeRequest {
        replicas: Some(3),
        ..mooring_config::VolumeRequest::default()
    };
    let refused = c.plan("data", &request).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "3 replicas need 3 nodes with usable pools; 2 have one: n1, n3 (n2 is being drained): \
         add a pool or a node, or ask for fewer replicas"
    );
    c.must(Command::DrainNode { node: NodeId(2), drain: false });
    c.volume("data", 3);
}

#[test]
fn api_tokens_have_unique_names_and_end() {
    let mut c = Cluster::new();
    let create = |name: &str, byte| Command::CreateApiToken {
        hash: TokenHash([byte; 32]),
        name: name.to_owned(),
        rights: Rights::Operate,
        expires: None,
    };
    c.must(create("ci", 1));
    c.must(create("ci", 1));
    assert!(matches!(c.refused(create("ci", 2)), Refused::TokenNameTaken { .. }));
    assert!(Rights::Read < Rights::Operate && Rights::Operate < Rights::Force);
    c.must(Command::RevokeApiToken { name: "ci".to_owned() });
    assert!(c.state.api_tokens().is_empty());
    assert_eq!(c.refused(Command::RevokeApiToken { name: "ci".to_owned() }), Refused::NoToken);
}

#[test]
fn secrets_do_not_show() {
    let c = Cluster::new();
    let text = format!("{:?}", c.state);
    assert!(text.contains("GossipKey(1)") && text.contains("WrappedKey(2 bytes)"));
    assert!(!text.contains("9, 9, 9, 9"), "the gossip key's bytes");
}

#[test]
fn voters_are_one_or_three_spread_and_stable() {
    let mut c = Cluster::new();
    let none = [].into();
    let one = [NodeId(1)].into();
    assert_eq!(desired_voters(&c.state, &one, &none), one);
    c.node("n2", &[("zone", "a")]);
    assert_eq!(desired_voters(&c.state, &one, &none), one, "two voters would be worse than one");
    for (name, zone) in [("n3", "a"), ("n4", "b"), ("n5", "b")] {
        c.node(name, &[("zone", zone)]);
    }
    let three = [NodeId(1), NodeId(2), NodeId(4)].into();
    assert_eq!(desired_voters(&c.state, &one, &none), three, "one a zone, and one without");
    assert_eq!(desired_voters(&c.state, &three, &none), three);
    let gone = [NodeId(2)].into();
    let replaced = [NodeId(1), NodeId(3), NodeId(4)].into();
    assert_eq!(desired_voters(&c.state, &three, &gone), replaced);
    let all_others = [NodeId(2), NodeId(3), NodeId(5)].into();
    assert_eq!(desired_voters(&c.state, &three, &all_others), three, "nobody to take its place");
    c.must(Command::SetVoters(VoterCount::One));
    assert_eq!(desired_voters(&c.state, &three, &none).len(), 1);
    c.must(Command::SetRole { node: NodeId(2), role: Role::Voter });
    assert_eq!(c.state.node(NodeId(2)).unwrap().role, Role::Voter);
}

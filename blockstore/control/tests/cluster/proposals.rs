//! Proposals and reads, from every node.

use mooring_config::{AttachMode, Boot, Command, Refused, Role};
use mooring_control::Error;
use mooring_terms::{ErrorKind, Incarnation, NodeId, PoolId, VolumeId};

use crate::{Cluster, by, label_of};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_proposes_and_reads_its_own_and_others_writes() {
    let c = Cluster::of(4).await;
    for number in 1..=4 {
        let value = format!("from{number}");
        c.label(number, "rack", &value).await;
        assert_eq!(label_of(c.at(number), "rack"), Some(value.clone()), "its own, at once");
        for other in 1..=4 {
            let state = c.at(other).read_linearizable().await.unwrap();
            let node = state.node(NodeId(1)).unwrap();
            assert_eq!(node.label("rack"), Some(value.as_str()), "read at {other}");
        }
    }
    c.settled().await;
    c.at(4).state().check_invariants();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_back_whole_from_every_node() {
    let c = Cluster::of(3).await;
    for number in 1..=3 {
        let command = Command::RemoveVolume { volume: VolumeId(9), force: false };
        let error = c.at(number).propose(by(), command).await.unwrap_err();
        assert!(matches!(error, Error::Refused(Refused::NoVolume(VolumeId(9)))), "{error}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_only_for_itself() {
    let c = Cluster::of(3).await;
    let attach = Command::Attach {
        volume: VolumeId(1),
        node: NodeId(1),
        boot: Boot(1),
        mode: AttachMode::ReadWrite,
        holder_gone: true,
        force: true,
    };
    let error = c.at(2).propose(by(), attach).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refused::NotForItself(NodeId(2)))), "{error}");
    let pool = Command::AddPool {
        node: NodeId(3),
        path: "/pool".to_owned(),
        size: 1 << 30,
        class: mooring_config::Class::High,
        measured: true,
        incarnation: Incarnation(1),
    };
    c.must(3, pool).await;
    let failed = Command::PoolFailed {
        pool: PoolId(1),
        incarnation: Incarnation(1),
        reason: "not mine".to_owned(),
    };
    let error = c.at(1).propose(by(), failed.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(Refused::NotForItself(NodeId(1)))), "{error}");
    c.must(3, failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_voters_roles_and_what_two_nodes_cannot_do() {
    let c = Cluster::of(2).await;
    for number in 1..=2 {
        let pool = Command::AddPool {
            node: NodeId(number),
            path: "/pool".to_owned(),
            size: 1 << 30,
            class: mooring_config::Class::High,
            measured: true,
            incarnation: Incarnation(number),
        };
        c.must(number, pool).await;
    }
    let status = c.at(2).status();
    assert_eq!(status.leader, Some(NodeId(1)));
    assert_eq!(status.voters, [NodeId(1)].into());
    c.settled().await;
    let warnings = c.at(2).status().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("add 1 more (one without storage will do)"), "{warnings:?}");
    let state = c.at(2).state();
    assert_eq!(state.node(NodeId(1)).unwrap().role, Role::Voter);
    assert_eq!(state.node(NodeId(2)).unwrap().role, Role::Learner);
}

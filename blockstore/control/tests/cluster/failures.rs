//! Leaders lost, partitions, lost majorities, restarts.

use std::time::{Duration, Instant};

use mooring_config::{AttachMode, Boot, Command, Done, NEWEST_VERSION, VolumeRequest, placement};
use mooring_control::Error;
use mooring_terms::{ErrorKind, Incarnation, NodeId, VolumeId};

use crate::{Cluster, by, label_of};

#[tokio::test(flavor = "multi_thread")]
async fn another_leads_soon_after_the_leader_is_killed() {
    let mut c = Cluster::of(3).await;
    let old = c.leader().unwrap();
    c.network.isolate(NodeId(old));
    let killed = Instant::now();
    c.stop(old).await;
    c.until("there is another leader", |c| c.leader().is_some()).await;
    let elected = killed.elapsed();
    let other = *c.nodes.keys().next().unwrap();
    c.label(other, "rack", "after").await;
    println!("elected after {elected:?}, first proposal done after {:?}", killed.elapsed());
    assert!(elected < Duration::from_secs(3), "{elected:?}");

    c.network.heal();
    c.start(old).await;
    c.until("the old one has caught up", |c| {
        label_of(c.at(old), "rack").as_deref() == Some("after")
    })
    .await;
    c.label(old, "rack", "again").await;
    c.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_under_way_survives_the_change_of_leader() {
    let c = Cluster::of(3).await;
    let leader = c.leader().unwrap();
    let other = if leader == 1 { 2 } else { 1 };
    let control = c.at(other).clone();
    let proposals = tokio::spawn(async move {
        let mut done = 0;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            let labels = vec![("count".to_owned(), Some(done.to_string()))];
            let command = Command::LabelNode { node: NodeId(1), labels };
            control.propose(by(), command).await.unwrap();
            done += 1;
        }
        done
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    c.network.isolate(NodeId(leader));
    let done = proposals.await.unwrap();
    c.network.heal();
    c.settled().await;
    assert_eq!(label_of(c.at(leader), "count"), Some((done - 1).to_string()));
    let events = c.at(other).state().events().len();
    println!("{done} proposals, none failed, over a change of leader ({events} events)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_serves_nothing_and_follows_after_healing() {
    let c = Cluster::of(3).await;
    let old = c.leader().unwrap();
    c.network.isolate(NodeId(old));
    c.until("there is another leader", |c| c.leader().is_some_and(|leader| leader != old)).await;
    let new = c.leader().unwrap();
    c.label(new, "rack", "new").await;

    let started = Instant::now();
    let error = c.at(old).read_linearizable().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "never an old state: {error}");
    let labels = vec![("rack".to_owned(), Some("old".to_owned()))];
    let command = Command::LabelNode { node: NodeId(1), labels };
    let error = c.at(old).propose(by(), command).await.unwrap_err();
    assert!(matches!(error, Error::NoQuorum { .. }), "not Unknown, so never applied: {error}");
    let text = error.to_string();
    assert!(text.contains("2 of 3 voters don't answer"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());

    c.network.heal();
    c.until("it follows", |c| label_of(c.at(old), "rack").as_deref() == Some("new")).await;
    c.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_majority_is_named_in_bounded_time_and_the_state_stays_readable() {
    let mut c = Cluster::of(3).await;
    c.label(1, "rack", "before").await;
    c.settled().await;
    c.stop(2).await;
    c.stop(3).await;
    let started = Instant::now();
    let labels = vec![("rack".to_owned(), None)];
    let command = Command::LabelNode { node: NodeId(1), labels };
    let error = c.at(1).propose(by(), command).await.unwrap_err();
    let took = started.elapsed();
    println!("after {took:?}: {error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("(2 of 3 voters don't answer: n2, n3)"), "{error}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert_eq!(label_of(c.at(1), "rack").as_deref(), Some("before"));

    c.start(2).await;
    c.until("there is a leader again", |c| c.leader().is_some()).await;
    c.label(2, "rack", "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_come_back_from_disk() {
    let mut c = Cluster::of(3).await;
    c.label(2, "rack", "kept").await;
    c.settled().await;
    for number in 1..=3 {
        c.stop(number).await;
    }
    for number in 1..=3 {
        c.start(number).await;
    }
    for number in 1..=3 {
        let text = label_of(c.at(number), "rack");
        assert_eq!(text.as_deref(), Some("kept"), "before any leader is there");
    }
    c.until("there is a leader", |c| c.leader().is_some()).await;
    c.label(3, "rack", "more").await;
    c.settled().await;
}

/// Three nodes with a pool each, and a volume on them.
async fn with_a_volume() -> (Cluster, VolumeId) {
    let c = Cluster::of(3).await;
    for number in 1..=3 {
        let node = NodeId(number);
        let started = Command::NodeStarted {
            node,
            boot: Boot(1),
            addresses: vec![],
            version: NEWEST_VERSION,
            still_held: vec![],
        };
        c.must(number, started).await;
        let pool = Command::AddPool {
            node,
            path: "/pool".to_owned(),
            size: 100 << 30,
            class: mooring_config::Class::High,
            measured: true,
            incarnation: Incarnation(number),
        };
        c.must(number, pool).await;
    }
    let hints = placement::Hints::default();
    let state = c.at(1).read_linearizable().await.unwrap();
    let create = placement::plan_create(&state, &hints, "data", &VolumeRequest::default()).unwrap();
    match c.must(1, create).await {
        Done::Volume { volume, .. } => (c, volume),
        other => panic!("{other:?}"),
    }
}

/// Whatever the proposer claims, only the leader says who is gone.
fn attach(volume: VolumeId, node: u64) -> Command {
    let (node, boot, mode) = (NodeId(node), Boot(1), AttachMode::ReadWrite);
    Command::Attach { volume, node, boot, mode, holder_gone: true, force: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_taken_over_only_from_a_node_that_is_gone() {
    let (c, volume) = with_a_volume().await;
    let leader = c.leader().unwrap();
    let holder = if leader == 3 { 2 } else { 3 };
    let other = 6 - leader - holder;
    c.must(holder, attach(volume, holder)).await;
    let refused = c.at(other).propose(by(), attach(volume, other)).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("attached to node n{holder}")), "{refused}");

    c.network.isolate(NodeId(holder));
    let cut = Instant::now();
    let done = loop {
        match c.at(other).propose(by(), attach(volume, other)).await {
            Ok(done) => break done,
            Err(error) => assert!(matches!(error, Error::Refused(_)), "{error}"),
        }
        assert!(cut.elapsed() < Duration::from_secs(5), "never found gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!("taken over after {:?}", cut.elapsed());
    assert!(cut.elapsed() > Duration::from_millis(1_500), "not before it is gone");
    assert!(matches!(done, Done::Attached { fenced: Some(node), .. } if node == NodeId(holder)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_never_finds_itself_gone() {
    let (c, volume) = with_a_volume().await;
    let leader = c.leader().unwrap();
    c.must(leader, attach(volume, leader)).await;
    // Nobody sends anything to himself, so nothing is heard from there.
    tokio::time::sleep(c.timings.gone_after() + Duration::from_millis(700)).await;
    assert_eq!(c.leader(), Some(leader));
    for other in (1..=3).filter(|number| *number != leader) {
        let refused = c.at(other).propose(by(), attach(volume, other)).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("attached to node n{leader}")), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_seen_right_after_a_restart() {
    let mut c = Cluster::of(3).await;
    // A restarted leader searches for where its followers' logs end; meanwhile they already say that
    // it leads. The longer the log, the longer that takes.
    for entry in 0..600 {
        c.label(1, "entry", &entry.to_string()).await;
    }
    for round in 0..8 {
        let leader = c.leader().expect("all nodes are up");
        // The committed position is written with the next entry, or a little later: this is the first.
        tokio::time::sleep(Duration::from_millis(700)).await;
        for part in ["before", "after"] {
            c.label(leader, "round", &format!("{part} {round}")).await;
        }
        c.kill(leader).await;
        c.start(leader).await;
        let state = c.at(leader).read_linearizable().await.unwrap();
        let label = state.node(NodeId(1)).and_then(|node| node.label("round"));
        assert_eq!(label, Some(format!("after {round}").as_str()));
        c.until("somebody leads", |c| c.leader().is_some()).await;
    }
}

//! Many at once, and large states; prints what it measures.

use std::time::Instant;

use mooring_config::{
    Actor, ChangeReason, ClusterState, Command, Machine, Proposal, ProposalId, SliceChange,
    UnixMillis, VolumeRequest, placement,
};
use mooring_terms::{Incarnation, NodeId};

use crate::{Cluster, by, label_of};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proposals_share_entries() {
    let c = Cluster::of(3).await;
    let leader = c.leader().unwrap();
    for number in 1..=3 {
        let before = c.at(leader).status().applied;
        let started = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..64_u64 {
            let control = c.at(number).clone();
            tasks.spawn(async move {
                let labels = vec![(format!("k{task}"), Some(number.to_string()))];
                let command = Command::LabelNode { node: NodeId(1), labels };
                control.propose(by(), command).await.unwrap();
            });
        }
        tasks.join_all().await;
        let entries = c.at(leader).status().applied - before;
        println!("64 proposals at node {number}: {entries} entries, {:?}", started.elapsed());
        assert!(entries <= 32, "{entries} entries for 64 proposals");
    }
    assert_eq!(label_of(c.at(1), "k63").as_deref(), Some("3"));
}

/// Processor time of this process so far, in clock ticks (100 a second).
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Meaningful only in a process of its own, as nextest gives it; hence the wide limit.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_costs_next_to_nothing_and_writes_nothing() {
    let c = Cluster::of(3).await;
    // Roles are noted, and the committed position is written, a little after the voters changed.
    tokio::time::sleep(std::time::Duration::from_millis(3_500)).await;
    let size = || (1..=3).map(|n| std::fs::metadata(c.store(n)).unwrap().modified().unwrap());
    let written: Vec<_> = size().collect();
    let before = ticks();
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let used = ticks() - before;
    println!("three idle nodes: {} % of a core in all", used / 4);
    assert!(used <= 400, "{used} ticks in 4 s");
    assert_eq!(size().collect::<Vec<_>>(), written, "an idle cluster writes nothing");
}

/// A machine with three nodes and `count` volumes of three replicas.
fn machine_with(count: u64) -> Machine {
    let mut machine = Machine::default();
    let mut number = 0;
    let mut apply = |machine: &mut Machine, command: Command| {
        number += 1;
        let id = ProposalId { node: NodeId(1), boot: mooring_config::Boot(1), number };
        let by = Actor::system(NodeId(1));
        let proposal = Proposal { id, at: UnixMillis(number), by, command };
        machine.apply(&proposal).unwrap();
    };
    let genesis = mooring_config::Genesis {
        cluster: mooring_config::ClusterId([1; 16]),
        name: "test".to_owned(),
        ca_certificate: vec![],
        ca_key: mooring_config::WrappedKey::default(),
        gossip_key: [0; 32],
        version: mooring_config::NEWEST_VERSION,
        first: crate::new_node(1),
    };
    apply(&mut machine, Command::Create(Box::new(genesis)));
    let (hash, expires) = (crate::TOKEN, UnixMillis(u64::MAX));
    apply(&mut machine, Command::CreateJoinToken { hash, expires, uses: 9 });
    for number in 1..=3 {
        if number > 1 {
            let node = crate::new_node(number);
            let admission = mooring_config::Admission { token: crate::TOKEN, node };
            apply(&mut machine, Command::AdmitNode(Box::new(admission)));
        }
        let pool = Command::AddPool {
            node: NodeId(number),
            path: "/pool".to_owned(),
            size: 1 << 40,
            class: mooring_config::Class::High,
            measured: true,
            incarnation: Incarnation(number),
        };
        apply(&mut machine, pool);
    }
    let hints = placement::Hints::default();
    let request = VolumeRequest::default();
    let template = placement::plan_create(machine.state(), &hints, "template", &request).unwrap();
    for volume in 0..count {
        let mut create = template.clone();
        if let Command::CreateVolume { name, .. } = &mut create {
            *name = format!("volume-{volume}");
        }
        apply(&mut machine, create);
    }
    machine
}

fn failover(state: &ClusterState) -> Vec<SliceChange> {
    let taken = |config: &mooring_config::SliceConfig| {
        let mut in_sync = config.in_sync.clone();
        in_sync.retain(|member| member.node != config.primary);
        (in_sync[0].node, in_sync)
    };
    let change = |(slice, config): (_, &std::sync::Arc<mooring_config::SliceConfig>)| {
        let (primary, in_sync) = taken(config);
        SliceChange {
            slice,
            expected: config.epoch,
            by: primary,
            primary,
            in_sync,
            reason: ChangeReason::PrimaryLost,
        }
    };
    state.slices().map(change).collect()
}

#[test]
fn a_large_state_is_small_to_copy_and_quick_to_change() {
    for count in [2_000, 20_000] {
        let started = Instant::now();
        let mut machine = machine_with(count);
        println!("{count} volumes: created in {:?}", started.elapsed());
        let started = Instant::now();
        let encoded = postcard::to_stdvec(&machine).unwrap();
        let took = started.elapsed();
        println!("  snapshot: {} KiB, encoded in {took:?}", encoded.len() / 1_024);
        assert!(encoded.len() < count as usize * 400, "{} bytes", encoded.len());
        let started = Instant::now();
        let decoded: Machine = postcard::from_bytes(&encoded).unwrap();
        println!("  decoded in {:?}", started.elapsed());
        assert!(decoded == machine);

        let before = machine.state().clone();
        let changes = failover(&before);
        let started = Instant::now();
        for (number, some) in changes.chunks(mooring_config::MAX_BATCH).enumerate() {
            let id = ProposalId {
                node: NodeId(2),
                boot: mooring_config::Boot(1),
                number: number as u64,
            };
            let by = Actor::system(NodeId(2));
            let command = Command::change_slices(some.to_vec());
            let proposal = Proposal { id, at: UnixMillis(0), by, command };
            let entry = postcard::to_stdvec(&proposal).unwrap().len();
            machine.apply(&proposal).unwrap();
            println!("  failover of {} slices: entry of {} KiB", some.len(), entry / 1_024);
        }
        println!("  applied in {:?}", started.elapsed());
        let started = Instant::now();
        let clones = 1_000;
        for _ in 0..clones {
            std::hint::black_box(machine.state().clone());
        }
        println!("  a copy of the state takes {:?}", started.elapsed() / clones);
        let started = Instant::now();
        let changed = mooring_config::changes::between(&before, machine.state());
        println!("  {} changes found in {:?}", changed.len(), started.elapsed());
        assert_eq!(changed.len() as u64, count);
        machine.state().check_invariants();
    }
}

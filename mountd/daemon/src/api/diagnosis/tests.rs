//! Every situation that `mountctl status` is to explain, as one look at a cluster shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use blockstore::{JoinReport, NodeReport, OtherReport, PoolReport, SliceReport};
use mooring_config::placement::{Hints, plan_create};
use mooring_config::{
    Actor, Admission, AttachMode, Boot, ChangeReason, Class, ClusterId, ClusterState, Command,
    Done, Fingerprint, Genesis, NEWEST_VERSION, NewNode, SliceChange, TokenHash, UnixMillis,
    VolumeRequest, WrappedKey,
};
use mooring_control::Status as RaftStatus;
use mooring_terms::{
    BlockIndex, Epoch, Incarnation, NodeId, PoolId, Sequence, SliceId, SliceIndex, Version,
    VolumeId,
};

use super::*;

const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
const GIB: u64 = 1 << 30;

/// A look at a cluster, from its first node.
struct Scene {
    state: ClusterState,
    raft: RaftStatus,
    reports: BTreeMap<NodeId, NodeReport>,
}

impl Scene {
    /// Nodes with a pool each, all of them well; one volume with as many replicas as there are
    /// nodes, up to three.
    fn new(nodes: u64) -> Self {
        let mut scene = Self {
            state: ClusterState::default(),
            raft: RaftStatus {
                node: NodeId(1),
                leader: Some(NodeId(1)),
                term: 1,
                voters: (1..=if nodes >= 3 { 3 } else { 1 }).map(NodeId).collect(),
                changing: false,
                learners: BTreeSet::new(),
                applied: 9,
                silence: BTreeMap::new(),
                has_quorum: Some(true),
                stopped: None,
                warnings: Vec::new(),
            },
            reports: BTreeMap::new(),
        };
        scene.must(&Command::Create(Box::new(Genesis {
            cluster: ClusterId([1; 16]),
            name: "test".to_owned(),
            ca_certificate: Vec::new(),
            ca_key: WrappedKey(Vec::new()),
            gossip_key: [1; 32],
            version: NEWEST_VERSION,
            first: new_node(1),
        })));
        let token = TokenHash([7; 32]);
        scene.must(&Command::CreateJoinToken { hash: token, expires: UnixMillis(9_000), uses: 9 });
        for id in 2..=nodes {
            scene.must(&Command::AdmitNode(Box::new(Admission { token, node: new_node(id) })));
        }
        for id in 1..=nodes {
            scene.must(&Command::AddPool {
                node: NodeId(id),
                path: "/pool".to_owned(),
                size: 100 * GIB,
                class: Class::Medium,
                measured: false,
                incarnation: Incarnation(id),
            });
        }
        scene.create("db", None);
        scene.everybody_answers();
        scene
    }

    fn must(&mut self, command: &Command) -> Done {
        let by = Actor { node: Some(NodeId(1)), name: "test".to_owned() };
        self.state.apply(UnixMillis(1_000), &by, command).expect("a test's command is accepted")
    }

    fn create(&mut self, name: &str, replicas: Option<u32>) -> VolumeId {
        let request = VolumeRequest { replicas, size: Some(GIB), ..VolumeRequest::default() };
        let command = plan_create(&self.state, &Hints::default(), name, &request);
        match self.must(&command.expect("there is room")) {
            Done::Volume { volume, .. } => volume,
            other => panic!("{other:?}"),
        }
    }

    /// Every node answers, every primary serves.
    fn everybody_answers(&mut self) {
        self.reports.clear();
        for id in self.state.nodes().keys() {
            let mut report = NodeReport { version: "1".to_owned(), ..NodeReport::default() };
            for pool in self.state.pools().values().filter(|pool| pool.node == *id) {
                let well =
                    PoolReport { size: pool.size, free: pool.size / 2, ..Default::default() };
                report.pools.insert(pool.id, well);
            }
            for (slice, config) in self.state.slices() {
                if config.member(*id).is_some() {
                    report.slices.insert(slice, replica(config.primary == *id, config.epoch));
                }
            }
            self.reports.insert(*id, report);
        }
    }

    fn silence(&mut self, nodes: &[u64]) {
        for id in nodes {
            self.reports.remove(&NodeId(*id));
        }
    }

    fn pool(&mut self, node: u64) -> &mut PoolReport {
        let report = self.reports.get_mut(&NodeId(node)).expect("it answers");
        report.pools.values_mut().next().expect("it has a pool")
    }

    fn slice(&mut self, node: u64) -> &mut SliceReport {
        let report = self.reports.get_mut(&NodeId(node)).expect("it answers");
        report.slices.values_mut().next().expect("it has a replica")
    }

    fn primary(&self) -> u64 {
        self.state.slices().next().expect("there is a volume").1.primary.0
    }

    /// Two nodes that are not the primary's.
    fn secondaries(&self) -> Vec<u64> {
        let primary = self.primary();
        self.state.nodes().keys().map(|id| id.0).filter(|id| *id != primary).collect()
    }

    /// Takes nodes out of the in-sync set, which makes them joining.
    fn leave(&mut self, nodes: &[u64]) {
        let (slice, config) = self.state.slices().next().expect("there is a volume");
        let stays = |id: &NodeId| !nodes.contains(&id.0);
        let in_sync: Vec<_> =
            config.in_sync.iter().filter(|member| stays(&member.node)).copied().collect();
        let change = SliceChange {
            slice,
            expected: config.epoch,
            by: config.primary,
            primary: config.primary,
            in_sync,
            reason: ChangeReason::SecondaryLost,
        };
        match self.must(&Command::change_slices(vec![change])) {
            Done::Slices(answers) => assert!(answers.iter().all(Result::is_ok), "{answers:?}"),
            other => panic!("{other:?}"),
        }
        self.everybody_answers();
    }

    fn look(&self) -> Diagnosis {
        Diagnosis::of(&Reading {
            me: NodeId(1),
            state: Arc::new(self.state.clone()),
            raft: self.raft.clone(),
            reports: self.reports.clone(),
            used: BTreeMap::new(),
        })
    }

    /// The first line, then each reason and remedy.
    fn story(&self) -> String {
        let look = self.look();
        let mut text = look.summary();
        for Reason { what, remedy, .. } in &look.reasons {
            text.push_str(&format!("\n{what}\n  -> {remedy}"));
        }
        text
    }

    fn tells(&self, parts: &[&str]) {
        let story = self.story();
        for part in parts {
            assert!(story.contains(part), "{part:?} is not in:\n{story}");
        }
    }
}

fn new_node(id: u64) -> NewNode {
    NewNode {
        name: NAMES[usize::try_from(id).unwrap() - 1].to_owned(),
        addresses: Vec::new(),
        fingerprint: Fingerprint([u8::try_from(id).unwrap(); 32]),
        labels: BTreeMap::new(),
        version: NEWEST_VERSION,
    }
}

fn replica(serves: bool, epoch: Epoch) -> SliceReport {
    SliceReport {
        serves,
        role: String::new(),
        epoch,
        too_few: false,
        last: Version { epoch, sequence: Sequence(10) },
        durable: Sequence(10),
        lease_left_ms: None,
        others: Vec::new(),
    }
}

#[test]
fn a_cluster_that_is_well_says_so_in_one_line() {
    for nodes in [1, 3, 4] {
        let story = Scene::new(nodes).story();
        assert_eq!(story, format!("ok: {nodes} of {nodes} nodes up, 1 of 1 volumes ok"));
    }
}

#[test]
fn two_nodes_cannot_fail_over_and_it_says_what_is_missing() {
    let scene = Scene::new(2);
    scene.tells(&["degraded: 2 of 2 nodes up", "with two nodes alpha alone votes", "third node"]);
    assert_eq!(scene.look().reasons.len(), 1);
}

#[test]
fn one_voter_by_order_is_named_with_the_command_that_changes_it() {
    let mut scene = Scene::new(3);
    scene.raft.voters = BTreeSet::from([NodeId(1)]);
    scene.tells(&["alpha alone votes yet"]);
    scene.must(&Command::SetVoters(VoterCount::One));
    scene.tells(&["as it was told to", "mountctl cluster voters 3"]);
}

#[test]
fn a_node_that_is_gone_is_named_with_what_it_had_attached() {
    let mut scene = Scene::new(3);
    scene.must(&Command::Attach {
        volume: VolumeId(1),
        node: NodeId(3),
        boot: Boot(0),
        mode: AttachMode::ReadWrite,
        holder_gone: false,
        force: false,
    });
    scene.silence(&[3]);
    scene.tells(&[
        "node gamma does not answer; it is one of 3 voters, and no other may be lost meanwhile",
        "it has db attached",
        "mountctl node rm gamma --force",
        "takes it over",
    ]);
}

#[test]
fn a_lost_quorum_is_the_worst_of_all() {
    let mut scene = Scene::new(3);
    scene.raft.leader = None;
    scene.silence(&[2, 3]);
    scene.tells(&[
        "down in part (no quorum): 1 of 3 nodes up",
        "2 of 3 voters don't answer (beta, gamma)",
        "I/O goes on",
        "a majority",
    ]);
    assert!(!scene.look().cluster.expect("there is one").quorum);
}

#[test]
fn an_election_passes() {
    let mut scene = Scene::new(3);
    scene.raft.leader = None;
    scene.tells(&["degraded: ", "no leader at the moment", "wait a second"]);
}

#[test]
fn a_replica_that_is_brought_level_shows_how_far_it_is() {
    let mut scene = Scene::new(3);
    let (primary, away) = (scene.primary(), scene.secondaries()[0]);
    scene.leave(&[away]);
    let name = NAMES[usize::try_from(away).unwrap() - 1];
    scene.tells(&["volume db has 2 of 3 replicas in sync", "waits for its turn"]);
    let join = JoinReport { copied_bytes: 3 << 20, at: Some(BlockIndex(GIB / 2 / 4096)) };
    let other = OtherReport {
        node: NodeId(away),
        received: Sequence(0),
        durable: Sequence(0),
        lag: 10,
        join: Some(join),
    };
    scene.slice(primary).others = vec![other];
    scene.tells(&[
        &format!("{name} is being brought level, 3 MiB copied, at 512 MiB of the volume"),
        "wait: mountctl volume inspect db --follow",
    ]);
}

#[test]
fn a_replica_that_is_away_is_waited_for_and_then_replaced() {
    let mut scene = Scene::new(3);
    let away = scene.secondaries()[1];
    scene.leave(&[away]);
    scene.silence(&[away]);
    let name = NAMES[usize::try_from(away).unwrap() - 1];
    scene.tells(&[
        "0 of 1 volumes ok",
        &format!("{name} is away"),
        &format!("bring {name} back; after 10m away the replica is placed elsewhere by itself"),
    ]);
}

#[test]
fn a_replica_without_a_place_asks_for_a_pool() {
    let mut scene = Scene::new(3);
    let away = scene.secondaries()[1];
    scene.leave(&[away]);
    let pool = PoolId(away);
    scene.must(&Command::RemovePool { pool, force: true });
    scene.everybody_answers();
    scene.tells(&["one has no place", "mountctl pool add", "mountctl volume set db replicas=2"]);
}

#[test]
fn too_few_replicas_stop_io_and_it_says_who_is_missing() {
    let mut scene = Scene::new(3);
    let (primary, lost) = (scene.primary(), scene.secondaries());
    scene.leave(&lost[..1]);
    scene.slice(primary).too_few = true;
    scene.silence(&lost);
    scene.tells(&[
        "down in part",
        "1 of its replicas can be counted on, and it demands 2: I/O waits",
        "min_in_sync=1",
    ]);
}

#[test]
fn a_lost_primary_is_taken_over_from_by_itself() {
    let mut scene = Scene::new(4);
    // From a node that is still there.
    let primary = scene.primary();
    scene.silence(&[primary]);
    scene.tells(&["its primary's node", "does not answer", "takes over"]);
}

#[test]
fn only_an_older_replica_is_left() {
    let mut scene = Scene::new(3);
    let older = scene.secondaries()[0];
    // The first node looks, so it must be the older one, or gone as a matter of fact.
    scene.must(&Command::SetVolume {
        volume: VolumeId(1),
        settings: vec![mooring_config::Setting::MinInSync(Some(1))],
    });
    let others: Vec<u64> = scene.secondaries();
    scene.leave(&others);
    let primary = scene.primary();
    scene.silence(&[primary]);
    let name = NAMES[usize::try_from(older).unwrap() - 1];
    scene.tells(&["has an older one", &format!("accept-loss db --from {name}")]);
}

#[test]
fn a_primary_that_begins_is_waited_for() {
    let mut scene = Scene::new(3);
    let primary = scene.primary();
    scene.slice(primary).serves = false;
    scene.tells(&["does not serve yet", "wait some seconds"]);
}

#[test]
fn pools_that_are_failed_damaged_full_or_nearly_so() {
    let mut scene = Scene::new(3);
    scene.pool(2).failed = true;
    scene.tells(&["pool 2 (/pool on beta) has failed", "mountctl pool rm 2 --force"]);
    scene.everybody_answers();
    scene.pool(2).damaged = true;
    scene.tells(&["lost records that were durable"]);
    scene.everybody_answers();
    scene.pool(2).free = 0;
    scene.tells(&["pool 2 (/pool on beta) is full", "fstrim"]);
    assert_eq!(scene.look().cluster.expect("there is one").counts.pools_ok, 2);
    scene.pool(2).free = GIB;
    scene.tells(&["is nearly full: 1 GiB of 100 GiB are left"]);
    scene.must(&Command::PoolFailed {
        pool: PoolId(3),
        incarnation: Incarnation(3),
        reason: "input/output error".to_owned(),
    });
    scene.tells(&["pool 3 (/pool on gamma) has failed: input/output error", "2 reasons"]);
}

#[test]
fn many_names_are_shortened_and_slices_say_it_once() {
    let many: Vec<String> = (1..=5).map(|n| format!("n{n}")).collect();
    assert_eq!(list(&many), "n1, n2, n3 and 2 more");
    assert_eq!(list(&many[..2]), "n1, n2");
    let scene = Scene::new(3);
    let row = scene.state.volume(VolumeId(1)).expect("there is one").clone();
    let mut row = (*row).clone();
    row.slices = vec![Arc::clone(&row.slices[0]); 3];
    let mut reading = Reading {
        me: NodeId(1),
        state: Arc::new(scene.state.clone()),
        raft: scene.raft.clone(),
        reports: scene.reports.clone(),
        used: BTreeMap::new(),
    };
    reading.reports.clear();
    assert_eq!(volume(&reading, &row).1.len(), 1);
    let slice = SliceId { volume: VolumeId(1), index: SliceIndex(0) };
    assert!(reading.state.slice(slice).is_some());
}

#[test]
fn without_a_cluster_it_says_how_to_get_one() {
    let look = Diagnosis::without_cluster();
    assert_eq!((look.health(), look.summary().as_str()), (Health::Down, "no cluster yet"));
    assert!(look.reasons[0].remedy.contains("mountctl cluster create"));
}

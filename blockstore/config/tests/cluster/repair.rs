//! What is done about lost, leaving and surplus replicas, run to its end.

use std::collections::BTreeMap;

use mooring_config::placement::{Hints, Repair, RepairLimits, repair};
use mooring_config::{
    ChangeReason, Command, Done, Setting, SliceChange, UnixMillis, VolumeRequest,
};
use mooring_terms::{NodeId, SliceId, VolumeId};

use crate::{Cluster, first_slice};

const REPLACE_AFTER: u64 = 600_000;

struct World {
    c: Cluster,
    lost_since: BTreeMap<NodeId, UnixMillis>,
}

impl World {
    fn of(nodes: u64) -> Self {
        Self { c: Cluster::of(nodes), lost_since: BTreeMap::new() }
    }

    fn look(&self) -> Vec<Repair> {
        self.look_with(RepairLimits::default())
    }

    fn look_with(&self, limits: RepairLimits) -> Vec<Repair> {
        let now = UnixMillis(self.c.now);
        repair(&self.c.state, &Hints::default(), now, &self.lost_since, limits)
    }

    fn change(&mut self, slice: SliceId, change: impl Fn(&mut SliceChange)) {
        let config = self.c.state.slice(slice).unwrap();
        let mut wanted = SliceChange {
            slice,
            expected: config.epoch,
            by: config.primary,
            primary: config.primary,
            in_sync: config.in_sync.clone(),
            reason: ChangeReason::Joined,
        };
        change(&mut wanted);
        match self.c.must(Command::change_slices(vec![wanted])) {
            Done::Slices(answers) => assert!(answers[0].is_ok(), "{answers:?}"),
            other => panic!("{other:?}"),
        }
    }

    /// Does what is proposed, plays the primaries, and goes on until nothing is left to do; how
    /// many rounds that took.
    fn settle(&mut self) -> usize {
        for round in 0..1_000 {
            let found = self.look();
            let mut quiet = true;
            for command in Repair::commands(&found) {
                quiet = false;
                let Done::Slices(answers) = self.c.must(command) else { panic!() };
                assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            }
            for one in &found {
                if let Repair::HandOver { slice, from, to } = one {
                    quiet = false;
                    assert_eq!(self.c.state.slice(*slice).unwrap().primary, *from);
                    self.change(*slice, |change| {
                        change.reason = ChangeReason::HandOver;
                        change.primary = *to;
                    });
                }
            }
            let slices: Vec<SliceId> = self.c.state.slices().map(|(id, _)| id).collect();
            for slice in slices {
                quiet &= !self.join_one(slice);
            }
            if quiet {
                return round;
            }
        }
        panic!("it never comes to an end");
    }

    /// The primary brings one joining replica level, if its node is there.
    fn join_one(&mut self, slice: SliceId) -> bool {
        let config = self.c.state.slice(slice).unwrap();
        let joiner = config
            .joining
            .iter()
            .find(|m| {
                !self.lost_since.contains_key(&m.node) && self.c.state.opened(m.pool).is_some()
            })
            .copied();
        let Some(joiner) = joiner else { return false };
        let joiner = self.c.current(&joiner);
        self.change(slice, |change| change.in_sync.push(joiner));
        true
    }

    /// A secondary's node goes away, and the primary has noticed; the node.
    fn lose_secondary(&mut self, v: VolumeId) -> NodeId {
        let config = self.c.slice(v);
        let lost = config.in_sync.iter().find(|m| m.node != config.primary).unwrap().node;
        self.change(first_slice(v), |change| {
            change.reason = ChangeReason::SecondaryLost;
            change.in_sync.retain(|member| member.node != lost);
        });
        self.lost_since.insert(lost, UnixMillis(self.c.now));
        lost
    }

    fn nodes(&self, v: VolumeId) -> Vec<NodeId> {
        let config = self.c.slice(v);
        assert!(config.joining.is_empty(), "{config:?}");
        config.in_sync.iter().map(|member| member.node).collect()
    }
}

#[test]
fn a_healthy_cluster_has_nothing_to_do() {
    let mut w = World::of(5);
    for number in 0..10 {
        w.c.volume(&format!("v{number}"), 3);
    }
    assert_eq!(w.look(), []);
}

#[test]
fn a_lost_replica_is_waited_for_and_then_placed_elsewhere() {
    let mut w = World::of(4);
    let v = w.c.volume("data", 3);
    let lost = w.lose_secondary(v);
    w.c.now += REPLACE_AFTER - 1_000;
    assert_eq!(w.look(), [], "it may come back");
    w.c.now += 1_000;
    let found = w.look();
    assert!(matches!(found.as_slice(), [Repair::Assign(_)]), "{found:?}");
    w.settle();
    let nodes = w.nodes(v);
    assert!(nodes.len() == 3 && !nodes.contains(&lost));
}

#[test]
fn one_that_returns_in_time_joins_and_nothing_is_placed() {
    let mut w = World::of(4);
    let v = w.c.volume("data", 3);
    let lost = w.lose_secondary(v);
    w.c.now += REPLACE_AFTER / 2;
    w.lost_since.clear();
    assert_eq!(w.look(), []);
    w.settle();
    assert!(w.nodes(v).contains(&lost));
}

#[test]
fn without_a_place_it_says_what_is_missing() {
    let mut w = World::of(3);
    let v = w.c.volume("data", 3);
    let lost = w.lose_secondary(v);
    w.c.now += REPLACE_AFTER;
    let found = w.look();
    let [Repair::Stuck { slice, reason }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(*slice, first_slice(v));
    let name = w.c.state.node_name(lost);
    assert!(reason.to_string().contains(&format!("({name} does not answer)")), "{reason}");
}

#[test]
fn a_failed_pool_is_replaced_at_once_also_by_another_of_its_node() {
    let mut w = World::of(3);
    let v = w.c.volume("data", 3);
    let config = w.c.slice(v);
    let member = *config.in_sync.iter().find(|m| m.node != config.primary).unwrap();
    let spare = w.c.pool(member.node.0, 100);
    w.c.must(Command::PoolFailed {
        pool: member.pool,
        incarnation: member.incarnation,
        reason: "EIO".to_owned(),
    });
    w.settle();
    let config = w.c.slice(v);
    assert_eq!(config.in_sync.len(), 3);
    assert_eq!(config.member(member.node).unwrap().pool, spare);
}

#[test]
fn a_drained_node_is_emptied_also_of_primaries_and_redundancy_is_kept() {
    let mut w = World::of(5);
    for number in 0..30 {
        let replicas = 1 + number % 3;
        w.c.volume(&format!("v{number}"), replicas);
    }
    w.c.must(Command::DrainNode { node: NodeId(1), drain: true });
    let rounds = w.settle();
    assert!(rounds < 40, "{rounds}");
    for (_, config) in w.c.state.slices() {
        assert!(config.member(NodeId(1)).is_none());
    }
    for (_, volume) in w.c.state.volumes().iter() {
        assert_eq!(volume.slices[0].in_sync.len(), volume.spec.replicas as usize);
    }
    let remove =
        Command::RemoveNode { node: NodeId(1), gone: false, force: false, gossip_key: [1; 32] };
    w.c.must(remove);
}

#[test]
fn a_drained_pool_gives_its_replicas_to_other_nodes() {
    let mut w = World::of(4);
    let v = w.c.volume("data", 3);
    let config = w.c.slice(v);
    let primary = *config.member(config.primary).unwrap();
    w.c.must(Command::DrainPool { pool: primary.pool, drain: true });
    w.settle();
    assert!(!w.nodes(v).contains(&primary.node));
    w.c.must(Command::RemovePool { pool: primary.pool, force: false });
}

#[test]
fn the_number_of_replicas_goes_up_and_down() {
    let mut w = World::of(5);
    let request =
        VolumeRequest { replicas: Some(2), nodes: vec![NodeId(4)], ..VolumeRequest::default() };
    let v = w.c.volume_of("data", &request);
    for count in [4, 3, 1, 5, 2] {
        let settings = vec![Setting::Replicas(count)];
        w.c.must(Command::SetVolume { volume: v, settings });
        w.settle();
        let nodes = w.nodes(v);
        assert_eq!(nodes.len(), count as usize);
        assert!(nodes.contains(&NodeId(4)), "the one named stays: {nodes:?}");
    }
}

#[test]
fn resyncs_are_bounded_a_node_and_a_round() {
    let mut w = World::of(3);
    for number in 0..40 {
        w.c.volume(&format!("v{number}"), 2);
    }
    for number in 0..40 {
        let v = w.c.state.volume_by_name(&format!("v{number}")).unwrap().id;
        w.c.must(Command::SetVolume { volume: v, settings: vec![Setting::Replicas(3)] });
    }
    let limits = RepairLimits { per_round: 10, joining_per_node: 100 };
    assert_eq!(w.look_with(limits).len(), 10);
    let limits = RepairLimits { per_round: 1_000, joining_per_node: 4 };
    let found = w.look_with(limits);
    assert_eq!(found.len(), 12, "four on each of three nodes: {found:?}");
    w.settle();
    assert!(w.c.state.slices().all(|(_, config)| config.in_sync.len() == 3));
}

#[test]
fn nothing_is_taken_away_while_too_few_are_in_sync() {
    let mut w = World::of(4);
    let v = w.c.volume("data", 3);
    let lost = w.lose_secondary(v);
    w.c.now += REPLACE_AFTER;
    for command in Repair::commands(&w.look()) {
        w.c.must(command);
    }
    assert_eq!(w.look(), [], "the new one is joining: wait");
    assert!(w.c.slice(v).member(lost).is_some(), "and the old one is not forgotten yet");
    w.settle();
    assert!(w.c.slice(v).member(lost).is_none());
}

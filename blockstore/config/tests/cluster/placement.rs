//! Where new replicas go.

use std::collections::BTreeMap;

use mooring_config::placement::{Hints, place};
use mooring_config::{Class, ClassWish, ClusterState, Command, Refused, VolumeRequest, VolumeSpec};
use mooring_terms::{ErrorKind, NodeId, PoolId, SliceIndex};
use proptest::prelude::*;

use crate::{Cluster, first_slice};

fn nodes_of(state: &ClusterState, pools: &[PoolId]) -> Vec<NodeId> {
    pools.iter().map(|pool| state.pool(*pool).unwrap().node).collect()
}

fn place_one(state: &ClusterState, hints: &Hints, request: &VolumeRequest) -> Vec<NodeId> {
    let spec = request.resolve(state).unwrap();
    let placed = place(state, hints, &spec, (SliceIndex(0), 1), 7).unwrap();
    nodes_of(state, &placed[0])
}

fn replicas(count: u32) -> VolumeRequest {
    VolumeRequest { replicas: Some(count), size: Some(1 << 30), ..VolumeRequest::default() }
}

/// Nodes with these (region, zone), each with a pool.
fn spread_over(places: &[(&str, &str)]) -> Cluster {
    let mut c = Cluster::new();
    for (number, (region, zone)) in (2..).zip(places) {
        c.node(&format!("n{number}"), &[("region", region), ("zone", zone)]);
        c.pool(number, 100);
    }
    c
}

#[test]
fn what_is_missing_is_named() {
    let mut c = Cluster::new();
    let refused = c.plan("data", &replicas(2)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "2 replicas need 2 nodes with usable pools; there is none (n1 has no pool): \
         add a pool or a node, or ask for fewer replicas"
    );
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let pool = c.classed_pool(1, 100, Class::Low);
    c.node("n2", &[]);
    c.classed_pool(2, 100, Class::High);
    let high = Some(ClassWish { class: Class::High, required: true });
    let refused = c.plan("data", &VolumeRequest { class: high, ..replicas(2) }).unwrap_err();
    assert!(
        refused.to_string().contains("of class high; only n2 has one (n1 has pools of another")
    );
    let free = BTreeMap::from([(pool, 5)]);
    let hints = Hints { free, gone: [NodeId(2)].into() };
    let planned = mooring_config::placement::plan_create(&c.state, &hints, "data", &replicas(2));
    let refused = planned.unwrap_err();
    assert!(refused.to_string().contains("(n1 has only full pools; n2 does not answer)"));
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    let request = VolumeRequest { nodes: vec![NodeId(9)], ..replicas(2) };
    let refused = c.plan("data", &request).unwrap_err();
    assert!(refused.to_string().contains("9 is no node of this cluster"), "{refused}");
}

#[test]
fn zones_are_spread_over_and_regions_before_zones() {
    let c = spread_over(&[("r", "a"), ("r", "a"), ("r", "b"), ("r", "b"), ("r", "c")]);
    let zone = |node: NodeId| c.state.node(node).unwrap().label("zone").unwrap().to_owned();
    let mut zones: Vec<_> =
        place_one(&c.state, &Hints::default(), &replicas(3)).into_iter().map(zone).collect();
    zones.sort();
    assert_eq!(zones, ["a", "b", "c"]);
    let c = spread_over(&[("x", "a"), ("x", "b"), ("x", "c"), ("y", "d")]);
    let region = |node: NodeId| c.state.node(node).unwrap().label("region").unwrap().to_owned();
    let nodes = place_one(&c.state, &Hints::default(), &replicas(2));
    let regions: Vec<_> = nodes.into_iter().map(region).collect();
    assert_ne!(regions[0], regions[1]);
}

#[test]
fn named_nodes_hold_replicas_and_an_unusable_one_is_refused() {
    let mut c = Cluster::of(5);
    let request = VolumeRequest { nodes: vec![NodeId(4), NodeId(2)], ..replicas(3) };
    let nodes = place_one(&c.state, &Hints::default(), &request);
    assert!(nodes.contains(&NodeId(4)) && nodes.contains(&NodeId(2)) && nodes.len() == 3);
    c.must(Command::DrainNode { node: NodeId(4), drain: true });
    assert!(matches!(c.plan("data", &request), Err(Refused::NoPlacement(_))));
}

#[test]
fn a_class_is_preferred_or_required() {
    let mut c = Cluster::new();
    c.classed_pool(1, 100, Class::Low);
    for number in 2..=4 {
        c.node(&format!("n{number}"), &[]);
        c.classed_pool(number, 100, if number == 4 { Class::Low } else { Class::High });
    }
    let wish = |required| Some(ClassWish { class: Class::High, required });
    let request = VolumeRequest { class: wish(false), ..replicas(2) };
    let mut nodes = place_one(&c.state, &Hints::default(), &request);
    nodes.sort();
    assert_eq!(nodes, [NodeId(2), NodeId(3)]);
    let request = VolumeRequest { class: wish(false), ..replicas(3) };
    assert_eq!(place_one(&c.state, &Hints::default(), &request).len(), 3);
    let request = VolumeRequest { class: wish(true), ..replicas(3) };
    assert!(matches!(c.plan("data", &request), Err(Refused::NoPlacement(_))));
}

#[test]
fn groups_spread_and_gather() {
    let mut c = Cluster::of(6);
    let apart = VolumeRequest { spread: Some("db".to_owned()), ..replicas(2) };
    let mut used = Vec::new();
    for name in ["a", "b", "c"] {
        let v = c.volume_of(name, &apart);
        used.extend(c.slice(v).in_sync.iter().map(|member| member.node));
    }
    used.sort();
    used.dedup();
    assert_eq!(used.len(), 6, "three volumes of two replicas on six nodes");
    let together = VolumeRequest { gather: Some("app".to_owned()), ..replicas(2) };
    let first = c.volume_of("d", &together);
    let second = c.volume_of("e", &together);
    assert_eq!(c.slice(first).in_sync, c.slice(second).in_sync);
}

#[test]
fn many_volumes_fill_pools_by_their_size_and_share_out_primaries() {
    let mut c = Cluster::new();
    c.pool(1, 400);
    for number in 2..=5 {
        c.node(&format!("n{number}"), &[]);
        c.pool(number, 100);
    }
    let mut held: BTreeMap<NodeId, u32> = BTreeMap::new();
    for number in 0..400 {
        let v = c.volume_of(&format!("v{number}"), &replicas(1));
        *held.entry(c.slice(v).primary).or_default() += 1;
    }
    assert!((195..=205).contains(&held[&NodeId(1)]), "{held:?}");
    assert!((2..=5).all(|n| (48..=52).contains(&held[&NodeId(n)])), "{held:?}");

    let mut c = Cluster::of(3);
    let mut primaries: BTreeMap<NodeId, u32> = BTreeMap::new();
    for number in 0..300 {
        let v = c.volume_of(&format!("v{number}"), &replicas(3));
        *primaries.entry(c.slice(v).primary).or_default() += 1;
    }
    assert!(primaries.values().all(|count| (70..=130).contains(count)), "{primaries:?}");
    let v = c.state.volume_by_name("v0").unwrap().id;
    assert_eq!(c.state.slice(first_slice(v)).unwrap().in_sync.len(), 3);
}

/// A cluster of nodes with a zone (0 for none) and pools (GiB, class) each.
type Shape = Vec<(u8, Vec<(u64, u8)>)>;

fn shape() -> impl Strategy<Value = Shape> {
    let pools = proptest::collection::vec((1_u64..500, 0_u8..3), 0..3);
    proptest::collection::vec((0_u8..4, pools), 1..9)
}

/// Builds it with the nodes' names and pools in this or the opposite order of creation.
fn build(shape: &Shape) -> Cluster {
    let mut c = Cluster::new();
    for (number, (zone, pools)) in (2..).zip(shape) {
        let zone = format!("z{zone}");
        let labels: &[_] = if zone == "z0" { &[] } else { &[("zone", zone.as_str())] };
        c.node(&format!("n{number}"), labels);
        for (gib, class) in pools {
            let class = [Class::Low, Class::Medium, Class::High][usize::from(*class)];
            c.classed_pool(number, *gib, class);
        }
    }
    c
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn replicas_never_share_a_node_and_zones_are_used_as_far_as_there_are_any(
        shape in shape(),
        wanted in 1_u32..6,
        slices in 1_u32..5,
        turn in any::<u64>(),
    ) {
        let c = build(&shape);
        let spec = VolumeSpec {
            slice_blocks: 1 << 18,
            size: u64::from(slices) << 30,
            ..replicas(wanted).resolve(&c.state).unwrap()
        };
        let range = (SliceIndex(0), slices);
        let usable: Vec<_> =
            shape.iter().filter(|(_, pools)| !pools.is_empty()).map(|(zone, _)| *zone).collect();
        match place(&c.state, &Hints::default(), &spec, range, turn) {
            Err(missing) => {
                prop_assert!(usable.len() < wanted as usize);
                prop_assert_eq!(missing.usable.len(), usable.len());
            }
            Ok(placement) => {
                prop_assert!(usable.len() >= wanted as usize);
                prop_assert_eq!(placement.len(), slices as usize);
                let zones: std::collections::BTreeSet<u8> = usable.iter().copied().collect();
                for pools in &placement {
                    let mut nodes = nodes_of(&c.state, pools);
                    let used: std::collections::BTreeSet<_> = nodes
                        .iter()
                        .map(|node| c.state.node(*node).unwrap().label("zone"))
                        .collect();
                    nodes.sort();
                    nodes.dedup();
                    prop_assert_eq!(nodes.len(), wanted as usize, "one replica a node");
                    // Nodes without a zone count as places of their own, so that only clusters in
                    // which every node has one promise the greatest spread.
                    if !zones.contains(&0) {
                        prop_assert_eq!(used.len(), zones.len().min(wanted as usize));
                    }
                }
                let again = place(&c.state, &Hints::default(), &spec, range, turn).unwrap();
                prop_assert_eq!(again, placement);
            }
        }
    }
}

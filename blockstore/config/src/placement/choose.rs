//! The choice of pools for new replicas.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::{NodeId, PoolId, SliceIndex};

use super::{Hints, NoPlacement, Unusable};
use crate::{ClusterState, Member, Node, NodeState, Pool, VolumeSpec};

/// A pool with less than this free takes no new replica: 1 GiB, or a twentieth of a small pool.
const FREE_AT_LEAST: u64 = 1 << 30;

/// What the pools are promised already, and who is in which group: taken once from a state, and
/// kept up to date while several replicas are placed.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Bytes promised to slices, by pool.
    promised: BTreeMap<PoolId, u128>,
    /// How many replicas of spread and gather groups each node has.
    spread: BTreeMap<(String, NodeId), u32>,
    gather: BTreeMap<(String, NodeId), u32>,
}

impl Inventory {
    /// Counts all slices of `state`.
    #[must_use]
    pub fn of(state: &ClusterState) -> Self {
        let mut inventory = Self::default();
        for (_, volume) in state.volumes().iter() {
            for slice in &volume.slices {
                for member in slice.members() {
                    inventory.add(&volume.spec, *member);
                }
            }
        }
        inventory
    }

    /// Counts one more replica.
    fn add(&mut self, spec: &VolumeSpec, member: Member) {
        *self.promised.entry(member.pool).or_default() += u128::from(spec.slice_bytes());
        if let Some(group) = &spec.spread {
            *self.spread.entry((group.clone(), member.node)).or_default() += 1;
        }
        if let Some(group) = &spec.gather {
            *self.gather.entry((group.clone(), member.node)).or_default() += 1;
        }
    }

    fn in_group(
        groups: &BTreeMap<(String, NodeId), u32>,
        group: Option<&String>,
        node: NodeId,
    ) -> u32 {
        group.and_then(|group| groups.get(&(group.clone(), node))).copied().unwrap_or(0)
    }
}

/// How good a pool is for one more replica: smaller is better.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    not_named: bool,
    in_region: usize,
    in_zone: usize,
    in_rack: usize,
    other_class: bool,
    in_spread_group: u32,
    not_in_gather_group: bool,
    /// Parts in a million of the pool that are promised, this replica included.
    promised: u128,
    turn: u64,
}

/// One choice to make.
pub(super) struct Choice<'a> {
    pub(super) state: &'a ClusterState,
    pub(super) hints: &'a Hints,
    pub(super) spec: &'a VolumeSpec,
    /// A number of the volume, to take turns by.
    pub(super) turn: u64,
    pub(super) index: SliceIndex,
}

/// Chooses pools for `count` slices of a volume, from slice `first` on. `turn` is any number of the
/// volume's own (its id, or a hash of its name while it has none).
///
/// # Errors
/// [`NoPlacement`], which names what is missing.
pub fn place(
    state: &ClusterState,
    hints: &Hints,
    spec: &VolumeSpec,
    (first, count): (SliceIndex, u32),
    turn: u64,
) -> Result<Vec<Vec<PoolId>>, NoPlacement> {
    let mut inventory = Inventory::of(state);
    let mut placement = Vec::with_capacity(count as usize);
    for index in first.0..first.0 + count {
        let choice = Choice { state, hints, spec, turn, index: SliceIndex(index) };
        placement.push(choice.all(&mut inventory)?);
    }
    Ok(placement)
}

impl Choice<'_> {
    /// Pools for all replicas of the slice.
    fn all(&self, inventory: &mut Inventory) -> Result<Vec<PoolId>, NoPlacement> {
        let mut chosen: Vec<NodeId> = Vec::new();
        let mut pools = Vec::new();
        for _ in 0..self.spec.replicas {
            let Some(pool) = self.next(inventory, &chosen, &BTreeSet::new()) else {
                return Err(self.missing(self.spec.replicas));
            };
            inventory.add(self.spec, member_of(pool));
            chosen.push(pool.node);
            pools.push(pool.id);
        }
        // A node that was named and could not be used.
        if self.spec.nodes.iter().any(|node| !chosen.contains(node)) {
            return Err(self.missing(self.spec.replicas));
        }
        Ok(pools)
    }

    /// The pool for one more replica, beside those on `placed` nodes and not on `excluded` ones.
    pub(super) fn next(
        &self,
        inventory: &Inventory,
        placed: &[NodeId],
        excluded: &BTreeSet<NodeId>,
    ) -> Option<&Pool> {
        self.state
            .pools()
            .values()
            .filter(|pool| !placed.contains(&pool.node) && !excluded.contains(&pool.node))
            .filter_map(|pool| {
                let node = self.state.node(pool.node)?;
                self.unusable(node, pool).is_none().then_some((node, pool))
            })
            .min_by_key(|(node, pool)| self.rank(inventory, placed, node, pool))
            .map(|(_, pool)| &**pool)
    }

    /// As [`Self::next`], and counts the replica.
    pub(super) fn take(
        &self,
        inventory: &mut Inventory,
        placed: &[NodeId],
        excluded: &BTreeSet<NodeId>,
    ) -> Option<Member> {
        let member = self.next(inventory, placed, excluded).map(member_of)?;
        inventory.add(self.spec, member);
        Some(member)
    }

    fn rank(&self, inventory: &Inventory, placed: &[NodeId], node: &Node, pool: &Pool) -> Rank {
        let same = |keys: &[&str]| {
            let differs = |other: &Node| keys.iter().any(|key| other.label(key) != node.label(key));
            if node.label(keys[keys.len() - 1]).is_none() {
                return 0;
            }
            placed
                .iter()
                .filter_map(|id| self.state.node(*id))
                .filter(|other| !differs(other))
                .count()
        };
        let promised = inventory.promised.get(&pool.id).copied().unwrap_or(0)
            + u128::from(self.spec.slice_bytes());
        let spread = self.spec.spread.as_ref();
        let gather = self.spec.gather.as_ref();
        Rank {
            not_named: !self.spec.nodes.contains(&node.id),
            in_region: same(&["region"]),
            in_zone: same(&["region", "zone"]),
            in_rack: same(&["region", "zone", "rack"]),
            other_class: self.spec.class.is_some_and(|wish| wish.class != pool.class),
            in_spread_group: Inventory::in_group(&inventory.spread, spread, node.id),
            not_in_gather_group: gather.is_some()
                && Inventory::in_group(&inventory.gather, gather, node.id) == 0,
            promised: promised * 1_000_000 / u128::from(pool.size.max(1)),
            turn: mix(self.turn, self.index, pool.id),
        }
    }

    /// What is wrong with a pool, if anything.
    fn unusable(&self, node: &Node, pool: &Pool) -> Option<Unusable> {
        let least = FREE_AT_LEAST.min(pool.size / 20);
        if self.hints.gone.contains(&node.id) {
            Some(Unusable::Gone)
        } else if node.state != NodeState::Active {
            Some(Unusable::Draining)
        } else if !pool.takes_replicas() {
            Some(Unusable::PoolsUnusable)
        } else if self.spec.class.is_some_and(|wish| wish.required && wish.class != pool.class) {
            Some(Unusable::OtherClass)
        } else if self.hints.free.get(&pool.id).is_some_and(|free| *free < least) {
            Some(Unusable::Full)
        } else {
            None
        }
    }

    /// Names what is missing.
    pub(super) fn missing(&self, wanted: u32) -> NoPlacement {
        let mut usable = Vec::new();
        let mut unusable = Vec::new();
        for node in self.state.nodes().values() {
            let pools = self.state.pools().values().filter(|pool| pool.node == node.id);
            match pools.map(|pool| self.unusable(node, pool)).reduce(nearest) {
                None => unusable.push((node.name.clone(), Unusable::NoPool)),
                Some(None) => usable.push(node.name.clone()),
                Some(Some(why)) => unusable.push((node.name.clone(), why)),
            }
        }
        for named in &self.spec.nodes {
            if self.state.node(*named).is_none() {
                unusable.push((named.to_string(), Unusable::Unknown));
            }
        }
        let class = self.spec.class.filter(|wish| wish.required).map(|wish| wish.class);
        NoPlacement { wanted, usable, unusable, class }
    }
}

/// Of two pools' faults the one that says most about their node: none, else the later one.
fn nearest(a: Option<Unusable>, b: Option<Unusable>) -> Option<Unusable> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        _ => None,
    }
}

fn member_of(pool: &Pool) -> Member {
    Member { node: pool.node, pool: pool.id, incarnation: pool.incarnation }
}

/// A number that differs well between pools, slices and volumes (SplitMix64's finalizer).
fn mix(volume: u64, slice: SliceIndex, pool: PoolId) -> u64 {
    let mut x = volume
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(u64::from(slice.0).wrapping_mul(0xd6e8_feb8_6659_fd93))
        .wrapping_add(pool.0.wrapping_mul(0xca5a_8263_95f2_4a1b));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

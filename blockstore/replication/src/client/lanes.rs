//! The slices of a volume, and which of them have something to do: a volume has thousands, and a request
//! on one of them must not look at all.
//!
//! Invariant: whatever lane has a part is busy.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::SliceIndex;

use super::lane::Lane;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    all: BTreeMap<SliceIndex, Lane>,
    busy: BTreeSet<SliceIndex>,
}

impl Lanes {
    /// Adds a slice.
    pub(super) fn insert(&mut self, index: SliceIndex, lane: Lane) {
        self.all.insert(index, lane);
        self.busy.insert(index);
    }

    /// How many slices there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// One slice.
    pub(super) fn get(&self, index: SliceIndex) -> Option<&Lane> {
        self.all.get(&index)
    }

    /// One slice, to be given something to do perhaps.
    pub(super) fn get_mut(&mut self, index: SliceIndex) -> Option<&mut Lane> {
        let lane = self.all.get_mut(&index)?;
        self.busy.insert(index);
        Some(lane)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SliceIndex, &Lane)> {
        self.all.iter().map(|(&index, lane)| (index, lane))
    }

    /// Those that may have something to do.
    pub(super) fn busy(&self) -> impl Iterator<Item = (SliceIndex, &Lane)> {
        self.busy.iter().filter_map(|index| Some((*index, self.all.get(index)?)))
    }

    /// Changes those that may have something to do.
    pub(super) fn change_busy(&mut self, mut change: impl FnMut(SliceIndex, &mut Lane)) {
        for &index in &self.busy {
            if let Some(lane) = self.all.get_mut(&index) {
                change(index, lane);
            }
        }
    }

    /// Changes all of them, but for their parts.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(SliceIndex, &mut Lane)) {
        for (&index, lane) in &mut self.all {
            change(index, lane);
        }
    }

    /// Leaves those alone that have nothing to do any more.
    pub(super) fn settle(&mut self) {
        let all = &mut self.all;
        self.busy.retain(|index| {
            let Some(lane) = all.get_mut(index).filter(|lane| lane.parts.is_empty()) else {
                return true;
            };
            (lane.ask_again, lane.knocked) = (None, None);
            false
        });
    }

    /// Panics if a lane with a part is not busy.
    pub(super) fn check_invariants(&self) {
        for (index, lane) in &self.all {
            assert!(
                lane.parts.is_empty() || self.busy.contains(index),
                "slice {index} is forgotten"
            );
        }
    }
}

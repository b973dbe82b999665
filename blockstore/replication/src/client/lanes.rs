//! The slices of a volume, and which of them have something to do: a volume has thousands, and a request
//! on one of them must not look at all.
//!
//! Invariants: whatever lane has a part is busy; between two events every deadline is known.

use std::collections::{BTreeMap, BTreeSet};

use mooring_terms::{SliceIndex, Time};

use super::lane::Lane;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    all: BTreeMap<SliceIndex, Lane>,
    /// Those with parts, and those of `touched`.
    busy: BTreeSet<SliceIndex>,
    /// What may have changed since the last event.
    touched: BTreeSet<SliceIndex>,
    due: BTreeMap<SliceIndex, Time>,
    order: BTreeSet<(Time, SliceIndex)>,
}

impl Lanes {
    /// Adds a slice.
    pub(super) fn insert(&mut self, index: SliceIndex, lane: Lane) {
        self.all.insert(index, lane);
        self.touch(index);
    }

    fn touch(&mut self, index: SliceIndex) {
        self.busy.insert(index);
        self.touched.insert(index);
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
        if self.all.contains_key(&index) {
            self.touch(index);
        }
        self.all.get_mut(&index)
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
        self.touched.extend(&self.busy);
    }

    /// Changes all of them, but for their parts.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(SliceIndex, &mut Lane)) {
        for (&index, lane) in &mut self.all {
            change(index, lane);
        }
    }

    /// The end of an event: learns deadlines, and leaves those alone that have nothing to do any more.
    pub(super) fn settle(&mut self) {
        while let Some(index) = self.touched.pop_first() {
            let Some(lane) = self.all.get_mut(&index) else { continue };
            if lane.parts.is_empty() {
                (lane.ask_again, lane.knocked) = (None, None);
                self.busy.remove(&index);
            }
            let due = lane.deadline();
            let before = match due {
                Some(due) => self.due.insert(index, due),
                None => self.due.remove(&index),
            };
            if before != due {
                before.map(|before| self.order.remove(&(before, index)));
                self.order.extend(due.map(|due| (due, index)));
            }
        }
    }

    /// When something is due in any slice.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Panics if a lane is forgotten.
    pub(super) fn check_invariants(&self) {
        for (index, lane) in &self.all {
            let is_known = lane.parts.is_empty() || self.busy.contains(index);
            assert!(is_known, "slice {index} is forgotten");
            assert_eq!(lane.deadline(), self.due.get(index).copied(), "slice {index} is late");
        }
        assert_eq!(self.due.len(), self.order.len(), "each deadline is there once");
    }
}

//! Who waits for a lock, in the order of coming.

use std::collections::BTreeMap;

use super::{LockOwner, LockRequest, Place, WaitId};
use crate::SessionId;

#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) request: LockRequest,
    /// Whether the owner is a process: then it waits with all it has.
    pub(super) process: bool,
}

/// Waits by number, by place in order of coming, and by owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    waits: BTreeMap<WaitId, (u64, Wait)>,
    places: BTreeMap<Place, BTreeMap<u64, WaitId>>,
    owners: BTreeMap<LockOwner, Vec<WaitId>>,
    came: u64,
}

impl Waits {
    /// # Panics
    /// If the number is in use.
    pub(super) fn insert(&mut self, id: WaitId, wait: Wait) {
        self.came += 1;
        let before = self.waits.insert(id, (self.came, wait));
        assert!(before.is_none(), "{id:?} waits already");
        let place = (wait.request.ino, wait.request.space);
        self.places.entry(place).or_default().insert(self.came, id);
        self.owners.entry(wait.request.owner).or_default().push(id);
    }

    pub(super) fn remove(&mut self, id: WaitId) -> Option<Wait> {
        let (came, wait) = self.waits.remove(&id)?;
        let place = (wait.request.ino, wait.request.space);
        if let Some(at) = self.places.get_mut(&place) {
            at.remove(&came);
            if at.is_empty() {
                self.places.remove(&place);
            }
        }
        if let Some(of) = self.owners.get_mut(&wait.request.owner) {
            of.retain(|&other| other != id);
            if of.is_empty() {
                self.owners.remove(&wait.request.owner);
            }
        }
        Some(wait)
    }

    pub(super) fn remove_if(&mut self, condition: impl Fn(&Wait) -> bool) {
        let ids: Vec<WaitId> =
            self.waits.iter().filter(|(_, (_, wait))| condition(wait)).map(|(&id, _)| id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Those at `place`, in the order in which they came.
    pub(super) fn at(&self, place: Place) -> impl Iterator<Item = (WaitId, &Wait)> {
        let ids = self.places.get(&place).into_iter().flat_map(BTreeMap::values);
        ids.filter_map(|&id| Some((id, &self.waits.get(&id)?.1)))
    }

    /// What `owner` waits for as a process.
    pub(super) fn of_process(&self, owner: LockOwner) -> impl Iterator<Item = &Wait> {
        let ids = self.owners.get(&owner).into_iter().flatten();
        ids.filter_map(|id| Some(&self.waits.get(id)?.1)).filter(|wait| wait.process)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Wait> {
        self.waits.values().map(|(_, wait)| wait)
    }

    pub(super) fn contains(&self, id: WaitId) -> bool {
        self.waits.contains_key(&id)
    }

    /// How many of them are a session's.
    pub(super) fn of_session(&self, session: SessionId) -> usize {
        let of = |owner| LockOwner { session, owner };
        self.owners.range(of(0)..=of(u64::MAX)).map(|(_, ids)| ids.len()).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.waits.len()
    }
}

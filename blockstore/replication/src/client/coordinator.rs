//! A coordinator's side: which sessions are let in where, and when a fence is done.
//!
//! A fence is done in a slice
//! - when the session can't be served there any more, by message or by time (`Admissions`);
//! - and when the slice has sealed this attachment. Before that, the coordinator before may have let
//!   the session in. Where the seal can't be had, time does it, too: that coordinator names sessions
//!   only while slice 0 is surely its own, which ended at our own seal of slice 0, give or take one
//!   lease; and a registration ends a lease later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mooring_terms::{NodeId, SessionId, SliceIndex, Time};

use super::command::{ClientCommand, IoError};
use super::lane::Class;
use super::{Operation, Registration, VolumeClient, own_part};

/// A coordinator's sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Those that are to be served, and from which node.
    live: BTreeMap<SessionId, NodeId>,
    /// Those whose fence is not done.
    pub(super) fences: BTreeSet<SessionId>,
    /// Until when slice 0 is surely this coordinator's.
    leased_until: Option<Time>,
    /// When slice 0's seal was answered.
    opened: Option<Time>,
}

impl Sessions {
    pub(super) fn register(&mut self, session: SessionId, node: NodeId) {
        self.live.insert(session, node);
    }

    /// The node of a session that is to be served.
    pub(super) fn node_of(&self, session: SessionId) -> Option<NodeId> {
        self.live.get(&session).copied()
    }

    pub(super) fn is_leased(&self, now: Time) -> bool {
        self.leased_until.is_some_and(|until| now < until)
    }

    pub(super) fn sealed(&mut self, now: Time, slice: SliceIndex) {
        if slice == SliceIndex(0) {
            self.opened.get_or_insert(now);
        }
    }

    /// When whoever was let in by the coordinator before is over everywhere.
    fn all_new_at(&self, lapse: Duration) -> Option<Time> {
        self.opened.map(|opened| opened + lapse * 2)
    }
}

impl VolumeClient {
    /// All replicas of a slice have lost what was acknowledged and not flushed. Whoever trusted it must be
    /// told, and what commits name of it looked at: that is what a coordinator does when it begins. What
    /// this one wrote itself is sent again before.
    pub(super) fn end_after_again(
        &mut self,
        now: Time,
        index: SliceIndex,
        out: &mut Vec<ClientCommand>,
    ) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.ends_after_again = true;
        if lane.parts.keys().any(|(class, _)| *class == Class::Again) {
            self.pump(now, index, out);
        } else {
            self.end(IoError::TailLost, out);
        }
    }

    /// The coordinator may go on naming sessions: all are renewed where they are.
    pub(super) fn on_leased(&mut self, now: Time, until: Time, out: &mut Vec<ClientCommand>) {
        self.sessions.leased_until = self.sessions.leased_until.max(Some(until));
        let wanted = self.lanes.iter().filter(|(_, lane)| lane.admissions.is_wanted());
        for index in wanted.map(|(index, _)| index).collect::<Vec<_>>() {
            self.ask_registration(index);
            self.pump(now, index, out);
        }
        self.finish_fences(now, out);
    }

    /// A session asks for something in the slice for the first time.
    pub(super) fn admit(
        &mut self,
        now: Time,
        index: SliceIndex,
        session: SessionId,
        out: &mut Vec<ClientCommand>,
    ) {
        if !self.sessions.live.contains_key(&session) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.admissions.admit(now, session);
        self.register_where_pending(now, index);
        self.pump(now, index, out);
    }

    /// The session is over.
    pub(super) fn fence(&mut self, now: Time, session: SessionId, out: &mut Vec<ClientCommand>) {
        self.sessions.live.remove(&session);
        self.sessions.fences.insert(session);
        let mut where_it_is = Vec::new();
        self.lanes.change_all(|index, lane| {
            if lane.admissions.expel(session) {
                where_it_is.push(index);
            }
        });
        for index in where_it_is {
            self.ask_registration(index);
            self.pump(now, index, out);
        }
        self.finish_fences(now, out);
    }

    /// Tells the slice's primary who is to be served, where that has changed.
    pub(super) fn register_where_pending(&mut self, now: Time, index: SliceIndex) {
        let is_leased = self.sessions.is_leased(now);
        let Some(lane) = self.lanes.get(index) else { return };
        if lane.admissions.is_pending(is_leased) {
            self.ask_registration(index);
        }
    }

    /// Has a registration sent, if none is on the way; its contents are those of the moment when it is
    /// sent.
    fn ask_registration(&mut self, index: SliceIndex) {
        let number = self.number();
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let is_one = |operation: &Operation| matches!(operation, Operation::Register(_));
        if !lane.parts.values().any(|part| is_one(&part.operation)) {
            let operation = Operation::Register(Registration::default());
            lane.parts.insert((Class::Device, number), own_part(operation));
        }
    }

    /// A registration is answered.
    pub(super) fn on_registered(
        &mut self,
        now: Time,
        index: SliceIndex,
        at: Time,
        used: &[SessionId],
        out: &mut Vec<ClientCommand>,
    ) {
        let idle = self.options.session_idle;
        let Some(lane) = self.lanes.get_mut(index) else { return };
        for session in lane.admissions.answered(now, at, used, idle) {
            out.push(ClientCommand::Admitted { slice: index, session });
        }
    }

    /// Tells which fences are done.
    pub(super) fn finish_fences(&mut self, now: Time, out: &mut Vec<ClientCommand>) {
        if self.sessions.fences.is_empty() || self.sessions.opened.is_none() {
            return;
        }
        let lapse = self.options.lapse;
        let all_new = self.sessions.all_new_at(lapse).is_some_and(|at| now >= at);
        if !all_new && self.lanes.iter().any(|(_, lane)| !lane.sealed) {
            return;
        }
        let lanes = &self.lanes;
        let is_out = |session: &SessionId| {
            !lanes.iter().any(|(_, lane)| lane.admissions.may_serve(now, *session, lapse))
        };
        let done: Vec<SessionId> = self.sessions.fences.iter().copied().filter(is_out).collect();
        for session in done {
            self.sessions.fences.remove(&session);
            out.push(ClientCommand::SessionFenced { session });
        }
    }

    /// When a fence is done by time.
    pub(super) fn fence_deadline(&self) -> Option<Time> {
        if self.sessions.fences.is_empty() {
            return None;
        }
        let lapse = self.options.lapse;
        let all_new = self.sessions.all_new_at(lapse)?;
        let sealed = self.lanes.iter().all(|(_, lane)| lane.sealed);
        let floor = if sealed { Time::ZERO } else { all_new };
        let over = |session: &SessionId| {
            let lanes = self.lanes.iter();
            lanes.filter_map(|(_, lane)| lane.admissions.over_at(*session, lapse)).max()
        };
        let fences = self.sessions.fences.iter();
        fences.map(|session| over(session).map_or(floor, |over| over.max(floor))).min()
    }
}

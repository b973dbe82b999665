//! Freed blocks on their way back: durable, named by nobody, discarded, free. In this order.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Command, RecordNumber};
use crate::{QuarantineNumber, SessionId};

#[derive(Clone, Debug)]
struct Waits {
    /// The record that freed them; `None` once it is durable.
    record: Option<RecordNumber>,
    /// Who may still name them.
    sessions: BTreeSet<SessionId>,
}

impl Waits {
    fn is_over(&self) -> bool {
        self.record.is_none() && self.sessions.is_empty()
    }
}

/// What waits. A number leaves when its discard is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantine {
    waits: BTreeMap<QuarantineNumber, Waits>,
    /// Being discarded or given back: not free yet.
    leaving: BTreeSet<QuarantineNumber>,
    durable: RecordNumber,
}

impl Quarantine {
    /// Blocks were freed by `record`; `sessions` were told where they are.
    pub(super) fn freed(
        &mut self,
        number: QuarantineNumber,
        record: RecordNumber,
        sessions: BTreeSet<SessionId>,
        out: &mut Vec<Command>,
    ) {
        let record = (record > self.durable).then_some(record);
        self.add(number, Waits { record, sessions }, out);
    }

    /// Blocks that were freed under the coordinator before: any session may name them.
    pub(super) fn restore(
        &mut self,
        number: QuarantineNumber,
        sessions: BTreeSet<SessionId>,
        out: &mut Vec<Command>,
    ) {
        self.add(number, Waits { record: None, sessions }, out);
    }

    fn add(&mut self, number: QuarantineNumber, waits: Waits, out: &mut Vec<Command>) {
        let ask = |&session| Command::ReturnLayouts(session, number);
        out.extend(waits.sessions.iter().map(ask));
        self.waits.insert(number, waits);
        self.leave(out);
    }

    pub(super) fn durable(&mut self, record: RecordNumber, out: &mut Vec<Command>) {
        self.durable = self.durable.max(record);
        for waits in self.waits.values_mut() {
            waits.record = waits.record.filter(|&record| record > self.durable);
        }
        self.leave(out);
    }

    pub(super) fn returned(
        &mut self,
        session: SessionId,
        number: QuarantineNumber,
        out: &mut Vec<Command>,
    ) {
        if let Some(waits) = self.waits.get_mut(&number) {
            waits.sessions.remove(&session);
            self.leave(out);
        }
    }

    /// A session was fenced: it can name what it likes.
    pub(super) fn end_session(&mut self, session: SessionId, out: &mut Vec<Command>) {
        for waits in self.waits.values_mut() {
            waits.sessions.remove(&session);
        }
        self.leave(out);
    }

    fn leave(&mut self, out: &mut Vec<Command>) {
        let over = self.waits.iter().filter(|(_, waits)| waits.is_over());
        let over: Vec<QuarantineNumber> = over.map(|(&number, _)| number).collect();
        for number in over {
            self.waits.remove(&number);
            self.leaving.insert(number);
            out.push(Command::Discard(number));
        }
    }

    /// The blocks are free.
    pub(super) fn released(&mut self, number: QuarantineNumber) {
        self.leaving.remove(&number);
    }

    /// What a session was asked to return layouts for, and has not.
    pub(super) fn asked_of(
        &self,
        session: SessionId,
    ) -> impl Iterator<Item = QuarantineNumber> + '_ {
        let of = self.waits.iter().filter(move |(_, waits)| waits.sessions.contains(&session));
        of.map(|(&number, _)| number)
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = QuarantineNumber> + '_ {
        self.waits.keys().chain(&self.leaving).copied()
    }
}

//! Writes, discards and seals: a sequence, a record, an answer when every in-sync replica has it.

use mooring_terms::{BlockRange, Body, Epoch, Record, Sequence, Version};

use super::Primary;
use super::clients::Admission;
use super::flush::{DurableWait, Waits};
use super::window::Window;
use crate::control::Control;
use crate::core::{Core, Turn};
use crate::request::{Credential, Operation, Outcome, Request, RequestId};
use crate::space;

/// A record that is not committed yet.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Who waits for it; none for the primary's own control records.
    pub(super) id: Option<RequestId>,
    /// The epoch in which it was ordered.
    pub(super) epoch: Epoch,
    /// The blocks that it changes.
    pub(super) range: Option<BlockRange>,
    /// What its answer says, and whether that waits for media.
    answer: Answer,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Written,
    WrittenDurably,
    Sealed,
}

impl Primary {
    /// Gives the write its place, if there is room in the window and space in every pool.
    pub(super) fn begin_write(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        id: RequestId,
        request: Request,
    ) -> Admission {
        let (body, fua) = match &request.operation {
            Operation::Write { first, data, fua } => {
                (Body::Write { first: *first, data: data.clone() }, *fua)
            }
            Operation::Discard { range, fua } => (Body::Discard(*range), *fua),
            Operation::Read(_)
            | Operation::Versions(_)
            | Operation::Flush
            | Operation::Seal
            | Operation::Register(_) => return Admission::Blocked(request),
        };
        let record = Record { version: Version::ZERO, body };
        let fits = self.window.bytes() + Window::weight(&record) <= core.options.window_bytes;
        if !(fits || self.in_flight.is_empty()) {
            return Admission::Blocked(request);
        }
        let cost = space::cost(&record);
        if !self.has_credit(core, turn, cost) {
            return Admission::Blocked(request);
        }
        self.credit.spend(turn.now, cost);
        let answer = if fua { Answer::WrittenDurably } else { Answer::Written };
        let range = record.range();
        let version = self.order(core, turn, record.body, fua);
        let epoch = version.epoch;
        self.in_flight.insert(version.sequence, InFlight { id: Some(id), epoch, range, answer });
        self.top_up_credit(core, turn);
        Admission::Done
    }

    /// Begins an attachment: from here on every older one is refused.
    pub(super) fn begin_seal(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        id: RequestId,
        credential: Credential,
    ) {
        let attachment = credential.attachment();
        self.seal = self.seal.max(attachment);
        let control = Control::Seal { attachment };
        let version = self.order(core, turn, Body::Control(control.encode()), true);
        let epoch = version.epoch;
        let in_flight = InFlight { id: Some(id), epoch, range: None, answer: Answer::Sealed };
        self.in_flight.insert(version.sequence, in_flight);
    }

    /// Answers what is committed; what must be durable goes on waiting.
    pub(super) fn answer_writes(&mut self, _core: &Core, turn: &mut Turn<'_>) {
        while let Some((&sequence, _)) = self.in_flight.first_key_value() {
            if sequence > self.committed {
                break;
            }
            let Some((_, write)) = self.in_flight.pop_first() else { break };
            let Some(id) = write.id else { continue };
            let version = Version::new(write.epoch, sequence);
            match write.answer {
                Answer::Written => self.reply(turn, id, Outcome::Written(version)),
                Answer::WrittenDurably => self.wait_durably(id, sequence, Waits::Write(version)),
                Answer::Sealed => self.wait_durably(id, sequence, Waits::Seal),
            }
        }
    }

    fn wait_durably(&mut self, id: RequestId, sequence: Sequence, waits: Waits) {
        self.durable_waits.push_back(DurableWait { id, sequence, waits });
    }

    /// The last uncommitted record that changes a block of `range`.
    pub(super) fn last_overlapping(&self, range: BlockRange) -> Option<Sequence> {
        let overlaps = |write: &InFlight| write.range.is_some_and(|own| own.overlaps(&range));
        let mut newest_first = self.in_flight.iter().rev();
        newest_first.find(|(_, write)| overlaps(write)).map(|(&sequence, _)| sequence)
    }
}

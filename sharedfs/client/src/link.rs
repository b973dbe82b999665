//! The session: its stream to the coordinator, requests in slots, and how long its lease lasts.
//!
//! ```text
//!   Down ──Connected──> Greeting ──Begun, Renewed──> Up
//!    ^                     └──Reclaim──> Reclaiming ──Claimed(Done)──> Up
//!    └──Disconnected, or nothing heard for a lease── from any
//! ```
//! Every request stays in its slot until it is answered and is sent again on each new stream, with the
//! same number: the coordinator answers one that it did already from its reply cache. The next request
//! in the slot acknowledges the answer.
//!
//! Slots 0..[`URGENT`] are for what a recall needs, and such requests wait for nobody but the journal:
//! if all others wait for other clients, whose requests wait for us, this is how we come to answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mooring_sharedfs_core::coordinator::{
    Operation, RenewNumber, Request, RequestId, ToCoordinator,
};
use mooring_sharedfs_core::format::SessionRow;
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::{Caller, Ino, RequestNumber, SessionId, SlotIndex};
use mooring_terms::Time;

use crate::command::Command;
use crate::event::StreamNumber;
use crate::replies::Purpose;

/// How many slots are kept for what a recall needs.
const URGENT: u32 = 16;
/// How many there are in all.
pub(crate) const SLOTS: u32 = 80;

/// Where the session is; see the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    Down,
    Greeting,
    Reclaiming,
    Up,
    Over,
}

/// A request that is not answered.
#[derive(Debug)]
pub(crate) struct Pending {
    request: Request,
    pub(crate) purpose: Purpose,
    /// Its answer may be older than what was learned since.
    pub(crate) resent: bool,
    order: u64,
}

/// Something to be asked.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) caller: Caller,
    pub(crate) operation: Operation,
    pub(crate) wanted: Vec<(Ino, LeaseLevel)>,
    pub(crate) purpose: Purpose,
    pub(crate) urgent: bool,
}

/// The session's stream, requests and lease.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) state: LinkState,
    pub(crate) session: Option<SessionId>,
    pub(crate) stream: StreamNumber,
    row: SessionRow,
    lease: Duration,
    numbers: BTreeMap<SlotIndex, RequestNumber>,
    free: BTreeSet<SlotIndex>,
    pending: BTreeMap<SlotIndex, Pending>,
    queue: VecDeque<Ask>,
    urgent: VecDeque<Ask>,
    orders: u64,
    renewals: BTreeMap<RenewNumber, Time>,
    last_renewal: RenewNumber,
    next_renewal: Time,
    heard: Time,
    valid_until: Time,
}

impl Link {
    pub(crate) fn new(mount: u64, node: u64, lease: Duration) -> Self {
        Self {
            state: LinkState::Down,
            session: None,
            stream: StreamNumber(0),
            row: SessionRow { node, mount, slots: SLOTS },
            lease,
            numbers: BTreeMap::new(),
            free: (0..SLOTS).map(SlotIndex).collect(),
            pending: BTreeMap::new(),
            queue: VecDeque::new(),
            urgent: VecDeque::new(),
            orders: 0,
            renewals: BTreeMap::new(),
            last_renewal: RenewNumber(0),
            next_renewal: Time::ZERO,
            heard: Time::ZERO,
            valid_until: Time::ZERO,
        }
    }

    /// For how long what a lease vouches for is good, from now on; nothing if it isn't.
    pub(crate) fn left(&self, now: Time) -> Duration {
        match self.state {
            LinkState::Over => Duration::ZERO,
            _ => self.valid_until.0.saturating_sub(now.0),
        }
    }

    pub(crate) fn send(&self, message: ToCoordinator, out: &mut Vec<Command>) {
        if self.state != LinkState::Down && self.state != LinkState::Over {
            out.push(Command::Send(self.stream, message));
        }
    }

    /// A new stream: who we are, then what we are.
    pub(crate) fn connected(&mut self, now: Time, stream: StreamNumber, out: &mut Vec<Command>) {
        if self.state == LinkState::Over || stream <= self.stream {
            return;
        }
        (self.stream, self.state, self.heard) = (stream, LinkState::Greeting, now);
        self.renewals.clear();
        match self.session {
            Some(session) => {
                self.send(ToCoordinator::Hello(session), out);
                self.renew(now, out);
            }
            None => self.send(ToCoordinator::Begin(stream.0, self.row), out),
        }
    }

    pub(crate) fn disconnected(&mut self, stream: StreamNumber) {
        if stream == self.stream && self.state != LinkState::Over {
            self.state = LinkState::Down;
        }
    }

    pub(crate) fn begun(&mut self, now: Time, session: SessionId, out: &mut Vec<Command>) {
        self.session = Some(session);
        self.renew(now, out);
    }

    fn renew(&mut self, now: Time, out: &mut Vec<Command>) {
        self.next_renewal = now + self.lease / 4;
        if let Some(session) = self.session {
            self.last_renewal = RenewNumber(self.last_renewal.0 + 1);
            self.renewals.insert(self.last_renewal, now);
            self.send(ToCoordinator::Renew(session, self.last_renewal), out);
        }
    }

    /// Asks with the next look whether the session is there.
    pub(crate) fn renew_soon(&mut self) {
        self.next_renewal = Time::ZERO;
    }

    /// The session was there when this was sent. Whether requests can go from now on.
    pub(crate) fn renewed(&mut self, now: Time, number: RenewNumber) -> bool {
        let later = self.renewals.split_off(&RenewNumber(number.0 + 1));
        let renewals = std::mem::replace(&mut self.renewals, later);
        if let Some(&sent) = renewals.get(&number) {
            self.valid_until = self.valid_until.max(sent + self.lease);
        }
        self.heard = now;
        self.state == LinkState::Greeting
    }

    /// Renews, and gives up a stream on which nothing is heard.
    pub(crate) fn tick(&mut self, now: Time, out: &mut Vec<Command>) {
        if matches!(self.state, LinkState::Down | LinkState::Over) {
            return;
        }
        if self.heard + self.lease <= now {
            self.state = LinkState::Down;
            out.push(Command::Reconnect);
        } else if self.next_renewal <= now && self.session.is_some() {
            self.renew(now, out);
        }
    }

    pub(crate) fn hear(&mut self, now: Time) {
        self.heard = now;
    }

    pub(crate) fn next_tick(&self) -> Option<Time> {
        let running = !matches!(self.state, LinkState::Down | LinkState::Over);
        running.then(|| match self.session {
            Some(_) => self.next_renewal.min(self.heard + self.lease),
            None => self.heard + self.lease,
        })
    }

    /// Requests go again: those that were on their way first, in the order of asking.
    pub(crate) fn up(&mut self, out: &mut Vec<Command>) {
        self.state = LinkState::Up;
        let mut again: Vec<&mut Pending> = self.pending.values_mut().collect();
        again.sort_by_key(|pending| pending.order);
        for pending in again {
            pending.resent = true;
            out.push(Command::Send(self.stream, ToCoordinator::Request(pending.request.clone())));
        }
        self.pump(out);
    }

    /// Asks, as soon as there is a slot.
    pub(crate) fn ask(&mut self, ask: Ask, out: &mut Vec<Command>) {
        if ask.urgent {
            self.urgent.push_back(ask);
        } else {
            self.queue.push_back(ask);
        }
        self.pump(out);
    }

    fn pump(&mut self, out: &mut Vec<Command>) {
        let Some(session) = self.session.filter(|_| self.state == LinkState::Up) else { return };
        loop {
            let lowest = self.free.first().copied();
            let highest = self.free.last().copied();
            let (ask, slot) = match (lowest, highest) {
                (Some(slot), _) if !self.urgent.is_empty() => (self.urgent.pop_front(), slot),
                (_, Some(slot)) if slot.0 >= URGENT => (self.queue.pop_front(), slot),
                _ => return,
            };
            let Some(ask) = ask else { return };
            self.free.remove(&slot);
            let number = self.numbers.entry(slot).or_default();
            *number = RequestNumber(number.0 + 1);
            let id = RequestId { session, slot, number: *number };
            let Ask { caller, operation, wanted, purpose, .. } = ask;
            let request = Request { id, caller, operation, wanted };
            out.push(Command::Send(self.stream, ToCoordinator::Request(request.clone())));
            self.orders += 1;
            let order = self.orders;
            self.pending.insert(slot, Pending { request, purpose, resent: false, order });
        }
    }

    /// The request that an answer is for, if it waits for one.
    pub(crate) fn answered(
        &mut self,
        id: RequestId,
        out: &mut Vec<Command>,
    ) -> Option<(Pending, Operation)> {
        let known = self.pending.get(&id.slot).is_some_and(|pending| pending.request.id == id);
        let mut pending = known.then(|| self.pending.remove(&id.slot)).flatten()?;
        self.free.insert(id.slot);
        self.pump(out);
        let operation = std::mem::replace(&mut pending.request.operation, Operation::Statfs);
        Some((pending, operation))
    }

    /// How many requests are not answered.
    pub(crate) fn outstanding(&self) -> usize {
        self.pending.len() + self.queue.len() + self.urgent.len()
    }

    /// The session is over: nothing more is asked.
    pub(crate) fn end(&mut self) {
        self.state = LinkState::Over;
        self.pending.clear();
        self.queue.clear();
        self.urgent.clear();
    }
}

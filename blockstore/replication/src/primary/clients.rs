//! Clients' requests: admission, in the order of each stream.
//!
//! A client's new stream ends its older one: what of the old one still waits is dropped (the client
//! sends it again), what was admitted is finished before the first request on the new one. So one
//! request sent twice is never in flight twice.

use std::collections::{BTreeMap, VecDeque};

use mooring_terms::{BlockIndex, BlockRange, Data, NodeId, Sequence};

use super::read::{Asker, Wants};
use super::sessions::MOST_SESSIONS;
use super::{Phase, Primary};
use crate::command::Command;
use crate::core::{Core, Turn, mutated};
use crate::note::Note;
use crate::request::{
    ClientId, Credential, Operation, Outcome, Refusal, Request, RequestId, StreamId,
};

/// Clients remembered beside those with something in flight.
const CLIENTS_KEPT: usize = 256;

/// What a waiting request counts beside its data.
const REQUEST_BYTES: u64 = 128;

/// Requests that wait, and the clients they come from.
#[derive(Debug, Default)]
pub(super) struct Clients {
    known: BTreeMap<ClientId, Client>,
    queue: VecDeque<Waiting>,
    queue_bytes: u64,
    /// Registrations that wait among the others.
    registrations: usize,
}

#[derive(Debug)]
struct Client {
    stream: StreamId,
    /// What was admitted from its earlier streams ends here.
    barrier: Sequence,
}

/// A request that waits, and the node that it came from.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: RequestId,
    from: NodeId,
    request: Request,
}

/// What became of a request that was looked at.
pub(super) enum Admission {
    /// Admitted or answered.
    Done,
    /// It has to wait; so has every one behind it.
    Blocked(Request),
}

impl Clients {
    pub(super) fn take_queue(&mut self) -> Vec<RequestId> {
        self.queue_bytes = 0;
        self.registrations = 0;
        std::mem::take(&mut self.queue).into_iter().map(|waiting| waiting.id).collect()
    }

    pub(super) fn queue_is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// The first request that waits.
    pub(super) fn first(&self) -> Option<&Request> {
        self.queue.front().map(|waiting| &waiting.request)
    }

    fn push(&mut self, waiting: Waiting) {
        self.count(&waiting.request);
        self.queue.push_back(waiting);
    }

    fn count(&mut self, request: &Request) {
        self.queue_bytes += weight(request);
        self.registrations += usize::from(is_registration(request));
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.queue_bytes -= weight(&waiting.request);
        self.registrations -= usize::from(is_registration(&waiting.request));
        Some(waiting)
    }

    /// The first registration that waits, out of its turn: a fence must not wait for writes that
    /// wait for space or replicas.
    fn pop_registration(&mut self) -> Option<Waiting> {
        if self.registrations == 0 {
            return None;
        }
        let at = self.queue.iter().position(|waiting| is_registration(&waiting.request))?;
        let waiting = self.queue.remove(at)?;
        self.queue_bytes -= weight(&waiting.request);
        self.registrations -= 1;
        Some(waiting)
    }

    fn put_back(&mut self, waiting: Waiting) {
        self.count(&waiting.request);
        self.queue.push_front(waiting);
    }

    /// Forgets the waiting requests of a client's older streams.
    fn drop_older(&mut self, client: ClientId, stream: StreamId) {
        self.queue.retain(|Waiting { id, .. }| id.client != client || id.stream >= stream);
        self.queue_bytes = self.queue.iter().map(|waiting| weight(&waiting.request)).sum();
        let registrations = self.queue.iter().filter(|one| is_registration(&one.request));
        self.registrations = registrations.count();
    }
}

fn is_registration(request: &Request) -> bool {
    matches!(request.operation, Operation::Register(_))
}

fn weight(request: &Request) -> u64 {
    REQUEST_BYTES
        + match &request.operation {
            Operation::Write { data, .. } => data.bytes().len() as u64,
            Operation::Register(registration) => 16 * registration.sessions.len() as u64,
            _ => 0,
        }
}

impl Primary {
    pub(crate) fn on_client_stream(&mut self, client: ClientId, stream: StreamId) {
        let newest = self.clients.known.get(&client).map(|known| known.stream);
        if newest.is_some_and(|newest| newest >= stream) {
            return;
        }
        let admitted = self.in_flight.iter().rev();
        let barrier = admitted
            .filter(|(_, write)| write.id.is_some_and(|id| id.client == client))
            .map(|(&sequence, _)| sequence)
            .next()
            .unwrap_or(Sequence(0));
        self.clients.drop_older(client, stream);
        self.clients.known.insert(client, Client { stream, barrier });
        if self.clients.known.len() > CLIENTS_KEPT {
            let committed = self.committed;
            let keep =
                |id: &ClientId, known: &mut Client| *id == client || known.barrier > committed;
            self.clients.known.retain(keep);
        }
    }

    pub(crate) fn on_request(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        id: RequestId,
        request: Request,
    ) {
        self.on_client_stream(id.client, id.stream);
        let Some(client) = self.clients.known.get(&id.client) else { return };
        if client.stream > id.stream {
            return;
        }
        // Registrations have an order of their own.
        let behind_barrier = client.barrier > self.committed && !is_registration(&request);
        let in_order = self.clients.queue_is_empty() || request.operation.writes_nothing();
        if self.phase == Phase::Serving && !behind_barrier && in_order {
            if let Admission::Blocked(request) = self.admit(core, turn, from, id, request) {
                self.enqueue(core, turn, Waiting { id, from, request });
            }
        } else {
            self.enqueue(core, turn, Waiting { id, from, request });
        }
        self.advance(core, turn);
    }

    fn enqueue(&mut self, core: &Core, turn: &mut Turn<'_>, waiting: Waiting) {
        if self.clients.queue_bytes + weight(&waiting.request) > core.options.queue_bytes {
            self.reply(turn, waiting.id, Outcome::Refused(Refusal::Busy));
        } else {
            self.clients.push(waiting);
        }
    }

    /// Admits what waits, as far as it can be.
    pub(super) fn admit_queue(&mut self, core: &mut Core, turn: &mut Turn<'_>) {
        while self.phase == Phase::Serving
            && let Some(Waiting { id, from, request }) = self.clients.pop_registration()
        {
            self.admit(core, turn, from, id, request);
        }
        while self.phase == Phase::Serving {
            let Some(Waiting { id, from, request }) = self.clients.pop() else { return };
            let barrier = self.clients.known.get(&id.client).map(|client| client.barrier);
            let blocked = if barrier.is_some_and(|barrier| barrier > self.committed) {
                Some(request)
            } else {
                match self.admit(core, turn, from, id, request) {
                    Admission::Done => None,
                    Admission::Blocked(request) => Some(request),
                }
            };
            if let Some(request) = blocked {
                self.clients.put_back(Waiting { id, from, request });
                return;
            }
        }
    }

    /// Does or begins what is asked, refuses it, or leaves it waiting.
    fn admit(
        &mut self,
        core: &mut Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        id: RequestId,
        request: Request,
    ) -> Admission {
        if let Err(refusal) = self.check(core, turn, from, &request) {
            self.reply(turn, id, Outcome::Refused(refusal));
            return Admission::Done;
        }
        if self.has_too_few(core, turn) && !request.operation.writes_nothing() {
            return Admission::Blocked(request);
        }
        let credential = request.credential;
        match request.operation {
            Operation::Read(range) => {
                let asker = Asker { id, from, credential, wants: Wants::Data };
                self.begin_read(core, turn, asker, range);
                Admission::Done
            }
            Operation::Versions(range) => {
                let asker = Asker { id, from, credential, wants: Wants::Versions };
                self.begin_read(core, turn, asker, range);
                Admission::Done
            }
            Operation::Register(registration) => {
                self.register(core, turn, id, credential, &registration);
                Admission::Done
            }
            Operation::Flush => {
                self.begin_flush(turn, id);
                Admission::Done
            }
            Operation::Seal => {
                self.begin_seal(core, turn, id, credential);
                Admission::Done
            }
            Operation::Write { .. } | Operation::Discard { .. } => {
                self.begin_write(core, turn, id, request)
            }
        }
    }

    /// Whether the request may be done here and now by this client.
    fn check(
        &mut self,
        core: &Core,
        turn: &mut Turn<'_>,
        from: NodeId,
        request: &Request,
    ) -> Result<(), Refusal> {
        if request.epoch < self.reign {
            return Err(Self::moved(core));
        }
        if request.epoch > self.epoch {
            // The client has heard of an epoch that has not arrived here.
            turn.out.push(Command::QueryConfig);
            return Err(Self::moved(core));
        }
        self.check_credential(core, turn, from, request)?;
        match &request.operation {
            Operation::Read(range)
            | Operation::Versions(range)
            | Operation::Discard { range, .. } => check_range(core, *range),
            Operation::Write { first, data, .. } => {
                check_range(core, BlockRange::new(*first, data.blocks()))?;
                if data.blocks() > core.options.max_write_blocks {
                    return Err(Refusal::Invalid);
                }
                check_data(*first, data)
            }
            Operation::Register(registration) if registration.sessions.len() > MOST_SESSIONS => {
                Err(Refusal::Invalid)
            }
            Operation::Flush | Operation::Seal | Operation::Register(_) => Ok(()),
        }
    }

    /// Whether who asks has the right to.
    fn check_credential(
        &mut self,
        core: &Core,
        turn: &Turn<'_>,
        from: NodeId,
        request: &Request,
    ) -> Result<(), Refusal> {
        let attachment = match request.credential {
            Credential::Attachment(attachment) => attachment,
            Credential::Session { attachment, session } => {
                if matches!(request.operation, Operation::Seal | Operation::Register(_)) {
                    return Err(Refusal::Invalid);
                }
                return self.check_session(core, turn, attachment, (session, from));
            }
        };
        if attachment < self.seal {
            return Err(Refusal::Fenced { by: self.seal });
        }
        let sealed = attachment <= self.seal || mutated!(core, SealLost);
        if !sealed && request.operation != Operation::Seal {
            return Err(Refusal::NotSealed);
        }
        Ok(())
    }

    /// Whether I/O waits for more in-sync replicas.
    fn has_too_few(&mut self, core: &Core, turn: &mut Turn<'_>) -> bool {
        let config = core.config();
        let in_sync = u32::try_from(config.in_sync.len()).unwrap_or(u32::MAX);
        let too_few = in_sync < config.min_in_sync;
        if too_few && !std::mem::replace(&mut self.told_too_few, true) {
            core.note(turn, Note::TooFew { in_sync, min: config.min_in_sync });
        }
        too_few
    }
}

/// What a replica can't hold must never be ordered: it would fail on every one of them.
fn check_range(core: &Core, range: BlockRange) -> Result<(), Refusal> {
    let end = range.first.0.checked_add(range.count);
    let inside = end.is_some_and(|end| end <= core.options.max_blocks);
    if range.count > 0 && inside { Ok(()) } else { Err(Refusal::Invalid) }
}

/// Checks data where it enters the slice: what is damaged must not be replicated.
fn check_data(first: BlockIndex, data: &Data) -> Result<(), Refusal> {
    match data.first_corrupt() {
        Some(i) => Err(Refusal::Damaged { block: first.plus(i as u64) }),
        None => Ok(()),
    }
}

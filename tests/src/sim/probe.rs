//! Reads that no well-behaved client would send: past the order in which a client keeps its own
//! overlapping I/O, and to every replica that takes itself for a primary, with the epoch that this
//! one knows. A client with late configuration may do the same, so they too must be linearizable.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_replication::{
    ClientId, Credential, Operation, Outcome, Reply, Request, RequestId, RequestMessage, Role,
    StreamId, VolumeBlock, VolumeRange,
};
use mooring_terms::{BlockIndex, BlockRange, Extent, NodeId, SliceId, Time};

use super::client::Standing;
use super::history::{OpId, What};
use super::network::{Plane, Way};
use super::node::Power;
use super::packet::Packet;
use super::plan::SLICE_BLOCKS;
use super::value::{Value, decode};
use super::{Happening, Phase, Sim};

/// Probes that are not answered yet, each a client of its own, and when they are given up.
pub type Probes = BTreeMap<ClientId, (OpId, Time)>;

/// More at once would make the search for an order of all operations long, and tell no more.
const MOST: usize = 20;
const PATIENCE: Duration = Duration::from_secs(8);

impl Sim {
    /// Sends the next probe, and says when the one after it comes.
    pub(super) fn probe(&mut self) {
        if self.phase != Phase::Faults || self.workload.paused {
            return;
        }
        let pause = self.prng.millis(2, 80);
        self.queue.after(pause, Happening::Probe);
        let serving: Vec<u32> = self
            .clients
            .values()
            .filter(|c| c.standing == Standing::Serving)
            .filter(|c| self.nodes[&c.node].power == Power::Running)
            .map(|client| client.number)
            .collect();
        let Some(number) = self.prng.pick(&serving) else { return };
        let volume = self.clients[&number].volume;
        let targets: Vec<(NodeId, SliceId)> = self
            .nodes
            .values()
            .flat_map(|node| node.slots.iter().map(move |(slice, slot)| (node.id, slice, slot)))
            .filter(|(_, slice, slot)| {
                slice.volume == volume && slot.replica.status().role == Role::Primary
            })
            .map(|(node, slice, _)| (node, *slice))
            .collect();
        let Some((target, slice)) = self.prng.pick(&targets) else { return };
        let block = self.prng.within(0..5);
        self.send_probe(number, target, slice, BlockIndex(block));
        // Once more a moment later: what is in flight now may be there then.
        self.queue
            .after(Duration::from_micros(150), Happening::ProbeAgain(number, target, slice, block));
    }

    pub(super) fn send_probe(
        &mut self,
        number: u32,
        target: NodeId,
        slice: SliceId,
        block: BlockIndex,
    ) {
        if self.tail_was_lost(number, slice) {
            return;
        }
        let client = &self.clients[&number];
        let (from, attachment) = (client.node, client.attachment);
        let open = self.network.passes(from, target) && self.network.passes(target, from);
        let Some(slot) = self.nodes[&target].slots.get(&slice) else { return };
        let epoch = slot.replica.status().epoch;
        let now = self.queue.now();
        self.probes.retain(|_, (_, until)| *until > now);
        if client.standing != Standing::Serving || !open || self.probes.len() >= MOST {
            return;
        }
        let id = ClientId(self.prng.next());
        let stream = StreamId(1);
        let first = u64::from(slice.index.0) * SLICE_BLOCKS + block.0;
        let range = VolumeRange { first: VolumeBlock(first), count: 1 };
        let op = self.history.invoke(slice.volume, number, What::Read, range);
        self.probes.insert(id, (op, now + PATIENCE));
        let request = Request {
            epoch,
            credential: Credential::Attachment(attachment),
            operation: Operation::Read(BlockRange::new(block, 1)),
        };
        let message =
            RequestMessage { slice, id: RequestId { client: id, stream, number: 1 }, request };
        let connection = self.network.open(Plane::Client, from, target);
        self.send(connection, Way::Out, Packet::Hello { client: id, stream });
        self.send(connection, Way::Out, Packet::Request(message));
        self.queue.after(PATIENCE, Happening::Closed(connection));
    }

    /// Whether a tail was lost since the client began: then it may be about to send again what was
    /// lost, and nobody but the client knows when it has.
    fn tail_was_lost(&self, number: u32, slice: SliceId) -> bool {
        let lost = self.raft.state().slice(slice).map(|config| config.tail_lost);
        lost != self.clients[&number].tails.get(&slice).copied()
    }

    /// A probe is answered; says whether it was one.
    pub(super) fn probe_answered(&mut self, slice: SliceId, id: ClientId, reply: &Reply) -> bool {
        let Some((op, _)) = self.probes.remove(&id) else { return false };
        let Outcome::Read(extents) = &reply.outcome else { return true };
        let Some(what) = self.history.op(op) else { return true };
        if self.tail_was_lost(what.client, slice) {
            return true;
        }
        let block = BlockIndex(what.range.first.0 % SLICE_BLOCKS);
        let value = match extents.first() {
            Some(Extent::Data { data, .. }) => decode(data.block(0), slice.index, block),
            Some(Extent::Hole { .. }) => Ok(Value::Zero),
            Some(Extent::Missing { .. }) | None => return true,
        };
        match value {
            Ok(value) => {
                if self.trace.enabled() {
                    let now = self.queue.now();
                    self.trace.line(now, format_args!("probe {op} of {slice}/{block}: {value:?}"));
                }
                self.history.read(op, &[value]);
            }
            Err(_) => {
                let text = format!("{slice}/{block} is garbled");
                self.fail("a corrupt block is never returned", text);
            }
        }
        true
    }
}

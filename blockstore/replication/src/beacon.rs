//! Beacons between pairs of nodes: who is alive, and vouches for which slices at which epochs.
//!
//! ```text
//!   A ── Beacon{sent, hash of each bucket} ──> B    B has heard A for the slices of equal buckets
//!   A <── Answer{sent, which buckets are equal} ──  B answered A for them, as of `sent`
//!   A ── Beacon{sent, hashes, lists} ────────> B    where buckets differ: slice by slice
//! ```
//!
//! A beacon goes between nodes, not slices: 64 hashes over the (slice, epoch) that its sender vouches
//! for to its receiver, however many slices they share.
//!
//! Invariants, on which the leases stand:
//! - when `answered` gives `t` here, the peer has recorded, at `t` or later, that it heard us for the
//!   same slice at the same epoch;
//! - a beacon speaks only for what was vouched for when it was sent.

mod message;
mod peer;

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_terms::{Epoch, NodeId, SliceId, Time};

use self::peer::Peer;
use crate::lease::Leases;
use crate::options::Options;

pub use message::BeaconMessage;

/// What happens to a node's beacons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeaconEvent {
    /// [`crate::Command::Vouch`] of a slice's replica.
    Vouch {
        /// The slice.
        slice: SliceId,
        /// At which epoch; none: no longer.
        epoch: Option<Epoch>,
        /// To whom.
        peers: Vec<NodeId>,
    },
    /// The slice's pool hangs (or goes on): vouch for it to nobody, whatever its replica says.
    Mute {
        /// The slice.
        slice: SliceId,
        /// Whether it hangs.
        muted: bool,
    },
    /// A beacon or an answer arrived.
    Message {
        /// The node it came from, as authenticated.
        from: NodeId,
        /// What came.
        message: BeaconMessage,
    },
    /// The deadline has come.
    Tick,
}

/// What a node's beacons want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeaconCommand {
    /// Send; may be lost, must not wait for anything but the network.
    Send {
        /// The node.
        to: NodeId,
        /// What.
        message: BeaconMessage,
    },
    /// Deliver [`crate::Event::Tick`] to the replicas of these slices: a node that matters to them
    /// fell silent or is heard again.
    Wake {
        /// The slices.
        slices: Vec<SliceId>,
    },
}

/// The least time between two beacons to one node.
const MIN_GAP: Duration = Duration::from_millis(20);

/// The beacons of one node: a pure core, apart from every replica. Its shell is a thread and a
/// connection of its own that touch no disk and no data lock; replicas ask it through [`Leases`].
#[derive(Debug)]
pub struct Beacons {
    times: Times,
    peers: BTreeMap<NodeId, Peer>,
    /// What each slice's replica vouches for, muted or not.
    vouched: BTreeMap<SliceId, Vouched>,
    /// When this node last went on after it had been stopped.
    awake_since: Option<Time>,
    /// When the next tick was due.
    due: Option<Time>,
}

#[derive(Clone, Debug, Default)]
struct Vouched {
    epoch: Option<Epoch>,
    peers: Vec<NodeId>,
    muted: bool,
}

/// The times that matter here.
#[derive(Clone, Copy, Debug)]
struct Times {
    beacon: Duration,
    lease: Duration,
    grace: Duration,
    late: Duration,
}

impl Beacons {
    /// The beacons of a node that vouches for nothing yet.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let Options { beacon, lease, grace, late, .. } = *options;
        let times = Times { beacon, lease, grace, late };
        let (peers, vouched) = (BTreeMap::new(), BTreeMap::new());
        Self { times, peers, vouched, awake_since: None, due: None }
    }

    /// Takes an event and says what is to be done.
    pub fn handle(&mut self, now: Time, event: BeaconEvent, out: &mut Vec<BeaconCommand>) {
        match event {
            BeaconEvent::Vouch { slice, epoch, peers } => {
                let entry = self.vouched.entry(slice).or_default();
                let muted = entry.muted;
                let new = Vouched { epoch, peers, muted };
                self.change(now, slice, new);
            }
            BeaconEvent::Mute { slice, muted } => {
                let old = self.vouched.get(&slice).cloned().unwrap_or_default();
                self.change(now, slice, Vouched { muted, ..old });
            }
            BeaconEvent::Message { from, message } => {
                let peer = self.peers.entry(from).or_default();
                match message {
                    BeaconMessage::Beacon { sent, hashes, lists } => {
                        let message = peer.on_beacon(now, sent, &hashes, &lists);
                        out.push(BeaconCommand::Send { to: from, message });
                    }
                    BeaconMessage::Answer { sent, alike, lists } => {
                        if peer.on_answer(sent, alike, &lists) {
                            peer.next = peer.next.min((peer.last_sent + MIN_GAP).max(now));
                        }
                    }
                }
                self.wake(now, from, out);
            }
            BeaconEvent::Tick => self.on_tick(now, out),
        }
        self.due = self.deadline();
    }

    /// When [`BeaconEvent::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let busy = self.peers.values().filter(|peer| !peer.is_empty());
        busy.map(|peer| peer.due(self.times.beacon)).min()
    }

    fn on_tick(&mut self, now: Time, out: &mut Vec<BeaconCommand>) {
        if self.due.is_some_and(|due| now > due + self.times.late) {
            // This node was stopped: that it heard nothing says nothing about the others.
            self.awake_since = Some(now);
        }
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            if peer.is_empty() {
                continue;
            }
            if now >= peer.next {
                let message = peer.beacon(now);
                peer.last_sent = now;
                peer.next = now + self.times.beacon;
                out.push(BeaconCommand::Send { to: node, message });
            }
            peer.checked = now;
            self.wake(now, node, out);
        }
    }

    /// Wakes the replicas for which `node` fell silent or is back.
    fn wake(&mut self, now: Time, node: NodeId, out: &mut Vec<BeaconCommand>) {
        let awake_since = self.awake_since;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let slices = peer.transitions(now, self.times.lease, self.times.grace, awake_since);
        if !slices.is_empty() {
            out.push(BeaconCommand::Wake { slices });
        }
    }

    /// What was told to a node and still holds stays as it is, with what the node answered to it.
    fn change(&mut self, now: Time, slice: SliceId, new: Vouched) {
        let old = self.vouched.remove(&slice).unwrap_or_default();
        let stays = |node: &NodeId| {
            old.told() == new.told() && old.peers.contains(node) && new.peers.contains(node)
        };
        for node in old.peers.iter().filter(|node| !stays(node)) {
            if let Some(peer) = self.peers.get_mut(node) {
                peer.remove(slice);
            }
        }
        if let Some(epoch) = new.told() {
            for node in new.peers.iter().filter(|node| !stays(node)) {
                let peer = self.peers.entry(*node).or_default();
                let soon = (peer.last_sent + MIN_GAP).max(now);
                peer.next = if peer.is_empty() { soon } else { peer.next.min(soon) };
                peer.insert(now, slice, epoch);
            }
        }
        if new.epoch.is_some() || new.muted {
            self.vouched.insert(slice, new);
        }
    }
}

impl Vouched {
    /// The epoch that peers are told of.
    fn told(&self) -> Option<Epoch> {
        self.epoch.filter(|_| !self.muted)
    }
}

impl Leases for Beacons {
    fn answered(&self, peer: NodeId, slice: SliceId, epoch: Epoch) -> Option<Time> {
        self.peers.get(&peer)?.answered(slice, epoch)
    }

    fn heard(&self, peer: NodeId, slice: SliceId, epoch: Epoch) -> Option<Time> {
        let heard = self.peers.get(&peer)?.heard(slice, epoch);
        heard.max(self.awake_since)
    }
}

#[cfg(test)]
mod tests;

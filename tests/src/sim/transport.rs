//! Streams between the nodes: made, used, broken, and made again.
//!
//! A node keeps one outgoing stream for data and one for beacons to every other node; a client has
//! one to each node that it needs. A stream held up by a blocked link is given up after a while,
//! as keepalives do; the two ends learn it each in its own time, and what is still under way on a
//! client's old stream may arrive while its new one is in use.

use std::time::Duration;

use mooring_replication::{BeaconEvent, Event};
use mooring_terms::NodeId;

use super::coverage::Kind;
use super::network::{Connection, Plane, Way};
use super::node::Power;
use super::packet::Packet;
use super::{Happening, Sim};

impl Sim {
    /// Puts a packet on its way; lost if the stream is broken.
    pub(super) fn send(&mut self, connection: Connection, way: Way, packet: Packet) {
        self.coverage.count(Kind::Message, packet.name());
        let now = self.queue.now();
        if let Some(due) = self.network.send(now, connection, way, packet) {
            self.queue.at(due, Happening::Arrive(connection, way));
        }
    }

    /// Takes from a stream what is due.
    pub(super) fn arrive(&mut self, connection: Connection, way: Way) {
        loop {
            let Some(ends) = self.network.ends(connection) else { return };
            let (from, to) = (ends[way as usize], ends[1 - way as usize]);
            if self.nodes[&to].power != Power::Running {
                return;
            }
            let now = self.queue.now();
            let Some(packet) = self.network.receive(now, connection, way) else { return };
            self.take(connection, from, to, packet);
        }
    }

    fn take(&mut self, connection: Connection, from: NodeId, to: NodeId, packet: Packet) {
        match packet {
            Packet::Replica(message) => {
                let seen = self.checkers.arrived(from, to, &message);
                self.check(seen);
                self.deliver(to, message.slice, Event::Message { from, message });
            }
            Packet::Beacon(message) => self.beacons(to, BeaconEvent::Message { from, message }),
            Packet::Hello { client, stream } => {
                self.client_streams.insert((client, stream), connection);
                self.deliver_to_all(to, &Event::ClientStream { client, stream });
            }
            Packet::Request(message) => {
                self.checkers.requested(&message);
                let (id, request) = (message.id, message.request);
                let event = Event::Request { from, id, request };
                self.deliver(to, message.slice, event);
            }
            Packet::Reply(message) => self.client_reply(connection, from, message),
        }
    }

    /// Looks after the streams and the pool of a node, again and again.
    pub(super) fn watch(&mut self, id: NodeId) {
        let boot = self.nodes[&id].boot.0;
        let peers: Vec<NodeId> = self.nodes.keys().copied().filter(|peer| *peer != id).collect();
        for peer in peers {
            if !self.nodes[&id].outgoing.contains_key(&peer) {
                self.dial(id, peer, Plane::Data);
            }
            if !self.nodes[&id].beacon_streams.contains_key(&peer) {
                self.dial(id, peer, Plane::Beacons);
            }
        }
        self.watch_pool(id);
        self.tend_pool(id);
        self.register(id);
        let pause = self.prng.millis(80, 160);
        self.queue.after(pause, Happening::Watch(id, boot));
    }

    fn dial(&mut self, from: NodeId, to: NodeId, plane: Plane) {
        let boot = self.nodes[&from].boot.0;
        let delay = self.prng.micros(100, 2_000);
        self.queue.after(delay, Happening::Dialed(from, boot, to, plane));
    }

    /// Whether a new stream between the two could be made now.
    pub(super) fn can_connect(&self, from: NodeId, to: NodeId) -> bool {
        let both = self.network.passes(from, to) && self.network.passes(to, from);
        both && self.nodes[&to].power == Power::Running
    }

    pub(super) fn dialed(&mut self, from: NodeId, to: NodeId, plane: Plane) {
        if !self.can_connect(from, to) {
            return;
        }
        let node = self.nodes.get_mut(&from).expect("a node that dials exists");
        let streams =
            if plane == Plane::Data { &mut node.outgoing } else { &mut node.beacon_streams };
        if streams.contains_key(&to) {
            return;
        }
        let connection = self.network.open(plane, from, to);
        streams.insert(to, connection);
        if plane == Plane::Data {
            self.deliver_to_all(from, &Event::Connected { peer: to });
        }
    }

    /// Breaks a stream: what is under way is lost, and each end learns it a little later.
    pub(super) fn break_stream(&mut self, connection: Connection, quickly: bool) {
        self.doomed.remove(&connection);
        let plane = self.network.plane(connection);
        let Some(ends) = self.network.ends(connection) else { return };
        if plane == Some(Plane::Client) && self.prng.percent(50) {
            // Only its client gives it up: what it had sent may still arrive.
            self.count(Kind::Situation, "old client stream lingers");
            let lingers = self.prng.millis(1, 1_500);
            self.queue.after(lingers, Happening::Closed(connection));
        } else {
            self.network.close(connection);
        }
        for (i, end) in ends.into_iter().enumerate() {
            let boot = self.nodes[&end].boot.0;
            let delay =
                if quickly { self.prng.micros(50, 3_000) } else { self.prng.millis(1, 800) };
            self.queue.after(delay, Happening::Broken(end, boot, ends[1 - i], connection));
        }
    }

    pub(super) fn broken(&mut self, node: NodeId, peer: NodeId, connection: Connection) {
        let Some(owner) = self.nodes.get_mut(&node) else { return };
        if owner.outgoing.get(&peer) == Some(&connection) {
            owner.outgoing.remove(&peer);
            self.deliver_to_all(node, &Event::Disconnected { peer });
        } else if owner.beacon_streams.get(&peer) == Some(&connection) {
            owner.beacon_streams.remove(&peer);
        }
        self.client_disconnected(node, connection);
    }

    /// Gives up streams that a blocked link has held up for too long.
    pub(super) fn watch_links(&mut self) {
        let now = self.queue.now();
        let blocked = self.network.blocked();
        self.doomed.retain(|connection, _| blocked.contains(connection));
        for connection in blocked {
            match self.doomed.get(&connection) {
                None => {
                    let patience = self.prng.millis(300, 3_000);
                    self.doomed.insert(connection, now + patience);
                }
                Some(until) if *until <= now => self.break_stream(connection, false),
                Some(_) => {}
            }
        }
    }

    /// Blocks one direction between two nodes.
    pub(super) fn block(&mut self, from: NodeId, to: NodeId) {
        self.network.block(from, to);
    }

    /// Opens it again: what waited comes at once.
    pub(super) fn unblock(&mut self, from: NodeId, to: NodeId) {
        let now = self.queue.now();
        for connection in self.network.unblock(from, to) {
            self.queue.at(now, Happening::Arrive(connection, Way::Out));
            self.queue.at(now, Happening::Arrive(connection, Way::Back));
        }
    }

    /// Breaks all streams that end at a node whose process is gone. Where the machine is still
    /// there, the other ends learn it at once.
    pub(super) fn break_all(&mut self, id: NodeId, machine_is_there: bool) {
        for connection in self.network.of(id) {
            if machine_is_there {
                self.break_stream(connection, true);
            } else {
                let until = self.queue.now() + self.prng.millis(200, 3_000);
                self.doomed.insert(connection, until);
            }
        }
    }

    /// Breaks doomed streams to a machine that is back, and says so to the other ends.
    pub(super) fn reset_old_streams(&mut self, id: NodeId) {
        for connection in self.network.of(id) {
            self.break_stream(connection, true);
        }
    }

    /// Streams to a machine without power are given up after a while.
    pub(super) fn watch_doomed(&mut self) {
        let now = self.queue.now();
        let over: Vec<Connection> = self
            .doomed
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in over {
            self.break_stream(connection, false);
        }
    }
}

/// How often links are looked at.
pub(super) const LINK_WATCH: Duration = Duration::from_millis(100);

//! The network between the nodes: ordered streams, as the transport gives them, over links that
//! are slow, cut one way or both, or mended before anyone has noticed.
//!
//! ```text
//!   a ──[ m3 m2 m1 ]──> b      one queue each way; a message leaves it when it is due, the link
//!   a <──[ r1 r2 ]───── b      is open and the receiver runs; else it waits, and keeps its place
//! ```
//!
//! - Within a stream and a direction, messages arrive in order, each once, or not at all: when a
//!   stream breaks, all that had not arrived is lost.
//! - A blocked link loses nothing by itself (TCP sends again), so that a short partition delivers
//!   late; a stream that stays blocked is declared broken by whoever owns the clock.
//! - Nothing here knows what a message means.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mooring_terms::{NodeId, Time};

use super::prng::Prng;

/// One connection, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// A direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the node that opened it.
    Out = 0,
    /// Back to it.
    Back = 1,
}

/// What a stream carries: beacons have connections of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plane {
    /// What replicas say to each other, one way.
    Data,
    /// Requests of one client, and the answers back.
    Client,
    /// Beacons and their answers.
    Beacons,
}

#[derive(Debug)]
struct Stream<M> {
    plane: Plane,
    ends: [NodeId; 2],
    /// From end 0 to end 1, and back; each message with the moment it is due.
    queues: [VecDeque<(Time, M)>; 2],
}

/// One direction between two nodes.
#[derive(Clone, Copy, Debug)]
struct Link {
    latency: Duration,
    jitter: Duration,
    /// Added while the link is slow.
    slow: Duration,
    /// How many faults block it now.
    blocked: u32,
}

/// All streams and links.
#[derive(Debug)]
pub struct Network<M> {
    streams: BTreeMap<Connection, Stream<M>>,
    links: BTreeMap<(NodeId, NodeId), Link>,
    next: u64,
    prng: Prng,
}

impl<M> Network<M> {
    /// Links between all of `nodes`, none of them with a stream yet.
    #[must_use]
    pub fn new(nodes: &[NodeId], mut prng: Prng) -> Self {
        let mut links = BTreeMap::new();
        for &from in nodes {
            for &to in nodes {
                let link = Link {
                    latency: prng.micros(20, 400),
                    jitter: prng.micros(1, 300),
                    slow: Duration::ZERO,
                    blocked: 0,
                };
                links.insert((from, to), link);
            }
        }
        Self { streams: BTreeMap::new(), links, next: 1, prng }
    }

    /// A new stream between two nodes.
    pub fn open(&mut self, plane: Plane, from: NodeId, to: NodeId) -> Connection {
        let connection = Connection(self.next);
        self.next += 1;
        let queues = [VecDeque::new(), VecDeque::new()];
        self.streams.insert(connection, Stream { plane, ends: [from, to], queues });
        connection
    }

    /// What a stream carries; `None` once it is broken.
    #[must_use]
    pub fn plane(&self, connection: Connection) -> Option<Plane> {
        self.streams.get(&connection).map(|stream| stream.plane)
    }

    /// The two ends of a stream, who opened it first; `None` once it is broken.
    #[must_use]
    pub fn ends(&self, connection: Connection) -> Option<[NodeId; 2]> {
        self.streams.get(&connection).map(|stream| stream.ends)
    }

    /// Whether a message could get from one node to the other now.
    #[must_use]
    pub fn passes(&self, from: NodeId, to: NodeId) -> bool {
        from == to || self.links.get(&(from, to)).is_some_and(|link| link.blocked == 0)
    }

    /// Queues `message`, and says when it is due; `None` if the stream is broken, so that it is
    /// lost. To oneself takes no time.
    pub fn send(
        &mut self,
        now: Time,
        connection: Connection,
        way: Way,
        message: M,
    ) -> Option<Time> {
        let stream = self.streams.get_mut(&connection)?;
        let way = way as usize;
        let (from, to) = (stream.ends[way], stream.ends[1 - way]);
        let link = self.links.get(&(from, to)).copied()?;
        let jitter = u64::try_from(link.jitter.as_micros()).expect("a short time");
        let delay = link.latency + link.slow + self.prng.micros(0, jitter);
        let due = if from == to { now } else { now + delay };
        let due = stream.queues[way].back().map_or(due, |(last, _)| due.max(*last));
        stream.queues[way].push_back((due, message));
        Some(due)
    }

    /// The next message due this way on this stream, if its link lets it through.
    pub fn receive(&mut self, now: Time, connection: Connection, way: Way) -> Option<M> {
        let stream = self.streams.get_mut(&connection)?;
        let way = way as usize;
        let (from, to) = (stream.ends[way], stream.ends[1 - way]);
        let open = from == to || self.links.get(&(from, to)).is_some_and(|l| l.blocked == 0);
        if !open || stream.queues[way].front().is_none_or(|(due, _)| *due > now) {
            return None;
        }
        stream.queues[way].pop_front().map(|(_, message)| message)
    }

    /// Breaks a stream: all that had not arrived is lost. Gives its ends.
    pub fn close(&mut self, connection: Connection) -> Option<[NodeId; 2]> {
        self.streams.remove(&connection).map(|stream| stream.ends)
    }

    /// The streams that end at `node`.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Vec<Connection> {
        let mine = self.streams.iter().filter(|(_, stream)| stream.ends.contains(&node));
        mine.map(|(connection, _)| *connection).collect()
    }

    /// The streams between two nodes.
    #[must_use]
    pub fn between(&self, a: NodeId, b: NodeId, plane: Plane) -> Vec<Connection> {
        let ours = self.streams.iter().filter(|(_, stream)| {
            stream.plane == plane && BTreeSet::from(stream.ends) == BTreeSet::from([a, b])
        });
        ours.map(|(connection, _)| *connection).collect()
    }

    /// Streams that a blocked link holds up, so that they would time out by and by.
    #[must_use]
    pub fn blocked(&self) -> Vec<Connection> {
        let held = self.streams.iter().filter(|(_, stream)| {
            let [a, b] = stream.ends;
            !self.passes(a, b) || !self.passes(b, a)
        });
        held.map(|(connection, _)| *connection).collect()
    }

    /// Blocks one direction; every `block` needs an `unblock`.
    pub fn block(&mut self, from: NodeId, to: NodeId) {
        if let Some(link) = self.links.get_mut(&(from, to)) {
            link.blocked += 1;
        }
    }

    /// Takes one `block` back. Gives the streams that may have messages waiting.
    pub fn unblock(&mut self, from: NodeId, to: NodeId) -> Vec<Connection> {
        if let Some(link) = self.links.get_mut(&(from, to)) {
            link.blocked = link.blocked.saturating_sub(1);
        }
        let planes = [Plane::Data, Plane::Client, Plane::Beacons];
        planes.into_iter().flat_map(|plane| self.between(from, to, plane)).collect()
    }

    /// Makes one direction slower by `by`, or as fast as it was with zero.
    pub fn slow(&mut self, from: NodeId, to: NodeId, by: Duration) {
        if let Some(link) = self.links.get_mut(&(from, to)) {
            link.slow = by;
        }
    }
}

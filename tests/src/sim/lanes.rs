//! A node's way to its pool: one lane in order, one for syncs, and what goes wrong on them.

use std::time::Duration;

use mooring_config::Command as ConfigCommand;
use mooring_replication::{BeaconEvent, Event, Mark};
use mooring_terms::{NodeId, SliceId};

use super::coverage::Kind;
use super::node::Io;
use super::store::AppendFault;
use super::{Happening, Sim, Ticket};

impl Sim {
    pub(super) fn push_io(&mut self, id: NodeId, slice: SliceId, io: Io) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.failed {
            return;
        }
        node.lane.push_back((slice, io));
        node.stuck_since.get_or_insert(now);
        self.start_lane(id);
    }

    /// Begins the next operation of the lane, if there is one and the disk moves.
    pub(super) fn start_lane(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.lane_busy || node.hung || node.failed || !node.exists() {
            return;
        }
        let Some((_, io)) = node.lane.front() else { return };
        let latency = match io {
            Io::Append { .. } => self.prng.micros(4, 60),
            Io::Read { .. } | Io::Query { .. } | Io::ReadRecords { .. } => self.prng.micros(5, 300),
            Io::Sync { .. } | Io::Committed { .. } | Io::Reserve { .. } | Io::Release { .. } => {
                Duration::from_micros(1)
            }
        };
        node.lane_busy = true;
        self.queue.after(latency, Happening::Io(id, node.boot.0));
    }

    pub(super) fn io_done(&mut self, id: NodeId) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.lane_busy = false;
        if node.hung || node.failed {
            return;
        }
        let Some((slice, io)) = node.lane.pop_front() else { return };
        node.stuck_since = node.has_work().then_some(now);
        let event = match io {
            Io::Append { mark, entries } => match node.pool.append(slice, &entries) {
                Ok(()) => Some(Event::Received { mark }),
                Err(AppendFault::Failed) => {
                    self.pool_failed(id);
                    return;
                }
                Err(AppendFault::NoSpace) => {
                    let text = format!("{id:?} {slice}: {entries:?} found no space");
                    self.fail("space", text);
                    return;
                }
            },
            Io::Sync { mark } => {
                node.unsynced.push((slice, mark));
                None
            }
            Io::Committed { sequence } => {
                node.pool.committed(slice, sequence);
                None
            }
            Io::Read { token, range } => {
                let result = node.pool.read(slice, range);
                Some(Event::ReadDone { token, result })
            }
            Io::Query { token, query, from, limit_blocks } => {
                let result = node.pool.query(slice, query, from, limit_blocks);
                Some(Event::QueryDone { token, result })
            }
            Io::ReadRecords { token, after, limit_bytes } => {
                let records = node.pool.records(slice, after, limit_bytes);
                Some(Event::RecordsRead { token, records })
            }
            Io::Reserve { bytes } => {
                let bytes = node.pool.reserve(slice, bytes);
                if bytes == 0 && self.faults.full.iter().eq([&id]) {
                    self.coverage.count(Kind::Situation, "one replica alone has no space");
                }
                Some(Event::Reserved { bytes })
            }
            Io::Release { bytes } => {
                node.pool.release(slice, bytes);
                None
            }
        };
        self.start_sync(id);
        self.hear_pool(id);
        if let Some(event) = event {
            self.deliver(id, slice, event);
        }
        self.start_lane(id);
    }

    /// Begins a sync for all who wait for one, if none is under way.
    pub(super) fn start_sync(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.hung || node.failed || !node.syncing.is_empty() || node.unsynced.is_empty() {
            return;
        }
        node.syncing = std::mem::take(&mut node.unsynced);
        let latency = if self.prng.chance(1, 40) {
            self.prng.millis(10, 80)
        } else {
            self.prng.micros(150, 4_000)
        };
        self.queue.after(latency, Happening::Synced(id, node.boot.0));
    }

    pub(super) fn synced(&mut self, id: NodeId) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.hung || node.failed {
            return;
        }
        if node.syncing.is_empty() {
            self.start_sync(id);
            return;
        }
        if !node.pool.sync() {
            self.pool_failed(id);
            return;
        }
        self.checkers.synced(id, &*node.pool);
        let mut done: Vec<(SliceId, Mark)> = std::mem::take(&mut node.syncing);
        node.stuck_since = node.has_work().then_some(now);
        done.sort_unstable();
        // Completions are cumulative: the highest mark of each slice says it all.
        let last = done
            .iter()
            .enumerate()
            .filter(|(i, (slice, _))| done.get(i + 1).is_none_or(|(next, _)| next != slice));
        let last: Vec<(SliceId, Mark)> = last.map(|(_, mark)| *mark).collect();
        for (slice, mark) in last {
            self.deliver(id, slice, Event::Durable { mark });
        }
        self.start_sync(id);
        if self.prng.chance(1, 8) {
            self.tend_pool(id);
        }
    }

    /// Housekeeping, which in a daemon goes on by itself.
    pub(super) fn tend_pool(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.hung || node.failed || !node.exists() {
            return;
        }
        node.pool.tend();
        let reused = node.pool.reused();
        let again = reused.saturating_sub(node.reused);
        node.reused = reused;
        let [all, in_reclaim] = node.pool.crash_points();
        self.coverage.add_to(Kind::Situation, "segment used again", again);
        self.coverage.add_to(Kind::Situation, "crash point compared", all);
        self.coverage.add_to(Kind::Situation, "crash point in reclaim compared", in_reclaim);
        self.hear_pool(id);
    }

    /// A pool that knows better than its engine may complain.
    pub(super) fn hear_pool(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if let Some(violation) = node.pool.complaint() {
            self.fail(violation.property, format!("{id:?}: {}", violation.text));
        }
    }

    /// The pool has failed, and stays so until it is opened anew.
    pub(super) fn pool_failed(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.failed {
            return;
        }
        node.failed = true;
        node.lane.clear();
        node.unsynced.clear();
        node.syncing.clear();
        node.stuck_since = None;
        let (pool, incarnation) = (node.pool_id, node.incarnation);
        let slices: Vec<SliceId> = node.slots.keys().copied().collect();
        self.count(Kind::Situation, "pool failed");
        self.mute(id, true);
        for slice in slices {
            self.deliver(id, slice, Event::StoreFailed);
        }
        let reason = "simulated".to_owned();
        let command = ConfigCommand::PoolFailed { pool, incarnation, reason };
        self.propose(id, Ticket::PoolFailed, command);
    }

    /// Vouches for nothing that lies in this node's pool, or lets the replicas say so again.
    pub(super) fn mute(&mut self, id: NodeId, muted: bool) {
        let slices: Vec<SliceId> = self.nodes[&id].slots.keys().copied().collect();
        for slice in slices {
            self.beacons(id, BeaconEvent::Mute { slice, muted });
        }
    }

    /// The disk hangs, or goes on.
    pub(super) fn hang(&mut self, id: NodeId, hung: bool) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.hung = hung;
        if hung || !node.exists() {
            return;
        }
        let boot = node.boot.0;
        let under_way = !node.syncing.is_empty();
        if under_way {
            self.queue.at(now, Happening::Synced(id, boot));
        }
        self.start_lane(id);
        self.start_sync(id);
    }

    /// A pool that completes nothing for a lease vouches for nothing, and its primaries resign.
    pub(super) fn watch_pool(&mut self, id: NodeId) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.failed {
            return;
        }
        let stuck = node.stuck_for(now) >= node.options.lease;
        if stuck == node.resigned {
            return;
        }
        node.resigned = stuck;
        self.mute(id, stuck);
        if stuck {
            self.count(Kind::Situation, "pool stuck for a lease");
            self.deliver_to_all(id, &Event::Resign);
        }
    }
}

//! Nodes start, die, lose power, are stopped and go on.

use mooring_config::Boot;
use mooring_terms::{Incarnation, NodeId};

use super::coverage::Kind;
use super::network::Way;
use super::node::Power;
use super::{Happening, Sim};

impl Sim {
    /// A node's daemon starts: its pool is opened anew, and the replicas in it with it.
    pub(super) fn start(&mut self, id: NodeId) {
        if self.nodes[&id].power != Power::Down {
            return;
        }
        self.reset_old_streams(id);
        let incarnation = Incarnation(self.prng.next());
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let opened = node.pool.open();
        node.boot = Boot(node.boot.0 + 1);
        node.incarnation = incarnation;
        node.power = Power::Running;
        node.failed = !opened;
        let boot = node.boot.0;
        let now = self.queue.now();
        let complaint = node.pool.complaint();
        if let Some((at, had)) = node.cut.take() {
            let lost = had.iter().any(|(slice, last)| node.pool.recovered(*slice).last < *last);
            if lost && now.since(at) < node.options.lease {
                self.coverage.count(Kind::Situation, "reboot inside the lease loses writes");
            }
        }
        let kept = &node.kept;
        self.trace.line(now, format_args!("{id:?} starts: {incarnation:?}, kept {kept:?}"));
        self.held.remove(&id);
        if let Some(violation) = complaint {
            self.fail(violation.property, format!("{id:?}: {}", violation.text));
        }
        let seen = self.raft.seen_by(id).clone();
        for (slice, config) in seen.slices() {
            let here = config.member(id).is_some_and(|m| m.pool == self.nodes[&id].pool_id);
            if here && opened {
                self.make_replica(id, slice, Some(config));
            }
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            // Until the machine goes down, a later start of the daemon finds all that was appended.
            node.kept.push(incarnation);
        }
        let newest = self.raft.newest();
        let catch_up = self.prng.millis(5, 400);
        self.queue.after(catch_up, Happening::Applied(id, newest));
        self.queue.at(now, Happening::Watch(id, boot));
    }

    /// `kill -9`: the process is gone at once, and what the kernel has, stays.
    pub(super) fn kill(&mut self, id: NodeId) {
        if !self.nodes[&id].exists() {
            return;
        }
        self.count(Kind::Fault, "process killed");
        self.note_what_dies(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.failed {
            // After a failed sync nothing says what of the kernel's data is on the disk.
            node.kept.clear();
            node.pool.cut(&mut self.prng);
        } else {
            node.pool.kill();
        }
        node.drop_process();
        self.bury(id);
        self.break_all(id, true);
    }

    /// The power is gone: so is all that was not synced.
    pub(super) fn cut_power(&mut self, id: NodeId) {
        self.count(Kind::Fault, "power cut");
        if self.nodes[&id].exists() {
            self.note_what_dies(id);
        }
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let had =
            node.pool.slices().into_iter().map(|slice| (slice, node.pool.recovered(slice).last));
        node.cut = Some((now, had.collect()));
        node.pool.cut(&mut self.prng);
        node.kept.clear();
        node.drop_process();
        self.bury(id);
        self.break_all(id, false);
    }

    fn bury(&mut self, id: NodeId) {
        self.held.remove(&id);
        self.clients_die_with(id);
    }

    /// Counts the situations that a dying node is in.
    fn note_what_dies(&mut self, id: NodeId) {
        let joining = self.raft.state().slices().any(|(_, config)| {
            config.joining.iter().any(|member| {
                member.node == id && member.incarnation == self.nodes[&id].incarnation
            })
        });
        let joins = self.nodes[&id].slots.values().any(|s| s.state.starts_with("joining"));
        if joining || joins {
            self.count(Kind::Situation, "crash in the middle of a join");
        }
    }

    /// The daemon is stopped by a signal, with all its threads and timers.
    pub(super) fn stop(&mut self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        if node.power != Power::Running {
            return false;
        }
        node.power = Power::Stopped;
        self.count(Kind::Fault, "process stopped");
        true
    }

    /// It goes on: all that came in the meantime is there, and every timer is late.
    pub(super) fn go_on(&mut self, id: NodeId) {
        let now = self.queue.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.power != Power::Stopped {
            return;
        }
        node.power = Power::Running;
        self.trace.line(now, format_args!("{id:?} goes on"));
        let sockets_first = self.prng.percent(50);
        if sockets_first {
            self.pump(id);
        }
        for happening in self.held.remove(&id).unwrap_or_default() {
            self.queue.at(now, happening);
        }
        if !sockets_first {
            self.pump(id);
        }
    }

    /// Lets everything that waits in the node's sockets arrive.
    fn pump(&mut self, id: NodeId) {
        let now = self.queue.now();
        for connection in self.network.of(id) {
            self.queue.at(now, Happening::Arrive(connection, Way::Out));
            self.queue.at(now, Happening::Arrive(connection, Way::Back));
        }
    }
}

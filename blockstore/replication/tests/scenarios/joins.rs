//! Replicas that are brought level.

use mooring_config::{ClusterVersion, Member};
use mooring_replication::{
    ClientEvent, Event, Io, IoError, IoId, Note, Operation, Outcome, Refusal,
};
use mooring_terms::{
    AttachmentEpoch, BlockIndex, BlockRange, Epoch, Incarnation, NodeId, PoolId, SliceIndex,
};

use crate::cluster::{Cluster, write};

impl Cluster {
    /// An operator makes the replica on `node` the history, which ends all attachments below
    /// `floor`.
    fn accept_loss(&mut self, node: u64, floor: AttachmentEpoch) {
        let pool = PoolId(node);
        let incarnation = self.raft.opened[&pool];
        let config = &mut self.raft.config;
        let survivor = Member { node: NodeId(node), pool, incarnation };
        config.joining.extend(std::mem::take(&mut config.in_sync));
        config.joining.retain(|member| member.node != survivor.node);
        config.in_sync = vec![survivor];
        config.primary = survivor.node;
        config.epoch = config.epoch.next();
        config.tail_lost = config.epoch;
        config.seal = floor;
        self.publish();
    }
}

/// Places a new, empty replica on node 4.
fn place(c: &mut Cluster) {
    c.nodes.insert(4, crate::cluster::Node::default());
    c.raft.config.joining.push(Member {
        node: NodeId(4),
        pool: PoolId(4),
        incarnation: Incarnation(4001),
    });
    c.start(4);
    c.publish();
}

#[test]
fn a_new_replica_gets_everything() {
    let mut c = Cluster::new(2);
    for block in 0..700 {
        c.write(block, block + 1);
    }
    c.discard(9);
    place(&mut c);
    c.settle();
    assert_eq!(c.in_sync(), [1, 2, 4]);
    c.check_replicas_agree();
    assert_eq!(c.value_at(4, 699), Some(700));
    assert_eq!(c.value_at(4, 9), Some(0));
}

#[test]
fn a_join_under_load_ends_level() {
    let mut c = Cluster::new(2);
    c.attach(2, |_| {});
    for block in 0..300 {
        c.submit_write(block, 1);
    }
    c.run_until("written", |c| c.device().client.pending() == 0);
    place(&mut c);
    let mut value = 1;
    while c.in_sync().len() < 3 {
        value += 1;
        c.submit_write(value % 300, value);
        c.run(150);
        assert!(value < 100_000, "{}", c.describe());
    }
    c.run_until("written", |c| c.device().client.pending() == 0);
    c.settle();
    c.check_replicas_agree();
}

#[test]
fn a_join_interrupted_by_every_kind_of_break_ends_level() {
    for step in 0..12 {
        let mut c = Cluster::new(3);
        for block in 0..600 {
            c.write(block, 1);
        }
        c.flush();
        c.kill(3);
        for block in 0..600 {
            c.write(block, 2);
        }
        c.start(3);
        c.run(25_000 + step * 1_500);
        match step % 4 {
            0 => c.glitch(1, 3),
            1 => {
                c.cut_power(3);
                c.start(3);
            }
            2 => {
                c.kill(3);
                c.start(3);
            }
            _ => c.cut_power(1),
        }
        c.write(5, 3);
        if !c.is_up(1) {
            c.start(1);
        }
        c.settle();
        c.check_replicas_agree();
        assert_eq!(c.value_at(3, 599), Some(2), "step {step}");
        assert_eq!(c.value_at(3, 5), Some(3), "step {step}");
    }
}

#[test]
fn what_was_never_acknowledged_is_superseded_when_its_replica_returns() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.flush();
    // Only the primary gets the write.
    c.cut(1, 2);
    c.cut(1, 3);
    let id = c.send_request(write(1, 66, true));
    c.run(300_000);
    assert!(!c.replies.contains_key(&id));
    assert_eq!(c.value_at(1, 1), Some(66));
    c.cut_power(1);
    c.run_until("another primary", |c| c.primary().is_some_and(|primary| primary != 1));
    assert_eq!(c.read(1), 1);
    c.heal(1, 2);
    c.heal(1, 3);
    c.start(1);
    c.settle();
    // The block that it had changed came back although nobody has written it since.
    assert_eq!(c.value_at(1, 1), Some(1));
    c.check_replicas_agree();
}

#[test]
fn a_joiner_that_falls_behind_catches_up_by_copying() {
    let mut c = Cluster::unstarted(3, 2);
    c.options.window_bytes = 16 * 4096;
    for node in 1..=3 {
        c.start(node);
    }
    c.run_until("it serves", |c| c.primary().is_some());
    c.seal(1);
    c.attach(2, |_| {});
    c.device_write(1, 1);
    c.kill(3);
    for block in 0..100 {
        c.device_write(block, 2);
    }
    c.start(3);
    c.run(28_000);
    c.hang_disk(3);
    for block in 0..100 {
        c.submit_write(block, 3);
    }
    c.run(200_000);
    c.unhang_disk(3);
    c.settle();
    c.check_replicas_agree();
    assert_eq!(c.value_at(3, 99), Some(3));
}

#[test]
fn a_joiner_with_a_full_pool_waits_and_holds_up_nobody() {
    let mut c = Cluster::new(2);
    for block in 0..300 {
        c.write(block, 1);
    }
    c.nodes.insert(4, crate::cluster::Node::default());
    c.nodes.get_mut(&4).expect("a node").store.space = Some(1 << 20);
    c.raft.config.joining.push(Member {
        node: NodeId(4),
        pool: PoolId(4),
        incarnation: Incarnation(4001),
    });
    c.start(4);
    c.publish();
    c.run(3_000_000);
    c.write(1, 2);
    assert_eq!(c.in_sync(), [1, 2]);
    assert!(c.notes.contains(&(4, Note::PoolFull { node: NodeId(4) })));
    c.nodes.get_mut(&4).expect("a node").store.space = Some(1 << 30);
    c.settle();
    c.check_replicas_agree();
}

#[test]
fn a_full_pool_of_one_replica_refuses_writes_before_they_are_logged_and_recovers() {
    let mut c = Cluster::new(3);
    c.write(0, 1);
    c.run(3_000_000);
    c.nodes.get_mut(&2).expect("a node").store.space = Some(200 << 10);
    let mut refused = 0;
    for block in 1..200 {
        match c.ask(write(block, 2, false)) {
            Outcome::Written(_) => assert_eq!(refused, 0, "no space, and then some"),
            Outcome::Refused(Refusal::NoSpace { node }) => {
                assert_eq!(node, NodeId(2));
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    // Its idle credit and what was left were used up to the last block that fits.
    assert!((138..146).contains(&refused), "{refused} refused");
    assert_eq!(c.read(5), 2);
    c.discard(5);
    assert_eq!(c.in_sync(), [1, 2, 3]);
    c.nodes.get_mut(&2).expect("a node").store.space = Some(1 << 30);
    c.write(199, 3);
    c.check_replicas_agree();
}

#[test]
fn with_fewer_than_the_minimum_io_waits_and_goes_on_when_one_returns() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.kill(2);
    c.write(1, 2);
    c.kill(3);
    assert_eq!(c.try_ask(write(1, 3, false), 5_000_000), None);
    assert_eq!(c.in_sync().len(), 2);
    assert!(c.status(1).expect("it is up").too_few);
    c.start(2);
    c.write(1, 4);
    c.check_replicas_agree();
    c.start(3);
    c.settle();
    c.check_replicas_agree();
}

#[test]
fn the_last_survivor_acknowledges_only_what_is_durable() {
    let mut c = Cluster::new(2);
    c.write(1, 1);
    c.kill(2);
    c.write(1, 2);
    assert_eq!(c.in_sync(), [1]);
    c.write(3, 3);
    c.cut_power(1);
    c.start(1);
    c.run_until("it serves", |c| c.primary() == Some(1));
    assert_eq!((c.read(1), c.read(3)), (2, 3));
}

#[test]
fn a_secondary_that_takes_over_below_the_minimum_serves_once_another_has_joined() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.kill(3);
    c.write(1, 2);
    c.cut_power(1);
    c.run(6_000_000);
    assert_eq!(c.try_ask(write(1, 3, false), 1_000_000), None);
    c.start(3);
    c.write(1, 4);
    assert_eq!(c.in_sync(), [2, 3]);
    c.check_replicas_agree();
    c.start(1);
    c.settle();
    c.check_replicas_agree();
}

#[test]
fn an_accepted_loss_makes_an_older_replica_the_history() {
    let mut c = Cluster::new(2);
    c.write(1, 1);
    c.write(2, 1);
    c.kill(2);
    c.write(1, 2);
    c.kill(1);
    c.start(2);
    c.run(3_000_000);
    assert_eq!(c.primary(), None);
    c.accept_loss(2, AttachmentEpoch(0));
    assert_eq!(c.read(1), 1);
    c.write(2, 3);
    let serving = |(node, note): &(u64, Note)| *node == 2 && matches!(note, Note::Serving { .. });
    assert!(c.notes.iter().any(serving), "the new primary says that it serves");
    c.start(1);
    c.settle();
    assert_eq!(c.value_at(1, 1), Some(1), "the lost history is superseded");
    c.check_replicas_agree();
    assert!(c.raft.config.tail_lost > Epoch(0));
}

#[test]
fn an_accepted_loss_of_a_replica_that_was_being_brought_level_leaves_all_alike() {
    let mut c = Cluster::new(2);
    for value in [1, 2] {
        for block in 0..600 {
            c.write(block, value);
        }
        if value == 1 {
            c.kill(2);
        }
    }
    c.start(2);
    c.run_until("half level", |c| c.value_at(2, 0) == Some(2));
    c.kill(1);
    assert_eq!(c.value_at(2, 599), Some(1), "the join isn't over");
    c.accept_loss(2, AttachmentEpoch(0));
    assert_eq!(c.read(599), 1);
    c.start(1);
    c.settle();
    assert_eq!(c.value_at(1, 599), Some(1), "what the survivor never got is given up");
    c.check_replicas_agree();
}

#[test]
fn an_accepted_loss_brings_no_earlier_attachment_back() {
    let mut c = Cluster::new(2);
    c.seal(1);
    c.write(1, 1);
    c.kill(2);
    // This seal lies in the history that is given up.
    c.seal(2);
    c.kill(1);
    c.start(2);
    c.run(3_000_000);
    let floor = AttachmentEpoch(3);
    c.accept_loss(2, floor);
    for old in [1, 2] {
        c.attachment = AttachmentEpoch(old);
        let fenced = Outcome::Refused(Refusal::Fenced { by: floor });
        assert_eq!(c.try_ask(write(1, 9, false), 3_000_000), Some(fenced), "attachment {old}");
    }
    c.seal(4);
    assert_eq!(c.read(1), 1);
    c.run(3_000_000);
    c.kill(2);
    c.start(2);
    c.settle();
    c.attachment = AttachmentEpoch(2);
    let fenced = c.try_ask(write(1, 9, false), 3_000_000);
    assert!(matches!(fenced, Some(Outcome::Refused(Refusal::Fenced { .. }))), "{fenced:?}");
}

#[test]
fn a_device_learns_of_an_accepted_loss_with_nothing_in_flight() {
    let mut c = Cluster::new(2);
    c.attach(1, |_| {});
    c.device_write(1, 1);
    c.kill(1);
    c.run(3_000_000);
    assert!(!c.device().tail_lost);
    c.accept_loss(2, AttachmentEpoch(7));
    let config = c.raft.config.clone();
    c.device_event(ClientEvent::Config { slice: SliceIndex(0), config });
    assert!(c.device().tail_lost, "its blocks are others than it knows");
    let io = Io::Flush;
    c.device_event(ClientEvent::Submit { id: IoId(1_000), io });
    assert_eq!(c.device().done.get(&IoId(1_000)), Some(&Err(IoError::TailLost)));
}

#[test]
fn a_hand_over_under_load_costs_milliseconds_and_no_error() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    let mut worst = 0;
    for round in 0..400_u64 {
        if round == 100 {
            c.event(1, Event::HandOver { to: NodeId(3) });
        }
        let before = c.now;
        c.device_write(round % 20, round);
        worst = worst.max(c.now - before);
    }
    assert_eq!(c.primary(), Some(3));
    assert!(worst < 100_000, "stall of {worst} us");
    assert_eq!(c.in_sync(), [1, 2, 3]);
    c.check_replicas_agree();
    let failover = |note: &Note| {
        matches!(
            note,
            Note::ReplicaLost { .. } | Note::TakingOver { .. } | Note::FalseTakeOver { .. }
        )
    };
    let told: Vec<_> = c.notes.iter().filter(|(_, note)| failover(note)).collect();
    assert!(told.is_empty(), "a planned hand-over is no failover: {told:?}");
}

#[test]
fn a_refused_hand_over_is_given_up() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.raft.up = false;
    c.event(1, Event::HandOver { to: NodeId(3) });
    c.run(2_500_000);
    c.raft.up = true;
    c.write(1, 2);
    assert_eq!(c.read(1), 2);
}

#[test]
fn a_primary_that_resigns_leaves_and_comes_back_as_secondary() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.event(1, Event::Resign);
    c.write(1, 2);
    assert_ne!(c.primary(), Some(1));
    c.settle();
    assert_eq!(c.in_sync(), [1, 2, 3]);
    c.check_replicas_agree();
}

#[test]
fn a_rotten_block_is_repaired_from_another_replica() {
    let mut c = Cluster::new(3);
    c.write(1, 11);
    c.write(2, 22);
    c.nodes.get_mut(&1).expect("a node").store.view.blocks.get_mut(&1).expect("it").rotten = true;
    assert_eq!(c.read(1), 11);
    assert!(!c.nodes[&1].store.view.blocks[&1].rotten);
    c.nodes.get_mut(&1).expect("a node").store.view.blocks.get_mut(&2).expect("it").missing = true;
    assert_eq!(c.read(2), 22);
    c.check_replicas_agree();
    assert!(c.notes.iter().any(|(_, note)| matches!(note, Note::BlockRepaired { .. })));
}

#[test]
fn a_block_rotten_everywhere_is_an_error_that_names_it() {
    let mut c = Cluster::new(3);
    c.write(1, 11);
    for node in c.nodes.values_mut() {
        node.store.view.blocks.get_mut(&1).expect("it").rotten = true;
    }
    let range = mooring_terms::BlockRange::new(mooring_terms::BlockIndex(1), 1);
    let outcome = c.ask(mooring_replication::Operation::Read(range));
    let expected = matches!(
        outcome,
        Outcome::Refused(Refusal::Corrupt { block, node, .. }) if block.0 == 1 && node.0 == 1
    );
    assert!(expected, "{outcome:?}");
    c.write(1, 12);
    assert_eq!(c.read(1), 12);
}

impl Cluster {
    fn rot(&mut self, node: u64, block: u64) {
        let node = self.nodes.get_mut(&node).expect("a node");
        node.store.view.blocks.get_mut(&block).expect("it was written").rotten = true;
    }

    /// Reads a block that must be refused, and gives the block and the node that it names.
    fn read_refused(&mut self, block: u64) -> (u64, u64) {
        match self.ask(Operation::Read(BlockRange::new(BlockIndex(block), 1))) {
            Outcome::Refused(Refusal::Corrupt { block, node, .. }) => (block.0, node.0),
            outcome => panic!("{outcome:?}"),
        }
    }

    /// Node 1 goes on alone, and its only copy of block 1 rots, which node 2 has as it was before.
    fn with_a_block_that_nobody_has(version: ClusterVersion) -> Self {
        let mut c = Self::new(2);
        c.version = version;
        for node in 1..=2 {
            c.event(node, Event::Version(version));
        }
        for block in 0..4 {
            c.write(block, 10 + block);
        }
        c.kill(2);
        c.run_until("alone", |c| c.in_sync() == [1]);
        c.write(0, 20);
        c.write(1, 21);
        c.rot(1, 1);
        c.rot(1, 2);
        c
    }
}

#[test]
fn a_block_that_nobody_has_holds_no_join_up_and_is_an_error_wherever_it_is_read() {
    let mut c = Cluster::with_a_block_that_nobody_has(ClusterVersion::LOST_BLOCKS);
    c.start(2);
    c.settle();
    assert_eq!(c.in_sync(), [1, 2]);
    assert_eq!((c.value_at(2, 0), c.value_at(2, 1)), (Some(20), None));
    assert_eq!(c.read(2), 12, "what the joiner still had repairs the primary");
    assert_eq!(c.read_refused(1), (1, 1));
    c.event(1, Event::HandOver { to: NodeId(2) });
    c.run_until("handed over", |c| c.primary() == Some(2));
    assert_eq!(c.read_refused(1), (1, 2));
    c.write(1, 31);
    assert_eq!(c.read(1), 31);
    c.check_replicas_agree();
}

#[test]
fn a_lost_block_is_repaired_by_whoever_returns_with_it() {
    let mut c = Cluster::new(2);
    c.write(0, 10);
    c.write(1, 11);
    c.kill(2);
    c.run_until("alone", |c| c.in_sync() == [1]);
    c.write(0, 20);
    // Nobody who is in sync has it, and a new replica learns that; node 2 has it still.
    c.rot(1, 1);
    place(&mut c);
    c.run_until("two", |c| c.in_sync() == [1, 4]);
    assert_eq!(c.value_at(4, 1), None);
    assert_eq!(c.read_refused(1), (1, 1));
    c.start(2);
    c.settle();
    assert_eq!(c.in_sync(), [1, 2, 4]);
    assert_eq!(c.read(1), 11);
    c.event(1, Event::HandOver { to: NodeId(4) });
    c.run_until("handed over", |c| c.primary() == Some(4));
    assert_eq!(c.read(1), 11);
    c.check_replicas_agree();
}

#[test]
fn nobody_is_told_of_lost_blocks_before_every_node_can_understand_it() {
    let mut c = Cluster::with_a_block_that_nobody_has(ClusterVersion(1));
    c.start(2);
    c.run(10_000_000);
    assert_eq!(c.in_sync(), [1], "the join waits");
    for node in 1..=2 {
        c.event(node, Event::Version(ClusterVersion::LOST_BLOCKS));
    }
    c.settle();
    assert_eq!(c.in_sync(), [1, 2]);
}

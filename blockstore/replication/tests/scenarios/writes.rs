//! Writing, reading and flushing while nothing fails.

use mooring_replication::{Operation, Outcome, Refusal};

use crate::cluster::{Cluster, write};

#[test]
fn writes_reach_every_replica() {
    let mut c = Cluster::new(3);
    for block in 0..20 {
        c.write(block, block + 100);
    }
    c.discard(3);
    c.run(10_000);
    c.check_replicas_agree();
    assert_eq!(c.read(5), 105);
    assert_eq!(c.read(3), 0);
    assert_eq!(c.value_at(3, 7), Some(107));
    assert_eq!(c.value_at(3, 3), Some(0));
}

#[test]
fn one_replica_is_enough_for_a_volume_of_one() {
    let mut c = Cluster::new(1);
    c.write(1, 11);
    c.flush();
    assert_eq!(c.read(1), 11);
}

#[test]
fn a_flush_makes_every_replica_durable_and_a_write_does_not() {
    let mut c = Cluster::new(3);
    c.write(1, 11);
    let before: Vec<usize> = c.nodes.values().map(|node| node.store.durable).collect();
    c.run(100_000);
    let after: Vec<usize> = c.nodes.values().map(|node| node.store.durable).collect();
    assert_eq!(before, after, "nobody asked for a sync");
    c.flush();
    for node in c.nodes.values() {
        assert_eq!(node.store.durable, node.store.len());
    }
}

#[test]
fn a_flush_with_nothing_to_flush_is_answered_at_once() {
    let mut c = Cluster::new(3);
    c.write_durably(1, 11);
    let (before, messages) = (c.now, c.messages);
    c.flush();
    assert!(c.now - before < 200, "{} us", c.now - before);
    assert_eq!(c.messages, messages);
}

#[test]
fn an_idle_slice_asks_for_nothing() {
    let mut c = Cluster::new(3);
    c.write(1, 11);
    c.run(5_000_000);
    for node in c.nodes.values() {
        let replica = &node.process.as_ref().expect("it is up").replica;
        assert_eq!(replica.deadline(), None);
    }
    let messages = c.messages;
    c.run(60_000_000);
    assert_eq!(c.messages, messages);
    assert_eq!(c.raft.config.epoch.0, 1);
}

#[test]
fn an_older_attachment_is_fenced_and_stays_so_over_a_change_of_primary() {
    let mut c = Cluster::new(3);
    c.write(1, 11);
    c.seal(2);
    c.attachment.0 = 1;
    let fenced = |outcome| matches!(outcome, Outcome::Refused(Refusal::Fenced { by }) if by.0 == 2);
    assert!(fenced(c.ask(write(1, 12, false))));
    c.kill(1);
    c.run_until("another primary", |c| c.primary().is_some_and(|primary| primary != 1));
    assert!(fenced(c.ask(write(1, 13, false))));
    assert!(fenced(c.ask(Operation::Flush)));
    c.attachment.0 = 3;
    let outcome = c.ask(write(1, 14, false));
    assert_eq!(outcome, Outcome::Refused(Refusal::NotSealed));
}

#[test]
fn many_writes_at_once_share_appends_and_messages() {
    let mut c = Cluster::new(3);
    c.write(0, 1);
    c.run(3_000_000);
    let messages = c.messages;
    let ids: Vec<_> = (0..64).map(|i| c.send_request(write(i, i, false))).collect();
    c.run(20_000);
    assert!(ids.iter().all(|id| c.replies.contains_key(id)));
    // One append to each of two secondaries a write, one acknowledgement each, credit now and then.
    assert!(c.messages - messages <= 64 * 4 + 16, "{} messages", c.messages - messages);
    c.check_replicas_agree();
}

//! Primaries and secondaries that die, restart or are cut off.

use mooring_replication::{ClientId, Note, Operation, Outcome, Refusal, RequestId, Role, StreamId};
use mooring_terms::{BlockIndex, BlockRange, Epoch};

use crate::cluster::{Cluster, values, write};

#[test]
fn a_lost_secondary_is_taken_out_and_gets_only_what_changed_when_it_returns() {
    let mut c = Cluster::new(3);
    for block in 0..200 {
        c.write(block, 1);
    }
    c.flush();
    c.kill(3);
    let before = c.now;
    c.write(5, 2);
    assert!(c.now - before < 2_000_000, "stall of {} us", c.now - before);
    c.discard(6);
    assert_eq!(c.in_sync(), [1, 2]);
    c.start(3);
    c.settle();
    assert_eq!(c.in_sync(), [1, 2, 3]);
    c.check_replicas_agree();
    assert_eq!(c.value_at(3, 5), Some(2));
    assert_eq!(c.value_at(3, 6), Some(0));
    assert_eq!(c.nodes[&3].store.copied_blocks, 1);
}

#[test]
fn a_lost_primary_is_replaced_and_every_acknowledged_write_is_there() {
    let mut c = Cluster::new(3);
    for block in 0..50 {
        c.write(block, block + 1);
    }
    c.cut_power(1);
    let before = c.now;
    c.write(50, 51);
    assert!(c.now - before < 4_000_000, "stall of {} us", c.now - before);
    assert_ne!(c.primary(), Some(1));
    for block in 0..=50 {
        assert_eq!(c.read(block), block + 1);
    }
    c.start(1);
    c.settle();
    c.check_replicas_agree();
    assert_eq!(c.value_at(1, 50), Some(51));
}

#[test]
fn a_stale_primary_is_fenced() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.isolate(1);
    c.run_until("another primary", |c| c.primary().is_some_and(|primary| primary != 1));
    c.write(1, 2);
    // A client that still reaches the old primary gets neither a write nor a stale read.
    let id = |number| RequestId { client: ClientId(9), stream: StreamId(1), number };
    c.request_at(1, id(1), Epoch(1), write(1, 99, false));
    let range = BlockRange::new(BlockIndex(1), 1);
    c.request_at(1, id(2), Epoch(1), Operation::Read(range));
    c.run(500_000);
    for number in [1, 2] {
        let reply = c.replies.get(&id(number)).map(|(_, reply)| &reply.outcome);
        let moved = matches!(reply, None | Some(Outcome::Refused(Refusal::Moved { .. })));
        assert!(moved, "{reply:?}");
    }
    c.rejoin_network(1);
    c.settle();
    assert_eq!(c.read(1), 2);
    c.check_replicas_agree();
}

#[test]
fn a_primary_that_was_stopped_acknowledges_and_shows_nothing_afterwards() {
    for raft_lag in [500, 3_000_000] {
        let mut c = Cluster::new(3);
        c.write(1, 1);
        c.raft.lag.insert(1, raft_lag);
        c.pause(1);
        let id = |number| RequestId { client: ClientId(9), stream: StreamId(1), number };
        let range = BlockRange::new(BlockIndex(1), 1);
        c.request_at(1, id(1), Epoch(1), Operation::Read(range));
        c.request_at(1, id(2), Epoch(1), write(2, 99, false));
        c.run_until("another primary", |c| c.primary().is_some_and(|primary| primary != 1));
        c.write(1, 2);
        c.write(2, 2);
        c.resume(1);
        c.run(1_000_000);
        for number in [1, 2] {
            let outcome = &c.replies[&id(number)].1.outcome;
            let moved = matches!(outcome, Outcome::Refused(Refusal::Moved { .. }));
            assert!(moved, "{outcome:?}");
        }
        assert_eq!((c.read(1), c.read(2)), (2, 2));
        c.settle();
        c.check_replicas_agree();
    }
}

#[test]
fn what_is_not_committed_is_not_shown() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.hang_disk(2);
    c.send_request(write(1, 2, false));
    c.run(10_000);
    let range = BlockRange::new(BlockIndex(1), 1);
    let id = c.send_request(Operation::Read(range));
    c.run(100_000);
    assert!(!c.replies.contains_key(&id), "{:?}", c.replies.get(&id));
    c.unhang_disk(2);
    c.run(100_000);
    let Outcome::Read(extents) = &c.replies[&id].1.outcome else { panic!("it reads") };
    assert_eq!(values(extents), [2]);
}

#[test]
fn a_false_take_over_is_noted() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.pause(1);
    c.run_until("another primary", |c| c.primary().is_some_and(|primary| primary != 1));
    c.resume(1);
    c.settle();
    assert!(c.notes.iter().any(|(_, note)| matches!(note, Note::FalseTakeOver { .. })));
}

#[test]
fn a_secondary_that_was_stopped_takes_nothing_over() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.pause(3);
    c.run(3_000_000);
    c.resume(3);
    c.settle();
    assert_eq!(c.primary(), Some(1));
    assert!(!c.notes.iter().any(|(_, note)| matches!(note, Note::TakingOver { .. })));
}

#[test]
fn a_primary_cut_off_from_everything_shows_nothing_old() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.isolate(1);
    c.raft.unreachable.insert(1);
    c.run_until("another primary", |c| c.primary().is_some_and(|primary| primary != 1));
    c.write(1, 2);
    let id = RequestId { client: ClientId(9), stream: StreamId(1), number: 1 };
    let range = BlockRange::new(BlockIndex(1), 1);
    c.request_at(1, id, Epoch(1), Operation::Read(range));
    c.run(10_000_000);
    assert!(!c.replies.contains_key(&id), "{:?}", c.replies[&id]);
    c.raft.unreachable.clear();
    c.rejoin_network(1);
    c.settle();
    let outcome = &c.replies[&id].1.outcome;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Moved { .. })), "{outcome:?}");
}

#[test]
fn a_primary_killed_and_restarted_at_once_goes_on_without_loss() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.kill(1);
    c.run(100_000);
    c.start(1);
    let before = c.now;
    c.write(2, 2);
    assert!(c.now - before < 400_000, "stall of {} us", c.now - before);
    assert_eq!(c.primary(), Some(1));
    assert_eq!(c.read(1), 1);
    c.settle();
    c.check_replicas_agree();
    assert!(!c.notes.iter().any(|(_, note)| matches!(note, Note::TailLost { .. })));
}

#[test]
fn a_primary_rebooted_inside_the_lease_pulls_back_its_unflushed_tail() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.flush();
    for value in 2..30 {
        c.write(1, value);
        c.write(value, value);
    }
    c.cut_power(1);
    c.run(200_000);
    assert_ne!(c.value_at(1, 1), Some(29), "the tail is lost on its disk");
    c.start(1);
    c.settle();
    assert_eq!(c.read(1), 29);
    assert_eq!(c.read(17), 17);
    c.check_replicas_agree();
    assert!(!c.notes.iter().any(|(_, note)| matches!(note, Note::TailLost { .. })));
}

#[test]
fn a_secondary_rebooted_inside_the_lease_acknowledges_nothing_until_it_is_level() {
    let mut c = Cluster::new(2);
    c.write(1, 1);
    c.write(2, 2);
    c.cut_power(2);
    c.run(100_000);
    c.start(2);
    c.write(1, 3);
    c.settle();
    c.check_replicas_agree();
    c.cut_power(1);
    c.run_until("the other serves", |c| c.primary() == Some(2));
    assert_eq!((c.read(1), c.read(2)), (3, 2));
}

#[test]
fn two_failovers_and_then_the_first_primary_returns() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.kill(1);
    c.write(1, 2);
    let second = c.primary().expect("it serves");
    c.raft.config.min_in_sync = 1;
    c.publish();
    c.kill(second);
    c.write(1, 3);
    c.write(7, 7);
    c.start(1);
    c.settle();
    assert_eq!(c.read(1), 3);
    c.start(second);
    c.settle();
    assert_eq!(c.in_sync(), [1, 2, 3]);
    c.check_replicas_agree();
    assert_eq!(c.value_at(1, 7), Some(7));
}

#[test]
fn a_power_cut_of_all_keeps_what_was_flushed_and_says_what_may_be_lost() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.flush();
    c.write(1, 2);
    c.write(2, 2);
    // One of them got further to its media than the others.
    let len = c.nodes[&2].store.len() - 1;
    c.nodes.get_mut(&2).expect("a node").store.durable = len;
    for node in 1..=3 {
        c.cut_power(node);
    }
    c.run(1_000_000);
    for node in 1..=3 {
        c.start(node);
    }
    c.settle();
    assert_eq!(c.read(1), 2, "the furthest has the word");
    assert_eq!(c.read(2), 0);
    c.check_replicas_agree();
    assert!(c.raft.config.tail_lost > Epoch(0));
    assert!(c.notes.iter().any(|(_, note)| matches!(note, Note::TailLost { .. })));
}

#[test]
fn kill_of_all_daemons_loses_nothing() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.write(2, 2);
    for node in 1..=3 {
        c.kill(node);
    }
    c.run(500_000);
    for node in 1..=3 {
        c.start(node);
    }
    c.settle();
    assert_eq!((c.read(1), c.read(2)), (1, 2));
    assert_eq!(c.raft.config.tail_lost, Epoch(0));
}

#[test]
fn after_a_power_cut_of_all_one_that_never_returns_is_not_waited_for_forever() {
    let mut c = Cluster::new(3);
    c.write_durably(1, 1);
    for node in 1..=3 {
        c.cut_power(node);
    }
    c.start(2);
    c.start(3);
    c.run(20_000_000);
    assert_eq!(c.primary(), None, "the third may have more");
    c.run_until("two go on", |c| c.primary().is_some());
    assert_eq!(c.read(1), 1);
}

#[test]
fn a_hung_disk_of_a_secondary_takes_it_out() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.hang_disk(3);
    c.write(1, 2);
    assert_eq!(c.in_sync(), [1, 2]);
    c.unhang_disk(3);
    c.settle();
    c.check_replicas_agree();
}

#[test]
fn a_failed_pool_of_the_primary_moves_it_at_once() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.event(1, mooring_replication::Event::StoreFailed);
    let before = c.now;
    c.write(1, 2);
    assert!(c.now - before < 300_000, "stall of {} us", c.now - before);
    assert_eq!(c.in_sync(), [2, 3]);
    assert_eq!(c.status(1).map(|status| status.role), Some(Role::Failed));
}

#[test]
fn a_failed_pool_of_a_secondary_takes_it_out_at_once() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.event(2, mooring_replication::Event::StoreFailed);
    let before = c.now;
    c.write(1, 2);
    assert!(c.now - before < 300_000, "stall of {} us", c.now - before);
    assert_eq!(c.in_sync(), [1, 3]);
}

#[test]
fn raft_applied_late_on_the_new_primary_holds_up_nothing() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.raft.lag.insert(3, 10_000_000);
    c.kill(1);
    let before = c.now;
    c.write(1, 2);
    assert!(c.now - before < 4_000_000, "stall of {} us", c.now - before);
    c.start(1);
    c.settle();
    c.check_replicas_agree();
}

#[test]
fn an_outcome_that_raft_forgot_to_tell_is_found_out() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.kill(3);
    c.raft.forget_outcomes = 1;
    c.write(1, 2);
    c.start(3);
    c.raft.forget_outcomes = 2;
    c.settle();
    c.write(1, 3);
    c.check_replicas_agree();
}

#[test]
fn without_raft_io_goes_on_as_long_as_nothing_else_fails() {
    let mut c = Cluster::new(3);
    c.raft.up = false;
    for value in 0..50 {
        c.write(1, value);
        c.run(200_000);
    }
    assert_eq!(c.read(1), 49);
    c.kill(3);
    assert_eq!(c.try_ask(write(1, 77, false), 3_000_000), None);
    c.raft.up = true;
    c.write(1, 78);
    assert_eq!(c.read(1), 78);
}

#[test]
fn streams_that_break_and_come_back_cost_nothing_but_time() {
    let mut c = Cluster::new(3);
    let mut ids = Vec::new();
    for value in 0..200 {
        ids.push(c.send_request(write(value % 7, value, value % 5 == 0)));
        c.run(1_000);
        if value % 11 == 0 {
            c.glitch(1, 2 + value % 2);
        }
    }
    c.run(3_000_000);
    for id in ids {
        assert!(matches!(c.replies[&id].1.outcome, Outcome::Written(_)), "{:?}", c.replies[&id]);
    }
    assert_eq!(c.raft.config.epoch, Epoch(1));
    c.check_replicas_agree();
}

#[test]
fn a_failed_pool_in_the_middle_of_another_change_moves_the_primary_too() {
    let mut c = Cluster::new(3);
    c.write(1, 1);
    c.kill(3);
    c.run_until("a change is proposed", |c| {
        c.notes.iter().any(|(_, note)| matches!(note, Note::ReplicaLost { .. }))
    });
    c.start(3);
    c.event(1, mooring_replication::Event::StoreFailed);
    let before = c.now;
    c.write(1, 2);
    assert!(c.now - before < 4_000_000, "stall of {} us", c.now - before);
    assert_ne!(c.primary(), Some(1));
}

#[test]
fn what_only_one_secondary_got_while_its_primary_was_replaced_is_on_all_or_none() {
    for start in [false, true] {
        let mut c = Cluster::new(3);
        c.write(1, 1);
        c.cut(1, 2);
        c.raft.unreachable.insert(1);
        c.raft.lag.insert(3, 50_000);
        if start {
            c.run_until("another epoch", |c| c.raft.config.epoch == Epoch(2));
        }
        let mut number = 0;
        while c.primary() != Some(2) {
            number += 1;
            let id = RequestId { client: ClientId(9), stream: StreamId(1), number };
            // Discards: they need no credit, which the replica that is cut off would not grant.
            let range = BlockRange::new(BlockIndex(number % 50), 1);
            c.request_at(1, id, Epoch(1), Operation::Discard { range, fua: false });
            c.run(60);
            assert!(number < 200_000, "{}", c.describe());
        }
        c.write(1, 2);
        c.check_replicas_agree();
        c.raft.unreachable.clear();
        c.heal(1, 2);
        c.settle();
        assert_eq!(c.read(1), 2);
        c.check_replicas_agree();
    }
}

#[test]
fn a_primary_says_that_it_serves_though_its_first_epoch_never_did() {
    let mut c = Cluster::new(3);
    c.raft.config.min_in_sync = 1;
    c.publish();
    c.write(1, 1);
    c.kill(1);
    c.kill(3);
    c.run(8_000_000);
    assert_eq!(c.read(1), 1);
    assert_eq!((c.primary(), c.in_sync()), (Some(2), vec![2]));
    assert!(c.raft.config.epoch > Epoch(2), "the epoch that it took over with waited for node 3");
    let told =
        c.notes.iter().filter(|(node, note)| *node == 2 && matches!(note, Note::Serving { .. }));
    assert_eq!(told.count(), 1);
}

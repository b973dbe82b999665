//! Directed scenarios: the situations that the design names, each as a few sentences. `settle`
//! heals everything, waits until it has come right, reads everything and checks every property.

use std::time::Duration;

use mooring_tests::sim::{CoverageKind, Scenario};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn writes_are_read_back() {
    let mut c = Scenario::new(3, 3);
    c.write(0..4);
    c.write(2..6);
    c.discard(1..3);
    c.flush();
    c.read(0..8);
    c.settle();
}

#[test]
fn a_secondary_that_dies_is_left_behind_and_brought_level() {
    let mut c = Scenario::new(3, 3);
    c.write(0..4);
    c.crash(2);
    c.write(2..6);
    c.wait_for_in_sync(2);
    c.write(0..1);
    c.restart(2);
    c.wait_for_in_sync(3);
    c.settle();
}

#[test]
fn a_dead_primary_is_succeeded_within_five_seconds() {
    let mut c = Scenario::new(3, 3);
    c.attach(2);
    c.write(0..4);
    c.cut_power(1);
    let write = c.start_write(0..2);
    c.wait(5 * SECOND);
    assert!(c.is_answered(write), "the stall is at most five seconds");
    c.read(0..4);
    c.restart(1);
    c.settle();
}

#[test]
fn a_reboot_inside_the_lease_loses_nothing_that_was_acknowledged() {
    for node in 1..=3 {
        let mut c = Scenario::new(3, 3);
        c.attach(if node == 1 { 2 } else { 1 });
        c.write(0..4);
        c.write(2..5);
        c.cut_power(node);
        c.wait(300 * MS);
        c.restart(node);
        c.read(0..5);
        c.settle();
    }
}

#[test]
fn a_restart_inside_the_lease_keeps_two_replicas_whole() {
    let mut c = Scenario::new(2, 2);
    c.attach(1);
    c.write(0..4);
    c.crash(2);
    c.wait(200 * MS);
    c.restart(2);
    c.write(0..2);
    c.settle();
}

#[test]
fn a_crash_in_the_middle_of_a_join_begins_it_again() {
    let mut c = Scenario::with(3, 3, |plan| plan.options.copy_step_blocks = 1);
    for round in 0..4 {
        c.write_through(0..8);
        c.cut_power(3);
        c.wait_for_in_sync(2);
        c.write(round..8);
        c.discard(0..round + 1);
        c.restart(3);
        // Somewhere between its first message and its last block.
        c.wait(Duration::from_micros(4_000 + 2_500 * round));
        c.cut_power(3);
        c.write(1..3);
        c.restart(3);
        c.wait_for_in_sync(3);
    }
    c.settle();
}

#[test]
fn two_failovers_then_the_first_primary_returns() {
    let mut c = Scenario::new(3, 3);
    c.attach(3);
    c.write(0..4);
    c.isolate(1);
    let stranded = c.start_write(0..2);
    c.wait(4 * SECOND);
    assert!(c.is_answered(stranded));
    let second = c.config().primary;
    assert_ne!(second.0, 1, "the first primary was succeeded");
    c.cut_power(second.0);
    c.wait(100 * MS);
    c.reconnect(1);
    c.restart_after(second.0, 6 * SECOND);
    c.write(2..6);
    c.read(0..6);
    c.settle();
}

#[test]
fn configuration_applied_late_on_one_node_fools_nobody() {
    for late in 1..=3 {
        let mut c = Scenario::new(3, 3);
        c.write(0..4);
        c.lag(late, 4 * SECOND);
        c.crash(if late == 2 { 3 } else { 2 });
        c.write(0..2);
        c.wait(SECOND);
        c.write(1..3);
        c.read(0..4);
        c.settle();
    }
}

#[test]
fn requests_that_arrive_on_an_old_stream_too_are_done_once() {
    let mut c = Scenario::new(3, 3);
    c.attach(2);
    for round in 0..30 {
        for i in 0..4 {
            c.start_write(i..i + 2);
        }
        c.start_read(0..4);
        c.wait(Duration::from_micros(50 * round));
        c.reset_client();
        c.write(0..3);
    }
    assert!(c.counted(CoverageKind::Situation, "old client stream lingers") > 0);
    c.settle();
}

#[test]
fn a_power_cut_of_all_keeps_what_was_flushed() {
    for on_engine in [false, true] {
        let mut c = if on_engine { Scenario::on_engine(3, 3) } else { Scenario::new(3, 3) };
        c.write(0..4);
        c.flush();
        c.write(2..6);
        c.start_write(0..2);
        c.wait(Duration::from_micros(300));
        for node in 1..=3 {
            c.cut_power(node);
        }
        c.wait(SECOND);
        for node in 1..=3 {
            c.restart_after(node, 150 * MS * u32::try_from(node).unwrap());
        }
        c.wait(3 * SECOND);
        c.settle();
    }
}

#[test]
fn a_client_that_outlives_all_replicas_sends_again_what_was_not_flushed() {
    // The client's node holds no replica: nothing of it is restarted.
    let mut c = Scenario::new(4, 3);
    c.attach(4);
    c.write(0..4);
    c.flush();
    c.write(2..6);
    for node in 1..=3 {
        c.cut_power(node);
    }
    for node in 1..=3 {
        c.restart_after(node, 500 * MS);
    }
    c.flush();
    c.read(0..6);
    let client = c.client();
    assert!(!c.is_over(client), "it had all that it needed");
    c.settle();
}

#[test]
fn a_hung_disk_stalls_and_is_left_behind() {
    for node in 1..=3 {
        let mut c = Scenario::new(3, 3);
        c.attach(if node == 1 { 2 } else { 1 });
        c.write(0..4);
        c.hang_disk(node);
        let write = c.start_write(1..3);
        c.wait(6 * SECOND);
        assert!(c.is_answered(write), "node {node}'s disk holds nothing up for long");
        c.free_disk(node);
        c.settle();
    }
}

#[test]
fn a_failed_sync_takes_the_pool_out() {
    for node in 1..=3 {
        let mut c = Scenario::new(3, 3);
        c.attach(if node == 1 { 2 } else { 1 });
        c.write(0..4);
        c.fail_sync(node);
        c.write_through(1..3);
        c.wait(3 * SECOND);
        c.write_through(0..2);
        c.crash(node);
        c.restart(node);
        c.settle();
    }
}

#[test]
fn a_stopped_process_is_succeeded_and_does_no_harm_when_it_goes_on() {
    for (node, stopped) in [(1, 500), (1, 1_500), (1, 5_000), (2, 700), (2, 3_000)] {
        let mut c = Scenario::new(3, 3);
        c.attach(3);
        c.write(0..4);
        c.stop(node);
        let write = c.start_write(0..3);
        c.wait(stopped * MS);
        c.go_on(node);
        c.read(0..4);
        assert!(c.is_answered(write));
        c.settle();
    }
}

#[test]
fn a_full_pool_refuses_writes_and_takes_them_again() {
    for node in 1..=3 {
        let mut c = Scenario::with(3, 3, |plan| {
            plan.options.credit_step_bytes = 8 * 4096;
            plan.options.credit_idle_bytes = 0;
        });
        c.write(0..4);
        c.fill_pool(node, true);
        for _ in 0..12 {
            c.write(0..4);
        }
        assert!(c.counted(CoverageKind::Operation, "no space") > 0, "node {node} was full");
        c.read(0..4);
        c.discard(0..2);
        c.flush();
        c.fill_pool(node, false);
        c.wait(2 * SECOND);
        c.write(0..4);
        c.settle();
    }
}

#[test]
fn a_volume_taken_over_ends_the_old_holder() {
    let mut c = Scenario::new(3, 3);
    c.write(0..4);
    let old = c.client();
    c.attach(2);
    let new = c.client();
    c.use_client(old);
    let late = c.start_write(0..4);
    c.use_client(new);
    c.write(1..2);
    c.wait(2 * SECOND);
    assert!(c.is_over(old), "the replicas have told it");
    let _ = late;
    c.settle();
}

#[test]
fn a_seal_outlives_its_primary() {
    let mut c = Scenario::new(3, 3);
    c.write(0..4);
    let old = c.client();
    c.attach(2);
    let new = c.client();
    c.cut_power(1);
    c.wait(4 * SECOND);
    // The old holder died with its node; a new one there takes the volume, and is taken over.
    let _ = old;
    c.use_client(new);
    c.write(0..2);
    c.restart(1);
    c.settle();
}

#[test]
fn an_isolated_holder_writes_no_more() {
    let mut c = Scenario::new(3, 3);
    c.write(0..4);
    let old = c.client();
    c.isolate(1);
    c.start_write(0..4);
    c.wait(4 * SECOND);
    c.attach(2);
    c.write(0..2);
    c.read(0..4);
    c.reconnect(1);
    c.wait(3 * SECOND);
    assert!(c.is_over(old), "the replicas have told it");
    c.settle();
}

#[test]
fn a_primary_hands_over_without_losing_a_beat() {
    let mut c = Scenario::new(3, 3);
    for to in [2, 3, 1, 2] {
        let write = c.start_write(0..4);
        c.hand_over(to);
        c.wait(200 * MS);
        assert!(c.is_answered(write));
        c.read(0..4);
    }
    c.settle();
}

#[test]
fn a_rotten_block_is_repaired_from_another_replica() {
    for node in 1..=2 {
        let mut c = Scenario::new(3, 3);
        c.write(0..4);
        c.flush();
        c.rot(node, 2);
        c.read(0..4);
        c.settle();
        if node == 1 {
            assert!(c.counted(CoverageKind::Transition, "block repaired") > 0);
        }
    }
}

#[test]
fn one_replica_alone_survives_restarts() {
    let mut c = Scenario::new(1, 1);
    c.write(0..4);
    c.flush();
    c.write(1..3);
    c.crash(1);
    c.restart(1);
    c.wait(2 * SECOND);
    c.attach(1);
    c.write(0..2);
    c.cut_power(1);
    c.restart(1);
    c.wait(12 * SECOND);
    c.attach(1);
    c.read(0..4);
    c.settle();
}

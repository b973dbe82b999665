//! A device over all that happens to its replicas.

use std::time::Duration;

use mooring_replication::{ClientEvent, Io, IoError, VolumeBlock, VolumeRange};
use mooring_terms::Epoch;

use crate::cluster::Cluster;
use crate::store::data_of;

#[test]
fn a_device_writes_and_reads_back_over_a_change_of_primary() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    for block in 0..10 {
        c.device_write(block, block + 1);
    }
    c.kill(1);
    let before = c.now;
    c.device_write(3, 30);
    assert!(c.now - before < 4_000_000, "stall of {} us", c.now - before);
    assert_eq!((c.device_read(3), c.device_read(4)), (30, 5));
    c.device_flush();
}

#[test]
fn many_overlapping_writes_end_as_they_were_submitted_whatever_breaks() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    let mut last = [0; 8];
    for round in 0..300_u64 {
        let block = (round * 7) % 8;
        last[block as usize] = round + 1;
        c.submit_write(block, round + 1);
        if round % 23 == 0 {
            let primary = c.raft.config.primary.0;
            c.hang_up(primary);
        }
        if round == 150 {
            c.cut_power(1);
        }
        if round == 220 {
            c.start(1);
        }
        c.run(300);
    }
    c.run_until("all done", |c| c.device().client.pending() == 0);
    for block in 0..8 {
        assert_eq!(c.device_read(block), last[block as usize], "block {block}");
    }
    c.settle();
    c.check_replicas_agree();
}

#[test]
fn the_first_flush_waits_for_the_seal_that_covers_what_was_written_before() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    c.device_write(1, 1);
    // The process is replaced: the new client knows nothing of that write.
    let start = c.now;
    c.begin_attach(2, |_| {});
    let id = c.submit(Io::Flush);
    assert!(!c.device().done.contains_key(&id), "not before the seal");
    c.run_until("flushed", |c| c.device().done.contains_key(&id));
    assert!(c.device().sealed && c.now > start);
    for node in c.nodes.values() {
        assert_eq!(node.store.durable, node.store.len());
    }
    let messages = c.messages;
    c.device_flush();
    assert_eq!(c.messages, messages, "there is nothing more to flush");
}

#[test]
fn large_io_is_split_and_put_together_again() {
    let mut c = Cluster::new(3);
    c.attach(2, |options| options.max_request_blocks = 4);
    let io = Io::Write { first: VolumeBlock(3), data: data_of(5, 11), fua: false };
    assert_eq!(c.io(io), Ok(Vec::new()));
    let range = VolumeRange { first: VolumeBlock(2), count: 14 };
    let parts = c.io(Io::Read(range)).unwrap();
    let blocks = parts.iter().map(|part| match part {
        mooring_replication::IoPart::Zeros(count) => *count,
        mooring_replication::IoPart::Data(data) => data.blocks(),
        other => panic!("{other:?} was not asked for"),
    });
    assert_eq!(blocks.sum::<u64>(), 14);
    assert_eq!((c.device_read(3), c.device_read(13), c.device_read(14)), (5, 5, 0));
}

#[test]
fn an_older_attachment_fails_at_once_and_for_good() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    c.device_write(1, 1);
    let id = c.submit_write(1, 2);
    c.run_until("done", |c| c.device().done.contains_key(&id));
    c.seal(3);
    let io = Io::Write { first: VolumeBlock(1), data: data_of(9, 1), fua: false };
    assert!(matches!(c.io(io), Err(IoError::Fenced { by }) if by.0 == 3));
    assert!(c.device().fenced);
    assert!(matches!(c.io(Io::Flush), Err(IoError::Fenced { .. })));
    assert_eq!(c.read(1), 2);
}

#[test]
fn io_is_held_while_no_primary_can_be_reached() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    c.device_write(1, 1);
    for node in 1..=3 {
        c.device_mut().cut.insert(node);
        c.hang_up(node);
    }
    let id = c.submit_write(1, 2);
    c.run(30_000_000);
    assert!(!c.device().done.contains_key(&id));
    c.device_mut().cut.clear();
    c.run_until("done", |c| c.device().done.contains_key(&id));
    assert_eq!(c.device_read(1), 2);
}

#[test]
fn with_an_io_timeout_it_is_not_held_longer() {
    let mut c = Cluster::new(3);
    c.attach(2, |options| options.io_timeout = Some(Duration::from_secs(2)));
    for node in 1..=3 {
        c.device_mut().cut.insert(node);
        c.hang_up(node);
    }
    let io = Io::Write { first: VolumeBlock(1), data: data_of(9, 1), fua: false };
    assert_eq!(c.io(io), Err(IoError::TimedOut));
}

#[test]
fn an_io_timeout_that_is_set_frees_what_waits_already() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    for node in 1..=3 {
        c.device_mut().cut.insert(node);
        c.hang_up(node);
    }
    let old = c.submit_write(1, 2);
    c.run(10_000_000);
    let young = c.submit_write(2, 2);
    c.device_event(ClientEvent::IoTimeout { timeout: Some(Duration::from_secs(5)) });
    c.run_until("given up", |c| c.device().done.contains_key(&old));
    assert_eq!(c.device().done[&old], Err(IoError::TimedOut));
    assert!(!c.device().done.contains_key(&young), "it hasn't waited for so long");
    c.device_event(ClientEvent::IoTimeout { timeout: None });
    c.run(30_000_000);
    assert!(!c.device().done.contains_key(&young), "it is held for ever again");
}

#[test]
fn acknowledged_writes_that_all_replicas_lost_are_sent_again_first() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    c.device_write(1, 1);
    c.device_flush();
    for value in 2..20 {
        c.device_write(1, value);
        c.device_write(value, value);
    }
    for node in 1..=3 {
        c.cut_power(node);
    }
    let late = c.submit_write(2, 77);
    for node in 1..=3 {
        c.start(node);
    }
    c.run_until("done", |c| c.device().done.contains_key(&late));
    assert!(c.raft.config.tail_lost > Epoch(0));
    assert_eq!(c.device_read(1), 19);
    assert_eq!((c.device_read(2), c.device_read(13)), (77, 13));
    c.device_flush();
    for node in 1..=3 {
        c.cut_power(node);
        c.start(node);
    }
    c.settle();
    assert_eq!(c.device_read(1), 19);
}

#[test]
fn where_they_were_not_kept_the_device_turns_to_errors() {
    let mut c = Cluster::new(3);
    // The flush that makes room is lost with the power, too.
    c.attach(2, |options| options.keep_bytes = 3 * 4096);
    for value in 2..20 {
        c.submit_write(value, value);
    }
    c.run(500);
    for node in 1..=3 {
        c.cut_power(node);
    }
    for node in 1..=3 {
        c.start(node);
    }
    assert_eq!(c.io(Io::Flush), Err(IoError::TailLost));
    assert_eq!(c.io(Io::Flush), Err(IoError::TailLost));
}

#[test]
fn what_is_kept_stays_within_bounds_by_flushing_in_time() {
    let mut c = Cluster::new(3);
    c.attach(2, |options| options.keep_bytes = 64 * 4096);
    for value in 0..500 {
        c.device_write(value % 50, value);
        assert!(c.device().client.kept_bytes() <= 64 * 4096);
    }
    for node in 1..=3 {
        c.cut_power(node);
        c.start(node);
    }
    c.settle();
    assert_eq!(c.device_read(49), 499);
    c.device_flush();
}

#[test]
fn requests_outside_the_volume_are_refused() {
    let mut c = Cluster::new(1);
    c.attach(2, |_| {});
    let range = VolumeRange { first: VolumeBlock((1 << 20) - 1), count: 2 };
    assert_eq!(c.io(Io::Read(range)), Err(IoError::Invalid));
    let range = VolumeRange { first: VolumeBlock(0), count: 0 };
    assert_eq!(c.io(Io::Discard { range, fua: false }), Err(IoError::Invalid));
    let range = VolumeRange { first: VolumeBlock(u64::MAX), count: 2 };
    assert_eq!(c.io(Io::Read(range)), Err(IoError::Invalid));
}

#[test]
fn a_device_fails_at_once_when_it_is_closed() {
    let mut c = Cluster::new(3);
    c.attach(2, |_| {});
    c.device_mut().cut.extend([1, 2, 3]);
    for node in 1..=3 {
        c.hang_up(node);
    }
    let id = c.submit_write(1, 2);
    c.device_event(mooring_replication::ClientEvent::Close);
    assert_eq!(c.device().done[&id], Err(IoError::Closed));
}

//! Several writers on one inode, fsync, and what bounds a client.

use mooring_sharedfs_core::coordinator::{Operation, Reply, WritePlace};
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::locks::{LockMode, LockRange, Locked, OnConflict};
use mooring_sharedfs_core::ops::SetAttributes;
use mooring_sharedfs_core::sessions::EndReason;
use mooring_sharedfs_core::{BlockAddress, FsError, Ino};

use super::chmod;
use super::cluster::{Cluster, LEASES_MAX, LOCKS_MAX, created, file, granted, lock_request, write};

fn resize(ino: Ino, size: u64) -> Operation {
    let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
    Operation::Setattr { ino, set }
}

#[test]
fn appends_of_two_clients_follow_each_other_without_a_hole() {
    let mut c = Cluster::new();
    c.soil();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("log"));
    let f = created(c.reply(a));
    let mut expected = Vec::new();
    for i in 0..60_u8 {
        for (who, of) in [(a, 1), (b, 2)] {
            let record = vec![i * 3 + of; 100 + usize::from(i) * 7];
            let offset = c.write(who, f, WritePlace::End, &record);
            assert_eq!(offset, Some(expected.len() as u64));
            expected.extend(record);
        }
    }
    assert!(c.contents(b, f) == expected);
    c.assert_sound();
}

#[test]
fn an_append_takes_its_place_only_when_the_one_before_has_moved_the_size() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("log"));
    let f = created(c.reply(a));
    c.hold_writes = true;
    assert_eq!(c.write(a, f, WritePlace::End, &[1; 5000]), None);
    assert_eq!(c.write(b, f, WritePlace::End, &[2; 5000]), None);
    c.hold_writes = false;
    c.deliver();
    assert_eq!((c.written(a), c.written(b)), (Some(0), Some(5000)));
    assert!(c.contents(a, f) == [[1; 5000], [2; 5000]].concat());
}

#[test]
fn nothing_else_is_done_with_an_inode_while_its_blocks_are_on_their_way() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.hold_writes = true;
    assert_eq!(c.write(a, f, WritePlace::At(0), &[1; 9000]), None);
    c.ask(b, resize(f, 100));
    assert_eq!(c.reply(b), None);
    // Even a writer who is fenced meanwhile keeps it until his bytes have landed.
    c.cut_off(a);
    c.pass(2000, &[b]);
    assert_eq!(c.reply(b), None);
    c.hold_writes = false;
    c.deliver();
    assert!(matches!(c.reply(b), Some(Reply::Attributes(of)) if of.size == 100));
    assert_eq!(c.contents(b, f), [0; 100], "what was not committed is not there");
    c.assert_sound();
}

#[test]
fn writes_into_one_block_are_merged() {
    let mut c = Cluster::new();
    c.soil();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.write(a, f, WritePlace::At(8000), &[1; 500]);
    c.write(b, f, WritePlace::At(8100), &[2; 100]);
    c.write(a, f, WritePlace::At(100), &[3; 10]);
    let mut expected = vec![0; 8500];
    expected[8000..].fill(1);
    expected[8100..8200].fill(2);
    expected[100..110].fill(3);
    assert!(c.contents(b, f) == expected);
    c.assert_sound();
}

#[test]
fn a_size_that_moves_up_shows_zeros_and_a_hole_has_clean_edges() {
    let mut c = Cluster::new();
    c.soil();
    let a = c.mount();
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.write(a, f, WritePlace::At(0), &[7; 20_000]);
    c.ask(a, resize(f, 10_000));
    c.ask(a, resize(f, 18_000));
    let mut expected = vec![7; 18_000];
    expected[10_000..].fill(0);
    assert!(c.contents(a, f) == expected, "what was cut off is back");
    c.ask(a, Operation::Punch { ino: f, range: (1000, 9500) });
    assert_eq!(c.reply(a), Some(Reply::Done));
    expected[1000..9500].fill(0);
    assert!(c.contents(a, f) == expected);
    let range = (9600, 30_000);
    c.ask(a, Operation::Zero { ino: f, range, keep_size: false, near: BlockAddress(0) });
    assert_eq!(c.reply(a), Some(Reply::Done));
    expected.resize(30_000, 0);
    expected[9600..].fill(0);
    assert!(c.contents(a, f) == expected);
    c.assert_sound();
}

#[test]
fn a_full_volume_refuses_bytes_and_takes_them_when_there_is_space_again() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("big"));
    let big = created(c.reply(a));
    c.ask(a, file("small"));
    let small = created(c.reply(a));
    let mut size = 0;
    loop {
        c.ask(a, write(big, WritePlace::End, &[9; 64 << 10]));
        match c.reply(a) {
            Some(Reply::Written(offset, _)) => size = offset + (64 << 10),
            Some(Reply::Refused(FsError::NoSpace { .. })) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(size > 900 * 4096, "only {size} bytes fit into a thousand blocks");
    // The last blocks are worth as much as others.
    while let Some(Reply::Written(..)) = {
        c.ask(b, write(big, WritePlace::End, &[9; 4096]));
        c.reply(b)
    } {}
    assert_eq!(c.free_blocks(), 0);
    c.assert_sound();
    c.ask(a, resize(big, 4096 * 10));
    c.flush();
    c.ask(b, write(small, WritePlace::At(0), b"again"));
    c.flush();
    assert_eq!(c.written(b), Some(0));
    c.assert_sound();
}

#[test]
fn a_write_and_its_answer_outlive_the_coordinator() {
    let mut c = Cluster::new();
    let a = c.mount();
    c.ask(a, file("log"));
    let f = created(c.reply(a));
    assert_eq!(c.write(a, f, WritePlace::End, &[1; 300]), Some(0));
    c.fail_over();
    c.reclaim(a);
    c.ask_again(a);
    assert_eq!(c.written(a), Some(0), "appended twice");
    assert_eq!(c.contents(a, f).len(), 300);
    c.assert_sound();
}

#[test]
fn an_fsync_waits_for_the_slices_and_for_the_journal() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.write(a, f, WritePlace::At(0), &[1; 9000]);
    c.hold_flushes = true;
    c.ask(b, Operation::Fsync { ino: f });
    assert!(c.sync_wanted);
    c.flush();
    assert_eq!(c.reply(b), None, "the data is not on media");
    c.hold_flushes = false;
    c.deliver();
    assert_eq!(c.reply(b), Some(Reply::Done));
    // Bytes that came after a flush began are not on media with it.
    c.write(a, f, WritePlace::At(0), &[2; 9000]);
    c.hold_flushes = true;
    c.ask(a, Operation::Fsync { ino: f });
    let other = c.mount();
    c.write(other, f, WritePlace::At(4096), &[3; 4096]);
    c.ask(b, Operation::Fsync { ino: f });
    c.flush();
    c.flush_one();
    assert_eq!((c.reply(a), c.reply(b)), (Some(Reply::Done), None));
    c.hold_flushes = false;
    c.deliver();
    c.flush();
    assert_eq!(c.reply(b), Some(Reply::Done));
    // Nothing is left to flush, and an fsync costs nothing but the journal's state.
    c.hold_flushes = true;
    c.ask(a, Operation::Fsync { ino: f });
    assert_eq!(c.reply(a), Some(Reply::Done));
}

#[test]
fn an_fsync_has_others_commit_what_they_accepted() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.ask(a, Operation::Lease { ino: f, level: LeaseLevel::Write });
    assert_eq!(granted(c.reply(a)), LeaseLevel::Write);
    c.slow_to_answer(a);
    c.ask(b, Operation::Fsync { ino: f });
    c.flush();
    assert_eq!(c.reply(b), None, "what the writer has accepted is not committed");
    assert!(c.has_recalls(a));
    c.answer_recalls(a);
    c.flush();
    assert_eq!(c.reply(b), Some(Reply::Done));
    assert_eq!(c.lease(a, f), LeaseLevel::Read, "it may go on reading");
}

#[test]
fn after_a_failover_nothing_is_known_to_be_on_media() {
    let mut c = Cluster::new();
    let a = c.mount();
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.write(a, f, WritePlace::At(0), &[1; 9000]);
    c.hold_flushes = true;
    c.fail_over();
    c.reclaim(a);
    c.ask(a, Operation::Fsync { ino: f });
    c.flush();
    assert_eq!(c.reply(a), None);
    c.hold_flushes = false;
    c.deliver();
    assert_eq!(c.reply(a), Some(Reply::Done));
}

#[test]
fn a_client_that_is_heard_and_never_answers_a_recall_is_fenced_and_told() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.ask(a, Operation::Lease { ino: f, level: LeaseLevel::Write });
    assert_eq!(granted(c.reply(a)), LeaseLevel::Write);
    c.slow_to_answer(a);
    c.ask(b, chmod(f, 0o600));
    c.pass(14_000, &[a, b]);
    assert_eq!((c.reply(b), c.ended(a)), (None, None), "it has its time");
    c.pass(1_500, &[a, b]);
    assert!(matches!(c.reply(b), Some(Reply::Attributes(_))));
    assert_eq!(c.ended(a), Some(EndReason::RecallUnanswered));
    c.assert_sound();
}

#[test]
fn what_was_asked_over_a_lost_stream_is_asked_again() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.ask(a, Operation::Lease { ino: f, level: LeaseLevel::Write });
    assert_eq!(granted(c.reply(a)), LeaseLevel::Write);
    c.slow_to_answer(a);
    c.ask(b, chmod(f, 0o600));
    c.reconnect(a);
    assert!(c.has_recalls(a));
    c.answer_recalls(a);
    assert!(matches!(c.reply(b), Some(Reply::Attributes(_))));
}

#[test]
fn pages_that_a_recall_launders_go_before_what_it_makes_room_for() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.write(a, f, WritePlace::At(0), &[1; 8192]);
    c.pass(600, &[a, b]);
    for who in [a, b] {
        c.ask(who, Operation::Lease { ino: f, level: LeaseLevel::Read });
        assert_eq!(granted(c.reply(who)), LeaseLevel::Read);
        c.slow_to_answer(who);
    }
    let other = c.mount();
    c.ask(other, write(f, WritePlace::At(0), &[9; 4096]));
    assert_eq!(c.reply(other), None);
    // Both mapped the file; neither can answer before its pages are written.
    for (who, fill) in [(a, 2), (b, 3)] {
        let bytes = vec![fill; 8192];
        let place = WritePlace::At(0);
        c.ask(
            who,
            Operation::Write { ino: f, place, bytes, kill_privileges: false, launders: true },
        );
        assert_eq!(c.written(who), Some(0));
    }
    c.answer_recalls(a);
    c.answer_recalls(b);
    assert_eq!(c.written(other), Some(0));
    let contents = c.contents(other, f);
    assert!(contents == [[9; 4096], [3; 4096]].concat(), "{:?}", (contents[0], contents[5000]));
}

#[test]
fn a_session_has_a_bound_of_locks_and_of_leases() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    let lock = |of, at| {
        let Operation::Lock { mut request, on_conflict } =
            lock_request(of, f, LockMode::Write, OnConflict::Fail)
        else {
            panic!("a lock")
        };
        request.range = LockRange { start: at, end: at };
        Operation::Lock { request, on_conflict }
    };
    for i in 0..LOCKS_MAX as u64 {
        c.ask(a, lock(a, i * 2));
        assert_eq!(c.reply(a), Some(Reply::Locked(Locked::Held)));
    }
    c.ask(a, lock(a, 1000));
    assert_eq!(c.reply(a), Some(Reply::Refused(FsError::NoLocks)));
    c.ask(b, lock(b, 1000));
    assert_eq!(c.reply(b), Some(Reply::Locked(Locked::Held)), "others have their own");
    let mut granted = 0;
    for i in 0..LEASES_MAX + 5 {
        c.ask(a, file(&format!("{i}")));
        let ino = created(c.reply(a));
        c.ask(a, Operation::Lease { ino, level: LeaseLevel::Read });
        granted += usize::from(matches!(c.reply(a), Some(Reply::Lease(Some(_)))));
    }
    assert_eq!(granted, LEASES_MAX);
    c.assert_sound();
}

#[test]
fn a_session_whose_leases_were_given_away_can_t_reclaim_them_after_a_failover() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.ask(a, Operation::Lease { ino: f, level: LeaseLevel::Write });
    assert_eq!(granted(c.reply(a)), LeaseLevel::Write);
    c.cut_off(a);
    c.hold_fences = true;
    c.ask(b, chmod(f, 0o600));
    c.pass(2000, &[b]);
    // Fenced, its leases given away, and then the coordinator is lost before it has freed the rest.
    c.fence_one();
    c.fail_over();
    c.comes_back(a);
    c.reclaim(b);
    c.ask(b, chmod(f, 0o640));
    assert!(matches!(c.reply(b), Some(Reply::Attributes(_))), "nobody else has to reclaim");
    c.ask(a, Operation::Statfs);
    assert!(c.was_refused_a_session(a));
    c.flush();
    c.assert_sound();
}

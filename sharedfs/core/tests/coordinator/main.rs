//! The coordinator with clients and a shell of a few lines: scenarios, each a sentence.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod cluster;
mod damage;
mod lost;
mod storms;
mod writers;

use cluster::{Cluster, commit, created, file, granted, lock_request, name, removed};
use mooring_sharedfs_core::coordinator::{Operation, Reply};
use mooring_sharedfs_core::leases::LeaseLevel;
use mooring_sharedfs_core::locks::{LockMode, Locked, OnConflict, WaitId};
use mooring_sharedfs_core::ops::SetAttributes;
use mooring_sharedfs_core::{Access, BlockAddress, FsError, Ino, Mode};

fn chmod(ino: Ino, bits: u16) -> Operation {
    let set = SetAttributes { mode: Some(Mode::new(bits)), ..SetAttributes::default() };
    Operation::Setattr { ino, set }
}

#[test]
fn nothing_is_told_before_every_replica_has_it() {
    let mut c = Cluster::new();
    let a = c.mount();
    c.hold_journal = true;
    c.ask(a, file("f"));
    assert_eq!(c.reply(a), None, "its record is on the way");
    // A read that saw what the record did must wait for it, too.
    let b = c.mount_later();
    c.hold_journal = false;
    c.deliver();
    assert!(created(c.reply(a)).0 > 1);
    assert!(c.is_mounted(b));
}

#[test]
fn a_retried_create_is_the_same_create_even_after_a_failover() {
    let mut c = Cluster::new();
    let a = c.mount();
    c.ask(a, file("f"));
    let made = created(c.reply(a));
    c.ask_again(a);
    assert_eq!(created(c.reply(a)), made);
    c.fail_over();
    c.reclaim(a);
    c.ask_again(a);
    assert_eq!(created(c.reply(a)), made, "the reply outlived its coordinator");
}

#[test]
fn a_change_waits_until_what_others_cache_is_gone() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.ask(a, Operation::Lease { ino: f, level: LeaseLevel::Write });
    assert_eq!(granted(c.reply(a)), LeaseLevel::Write);
    c.slow_to_answer(a);
    c.ask(b, chmod(f, 0o600));
    assert_eq!(c.reply(b), None, "the recall is not answered");
    // The holder may still write back what it has, before it answers.
    c.ask(a, commit(f, b"written under the lease"));
    assert!(matches!(c.reply(a), Some(Reply::Attributes(_))));
    c.answer_recalls(a);
    match c.reply(b) {
        Some(Reply::Attributes(attributes)) => {
            assert_eq!((attributes.mode, attributes.size), (Mode::new(0o600), 23));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(c.lease(a, f), LeaseLevel::None);
}

#[test]
fn a_client_that_does_not_answer_is_fenced_before_anybody_goes_on() {
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
    assert_eq!(c.reply(b), None, "its session is over, but its writes are not fenced");
    assert_eq!(c.lease(a, f), LeaseLevel::Write);
    c.hold_fences = false;
    c.deliver();
    assert!(matches!(c.reply(b), Some(Reply::Attributes(_))));
    // Fenced is final.
    c.comes_back(a);
    c.ask(a, Operation::Statfs);
    assert!(c.was_refused_a_session(a));
}

#[test]
fn an_unlinked_file_lives_as_long_as_anybody_has_it_open() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.ask(b, Operation::Unlink { dir: Ino::ROOT, name: name("f") });
    assert!(removed(c.reply(b)).orphan);
    c.ask(a, commit(f, b"still here"));
    assert!(matches!(c.reply(a), Some(Reply::Attributes(_))));
    // Over a failover, too: the client says that it has it open.
    c.fail_over();
    c.reclaim_open(a, &[f]);
    c.reclaim(b);
    c.ask(a, Operation::Getattr { ino: f });
    assert!(matches!(c.reply(a), Some(Reply::Attributes(_))));
    c.ask(a, Operation::Close { ino: f });
    assert_eq!(c.reply(a), Some(Reply::Done));
    c.ask(a, Operation::Getattr { ino: f });
    assert_eq!(c.reply(a), Some(Reply::Refused(FsError::Stale)));
    c.assert_sound();
}

#[test]
fn after_a_failover_nobody_is_served_before_all_have_reclaimed_or_time_is_over() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.ask(b, Operation::Lease { ino: f, level: LeaseLevel::Write });
    assert_eq!(granted(c.reply(b)), LeaseLevel::Write);
    c.fail_over();
    c.reclaim(a);
    c.ask(a, chmod(f, 0o600));
    assert_eq!(c.reply(a), None, "the other may hold a lease");
    c.pass(1100, &[a]);
    assert!(matches!(c.reply(a), Some(Reply::Attributes(_))), "its time to reclaim is over");
    c.ask(b, Operation::Statfs);
    assert!(c.was_refused_a_session(b));
    c.assert_sound();
}

#[test]
fn a_blocked_lock_is_given_when_its_holder_dies() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    let wait = OnConflict::Wait { wait: WaitId(1), process: true };
    c.ask(a, lock_request(a, f, LockMode::Write, wait));
    assert_eq!(c.reply(a), Some(Reply::Locked(Locked::Held)));
    c.ask(b, lock_request(b, f, LockMode::Write, wait));
    assert_eq!(c.reply(b), Some(Reply::Locked(Locked::Waiting)));
    assert!(!c.holds_lock(b));
    c.cut_off(a);
    c.pass(2000, &[b]);
    assert!(c.holds_lock(b));
}

#[test]
fn freed_blocks_come_back_when_durable_and_named_by_nobody() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.ask(a, Operation::Open { ino: f, access: Access::READ });
    c.write_blocks(a, f, 4);
    let free = c.free_blocks();
    c.keeps_layouts(a);
    c.ask(b, Operation::Unlink { dir: Ino::ROOT, name: name("f") });
    c.ask(a, Operation::Close { ino: f });
    c.ask(a, Operation::Close { ino: f });
    c.deliver();
    assert_eq!(c.free_blocks(), free, "the record is not durable");
    c.flush();
    assert_eq!(c.free_blocks(), free + 4, "closed by everybody: no layout is left");

    // Cut while somebody has it open: his layout names the blocks.
    c.ask(a, file("g"));
    let g = created(c.reply(a));
    c.write_blocks(a, g, 4);
    c.ask(
        b,
        Operation::Setattr {
            ino: g,
            set: SetAttributes { size: Some(0), ..SetAttributes::default() },
        },
    );
    assert!(matches!(c.reply(b), Some(Reply::Attributes(_))));
    c.flush();
    assert_eq!(c.free_blocks(), free, "a client may still write there");
    c.return_layouts(a);
    assert_eq!(c.free_blocks(), free + 4);
    c.assert_sound();
}

#[test]
fn a_commit_says_which_blocks_must_hold_data() {
    let mut c = Cluster::new();
    let a = c.mount();
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.write_blocks(a, f, 4);
    let claimed: u64 = c.claims.iter().map(|claim| claim.run.count).sum();
    assert!(claimed == 4 && c.claims.iter().all(|claim| claim.ino == f), "{:?}", c.claims);
}

#[test]
fn a_dead_clients_reservation_is_free_again() {
    let mut c = Cluster::new();
    let a = c.mount();
    let free = c.free_blocks();
    c.ask(a, Operation::Reserve { want: 100, near: BlockAddress(0) });
    assert!(matches!(c.reply(a), Some(Reply::Runs(_))));
    assert_eq!(c.free_blocks(), free - 100);
    c.cut_off(a);
    c.pass(2000, &[]);
    assert_eq!(c.free_blocks(), free);
    c.assert_sound();
}

#[test]
fn two_hosts_that_create_in_one_directory_don_t_recall_from_each_other_for_ever() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    for i in 0..20 {
        for who in [a, b] {
            let make = file(&format!("{i}-{}", who.0));
            c.ask_wanting(who, make, &[(Ino::ROOT, LeaseLevel::Sole)]);
            assert!(created(c.reply(who)).0 > 1);
        }
    }
    assert!((1..5).contains(&c.recalls), "{} recalls for 40 creates", c.recalls);
    // Once they are done, one of them can have it for itself.
    c.pass(600, &[a, b]);
    c.ask(a, Operation::Lease { ino: Ino::ROOT, level: LeaseLevel::Sole });
    assert_eq!(granted(c.reply(a)), LeaseLevel::Sole);
}

//! A row that can't be read: an error and a report for who needs it, and the rest goes on.

use mooring_sharedfs_core::coordinator::Operation;
use mooring_sharedfs_core::format::{Key, KeyRange};
use mooring_sharedfs_core::ops::SetAttributes;
use mooring_sharedfs_core::{Damage, SessionId, SlotIndex};

use super::cluster::{Cluster, created, file};

/// A client makes a file: the volume is served.
fn is_served(c: &mut Cluster, session: SessionId, name: &str) {
    c.ask(session, file(name));
    created(c.reply(session));
}

fn is_reported(c: &mut Cluster, key: &Key) {
    let row = Damage::Row(key.encode()[0]);
    let damaged = c.damaged.replace(Vec::new()).unwrap_or_default();
    assert!(damaged.contains(&row), "{key:?} is not in {damaged:?}");
}

#[test]
fn a_session_that_can_not_be_read_is_over_and_the_others_are_not() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    let key = Key::Session(a);
    c.spoil(&key);
    c.fail_over();
    is_reported(&mut c, &key);
    c.reclaim(b);
    is_served(&mut c, b, "f");
    c.pass(100, &[a, b]);
    assert!(c.ended(a).is_some(), "its client is told");
}

#[test]
fn a_session_whose_row_rots_while_it_is_served_is_fenced_and_what_it_held_is_given_away() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    let key = Key::Session(a);
    c.spoil(&key);
    c.give_up(a);
    is_reported(&mut c, &key);
    is_served(&mut c, b, "f");
    let later = c.mount();
    is_served(&mut c, later, "g");
}

#[test]
fn whose_replies_can_not_be_read_is_over_after_a_failover() {
    let mut c = Cluster::new();
    let (a, b) = (c.mount(), c.mount());
    is_served(&mut c, a, "f");
    let key = Key::Reply(a, SlotIndex(0));
    c.spoil(&key);
    c.fail_over();
    is_reported(&mut c, &key);
    c.reclaim(b);
    is_served(&mut c, b, "g");
    c.pass(100, &[a, b]);
    assert!(c.ended(a).is_some(), "its client is told");
}

#[test]
fn freed_blocks_that_can_not_be_read_stay_away_and_nothing_waits_for_them() {
    let mut c = Cluster::new();
    let a = c.mount();
    let f = {
        c.ask(a, file("f"));
        created(c.reply(a))
    };
    c.write_blocks(a, f, 20);
    let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
    c.ask(a, Operation::Setattr { ino: f, set });
    let key = c.first_key(&KeyRange::all_quarantine());
    c.spoil(&key);
    c.flush();
    is_reported(&mut c, &key);
    is_served(&mut c, a, "g");
    c.fail_over();
    c.reclaim(a);
    c.flush();
    is_reported(&mut c, &key);
    is_served(&mut c, a, "h");
}

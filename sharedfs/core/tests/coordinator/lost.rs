//! The power of everything is cut: what was flushed stays, whatever was lost beside it.

use mooring_sharedfs_core::coordinator::{Operation, WritePlace};
use mooring_sharedfs_core::ops::SetAttributes;
use mooring_sharedfs_core::{Ino, SessionId};

use super::cluster::{Cluster, created, file};

/// A cluster with a file of so many bytes, each of them 7, on media.
fn with_file(bytes: usize) -> (Cluster, SessionId, Ino) {
    let mut c = Cluster::new();
    let a = c.mount();
    c.ask(a, file("f"));
    let f = created(c.reply(a));
    c.write(a, f, WritePlace::At(0), &vec![7; bytes]);
    c.flush_blocks();
    (c, a, f)
}

fn resize(c: &mut Cluster, a: SessionId, ino: Ino, size: u64) {
    let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
    c.ask(a, Operation::Setattr { ino, set });
    c.flush();
}

/// What a file holds once its client has come again.
fn contents_after_power_cut(c: &mut Cluster, a: SessionId, f: Ino) -> Vec<u8> {
    c.cut_power();
    c.reclaim_open(a, &[f]);
    c.assert_sound();
    c.contents(a, f)
}

#[test]
fn a_write_that_jumps_over_the_old_end_leaves_zeros_there() {
    let (mut c, a, f) = with_file(8000);
    resize(&mut c, a, f, 5000);
    c.write(a, f, WritePlace::At(9000), &[8; 10]);
    let found = contents_after_power_cut(&mut c, a, f);
    assert!(found == [vec![7; 5000], vec![0; 4010]].concat());
}

#[test]
fn bytes_behind_the_old_end_of_the_same_block_are_zeros_if_they_are_lost() {
    let (mut c, a, f) = with_file(8000);
    resize(&mut c, a, f, 5000);
    c.write(a, f, WritePlace::End, &[8; 10]);
    c.write(a, f, WritePlace::End, &[9; 10]);
    let found = contents_after_power_cut(&mut c, a, f);
    assert!(found == [vec![7; 5000], vec![0; 20]].concat());
}

#[test]
fn a_size_that_was_moved_up_shows_no_bytes_that_were_cut_off() {
    let (mut c, a, f) = with_file(8000);
    resize(&mut c, a, f, 5000);
    resize(&mut c, a, f, 7000);
    let found = contents_after_power_cut(&mut c, a, f);
    assert!(found == [vec![7; 5000], vec![0; 2000]].concat());
}

#[test]
fn a_file_that_grew_out_of_the_tree_has_what_it_had_there() {
    let (mut c, a, f) = with_file(3000);
    c.write(a, f, WritePlace::End, &[8; 9000]);
    let lost = c.cut_power();
    assert_eq!(lost.len(), 2, "the first block, and those that were new: {lost:?}");
    c.reclaim_open(a, &[f]);
    assert!(c.contents(a, f) == [vec![7; 3000], vec![0; 9000]].concat());
    c.assert_sound();
}

#[test]
fn what_was_flushed_is_not_taken_for_lost_because_the_rest_of_it_was_freed() {
    let (mut c, a, f) = with_file(5 * 4096);
    resize(&mut c, a, f, 2 * 4096);
    // The freed blocks are discarded by now: they have the versions of blocks that were never written.
    assert_eq!(c.cut_power(), []);
    c.reclaim_open(a, &[f]);
    assert!(c.contents(a, f) == [7; 8192]);
}

#[test]
fn only_the_blocks_that_are_lost_become_holes() {
    let (mut c, a, f) = with_file(0);
    c.hold_writes = true;
    c.write(a, f, WritePlace::At(0), &[7; 3 * 4096]);
    c.hold_writes = false;
    c.deliver();
    c.keep_of_writes(1);
    let lost = c.cut_power();
    assert_eq!(lost.iter().map(|lost| lost.count).collect::<Vec<_>>(), [2]);
    c.reclaim_open(a, &[f]);
    assert!(c.contents(a, f) == [vec![7; 4096], vec![0; 8192]].concat());
    c.assert_sound();
}

#[test]
fn a_block_that_served_the_file_twice_is_what_it_was_the_second_time() {
    let (mut c, a, f) = with_file(0);
    c.write(a, f, WritePlace::At(0), &[6; 4097]);
    resize(&mut c, a, f, 0);
    let first = c.claims[0].run.start;
    loop {
        // New blocks come from further and further on, until the space is used up.
        c.write(a, f, WritePlace::At(0), &[7; 4000]);
        c.write(a, f, WritePlace::End, &[8; 100]);
        if c.claims.iter().rev().take(2).any(|claim| claim.run.start == first) {
            break;
        }
        assert!(c.claims.len() < 10_000, "it never comes");
        resize(&mut c, a, f, 0);
    }
    let found = contents_after_power_cut(&mut c, a, f);
    assert!(found == [vec![7; 4000], vec![0; 100]].concat());
}

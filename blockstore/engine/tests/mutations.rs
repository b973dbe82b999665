//! Proof that the crash tester can fail: each deliberate bug is found by it.
//!
//! Run with `--features mutations`; the bug is chosen at run time, so each test sets it, runs the
//! same seeds that pass without it, and expects a complaint.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Mutex, PoisonError};

use mooring_engine::mutation::{Mutation, set};
use support::script::{rot, run};

/// One bug at a time, also where tests share a process.
static ALONE: Mutex<()> = Mutex::new(());

fn caught(mutation: Mutation) -> String {
    caught_from(mutation, 0)
}

/// From a seed on: some bugs show in few of them.
fn caught_from(mutation: Mutation, first: u64) -> String {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    set(Some(mutation));
    let complaint = (first..first + 40).find_map(|seed| {
        let found = std::panic::catch_unwind(|| run(seed, 20, 500, 1));
        match found {
            Ok(Ok(_)) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("seed {seed} panicked")),
        }
    });
    set(None);
    let complaint = complaint.unwrap_or_else(|| panic!("{mutation:?} was not found"));
    println!("{mutation:?}: {complaint}");
    complaint
}

#[test]
fn leftovers_of_a_segments_earlier_life_are_noticed() {
    caught_from(Mutation::UseUnchecked, 34);
}

#[test]
fn a_copy_over_a_newer_write_is_noticed() {
    caught(Mutation::MoveOverNewer);
}

#[test]
fn a_slot_that_names_lost_nodes_is_noticed() {
    caught(Mutation::SlotBeforeNodes);
}

#[test]
fn a_segment_written_again_too_early_is_noticed() {
    caught(Mutation::ReuseTooEarly);
}

#[test]
fn a_sync_that_answers_early_is_noticed() {
    caught(Mutation::SyncUnsynced);
}

#[test]
fn a_torn_record_that_is_taken_is_noticed() {
    caught(Mutation::TornAccepted);
}

#[test]
fn a_read_that_checks_nothing_is_noticed() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(rot(1), Ok(()));
    set(Some(Mutation::CrcUnchecked));
    let complaint = rot(1);
    set(None);
    assert!(complaint.is_err(), "corrupt blocks were returned and nobody complained");
}

#[test]
fn without_a_bug_the_same_seeds_pass() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for seed in 0..4 {
        if let Err(why) = run(seed, 20, 500, 1) {
            panic!("{why}");
        }
    }
}

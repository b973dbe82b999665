//! Every checker of the simulator of shared volumes can fail: deliberate bugs, compiled only for this
//! test, each found by the checker of the property that it breaks. The same plan without passes.
//!
//! `cargo test -p mooring-tests --features mutations --test fs_sim_mutations -- --nocapture`

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use mooring_sharedfs_client::Mutation as Client;
use mooring_sharedfs_core::Mutation as Coordinator;
use mooring_tests::fs_sim::{Bugs, FaultKind, Hunt, Plan};

/// More seeds than any bug here needs.
const MOST: u64 = 3000;

const COHERENCE: &str = "coherence";
const FOREIGN: &str = "no bytes of others";
const FSYNCED: &str = "nothing fsynced is lost";
const LOCKS: &str = "locks exclude";
const APPENDS: &str = "appends follow each other";

fn caught(name: &str, bugs: Bugs, kinds: &[FaultKind], properties: &[&'static str]) {
    let change = |plan: &mut Plan| {
        let places = plan.faults.iter_mut().step_by(2);
        for ((_, kind), wanted) in places.zip(kinds.iter().cycle()) {
            *kind = *wanted;
        }
    };
    let hunt = Hunt { properties, most: MOST, change: &change, bugs };
    let caught = hunt
        .run()
        .unwrap_or_else(|others| panic!("{name} was not found in {MOST} seeds; found: {others:?}"));
    let violation = &caught.failure.violation;
    assert!(caught.not_it.is_empty(), "seeds {:?} fail without {name} too", caught.not_it);
    let line = format!(
        "{name:<24} {:<34} seed {:>4}, {:>4} tried\n",
        violation.property, caught.failure.seed, caught.tried
    );
    print!("{line}{}\n{:?}\n", violation.text, caught.others);
    if let Some(table) = env::var_os("MOORING_MUTATIONS") {
        let file = OpenOptions::new().append(true).create(true).open(table);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("MOORING_MUTATIONS names a file that can be written");
    }
}

fn of_coordinator(mutation: Coordinator, kinds: &[FaultKind], properties: &[&'static str]) {
    let bugs = Bugs { coordinator: Some(mutation), ..Bugs::default() };
    caught(&format!("{mutation:?}"), bugs, kinds, properties);
}

fn of_client(mutation: Client, kinds: &[FaultKind], properties: &[&'static str]) {
    let bugs = Bugs { client: Some(mutation), ..Bugs::default() };
    caught(&format!("{mutation:?}"), bugs, kinds, properties);
}

#[test]
fn a_layout_kept_after_free_is_found() {
    let kinds = [FaultKind::LateMessages, FaultKind::SlowSlice, FaultKind::StopHost];
    of_coordinator(Coordinator::LayoutsKept, &kinds, &[FOREIGN]);
}

#[test]
fn a_commit_durable_before_its_data_is_found() {
    of_coordinator(Coordinator::DurableBeforeData, &[FaultKind::PowerCut], &[FSYNCED]);
}

#[test]
fn going_on_before_a_recall_is_answered_is_found() {
    of_coordinator(Coordinator::RecallUnawaited, &[], &[COHERENCE, FOREIGN, APPENDS]);
}

#[test]
fn a_lock_dropped_at_failover_is_found() {
    of_coordinator(Coordinator::LocksDropped, &[FaultKind::FailOver], &[LOCKS]);
}

#[test]
fn a_reply_cache_lost_at_failover_is_found() {
    of_coordinator(Coordinator::RepliesLost, &[FaultKind::FailOver], &[COHERENCE, APPENDS]);
}

#[test]
fn an_expired_session_still_served_is_found() {
    of_client(Client::ExpiredServed, &[FaultKind::CutHost, FaultKind::StopHost], &[COHERENCE]);
}

#[test]
fn a_recall_answered_before_the_write_back_is_found() {
    of_client(Client::RecallUnflushed, &[], &[COHERENCE, APPENDS]);
}

#[test]
fn a_kernel_that_keeps_its_caches_is_found() {
    of_client(Client::KernelUninvalidated, &[], &[COHERENCE]);
}

#[test]
fn a_fence_forgotten_by_a_new_primary_is_found() {
    let bugs = Bugs { fences_forgotten: true, ..Bugs::default() };
    let kinds = [FaultKind::MoveSlice, FaultKind::StopHost];
    caught("FencesForgotten", bugs, &kinds, &[COHERENCE, FOREIGN, FSYNCED]);
}

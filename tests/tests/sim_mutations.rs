//! Every checker can fail: deliberate bugs of the cores and of the engine, compiled only for this
//! test, each found by the checker of the property that it breaks, within a bounded number of seeds.
//! The same plan without the bug passes. `tests/run mutations` prints the table of them.
//!
//! `cargo test -p mooring-tests --features mutations --test sim_mutations -- --nocapture`

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::RwLock;

use mooring_engine::mutation::{Mutation as Engine, set};
use mooring_replication::Mutation;
use mooring_tests::sim::{FaultKind, Hunt, Plan, StoreKind};

/// More seeds than any bug here needs.
const MOST: u64 = 400;

/// The engine's bugs are switched on for a whole process: no other test may run meanwhile.
static ENGINE: RwLock<()> = RwLock::new(());

const KEPT: &str = "acknowledged is kept";
const READS: &str = "reads are linearizable";
const AGREE: &str = "in-sync replicas agree";
const FLUSHED: &str = "flushed is durable";
const VERSIONS: &str = "one content per version";
const FENCED: &str = "fenced never writes";
const POOL: &str = "a pool holds what it was given";
const LIVENESS: &str = "liveness after healing";
const SPACE: &str = "space";
const GARBLED: &str = "a corrupt block is never returned";

/// Gives the faults that a bug hides behind a larger part in every plan.
fn prefer(plan: &mut Plan, kinds: &[FaultKind]) {
    let places = plan.faults.iter_mut().step_by(2);
    for ((_, kind), wanted) in places.zip(kinds.iter().cycle()) {
        *kind = *wanted;
    }
}

/// Hunts, and adds a line to the table.
fn hunt(name: &str, hunt: &Hunt<'_>) {
    let caught = hunt.run().unwrap_or_else(|others| {
        panic!("{name} was not found by {:?} in {MOST} seeds; found: {others:?}", hunt.properties)
    });
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

fn caught(mutation: Mutation, kinds: &[FaultKind], properties: &[&'static str]) {
    let _alone = ENGINE.read();
    let change = |plan: &mut Plan| {
        plan.store = StoreKind::Model;
        prefer(plan, kinds);
    };
    let bug = |plan: &mut Plan, on: bool| plan.options.mutation = on.then_some(mutation);
    let hunted = Hunt { properties, most: MOST, change: &change, bug: &bug };
    hunt(&format!("{mutation:?}"), &hunted);
}

/// On the engine, in small pools whose power goes in the middle of reclaim again and again.
fn caught_on_engine(mutation: Engine, properties: &[&'static str]) {
    let _alone = ENGINE.write();
    let kinds = [FaultKind::CutInReclaim, FaultKind::PowerCutAll, FaultKind::PowerCut];
    let change = |plan: &mut Plan| {
        plan.store = StoreKind::SmallEngine;
        plan.crash_every = 2;
        prefer(plan, &kinds);
    };
    let bug = |_: &mut Plan, on: bool| set(on.then_some(mutation));
    let hunted = Hunt { properties, most: MOST, change: &change, bug: &bug };
    hunt(&format!("{mutation:?}"), &hunted);
    set(None);
}

#[test]
fn acknowledging_before_all_have_received_is_found() {
    caught(Mutation::AcknowledgeEarly, &[], &[KEPT]);
}

#[test]
fn a_flush_answered_at_received_is_found() {
    caught(Mutation::FlushAtReceived, &[], &[FLUSHED]);
}

#[test]
fn an_epoch_unchecked_at_a_replica_is_found() {
    caught(Mutation::EpochUnchecked, &[FaultKind::StopLate], &[KEPT]);
}

#[test]
fn positions_taken_before_raising_the_epoch_are_found() {
    caught(Mutation::PositionsBeforePromise, &[FaultKind::HalfCut], &[AGREE, KEPT]);
}

#[test]
fn an_incarnation_unchecked_is_found() {
    let kinds = [FaultKind::PowerCutTwo, FaultKind::PowerCutAll];
    caught(Mutation::IncarnationUnchecked, &kinds, &[KEPT]);
}

#[test]
fn superseded_records_kept_are_found() {
    caught(Mutation::SupersededKept, &[FaultKind::LonePrimary], &[AGREE]);
}

#[test]
fn discards_left_out_of_resync_are_found() {
    caught(Mutation::DiscardsNotCopied, &[], &[AGREE]);
}

#[test]
fn lost_blocks_left_out_of_resync_are_found() {
    let kinds = [FaultKind::Rot, FaultKind::RotEverywhere, FaultKind::PowerCut];
    caught(Mutation::LostNotCopied, &kinds, &[READS, AGREE]);
}

#[test]
fn a_joiner_that_is_silent_in_a_new_epoch_is_found() {
    let kinds = [FaultKind::Kill, FaultKind::Stop, FaultKind::HandOver];
    caught(Mutation::JoinerSilent, &kinds, &[LIVENESS]);
}

#[test]
fn a_repair_without_space_set_aside_is_found() {
    caught(Mutation::RepairUnpaid, &[FaultKind::FillPool, FaultKind::Rot], &[SPACE]);
}

#[test]
fn a_read_without_a_lease_is_found() {
    caught(Mutation::ReadWithoutLease, &[FaultKind::StopLate, FaultKind::OneWay], &[READS]);
}

#[test]
fn a_read_past_an_overlapping_write_is_found() {
    caught(Mutation::ReadUncommitted, &[FaultKind::LonePrimary], &[READS]);
}

#[test]
fn a_seal_lost_over_a_change_of_primary_is_found() {
    let kinds = [FaultKind::TakeOver, FaultKind::HandOver, FaultKind::Stop];
    caught(Mutation::SealLost, &kinds, &[FENCED]);
}

#[test]
fn a_joining_replica_counted_too_early_is_found() {
    caught(Mutation::JoinedEarly, &[], &[AGREE]);
}

#[test]
fn a_sequence_reused_after_a_restart_is_found() {
    caught(Mutation::SequenceReused, &[FaultKind::PowerCut], &[VERSIONS]);
}

#[test]
fn segment_leftovers_replayed_are_found() {
    caught_on_engine(Engine::UseUnchecked, &[POOL]);
}

#[test]
fn a_copy_of_reclaim_over_a_newer_write_is_found() {
    caught_on_engine(Engine::MoveOverNewer, &[POOL]);
}

#[test]
fn a_slot_written_before_its_nodes_is_found() {
    caught_on_engine(Engine::SlotBeforeNodes, &[POOL]);
}

#[test]
fn a_segment_written_again_too_early_is_found() {
    caught_on_engine(Engine::ReuseTooEarly, &[POOL]);
}

#[test]
fn a_sync_that_answers_early_is_found() {
    caught_on_engine(Engine::SyncUnsynced, &[POOL]);
}

#[test]
fn a_torn_record_taken_is_found() {
    caught_on_engine(Engine::TornAccepted, &[POOL]);
}

#[test]
fn a_checksum_unchecked_is_found() {
    let _alone = ENGINE.write();
    let change = |plan: &mut Plan| {
        plan.store = StoreKind::Engine;
        prefer(plan, &[FaultKind::Rot]);
    };
    let bug = |_: &mut Plan, on: bool| set(on.then_some(Engine::CrcUnchecked));
    let hunted = Hunt { properties: &[GARBLED], most: MOST, change: &change, bug: &bug };
    hunt("CrcUnchecked", &hunted);
    set(None);
}

//! Every checker can fail: deliberate bugs of the core and of the engine, compiled only for this
//! test, and how many seeds it takes until each is found.
//!
//! `cargo test -p mooring-tests --features mutations --test sim_mutations`

use std::sync::RwLock;

use mooring_replication::Mutation;
use mooring_tests::sim::{FaultKind, Plan, StoreKind, hunt};

/// More seeds than any bug here needs.
const MOST: u64 = 2_000;

/// The engine's bugs are switched on for a whole process: no other test may run meanwhile.
static ENGINE: RwLock<()> = RwLock::new(());

/// Gives the faults that a bug hides behind a larger part in every plan.
fn prefer(plan: &mut Plan, kinds: &[FaultKind]) {
    for (i, (_, kind)) in plan.faults.iter_mut().enumerate() {
        if i % 2 == 0 {
            *kind = kinds[i / 2 % kinds.len()];
        }
    }
}

fn caught(mutation: Mutation, kinds: &[FaultKind], properties: &[&str]) {
    let _alone = ENGINE.read().expect("no test fails while it writes");
    let change = |plan: &mut Plan| {
        plan.store = StoreKind::Model;
        plan.options.mutation = Some(mutation);
        if !kinds.is_empty() {
            prefer(plan, kinds);
        }
    };
    let caught = hunt(MOST, &change).unwrap_or_else(|| {
        panic!("{mutation:?} was not found in {MOST} seeds");
    });
    let property = caught.failure.violation.property;
    println!("{mutation:?}: found by seed {} of {MOST}: {property}", caught.seeds);
    assert!(properties.contains(&property), "found by another checker: {}", caught.failure);
}

const KEPT: &str = "acknowledged is kept";
const READS: &str = "reads are linearizable";
const AGREE: &str = "in-sync replicas agree";
const FLUSHED: &str = "flushed is durable";
const VERSIONS: &str = "one content per version";
const WRITER: &str = "one writer per epoch";
const FENCED: &str = "fenced never writes";
const INVARIANTS: &str = "invariants";
const LIVE: &str = "liveness after healing";

#[test]
fn acknowledging_early_is_found() {
    caught(Mutation::AcknowledgeEarly, &[], &[KEPT, READS]);
}

#[test]
fn a_flush_answered_at_received_is_found() {
    caught(Mutation::FlushAtReceived, &[], &[FLUSHED]);
}

#[test]
fn an_epoch_unchecked_is_found() {
    let kinds = [FaultKind::Stop, FaultKind::Lag, FaultKind::Stop];
    caught(Mutation::EpochUnchecked, &kinds, &[KEPT, READS, AGREE, VERSIONS, WRITER, INVARIANTS]);
}

#[test]
fn positions_taken_before_the_promise_are_found() {
    let kinds = [FaultKind::Stop, FaultKind::OneWay, FaultKind::SlowLink];
    caught(Mutation::PositionsBeforePromise, &kinds, &[KEPT, READS, AGREE, INVARIANTS]);
}

#[test]
fn an_incarnation_unchecked_is_found() {
    caught(Mutation::IncarnationUnchecked, &[], &[KEPT, READS, AGREE, FLUSHED, INVARIANTS]);
}

#[test]
fn superseded_records_kept_are_found() {
    caught(Mutation::SupersededKept, &[], &[AGREE, READS, KEPT, VERSIONS, INVARIANTS]);
}

#[test]
fn discards_left_out_of_resync_are_found() {
    caught(Mutation::DiscardsNotCopied, &[], &[AGREE, READS]);
}

#[test]
fn a_read_without_a_lease_is_found() {
    let kinds = [FaultKind::Stop, FaultKind::Partition, FaultKind::Stop, FaultKind::OneWay];
    caught(Mutation::ReadWithoutLease, &kinds, &[READS, FENCED]);
}

#[test]
fn a_read_of_what_is_not_committed_is_found() {
    caught(Mutation::ReadUncommitted, &[], &[READS]);
}

#[test]
fn a_seal_that_is_lost_is_found() {
    let kinds = [FaultKind::TakeOver, FaultKind::HandOver, FaultKind::Stop, FaultKind::TakeOver];
    caught(Mutation::SealLost, &kinds, &[FENCED, READS]);
}

#[test]
fn a_replica_joined_too_early_is_found() {
    caught(Mutation::JoinedEarly, &[], &[KEPT, READS, AGREE, INVARIANTS]);
}

#[test]
fn a_sequence_used_twice_is_found() {
    caught(
        Mutation::SequenceReused,
        &[],
        &[VERSIONS, KEPT, READS, AGREE, WRITER, INVARIANTS, LIVE],
    );
}

#[test]
fn bugs_of_the_engine_are_found() {
    use mooring_engine::mutation::{Mutation as Engine, set};
    let _alone = ENGINE.write().unwrap();
    let kinds = [FaultKind::PowerCut, FaultKind::PowerCutAll, FaultKind::Kill];
    let change = |plan: &mut Plan| {
        plan.store = StoreKind::Engine;
        prefer(plan, &kinds);
    };
    // The rest (leftovers replayed, reclaim over a newer write, segments used again too early) needs
    // far more reclaim than a run of a few hundred operations gives: the engine's own crash tests
    // find them.
    for bug in [Engine::SlotBeforeNodes, Engine::SyncUnsynced] {
        set(Some(bug));
        let caught = hunt(MOST, &change);
        set(None);
        let caught = caught.unwrap_or_else(|| panic!("{bug:?} was not found in {MOST} seeds"));
        let property = caught.failure.violation.property;
        println!("{bug:?}: found by seed {} of {MOST}: {property}", caught.seeds);
    }
}

//! What only a whole node shows: its pools told of in order, its replicas swept.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod alone;

use std::sync::{Arc, mpsc};

use mooring_config::{Command, PoolState, What};
use mooring_terms::Incarnation;

use super::Node;
use super::pools::OpenPool;
use alone::Alone;

#[test]
fn failure_of_a_pool_never_overtakes_the_opening_that_it_ends() {
    let alone = Alone::start();
    let (node, pool) = (&alone.node, alone.pool);
    let size = alone.open_pool().pool.engine().usage().size;
    let rounds = 40;
    for incarnation in (1..=rounds).map(Incarnation) {
        node.announce_of_pool(pool, Command::PoolOpened { pool, incarnation, size });
        node.report_failed(pool, incarnation, format!("in opening {incarnation}"));
    }
    let last = format!("in opening {rounds}");
    let is_last = |what: &What| matches!(what, What::PoolFailed { reason, .. } if *reason == last);
    alone.wait("all is told", || node.state().events().iter().any(|event| is_last(&event.what)));

    // A failure that came before its opening would have changed nothing.
    let state = node.state();
    let told: Vec<&What> = state.events().iter().map(|event| &event.what).collect();
    let of_pool = told.into_iter().filter_map(|what| match what {
        What::PoolOpened { .. } => Some("opened".to_owned()),
        What::PoolFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    let expected = (1..=rounds)
        .map(Incarnation)
        .flat_map(|incarnation| ["opened".to_owned(), format!("in opening {incarnation}")]);
    assert_eq!(of_pool.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let row = &state.pools()[&pool];
    assert_eq!(row.incarnation, Incarnation(rounds));
    assert!(matches!(row.state, PoolState::Failed { .. }), "{row:?}");
}

/// Runs `work` on the thread of the node's pool, and gives what it gives.
fn on_the_pools_thread<R: Send + 'static>(
    alone: &Alone,
    work: impl FnOnce(&Arc<Node>, &OpenPool) -> R + Send + 'static,
) -> R {
    let (done, result) = mpsc::channel();
    let (node, open) = (Arc::clone(&alone.node), alone.open_pool());
    alone.open_pool().pool.run(move || done.send(work(&node, &open)).unwrap());
    result.recv().unwrap()
}

#[test]
fn replica_assigned_after_the_sweep_looked_is_kept() {
    let alone = Alone::start();
    let before = alone.node.state();
    let volume = alone.make_volume("db");
    let stray = alone.stray(77);
    on_the_pools_thread(&alone, move |node, open| node.sweep(open, &before));
    assert!(alone.holds(volume), "swept, though it was assigned");
    assert!(!alone.holds(stray));
}

#[test]
fn sweep_leaves_nothing_to_be_freed_later() {
    // What is freed behind other work of this thread could be a replica that was assigned again
    // meanwhile, and is in use.
    let alone = Alone::start();
    let stray = alone.stray(77);
    let gone = on_the_pools_thread(&alone, move |node, open| {
        node.sweep(open, &node.state());
        open.pool.engine().replica(stray).is_err()
    });
    assert!(gone, "it is still to be freed");
}

#[test]
fn replica_taken_away_before_it_was_held_is_freed() {
    let alone = Alone::start();
    let (volume, stray) = (alone.make_volume("db"), alone.stray(77));
    on_the_pools_thread(&alone, move |node, open| {
        node.hold_replica(volume, open);
        node.hold_replica(stray, open);
    });
    assert!(alone.holds(volume));
    assert!(!alone.holds(stray), "its space would be lost until the next start");
}

#[test]
fn what_nobody_has_any_more_is_swept_once_the_configuration_is_current() {
    let alone = Alone::start();
    let (volume, stray) = (alone.make_volume("db"), alone.stray(77));
    let node = Arc::clone(&alone.node);
    alone.runtime.block_on(node.sweep_once_current(alone.open_pool()));
    alone.wait("it is swept", || !alone.holds(stray));
    assert!(alone.holds(volume));
}

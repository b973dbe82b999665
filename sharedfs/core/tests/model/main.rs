//! Random operations on the core and on a reference file system that knows nothing of trees,
//! extents or blocks; after each operation the two must tell the same in every respect: results,
//! errors, contents, sizes, dates, link counts, blocks, free space. And the tree must be sound.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod actions;
mod harness;
mod reference;

use actions::Action;
use harness::Harness;
use mooring_sharedfs_core::Caller;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use reference::Reference;

/// Who acts: root, two users of one group, one of another.
fn callers() -> Vec<Caller> {
    vec![Caller::ROOT, Caller::user(1000, 100), Caller::user(1001, 100), Caller::user(1002, 101)]
}

fn run(actions: &[Action]) -> Result<(), TestCaseError> {
    let callers = callers();
    let (mut harness, mut reference) = (Harness::new(4096), Reference::new());
    for (step, action) in actions.iter().enumerate() {
        let real = harness.act(&callers, step, action);
        let expected = reference.act(&callers, step, action);
        prop_assert_eq!(&real, &expected, "step {}: {:?}", step, action);
        prop_assert_eq!(harness.check(), vec![], "step {}: {:?}", step, action);
        let (real, expected) = (harness.world(), reference.world(4096));
        prop_assert_eq!(real, expected, "step {}: {:?}", step, action);
    }
    Ok(())
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        max_shrink_iters: 3_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// Everything, on few names, so that actions meet each other.
    #[test]
    fn the_core_does_what_a_naive_file_system_does(
        actions in proptest::collection::vec(actions::any_action(), 1..120)
    ) {
        run(&actions)?;
    }

    /// Contents above all: one or two files, many writes, holes and cuts.
    #[test]
    fn contents_are_those_of_a_naive_file(
        actions in proptest::collection::vec(actions::contents_action(), 1..60)
    ) {
        let mut all = vec![actions::make_file(0), actions::make_file(1)];
        all.extend(actions);
        run(&all)?;
    }
}

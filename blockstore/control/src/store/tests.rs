//! The store alone: openraft's own suite, crashes, damage.
#![allow(clippy::disallowed_methods)] // These tests measure and wait in real time.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mooring_config::{Actor, Boot, Proposal, ProposalId, UnixMillis, VoterCount};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader, RaftSnapshotBuilder, StorageError};
use tempfile::TempDir;

use super::*;
use crate::raft::Batch;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, MachineStore, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, MachineStore), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = open(&dir.path().join("raft.redb"), NodeId(0)).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_suite_of_openraft_passes() {
    Suite::test_all(Builder).unwrap();
}

fn log_id(index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn entry(index: u64) -> Entry {
    let proposal = Proposal {
        id: ProposalId { node: NodeId(1), boot: Boot(1), number: index },
        at: UnixMillis(index),
        by: Actor::system(NodeId(1)),
        command: mooring_config::Command::SetVoters(VoterCount::Auto),
    };
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(Batch(Arc::new(vec![proposal]))) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Opens the file as soon as its last user has let go of it.
fn reopen(path: &Path) -> Result<(LogStore, MachineStore), StoreError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match open(path, NodeId(1)) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    runtime().block_on(async {
        let (mut log, mut machine) = open(&path, NodeId(1)).unwrap();
        log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
        log.blocking_append((0..100).map(entry)).await.unwrap();
        machine.apply((0..50).map(entry)).await.unwrap();
        machine.build_snapshot().await.unwrap();
        log.save_committed(Some(log_id(70))).await.unwrap();
        log.truncate(log_id(90)).await.unwrap();
        log.purge(log_id(20)).await.unwrap();
    });
    runtime().block_on(async {
        let (mut log, mut machine) = reopen(&path).unwrap();
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 1)));
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(70)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(log_id(20)));
        assert_eq!(state.last_log_id, Some(log_id(89)));
        let entries = log.try_get_log_entries(0..200).await.unwrap();
        assert_eq!(entries, (21..90).map(entry).collect::<Vec<_>>());
        assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(49)));
        let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.meta.last_log_id, Some(log_id(49)));
    });
}

#[test]
fn another_nodes_file_and_a_file_in_use_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let first = open(&path, NodeId(1)).unwrap();
    assert!(matches!(open(&path, NodeId(1)), Err(StoreError::InUse { .. })));
    drop(first);
    reopen(&path).map(drop).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let refused = loop {
        match open(&path, NodeId(2)) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => {}
            other => break other.map(drop).unwrap_err(),
        }
    };
    assert!(refused.to_string().ends_with("belongs to node 1, this is node 2"), "{refused}");
}

/// Every place in the file that is changed is either found, or was not in use: what opens is what
/// was written.
#[test]
fn a_damaged_file_is_refused_or_says_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    runtime().block_on(async {
        let (mut log, mut machine) = open(&path, NodeId(1)).unwrap();
        log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
        log.blocking_append((0..60).map(entry)).await.unwrap();
        machine.apply((0..50).map(entry)).await.unwrap();
        machine.build_snapshot().await.unwrap();
    });
    reopen(&path).map(drop).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let good = std::fs::read(&path).unwrap();
    let used: Vec<usize> = good
        .chunks(512)
        .enumerate()
        .filter(|(_, c)| c.iter().any(|b| *b != 0))
        .map(|(i, _)| i)
        .collect();
    let step = (used.len() / 150).max(1);
    let (mut refused, mut tried) = (0, 0);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for chunk in used.into_iter().step_by(step) {
        let mut bad = good.clone();
        let at = chunk * 512 + good[chunk * 512..].iter().position(|b| *b != 0).unwrap();
        bad[at] ^= 0x41;
        let damaged = dir.path().join("damaged.redb");
        std::fs::write(&damaged, &bad).unwrap();
        tried += 1;
        match open_checked(&damaged, NodeId(1)) {
            Err(error) => {
                refused += 1;
                assert!(!matches!(error, StoreError::InUse { .. }), "{error}");
            }
            Ok((_, found)) => {
                assert_eq!(found.vote, Some(Vote::new_committed(3, 1)), "byte {at}");
                assert_eq!(found.log.len(), 60, "byte {at}");
                assert!(found.log.iter().all(|(index, found)| *found == entry(*index)));
            }
        }
    }
    std::panic::set_hook(hook);
    println!("{refused} of {tried} damaged files were refused, the others were whole");
    assert!(refused > tried / 4, "{refused} of {tried}");
    std::fs::write(&path, b"this is not a database at all, but some text").unwrap();
    let error = open(&path, NodeId(1)).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

/// Run by `kill_9_loses_nothing_acknowledged` in a process of its own.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Ok(path) = std::env::var("MOORING_TEST_STORE") else { return };
    runtime().block_on(async {
        let (mut log, _machine) = open(Path::new(&path), NodeId(1)).unwrap();
        let first = log.get_log_state().await.unwrap().last_log_id.map_or(0, |id| id.index + 1);
        for index in first.. {
            if index % 7 == 0 {
                log.save_vote(&Vote::new(index, 1)).await.unwrap();
            }
            log.blocking_append([entry(index)]).await.unwrap();
            println!("acknowledged {index}");
        }
    });
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let mut acknowledged = None;
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_that_appends_until_it_is_killed", "--nocapture"])
            .env("MOORING_TEST_STORE", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 3 + round * 5;
        let mut seen = 0;
        while let Some(Ok(line)) = lines.next() {
            if let Some(index) = line.split("acknowledged ").nth(1) {
                acknowledged = Some(index.parse::<u64>().unwrap());
                seen += 1;
                if seen >= wanted {
                    break;
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(index) = line.split("acknowledged ").nth(1) {
                acknowledged = index.parse().ok().or(acknowledged);
            }
        }
        let (_, found) = open_checked(&path, NodeId(1)).unwrap();
        let last = found.log.last_key_value().map(|(index, _)| *index);
        assert!(last >= acknowledged, "{last:?} {acknowledged:?}");
        assert_eq!(found.log.len() as u64, last.unwrap() + 1, "dense");
        assert!(found.log.iter().all(|(index, found)| *found == entry(*index)));
        let voted = acknowledged.unwrap() / 7 * 7;
        assert!(found.vote.unwrap().leader_id().term >= voted);
    }
}

#[test]
fn appends_that_wait_together_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    runtime().block_on(async {
        let (log, _machine) = open(&path, NodeId(1)).unwrap();
        let one_by_one = Instant::now();
        let mut single = log.clone();
        for index in 0..64 {
            single.blocking_append([entry(index)]).await.unwrap();
        }
        let one_by_one = one_by_one.elapsed();
        let together = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for index in 64..128 {
            let mut log = log.clone();
            tasks.spawn(async move { log.blocking_append([entry(index)]).await.unwrap() });
        }
        tasks.join_all().await;
        let together = together.elapsed();
        println!("64 durable appends: {one_by_one:?} one by one, {together:?} together");
        assert!(together < one_by_one, "{together:?} {one_by_one:?}");
    });
}

//! Coordinators over memory: batches, failover, streams, fences, rubbish.
#![allow(clippy::disallowed_methods, reason = "tests wait for threads")]

mod recovery;
mod rig;

use std::time::Duration;

use mooring_sharedfs_core::coordinator::{
    Claim, Operation, RenewNumber, Reply, ToClient, ToCoordinator,
};
use mooring_sharedfs_core::file::{Commit, Mapped, NewExtent, Source};
use mooring_sharedfs_core::format::{SessionRow, Versions};
use mooring_sharedfs_core::ops::{Make, New, SetAttributes, XattrMode};
use mooring_sharedfs_core::sessions::EndReason;
use mooring_sharedfs_core::{
    Access, BlockAddress, FileBlock, FsError, Ino, Mode, Name, Run, SessionId,
};
use mooring_terms::{BLOCK_SIZE, SliceIndex};

use crate::{MemorySlices, Report, SliceError, State, Stopped};
use rig::{Client, Rig, SLICE_BLOCKS, peer};

fn mkdir(name: &str) -> Operation {
    let name = Name::new(name.as_bytes()).unwrap();
    Operation::Make {
        dir: Ino::ROOT,
        name,
        make: Make { new: New::Directory, mode: Mode::new(0o755), umask: Mode::new(0) },
    }
}

fn lookup(name: &str) -> Operation {
    Operation::Lookup { dir: Ino::ROOT, name: Name::new(name.as_bytes()).unwrap() }
}

fn is_found(reply: &Reply) -> bool {
    matches!(reply, Reply::Attributes(_))
}

/// A client comes to a new coordinator, and has nothing to reclaim.
fn come_again(rig: &Rig, client: &mut Client, stream: u64) {
    client.peer = peer(stream);
    let session = client.session;
    rig.say(
        client.peer,
        &[ToCoordinator::Hello(session), ToCoordinator::Renew(session, RenewNumber(1))],
    );
    rig.hears(client.peer, |message| matches!(message, ToClient::Reclaim).then_some(()));
    rig.say(client.peer, &[ToCoordinator::Reclaim(session, Claim::Done)]);
    rig.hears(client.peer, |message| {
        matches!(message, ToClient::Claimed(Claim::Done, _)).then_some(())
    });
}

#[test]
fn an_empty_volume_becomes_a_file_system_that_serves() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    assert!(is_found(&rig.ask(&mut client, mkdir("a"))));
    assert!(is_found(&rig.ask(&mut client, lookup("a"))));
    assert_eq!(rig.ask(&mut client, lookup("b")), Reply::Refused(FsError::NotFound));
    assert_eq!(rig.was_reported(|report| matches!(report, Report::Formatted)), 1);
    rig.becomes(State::Serving);
}

#[test]
fn a_volume_with_something_else_on_it_is_left_alone() {
    let slices = MemorySlices::new(SLICE_BLOCKS);
    let other = slices.attach();
    mooring_sharedfs_store::Blocks::write(&other, BlockAddress(0), &[7; BLOCK_SIZE]).unwrap();
    let rig = Rig::on(slices);
    rig.becomes(State::Stopped);
    rig.coordinator.stop();
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Stopped(Stopped::Foreign))), 1);
    let mut block = vec![0; BLOCK_SIZE];
    let after = rig.slices.attach();
    mooring_sharedfs_store::Blocks::read(&after, BlockAddress(0), &mut block).unwrap();
    assert_eq!(block, [7; BLOCK_SIZE]);
}

#[test]
fn what_comes_while_a_batch_is_written_goes_into_the_next() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    let before = rig.coordinator.counters();
    rig.slices.hold(true);
    let first = rig.post(&mut client, mkdir("first"));
    assert!(rig.overhears(client.peer, Duration::from_millis(100)).is_empty(), "not journaled");
    let more: Vec<_> = (0..20).map(|i| rig.post(&mut client, mkdir(&format!("d{i}")))).collect();
    std::thread::sleep(Duration::from_millis(50));
    rig.slices.hold(false);
    assert!(is_found(&rig.reply(&client, first).reply));
    more.into_iter().for_each(|id| assert!(is_found(&rig.reply(&client, id).reply)));
    let after = rig.coordinator.counters();
    assert_eq!(after.records - before.records, 21);
    assert_eq!(after.batches - before.batches, 2);
}

#[test]
fn another_coordinator_finds_all_that_was_answered_and_does_nothing_twice() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    for i in 0..30 {
        assert!(is_found(&rig.ask(&mut client, mkdir(&format!("d{i}")))));
    }
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    // The last one is sent once more: it is not told that the name is taken.
    let last = client.number;
    rig.say(client.peer, &[client.request(last, mkdir("d29"))]);
    assert!(is_found(&rig.reply(&client, client.id(last)).reply));
    for i in 0..30 {
        assert!(is_found(&rig.ask(&mut client, lookup(&format!("d{i}")))), "d{i}");
    }
    assert_eq!(rig.ask(&mut client, mkdir("d3")), Reply::Refused(FsError::Exists));
}

#[test]
fn a_journal_that_is_full_is_checkpointed_and_trimmed() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    // Three times the journal's 256 blocks, one batch each.
    for i in 0..768 {
        assert!(is_found(&rig.ask(&mut client, mkdir(&format!("d{i}")))));
    }
    assert!(rig.coordinator.counters().checkpoints >= 3);
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    let replayed = |r: &Report| matches!(r, Report::Opened { replayed: 1..=256, .. });
    assert_eq!(rig.was_reported(replayed), 1);
    assert!(is_found(&rig.ask(&mut client, lookup("d0"))));
    assert!(is_found(&rig.ask(&mut client, lookup("d767"))));
}

#[test]
fn more_than_the_journal_takes_at_once_is_kept_without_it() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let value = |i: u8| vec![i; 60_000];
    let name = |i: u8| format!("user.{i}").into_bytes();
    let set = |i: u8| {
        let (name, value) = (name(i), value(i));
        Operation::Setxattr { ino: Ino::ROOT, name, value, mode: XattrMode::Set }
    };
    // Half of the journal is 512 KiB: the second batch is all of these.
    rig.slices.hold(true);
    let first = rig.post(&mut client, mkdir("first"));
    std::thread::sleep(Duration::from_millis(100));
    let rest: Vec<_> = (0..9).map(|i| rig.post(&mut client, set(i))).collect();
    std::thread::sleep(Duration::from_millis(100));
    rig.slices.hold(false);
    assert!(is_found(&rig.reply(&client, first).reply));
    for id in rest {
        assert_eq!(rig.reply(&client, id).reply, Reply::Done);
    }
    rig.slices.power_cut(|_, _| 0);
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    for i in 0..9 {
        let get = Operation::Getxattr { ino: Ino::ROOT, name: name(i) };
        assert_eq!(rig.ask(&mut client, get), Reply::Value(value(i)), "{i}");
    }
}

#[test]
fn slices_too_small_for_a_journal_are_refused() {
    let rig = Rig::of(MemorySlices::new(128), 128);
    rig.becomes(State::Stopped);
    rig.coordinator.stop();
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Stopped(Stopped::TooSmall))), 1);
}

#[test]
fn who_speaks_for_a_session_that_is_yet_to_come_is_not_heard_in_its_name() {
    let rig = Rig::new();
    let first = rig.begin(1);
    let next = SessionId(first.session.0 + 1);
    let stranger = crate::PeerId { node: mooring_terms::NodeId(4), stream: 50 };
    rig.say(stranger, &[ToCoordinator::Hello(next)]);
    let mut client = rig.begin(2);
    assert_eq!(client.session, next);
    rig.say(stranger, &[client.request(40, mkdir("foreign"))]);
    rig.is_cut(stranger);
    assert_eq!(rig.ask(&mut client, lookup("foreign")), Reply::Refused(FsError::NotFound));
    assert!(!rig.was_cut(client.peer));
}

#[test]
fn a_discard_that_may_still_be_done_is_not_counted_as_done() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let (ino, at) = file_with_data(&rig, &mut client, "freed");
    let free = |rig: &Rig| rig.coordinator.statistics().unwrap().unwrap().free;
    let before = free(&rig);
    // It has timed out: it lies in a queue somewhere, and the blocks must not be anybody's meanwhile.
    rig.slices.refuse_discards(Some(SliceError::Lost));
    let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
    assert!(is_found(&rig.ask(&mut client, Operation::Setattr { ino, set })));
    let session = client.session;
    let returns = |m: &ToClient| match m {
        ToClient::ReturnLayouts(number) => Some(*number),
        _ => None,
    };
    let number = rig.hears(client.peer, returns);
    rig.say(client.peer, &[ToCoordinator::LayoutsReturned(session, number)]);
    rig.becomes(State::Stopped);
    let is_lost = |r: &Report| matches!(r, Report::Stopped(Stopped::Slice(SliceError::Lost)));
    rig.coordinator.stop();
    assert_eq!(rig.was_reported(is_lost), 1);
    // Nothing has come of the block; the next coordinator discards it before it gives it away.
    assert_eq!(rig.slices.read(session, &[at]).unwrap()[0][..], [9; BLOCK_SIZE]);
    rig.slices.refuse_discards(None);
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    let number = rig.hears(client.peer, returns);
    rig.say(client.peer, &[ToCoordinator::LayoutsReturned(session, number)]);
    let mut tries = 0;
    while free(&rig) <= before {
        tries += 1;
        assert!(tries < 500, "it is never given back");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(rig.slices.read(session, &[at]).unwrap()[0][..], [0; BLOCK_SIZE]);
}

#[test]
fn what_follows_a_letter_that_was_refused_for_its_size_is_not_taken() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    rig.slices.hold(true);
    rig.post(&mut client, mkdir("first"));
    std::thread::sleep(Duration::from_millis(100));
    // Others fill what may wait, while the coordinator waits for its journal.
    let much = bytes::Bytes::from(vec![0xff; 8 << 20]);
    for _ in 0..33 {
        rig.coordinator.letter(peer(9), much.clone());
    }
    assert!(!rig.was_cut(client.peer));
    rig.post(&mut client, mkdir("refused"));
    assert!(rig.was_cut(client.peer));
    rig.slices.hold(false);
    rig.is_cut(peer(9));
    while rig.coordinator.counters().letters < 35 {
        std::thread::sleep(Duration::from_millis(5));
    }
    // It came late, on a stream of which a part is missing.
    rig.post(&mut client, mkdir("behind"));
    let session = client.session;
    client.peer = peer(20);
    rig.say(client.peer, &[ToCoordinator::Hello(session)]);
    for (name, is_there) in [("first", true), ("refused", false), ("behind", false)] {
        assert_eq!(is_found(&rig.ask(&mut client, lookup(name))), is_there, "{name}");
    }
}

#[test]
fn a_newer_stream_supersedes_the_older() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    let session = client.session;
    rig.say(peer(5), &[ToCoordinator::Hello(session)]);
    rig.is_cut(peer(1));
    // What still comes on the older one is given to nobody.
    let old = client.request(40, mkdir("old"));
    rig.coordinator.letter(
        peer(1),
        mooring_sharedfs_core::coordinator::write_letters(&[old]).remove(0).into(),
    );
    client.peer = peer(5);
    assert_eq!(rig.ask(&mut client, lookup("old")), Reply::Refused(FsError::NotFound));
    assert!(rig.overhears(peer(1), Duration::ZERO).is_empty());
    // And an older one that comes late is no newer.
    rig.say(peer(4), &[ToCoordinator::Hello(session)]);
    rig.is_cut(peer(4));
    assert!(is_found(&rig.ask(&mut client, mkdir("new"))));
}

#[test]
fn nothing_is_said_while_slice_0_may_be_anothers() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    rig.slices.set_leased(false);
    let id = rig.post(&mut client, mkdir("a"));
    assert!(rig.overhears(client.peer, Duration::from_millis(200)).is_empty());
    rig.slices.set_leased(true);
    assert!(is_found(&rig.reply(&client, id).reply));
}

#[test]
fn a_fenced_coordinator_stops_and_answers_nobody() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    rig.slices.detach();
    rig.post(&mut client, mkdir("a"));
    rig.becomes(State::Stopped);
    rig.is_cut(client.peer);
    assert!(rig.overhears(client.peer, Duration::from_millis(50)).is_empty());
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Stopped(Stopped::Fenced))), 1);
}

#[test]
fn rubbish_cuts_its_stream_and_no_other() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    let other = rig.begin(2);
    let row = SessionRow { node: 3, mount: 9, slots: 8 };
    let foreign = SessionRow { node: 4, mount: 9, slots: 8 };
    let of_other = ToCoordinator::Renew(other.session, RenewNumber(1));
    let said = [
        vec![ToCoordinator::Begin(1, foreign)],
        vec![ToCoordinator::Begin(1, row), ToCoordinator::Begin(2, row)],
        vec![ToCoordinator::Hello(client.session), ToCoordinator::Hello(client.session)],
        vec![of_other.clone()],
        vec![ToCoordinator::Begin(1, row), of_other],
        vec![client.request(1, lookup("a"))],
    ];
    for (stream, messages) in (100..).zip(&said) {
        rig.say(peer(stream), messages);
        rig.is_cut(peer(stream));
    }
    for (stream, letter) in (200..).zip([vec![], vec![1; 40], vec![0xff; 9 << 20]]) {
        rig.coordinator.letter(peer(stream), letter.into());
        rig.is_cut(peer(stream));
    }
    let elsewhere = crate::PeerId { node: mooring_terms::NodeId(4), stream: 300 };
    rig.say(elsewhere, &[ToCoordinator::Hello(other.session)]);
    rig.is_cut(elsewhere);
    assert!(!rig.was_cut(other.peer));
    // Its own rubbish on stream 102 was a newer stream: there is another.
    let session = client.session;
    client.peer = peer(400);
    rig.say(client.peer, &[ToCoordinator::Hello(session)]);
    assert!(is_found(&rig.ask(&mut client, mkdir("a"))));
}

#[test]
fn a_coordinator_that_was_held_up_ends_nobody() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    rig.slices.hold(true);
    let id = rig.post(&mut client, mkdir("a"));
    // Longer than the lease of 1.2 s: the client speaks, and nobody listens.
    for number in 0..5 {
        std::thread::sleep(Duration::from_millis(400));
        rig.say(client.peer, &[ToCoordinator::Renew(client.session, RenewNumber(number))]);
    }
    rig.slices.hold(false);
    assert!(is_found(&rig.reply(&client, id).reply));
    rig.hears(client.peer, |m| matches!(m, ToClient::Renewed(RenewNumber(4))).then_some(()));
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Ended(..))), 0);
    assert!(is_found(&rig.ask(&mut client, mkdir("b"))));
}

#[test]
fn a_silent_client_is_fenced_and_what_it_had_is_anothers() {
    let rig = Rig::new();
    let silent = rig.begin(1);
    let block = [(BlockAddress(900), bytes::Bytes::from(vec![1; BLOCK_SIZE]))];
    rig.slices.write(silent.session, &block).unwrap();
    rig.hears(silent.peer, |m| matches!(m, ToClient::Ended(EndReason::Silent)).then_some(()));
    assert_eq!(rig.slices.write(silent.session, &block), Err(SliceError::Fenced));
    let row =
        |r: &Report| matches!(r, Report::Ended(_, Some(row), EndReason::Silent) if row.mount == 1);
    assert_eq!(rig.was_reported(row), 1);
}

/// Makes a file with one block of data in a slice of its own, without an fsync.
fn file_with_data(rig: &Rig, client: &mut Client, name: &str) -> (Ino, BlockAddress) {
    let name = Name::new(name.as_bytes()).unwrap();
    let create = Operation::Create {
        dir: Ino::ROOT,
        name,
        modes: (Mode::new(0o644), Mode::new(0)),
        exclusive: true,
        access: Access::WRITE,
    };
    let Reply::Opened(opened) = rig.ask(client, create) else { panic!("not made") };
    let ino = opened.attributes.ino;
    let near = BlockAddress(3 * SLICE_BLOCKS);
    let Reply::Runs(runs) = rig.ask(client, Operation::Reserve { want: 4, near }) else {
        panic!("nothing reserved")
    };
    let at = runs[0].start;
    let bytes = bytes::Bytes::from(vec![9; BLOCK_SIZE]);
    let versions = rig.slices.write(client.session, &[(at, bytes)]).unwrap();
    let versions = Versions::of(versions.into_iter());
    let extent = NewExtent { block: FileBlock(0), run: Run::new(at, 1), versions };
    let commit =
        Commit { extents: vec![extent], size_at_least: BLOCK_SIZE as u64, ..Commit::default() };
    assert!(is_found(&rig.ask(client, Operation::Commit { ino, commit })));
    (ino, at)
}

#[test]
fn data_that_a_power_cut_took_is_a_hole_and_is_reported() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let (lost, at) = file_with_data(&rig, &mut client, "lost");
    assert_eq!(SliceIndex((at.0 / SLICE_BLOCKS) as u32), SliceIndex(3));
    // Slice 0 has all that it had taken, the data's slice nothing.
    rig.slices.power_cut(|slice, fresh| if slice == SliceIndex(0) { fresh } else { 0 });
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Lost(claim) if claim.ino == lost)), 1);
    let mappings = Operation::Mappings { ino: lost, from: FileBlock(0), end: FileBlock(1) };
    let Reply::Mappings(found) = rig.ask(&mut client, mappings) else { panic!("no mappings") };
    assert!(found.iter().all(|mapping| mapping.mapped == Mapped::Hole), "{found:?}");
}

#[test]
fn what_a_file_had_in_the_tree_is_written_where_its_data_is_lost() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let (other, at) = file_with_data(&rig, &mut client, "other");
    let name = Name::new(b"small").unwrap();
    let modes = (Mode::new(0o644), Mode::new(0));
    let create =
        Operation::Create { dir: Ino::ROOT, name, modes, exclusive: true, access: Access::WRITE };
    let Reply::Opened(opened) = rig.ask(&mut client, create) else { panic!("not made") };
    let ino = opened.attributes.ino;
    let inline = Commit { inline: Some(vec![7; 3000]), size_at_least: 3000, ..Commit::default() };
    assert!(is_found(&rig.ask(&mut client, Operation::Commit { ino, commit: inline })));
    // It grows into the block behind the other file's.
    let bytes = bytes::Bytes::from(vec![8; BLOCK_SIZE]);
    let versions = rig.slices.write(client.session, &[(at.plus(1), bytes)]).unwrap();
    let versions = Versions::of(versions.into_iter());
    let extent = NewExtent { block: FileBlock(0), run: Run::new(at.plus(1), 1), versions };
    let size_at_least = BLOCK_SIZE as u64;
    let commit = Commit { extents: vec![extent], size_at_least, ..Commit::default() };
    assert!(is_found(&rig.ask(&mut client, Operation::Commit { ino, commit })));
    rig.slices.power_cut(|slice, fresh| if slice == SliceIndex(0) { fresh } else { 0 });
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Lost(lost) if lost.ino == other)), 1);
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Lost(lost) if lost.write.is_some())), 1);
    let block = &rig.slices.read(client.session, &[at.plus(1)]).unwrap()[0];
    assert!(block[..3000] == [7; 3000] && block[3000..] == [0; BLOCK_SIZE - 3000]);
}

#[test]
fn data_is_on_media_before_the_tree_says_so() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let (ino, _) = file_with_data(&rig, &mut client, "kept");
    // Enough to have the journal checkpointed, so that the claim is not there to be compared any more.
    for i in 0..600 {
        assert!(is_found(&rig.ask(&mut client, mkdir(&format!("d{i}")))));
    }
    rig.slices.power_cut(|slice, fresh| if slice == SliceIndex(0) { fresh } else { 0 });
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Lost(_))), 0);
    let read = Operation::Read { ino, offset: 0, length: BLOCK_SIZE as u64, kept: false };
    let Reply::Segments(_, segments) = rig.ask(&mut client, read) else { panic!("unreadable") };
    let Source::Blocks(at, _) = segments[0].source else { panic!("{segments:?}") };
    assert_eq!(rig.slices.read(client.session, &[at]).unwrap()[0][..], [9; BLOCK_SIZE]);
}

#[test]
fn an_fsync_is_answered_when_a_power_cut_takes_nothing_of_it() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let (ino, _) = file_with_data(&rig, &mut client, "synced");
    assert!(matches!(rig.ask(&mut client, Operation::Fsync { ino }), Reply::Done));
    rig.slices.power_cut(|_, _| 0);
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    assert!(is_found(&rig.ask(&mut client, lookup("synced"))));
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Lost(_))), 0);
}

#[test]
fn a_session_that_nobody_knows_is_told_so() {
    let rig = Rig::new();
    rig.say(
        peer(1),
        &[ToCoordinator::Hello(SessionId(44)), ToCoordinator::Renew(SessionId(44), RenewNumber(1))],
    );
    rig.hears(peer(1), |m| matches!(m, ToClient::Ended(_)).then_some(()));
}

#[test]
fn people_see_who_is_there_and_can_end_one() {
    let rig = Rig::new();
    let mut client = rig.begin(1);
    let other = rig.begin(2);
    file_with_data(&rig, &mut client, "open");
    let clients = rig.coordinator.clients().unwrap();
    assert_eq!(clients.len(), 2);
    assert_eq!((clients[0].session, clients[0].row.mount, clients[0].open), (client.session, 1, 1));
    assert_eq!(clients[1].open, 0);
    assert!(rig.coordinator.evict(other.session).unwrap());
    rig.hears(other.peer, |m| matches!(m, ToClient::Ended(EndReason::Ended)).then_some(()));
    assert!(!rig.coordinator.evict(SessionId(99)).unwrap());
    assert_eq!(rig.coordinator.clients().unwrap().len(), 1);
    let statistics = rig.coordinator.statistics().unwrap().unwrap();
    assert!(statistics.free < statistics.blocks);
    assert_eq!(rig.coordinator.check(Duration::from_secs(5)).unwrap(), Ok(Vec::new()));
    rig.coordinator.stop();
    assert!(rig.coordinator.clients().is_err());
}

//! A power cut of all replicas, and what the coordinators after it make of it.

use mooring_sharedfs_core::coordinator::{Operation, Reply};
use mooring_sharedfs_core::file::{Commit, NewExtent, Source};
use mooring_sharedfs_core::format::Versions;
use mooring_sharedfs_core::ops::SetAttributes;
use mooring_sharedfs_core::{
    Access, BlockAddress, Damage, FileBlock, FsError, Ino, Mode, Name, Run,
};
use mooring_terms::{BLOCK_SIZE, SliceIndex};

use super::rig::{Client, Rig, SLICE_BLOCKS};
use super::{come_again, is_found};
use crate::{Report, State};

/// Where the data of these files is: in a slice of its own.
const SLICE: SliceIndex = SliceIndex(3);

/// What a small file holds, and what is left of a file that was cut off.
const KEPT: usize = 3000;

fn create(rig: &Rig, client: &mut Client, name: &str) -> Ino {
    let name = Name::new(name.as_bytes()).unwrap();
    let modes = (Mode::new(0o644), Mode::new(0));
    let create =
        Operation::Create { dir: Ino::ROOT, name, modes, exclusive: true, access: Access::WRITE };
    let Reply::Opened(opened) = rig.ask(client, create) else { panic!("not made") };
    opened.attributes.ino
}

fn commit(rig: &Rig, client: &mut Client, ino: Ino, commit: Commit) {
    assert!(is_found(&rig.ask(client, Operation::Commit { ino, commit })));
}

fn fsync(rig: &Rig, client: &mut Client, ino: Ino) {
    assert!(matches!(rig.ask(client, Operation::Fsync { ino }), Reply::Done));
}

/// Writes a block, as a client does.
fn write(rig: &Rig, client: &Client, at: BlockAddress, bytes: Vec<u8>) -> Versions {
    let versions = rig.slices.write(client.session, &[(at, bytes.into())]).unwrap();
    Versions::of(versions.into_iter())
}

/// A block that is the client's, in the slice for data.
fn reserve(rig: &Rig, client: &mut Client) -> BlockAddress {
    let near = BlockAddress(u64::from(SLICE.0) * SLICE_BLOCKS);
    let Reply::Runs(runs) = rig.ask(client, Operation::Reserve { want: 1, near }) else {
        panic!("nothing reserved")
    };
    runs[0].start
}

/// A file of so many bytes of `byte` that lies in the tree, fsynced.
fn small(rig: &Rig, client: &mut Client, name: &str, byte: u8) -> Ino {
    let ino = create(rig, client, name);
    let size_at_least = KEPT as u64;
    let inline = Commit { inline: Some(vec![byte; KEPT]), size_at_least, ..Commit::default() };
    commit(rig, client, ino, inline);
    fsync(rig, client, ino);
    ino
}

/// A new block becomes the file's first, and nobody flushes it.
fn grow(rig: &Rig, client: &mut Client, ino: Ino) {
    let at = reserve(rig, client);
    let versions = write(rig, client, at, vec![99; BLOCK_SIZE]);
    let extent = NewExtent { block: FileBlock(0), run: Run::new(at, 1), versions };
    let size_at_least = BLOCK_SIZE as u64;
    let extents = vec![extent];
    commit(rig, client, ino, Commit { extents, size_at_least, ..Commit::default() });
}

/// A file of a block that was cut off behind [`KEPT`] bytes of `byte`, fsynced; and its block.
fn cut_off(rig: &Rig, client: &mut Client, name: &str, byte: u8) -> (Ino, BlockAddress) {
    let ino = create(rig, client, name);
    let at = reserve(rig, client);
    let versions = write(rig, client, at, vec![byte; BLOCK_SIZE]);
    let extents = vec![NewExtent { block: FileBlock(0), run: Run::new(at, 1), versions }];
    let size_at_least = BLOCK_SIZE as u64;
    commit(rig, client, ino, Commit { extents, size_at_least, ..Commit::default() });
    let set = SetAttributes { size: Some(KEPT as u64), ..SetAttributes::default() };
    assert!(is_found(&rig.ask(client, Operation::Setattr { ino, set })));
    fsync(rig, client, ino);
    (ino, at)
}

/// The size moves up again, with zeros behind the old end, and nobody flushes them.
fn extend(rig: &Rig, client: &mut Client, (ino, at): (Ino, BlockAddress), byte: u8) {
    let mut bytes = vec![byte; KEPT];
    bytes.resize(BLOCK_SIZE, 0);
    let overwritten = [(SLICE, write(rig, client, at, bytes))].into();
    let size_at_least = BLOCK_SIZE as u64;
    commit(rig, client, ino, Commit { overwritten, size_at_least, ..Commit::default() });
}

fn contents(rig: &Rig, client: &mut Client, ino: Ino) -> Vec<u8> {
    let read = Operation::Read { ino, offset: 0, length: BLOCK_SIZE as u64, kept: false };
    let Reply::Segments(_, segments) = rig.ask(client, read) else { panic!("not read") };
    let mut contents = Vec::new();
    for segment in segments {
        let length = segment.length as usize;
        match segment.source {
            Source::Zeros => contents.resize(contents.len() + length, 0),
            Source::Bytes(bytes) => contents.extend(bytes),
            Source::Blocks(at, from) => {
                let block = rig.slices.read(client.session, &[at]).unwrap().remove(0);
                contents.extend(&block[from..from + length]);
            }
        }
    }
    contents
}

/// What was fsynced, and zeros behind.
fn kept(byte: u8) -> Vec<u8> {
    let mut bytes = vec![byte; KEPT];
    bytes.resize(BLOCK_SIZE, 0);
    bytes
}

/// All that was claimed of the slice for data is lost, the journal is whole.
fn cut_power(rig: &Rig) {
    rig.slices.power_cut(|slice, fresh| if slice == SliceIndex(0) { fresh } else { 0 });
}

fn is_lost(report: &Report) -> bool {
    matches!(report, Report::Lost(_))
}

#[test]
fn a_recovery_that_is_interrupted_after_any_write_is_begun_again_and_loses_nothing() {
    for (stop, again) in (0..4).flat_map(|stop| [(stop, false), (stop, true)]) {
        let mut rig = Rig::new();
        let mut client = rig.begin(1);
        let files: Vec<Ino> =
            (1..=3).map(|byte| small(&rig, &mut client, &format!("f{byte}"), byte)).collect();
        let cut = cut_off(&rig, &mut client, "cut", 4);
        // The file that is put right first is claimed last.
        grow(&rig, &mut client, files[2]);
        extend(&rig, &mut client, cut, 4);
        grow(&rig, &mut client, files[1]);
        grow(&rig, &mut client, files[0]);
        cut_power(&rig);
        rig.slices.stop_after_writes(stop);
        rig.fail_over();
        rig.becomes(State::Stopped);
        if again {
            cut_power(&rig);
        }
        rig.fail_over();
        come_again(&rig, &mut client, 2);
        for (&ino, byte) in files.iter().zip(1..) {
            assert!(contents(&rig, &mut client, ino) == kept(byte), "{stop} {again}: file {byte}");
        }
        assert!(contents(&rig, &mut client, cut.0) == kept(4), "{stop} {again}: cut off");
        // Whoever wrote it hears of it, once.
        let sync = Operation::Fsync { ino: files[0] };
        assert_eq!(rig.ask(&mut client, sync), Reply::Refused(FsError::Lost));
        fsync(&rig, &mut client, files[0]);
        assert!(rig.was_reported(is_lost) >= 4);
        // It is not put right once more: the next one finds nothing to do, whatever was not flushed.
        let reported = rig.was_reported(is_lost);
        cut_power(&rig);
        rig.fail_over();
        come_again(&rig, &mut client, 3);
        assert_eq!(rig.was_reported(is_lost), reported);
        for (&ino, byte) in files.iter().zip(1..) {
            assert!(contents(&rig, &mut client, ino) == kept(byte));
        }
    }
}

#[test]
fn what_can_not_be_put_right_is_reported_and_the_rest_is_served() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let grown = small(&rig, &mut client, "grown", 1);
    let cut = cut_off(&rig, &mut client, "cut", 2);
    grow(&rig, &mut client, grown);
    extend(&rig, &mut client, cut, 2);
    cut_power(&rig);
    rig.slices.set_full(true);
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    let is_not_mended = |r: &Report| matches!(r, Report::NotMended(lost) if lost.ino == cut.0);
    assert_eq!(rig.was_reported(is_not_mended), 1);
    let is_hole = |r: &Report| matches!(r, Report::Lost(l) if l.ino == grown && l.write.is_none());
    assert_eq!(rig.was_reported(is_hole), 1);
    // Nothing of what a block held that was to be new; and all that was fsynced of the other.
    assert!(contents(&rig, &mut client, grown) == [0; BLOCK_SIZE]);
    assert!(contents(&rig, &mut client, cut.0)[..KEPT] == [2; KEPT]);
    assert_eq!(rig.coordinator.check(std::time::Duration::from_secs(5)).unwrap(), Ok(Vec::new()));
}

#[test]
fn a_block_that_no_replica_has_keeps_nothing_else_from_being_put_right() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let cut = cut_off(&rig, &mut client, "cut", 2);
    let grown = small(&rig, &mut client, "grown", 1);
    extend(&rig, &mut client, cut, 2);
    grow(&rig, &mut client, grown);
    cut_power(&rig);
    rig.slices.damage(cut.1);
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    let block = Damage::Block(cut.1);
    assert_eq!(rig.was_reported(|r| matches!(r, Report::Damaged(d) if *d == block)), 1);
    assert!(contents(&rig, &mut client, grown) == kept(1));
}

#[test]
fn a_damaged_block_does_not_hide_the_loss_of_those_beside_it() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let ino = create(&rig, &mut client, "long");
    let near = BlockAddress(u64::from(SLICE.0) * SLICE_BLOCKS);
    let Reply::Runs(runs) = rig.ask(&mut client, Operation::Reserve { want: 4, near }) else {
        panic!("nothing reserved")
    };
    let run = Run::new(runs[0].start, 4);
    assert!(runs[0].count >= 4, "{runs:?}");
    let blocks: Vec<_> = (0..4).map(|i| (run.start.plus(i), vec![9; BLOCK_SIZE].into())).collect();
    let versions = Versions::of(rig.slices.write(client.session, &blocks).unwrap().into_iter());
    let extents = vec![NewExtent { block: FileBlock(0), run, versions }];
    let size_at_least = 4 * BLOCK_SIZE as u64;
    commit(&rig, &mut client, ino, Commit { extents, size_at_least, ..Commit::default() });
    cut_power(&rig);
    rig.slices.damage(run.start.plus(1));
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    assert!(rig.was_reported(is_lost) >= 1);
    assert_eq!(contents(&rig, &mut client, ino), [0; BLOCK_SIZE]);
    let sync = Operation::Fsync { ino };
    assert_eq!(rig.ask(&mut client, sync), Reply::Refused(FsError::Lost));
}

#[test]
fn what_a_slice_took_before_it_lost_its_tail_can_not_be_committed_after() {
    let mut rig = Rig::new();
    let mut client = rig.begin(1);
    let ino = create(&rig, &mut client, "late");
    let at = reserve(&rig, &mut client);
    let versions = write(&rig, &client, at, vec![99; BLOCK_SIZE]);
    rig.slices.lose_tail(SLICE);
    rig.fail_over();
    come_again(&rig, &mut client, 2);
    let late = |versions| Commit {
        extents: vec![NewExtent { block: FileBlock(0), run: Run::new(at, 1), versions }],
        size_at_least: BLOCK_SIZE as u64,
        ..Commit::default()
    };
    let operation = Operation::Commit { ino, commit: late(versions) };
    assert_eq!(rig.ask(&mut client, operation), Reply::Refused(FsError::Lost));
    // Written again it can.
    let versions = write(&rig, &client, at, vec![98; BLOCK_SIZE]);
    commit(&rig, &mut client, ino, late(versions));
    assert!(contents(&rig, &mut client, ino) == [98; BLOCK_SIZE]);
}

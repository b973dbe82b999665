//! Strict coherence: what has returned on one host is seen by the next call on another. With files held
//! open on both sides, 10,000 tries each, and not one stale answer.

#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod rig;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rig::Rig;

/// Tries of each kind. Fewer in an ordinary run: `MOORING_TRIES` asks for more.
fn tries() -> u32 {
    std::env::var("MOORING_TRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

const LIMIT: Duration = Duration::from_secs(220);

/// Runs so many rounds, in each of which the one changes and the other looks; they change places.
fn rounds(rig: &Rig, mut round: impl FnMut(u32, usize, usize)) {
    assert!(rig.mounts() >= 2);
    let began = std::time::Instant::now();
    for i in 0..tries() {
        if i % 1000 == 999 {
            eprintln!("{} rounds in {:.1?}", i + 1, began.elapsed());
        }
        let here = (i % 2) as usize;
        round(i, here, 1 - here);
    }
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn both(rig: &Rig, name: &str) -> [File; 2] {
    [open(&rig.path(0, name)), open(&rig.path(1, name))]
}

#[test]
fn a_write_is_read_by_the_other() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    let files = both(&rig, "file");
    rounds(&rig, |i, here, there| {
        files[here].write_all_at(&i.to_le_bytes(), 40).unwrap();
        let mut bytes = [0; 4];
        files[there].read_exact_at(&mut bytes, 40).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), i);
    });
}

#[test]
fn a_write_is_read_through_a_file_open_for_reading() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    let writers = both(&rig, "file");
    writers[0].write_all_at(&[0; 10_000], 0).unwrap();
    let readers = [0, 1].map(|mount| File::open(rig.path(mount, "file")).unwrap());
    rounds(&rig, |i, here, there| {
        writers[here].write_all_at(&i.to_le_bytes(), 5000).unwrap();
        for reader in [there, here] {
            let mut bytes = [0; 4];
            readers[reader].read_exact_at(&mut bytes, 5000).unwrap();
            assert_eq!(u32::from_le_bytes(bytes), i);
        }
    });
}

#[test]
fn a_write_is_seen_in_the_mapping_of_the_other() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    let files = both(&rig, "file");
    files[0].set_len(4096).unwrap();
    let maps = [0, 1].map(|mount| {
        let file = File::open(rig.path(mount, "file")).unwrap();
        let (prot, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
        // SAFETY: a new mapping aliases nothing, and the file is as long.
        let map = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, prot, flags, &file, 0) };
        map.unwrap().cast::<u32>()
    });
    rounds(&rig, |i, here, there| {
        files[here].write_all_at(&i.to_le_bytes(), 0).unwrap();
        // SAFETY: mapped above, never unmapped.
        assert_eq!(unsafe { maps[there].read_volatile() }, i);
    });
}

#[test]
fn a_new_size_is_seen_by_the_other() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    let files = both(&rig, "file");
    rounds(&rig, |i, here, there| {
        let size = u64::from(i * 7 % 20_000);
        files[here].set_len(size).unwrap();
        assert_eq!(files[there].metadata().unwrap().len(), size);
        assert_eq!(fs::metadata(rig.path(there, "file")).unwrap().len(), size);
    });
}

#[test]
fn what_is_appended_is_seen_by_the_other() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    let appenders = [0, 1].map(|mount| {
        File::options().append(true).create(true).open(rig.path(mount, "file")).unwrap()
    });
    let readers = [0, 1].map(|mount| File::open(rig.path(mount, "file")).unwrap());
    rounds(&rig, |i, here, there| {
        std::io::Write::write_all(&mut &appenders[here], &i.to_le_bytes()).unwrap();
        let size = readers[there].metadata().unwrap().len();
        assert_eq!(size, u64::from(i + 1) * 4);
        let mut bytes = [0; 4];
        readers[there].read_exact_at(&mut bytes, size - 4).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), i);
    });
}

#[test]
fn a_new_name_is_seen_by_the_other_and_the_old_one_is_not() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    fs::write(rig.path(0, "name0"), b"").unwrap();
    rounds(&rig, |i, here, there| {
        let (old, new) = (format!("name{i}"), format!("name{}", i + 1));
        fs::rename(rig.path(here, &old), rig.path(here, &new)).unwrap();
        assert!(fs::metadata(rig.path(there, &new)).is_ok());
        let gone = fs::metadata(rig.path(there, &old)).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn what_is_made_is_there_and_what_is_removed_is_gone() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    rounds(&rig, |_, here, there| {
        fs::write(rig.path(here, "file"), b"x").unwrap();
        let found = File::open(rig.path(there, "file")).unwrap();
        fs::remove_file(rig.path(here, "file")).unwrap();
        let gone = fs::metadata(rig.path(there, "file")).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        assert_eq!(found.metadata().unwrap().nlink(), 0);
    });
}

#[test]
fn permissions_are_seen_by_the_other() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    let files = both(&rig, "file");
    rounds(&rig, |i, here, there| {
        let mode = 0o400 | (i % 0o400);
        files[here].set_permissions(fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(files[there].metadata().unwrap().mode() & 0o777, mode);
        assert_eq!(fs::metadata(rig.path(there, "file")).unwrap().mode() & 0o777, mode);
    });
}

#[test]
fn extended_attributes_are_seen_by_the_other() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    let files = both(&rig, "file");
    rounds(&rig, |i, here, there| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&files[here], "user.n", &i.to_le_bytes(), flags).unwrap();
        let mut bytes = [0; 4];
        assert_eq!(rustix::fs::fgetxattr(&files[there], "user.n", &mut bytes), Ok(4));
        assert_eq!(u32::from_le_bytes(bytes), i);
    });
}

#[test]
fn links_and_directories_are_seen_by_the_other() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    fs::write(rig.path(0, "file"), b"").unwrap();
    rounds(&rig, |i, here, there| {
        let name = format!("link{i}");
        fs::hard_link(rig.path(here, "file"), rig.path(here, &name)).unwrap();
        assert_eq!(fs::metadata(rig.path(there, "file")).unwrap().nlink(), 2);
        fs::remove_file(rig.path(here, &name)).unwrap();
        assert_eq!(fs::metadata(rig.path(there, "file")).unwrap().nlink(), 1);
    });
}

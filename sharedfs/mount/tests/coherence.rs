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

/// One host only maps and looks, the other only writes: nothing but the recall of its pages tells the
/// one that looks. They contend for the file from the third round on.
fn one_only_looks(rig: &Rig, open: impl Fn(&Path) -> File, prot: rustix::mm::ProtFlags) {
    let writer = both(rig, "file")[0].try_clone().unwrap();
    writer.write_all_at(&[0; 8192], 0).unwrap();
    let file = open(&rig.path(1, "file"));
    let flags = rustix::mm::MapFlags::SHARED;
    // SAFETY: a new mapping aliases nothing, and the file is as long.
    let map = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 8192, prot, flags, &file, 0) };
    let map = map.unwrap().cast::<u8>();
    drop(file);
    for i in 0..tries() / 2 {
        let at = 4096 * (i as usize % 2) + 100;
        writer.write_all_at(&i.to_le_bytes(), at as u64).unwrap();
        // SAFETY: mapped above, never unmapped.
        let seen = unsafe { map.add(at).cast::<u32>().read_volatile() };
        assert_eq!(seen, i);
        if i % 1000 == 999 {
            // They contend no more, and begin again.
            std::thread::sleep(Duration::from_millis(800));
        }
    }
}

#[test]
fn a_write_is_seen_in_a_mapping_of_who_only_looks() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    one_only_looks(&rig, |path| File::open(path).unwrap(), rustix::mm::ProtFlags::READ);
}

#[test]
fn a_write_is_seen_in_a_mapping_for_writing_of_who_only_looks() {
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    one_only_looks(&rig, open, prot);
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

/// The page of a file that holds this byte, mapped for reading; never unmapped.
fn map(file: &File, offset: u64) -> *const u8 {
    let (prot, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
    // SAFETY: a new mapping aliases nothing, and the file is as long.
    let map = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), 4096, prot, flags, file, offset / 4096 * 4096)
    };
    // SAFETY: inside of what was mapped.
    unsafe { map.unwrap().cast::<u8>().add(offset as usize % 4096) }
}

/// In the tests above the two hosts contend all the time, and cache little. Here each file was left
/// alone for a while, and both kernels have everything of it: attributes, pages, a mapping.
#[test]
fn a_change_is_seen_where_everything_was_cached() {
    const FILES: usize = 400;
    const AT: u64 = 4500;
    let Some(rig) = Rig::start_for(2, LIMIT) else { return };
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 4096, 4096).unwrap();
    let path = |mount, i: usize| rig.path(mount, &format!("file{i}"));
    for i in 0..FILES {
        fs::write(path(0, i), vec![0; 5000]).unwrap();
    }
    let open = |i| [0, 1].map(|mount| File::open(path(mount, i)).unwrap());
    let readers: Vec<[File; 2]> = (0..FILES).map(open).collect();
    let looks = |i: usize, mount: usize| {
        let (held, named) =
            (readers[i][mount].metadata().unwrap(), fs::metadata(path(mount, i)).unwrap());
        let mut byte = [0];
        let read = readers[i][mount].read_at(&mut byte, AT).unwrap();
        assert_eq!(
            (held.len(), held.mode(), held.nlink()),
            (named.len(), named.mode(), named.nlink())
        );
        (held.len(), held.mode() & 0o777, held.nlink(), byte[..read].to_vec())
    };
    for round in 1..=4_u8 {
        // Longer than files count as contended.
        std::thread::sleep(Duration::from_millis(800));
        let maps: Vec<[*const u8; 2]> = (0..FILES)
            .map(|i| {
                [0, 1].map(|mount| {
                    looks(i, mount);
                    let map = map(&readers[i][mount], AT);
                    // SAFETY: the file reaches behind this byte.
                    if i % 4 == 0 {
                        unsafe { map.read_volatile() };
                    }
                    map
                })
            })
            .collect();
        for (i, maps) in maps.iter().enumerate() {
            let here = (i / 4 + usize::from(round)) % 2;
            let (mut size, mut mode, mut links, mut byte) = looks(i, 1 - here);
            match i % 4 {
                0 => {
                    let file = File::options().write(true).open(path(here, i)).unwrap();
                    file.write_all_at(&[round], AT).unwrap();
                    byte = vec![round];
                }
                1 => {
                    size = 4501 + u64::from(round);
                    File::options().write(true).open(path(here, i)).unwrap().set_len(size).unwrap();
                }
                2 => {
                    mode = 0o640 + u32::from(round);
                    let permissions = fs::Permissions::from_mode(mode);
                    fs::set_permissions(path(here, i), permissions).unwrap();
                }
                _ => {
                    let link = rig.path(here, &format!("link{i}.{round}"));
                    fs::hard_link(path(here, i), link).unwrap();
                    links += 1;
                }
            }
            for mount in [1 - here, here] {
                let now = (size, mode, links, byte.clone());
                assert_eq!(looks(i, mount), now, "file {i}, round {round}, mount {mount}");
                if i % 4 == 0 {
                    // SAFETY: as above.
                    assert_eq!(unsafe { maps[mount].read_volatile() }, round, "a mapping of {i}");
                }
            }
        }
    }
}

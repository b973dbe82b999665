//! What programs do with a file system, on one mount, and seen from another.

#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod rig;

use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rig::Rig;

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::getxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn what_is_written_here_is_read_there() {
    let Some(rig) = Rig::start(2) else { return };
    fs::write(rig.path(0, "small"), b"text").unwrap();
    assert_eq!(fs::read(rig.path(1, "small")).unwrap(), b"text");
    let long: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(rig.path(1, "long"), &long).unwrap();
    assert!(fs::read(rig.path(0, "long")).unwrap() == long);
    assert!(fs::read(rig.path(1, "long")).unwrap() == long);
    let told = fs::metadata(rig.path(0, "long")).unwrap();
    assert_eq!((told.len(), told.blocks()), (5_000_000, 1221 * 8));
}

#[test]
fn names_are_made_moved_and_removed() {
    let Some(rig) = Rig::start(2) else { return };
    fs::create_dir_all(rig.path(0, "a/b/c")).unwrap();
    fs::write(rig.path(0, "a/b/c/file"), b"1").unwrap();
    fs::rename(rig.path(1, "a/b/c/file"), rig.path(1, "a/moved")).unwrap();
    assert_eq!(fs::read(rig.path(0, "a/moved")).unwrap(), b"1");
    let gone = fs::read(rig.path(0, "a/b/c/file")).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(fs::remove_dir(rig.path(0, "a")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    fs::hard_link(rig.path(0, "a/moved"), rig.path(0, "second")).unwrap();
    assert_eq!(fs::metadata(rig.path(1, "second")).unwrap().nlink(), 2);
    fs::remove_file(rig.path(1, "a/moved")).unwrap();
    assert_eq!(fs::metadata(rig.path(0, "second")).unwrap().nlink(), 1);
    fs::remove_dir_all(rig.path(1, "a")).unwrap();
    let names: Vec<_> =
        fs::read_dir(rig.root(0)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["second"]);
}

#[test]
fn a_large_directory_is_listed_once_and_whole() {
    let Some(rig) = Rig::start(2) else { return };
    for i in 0..1000 {
        let name = format!("{i:04}{}", "x".repeat(i % 200));
        fs::write(rig.path(0, &name), b"").unwrap();
    }
    for mount in 0..2 {
        let mut names: Vec<_> = fs::read_dir(rig.root(mount))
            .unwrap()
            .map(|entry| entry.unwrap())
            .inspect(|entry| assert!(entry.metadata().unwrap().is_file()))
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().enumerate().all(|(i, name)| name.starts_with(&format!("{i:04}"))));
    }
}

#[test]
fn files_of_every_kind_are_made() {
    let Some(rig) = Rig::start(2) else { return };
    let script = "mknod char c 1 3 && mknod block b 7 9 && mkfifo pipe && ln -s some/where link";
    let made = Command::new("sh").args(["-c", script]).current_dir(rig.root(0)).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(rig.path(0, "socket")).unwrap();
    let told = |name| fs::symlink_metadata(rig.path(1, name)).unwrap();
    assert!(told("char").file_type().is_char_device());
    assert_eq!(told("char").rdev(), libc::makedev(1, 3));
    assert!(told("block").file_type().is_block_device());
    assert_eq!(told("block").rdev(), libc::makedev(7, 9));
    assert!(told("pipe").file_type().is_fifo());
    assert!(told("socket").file_type().is_socket());
    assert_eq!(fs::read_link(rig.path(1, "link")).unwrap(), Path::new("some/where"));
    assert!(fs::write(rig.path(1, "char"), b"into the void").is_ok());
}

#[test]
fn attributes_are_changed_and_seen() {
    let Some(rig) = Rig::start(2) else { return };
    let path = rig.path(0, "file");
    fs::write(&path, b"text").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(&path, Some(1000), Some(1001)).unwrap();
    let date = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(date)).unwrap();
    let told = fs::metadata(rig.path(1, "file")).unwrap();
    // chown takes setuid away.
    assert_eq!((told.mode() & 0o7777, told.uid(), told.gid()), (0o711, 1000, 1001));
    assert_eq!(told.modified().unwrap(), date);
    assert!(told.created().unwrap() > date);
}

#[test]
fn extended_attributes_and_access_control_lists() {
    let Some(rig) = Rig::start(2) else { return };
    let (here, there) = (rig.path(0, "file"), rig.path(1, "file"));
    fs::write(&here, b"text").unwrap();
    fs::set_permissions(&here, fs::Permissions::from_mode(0o600)).unwrap();
    let flags = rustix::fs::XattrFlags::CREATE;
    rustix::fs::setxattr(&here, "user.color", b"green", flags).unwrap();
    assert_eq!(xattr(&there, "user.color").as_deref(), Some(&b"green"[..]));
    let again = rustix::fs::setxattr(&there, "user.color", b"red", flags);
    assert_eq!(again, Err(rustix::io::Errno::EXIST));
    rustix::fs::removexattr(&there, "user.color").unwrap();
    assert_eq!(xattr(&here, "user.color"), None);
    // user 4711 may read: version 2; owner rw, user 4711 r, group -, mask r, others -
    let acl: Vec<u8> = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff],
        &[2, 0, 4, 0, 0x67, 0x12, 0, 0],
        &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[16, 0, 4, 0, 0xff, 0xff, 0xff, 0xff],
        &[32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    let name = "system.posix_acl_access";
    rustix::fs::setxattr(&here, name, &acl, rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(fs::metadata(&there).unwrap().mode() & 0o777, 0o640);
    assert_eq!(xattr(&there, name), Some(acl));
    fs::set_permissions(rig.root(0), fs::Permissions::from_mode(0o755)).unwrap();
    let reads = |uid: u32| {
        let script = format!("exec setpriv --reuid {uid} --regid {uid} --clear-groups cat file");
        let read = Command::new("sh").args(["-c", &script]).current_dir(rig.root(1)).output();
        read.unwrap().status.success()
    };
    // Whoever isn't root must be able to reach it: the rig's directory is root's own.
    assert!(reads(4711), "the list allows it");
    assert!(!reads(4712), "nothing allows it");
}

#[test]
fn holes_are_made_and_found() {
    let Some(rig) = Rig::start(2) else { return };
    let mut file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(rig.path(0, "file"))
        .unwrap();
    file.write_all(&vec![7; 64 << 10]).unwrap();
    let fd = file.as_raw_fd();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fallocate(fd, punch, 8192, 8192) }, 0);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(8192));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(8192)), Ok(16384));
    let there = fs::read(rig.path(1, "file")).unwrap();
    assert!(there[8192..16384].iter().all(|byte| *byte == 0) && there[16384] == 7);
    file.set_len(100).unwrap();
    file.set_len(10_000).unwrap();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() == 10_000 && bytes[99] == 7 && bytes[100..].iter().all(|b| *b == 0));
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fallocate(fd, 0, 0, 1 << 20) }, 0);
    let told = fs::metadata(rig.path(1, "file")).unwrap();
    assert_eq!((told.len(), told.blocks()), (1 << 20, (1 << 20) / 512));
}

#[test]
fn an_open_file_lives_on_when_its_name_is_gone() {
    let Some(rig) = Rig::start(2) else { return };
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(rig.path(0, "file"))
        .unwrap();
    file.write_all_at(b"before", 0).unwrap();
    fs::remove_file(rig.path(1, "file")).unwrap();
    file.write_all_at(b"after!", 6).unwrap();
    let mut bytes = [0; 12];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"beforeafter!");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

#[test]
fn one_of_many_makes_a_file_exclusively() {
    let Some(rig) = Rig::start(3) else { return };
    for round in 0..50 {
        let makers: Vec<_> = (0..6)
            .map(|i| {
                let path = rig.path(i % 3, &format!("lock{round}"));
                std::thread::spawn(move || {
                    fs::File::options().write(true).create_new(true).open(path).is_ok()
                })
            })
            .collect();
        let made = makers.into_iter().filter(|_| true).map(|m| m.join().unwrap());
        assert_eq!(made.filter(|made| *made).count(), 1);
    }
}

#[test]
fn a_file_that_another_host_made_meanwhile_is_emptied_when_asked() {
    let Some(rig) = Rig::start(2) else { return };
    for round in 0..50 {
        let name = format!("file{round}");
        let (here, there) = (rig.path(0, &name), rig.path(1, &name));
        let other = std::thread::spawn(move || fs::write(there, b"something long"));
        fs::write(&here, b"short").unwrap();
        other.join().unwrap().unwrap();
        let read = fs::read(rig.path(1, &name)).unwrap();
        let whole: [&[u8]; 3] = [b"short", b"something long", b"shorthing long"];
        assert!(whole.contains(&read.as_slice()), "{:?}", String::from_utf8_lossy(&read));
    }
}

#[test]
fn a_mapping_and_the_file_are_one() {
    let Some(rig) = Rig::start(1) else { return };
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(rig.path(0, "file"))
        .unwrap();
    file.write_all_at(&[1; 8192], 0).unwrap();
    let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: a new mapping aliases nothing of this program.
    let map = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), 8192, prot, rustix::mm::MapFlags::SHARED, &file, 0)
    };
    let map = map.expect("shared mappings are allowed").cast::<u8>();
    let mut byte = [0];
    // SAFETY: the mapping is 8192 bytes long, and its file too.
    unsafe {
        assert_eq!(map.add(5000).read_volatile(), 1);
        file.write_all_at(&[2], 5000).unwrap();
        assert_eq!(map.add(5000).read_volatile(), 2);
        map.add(6000).write_volatile(3);
        file.read_exact_at(&mut byte, 6000).unwrap();
        assert_eq!(byte, [3]);
        rustix::mm::munmap(map.cast(), 8192).unwrap();
    }
}

#[test]
fn space_is_told_truly() {
    let Some(rig) = Rig::start(2) else { return };
    let free = |mount| rustix::fs::statvfs(rig.root(mount)).unwrap().f_bfree;
    let before = free(0);
    fs::write(rig.path(0, "file"), vec![1; 1 << 20]).unwrap();
    assert_eq!((free(0), free(1)), (before - 256, before - 256));
    fs::remove_file(rig.path(1, "file")).unwrap();
    assert_eq!((free(0), free(1)), (before, before));
}

#[test]
fn what_is_dirty_is_kept_when_it_is_unmounted() {
    let Some(rig) = Rig::start(2) else { return };
    let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(rig.path(0, "mapped"))
        .unwrap();
    file.set_len(4096).unwrap();
    // SAFETY: a new mapping, as long as its file, gone before the file is.
    unsafe {
        let flags = rustix::mm::MapFlags::SHARED;
        let map = rustix::mm::mmap(std::ptr::null_mut(), 4096, prot, flags, &file, 0).unwrap();
        map.cast::<u8>().write_volatile(9);
        rustix::mm::munmap(map, 4096).unwrap();
    }
    drop(file);
    fs::write(rig.path(0, "written"), b"text").unwrap();
    rig.tell("umount 0");
    assert!(!rig.path(0, "written").exists(), "nothing is mounted there");
    assert_eq!(fs::read(rig.path(1, "written")).unwrap(), b"text");
    assert_eq!(fs::read(rig.path(1, "mapped")).unwrap()[0], 9);
}

#[test]
fn what_is_mounted_in_it_stays_mounted_when_another_host_comes() {
    let Some(rig) = Rig::start(2) else { return };
    let inside = rig.path(0, "directory");
    fs::create_dir(&inside).unwrap();
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &inside, Some("tmpfs"), flags, none).unwrap();
    fs::write(inside.join("file"), b"text").unwrap();
    for i in 0..20 {
        fs::write(rig.path(1, &format!("other{i}")), b"").unwrap();
        fs::write(rig.path(0, &format!("own{i}")), b"").unwrap();
        assert_eq!(fs::read(inside.join("file")).unwrap(), b"text");
    }
    nix::mount::umount(&inside).unwrap();
}

#[test]
fn direct_io_of_any_size_is_served() {
    let Some(rig) = Rig::start(1) else { return };
    let file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(rig.path(0, "file"))
        .unwrap();
    file.write_all_at(b"five!", 3).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"\0\0\0five!");
}

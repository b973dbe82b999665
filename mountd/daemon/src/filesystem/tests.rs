use std::fs::File;

use super::*;

/// A sparse file stands for a device: the tools take either.
fn image(megabytes: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("image");
    File::create(&path).and_then(|f| f.set_len(megabytes << 20)).expect("a sparse file");
    (dir, path)
}

#[test]
fn an_empty_device_gets_the_file_system_asked_for_once() {
    for (wanted, megabytes) in [(Wanted::Ext4, 64), (Wanted::Xfs, 400)] {
        let (_dir, path) = image(megabytes);
        assert_eq!(probe(&path).expect("probing works"), Found::Nothing);
        assert_eq!(prepare(&path, wanted, true, "data").expect("it is made"), wanted.name());
        let before = std::fs::read(&path).expect("the image");
        assert_eq!(prepare(&path, wanted, false, "data").expect("it is found"), wanted.name());
        assert_eq!(probe(&path).expect("probing works"), Found::Something(wanted.name().into()));
        // The second time nothing was formatted: the file system kept its UUID.
        assert_eq!(before[..64 << 10], std::fs::read(&path).expect("the image")[..64 << 10]);
    }
}

#[test]
fn a_raw_volume_is_never_formatted() {
    let (_dir, path) = image(16);
    let error = prepare(&path, Wanted::Raw, true, "data").expect_err("there is nothing to mount");
    assert!(matches!(error, FileSystemError::RawWithoutFileSystem(_)), "{error}");
    assert_eq!(probe(&path).expect("probing works"), Found::Nothing);
}

#[test]
fn a_raw_volume_is_mounted_as_what_its_user_made_of_it() {
    let (_dir, path) = image(64);
    make(&path, Wanted::Ext4, "mine").expect("mkfs works");
    assert_eq!(prepare(&path, Wanted::Raw, true, "data").expect("it is found"), "ext4");
}

#[test]
fn something_else_on_the_device_is_left_alone() {
    let (_dir, path) = image(400);
    make(&path, Wanted::Xfs, "other").expect("mkfs works");
    let error = prepare(&path, Wanted::Ext4, true, "data").expect_err("XFS is not ext4");
    assert!(error.to_string().contains("holds xfs, not ext4"), "{error}");
    assert_eq!(probe(&path).expect("probing works"), Found::Something("xfs".into()));
}

#[test]
fn a_damaged_file_system_is_refused_with_what_to_do() {
    let (_dir, path) = image(64);
    make(&path, Wanted::Ext4, "data").expect("mkfs works");
    // Mark it as having errors, and break the root directory's inode table beyond `-p`.
    let status = Command::new("debugfs")
        .args(["-w", "-R", "clri <2>"])
        .arg(&path)
        .stderr(Stdio::null())
        .status()
        .expect("debugfs runs");
    assert!(status.success());
    Command::new("debugfs")
        .args(["-w", "-R", "ssv state 2"])
        .arg(&path)
        .stderr(Stdio::null())
        .status()
        .expect("debugfs runs");
    let error = prepare(&path, Wanted::Ext4, true, "data").expect_err("it is damaged");
    assert!(error.to_string().contains("e2fsck -f"), "{error}");
}

#[test]
fn data_of_an_unknown_kind_is_never_formatted() {
    for offset in [0, 600 << 10, (64 << 20) - 4096] {
        let (_dir, path) = image(64);
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the image");
        file.write_all_at(b"precious", offset).expect("it is written");
        assert_eq!(probe(&path).expect("probing works"), Found::Unknown);
        let error = prepare(&path, Wanted::Ext4, true, "data").expect_err("it is not empty");
        assert!(error.to_string().contains("unknown kind"), "{error}");
    }
}

#[test]
fn a_volume_that_was_formatted_once_is_not_formatted_again() {
    let (_dir, path) = image(64);
    let error = prepare(&path, Wanted::Ext4, false, "data").expect_err("it should hold ext4");
    assert!(error.to_string().contains("is gone"), "{error}");
    assert_eq!(probe(&path).expect("probing works"), Found::Nothing);
}

#[test]
fn what_cannot_be_read_is_not_empty() {
    let dir = tempfile::tempdir().expect("a directory");
    let error = probe(&dir.path().join("absent")).expect_err("there is nothing to read");
    assert!(matches!(error, FileSystemError::Read { .. }), "{error}");
}

#[test]
fn an_unmounted_ext4_grows_with_its_device() {
    let (_dir, path) = image(256);
    make(&path, Wanted::Ext4, "data").expect("mkfs works");
    assert!(!is_smaller_than_device(&path).expect("it reads"));
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the image");
    file.set_len(512 << 20).expect("it grows");
    assert!(is_smaller_than_device(&path).expect("it reads"));
    grow_unmounted(&path, "ext4").expect("it grows");
    assert!(!is_smaller_than_device(&path).expect("it reads"));
}

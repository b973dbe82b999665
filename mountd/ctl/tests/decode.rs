//! `mountctl decode` on the files of a real pool, on rot, and on what is no pool.

// Helpers outside a test function are tests too.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use mooring_engine::{DirectoryDisk, FormatOptions, OpenOptions, Pool};
use mooring_terms::SliceId;

fn decode(file: &Path, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mountctl"));
    let Output { status, stdout, stderr } =
        command.arg("decode").arg(file).args(more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A pool with one replica, closed again.
fn pool(dir: &Path) {
    let disk = Arc::new(DirectoryDisk::open(dir).unwrap());
    let options = FormatOptions { size_bytes: 16 << 20, segment_bytes: 1 << 20, tag: 0x5eed };
    Pool::format(&*disk, &options).unwrap();
    let options = OpenOptions { opening: 1, ..OpenOptions::default() };
    let (pool, _) = Pool::open(disk, options).unwrap();
    pool.create(SliceId::default(), Bytes::from_static(b"state")).unwrap();
    pool.sync().unwrap();
}

#[test]
fn every_file_of_a_pool_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path());
    let mut seen = String::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let (code, out, err) = decode(&entry.unwrap().path(), &[]);
        assert_eq!((code, err.as_str()), (0, ""));
        seen.push_str(&out);
    }
    for part in ["superblock: ", "tag 0000000000005eed", "checkpoint ", "segment ", " create"] {
        assert!(seen.contains(part), "{part}\n{seen}");
    }
}

#[test]
fn rot_is_said_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    pool(dir.path());
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (8..bytes.len()).step_by(7) {
            bytes[at] ^= 0x55;
        }
        std::fs::write(&path, bytes).unwrap();
        let (code, _, err) = decode(&path, &[]);
        assert_eq!((code, err.as_str()), (0, ""), "{}", path.display());
    }
}

#[test]
fn what_is_no_pool_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "hello").unwrap();
    let (_, out, _) = decode(&file, &["--json"]);
    let lines: Vec<String> = serde_json::from_str(&out).unwrap();
    assert_eq!(lines, ["no part of a pool: unknown magic"]);
    let (code, _, err) = decode(&dir.path().join("none"), &[]);
    assert_eq!(code, 3, "{err}");
    let (code, _, err) = decode(dir.path(), &[]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("not a plain file") && err.contains("hint: "), "{err}");
}

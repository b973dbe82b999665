//! Seeds of the fuzz targets: valid inputs, made by the tests of the crates whose formats they are.
//!
//! `MOORING_WRITE_SEEDS=1` has the tests write them, as `tests/fuzz/run` does. Those that are committed are
//! held: a test fails when its crate no longer makes them as they are, since then a format has changed.

#![allow(clippy::unwrap_used)] // In a test a panic is the report.

use std::path::Path;

/// Holds the seed `name` of a target against `bytes`, or writes it.
pub fn check(target: &str, name: &str, bytes: &[u8]) {
    let has = |directory: &&Path| directory.join("tests/fuzz/seeds.rs").exists();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(has).unwrap();
    let path = root.join("tests/fuzz/seeds").join(target).join(name);
    if std::env::var_os("MOORING_WRITE_SEEDS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    if let Ok(committed) = std::fs::read(&path) {
        assert!(committed == bytes, "{}: not what is encoded now", path.display());
    }
}

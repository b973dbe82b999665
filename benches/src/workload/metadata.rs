//! Rates of one program alone, on small files in one directory.

use std::fs::{self, File};
use std::io::{Read, Result, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

/// Passes over what costs little, so that each is long enough to be timed.
const PASSES: u64 = 5;

/// Operations a second of each kind, on `files` files of 4 KiB.
pub fn run(dir: &Path, files: u64) -> Result<Value> {
    fs::create_dir(dir)?;
    let contents = [7_u8; 4096];
    let file = |i: u64| dir.join(format!("file{i:06}"));
    let create = rate(files, |i| {
        let mut file = File::options().write(true).create_new(true).open(file(i))?;
        file.write_all(&contents)
    })?;
    let synced = dir.join("synced");
    fs::create_dir(&synced)?;
    let create_fsync = rate(files / 8, |i| {
        let file = File::options().write(true).create_new(true).open(synced.join(i.to_string()));
        let mut file = file?;
        file.write_all(&contents)?;
        file.sync_all()
    })?;
    // In an order that no cache foresees: 7,919 is a prime.
    let any = |i: u64| file(i * 7919 % files);
    let stat = rate(files * PASSES, |i| any(i).symlink_metadata().map(drop))?;
    let mut read = Vec::with_capacity(8192);
    let open_read = rate(files * PASSES, |i| {
        read.clear();
        File::open(any(i))?.read_to_end(&mut read).map(drop)
    })?;
    let list = list(dir, files)?;
    let moved = |i: u64| dir.join(format!("moved{i:06}"));
    let rename = rate(files, |i| fs::rename(file(i), moved(i)))?;
    let unlink = rate(files, |i| fs::remove_file(moved(i)))?;
    let mkdir = rate(files / 2, |i| fs::create_dir(dir.join(format!("dir{i:06}"))))?;
    fs::remove_dir_all(dir)?;
    Ok(json!({
        "create": create, "create-fsync": create_fsync, "stat": stat, "open-read": open_read,
        "ls-l": list, "rename": rename, "unlink": unlink, "mkdir": mkdir,
    }))
}

/// Entries a second, each with its attributes.
fn list(dir: &Path, files: u64) -> Result<f64> {
    let began = Instant::now();
    let mut seen = 0_u64;
    for _ in 0..PASSES {
        let names: Vec<PathBuf> =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        for name in names {
            seen += u64::from(name.symlink_metadata()?.nlink() > 0);
        }
    }
    assert!(seen >= files * PASSES, "{seen} entries were listed");
    Ok(seen as f64 / began.elapsed().as_secs_f64())
}

fn rate(count: u64, mut operation: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    (0..count).try_for_each(&mut operation)?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

//! What a shared mount costs in memory: less than 50 MiB, whatever has been done through it.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::fs;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use mooring_tests::hosts::{Cluster, Failure, Result, on_cluster, seconds};

/// The promise, in KiB.
const MOST: u64 = 50 << 10;

/// What is written and read, in MiB.
const MEBIBYTES: u64 = 500;

/// The tree that is walked.
const DIRECTORIES: usize = 50;
const FILES: usize = 1000;

/// How much memory the process of a mount has, and had at most, in KiB.
fn memory(cluster: &Cluster) -> Result<(u64, u64)> {
    let pid = r#"sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' /run/mooring/mounts/*"#;
    let told = cluster[1].run(format!("cat /proc/$({pid})/status"))?.stdout;
    let of = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| Failure::Wrong(format!("no {name} in {told}")))
    };
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}

/// Files of one directory, made and written by one of several threads.
fn make_files(root: &Path, directories: impl Iterator<Item = usize>) {
    for directory in directories {
        let directory = root.join(format!("directory{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..FILES {
            fs::File::create(directory.join(format!("file{file}"))).unwrap();
        }
    }
}

/// Looks at everything below a directory; how many files that were.
fn walk(root: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        files += if metadata.is_dir() { walk(&path) } else { 1 };
    }
    files
}

#[test]
fn mount_stays_small_whatever_is_written_read_and_walked_through_it() {
    on_cluster(1, |cluster| {
        let volume = cluster.create("home --shared --size 2G --replicas 1")?;
        volume.wait_in_sync(1, 1)?;
        cluster[1].run(format!("mkdir -p {}", volume.directory()))?;
        volume.mount(1)?;
        let root = cluster[1].path(volume.directory())?;
        let mut most = 0;
        let began = Instant::now();
        let mut look = |when: &str| -> Result<()> {
            let (now, peak) = memory(cluster)?;
            println!("{when}: {now} KiB, at most {peak} KiB, after {:.1?}", began.elapsed());
            most = most.max(peak);
            Ok(())
        };
        look("idle")?;

        let long = root.join("long");
        let direct = libc::O_DIRECT;
        let mebibyte = |byte: u64| vec![byte as u8; 1 << 20];
        let file = fs::File::create(&long).unwrap();
        for i in 0..MEBIBYTES {
            file.write_all_at(&mebibyte(i), i << 20).unwrap();
        }
        drop(file);
        look("written")?;
        for flags in [0, direct] {
            let file = fs::File::options().read(true).custom_flags(flags).open(&long).unwrap();
            // As direct I/O wants it.
            let mut room = vec![0_u8; (1 << 20) + 4096];
            let from = room.as_ptr().align_offset(4096);
            for i in 0..MEBIBYTES {
                file.read_exact_at(&mut room[from..from + (1 << 20)], i << 20).unwrap();
                assert!(room[from..from + (1 << 20)].iter().all(|byte| *byte == i as u8));
            }
        }
        look("read twice")?;

        std::thread::scope(|scope| {
            for thread in 0..5 {
                let directories = (0..DIRECTORIES).filter(move |i| i % 5 == thread);
                scope.spawn(|| make_files(&root, directories));
            }
        });
        look("files made")?;
        assert_eq!(walk(&root), DIRECTORIES * FILES + 1);
        look("walked")?;
        assert!(most < MOST, "{most} KiB");
        assert!(began.elapsed() < seconds(300));
        Ok(())
    });
}

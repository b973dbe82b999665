//! Shared volumes: what programs on several hosts do to the same files, on a real cluster. The same kinds of
//! tests run much longer over memory (`sharedfs/mount/tests`); here everything below is real, too.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "real processes run in real time; in a test's functions too a panic is the report"
)]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mooring_file_model::{Options, Run, Times};
use mooring_tests::hosts::{Cluster, Result, Volume, on_cluster, seconds};

/// A shared volume that is mounted on every host, and where.
fn mounted_everywhere<'a>(cluster: &'a Cluster) -> Result<(Volume<'a>, Vec<PathBuf>)> {
    let volume = cluster.create("home --shared --size 1G --replicas 3")?;
    volume.wait_in_sync(3, 1)?;
    let mut roots = Vec::new();
    for host in 1..=cluster.count() {
        cluster[host].run(format!("mkdir -p {}", volume.directory()))?;
        volume.mount(host)?;
        roots.push(cluster[host].path(volume.directory())?);
    }
    Ok((volume, roots))
}

fn is_sound(volume: &Volume) -> Result<()> {
    let said = volume.cluster().ctl(1, &format!("fsck {}", volume.name()))?.stdout;
    assert!(said.contains("is sound"), "{said}");
    Ok(())
}

fn number(variable: &str, else_: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(else_)
}

/// Random calls, one at a time, compared with a file system in memory (`MOORING_MODEL_SEED`,
/// `MOORING_MODEL_CALLS`).
#[test]
fn three_hosts_do_what_one_would() {
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        let options = Options {
            seed: number("MOORING_MODEL_SEED", 11),
            calls: number("MOORING_MODEL_CALLS", 2_500),
            limit: seconds(number("MOORING_MODEL_CALLS", 0) / 20 + 20),
            mappings: true,
            times: Times::Exact,
        };
        match Run::new(&roots, "run").chosen(options, |_| {}) {
            Ok(report) => {
                println!("seed {}: {report:?}", options.seed);
                assert!(report.calls > 500, "too slow to prove anything: {report:?}");
            }
            Err(failure) => panic!("{failure}"),
        }
        is_sound(&volume)
    });
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// A page of a file, mapped for reading; never unmapped.
fn map(file: &File) -> *const u32 {
    let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED);
    // SAFETY: a new mapping aliases nothing, and the file is as long.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags, file.as_raw_fd(), 0) };
    assert_ne!(map, libc::MAP_FAILED);
    map.cast::<u32>()
}

/// One host changes something in one of ten ways, and another looks, with the file open on both and mapped.
fn change_is_seen(roots: &[PathBuf], files: &[File], maps: &[*const u32], i: u32) {
    let (here, there) = (i as usize % 3, (i as usize + 1 + i as usize / 3 % 2) % 3);
    let on = |host: usize, name: &str| roots[host].join(name);
    let gone = |name: &str| {
        let found = fs::symlink_metadata(on(there, name)).map(|_| ()).unwrap_err();
        assert_eq!(found.kind(), ErrorKind::NotFound, "{i}: {name}");
    };
    let seen = || files[there].metadata().unwrap();
    match i / 3 % 10 {
        0 => {
            files[here].write_all_at(&i.to_le_bytes(), 40).unwrap();
            let mut bytes = [0; 4];
            files[there].read_exact_at(&mut bytes, 40).unwrap();
            assert_eq!(u32::from_le_bytes(bytes), i, "read");
            let read = fs::read(on(there, "held")).unwrap();
            assert_eq!(read[40..44], i.to_le_bytes(), "read anew");
        }
        1 => {
            files[here].write_all_at(&i.to_le_bytes(), 0).unwrap();
            // SAFETY: mapped, and the file is never shorter than a page.
            assert_eq!(unsafe { maps[there].read_volatile() }, i, "mapped");
        }
        2 => {
            let size = 4096 + u64::from(i);
            files[here].set_len(size).unwrap();
            assert_eq!(
                (seen().len(), fs::metadata(on(there, "held")).unwrap().len()),
                (size, size)
            );
        }
        3 => {
            fs::rename(on(here, "name"), on(here, "moved")).unwrap();
            gone("name");
            assert_eq!(fs::read_to_string(on(there, "moved")).unwrap(), "named");
            fs::rename(on(there, "moved"), on(there, "name")).unwrap();
            assert!(fs::exists(on(here, "name")).unwrap());
        }
        4 => {
            fs::write(on(here, "made"), i.to_string()).unwrap();
            assert_eq!(fs::read_to_string(on(there, "made")).unwrap(), i.to_string());
            let found = File::open(on(there, "made")).unwrap();
            fs::remove_file(on(here, "made")).unwrap();
            gone("made");
            assert_eq!(found.metadata().unwrap().nlink(), 0);
        }
        5 => {
            let mode = 0o400 | (i % 0o400);
            files[here].set_permissions(fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(seen().mode() & 0o777, mode);
        }
        6 => {
            let owner = (4000 + i % 100, 5000 + i % 100);
            std::os::unix::fs::chown(on(here, "held"), Some(owner.0), Some(owner.1)).unwrap();
            assert_eq!((seen().uid(), seen().gid()), owner);
        }
        7 => {
            fs::create_dir(on(here, "dir")).unwrap();
            assert!(fs::metadata(on(there, "dir")).unwrap().is_dir());
            fs::remove_dir(on(there, "dir")).unwrap();
            assert!(!fs::exists(on(here, "dir")).unwrap());
        }
        8 => {
            fs::hard_link(on(here, "name"), on(here, "second")).unwrap();
            assert_eq!(fs::metadata(on(there, "name")).unwrap().nlink(), 2);
            fs::remove_file(on(there, "second")).unwrap();
            assert_eq!(fs::metadata(on(here, "name")).unwrap().nlink(), 1);
        }
        _ => {
            std::os::unix::fs::symlink(i.to_string(), on(here, "link")).unwrap();
            assert_eq!(fs::read_link(on(there, "link")).unwrap().to_str(), Some(&*i.to_string()));
            fs::remove_file(on(here, "link")).unwrap();
            gone("link");
        }
    }
}

/// `MOORING_TRIES` asks for more rounds.
#[test]
fn a_change_on_one_host_is_seen_by_the_next_call_on_another() {
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        let files: Vec<File> = roots.iter().map(|root| open(&root.join("held"))).collect();
        files[0].set_len(8192).unwrap();
        fs::write(roots[0].join("name"), "named").unwrap();
        let maps: Vec<*const u32> =
            roots.iter().map(|root| map(&File::open(root.join("held")).unwrap())).collect();
        let tries = u32::try_from(number("MOORING_TRIES", 3_000)).unwrap();
        (0..tries).for_each(|i| change_is_seen(&roots, &files, &maps, i));
        drop(files);
        is_sound(&volume)
    });
}

fn in_threads(hosts: usize, run: impl Fn(usize) + Send + Sync) {
    std::thread::scope(|scope| {
        for host in 0..hosts {
            let run = &run;
            scope.spawn(move || run(host));
        }
    });
}

fn flock(file: &File, lock: bool) {
    let operation = if lock { libc::LOCK_EX } else { libc::LOCK_UN };
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), operation) }, 0);
}

/// Locks or frees eight bytes, for this open file.
fn range_lock(file: &File, lock: bool) {
    let kind = if lock { libc::F_WRLCK } else { libc::F_UNLCK };
    let wanted = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 8,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the lock lives as long as the call.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &raw const wanted) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Three hosts count in one file under a lock.
fn counts(roots: &[PathBuf], name: &str, lock: impl Fn(&File, bool) + Sync) {
    const EACH: u64 = 400;
    fs::write(roots[0].join(name), 0_u64.to_le_bytes()).unwrap();
    in_threads(roots.len(), |host| {
        let file = open(&roots[host].join(name));
        for _ in 0..EACH {
            lock(&file, true);
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0).unwrap();
            file.write_all_at(&(u64::from_le_bytes(bytes) + 1).to_le_bytes(), 0).unwrap();
            lock(&file, false);
        }
    });
    let counted = fs::read(roots[1].join(name)).unwrap();
    assert_eq!(
        u64::from_le_bytes(counted.try_into().unwrap()),
        roots.len() as u64 * EACH,
        "{name}"
    );
}

#[test]
fn counters_lose_no_step_and_exclusive_names_have_one_winner() {
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        counts(&roots, "under flock", flock);
        counts(&roots, "under fcntl", range_lock);
        let won = [(); 200].map(|()| std::sync::atomic::AtomicU32::new(0));
        in_threads(3, |host| {
            for (i, won) in won.iter().enumerate() {
                let made = File::create_new(roots[host].join(format!("one{i}")));
                match made {
                    Ok(_) => _ = won.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
                }
            }
        });
        let won: Vec<u32> = won.into_iter().map(std::sync::atomic::AtomicU32::into_inner).collect();
        assert_eq!(won, vec![1; 200]);
        is_sound(&volume)
    });
}

#[test]
fn appends_of_two_hosts_lose_and_tear_nothing() {
    const EACH: usize = 1000;
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        let record = |host: usize, i: usize| format!("<{host} {i} {}>\n", "x".repeat(i * 7 % 300));
        in_threads(2, |host| {
            let path = roots[host].join("log");
            let mut file = File::options().append(true).create(true).open(path).unwrap();
            (0..EACH).for_each(|i| file.write_all(record(host, i).as_bytes()).unwrap());
        });
        let text = fs::read_to_string(roots[2].join("log")).unwrap();
        let mut next = [0; 2];
        for line in text.split_inclusive('\n') {
            let host = usize::from(line.starts_with("<1"));
            assert_eq!(line, record(host, next[host]), "whole, and in order");
            next[host] += 1;
        }
        assert_eq!(next, [EACH; 2]);
        is_sound(&volume)
    });
}

/// `MOORING_WRITERS_SECONDS` asks for longer.
#[test]
fn two_writers_of_one_file_on_one_host_and_on_two_tear_nothing() {
    const BLOCKS: u64 = 64;
    on_cluster(3, |cluster| {
        let (volume, roots) = mounted_everywhere(cluster)?;
        fs::write(roots[0].join("file"), vec![0; (BLOCKS * 4096) as usize]).unwrap();
        for hosts in [[0, 0], [0, 1]] {
            let length = seconds(number("MOORING_WRITERS_SECONDS", 5));
            in_threads(2, |writer| {
                let file = open(&roots[hosts[writer]].join("file"));
                let (began, mut i) = (std::time::Instant::now(), 0_u64);
                while began.elapsed() < length {
                    i += 1;
                    let value = [(i % 250) as u8 + 1; 4096];
                    let block = (i * 29 + writer as u64 * 13) % BLOCKS;
                    file.write_all_at(&value, block * 4096).unwrap();
                    let mut read = [0; 4096];
                    file.read_exact_at(&mut read, (i * 31 % BLOCKS) * 4096).unwrap();
                    assert!(read.iter().all(|byte| *byte == read[0]), "a torn write");
                }
                println!("writer {writer} of {hosts:?}: {i} writes");
            });
            let all = roots.iter().map(|root| fs::read(root.join("file")).unwrap());
            let all: Vec<Vec<u8>> = all.collect();
            assert!(all[0] == all[1] && all[1] == all[2], "all hosts see the same");
        }
        is_sound(&volume)
    });
}

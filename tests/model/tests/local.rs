//! The comparison itself, on a directory of this machine: the reference does what Linux does, and what is
//! not so is found.

use std::path::Path;
use std::time::Duration;

use mooring_file_model::{Options, Run, Times};

fn options(seed: u64, calls: u64) -> Options {
    Options { seed, calls, limit: Duration::from_secs(60), mappings: true, times: Times::Coarse }
}

/// The same directory as two hosts.
fn run(directory: &Path, name: &str) -> Run {
    Run::new(&[directory.to_owned(), directory.to_owned()], name)
}

#[test]
fn a_local_file_system_does_what_the_reference_does() {
    let directory = tempfile::TempDir::new().expect("a directory");
    for seed in 0..3 {
        let mut run = run(directory.path(), &format!("run{seed}"));
        match run.chosen(options(seed, 2_000), |_| {}) {
            Ok(report) => assert!(report.calls > 2_000 && report.refused > 100, "{report:?}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

/// Something goes wrong in the middle, behind the comparison's back.
fn is_found(spoil: impl Fn(&Path)) {
    let directory = tempfile::TempDir::new().expect("a directory");
    let mut run = run(directory.path(), "run");
    let base = directory.path().join("run");
    let spoilt = run.chosen(options(1, 2_000), |number| {
        // Just before every host looks at everything.
        if number == 1_199 {
            spoil(&base);
        }
    });
    let failure = spoilt.expect_err("it was spoilt");
    assert!(failure.story.len() > 1_000, "{failure}");
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let of = path.symlink_metadata().expect("it is there");
        match (of.is_dir(), of.is_file()) {
            (true, _) => found.extend(files(&path)),
            (_, true) => found.push(path),
            _ => {}
        }
    }
    found
}

#[test]
fn a_byte_that_is_lost_is_found() {
    is_found(|base| {
        let mut spoilt = 0;
        for file in files(base) {
            let mut bytes = std::fs::read(&file).expect("a file");
            let Some(last) = bytes.last_mut() else { continue };
            *last = last.wrapping_add(1);
            std::fs::write(&file, bytes).expect("a file");
            spoilt += 1;
        }
        assert!(spoilt > 0, "there is no file with bytes in it to be spoilt");
    });
}

#[test]
fn a_name_too_many_is_found() {
    is_found(|base| std::fs::write(base.join("stranger"), b"").expect("a file"));
}

#[test]
fn a_time_that_changes_by_itself_is_found() {
    is_found(|base| {
        let directory = std::fs::File::open(base).expect("a directory");
        directory.set_modified(std::time::UNIX_EPOCH).expect("a time");
    });
}

//! `make install`: what packages and people get, into a directory of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test runs real programs, and in its functions too a panic is the report"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mooring_tests::hosts::skip;

/// Where this run's programs were built: beside the test itself.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

/// Installs into a fresh directory.
fn installed(prefix: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    make_install(root.path(), prefix);
    root
}

fn make_install(root: &Path, prefix: &str) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut make = Command::new("make");
    make.arg("-C").arg(repository).args(["install", &format!("PREFIX={prefix}")]);
    make.arg(format!("DESTDIR={}", root.display()));
    // As they are: what is installed, and not how it was compiled, is looked at here.
    make.arg(format!("BINARIES={}", built().display()));
    succeeds(make);
}

fn succeeds(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .permissions()
        .mode()
        & 0o777
}

#[test]
fn everything_is_where_its_reader_looks() {
    let root = installed("/usr/local");
    let at = |path: &str| root.path().join(path);
    for program in ["usr/local/bin/mountctl", "usr/local/sbin/mountd"] {
        assert_eq!(mode(at(program)), 0o755, "{program}");
        succeeds({
            let mut asked = Command::new(at(program));
            asked.arg("--version");
            asked
        });
    }
    // mount(8) looks for it in /sbin only; the link must hold once DESTDIR is the root.
    let helper = fs::read_link(at("sbin/mount.mooring")).unwrap();
    assert_eq!(helper, Path::new("/usr/local/bin/mountctl"));
    for file in [
        "etc/systemd/system/mountd.service",
        "etc/mooring/mountd.toml",
        "usr/local/share/bash-completion/completions/mountctl",
        "usr/local/share/zsh/site-functions/_mountctl",
        "usr/local/share/fish/vendor_completions.d/mountctl.fish",
    ] {
        assert_eq!(mode(at(file)), 0o644, "{file}");
        assert!(fs::metadata(at(file)).unwrap().len() > 100, "{file} is empty");
    }
    succeeds({
        let mut bash = Command::new("bash");
        bash.arg("-n").arg(at("usr/local/share/bash-completion/completions/mountctl"));
        bash
    });
}

#[test]
fn configuration_that_is_there_is_left_alone() {
    let root = installed("/usr");
    let unit = root.path().join("lib/systemd/system/mountd.service");
    assert!(fs::read_to_string(unit).unwrap().contains("ExecStart=/usr/sbin/mountd run"));
    let configuration = root.path().join("etc/mooring/mountd.toml");
    fs::write(&configuration, "# mine\n").unwrap();
    make_install(root.path(), "/usr");
    assert_eq!(fs::read_to_string(configuration).unwrap(), "# mine\n");
}

#[test]
fn unit_is_one_that_systemd_takes() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip("systemd-analyze is not here");
    }
    let root = installed("/usr/local");
    // `--root` has systemd look up the program and the units it names in there, and nowhere else.
    let unit = root.path().join("etc/systemd/system/mountd.service");
    let text = fs::read_to_string(&unit).unwrap();
    let program = root.path().join("usr/local/sbin/mountd").display().to_string();
    fs::write(&unit, text.replace("/usr/local/sbin/mountd", &program)).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Other units of the machine may be at fault too; a word about ours is a failure.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("mountd")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

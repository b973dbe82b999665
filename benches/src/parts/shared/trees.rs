//! What people do to trees of source code: untar, git clone, git status, read on another host, rm -r.

use std::path::{Path, PathBuf};

use mooring_tests::hosts::{Failure, Result, seconds};

use super::{Bench, Held};
use crate::figure::Goal;
use crate::parts::Plan;
use crate::report::Report;

/// How many files the tree is to have at least.
const FILES: usize = 2400;

/// With which it begins: one package of so many, so that the files are as large as in trees that people untar.
const LARGE: usize = 1000;

/// On a host.
const TAR: &str = "/var/lib/mooring/tree.tar";
const SOURCE: &str = "/var/lib/mooring/source";

/// Each line in a directory of the place, with its title and what it is held against.
const LINES: &[(&str, &str, Held)] = &[
    (
        "untar of a source tree",
        "mkdir t && tar -C t -xf /var/lib/mooring/tree.tar",
        Held::AtMost(2.0),
    ),
    ("git clone", "git clone -q file:///var/lib/mooring/source clone", Held::AtMost(5.0)),
    ("git status", "git -C clone status --porcelain", Held::AtMost(0.3)),
];

/// All of it, at each place in turn.
pub(super) fn run(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> Result<()> {
    let files = lay_out(bench)?;
    report.progress(&format!("shared: the tree has {files} files"));
    bench.cluster[bench.other]
        .run(format!("mountpoint -q {0} || mountctl mount home {0}", bench.volume.directory()))?;
    let mut untimed = vec![vec![Vec::new(); bench.places.len()]; LINES.len()];
    let mut removed = vec![Vec::new(); bench.places.len()];
    let mut read = Vec::new();
    for round in 0..plan.rounds {
        for (i, place) in bench.places.iter().enumerate() {
            let dir = format!("{}/trees{round}", place.dir);
            bench.host().run(format!("mkdir {dir}"))?;
            for ((_, line, _), measured) in LINES.iter().zip(&mut untimed) {
                measured[i].push(bench.timed(bench.one, &format!("cd {dir} && {line}"))?);
            }
            if place.name.starts_with("shared") {
                // Not to /dev/null itself: tar would read nothing.
                let line = format!("cd {dir} && tar -cf - t | cat");
                read.push(bench.timed(bench.other, &line)?);
            }
            removed[i].push(bench.timed(bench.one, &format!("rm -r {dir}/t"))?);
            bench.host().run_for(seconds(120), format!("rm -r {dir}"))?;
        }
    }
    for ((title, _, held), measured) in LINES.iter().zip(&untimed) {
        bench.tell(report, (title, "s"), Some(*held), measured, None);
    }
    bench.tell(report, ("rm -r of that tree", "s"), Some(Held::AtMost(0.5)), &removed, None);
    let value = crate::figure::median(&read);
    report.add(super::alone(
        "that tree read on another host",
        "shared x3",
        value,
        "s",
        Some(Goal::AtMost(0.7)),
    ));
    Ok(())
}

/// Puts the tree, as an archive and as a repository, on the host. It is made of sources that this was built of, as
/// they came.
fn lay_out(bench: &Bench<'_>) -> Result<usize> {
    let crates = crates()?;
    let disk = bench.host().disk();
    let list: Vec<String> =
        crates.iter().map(|one| format!("{:?}", one.display().to_string())).collect();
    let copy = format!(
        "mkdir -p {0}/source && cp -r {1} {0}/source/ && tar -C {0}/source -cf {0}/tree.tar .",
        disk.display(),
        list.join(" ")
    );
    let output = std::process::Command::new("bash").args(["-c", &copy]).output();
    let output = output.map_err(Failure::io("copying sources"))?;
    if !output.status.success() {
        return Err(Failure::Wrong(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    bench.host().run_for(
        seconds(120),
        format!(
            "cd {SOURCE} && git init -q && git add -A -f . && \
             git -c user.name=bench -c user.email=bench@localhost commit -q -m tree && test -s {TAR}"
        ),
    )?;
    Ok(crates.iter().map(|one| files_in(one)).sum())
}

/// Sources in cargo's registry, by name from the first large one on, until there are enough files: some 2,500 of
/// about 27 KiB each.
fn crates() -> Result<Vec<PathBuf>> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let sources = home.unwrap_or_default().join("registry/src");
    let missing = || Failure::Wrong(format!("{}: no sources to make a tree of", sources.display()));
    let mut all = Vec::new();
    for index in std::fs::read_dir(&sources).map_err(|_| missing())?.flatten() {
        let crates = std::fs::read_dir(index.path()).into_iter().flatten().flatten();
        all.extend(crates.map(|one| one.path()));
    }
    all.sort();
    let mut count = 0;
    let mut chosen = Vec::new();
    for one in all {
        let files = files_in(&one);
        if count == 0 && files < LARGE {
            continue;
        }
        count += files;
        chosen.push(one);
        if count >= FILES {
            return Ok(chosen);
        }
    }
    Err(missing())
}

fn files_in(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_in(&entry.path()) } else { 1 }).sum()
}

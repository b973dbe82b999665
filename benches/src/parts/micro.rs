//! The benchmarks of single functions, which criterion runs: their figures beside all others.
//!
//! `cargo bench -p mooring-benches --bench engine` runs one of them by hand.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mooring_tests::hosts::{Failure, Result};
use serde_json::Value;

use super::Plan;
use crate::figure::Figure;
use crate::report::Report;

/// Runs the programs that `MOORING_CRITERION` names, separated by blanks, and reads what they found.
///
/// # Errors
/// It names none, or one of them fails.
pub fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let programs = env::var("MOORING_CRITERION").unwrap_or_default();
    let programs: Vec<PathBuf> = programs.split_whitespace().map(PathBuf::from).collect();
    if programs.is_empty() {
        let why = "MOORING_CRITERION names no program of criterion; benches/run sets it";
        return Err(Failure::Wrong(why.into()));
    }
    let home = tempfile::tempdir().map_err(Failure::io("a directory for criterion"))?;
    for program in programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        report.progress(&format!("micro: {}", name.split('-').next().unwrap_or_default()));
        let output = Command::new(&program)
            .args(["--bench", "--noplot", plan.row.as_str()])
            .env("CRITERION_HOME", home.path())
            .stdin(Stdio::null())
            .output()
            .map_err(Failure::io(program.display().to_string()))?;
        if !output.status.success() {
            return Err(Failure::Command {
                place: "machine".into(),
                command: program.display().to_string(),
                code: output.status.code().unwrap_or(-1),
                printed: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
    }
    for (name, nanoseconds) in estimates(home.path())? {
        let (group, function) = name.split_once('/').unwrap_or((&name, ""));
        let (value, unit) = readable(nanoseconds);
        report.add(Figure {
            part: "micro",
            name: function.into(),
            target: group.into(),
            value,
            unit,
            floor: None,
            goal: None,
            processor_us: None,
            command: None,
        });
    }
    Ok(())
}

fn readable(nanoseconds: f64) -> (f64, &'static str) {
    match nanoseconds {
        short if short < 1e3 => (short, "ns"),
        short if short < 1e6 => (short / 1e3, "us"),
        long => (long / 1e6, "ms"),
    }
}

/// `group/function` and the median in nanoseconds, from criterion's `new/benchmark.json` and
/// `new/estimates.json`.
fn estimates(home: &Path) -> Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    for group in folders(home) {
        for function in folders(&group) {
            let read = |file: &str| -> Result<Value> {
                let path = function.join("new").join(file);
                let text =
                    fs::read_to_string(&path).map_err(Failure::io(path.display().to_string()))?;
                serde_json::from_str(&text).map_err(|error| Failure::Unreadable {
                    what: path.display().to_string(),
                    because: error.to_string(),
                })
            };
            if !function.join("new").is_dir() {
                continue;
            }
            let named = read("benchmark.json")?;
            let median = read("estimates.json")?["median"]["point_estimate"].as_f64();
            if let (Some(name), Some(median)) = (named["full_id"].as_str(), median) {
                found.insert(name.to_owned(), median);
            }
        }
    }
    Ok(found)
}

fn folders(within: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(within).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

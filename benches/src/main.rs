//! `mooring-bench [--rounds N] [--runs N] [--seconds S] [--json FILE] [PART[:ROW]]...`: measures parts of the
//! benchmark, all without names, and prints a table. `benches/run` builds what it needs.

use std::path::PathBuf;
use std::process::ExitCode;

use mooring_benches::parts::{PARTS, Part, Plan};
use mooring_benches::report::Report;

/// What the command line asks for.
struct Asked {
    parts: Vec<(&'static Part, Plan)>,
    json: PathBuf,
}

fn main() -> ExitCode {
    let asked = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!(
                "{why}\n\nusage: mooring-bench [--rounds N] [--runs N] [--seconds S] [--json FILE] [PART[:ROW]]..."
            );
            PARTS.iter().for_each(|part| eprintln!("  {:<10} {}", part.name, part.about));
            return ExitCode::from(2);
        }
    };
    let mut report = Report::begin();
    for (part, plan) in &asked.parts {
        report.progress(&format!("{}: {}", part.name, part.about));
        if let Err(failure) = (part.run)(plan, &mut report) {
            report.failed(format!("{}: {failure}", part.name));
        }
        // After each part, so that a later one that hangs takes nothing away.
        if let Err(error) = report.write(&asked.json) {
            eprintln!("{}: {error}", asked.json.display());
            return ExitCode::FAILURE;
        }
    }
    report.print();
    println!("figures: {}", asked.json.display());
    if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut plan = Plan { row: String::new(), rounds: 3, runs: 10, seconds: 2 };
    let mut json = PathBuf::from("target/bench/bench.json");
    let mut names = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
        match argument.as_str() {
            "--rounds" => plan.rounds = number(value()?)?.max(1) as usize,
            "--runs" => plan.runs = number(value()?)?.max(1) as usize,
            "--seconds" => plan.seconds = number(value()?)?.max(1),
            "--json" => json = value()?.into(),
            name => names.push(name.to_owned()),
        }
    }
    if names.is_empty() {
        names = PARTS.iter().map(|part| part.name.to_owned()).collect();
    }
    let mut parts = Vec::new();
    for name in names {
        let (name, row) = name.split_once(':').unwrap_or((&name, ""));
        let part = PARTS.iter().find(|part| part.name == name);
        let part = part.ok_or_else(|| format!("there is no part {name}"))?;
        parts.push((part, Plan { row: row.into(), ..plan.clone() }));
    }
    Ok(Asked { parts, json })
}

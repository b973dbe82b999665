//! What `make test` needs of the hosts harness outside of a test.
//!
//! ```text
//! hosts check          ends with 0 if this machine can run several hosts, else says what is missing
//! hosts sweep          removes what killed test runs left
//! hosts sweep DIR      ends and removes all that a run of tests left in or below its directory
//! ```

use std::env;
use std::path::Path;
use std::process::ExitCode;

use mooring_tests::hosts::{Swept, missing, sweep, sweep_directory};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let swept = match arguments[..] {
        ["check"] => return check(),
        ["sweep"] => sweep(),
        ["sweep", directory] => sweep_directory(Path::new(directory)),
        _ => {
            eprintln!("usage: hosts check | hosts sweep [DIR]");
            return ExitCode::from(2);
        }
    };
    match swept {
        Ok(swept) => tell(&swept),
        Err(failure) => {
            eprintln!("hosts: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> ExitCode {
    let missing = missing();
    missing.iter().for_each(|what| println!("{what}"));
    if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(swept: &Swept) -> ExitCode {
    swept.removed.iter().for_each(|what| println!("swept up: {what}"));
    swept.left.iter().for_each(|what| eprintln!("could not be removed: {what}"));
    if swept.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

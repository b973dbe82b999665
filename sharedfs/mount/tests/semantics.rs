//! The user's contract, executed: every example of `sharedfs/SEMANTICS.md`, word for word.

#![allow(clippy::disallowed_methods, reason = "tests of processes run in real time")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod rig;

use std::process::Command;

use rig::Rig;

const CONTRACT: &str = include_str!("../../SEMANTICS.md");

/// One command with what it prints.
struct Step {
    mount: usize,
    command: String,
    prints: String,
}

/// All commands of all examples, in order.
fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in CONTRACT.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
            continue;
        }
        let prompt = line.split_once("$ ").filter(|(host, _)| ["A", "B"].contains(host));
        match prompt {
            _ if !inside => {}
            Some((host, command)) => steps.push(Step {
                mount: usize::from(host == "B"),
                command: command.to_owned(),
                prints: String::new(),
            }),
            None => {
                let step = steps.last_mut().expect("a command stands before what it prints");
                step.prints.push_str(line);
                step.prints.push('\n');
            }
        }
    }
    steps
}

#[test]
fn every_example_is_true() {
    let Some(rig) = Rig::start(2) else { return };
    let steps = steps();
    assert!(steps.len() > 20, "the examples are there");
    for step in steps {
        // From within a command on A, something is done on B.
        let ssh = format!("ssh_B() (cd '{}' && \"$@\")", rig.root(1).display());
        let output = Command::new("bash")
            .arg("-c")
            .arg(format!("exec 2>&1; {ssh}; {}", step.command))
            .env("LC_ALL", "C.UTF-8")
            .current_dir(rig.root(step.mount))
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(printed, step.prints, "{}", step.command);
    }
}

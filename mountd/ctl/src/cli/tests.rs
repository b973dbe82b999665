//! Every command of the CLI is understood, and what can't be meant is refused with what to type.

use clap::CommandFactory;
use clap::error::ErrorKind;
use mooring_api::{Backend, ByteSize, Class, ClassChoice, FileSystem, IoTimeout};

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
}

fn refused(line: &str) -> String {
    match parse(line) {
        Ok(command) => panic!("{line}: {command:?}"),
        Err(error) => {
            assert_eq!(error.exit_code(), 2, "{line}");
            error.to_string()
        }
    }
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_is_understood() {
    for line in [
        "mountctl status",
        "mountctl cluster create",
        "mountctl cluster token",
        "mountctl cluster token --ttl 10m --uses 3",
        "mountctl cluster join 10.0.0.1:7700 --token T",
        "mountctl cluster join 10.0.0.1:7700 --token-file F",
        "mountctl cluster voters 3",
        "mountctl cluster voters auto",
        "mountctl cluster ca",
        "mountctl token create ci",
        "mountctl token create ci --rights force --for-ever",
        "mountctl token create ci --rights operate --ttl 30d",
        "mountctl token ls",
        "mountctl token rm ci",
        "mountctl --host 10.0.0.1:7700 --token-file T --ca C volume ls",
        "mountctl --host 10.0.0.1:7700 --token-file T --ca C cluster join 10.0.0.2:7700 --token-file F",
        "mountctl node ls",
        "mountctl node ls --json",
        "mountctl node inspect alpha",
        "mountctl node label alpha zone=east rack=3",
        "mountctl node label alpha --remove zone",
        "mountctl node drain alpha",
        "mountctl node drain alpha --undo",
        "mountctl node drain alpha --no-wait",
        "mountctl node rm alpha",
        "mountctl node rm alpha --force",
        "mountctl pool add /pool",
        "mountctl pool add /pool --size 100G --class high --force",
        "mountctl pool ls",
        "mountctl pool inspect 3",
        "mountctl pool inspect /pool",
        "mountctl pool rm 3 --force",
        "mountctl volume create db",
        "mountctl volume create db --size 10G --replicas 3 --fs xfs --class low --node a --node b --label k=v --label l=w",
        "mountctl volume ls",
        "mountctl --json volume ls",
        "mountctl volume inspect db",
        "mountctl volume inspect db --follow",
        "mountctl volume resize db 20G",
        "mountctl volume set db replicas=2 min_in_sync=1 class=any replace_after=5m io_timeout=none label.a=b label.c=",
        "mountctl volume accept-loss db --from beta",
        "mountctl volume accept-loss db --from beta --force",
        "mountctl volume rm db",
        "mountctl volume rm db --force",
        "mountctl attach db",
        "mountctl attach db --backend loop --read-only --force",
        "mountctl detach db",
        "mountctl detach db --force",
        "mountctl mount db /mnt",
        "mountctl mount db /mnt -o ro,noatime -o discard --backend nbd --force",
        "mountctl umount db",
        "mountctl umount /mnt",
        "mountctl umount --all --force",
        "mountctl events",
        "mountctl events --follow --after 7",
        "mountctl decode /pool/superblock",
        "mountctl completion bash",
        "mountctl completion zsh",
        "mountctl completion fish",
        "mountctl status --socket /tmp/s --timeout 5s --json",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn values_arrive_as_typed() {
    let line = "mountctl volume create db --size 1.5T --fs raw --class medium --label k=v";
    let Ok(Command::Volume(VolumeCommand::Create(args))) = parse(line) else { panic!("{line}") };
    assert_eq!(args.size, Some(ByteSize(3 << 39)));
    assert_eq!((args.fs, args.class), (Some(FileSystem::Raw), Some(Class::Medium)));
    let line = "mountctl volume set db class=low io_timeout=30s";
    let Ok(Command::Volume(VolumeCommand::Set { settings, .. })) = parse(line) else {
        panic!("{line}")
    };
    assert_eq!(settings[0], Setting::Class(ClassChoice::Low));
    assert_eq!(settings[1], Setting::IoTimeout(IoTimeout::After(Span::from_seconds(30))));
}

#[test]
fn every_word_of_a_choice_is_one_of_the_api() {
    for class in CLASSES {
        parse(&format!("mountctl pool add /p --class {class}")).unwrap();
    }
    for fs in FILE_SYSTEMS {
        parse(&format!("mountctl volume create db --fs {fs}")).unwrap();
    }
    for backend in BACKENDS {
        let line = format!("mountctl attach db --backend {backend}");
        let Ok(Command::Attach(args)) = parse(&line) else { panic!("{line}") };
        assert_eq!(args.backend.as_ref().map(Backend::to_string).as_deref(), Some(*backend));
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (line, says) in [
        ("mountctl volume create a/b", "begin with a letter or digit"),
        ("mountctl volume create db --size ten", "10G"),
        ("mountctl volume create db --size 10X", "unit"),
        ("mountctl volume create db --replicas 0", "0"),
        ("mountctl volume create db --fs ntfs", "ext4"),
        ("mountctl volume create db --label k", "key=value"),
        ("mountctl volume set db", "KEY=VALUE"),
        ("mountctl volume set db size=5G", "there are replicas"),
        ("mountctl volume set db replicas=many", "whole number"),
        ("mountctl volume set db replace_after=10", "unit"),
        ("mountctl volume set db class=fast", "high, medium, low or any"),
        ("mountctl volume accept-loss db", "--from"),
        ("mountctl node label alpha", "KEY=VALUE"),
        ("mountctl node label alpha zone", "key=value"),
        ("mountctl cluster join 10.0.0.1:7700", "--token"),
        ("mountctl cluster join 10.0.0.1:7700 --token T --token-file F", "cannot be used with"),
        ("mountctl cluster token --uses 0", "0"),
        ("mountctl cluster voters 2", "1, 3, auto"),
        ("mountctl token create ci --rights root", "read, operate, force"),
        ("mountctl token create a/b", "begin with a letter or digit"),
        ("mountctl token create ci --ttl 1h --for-ever", "cannot be used with"),
        ("mountctl --host 10.0.0.1:7700 --socket /s status", "cannot be used with"),
        ("mountctl umount", "NAME|DIR"),
        ("mountctl umount db --all", "cannot be used with"),
        ("mountctl status --timeout 5", "unit"),
        ("mountctl completion tcsh", "bash"),
        ("mountctl volumes", "volume"),
    ] {
        let error = refused(line);
        assert!(error.contains(says), "{line}: {error}");
    }
}

/// Every command below `command`, with the words that lead to it.
fn all(command: &clap::Command, words: &str) -> Vec<(String, clap::Command)> {
    let mut found = vec![(words.to_owned(), command.clone())];
    for sub in command.get_subcommands() {
        found.extend(all(sub, &format!("{words} {}", sub.get_name())));
    }
    found
}

#[test]
fn help_explains_every_command_and_argument() {
    for (words, command) in all(&Cli::command(), "mountctl") {
        assert!(command.get_about().is_some(), "{words}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{words}: {}", argument.get_id());
        }
        let help = parse(&format!("{words} --help")).unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp, "{words}");
    }
    let help = Cli::command().render_help().to_string();
    assert!(help.contains("Exit codes:") && help.contains("Examples:"), "{help}");
    let about = help.lines().find(|line| line.trim_start().starts_with("status ")).unwrap();
    assert!(about.contains("Health in one line"), "{about}");
}

#[test]
fn exit_codes_in_the_help_are_those_of_the_kinds() {
    for kind in mooring_api::ErrorKind::ALL {
        let code = kind.exit_code().to_string();
        assert!(AFTER_HELP.contains(&format!("  {code}  ")), "{kind}: {code}");
    }
}

//! `mount.mooring`: what mount(8) calls for a line of fstab such as
//!
//! ```text
//!   db  /srv/db  mooring  _netdev,noatime  0 0
//! ```
//!
//! It is called as `mount.mooring NAME DIR [-sfnv] [-o OPTIONS] [-t TYPE]` and ends with mount(8)'s
//! own exit codes: 0, 1 for a wrong call, 32 for a mount that failed.
//!
//! At boot the daemon, or the cluster's quorum, may come later than we do: a daemon that isn't there
//! is asked again for [`DEFAULT_WAIT`], or `-o wait=T`. Whatever the daemon refuses is
//! final at once.

// A shell: how long it waits at boot is real time.
#![allow(clippy::disallowed_methods)]

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mooring_api::{Client, ErrorKind, MountVolume, NameError, Span, VolumeName};
use tokio::time::MissedTickBehavior;

use crate::failure::Failure;
use crate::mount_options::{MountOptions, OptionsError};
use crate::output::failure_text;
use crate::run::{Place, absolute};

/// How long a daemon or quorum that isn't there is waited for: as long as systemd gives a mount.
const DEFAULT_WAIT: Duration = Duration::from_secs(80);
/// How often it is asked again.
const RETRY_EVERY: Duration = Duration::from_millis(300);

/// mount(8): incorrect invocation or permissions.
const WRONG_CALL: u8 = 1;
/// mount(8): mount failure.
const MOUNT_FAILED: u8 = 32;

/// A call, understood.
#[derive(Debug, PartialEq, Eq)]
struct HelperCall {
    volume: VolumeName,
    dir: PathBuf,
    options: MountOptions,
    /// `-f`: all but the mount itself.
    fake: bool,
    /// `-v`: say what is done.
    verbose: bool,
}

/// Why a call can't be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum CallError {
    #[error("usage: mount.mooring NAME DIR [-sfnv] [-o OPTIONS] [-t TYPE]")]
    Usage,
    #[error("unknown flag {0:?}")]
    UnknownFlag(char),
    #[error("-{0} needs a value")]
    NoValue(char),
    #[error("-N is not supported: mount inside the namespace, by a mountd that runs in it")]
    Namespace,
    #[error("an argument is not UTF-8")]
    NotText,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Options(#[from] OptionsError),
}

/// Whether this process was started as `mount.mooring`.
pub fn is_called(argv0: Option<&OsString>) -> bool {
    argv0.and_then(|path| Path::new(path).file_name()) == Some(OsStr::new("mount.mooring"))
}

/// Does what mount(8) asks for, and says on stderr why not.
pub async fn main(arguments: &[OsString]) -> ExitCode {
    let call = match parse(arguments) {
        Ok(call) => call,
        Err(error) => {
            say(&error.to_string());
            return ExitCode::from(WRONG_CALL);
        }
    };
    let what = format!("{} on {}", call.volume, call.dir.display());
    if call.fake {
        if call.verbose {
            say(&format!("{what} not mounted (-f)"));
        }
        return ExitCode::SUCCESS;
    }
    match mount(&call).await {
        Ok(()) => {
            if call.verbose {
                say(&format!("{what} mounted"));
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say(&format!("{what}: {}", failure_text(&failure)));
            ExitCode::from(MOUNT_FAILED)
        }
    }
}

fn say(text: &str) {
    // There is nowhere to say that stderr is closed.
    let _ = writeln!(std::io::stderr(), "mount.mooring: {text}");
}

fn parse(arguments: &[OsString]) -> Result<HelperCall, CallError> {
    let mut options = MountOptions::default();
    let (mut fake, mut verbose, mut places) = (false, false, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().ok_or(CallError::NotText)?;
        let Some(flags) = text.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
            places.push(text);
            continue;
        };
        for (at, flag) in flags.char_indices() {
            match flag {
                'f' => fake = true,
                'v' => verbose = true,
                // -s: tolerate options that the file system doesn't know; -n: no mtab.
                's' | 'n' => {}
                'o' | 't' | 'N' => {
                    // The value is the rest of this argument, or the next one.
                    let rest = &flags[at + 1..];
                    let value = match rest.is_empty() {
                        true => arguments.next().and_then(|value| value.to_str()),
                        false => Some(rest),
                    };
                    let value = value.ok_or(CallError::NoValue(flag))?;
                    match flag {
                        'o' => options.add(value)?,
                        'N' => return Err(CallError::Namespace),
                        _ => {}
                    }
                    break;
                }
                other => return Err(CallError::UnknownFlag(other)),
            }
        }
    }
    let [volume, dir] = places[..] else { return Err(CallError::Usage) };
    let volume = VolumeName::new(volume)?;
    Ok(HelperCall { volume, dir: dir.into(), options, fake, verbose })
}

async fn mount(call: &HelperCall) -> Result<(), Failure> {
    let request = MountVolume {
        volume: call.volume.clone(),
        dir: absolute(&call.dir)?,
        options: call.options.passed.clone(),
        read_only: call.options.read_only,
        backend: call.options.backend,
        force: false,
    };
    let client = Client::new(Place::default().endpoint()?);
    let limit = call.options.wait.unwrap_or(DEFAULT_WAIT);
    let (began, mut said) = (Instant::now(), false);
    let mut ticks = tokio::time::interval(RETRY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let error = match client.mount(&request).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let may_come = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Retry);
        if !may_come || began.elapsed() >= limit {
            return Err(error.into());
        }
        if !said {
            say(&format!("{error}; trying for {}", Span::from(limit)));
            said = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<HelperCall, CallError> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn the_program_knows_its_names() {
        for name in ["mount.mooring", "/sbin/mount.mooring"] {
            assert!(is_called(Some(&name.into())));
        }
        for name in ["mountctl", "/usr/bin/mountctl", "/mount.mooring/mountctl", ""] {
            assert!(!is_called(Some(&name.into())));
        }
    }

    #[test]
    fn what_mount_passes_is_understood() {
        let call = parse_words("db /mnt -o rw,_netdev,noatime").unwrap();
        assert_eq!((call.volume.as_str(), call.dir.as_path()), ("db", Path::new("/mnt")));
        assert_eq!(call.options.passed, ["noatime"]);
        let call = parse_words("db /mnt -sfnv -o ro -oexec -t mooring").unwrap();
        assert!(call.fake && call.verbose && call.options.read_only);
        assert_eq!(call.options.passed, ["exec"]);
        let call = parse_words("-n db -fv /mnt").unwrap();
        assert!(call.fake && call.verbose);
    }

    #[test]
    fn wrong_calls_are_refused() {
        assert_eq!(parse_words("db"), Err(CallError::Usage));
        assert_eq!(parse_words("db /mnt more"), Err(CallError::Usage));
        assert_eq!(parse_words("db /mnt -x"), Err(CallError::UnknownFlag('x')));
        assert_eq!(parse_words("db /mnt -o"), Err(CallError::NoValue('o')));
        assert_eq!(parse_words("db /mnt -N /proc/1/ns/mnt"), Err(CallError::Namespace));
        assert!(matches!(parse_words("a/b /mnt"), Err(CallError::Name(_))));
        assert!(matches!(parse_words("db /mnt -o remount"), Err(CallError::Options(_))));
    }
}

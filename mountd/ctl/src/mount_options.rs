//! The comma list behind `-o`: what goes to the file system, what is for us, what is for mount(8)
//! alone.
//!
//! Our own options don't begin with `x-`: mount(8) keeps those from its helpers.

use std::time::Duration;

use mooring_api::{Backend, Span};

/// What mount(8), fstab or systemd mean by themselves; nothing that a mount call could use.
const FOR_OTHERS: [&str; 13] = [
    "_netdev", "auto", "comment", "defaults", "group", "noauto", "nofail", "nouser", "owner", "rw",
    "user", "users", "nousers",
];

/// The options of one mount, sorted out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// For the mount call, in the order given: `noatime`, `discard`...
    pub passed: Vec<String>,
    /// `ro`; the last of `ro` and `rw` counts.
    pub read_only: bool,
    /// `backend=B`.
    pub backend: Option<Backend>,
    /// `wait=T`: how long to wait for a daemon or quorum that isn't there yet.
    pub wait: Option<Duration>,
}

/// Why options can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// `backend=` something else.
    #[error("mount option backend={value} is unknown: use ublk, nbd, loop or nbd-socket")]
    UnknownBackend {
        /// What was given.
        value: String,
    },
    /// `wait=` no duration.
    #[error("mount option wait={value}: {source}")]
    Wait {
        /// What was given.
        value: String,
        /// What is wrong with it.
        source: mooring_api::SpanError,
    },
    /// An option that asks for something other than a mount of a volume.
    #[error(
        "mount option {option} can't be used with a volume's name: give the device or \
        directory (mount -i -o {option},... DIR)"
    )]
    NotHere {
        /// Which.
        option: String,
    },
}

impl MountOptions {
    /// Takes in one more comma list.
    ///
    /// # Errors
    /// [`OptionsError`] at the first option that can't be used.
    pub fn add(&mut self, list: &str) -> Result<(), OptionsError> {
        for option in list.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "ro" => self.read_only = true,
                "rw" => self.read_only = false,
                "backend" => self.backend = Some(backend(value)?),
                "wait" => self.wait = Some(wait(value)?),
                "bind" | "rbind" | "move" | "remount" => {
                    return Err(OptionsError::NotHere { option: name.to_owned() });
                }
                _ if FOR_OTHERS.contains(&name) => {}
                _ if name.starts_with("x-") || name.starts_with("X-") => {}
                _ => self.passed.push(option.to_owned()),
            }
        }
        Ok(())
    }
}

fn backend(value: &str) -> Result<Backend, OptionsError> {
    match value {
        "ublk" => Ok(Backend::Ublk),
        "nbd" => Ok(Backend::Nbd),
        "loop" => Ok(Backend::Loop),
        "nbd-socket" => Ok(Backend::NbdSocket),
        _ => Err(OptionsError::UnknownBackend { value: value.to_owned() }),
    }
}

fn wait(value: &str) -> Result<Duration, OptionsError> {
    let span: Result<Span, _> = value.parse();
    span.map(Span::duration)
        .map_err(|source| OptionsError::Wait { value: value.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<MountOptions, OptionsError> {
        let mut options = MountOptions::default();
        options.add(list)?;
        Ok(options)
    }

    #[test]
    fn what_is_for_others_is_passed_over() {
        let list = "rw,_netdev,nofail,x-systemd.automount,X-mount.mkdir,noatime,,user,commit=30";
        let options = parse(list).unwrap();
        assert_eq!(options.passed, ["noatime", "commit=30"]);
        assert!(!options.read_only);
    }

    #[test]
    fn the_last_of_ro_and_rw_counts() {
        assert!(parse("rw,ro").unwrap().read_only);
        assert!(!parse("ro,rw").unwrap().read_only);
    }

    #[test]
    fn our_own_options_are_taken_out() {
        let options = parse("backend=nbd,wait=5s,x-other=1").unwrap();
        assert_eq!(options.backend, Some(Backend::Nbd));
        assert_eq!(options.wait, Some(Duration::from_secs(5)));
        assert!(options.passed.is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(
            parse("backend=tape")
                .unwrap_err()
                .to_string()
                .contains("ublk, nbd, loop or nbd-socket")
        );
        assert!(parse("wait=5").unwrap_err().to_string().contains("unit"));
        assert!(matches!(parse("ro,remount"), Err(OptionsError::NotHere { .. })));
    }
}

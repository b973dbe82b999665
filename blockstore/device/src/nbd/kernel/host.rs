//! All volumes of one daemon that are devices of the kernel's NBD client.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::control::{Control, Making};
use super::device::{KernelNbdDevice, Line, Shared, keep};
use super::sysfs;
use crate::device::check_name;
use crate::holder::{HolderClient, HolderError, Refusal};
use crate::io::BlockIo;
use crate::nbd::export::Export;
use crate::nbd::proto::export::flags;
use crate::{Device, DeviceError, DeviceHost, DeviceKind, Swept, users};

/// What names in the holder begin with; no other kind's do.
const HELD: &str = "kernel-nbd/";

/// What identifiers in the kernel begin with.
const IDENTIFIER: &str = "mooring";

/// The version of what is stored in the holder; another one is not resumed.
const VERSION: u32 = 1;

/// What the holder stores for the next daemon.
#[derive(Serialize, Deserialize)]
struct Blob {
    version: u32,
    index: u32,
    read_only: bool,
    note: Vec<u8>,
}

impl Blob {
    fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("numbers and bytes always encode")
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok().filter(|blob: &Self| blob.version == VERSION)
    }
}

/// Where a daemon makes devices of the kernel's NBD client. Clones share everything.
#[derive(Clone)]
pub struct KernelNbdHost {
    /// What tells our devices from those of other daemons of this machine.
    place: PathBuf,
    holder: Arc<Mutex<Option<Arc<HolderClient>>>>,
    /// Names in use by this process.
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl KernelNbdHost {
    /// Devices of the daemon whose state lies at `place`. Without a holder nobody resumes them.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] if the kernel has no NBD client.
    pub fn new(place: &Path, holder: Option<Arc<HolderClient>>) -> Result<Self, DeviceError> {
        Control::open().map_err(unsupported)?;
        let (place, holder) = (place.to_owned(), Arc::new(Mutex::new(holder)));
        Ok(Self { place, holder, names: Arc::default() })
    }

    fn holder(&self) -> Option<Arc<HolderClient>> {
        self.holder.lock().clone()
    }

    fn identifier(&self, name: &str) -> String {
        format!("{IDENTIFIER}:{}:{name}", self.place.display())
    }

    fn attach_now(
        &self,
        name: &str,
        io: Arc<dyn BlockIo>,
        read_only: bool,
        note: Vec<u8>,
    ) -> Result<KernelNbdDevice, DeviceError> {
        let bytes = io.size_bytes();
        if bytes == 0 || !bytes.is_multiple_of(4096) {
            return Err(DeviceError::Size { bytes });
        }
        let identifier = self.identifier(name);
        let patience = io.io_timeout();
        let export = Export::new(name, io, read_only);
        let making = Making {
            identifier: &identifier,
            size_bytes: bytes,
            flags: flags(read_only),
            patience,
        };
        let mut control = Control::open().map_err(unsupported)?;
        let system = |source| DeviceError::system("making", "/dev/nbd", source);
        let (line, theirs) = Line::new(&export).map_err(system)?;
        let index = control.connect(making, &theirs).map_err(system)?;
        let blob = Blob { version: VERSION, index, read_only, note };
        let made = self.serve(name, blob, export, line);
        if made.is_err() {
            self.undo(name, index, &mut control);
        }
        made
    }

    fn serve(
        &self,
        name: &str,
        blob: Blob,
        export: Arc<Export>,
        line: Line,
    ) -> Result<KernelNbdDevice, DeviceError> {
        let (held, index, blob) = (format!("{HELD}{name}"), blob.index, blob.encode());
        let holder = self.holder();
        if let Some(holder) = &holder {
            keep(holder, &held, &blob)?;
        }
        let shared = Shared {
            patience: Mutex::new(export.io_timeout()),
            name: name.to_owned(),
            held,
            index,
            identifier: self.identifier(name),
            export,
            blob,
            holder: Mutex::new(holder),
            names: Arc::clone(&self.names),
            detached: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            connected: AtomicBool::new(true),
        };
        KernelNbdDevice::start(shared, line)
    }

    fn undo(&self, name: &str, index: u32, control: &mut Control) {
        if let Some(holder) = self.holder()
            && let Err(error) = holder.forget(&format!("{HELD}{name}"))
        {
            tracing::warn!(device = name, %error, "a failed attach leaves something in the holder");
        }
        if let Err(error) = control.disconnect(index) {
            tracing::warn!(device = name, %error, "a failed attach leaves /dev/nbd{index}");
        }
    }

    /// What the holder has under a name; this connection owns it from then on.
    fn take(&self, name: &str) -> Result<Blob, DeviceError> {
        let not_held = || DeviceError::NotHeld { name: name.to_owned() };
        let holder = self.holder().ok_or_else(not_held)?;
        let taken = holder.take(&format!("{HELD}{name}")).map_err(|error| match error {
            HolderError::Refused(Refusal::Unknown) => not_held(),
            HolderError::Refused(Refusal::Owned) => DeviceError::Owned { name: name.to_owned() },
            other => other.into(),
        })?;
        Blob::decode(&taken.blob)
            .ok_or_else(|| gone(name, "what this version can read of its note"))
    }

    fn resume_now(&self, name: &str, io: Arc<dyn BlockIo>) -> Result<KernelNbdDevice, DeviceError> {
        let blob = self.take(name)?;
        let bytes = io.size_bytes();
        let (index, export) = (blob.index, Export::new(name, io, blob.read_only));
        let shared = Shared {
            patience: Mutex::new(export.io_timeout()),
            name: name.to_owned(),
            held: format!("{HELD}{name}"),
            index,
            identifier: self.identifier(name),
            export,
            blob: blob.encode(),
            holder: Mutex::new(self.holder()),
            names: Arc::clone(&self.names),
            detached: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            connected: AtomicBool::new(true),
        };
        if !shared.is_ours() {
            return Err(gone(name, "its device"));
        }
        let line = shared
            .reconnect()
            .map_err(|source| DeviceError::system("reconnecting", sysfs::node(index), source))?;
        let device = KernelNbdDevice::start(shared, line)?;
        // It works; whoever follows its size tries again.
        if device.size_bytes() < bytes
            && let Err(error) = device.grow()
        {
            tracing::warn!(device = name, %error, "the device keeps its size");
        }
        Ok(device)
    }
}

impl DeviceHost for KernelNbdHost {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Nbd
    }

    fn change_holder(&self, holder: Arc<HolderClient>) {
        *self.holder.lock() = Some(holder);
    }

    fn attach(
        &self,
        name: &str,
        io: Arc<dyn BlockIo>,
        read_only: bool,
        note: Vec<u8>,
    ) -> Result<Arc<dyn Device>, DeviceError> {
        check_name(name)?;
        let identifier = self.identifier(name);
        let all =
            sysfs::all().map_err(|source| DeviceError::system("reading", "/sys/block", source))?;
        if let Some((index, _)) = all.iter().find(|(_, found)| *found == identifier) {
            return Err(DeviceError::AlreadyAttached { path: sysfs::node(*index) });
        }
        let device = self.attach_now(name, io, read_only, note)?;
        tracing::info!(device = name, path = device.address(), "attached");
        self.names.lock().insert(name.to_owned());
        Ok(Arc::new(device))
    }

    fn held(&self) -> Result<Vec<(String, Vec<u8>)>, DeviceError> {
        let Some(holder) = self.holder() else { return Ok(Vec::new()) };
        let mut notes = Vec::new();
        for held in holder.list()?.into_iter().filter(|held| !held.owned) {
            let Some(name) = held.name.strip_prefix(HELD) else { continue };
            match self.take(name) {
                Ok(blob) => notes.push((name.to_owned(), blob.note)),
                // An entry that can't be read is found out, and cleared away, when it is resumed.
                Err(DeviceError::Gone { .. }) => notes.push((name.to_owned(), Vec::new())),
                Err(DeviceError::Owned { .. } | DeviceError::NotHeld { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(notes)
    }

    fn resume(&self, name: &str, io: Arc<dyn BlockIo>) -> Result<Arc<dyn Device>, DeviceError> {
        check_name(name)?;
        let device = self.resume_now(name, io)?;
        tracing::info!(device = name, path = device.address(), "resumed");
        self.names.lock().insert(name.to_owned());
        Ok(Arc::new(device))
    }

    fn abandon(&self, name: &str) -> Result<bool, DeviceError> {
        check_name(name)?;
        match self.take(name) {
            Ok(_) | Err(DeviceError::NotHeld { .. } | DeviceError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
        let lingering = self.end(&self.identifier(name))?;
        if let Some(holder) = self.holder() {
            holder.forget(&format!("{HELD}{name}"))?;
        }
        Ok(lingering)
    }

    fn sweep(&self) -> Result<Swept, DeviceError> {
        let held: Vec<String> = match self.holder() {
            Some(holder) => holder.list()?.into_iter().map(|held| held.name).collect(),
            None => Vec::new(),
        };
        let all =
            sysfs::all().map_err(|source| DeviceError::system("reading", "/sys/block", source))?;
        let ours = self.identifier("");
        let mut swept = Swept::default();
        for (_, identifier) in all {
            let Some(name) = identifier.strip_prefix(&ours) else { continue };
            if held.contains(&format!("{HELD}{name}")) || self.names.lock().contains(name) {
                continue;
            }
            match self.end(&identifier) {
                Ok(false) => swept.cleaned.push(name.to_owned()),
                Ok(true) => swept.lingering.push(name.to_owned()),
                Err(error) => swept.failed.push((name.to_owned(), error)),
            }
        }
        Ok(swept)
    }
}

impl KernelNbdHost {
    /// Ends the device of this identifier, if there is one: who waits for it gets an error. Says whether
    /// somebody still has it open.
    fn end(&self, identifier: &str) -> Result<bool, DeviceError> {
        let all =
            sysfs::all().map_err(|source| DeviceError::system("reading", "/sys/block", source))?;
        let Some((index, _)) = all.into_iter().find(|(_, found)| found == identifier) else {
            return Ok(false);
        };
        let path = sysfs::node(index);
        Control::open()
            .and_then(|mut control| control.disconnect(index))
            .map_err(|source| DeviceError::system("disconnecting", &path, source))?;
        let users = sysfs::numbers(index).map(|(major, minor)| users::of(&path, major, minor));
        Ok(users.is_ok_and(|users| !users.is_empty()))
    }
}

fn unsupported(source: io::Error) -> DeviceError {
    DeviceError::Unsupported {
        what: "the kernel's NBD client",
        advice: "load its module (`modprobe nbd`)",
        source,
    }
}

fn gone(name: &str, missing: &'static str) -> DeviceError {
    DeviceError::Gone { name: name.to_owned(), missing }
}

//! All volumes of one daemon that are served over NBD: a unix socket each, and one for all of them
//! over TCP.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};

use super::device::{NbdDevice, Parts};
use super::export::Export;
use super::handshake::{ExportInfo, Exports};
use super::listener::Listener;
use super::reception::Offer;
use crate::holder::{HolderClient, HolderError, Mode, Refusal};
use crate::io::BlockIo;
use crate::{Device, DeviceError, DeviceHost, DeviceKind, Swept};

/// What names in the holder begin with. No device's name has a slash in it: the other hosts' entries
/// can't be taken for ours, nor ours for theirs.
const HELD: &str = "nbd/";

/// Clients that may wait to be taken.
const BACKLOG: i32 = 64;

/// The version of what is stored in the holder; another one is not resumed.
const VERSION: u32 = 1;

/// What the holder stores beside a listening socket, for the next daemon.
#[derive(Serialize, Deserialize)]
struct Blob {
    version: u32,
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

/// Where a daemon serves volumes over NBD: a directory with a socket for each, and the holder. Clones
/// share everything.
///
/// The holder keeps the listening sockets. While a daemon is away, clients that connect wait for the
/// next one; those that were connected lose their connection, and what they had no answer to, which
/// is for them to send again.
#[derive(Clone)]
pub struct NbdHost {
    directory: PathBuf,
    holder: Arc<Mutex<Option<Arc<HolderClient>>>>,
    table: Arc<Table>,
}

/// Every export of a host, by name.
#[derive(Default)]
pub(super) struct Table(Mutex<BTreeMap<String, Arc<Export>>>);

/// The one export of a unix socket, which is the default there.
struct One(Arc<Export>);

/// A TCP socket that all exports of a host can be reached on, as long as this lives.
pub struct NbdTcp {
    address: SocketAddr,
    listener: Listener,
}

impl NbdHost {
    /// Sockets in `directory` (made, for root only). Without a holder they end with this process.
    ///
    /// # Errors
    /// [`DeviceError::System`] if the directory can't be made.
    pub fn new(directory: &Path, holder: Option<Arc<HolderClient>>) -> Result<Self, DeviceError> {
        let mut made = fs::DirBuilder::new();
        made.recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| DeviceError::system("making", directory, source))?;
        let directory = directory.to_owned();
        Ok(Self { directory, holder: Arc::new(Mutex::new(holder)), table: Arc::default() })
    }

    /// Serves all exports, those to come included, on a TCP address: with TLS, whose configuration
    /// says who is let in; without, anybody is.
    ///
    /// # Errors
    /// [`DeviceError::System`] if the address can't be had.
    pub fn listen(
        &self,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<NbdTcp, DeviceError> {
        let path = PathBuf::from(address.to_string());
        let begin = || -> io::Result<NbdTcp> {
            let socket = TcpListener::bind(address)?;
            let address = socket.local_addr()?;
            let offer: Arc<dyn Offer> = Arc::clone(&self.table) as _;
            let listener = Listener::start("tcp", OwnedFd::from(socket), offer, tls)?;
            Ok(NbdTcp { address, listener })
        };
        begin().map_err(|source| DeviceError::system("listening on", path, source))
    }

    fn holder(&self) -> Option<Arc<HolderClient>> {
        self.holder.lock().clone()
    }

    fn socket_of(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.sock"))
    }

    fn serve(
        &self,
        name: &str,
        io: Arc<dyn BlockIo>,
        blob: &Blob,
        socket: OwnedFd,
        holder: Option<Arc<HolderClient>>,
    ) -> Result<NbdDevice, DeviceError> {
        let path = self.socket_of(name);
        let export = Export::new(name, io, blob.read_only);
        let offer: Arc<dyn Offer> = Arc::new(One(Arc::clone(&export)));
        let listener = Listener::start(name, socket, offer, None)
            .map_err(|source| DeviceError::system("serving", &path, source))?;
        self.table.0.lock().insert(name.to_owned(), Arc::clone(&export));
        Ok(NbdDevice::new(Parts {
            name: name.to_owned(),
            held: format!("{HELD}{name}"),
            blob: blob.encode(),
            path,
            export,
            listener,
            holder: Mutex::new(holder),
            table: Arc::clone(&self.table),
        }))
    }

    fn attach_now(
        &self,
        name: &str,
        io: Arc<dyn BlockIo>,
        read_only: bool,
        note: &[u8],
    ) -> Result<NbdDevice, DeviceError> {
        crate::device::check_name(name)?;
        let path = self.socket_of(name);
        if self.table.0.lock().contains_key(name) {
            return Err(DeviceError::AlreadyAttached { path });
        }
        let bytes = io.size_bytes();
        if bytes == 0 || !bytes.is_multiple_of(4096) {
            return Err(DeviceError::Size { bytes });
        }
        let socket = listen_at(&path)
            .map_err(|source| DeviceError::system("listening at", &path, source))?;
        let blob = Blob { version: VERSION, read_only, note: note.to_owned() };
        let kept = self.keep(name, &blob, &socket);
        let device = kept.and_then(|holder| self.serve(name, io, &blob, socket, holder));
        if device.is_err() {
            self.undo(name);
        } else {
            tracing::info!(device = name, socket = %path.display(), "served over NBD");
        }
        device
    }

    fn keep(
        &self,
        name: &str,
        blob: &Blob,
        socket: &OwnedFd,
    ) -> Result<Option<Arc<HolderClient>>, DeviceError> {
        let Some(holder) = self.holder() else { return Ok(None) };
        let held = format!("{HELD}{name}");
        holder.keep(&held, &blob.encode(), &[socket.as_fd()], Mode::Keep)?;
        Ok(Some(holder))
    }

    fn undo(&self, name: &str) {
        if let Some(holder) = self.holder()
            && let Err(error) = holder.forget(&format!("{HELD}{name}"))
        {
            tracing::warn!(device = name, %error, "a failed attach leaves something in the holder");
        }
        let _ = fs::remove_file(self.socket_of(name));
    }

    /// What the holder has under a name; this connection owns it from then on.
    fn take(&self, name: &str) -> Result<(Blob, Option<OwnedFd>), DeviceError> {
        let not_held = || DeviceError::NotHeld { name: name.to_owned() };
        let holder = self.holder().ok_or_else(not_held)?;
        let taken = holder.take(&format!("{HELD}{name}")).map_err(|error| match error {
            HolderError::Refused(Refusal::Unknown) => not_held(),
            HolderError::Refused(Refusal::Owned) => DeviceError::Owned { name: name.to_owned() },
            other => other.into(),
        })?;
        let unreadable = DeviceError::Gone {
            name: name.to_owned(),
            missing: "what this version can read of its note",
        };
        let blob = Blob::decode(&taken.blob).ok_or(unreadable)?;
        Ok((blob, taken.fds.into_iter().next()))
    }
}

impl DeviceHost for NbdHost {
    fn kind(&self) -> DeviceKind {
        DeviceKind::NbdSocket
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
        Ok(Arc::new(self.attach_now(name, io, read_only, &note)?))
    }

    fn held(&self) -> Result<Vec<(String, Vec<u8>)>, DeviceError> {
        let Some(holder) = self.holder() else { return Ok(Vec::new()) };
        let mut notes = Vec::new();
        for held in holder.list()?.into_iter().filter(|held| !held.owned) {
            let Some(name) = held.name.strip_prefix(HELD) else { continue };
            match self.take(name) {
                Ok((blob, _)) => notes.push((name.to_owned(), blob.note)),
                // An entry that can't be read is found out, and cleared away, when it is resumed.
                Err(DeviceError::Gone { .. }) => notes.push((name.to_owned(), Vec::new())),
                Err(DeviceError::Owned { .. } | DeviceError::NotHeld { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(notes)
    }

    fn resume(&self, name: &str, io: Arc<dyn BlockIo>) -> Result<Arc<dyn Device>, DeviceError> {
        crate::device::check_name(name)?;
        let (blob, socket) = self.take(name)?;
        let path = self.socket_of(name);
        let (socket, holder) = match socket {
            Some(socket) if path.exists() => (socket, self.holder()),
            // Somebody has removed the socket: nobody can connect to the one that is kept.
            _ => {
                let socket = listen_at(&path)
                    .map_err(|source| DeviceError::system("listening at", &path, source))?;
                let holder = self.keep(name, &blob, &socket)?;
                (socket, holder)
            }
        };
        let device = self.serve(name, io, &blob, socket, holder)?;
        tracing::info!(device = name, socket = %path.display(), "served over NBD again");
        Ok(Arc::new(device))
    }

    fn abandon(&self, name: &str) -> Result<bool, DeviceError> {
        crate::device::check_name(name)?;
        match self.take(name) {
            Ok(_) | Err(DeviceError::NotHeld { .. } | DeviceError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
        let _ = fs::remove_file(self.socket_of(name));
        if let Some(holder) = self.holder() {
            holder.forget(&format!("{HELD}{name}"))?;
        }
        Ok(false)
    }

    fn sweep(&self) -> Result<Swept, DeviceError> {
        let held: Vec<String> = match self.holder() {
            Some(holder) => holder.list()?.into_iter().map(|held| held.name).collect(),
            None => Vec::new(),
        };
        let mut swept = Swept::default();
        let system = |source| DeviceError::system("reading", &self.directory, source);
        for entry in fs::read_dir(&self.directory).map_err(system)? {
            let file = entry.map_err(system)?.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".sock")) else {
                continue;
            };
            if held.contains(&format!("{HELD}{name}")) || self.table.0.lock().contains_key(name) {
                continue;
            }
            let path = self.socket_of(name);
            match fs::remove_file(&path) {
                Ok(()) => swept.cleaned.push(name.to_owned()),
                Err(source) => {
                    let error = DeviceError::system("removing", &path, source);
                    swept.failed.push((name.to_owned(), error));
                }
            }
        }
        Ok(swept)
    }
}

impl NbdTcp {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more clients; those that are served go on.
    pub fn stop(&self) {
        self.listener.close();
    }
}

impl Table {
    /// Takes an export away, if it is still the one of its name.
    pub(super) fn remove(&self, export: &Arc<Export>) {
        let mut table = self.0.lock();
        if table.get(export.name()).is_some_and(|found| Arc::ptr_eq(found, export)) {
            table.remove(export.name());
        }
    }
}

impl Exports for Table {
    fn names(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        self.0.lock().get(name).map(|export| export.info())
    }
}

impl Offer for Table {
    fn open(&self, name: &str) -> Option<Arc<Export>> {
        self.0.lock().get(name).cloned()
    }
}

impl Exports for One {
    fn names(&self) -> Vec<String> {
        vec![self.0.name().to_owned()]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        (name.is_empty() || name == self.0.name()).then(|| self.0.info())
    }
}

impl Offer for One {
    fn open(&self, name: &str) -> Option<Arc<Export>> {
        (name == self.0.name()).then(|| Arc::clone(&self.0))
    }
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    // Whatever lies there is a dead daemon's: the holder would have said so if it were a living one's.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

//! The holder's loop: one thread, one poll, one packet at a time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
    sockopt,
};

use super::HolderError;
use super::entry::Entry;
use super::fd_passing::{Received, receive, send};
use super::proto::{
    Answer, Ask, BLOB_MAX, FDS_MAX, MAX_WRITE, NAME_MAX, NAMES_MAX, Refusal, VERSION,
};

/// Most connections at a time; more wait in the kernel.
const CLIENTS_MAX: usize = 64;

/// Serves `socket` until it is asked to end. What it held is closed then.
///
/// # Errors
/// [`HolderError::AlreadyRunning`] if another one serves this socket, [`HolderError::Serve`] if the
/// socket can't be made.
pub fn run(socket: &Path) -> Result<(), HolderError> {
    let failed = |source: io::Error| HolderError::Serve { socket: socket.to_owned(), source };
    let _lock = lock(socket)?;
    let signals = catch_signals().map_err(failed)?;
    let listener = listen_at(socket).map_err(failed)?;
    spare_from_the_oom_killer();
    tracing::info!(socket = %socket.display(), pid = std::process::id(), "holding");
    let mut server = Server::default();
    let result = server.serve(&listener, &signals).map_err(failed);
    // Before the lock goes: the next holder makes a socket of its own.
    if let Err(error) = fs::remove_file(socket) {
        tracing::warn!(%error, "removing the holder's socket");
    }
    result
}

/// The file that only one holder of a socket can lock.
fn lock(socket: &Path) -> Result<OwnedFd, HolderError> {
    let failed = |source: io::Error| HolderError::Serve { socket: socket.to_owned(), source };
    let path = socket.with_extension("lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| failed(error.into()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(HolderError::AlreadyRunning { socket: socket.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// SIGTERM asks it to end, politely; a terminal's signals to the daemon's group are not for it.
fn catch_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

fn listen_at(socket: &Path) -> io::Result<OwnedFd> {
    // The lock is ours, so whatever lies there is a dead holder's.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&listener, &SocketAddrUnix::new(socket)?)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    listen(&listener, 16)?;
    Ok(listener)
}

/// It is small, and all devices of the node depend on it.
fn spare_from_the_oom_killer() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::debug!(%error, "the OOM killer can't be told to spare the holder");
    }
}

#[derive(Default)]
struct Server {
    entries: BTreeMap<String, Entry>,
    clients: BTreeMap<u64, Client>,
    connections: u64,
}

struct Client {
    socket: OwnedFd,
    /// Whether it has said Hello.
    greeted: bool,
}

/// What becomes of a client after a message.
enum Then {
    GoOn,
    Disconnect,
    End,
}

impl Server {
    fn serve(&mut self, listener: &OwnedFd, signals: &SignalFd) -> io::Result<()> {
        loop {
            let numbers: Vec<u64> = self.clients.keys().copied().collect();
            let (accepting, asked_to_end, ready) = self.wait(listener, signals, &numbers)?;
            for (number, ready) in numbers.into_iter().zip(ready) {
                if !ready {
                    continue;
                }
                match self.receive(number) {
                    Then::GoOn => {}
                    Then::Disconnect => self.disconnect(number),
                    Then::End => return Ok(()),
                }
            }
            if asked_to_end {
                while signals.read_signal()?.is_some() {}
                if self.entries.is_empty() {
                    return Ok(());
                }
                tracing::warn!(
                    names = self.entries.len(),
                    "asked to end by a signal, but devices depend on what is held"
                );
            }
            if accepting {
                self.accept(listener);
            }
        }
    }

    fn wait(
        &self,
        listener: &OwnedFd,
        signals: &SignalFd,
        numbers: &[u64],
    ) -> io::Result<(bool, bool, Vec<bool>)> {
        let of_listener =
            if numbers.len() < CLIENTS_MAX { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(listener, of_listener), PollFd::new(signals, PollFlags::IN)];
        fds.extend(
            numbers.iter().map(|number| PollFd::new(&self.clients[number].socket, PollFlags::IN)),
        );
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok((ready[0], ready[1], ready[2..].to_vec()))
    }

    fn accept(&mut self, listener: &OwnedFd) {
        let socket = match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(error) => return tracing::debug!(%error, "accepting a connection"),
        };
        match sockopt::socket_peercred(&socket) {
            Ok(peer) if peer.uid.is_root() => {
                self.connections += 1;
                self.clients.insert(self.connections, Client { socket, greeted: false });
            }
            Ok(peer) => {
                tracing::warn!(uid = peer.uid.as_raw(), "refused: only root may talk to the holder")
            }
            Err(error) => tracing::warn!(%error, "refused: nobody knows who it is"),
        }
    }

    fn disconnect(&mut self, number: u64) {
        self.clients.remove(&number);
        for entry in self.entries.values_mut() {
            if entry.owner == Some(number) {
                entry.owner = None;
            }
        }
    }

    fn receive(&mut self, number: u64) -> Then {
        let Some(client) = self.clients.get(&number) else { return Then::GoOn };
        let (ask, fds) = match receive::<Ask>(&client.socket, false) {
            Ok(Received::Message(ask, fds)) => (ask, fds),
            Ok(Received::Garbage) => {
                tracing::warn!("a client sent something that is no message, and is disconnected");
                return Then::Disconnect;
            }
            Ok(Received::Closed) => return Then::Disconnect,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Then::GoOn,
            Err(error) => {
                tracing::debug!(%error, "receiving from a client");
                return Then::Disconnect;
            }
        };
        if !client.greeted && !matches!(ask, Ask::Hello { .. }) {
            tracing::warn!("a client that has not said hello is disconnected");
            return Then::Disconnect;
        }
        let ending = matches!(ask, Ask::Stop { .. });
        let (answer, fds) = self.answer(number, ask, fds);
        let ends = ending && matches!(answer, Answer::Done);
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let sent =
            self.clients.get(&number).map(|client| send(&client.socket, &answer, &borrowed, false));
        match sent {
            _ if ends => Then::End,
            Some(Ok(())) => Then::GoOn,
            _ => Then::Disconnect,
        }
    }

    fn answer(&mut self, number: u64, ask: Ask, fds: Vec<OwnedFd>) -> (Answer, Vec<OwnedFd>) {
        let result = match ask {
            Ask::Hello { version } => {
                self.hello(number, version).map(|answer| (answer, Vec::new()))
            }
            Ask::Keep { name, blob, forward } => self.keep(number, name, blob, fds, forward),
            Ask::Update { name, blob } => {
                self.update(number, &name, blob).map(|()| (Answer::Done, Vec::new()))
            }
            Ask::Take { name } => self.take(number, &name),
            Ask::Forget { name } => self.forget(number, &name).map(|()| (Answer::Done, Vec::new())),
            Ask::List { after } => Ok((self.list(after), Vec::new())),
            Ask::Stop { force } if force || self.entries.is_empty() => {
                Ok((Answer::Done, Vec::new()))
            }
            Ask::Stop { .. } => Err(Refusal::Holding { names: self.entries.len() as u32 }),
        };
        result.unwrap_or_else(|refusal| (Answer::Refused(refusal), Vec::new()))
    }

    fn hello(&mut self, number: u64, version: u32) -> Result<Answer, Refusal> {
        if version != VERSION {
            return Err(Refusal::Version { spoken: VERSION });
        }
        if let Some(client) = self.clients.get_mut(&number) {
            client.greeted = true;
        }
        Ok(Answer::Hello { version: VERSION, pid: std::process::id() })
    }

    fn keep(
        &mut self,
        number: u64,
        name: String,
        blob: Vec<u8>,
        fds: Vec<OwnedFd>,
        forward: Option<u32>,
    ) -> Result<(Answer, Vec<OwnedFd>), Refusal> {
        if name.is_empty()
            || name.len() > NAME_MAX
            || blob.len() > BLOB_MAX
            || fds.is_empty()
            || fds.len() > FDS_MAX
        {
            return Err(Refusal::Bounds);
        }
        if forward.is_some_and(|max_write| !MAX_WRITE.contains(&max_write)) {
            return Err(Refusal::Bounds);
        }
        self.check_owner(number, &name)?;
        // Forwarding can't be begun twice: requests noted by the first would be lost.
        if self.entries.get(&name).is_some_and(Entry::is_forwarded) {
            return Err(Refusal::Owned);
        }
        let entry = Entry::new(blob, fds, forward, number).map_err(|_| Refusal::Resources)?;
        let streams = if entry.is_forwarded() {
            entry.hand_out().map_err(|_| Refusal::Resources)?
        } else {
            Vec::new()
        };
        tracing::info!(name, forwarding = forward.is_some(), "keeping");
        self.entries.insert(name, entry);
        Ok((Answer::Done, streams))
    }

    fn update(&mut self, number: u64, name: &str, blob: Vec<u8>) -> Result<(), Refusal> {
        if blob.len() > BLOB_MAX {
            return Err(Refusal::Bounds);
        }
        self.check_owner(number, name)?;
        self.entries.get_mut(name).ok_or(Refusal::Unknown)?.blob = blob;
        Ok(())
    }

    fn take(&mut self, number: u64, name: &str) -> Result<(Answer, Vec<OwnedFd>), Refusal> {
        self.check_owner(number, name)?;
        let entry = self.entries.get_mut(name).ok_or(Refusal::Unknown)?;
        let fds = match entry.hand_out() {
            Ok(fds) => fds,
            // The file system is gone: whoever takes it is told by having nothing to read from.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
            Err(_) => return Err(Refusal::Resources),
        };
        entry.owner = Some(number);
        tracing::info!(name, "handed back");
        Ok((Answer::Taken { blob: entry.blob.clone(), forward: entry.is_forwarded() }, fds))
    }

    fn forget(&mut self, number: u64, name: &str) -> Result<(), Refusal> {
        self.check_owner(number, name)?;
        self.entries.remove(name).map(drop).ok_or(Refusal::Unknown)?;
        tracing::info!(name, "keeping no longer");
        Ok(())
    }

    fn list(&self, after: Option<String>) -> Answer {
        let behind = |name: &String| after.as_ref().is_none_or(|after| name > after);
        let mut names = self.entries.iter().filter(|(name, _)| behind(name));
        let page: Vec<(String, bool)> = names
            .by_ref()
            .take(NAMES_MAX)
            .map(|(name, entry)| (name.clone(), entry.owner.is_some()))
            .collect();
        Answer::Names { more: names.next().is_some(), names: page }
    }

    fn check_owner(&self, number: u64, name: &str) -> Result<(), Refusal> {
        match self.entries.get(name).and_then(|entry| entry.owner) {
            Some(owner) if owner != number => Err(Refusal::Owned),
            _ => Ok(()),
        }
    }
}

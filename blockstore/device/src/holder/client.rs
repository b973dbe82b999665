//! The daemon's side of the holder's socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use super::HolderError;
use super::fd_passing::{Received, receive, send};
use super::proto::{Answer, Ask, Refusal, VERSION};

/// The holder answers at once; one that doesn't for this long is stopped or stuck.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A connection to the holder. What is kept or taken over it is owned by it, until it is dropped or
/// its process ends.
#[derive(Debug)]
pub struct HolderClient {
    path: PathBuf,
    socket: Mutex<OwnedFd>,
    pid: u32,
}

/// What the holder does with the descriptors it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It only keeps them.
    Keep,
    /// They are /dev/fuse, and it forwards their requests.
    Forward {
        /// The largest write in bytes, 8 KiB to 1 MiB.
        max_write: u32,
    },
}

/// A name in the holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The name.
    pub name: String,
    /// Whether a connection (this one, too) owns it.
    pub owned: bool,
}

/// What was handed back.
#[derive(Debug)]
pub struct Taken {
    /// What was stored beside it.
    pub blob: Vec<u8>,
    /// The descriptors, or the streams in their stead; none if what they led to is gone.
    pub fds: Vec<OwnedFd>,
    /// Whether they are streams, kept with [`Mode::Forward`].
    pub forwarded: bool,
}

impl HolderClient {
    /// Connects to the holder that listens at `path`.
    ///
    /// # Errors
    /// [`HolderError::NotRunning`] if none does.
    pub fn connect(path: &Path) -> Result<Self, HolderError> {
        let not_running =
            |source: io::Error| HolderError::NotRunning { socket: path.to_owned(), source };
        let open = || -> rustix::io::Result<OwnedFd> {
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_WAIT))?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| not_running(error.into()))?;
        let mut client = Self { path: path.to_owned(), socket: Mutex::new(socket), pid: 0 };
        match client.ask(&Ask::Hello { version: VERSION }, &[])? {
            (Answer::Hello { pid, .. }, _) => client.pid = pid,
            _ => return Err(unexpected()),
        }
        Ok(client)
    }

    /// The holder's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps descriptors (at most 16) under a name, in place of what it had. With [`Mode::Forward`]
    /// the streams that take their place are returned, else nothing.
    ///
    /// # Errors
    /// [`HolderError::Refused`] if another connection owns the name or something is too long.
    pub fn keep(
        &self,
        name: &str,
        blob: &[u8],
        fds: &[BorrowedFd<'_>],
        mode: Mode,
    ) -> Result<Vec<OwnedFd>, HolderError> {
        let ask = Ask::Keep {
            name: name.to_owned(),
            blob: blob.to_vec(),
            forward: match mode {
                Mode::Keep => None,
                Mode::Forward { max_write } => Some(max_write),
            },
        };
        match self.ask(&ask, fds)? {
            (Answer::Done, streams) => Ok(streams),
            _ => Err(unexpected()),
        }
    }

    /// Keeps another blob under a name.
    ///
    /// # Errors
    /// [`HolderError::Refused`] if there is no such name, or another connection owns it.
    pub fn update(&self, name: &str, blob: &[u8]) -> Result<(), HolderError> {
        self.done(&Ask::Update { name: name.to_owned(), blob: blob.to_vec() })
    }

    /// Hands back what is kept under a name, and makes this connection its owner. The holder goes on
    /// keeping it.
    ///
    /// # Errors
    /// [`HolderError::Refused`] if there is no such name, or another connection owns it.
    pub fn take(&self, name: &str) -> Result<Taken, HolderError> {
        match self.ask(&Ask::Take { name: name.to_owned() }, &[])? {
            (Answer::Taken { blob, forward }, fds) => Ok(Taken { blob, fds, forwarded: forward }),
            _ => Err(unexpected()),
        }
    }

    /// Keeps a name no longer. That there is no such name is no error.
    ///
    /// # Errors
    /// [`HolderError::Refused`] if another connection owns it.
    pub fn forget(&self, name: &str) -> Result<(), HolderError> {
        match self.done(&Ask::Forget { name: name.to_owned() }) {
            Err(HolderError::Refused(Refusal::Unknown)) => Ok(()),
            other => other,
        }
    }

    /// All names.
    ///
    /// # Errors
    /// [`HolderError::Broken`] if the connection broke.
    pub fn list(&self) -> Result<Vec<Held>, HolderError> {
        let mut all: Vec<Held> = Vec::new();
        loop {
            let after = all.last().map(|held| held.name.clone());
            match self.ask(&Ask::List { after }, &[])? {
                (Answer::Names { names, more }, _) => {
                    all.extend(names.into_iter().map(|(name, owned)| Held { name, owned }));
                    if !more {
                        return Ok(all);
                    }
                }
                _ => return Err(unexpected()),
            }
        }
    }

    /// Ends the holder.
    ///
    /// # Errors
    /// [`HolderError::Refused`] while it holds something, unless forced: then all that it holds is
    /// closed, and devices whose daemon isn't there turn to errors.
    pub fn stop(&self, force: bool) -> Result<(), HolderError> {
        self.done(&Ask::Stop { force })
    }

    /// Whether the connection still stands.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.list().is_ok()
    }

    /// Waits until the holder has ended, or the connection to it broke. Asks nothing: whoever else
    /// uses the connection isn't held up.
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn wait_until_gone(&self) -> io::Result<()> {
        let socket = self.socket.lock().try_clone()?;
        // Its end is always reported; answers are for others.
        let mut gone = [PollFd::new(&socket, PollFlags::RDHUP)];
        rustix::io::retry_on_intr(|| poll(&mut gone, None))?;
        Ok(())
    }

    fn done(&self, ask: &Ask) -> Result<(), HolderError> {
        match self.ask(ask, &[])? {
            (Answer::Done, _) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    fn ask(
        &self,
        ask: &Ask,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), HolderError> {
        let socket = self.socket.lock();
        // After a failure the next answer could be that to an earlier question: no more is asked.
        let broken = |source| {
            let _ = rustix::net::shutdown(socket.as_fd(), rustix::net::Shutdown::Both);
            HolderError::Broken { source }
        };
        send(socket.as_fd(), ask, fds, true).map_err(broken)?;
        match receive::<Answer>(socket.as_fd(), true).map_err(broken)? {
            Received::Message(Answer::Refused(refusal), _) => Err(HolderError::Refused(refusal)),
            Received::Message(answer, fds) => Ok((answer, fds)),
            Received::Garbage => Err(broken(io::ErrorKind::InvalidData.into())),
            Received::Closed => Err(broken(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

fn unexpected() -> HolderError {
    HolderError::Broken {
        source: io::Error::new(io::ErrorKind::InvalidData, "an answer that doesn't fit"),
    }
}

//! A socket that clients connect to: one thread that takes them, one for each of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketAddrAny, SocketFlags, acceptfrom_with, shutdown, sockopt};
use rustls::ServerConfig;

use super::reception::{self, Offer};

/// Connections of one listener at a time. With the bounds of a connection, this bounds what strangers
/// can make this process hold.
const CONNECTIONS_MAX: usize = 64;

/// When no descriptor or thread can be had: how long until the next try.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Dropped, it takes no more clients, and ends the handshakes that are under way; those that are
/// served go on. The socket stays good for the next daemon, if the holder has it.
pub(super) struct Listener {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    name: String,
    socket: OwnedFd,
    offer: Arc<dyn Offer>,
    tls: Option<Arc<ServerConfig>>,
    /// Rung once, and never read: everybody who waits for it wakes.
    stop: OwnedFd,
    stopped: AtomicBool,
    connections: AtomicUsize,
}

impl Listener {
    /// Takes clients from `socket`, which listens.
    ///
    /// # Errors
    /// No thread or no descriptor.
    pub(super) fn start(
        name: &str,
        socket: OwnedFd,
        offer: Arc<dyn Offer>,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            socket,
            offer,
            tls,
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stopped: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(format!("nbd-{name}"))
            .spawn(move || accepting.accept())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The socket.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.shared.socket.as_fd()
    }

    /// Ends the socket for good, also where the holder has it: who waits to be taken, and who comes
    /// later, is refused.
    pub(super) fn close(&self) {
        self.stop();
        // It listens, so there is something to shut down.
        let _ = shutdown(&self.shared.socket, Shutdown::Both);
    }

    /// Nobody is taken after it returns.
    fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.lock().take() {
            // It waits for nothing but this.
            let _ = thread.join();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn accept(self: Arc<Self>) {
        loop {
            let mut fds =
                [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
            let _ = poll(&mut fds, None);
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let failed = match acceptfrom_with(&self.socket, flags) {
                Ok((client, address)) => self.take(client, address.as_ref()),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = failed {
                tracing::warn!(listener = self.name, %error, "an NBD client could not be taken");
                let _ = poll(&mut [PollFd::new(&self.stop, PollFlags::IN)], Some(&PAUSE));
            }
        }
    }

    fn take(self: &Arc<Self>, client: OwnedFd, address: Option<&SocketAddrAny>) -> io::Result<()> {
        if self.connections.load(Ordering::Acquire) >= CONNECTIONS_MAX {
            tracing::warn!(
                listener = self.name,
                "an NBD client was refused: there are {CONNECTIONS_MAX} already"
            );
            return Ok(());
        }
        let peer = describe(&client, address);
        let this = Arc::clone(self);
        this.connections.fetch_add(1, Ordering::AcqRel);
        let serve = move || {
            let tls = this.tls.clone();
            let served = reception::receive(client, &peer, &*this.offer, tls, &this.stop);
            if let Err(error) = served {
                tracing::info!(listener = this.name, peer, %error, "an NBD handshake ended early");
            }
            this.connections.fetch_sub(1, Ordering::AcqRel);
        };
        let name = format!("nbd-{}", self.name);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(serve) {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(error);
        }
        Ok(())
    }
}

/// Who it is, for people; and what a network connection needs to be quick, and to be found dead.
fn describe(client: &OwnedFd, address: Option<&SocketAddrAny>) -> String {
    let tcp = address.and_then(|address| std::net::SocketAddr::try_from(address.clone()).ok());
    if let Some(address) = tcp {
        let tuned = sockopt::set_tcp_nodelay(client, true)
            .and_then(|()| sockopt::set_socket_keepalive(client, true));
        if let Err(error) = tuned {
            tracing::debug!(%error, "tuning a connection");
        }
        return address.to_string();
    }
    match sockopt::socket_peercred(client) {
        Ok(peer) => {
            let pid = peer.pid.as_raw_nonzero();
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim())
        }
        Err(_) => "a process that nobody knows".to_owned(),
    }
}

//! How the sockets of node streams are set, and a way to wake a thread that polls one.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::sockopt;

/// Silence after which the peer is asked whether it lives, the pause between questions, and how
/// many go unanswered before the stream breaks: five seconds in all after a pulled cable.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_COUNT: u32 = 3;
/// How long sent bytes may go unacknowledged.
const USER_TIMEOUT_MS: u32 = 5_000;

/// Sets what every node stream needs: no delay of small messages, and an end when the peer is gone.
pub(crate) fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT)?;
    sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT_MS)?;
    Ok(())
}

/// Wakes a thread out of `poll`, or out of a runtime; wakes that come before it waits are not lost.
pub(crate) struct Waker {
    fd: OwnedFd,
    #[cfg(feature = "zeromq")]
    notify: tokio::sync::Notify,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            #[cfg(feature = "zeromq")]
            notify: tokio::sync::Notify::new(),
        })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn wake(&self) {
        #[cfg(feature = "zeromq")]
        self.notify.notify_one();
        // It fails only when the counter is full; then the thread is awake anyway.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Wakes a thread that waits in [`Self::notified`], and no other.
    #[cfg(feature = "zeromq")]
    pub(crate) fn notify(&self) {
        self.notify.notify_one();
    }

    /// Waits for a wake.
    #[cfg(feature = "zeromq")]
    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Forgets the wakes so far.
    pub(crate) fn reset(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
    }
}

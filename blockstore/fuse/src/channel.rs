//! Where requests come from and answers go: the kernel itself, or a holder that stands in between.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::abi::{Frame, OutHeader, notify};

/// One source of requests. Many threads may send; one receives.
pub enum Channel {
    /// A descriptor of /dev/fuse: a read is one request, a write one answer.
    Kernel(OwnedFd),
    /// A stream from the holder, which reads /dev/fuse: the same messages, back to back, told apart
    /// by the length that each begins with.
    Forwarded {
        /// The stream.
        stream: OwnedFd,
        /// Held while an answer is written, which takes more than one call if it is long.
        sending: Mutex<()>,
    },
}

impl Channel {
    /// A stream from the holder.
    #[must_use]
    pub fn forwarded(stream: OwnedFd) -> Self {
        Self::Forwarded { stream, sending: Mutex::new(()) }
    }

    /// Waits for a request, puts it into `space` and returns its length; `None` when no more can
    /// come: the file system was unmounted or aborted, or the holder has ended.
    pub fn receive(&self, space: &mut [u8]) -> Option<usize> {
        match self {
            Self::Kernel(fuse) => receive_one(fuse, space),
            Self::Forwarded { stream, .. } => receive_framed(stream, space),
        }
    }

    /// Whether [`Channel::receive`] waits for a request from now on. A holder that forwards can't be
    /// asked without waiting: then this is refused, by `false`.
    pub fn set_waiting(&self, waits: bool) -> bool {
        match self {
            Self::Kernel(fuse) => rustix::io::ioctl_fionbio(fuse, !waits).is_ok(),
            Self::Forwarded { .. } => false,
        }
    }

    /// As [`Channel::receive`], and `None` also when nothing waits: only after
    /// `set_waiting(false)`.
    pub fn receive_at_once(&self, space: &mut [u8]) -> Option<usize> {
        match self {
            // Whatever the reason for nothing is, the next call that waits meets it too.
            Self::Kernel(fuse) => rustix::io::read(fuse, &mut *space).ok().filter(|&n| n > 0),
            Self::Forwarded { .. } => None,
        }
    }

    /// Asks the kernel to send again what was read by an earlier process and never answered, over
    /// whichever descriptor of the connection.
    ///
    /// Nothing may be read from the connection before: what this process had already read would come
    /// a second time, and its first execution, whose answer the kernel no longer takes, could outlast
    /// the second and undo a later write.
    ///
    /// # Errors
    /// What the kernel says: EINVAL where it can't (before Linux 6.9).
    pub fn request_resend(&self) -> io::Result<()> {
        let mut frame = Frame::new();
        OutHeader { len: OutHeader::SIZE as u32, error: notify::RESEND, unique: 0 }
            .encode(&mut frame);
        self.send(&mut [IoSlice::new(frame.bytes())])
    }

    /// Sends one answer, put together from `parts`.
    pub fn send(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        match self {
            // The kernel takes an answer whole or not at all.
            Self::Kernel(fuse) => {
                rustix::io::retry_on_intr(|| rustix::io::writev(fuse, parts))?;
                Ok(())
            }
            Self::Forwarded { stream, sending } => {
                let _sending = sending.lock();
                send_all(stream, parts)
            }
        }
    }
}

/// Reads one request from /dev/fuse; `None` when the connection is gone.
pub fn receive_one(fuse: &OwnedFd, space: &mut [u8]) -> Option<usize> {
    loop {
        match rustix::io::read(fuse, &mut *space) {
            Ok(0) | Err(Errno::NODEV | Errno::BADF) => return None,
            Ok(length) => return Some(length),
            // NOENT: the request was interrupted before it was copied. The others pass as well.
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(error) => {
                tracing::error!(%error, "reading from /dev/fuse");
                return None;
            }
        }
    }
}

/// Reads one message that begins with its length (a FUSE request or answer) off a stream.
pub fn receive_framed(stream: &OwnedFd, space: &mut [u8]) -> Option<usize> {
    const LENGTH: usize = size_of::<u32>();
    receive_exact(stream, &mut space[..LENGTH])?;
    let length = u32::from_ne_bytes(space[..LENGTH].try_into().expect("four bytes")) as usize;
    if length < LENGTH || length > space.len() {
        tracing::error!(length, "a message between holder and daemon has an impossible length");
        return None;
    }
    receive_exact(stream, &mut space[LENGTH..length])?;
    Some(length)
}

fn receive_exact(stream: &OwnedFd, mut space: &mut [u8]) -> Option<()> {
    while !space.is_empty() {
        match rustix::io::read(stream, &mut *space) {
            Ok(0) => return None,
            Ok(count) => space = &mut space[count..],
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

/// Writes all parts to a stream.
pub fn send_all(stream: &OwnedFd, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !parts.is_empty() {
        let sent = rustix::io::retry_on_intr(|| {
            // sendmsg rather than writev: a holder that has gone must not raise SIGPIPE.
            rustix::net::sendmsg(
                stream,
                parts,
                &mut Default::default(),
                rustix::net::SendFlags::NOSIGNAL,
            )
        })?;
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut parts, sent);
    }
    Ok(())
}

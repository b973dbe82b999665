//! Forwarding, for kernels that can't send requests again: the holder reads /dev/fuse itself and
//! keeps each request until its answer has been written.
//!
//! ```text
//!             ┌────────────── queue (one a descriptor) ───────────────┐
//!   kernel ──>│ reader: note in `unanswered`, then send ──────────────┼──> stream ──> daemon
//!          <──│ writer: write to the kernel, then strike off <────────┼─── stream <── daemon
//!             └──────────────── sender: on a new stream, first what is unanswered ────┘
//! ```
//! Why answers come through here, although the daemon could write them itself: writing and striking
//! off must be one step for whoever may die. A daemon that wrote, and died before it said so, would
//! have an answered write done again, perhaps over a newer one.
//!
//! For the same reason a new stream begins only when all that the old daemon had sent is written and
//! struck off. The new one first gets what is unanswered, in the order in which it came, and then
//! what is new.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use mooring_fuse::abi::{Frame, InHeader, OutHeader};
use mooring_fuse::request::is_unanswered;
use mooring_fuse::{Channel, RequestBuffer};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};

/// The forwarding of one descriptor.
pub(super) struct Queue {
    fuse: Channel,
    max_write: u32,
    state: Mutex<State>,
    connected: Condvar,
}

#[derive(Default)]
struct State {
    /// By order of arrival.
    unanswered: BTreeMap<u64, Arc<[u8]>>,
    /// Where each request stands in that order.
    order: BTreeMap<u64, u64>,
    arrivals: u64,
    stream: Option<Arc<Stream>>,
    writer: Option<JoinHandle<()>>,
    ended: bool,
}

struct Stream {
    socket: OwnedFd,
    /// Who holds it may send; a new stream begins held.
    sending: Mutex<()>,
}

impl Stream {
    fn send(&self, request: &[u8]) -> io::Result<()> {
        mooring_fuse::send_all(&self.socket, &mut [IoSlice::new(request)])
    }
}

impl Queue {
    /// Begins to read `fuse`, whose writes have at most `max_write` bytes, as soon as there is a
    /// stream.
    ///
    /// # Errors
    /// No thread or no memory.
    pub(super) fn start(fuse: OwnedFd, max_write: u32) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            fuse: Channel::Kernel(fuse),
            max_write,
            state: Mutex::new(State::default()),
            connected: Condvar::new(),
        });
        let buffer = RequestBuffer::new(max_write)?;
        let reading = queue.clone();
        std::thread::Builder::new()
            .name("forward-read".to_owned())
            .spawn(move || reading.read(buffer))?;
        Ok(queue)
    }

    /// A new stream to a daemon, in place of the old one, whose daemon must be dead.
    ///
    /// # Errors
    /// No descriptor or thread; ENODEV when the file system is gone.
    pub(super) fn connect(self: &Arc<Self>) -> io::Result<OwnedFd> {
        let (old, writer) = {
            let mut state = self.state.lock();
            (state.stream.take(), state.writer.take())
        };
        if let Some(old) = old {
            // What is still on its way to the old daemon is noted. What it has sent stays readable, and
            // nothing follows: not even from a daemon that lives, and has only lost its connection,
            // would the writer be waited for in vain.
            let _ = rustix::net::shutdown(&old.socket, Shutdown::Both);
        }
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let stream = Arc::new(Stream { socket: ours, sending: Mutex::new(()) });
        let (sender, stream_of_sender) = (self.clone(), stream.clone());
        let (ready, started) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("forward-send".to_owned()).spawn(move || {
            sender.send_unanswered(&stream_of_sender, &ready);
        })?;
        if started.recv() != Ok(true) {
            return Err(Errno::NODEV.into());
        }
        let writing = self.clone();
        let handle = std::thread::Builder::new()
            .name("forward-write".to_owned())
            .spawn(move || writing.write(&stream))?;
        self.state.lock().writer = Some(handle);
        Ok(theirs)
    }

    /// Ends the stream; the reader ends with the file system.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        if let Some(stream) = state.stream.take() {
            let _ = rustix::net::shutdown(&stream.socket, Shutdown::Both);
        }
        drop(state);
        self.connected.notify_all();
    }

    fn read(self: Arc<Self>, mut buffer: RequestBuffer) {
        loop {
            {
                let mut state = self.state.lock();
                while state.stream.is_none() && !state.ended {
                    self.connected.wait(&mut state);
                }
                if state.ended {
                    return;
                }
            }
            let Some(length) = self.fuse.receive(buffer.space()) else {
                return self.stop();
            };
            let request: Arc<[u8]> = buffer.request(length).into();
            let stream = self.note(&request);
            if let Some(stream) = stream {
                let _sending = stream.sending.lock();
                // A stream that breaks here belongs to a dead daemon: its successor gets the request.
                if let Err(error) = stream.send(&request) {
                    tracing::debug!(%error, "the daemon is gone; a request is kept");
                }
            }
        }
    }

    /// Keeps a request that wants an answer; returns the stream to send it over. Without one, it is
    /// among what the next stream begins with.
    fn note(&self, request: &Arc<[u8]>) -> Option<Arc<Stream>> {
        let (header, _) = InHeader::decode(request)?;
        let mut state = self.state.lock();
        if !is_unanswered(header.opcode) {
            let place = state.arrivals;
            state.arrivals += 1;
            state.unanswered.insert(place, request.clone());
            state.order.insert(header.unique, place);
        }
        state.stream.clone()
    }

    fn send_unanswered(&self, stream: &Arc<Stream>, ready: &std::sync::mpsc::Sender<bool>) {
        // Held before the stream is seen by others, so that nothing new goes before what is old.
        let _sending = stream.sending.lock();
        let requests: Vec<Arc<[u8]>> = {
            let mut state = self.state.lock();
            let _ = ready.send(!state.ended);
            if state.ended {
                return;
            }
            state.stream = Some(stream.clone());
            state.unanswered.values().cloned().collect()
        };
        self.connected.notify_all();
        tracing::info!(count = requests.len(), "sending again what is unanswered");
        for request in requests {
            if let Err(error) = stream.send(&request) {
                tracing::debug!(%error, "the daemon is gone again; its requests are kept");
                return;
            }
        }
    }

    fn write(self: Arc<Self>, stream: &Arc<Stream>) {
        let mut buffer = vec![0; self.max_write as usize + 4096];
        while let Some(length) = mooring_fuse::receive_framed(&stream.socket, &mut buffer) {
            let Some((header, _)) = OutHeader::decode(&buffer[..length]) else { break };
            if let Err(error) = self.fuse.send(&mut [IoSlice::new(&buffer[..length])]) {
                tracing::debug!(%error, unique = header.unique, "the kernel refused an answer");
                if error.raw_os_error() == Some(libc::EINVAL)
                    || error.raw_os_error() == Some(libc::ENOMEM)
                {
                    self.answer_eio(header.unique);
                }
            }
            let mut state = self.state.lock();
            if let Some(place) = state.order.remove(&header.unique) {
                state.unanswered.remove(&place);
            }
        }
        let mut state = self.state.lock();
        if state.stream.as_ref().is_some_and(|current| Arc::ptr_eq(current, stream)) {
            state.stream = None;
        }
    }

    /// An answer that the kernel won't take must not leave its caller waiting for ever.
    fn answer_eio(&self, unique: u64) {
        let mut frame = Frame::new();
        OutHeader { len: OutHeader::SIZE as u32, error: -libc::EIO, unique }.encode(&mut frame);
        if let Err(error) = self.fuse.send(&mut [IoSlice::new(frame.bytes())]) {
            tracing::debug!(%error, unique, "the kernel refused an error");
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "waits for threads, in real time")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_new_stream_waits_for_no_owner_of_the_old_one() {
        let (kernel, ours) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let queue = Queue::start(ours, 8 << 10).unwrap();
        let old = queue.connect().unwrap();
        let answer = |unique: u64| {
            let mut frame = Frame::new();
            OutHeader { len: OutHeader::SIZE as u32, error: 0, unique }.encode(&mut frame);
            frame.bytes().to_vec()
        };
        // An answer, and a part of one: its owner is alive, and never closes the stream.
        rustix::io::write(&old, &[answer(2), answer(4)[..5].to_vec()].concat()).unwrap();
        let (told, connected) = std::sync::mpsc::channel();
        let connecting = queue.clone();
        std::thread::spawn(move || told.send(connecting.connect().is_ok()));
        assert_eq!(connected.recv_timeout(Duration::from_secs(5)), Ok(true));
        let mut space = [0; 64];
        let read = rustix::io::read(&kernel, &mut space).unwrap();
        assert_eq!(space[..read], answer(2), "what was whole has been passed on");
        assert!(rustix::io::write(&old, &answer(6)).is_err(), "nothing follows");
    }
}

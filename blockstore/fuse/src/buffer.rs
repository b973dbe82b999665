//! Memory that requests are read into.
//!
//! ```text
//!   0           4016    4056   4096 (page aligned)                    4096 + max_write
//!   | unused    | header| WRITE| payload of a WRITE ...               |
//!               ^ the kernel writes from here on
//! ```
//! The pages are there before the first read. That is more than thrift: when a process is killed
//! while the kernel copies a request to it, a page that must be faulted in first is refused, the
//! copy fails, and the kernel answers the request with EIO, which no successor can undo. It is also
//! why a buffer is never given back to the kernel while a session thread uses it.
//!
//! A long payload leaves with its buffer, and the thread goes on with another one from a small
//! stock; a short one is copied, which costs less than the exchange.

use std::ptr::NonNull;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};

use crate::abi::{InHeader, WriteIn};

/// Where a WRITE's payload begins: on a page of its own.
const PAYLOAD: usize = 4096;

/// Where a request begins.
const START: usize = PAYLOAD - InHeader::SIZE - WriteIn::SIZE;

/// Payloads from here on leave with their buffer. At 64 KiB a copy takes about 5 us, and so does
/// taking another buffer from the stock.
const LARGE: usize = 64 << 10;

/// Bytes of buffers kept ready, in all sessions of the process together: while payloads are on their
/// way as many as what writers keep until it is durable, else few.
const STOCK_BYTES: usize = 96 << 20;
const IDLE_STOCK_BYTES: usize = 8 << 20;

static STOCK: Mutex<Stock> = Mutex::new(Stock { buffers: Vec::new(), bytes: 0, away: 0 });

/// Buffers that are ready. A new one costs as much as several copies of it: its pages are made, put
/// in place and locked.
struct Stock {
    buffers: Vec<RequestBuffer>,
    bytes: usize,
    /// Payloads that somebody has.
    away: usize,
}

impl Stock {
    /// A buffer of this length, if there is one, for a payload that goes away.
    fn take(&mut self, length: usize) -> Option<RequestBuffer> {
        self.away += 1;
        let place = self.buffers.iter().rposition(|buffer| buffer.length == length)?;
        self.bytes -= length;
        Some(self.buffers.swap_remove(place))
    }

    /// Takes a buffer back whose payload nobody needs any more; gives those that are too many.
    fn put(&mut self, buffer: RequestBuffer) -> Vec<RequestBuffer> {
        self.away -= 1;
        self.bytes += buffer.length;
        self.buffers.push(buffer);
        let mut surplus = Vec::new();
        // A pause of the writers lets go of half, a longer one of nearly all.
        let most = match self.away {
            0 => IDLE_STOCK_BYTES.max(self.bytes / 2),
            _ => STOCK_BYTES,
        };
        while self.bytes > most {
            let Some(buffer) = self.buffers.pop() else { break };
            self.bytes -= buffer.length;
            surplus.push(buffer);
        }
        surplus
    }
}

/// Room for one request.
#[derive(Debug)]
pub struct RequestBuffer {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for RequestBuffer {}
// SAFETY: shared references only read.
unsafe impl Sync for RequestBuffer {}

impl RequestBuffer {
    /// Maps room for writes of up to `max_write` bytes, all pages present.
    ///
    /// # Errors
    /// What mmap says: no memory.
    pub fn new(max_write: u32) -> std::io::Result<Self> {
        let length = PAYLOAD + max_write as usize;
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new anonymous mapping aliases nothing.
        let base = unsafe {
            mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)?
        };
        // A fork would make every page copy-on-write, which is a fault at its next use. Neither call
        // is vital: without them the race described above can be lost, in a rare moment.
        // SAFETY: the mapping was made just now, with this length.
        if let Err(error) = unsafe { madvise(base, length, Advice::LinuxDontFork) } {
            tracing::debug!(%error, "a request buffer can't be kept out of child processes");
        }
        // SAFETY: the mapping was made just now, with this length.
        if let Err(error) = unsafe { mlock(base, length) } {
            tracing::debug!(%error, "a request buffer can't be locked into memory");
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length })
    }

    /// Where the next request goes.
    pub fn space(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `length` bytes long, initialized (zeros), and borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.as_ptr().add(START), self.length - START)
        }
    }

    /// The first `length` bytes of what was read.
    pub fn request(&self, length: usize) -> &[u8] {
        &self.all()[START..START + length]
    }

    fn all(&self) -> &[u8] {
        // SAFETY: as above; nobody writes while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }

    /// The first `length` bytes of the WRITE payload that was read, to be handed on.
    pub fn take_payload(&mut self, length: usize) -> Bytes {
        if length < LARGE {
            return Bytes::copy_from_slice(&self.all()[PAYLOAD..PAYLOAD + length]);
        }
        let stocked = STOCK.lock().take(self.length);
        let fresh = match stocked {
            Some(buffer) => Ok(buffer),
            None => Self::new((self.length - PAYLOAD) as u32),
        };
        match fresh {
            Ok(fresh) => {
                Bytes::from_owner(Payload { buffer: Some(std::mem::replace(self, fresh)), length })
            }
            // Out of address space: the copy may still find room, and aborting helps nobody.
            Err(_) => {
                STOCK.lock().away -= 1;
                Bytes::copy_from_slice(&self.all()[PAYLOAD..PAYLOAD + length])
            }
        }
    }
}

impl Drop for RequestBuffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nothing borrows it any more.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.length) } {
            tracing::error!(%error, "a request buffer can't be unmapped");
        }
    }
}

/// A payload that keeps its buffer; the last reference puts it back into the stock.
struct Payload {
    buffer: Option<RequestBuffer>,
    length: usize,
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer.all()[PAYLOAD..PAYLOAD + self.length],
            None => &[],
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let surplus = STOCK.lock().put(buffer);
            // Unmapping takes long: not under the lock.
            drop(surplus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_payload_keeps_its_bytes_while_the_buffer_goes_on() {
        let mut buffer = RequestBuffer::new(1 << 20).unwrap();
        for round in 1..=20_u8 {
            for length in [4096, LARGE, 1 << 20] {
                let header = InHeader::SIZE + WriteIn::SIZE;
                buffer.space()[header..header + length].fill(round);
                let taken = buffer.take_payload(length);
                buffer.space().fill(0xff);
                assert_eq!(taken.len(), length);
                assert!(taken.iter().all(|byte| *byte == round));
                assert!((taken.as_ptr() as usize).is_multiple_of(4096) || length < LARGE);
            }
        }
        assert!(STOCK.lock().bytes <= IDLE_STOCK_BYTES, "nothing is away");
    }
}

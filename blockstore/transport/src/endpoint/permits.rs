//! How many connections may be unauthenticated at once: in all, and from one address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections that have not yet shown who they are.
pub(crate) struct Permits {
    total: usize,
    per_address: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    next: u64,
    sockets: HashMap<u64, (IpAddr, TcpStream)>,
}

/// One counted connection; given back when dropped.
pub(crate) struct Permit {
    permits: Arc<Permits>,
    number: u64,
}

impl Permits {
    /// At most `total`, and at most a quarter of them from one address, so that one slow stranger
    /// doesn't keep all others out.
    pub(crate) fn new(total: usize) -> Arc<Self> {
        let per_address = (total / 4).max(1);
        Arc::new(Self { total, per_address, held: Mutex::default() })
    }

    /// A permit for a connection, or `None` if there are too many.
    pub(crate) fn take(
        self: &Arc<Self>,
        address: IpAddr,
        socket: &TcpStream,
    ) -> io::Result<Option<Permit>> {
        let mut held = self.held.lock();
        let mine = held.sockets.values().filter(|(other, _)| *other == address).count();
        if held.sockets.len() >= self.total || mine >= self.per_address {
            return Ok(None);
        }
        let socket = socket.try_clone()?;
        let number = held.next;
        held.next += 1;
        held.sockets.insert(number, (address, socket));
        Ok(Some(Permit { permits: Arc::clone(self), number }))
    }

    /// Cuts the connections that hold one.
    pub(crate) fn cut(&self) {
        for (_, socket) in self.held.lock().sockets.values() {
            // It may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.held.lock().sockets.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn one_address_gets_a_quarter_and_all_together_the_total() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let permits = Permits::new(8);
        let take = |i: u32| permits.take(IpAddr::from(Ipv4Addr::from(i)), &socket).unwrap();
        let mut held: Vec<_> = (0..10).filter_map(|_| take(1)).collect();
        assert_eq!(held.len(), 2);
        held.extend((2..20).filter_map(take));
        assert_eq!(held.len(), 8);
        held.clear();
        assert!(take(1).is_some());
    }
}

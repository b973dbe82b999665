//! How many connections may be unauthenticated at once: in all, and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections that have not yet shown who they are.
pub(crate) struct Permits {
    total: usize,
    per_address: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// One counted connection; given back when dropped.
pub(crate) struct Permit {
    permits: Arc<Permits>,
    address: IpAddr,
}

impl Permits {
    /// At most `total`, and at most a quarter of them from one address, so that one slow stranger
    /// doesn't keep all others out.
    pub(crate) fn new(total: usize) -> Arc<Self> {
        let per_address = (total / 4).max(1);
        Arc::new(Self { total, per_address, held: Mutex::new(HashMap::new()) })
    }

    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let mut held = self.held.lock();
        let total: usize = held.values().sum();
        let mine = held.get(&address).copied().unwrap_or(0);
        if total >= self.total || mine >= self.per_address {
            return None;
        }
        held.insert(address, mine + 1);
        Some(Permit { permits: Arc::clone(self), address })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.permits.held.lock();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_address_gets_a_quarter_and_all_together_the_total() {
        let permits = Permits::new(8);
        let address = |i: u32| IpAddr::from(Ipv4Addr::from(i));
        let mut held: Vec<_> = (0..10).filter_map(|_| permits.take(address(1))).collect();
        assert_eq!(held.len(), 2);
        held.extend((2..20).filter_map(|i| permits.take(address(i))));
        assert_eq!(held.len(), 8);
        held.clear();
        assert!(permits.take(address(1)).is_some());
    }
}

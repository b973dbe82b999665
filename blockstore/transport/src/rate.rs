//! Limits on how often: log lines that strangers can cause, and requests to join.
#![allow(clippy::disallowed_methods)] // A shell: the pace of real connections.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Log lines in a burst, and then one a second.
const LOG_BURST: f64 = 20.0;
const LOG_PER_SECOND: f64 = 1.0;
/// How long a line isn't repeated, and how many are remembered: what the pace above gives.
const SAID_FOR: Duration = Duration::from_secs(60);
const MAX_SAID: usize = 128;
/// Requests to join from one address in a burst, and then one a second.
const JOIN_BURST: f64 = 10.0;
const JOIN_PER_SECOND: f64 = 1.0;
/// Addresses remembered; beyond it, those that have rested are forgotten, and if there are none, strangers wait.
const MAX_ADDRESSES: usize = 4096;
/// A look at all of them costs too much to have it with every stranger.
const PURGE_EVERY: Duration = Duration::from_secs(1);

/// A bucket of tokens that refills with time.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(burst: f64) -> Self {
        Self { tokens: burst, at: Instant::now() }
    }

    fn refill(&mut self, burst: f64, per_second: f64) {
        let now = Instant::now();
        let gained = now.duration_since(self.at).as_secs_f64() * per_second;
        self.tokens = (self.tokens + gained).min(burst);
        self.at = now;
    }

    fn take(&mut self) -> bool {
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

/// Lets some log lines through and counts the others: the same thing about the same address once a
/// minute, and not more than a burst of different ones.
pub(crate) struct LogLimit {
    state: Mutex<LogState>,
}

struct LogState {
    bucket: Bucket,
    suppressed: u64,
    said: HashMap<(IpAddr, String), Instant>,
}

impl LogLimit {
    pub(crate) fn new() -> Self {
        let bucket = Bucket::full(LOG_BURST);
        Self { state: Mutex::new(LogState { bucket, suppressed: 0, said: HashMap::new() }) }
    }

    /// Whether `what` may be written about `address` now; if so, how many lines were suppressed
    /// since the last one.
    pub(crate) fn allow(&self, address: IpAddr, what: &dyn Display) -> Option<u64> {
        let key = (address, what.to_string());
        let mut state = self.state.lock();
        let now = Instant::now();
        let repeated = state.said.get(&key).is_some_and(|&at| now - at < SAID_FOR);
        if !repeated {
            state.bucket.refill(LOG_BURST, LOG_PER_SECOND);
            if state.bucket.take() {
                if state.said.len() >= MAX_SAID {
                    state.said.retain(|_, &mut at| now - at < SAID_FOR);
                }
                if state.said.len() < MAX_SAID {
                    state.said.insert(key, now);
                }
                return Some(std::mem::take(&mut state.suppressed));
            }
        }
        state.suppressed += 1;
        None
    }
}

/// Limits requests to join by the address they come from.
pub(crate) struct JoinLimit {
    state: Mutex<Addresses>,
}

struct Addresses {
    buckets: HashMap<IpAddr, Bucket>,
    /// When rested addresses were last forgotten.
    purged: Option<Instant>,
}

impl JoinLimit {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(Addresses { buckets: HashMap::new(), purged: None }) }
    }

    pub(crate) fn allow(&self, address: IpAddr) -> bool {
        let mut state = self.state.lock();
        let Addresses { buckets, purged } = &mut *state;
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            if purged.is_none_or(|at| at.elapsed() >= PURGE_EVERY) {
                *purged = Some(Instant::now());
                buckets.retain(|_, bucket| {
                    bucket.refill(JOIN_BURST, JOIN_PER_SECOND);
                    bucket.tokens < JOIN_BURST
                });
            }
            if buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let bucket = buckets.entry(address).or_insert_with(|| Bucket::full(JOIN_BURST));
        bucket.refill(JOIN_BURST, JOIN_PER_SECOND);
        bucket.take()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_flood_of_log_lines_is_cut_to_a_burst() {
        let limit = LogLimit::new();
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let same = (0..1000).filter(|_| limit.allow(address, &"garbage").is_some()).count();
        assert_eq!(same, 1);
        assert_eq!(limit.allow(address, &"no certificate"), Some(999));
        let different = (0..1000).filter(|i| limit.allow(address, i).is_some()).count();
        assert!((18..=20).contains(&different), "{different} lines");
    }

    #[test]
    fn each_address_has_a_limit_of_its_own_and_their_number_is_bounded() {
        let limit = JoinLimit::new();
        let address = |i: u32| IpAddr::from(Ipv4Addr::from(i));
        let allowed = (0..100).filter(|_| limit.allow(address(1))).count();
        assert!((10..=11).contains(&allowed), "{allowed} requests");
        assert!(limit.allow(address(2)));
        for i in 0..20_000 {
            limit.allow(address(i));
        }
        assert!(limit.state.lock().buckets.len() <= MAX_ADDRESSES);
    }
}

//! Requests that a session thread has read and not yet handed to the volume.
//!
//! Writes gather, as long as more of them wait and the bounds allow; anything else ends the burst: a
//! read is done by the thread that has read it, and should wait for no others.

use crate::io::BlockRequest;

/// Requests of one burst, and their bytes. The bursts of all threads of a session together must
/// leave places in its table of requests in flight: a thread that waits for one hands nothing on.
const MAX_REQUESTS: usize = 32;
const MAX_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Burst {
    requests: Vec<BlockRequest>,
    bytes: usize,
    ended: bool,
}

impl Burst {
    /// Adds a write of so many bytes.
    pub(super) fn add(&mut self, bytes: usize, request: BlockRequest) {
        self.requests.push(request);
        self.bytes += bytes;
    }

    /// Adds the last request.
    pub(super) fn end_with(&mut self, request: BlockRequest) {
        self.requests.push(request);
        self.ended = true;
    }

    /// Whether it has begun, and may go on.
    pub(super) fn takes_more(&self) -> bool {
        !self.requests.is_empty()
            && !self.ended
            && self.requests.len() < MAX_REQUESTS
            && self.bytes < MAX_BYTES
    }

    /// All of it, and an empty one in its place; `None` if there is nothing.
    pub(super) fn take(&mut self) -> Option<Vec<BlockRequest>> {
        let burst = std::mem::take(self);
        (!burst.requests.is_empty()).then_some(burst.requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write() -> BlockRequest {
        let data = bytes::Bytes::from_static(&[0; 4096]);
        BlockRequest::Write { offset: 0, data, fua: false, done: Box::new(|_| ()) }
    }

    #[test]
    fn writes_gather_up_to_the_bounds() {
        let mut burst = Burst::default();
        assert!(!burst.takes_more(), "nothing has begun");
        for _ in 0..MAX_REQUESTS - 1 {
            burst.add(4096, write());
            assert!(burst.takes_more());
        }
        burst.add(4096, write());
        assert!(!burst.takes_more());
        assert_eq!(burst.take().map(|requests| requests.len()), Some(MAX_REQUESTS));
        assert!(burst.take().is_none());
        burst.add(MAX_BYTES, write());
        assert!(!burst.takes_more());
    }

    #[test]
    fn anything_else_ends_a_burst() {
        let mut burst = Burst::default();
        burst.add(4096, write());
        burst.end_with(BlockRequest::Flush { done: Box::new(|_| ()) });
        assert!(!burst.takes_more());
        assert_eq!(burst.take().map(|requests| requests.len()), Some(2));
    }
}

//! The window's way back: how much of what came in has been handled.
//!
//! The acceptor sends the total of [`crate::contract::Message::cost`] so far, eight bytes,
//! little-endian: after every [`STEP`] and, if less is left, [`SOON`] after the last message. So a
//! sender that is idle knows its window to be empty, and one at work hears of it seldom.

use std::time::Duration;

/// Told at once.
pub(crate) const STEP: u64 = 1 << 20;
/// Told after a pause: soon beside the time that a full window takes, seldom beside messages.
pub(crate) const SOON: Duration = Duration::from_millis(20);

/// What has been handled, and what of it is told.
#[derive(Default)]
pub(crate) struct Handled {
    total: u64,
    told: u64,
}

impl Handled {
    pub(crate) fn add(&mut self, cost: usize) {
        self.total += cost as u64;
    }

    pub(crate) fn is_due(&self) -> bool {
        self.total - self.told >= STEP
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.total > self.told
    }

    /// What to send now.
    pub(crate) fn tell(&mut self) -> [u8; 8] {
        self.told = self.total;
        self.total.to_le_bytes()
    }
}

/// What was handed over, and what of it the peer has told to be handled.
#[derive(Default)]
pub(crate) struct Sent {
    total: u64,
    credited: u64,
}

impl Sent {
    pub(crate) fn add(&mut self, cost: usize) {
        self.total += cost as u64;
    }

    /// What is on its way or not yet handled.
    pub(crate) fn outstanding(&self) -> u64 {
        self.total - self.credited
    }

    /// Takes what the peer tells; gives what has become free. `None` if it can't be true.
    pub(crate) fn credit(&mut self, frame: &[u8]) -> Option<usize> {
        let told = u64::from_le_bytes(frame.try_into().ok()?);
        if told < self.credited || told > self.total {
            return None;
        }
        let freed = told - self.credited;
        self.credited = told;
        usize::try_from(freed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handled_becomes_free_at_the_other_side() {
        let (mut handled, mut sent) = (Handled::default(), Sent::default());
        sent.add(700);
        sent.add(300);
        handled.add(700);
        assert!(handled.is_owed() && !handled.is_due());
        assert_eq!(sent.credit(&handled.tell()), Some(700));
        assert_eq!(sent.outstanding(), 300);
        assert!(!handled.is_owed());
        handled.add(STEP as usize);
        assert!(handled.is_due());
    }

    #[test]
    fn a_credit_that_cannot_be_true_is_refused() {
        let mut sent = Sent::default();
        sent.add(1000);
        assert_eq!(sent.credit(&400_u64.to_le_bytes()), Some(400));
        assert_eq!(sent.credit(&399_u64.to_le_bytes()), None);
        assert_eq!(sent.credit(&1001_u64.to_le_bytes()), None);
        assert_eq!(sent.credit(&[0; 7]), None);
        assert_eq!(sent.outstanding(), 600);
    }
}

//! One other node, as beacons see it: what both vouch for, and when they last agreed on it.

use std::collections::BTreeMap;
use std::time::Duration;

use mooring_terms::{Epoch, SliceId, Time};

use super::message::BeaconMessage;

/// Buckets that slices are hashed into; one bit of an answer each.
const BUCKETS: usize = 64;

/// A part of the beacon's interval at which a peer that owes an answer is looked at.
const LOOKS: u32 = 4;

/// One other node.
#[derive(Debug)]
pub(super) struct Peer {
    buckets: Vec<Bucket>,
    slices: usize,
    pub(super) next: Time,
    pub(super) last_sent: Time,
    pub(super) checked: Time,
    last_answer: Time,
}

#[derive(Debug, Default)]
struct Bucket {
    slices: BTreeMap<SliceId, Shared>,
    hash: u64,
    /// The newest beacon with an equal bucket that was answered; when it was sent.
    answered: Option<Time>,
    /// When the newest beacon with an equal bucket came.
    heard: Option<Time>,
    /// The peer's differs: slices are listed.
    differs: bool,
    /// How many of its slices are without an answer, or unheard.
    flagged: usize,
}

/// A slice that this node vouches for to the peer.
#[derive(Debug)]
struct Shared {
    epoch: Epoch,
    /// Since when.
    since: Time,
    answered: Option<Time>,
    heard: Option<Time>,
    silent: bool,
    unheard: bool,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            slices: 0,
            next: Time::ZERO,
            last_sent: Time::ZERO,
            checked: Time::ZERO,
            last_answer: Time::ZERO,
        }
    }
}

/// A well-mixed number for one (slice, epoch).
fn hash(slice: SliceId, epoch: Epoch) -> u64 {
    let mut x = slice.volume.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= (u64::from(slice.index.0) << 32) | u64::from(epoch.0);
    // The finalizer of splitmix64 (Steele, Lea and Flood, 2014).
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) | 1
}

/// The bucket of a slice, whatever its epoch.
fn bucket_of(slice: SliceId) -> usize {
    let mixed = hash(slice, Epoch(0)) >> 1;
    usize::try_from(mixed % BUCKETS as u64).unwrap_or(0)
}

impl Peer {
    pub(super) fn is_empty(&self) -> bool {
        self.slices == 0
    }

    /// When this peer is to be looked at: for its next beacon, sooner if it owes an answer.
    pub(super) fn due(&self, interval: Duration) -> Time {
        if self.last_answer >= self.last_sent {
            return self.next;
        }
        self.next.min(self.checked.max(self.last_sent) + interval / LOOKS)
    }

    pub(super) fn insert(&mut self, now: Time, slice: SliceId, epoch: Epoch) {
        let bucket = &mut self.buckets[bucket_of(slice)];
        bucket.hash = bucket.hash.wrapping_add(hash(slice, epoch));
        let shared = Shared {
            epoch,
            since: now,
            answered: None,
            heard: None,
            silent: false,
            unheard: false,
        };
        bucket.slices.insert(slice, shared);
        self.slices += 1;
    }

    pub(super) fn remove(&mut self, slice: SliceId) {
        let bucket = &mut self.buckets[bucket_of(slice)];
        if let Some(shared) = bucket.slices.remove(&slice) {
            bucket.hash = bucket.hash.wrapping_sub(hash(slice, shared.epoch));
            bucket.flagged -= usize::from(shared.silent || shared.unheard);
            self.slices -= 1;
        }
    }

    /// A beacon to this peer.
    pub(super) fn beacon(&self, now: Time) -> BeaconMessage {
        let listed = self.buckets.iter().filter(|bucket| bucket.differs);
        let lists = listed.flat_map(|bucket| &bucket.slices);
        BeaconMessage::Beacon {
            sent: now,
            hashes: self.buckets.iter().map(|bucket| bucket.hash).collect(),
            lists: lists.map(|(&slice, shared)| (slice, shared.epoch)).collect(),
        }
    }

    /// A beacon of this peer: notes what it was heard for, and answers that.
    pub(super) fn on_beacon(
        &mut self,
        now: Time,
        sent: Time,
        hashes: &[u64],
        lists: &[(SliceId, Epoch)],
    ) -> BeaconMessage {
        let mut alike = 0;
        for (i, (bucket, hash)) in self.buckets.iter_mut().zip(hashes).enumerate() {
            if bucket.hash == *hash {
                bucket.heard = Some(now);
                alike |= 1 << i;
            }
        }
        let mut agreed = Vec::new();
        for &(slice, epoch) in lists {
            let own = self.buckets[bucket_of(slice)].slices.get_mut(&slice);
            if let Some(shared) = own.filter(|shared| shared.epoch == epoch) {
                shared.heard = Some(now);
                agreed.push((slice, epoch));
            }
        }
        BeaconMessage::Answer { sent, alike, lists: agreed }
    }

    /// An answer: notes what it holds for; tells whether lists are needed that were not sent yet.
    pub(super) fn on_answer(&mut self, sent: Time, alike: u64, lists: &[(SliceId, Epoch)]) -> bool {
        if sent > self.last_sent {
            return false;
        }
        self.last_answer = self.last_answer.max(sent);
        let mut more = false;
        for (i, bucket) in self.buckets.iter_mut().enumerate() {
            let differs = alike & (1 << i) == 0 && !bucket.slices.is_empty();
            if !differs {
                bucket.answered = bucket.answered.max(Some(sent));
            }
            more |= differs && !bucket.differs;
            bucket.differs = differs;
        }
        for (slice, epoch) in lists {
            let own = self.buckets[bucket_of(*slice)].slices.get_mut(slice);
            // What was vouched for only after the beacon was sent is not what was answered.
            if let Some(shared) = own.filter(|shared| shared.epoch == *epoch && shared.since < sent)
            {
                shared.answered = shared.answered.max(Some(sent));
            }
        }
        more
    }

    pub(super) fn answered(&self, slice: SliceId, epoch: Epoch) -> Option<Time> {
        let bucket = &self.buckets[bucket_of(slice)];
        let shared = bucket.slices.get(&slice).filter(|shared| shared.epoch == epoch)?;
        shared.answered(bucket)
    }

    pub(super) fn heard(&self, slice: SliceId, epoch: Epoch) -> Option<Time> {
        let bucket = &self.buckets[bucket_of(slice)];
        let shared = bucket.slices.get(&slice).filter(|shared| shared.epoch == epoch)?;
        shared.heard(bucket)
    }

    /// The slices for which the peer has just fallen silent, or is back.
    pub(super) fn transitions(
        &mut self,
        now: Time,
        lease: Duration,
        grace: Duration,
        awake_since: Option<Time>,
    ) -> Vec<SliceId> {
        let mut woken = Vec::new();
        for bucket in self.buckets.iter_mut().filter(|bucket| !bucket.slices.is_empty()) {
            let fresh = |moment: Option<Time>, span: Duration| {
                moment.is_some_and(|moment| now < moment + span)
            };
            let quiet = bucket.flagged == 0 && !bucket.differs;
            if quiet && fresh(bucket.answered, lease) && fresh(bucket.heard, grace) {
                continue;
            }
            let mut slices = std::mem::take(&mut bucket.slices);
            for (slice, shared) in &mut slices {
                let answered = shared.answered(bucket).max(Some(shared.since));
                let heard = shared.heard(bucket).max(Some(shared.since)).max(awake_since);
                let (silent, unheard) = (!fresh(answered, lease), !fresh(heard, grace));
                if (silent, unheard) != (shared.silent, shared.unheard) {
                    (shared.silent, shared.unheard) = (silent, unheard);
                    woken.push(*slice);
                }
            }
            bucket.flagged = slices.values().filter(|s| s.silent || s.unheard).count();
            bucket.slices = slices;
        }
        woken
    }
}

impl Shared {
    fn answered(&self, bucket: &Bucket) -> Option<Time> {
        bucket.answered.filter(|sent| *sent > self.since).max(self.answered)
    }

    fn heard(&self, bucket: &Bucket) -> Option<Time> {
        bucket.heard.filter(|heard| *heard >= self.since).max(self.heard)
    }
}

//! Datagrams of the gossip: sealed, and in pieces that fit a packet.
//!
//! ```text
//!   datagram   | version (1) | key id (4) | nonce (12) | ciphertext | tag (16) |
//!                \_____ authenticated ____/              |
//!   piece                   | message (8) | index (1) | count (1) | bytes (<= 1,100) |
//! ```
//! Integers are little-endian. A message of chitchat has up to 65,507 bytes, all that a datagram
//! can hold: with the seal it would not fit, and fragments of IP get lost together anyway.
//!
//! A datagram that comes twice does no harm: what chitchat carries has versions of its own. Nonces
//! are random: at the rate of gossip 2^32 datagrams under one key take longer than a century.
//!
//! Invariants: nothing that isn't sealed with a key of the ring is looked into; at most
//! [`PARTIAL_MESSAGES`] messages are held incomplete, none longer than [`PARTIAL_LIFE`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use mooring_config::GossipKey;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;
const PIECE_HEADER_BYTES: usize = 10;
/// Bytes of a message in one datagram: with all headers it fits the smallest usual packet.
const PIECE_BYTES: usize = 1_100;
/// The longest message: what chitchat may send.
pub(super) const MAX_MESSAGE_BYTES: usize = 65_507;
/// How many messages are held incomplete.
const PARTIAL_MESSAGES: usize = 64;
/// How long one is held.
const PARTIAL_LIFE: Duration = Duration::from_secs(2);
/// How long the key before the last is accepted after a rotation: until everyone has heard of it.
const OLD_KEY_LIFE: Duration = Duration::from_secs(30);

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Too short, another version, or pieces that contradict each other.
    Malformed,
    /// Sealed with a key that isn't in the ring: from a node that was removed, or is ahead of us.
    UnknownKey,
    /// The seal doesn't fit: forged or damaged.
    Forged,
}

/// The keys: the last seals, all that still live open.
pub(super) struct Ring {
    keys: Vec<RingKey>,
}

struct RingKey {
    id: u32,
    key: RandomizedNonceKey,
    /// `None` for the one in use.
    until: Option<Instant>,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self { keys: Vec::new() }
    }

    /// Takes the keys of the configuration, the one in use last.
    pub(super) fn set(&mut self, keys: &[GossipKey], now: Instant) {
        let Some(current) = keys.last() else { return };
        self.keys.retain(|key| key.until.is_none_or(|until| until > now));
        for old in &mut self.keys {
            if old.id != current.id && old.until.is_none() {
                old.until = Some(now + OLD_KEY_LIFE);
            }
        }
        for key in keys {
            let known = self.keys.iter().any(|known| known.id == key.id);
            let Ok(cipher) = RandomizedNonceKey::new(&AES_256_GCM, &key.bytes) else { continue };
            if !known {
                let until = (key.id != current.id).then(|| now + OLD_KEY_LIFE);
                self.keys.push(RingKey { id: key.id, key: cipher, until });
            }
        }
        self.keys.sort_by_key(|key| key.id);
    }

    /// Seals one piece; `None` without a key.
    fn seal(&self, piece: &[u8]) -> Option<Vec<u8>> {
        let current = self.keys.iter().rev().find(|key| key.until.is_none())?;
        let mut header = vec![VERSION];
        header.extend_from_slice(&current.id.to_le_bytes());
        let mut sealed = piece.to_vec();
        let nonce = current.key.seal_in_place_append_tag(Aad::from(&header), &mut sealed).ok()?;
        let mut datagram = header;
        datagram.extend_from_slice(nonce.as_ref());
        datagram.extend_from_slice(&sealed);
        Some(datagram)
    }

    /// Opens a datagram in place.
    fn open<'a>(&self, datagram: &'a mut [u8], now: Instant) -> Result<&'a [u8], Dropped> {
        if datagram.len() < HEADER_BYTES + NONCE_LEN || datagram[0] != VERSION {
            return Err(Dropped::Malformed);
        }
        let (header, rest) = datagram.split_at_mut(HEADER_BYTES);
        let (nonce, sealed) = rest.split_at_mut(NONCE_LEN);
        let id = u32::from_le_bytes(header[1..].try_into().expect("four bytes are four"));
        let lives = |key: &&RingKey| key.until.is_none_or(|until| until > now);
        let key = self.keys.iter().find(|key| key.id == id).filter(lives);
        let key = key.ok_or(Dropped::UnknownKey)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Dropped::Malformed)?;
        let opened = key.key.open_in_place(nonce, Aad::from(&*header), sealed);
        opened.map(|plain| &*plain).map_err(|_| Dropped::Forged)
    }

    /// The datagrams for a message; none if it is too long, or there is no key.
    pub(super) fn split(&self, message: &[u8]) -> Vec<Vec<u8>> {
        let mut id = [0; 8];
        if message.is_empty() || message.len() > MAX_MESSAGE_BYTES || rand::fill(&mut id).is_err() {
            return Vec::new();
        }
        let count = message.len().div_ceil(PIECE_BYTES);
        let mut datagrams = Vec::with_capacity(count);
        for (index, bytes) in message.chunks(PIECE_BYTES).enumerate() {
            let mut piece = Vec::with_capacity(PIECE_HEADER_BYTES + bytes.len());
            piece.extend_from_slice(&id);
            // 65,507 bytes are 60 pieces.
            piece.push(u8::try_from(index).unwrap_or(u8::MAX));
            piece.push(u8::try_from(count).unwrap_or(u8::MAX));
            piece.extend_from_slice(bytes);
            datagrams.extend(self.seal(&piece));
        }
        datagrams
    }
}

/// Messages of which some pieces have arrived.
#[derive(Default)]
pub(crate) struct Assembly {
    partial: HashMap<(SocketAddr, [u8; 8]), Partial>,
}

struct Partial {
    pieces: Vec<Option<Vec<u8>>>,
    missing: usize,
    begun: Instant,
}

impl Assembly {
    /// Takes a datagram; the message, if this was its last missing piece.
    pub(super) fn take(
        &mut self,
        ring: &Ring,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, Dropped> {
        self.take_piece(from, ring.open(datagram, now)?, now)
    }

    /// Takes a piece that somebody who belongs has sealed, which doesn't make it right.
    pub(crate) fn take_piece(
        &mut self,
        from: SocketAddr,
        piece: &[u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, Dropped> {
        if piece.len() <= PIECE_HEADER_BYTES || piece.len() > PIECE_HEADER_BYTES + PIECE_BYTES {
            return Err(Dropped::Malformed);
        }
        let id: [u8; 8] = piece[..8].try_into().expect("eight bytes are eight");
        let (index, count) = (usize::from(piece[8]), usize::from(piece[9]));
        let bytes = &piece[PIECE_HEADER_BYTES..];
        let last = index + 1 == count;
        let most = MAX_MESSAGE_BYTES.div_ceil(PIECE_BYTES);
        if index >= count || count > most || !(last || bytes.len() == PIECE_BYTES) {
            return Err(Dropped::Malformed);
        }
        if count == 1 {
            return Ok(Some(bytes.to_vec()));
        }
        self.forget_old(now);
        let partial = self.partial.entry((from, id)).or_insert_with(|| Partial {
            pieces: vec![None; count],
            missing: count,
            begun: now,
        });
        if partial.pieces.len() != count {
            return Err(Dropped::Malformed);
        }
        if partial.pieces[index].is_none() {
            partial.pieces[index] = Some(bytes.to_vec());
            partial.missing -= 1;
        }
        if partial.missing > 0 {
            return Ok(None);
        }
        let whole = self.partial.remove(&(from, id)).map(|partial| partial.pieces);
        Ok(whole.map(|pieces| pieces.into_iter().flatten().flatten().collect()))
    }

    /// Makes room: what is too old goes, and if that isn't enough, the oldest.
    fn forget_old(&mut self, now: Instant) {
        self.partial.retain(|_, partial| now.duration_since(partial.begun) < PARTIAL_LIFE);
        while self.partial.len() >= PARTIAL_MESSAGES {
            let oldest = self.partial.iter().min_by_key(|(_, partial)| partial.begun);
            let Some(key) = oldest.map(|(key, _)| *key) else { return };
            self.partial.remove(&key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Tests choose their own now, from a real one.
mod tests {
    use super::*;

    fn key(id: u32) -> GossipKey {
        GossipKey { id, bytes: [u8::try_from(id).unwrap(); 32] }
    }

    fn ring(keys: &[GossipKey], now: Instant) -> Ring {
        let mut ring = Ring::new();
        ring.set(keys, now);
        ring
    }

    fn from() -> SocketAddr {
        ([127, 0, 0, 1], 7_700).into()
    }

    #[test]
    fn messages_of_every_size_arrive_in_any_order_and_twice() {
        let now = Instant::now();
        let ring = ring(&[key(1)], now);
        for length in [1, 1_099, 1_100, 1_101, 2_200, 40_000, MAX_MESSAGE_BYTES] {
            let message: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let datagrams = ring.split(&message);
            assert_eq!(datagrams.len(), length.div_ceil(PIECE_BYTES));
            assert!(datagrams.iter().all(|datagram| datagram.len() <= 1_200));
            let mut assembly = Assembly::default();
            let mut whole = Vec::new();
            for datagram in datagrams.iter().rev() {
                let again = datagram.clone();
                for mut copy in [datagram.clone(), again] {
                    whole.extend(assembly.take(&ring, from(), &mut copy, now).unwrap());
                }
            }
            assert_eq!(whole.first(), Some(&message), "{length} bytes");
        }
        assert!(ring.split(&vec![0; MAX_MESSAGE_BYTES + 1]).is_empty());
        assert!(ring.split(&[]).is_empty());
    }

    #[test]
    fn whatever_is_forged_cut_or_of_a_stranger_is_dropped() {
        let now = Instant::now();
        let ours = ring(&[key(1)], now);
        let good = ours.split(b"hello").remove(0);
        let mut assembly = Assembly::default();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(assembly.take(&ours, from(), &mut bad, now).is_err(), "byte {at}");
            let mut cut = good[..at].to_vec();
            assert!(assembly.take(&ours, from(), &mut cut, now).is_err(), "length {at}");
        }
        let stranger = GossipKey { id: 1, bytes: [9; 32] };
        let mut forged = ring(&[stranger], now).split(b"hello").remove(0);
        assert_eq!(assembly.take(&ours, from(), &mut forged, now), Err(Dropped::Forged));
        let mut unknown = ring(&[key(2)], now).split(b"hello").remove(0);
        assert_eq!(assembly.take(&ours, from(), &mut unknown, now), Err(Dropped::UnknownKey));
        assert!(assembly.partial.is_empty());
    }

    #[test]
    fn keys_rotate_and_the_old_one_ends() {
        let now = Instant::now();
        let mut ours = ring(&[key(1)], now);
        let old = ours.split(b"old").remove(0);
        ours.set(&[key(1), key(2)], now);
        let new = ours.split(b"new").remove(0);
        assert_eq!(new[1..5], 2_u32.to_le_bytes(), "the new key seals");
        let mut assembly = Assembly::default();
        let opened = assembly.take(&ours, from(), &mut old.clone(), now);
        assert_eq!(opened, Ok(Some(b"old".to_vec())), "from a node that is a little late");
        let later = now + OLD_KEY_LIFE;
        let opened = assembly.take(&ours, from(), &mut old.clone(), later);
        assert_eq!(opened, Err(Dropped::UnknownKey), "a removed node can't go on");
        ours.set(&[key(1), key(2)], later + OLD_KEY_LIFE);
        let opened = assembly.take(&ours, from(), &mut new.clone(), later);
        assert_eq!(opened, Ok(Some(b"new".to_vec())));
    }

    #[test]
    fn incomplete_messages_are_bounded_in_number_and_time() {
        let now = Instant::now();
        let ring = ring(&[key(1)], now);
        let mut assembly = Assembly::default();
        for _ in 0..PARTIAL_MESSAGES * 3 {
            let mut first = ring.split(&[7; 3_000]).remove(0);
            assert_eq!(assembly.take(&ring, from(), &mut first, now), Ok(None));
        }
        assert!(assembly.partial.len() <= PARTIAL_MESSAGES);
        let mut first = ring.split(&[7; 3_000]).remove(0);
        assembly.take(&ring, from(), &mut first, now + PARTIAL_LIFE).unwrap();
        assert_eq!(assembly.partial.len(), 1);
    }
}

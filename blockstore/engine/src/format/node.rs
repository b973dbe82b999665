//! Map nodes, as they lie in the log and in the cache.
//!
//! ```text
//! node: the meta of a record of kind 16
//!   0  level u8 (0: leaf)  1 form u8   2 items u16   4 checksums u32   8 first block u64
//!   16 items
//! leaf item, 24 bytes: blocks first..=last of the leaf's 256
//!   0  first u8   1 last u8   2 its first checksum u16   4 epoch u32   8 sequence u64
//!   16 kind in the two top bits (0 data, 1 hole, 2 missing, 3 lost), address of block `first`
//!   below them
//! inner item, 32 bytes, of form 1 40: children first..=last of the node's 256; a node stands alone
//!   0  first u8   1 last u8   2 kind u8 (0 node, 1 hole, 2 missing, 3 lost)   3 flags u8
//!   (1: something beneath is missing or lost)   4 length u32   8 newest epoch beneath u32   12 crc u32
//!   16 newest sequence beneath u64   24 address u64   32 blocks beneath that hold data u64
//!   (all ones: unknown)
//! then, in a leaf, the checksums: crc32c u32 of each data block, in order
//! ```
//! A parent names its child by address, length and checksum, so a node that is not the one meant
//! is never taken for it. Leaves have form 0, and so have inner nodes
//! of a cluster below version 2; those that are lost appear in none.

use bytes::Bytes;
use mooring_terms::{BLOCK_SIZE, Epoch, Sequence, Version};

use super::{Put, Take};
use crate::address::Address;
use crate::map::{Child, Content, Entry, Extent, NodeRef, span};

const HEADER_BYTES: usize = 16;
const LEAF_ITEM_BYTES: usize = 24;
const INNER_ITEM_BYTES: usize = 32;
const COUNTED_ITEM_BYTES: usize = 40;
/// The form of inner nodes whose items have a count.
const COUNTED: u8 = 1;
const UNKNOWN: u64 = u64::MAX;
const KIND_SHIFT: u32 = 62;

/// A node that matched its checksum.
pub(crate) struct Node {
    pub(crate) level: u8,
    pub(crate) first: u64,
    items: usize,
    item_bytes: usize,
    bytes: Bytes,
}

/// The children of an inner node or the blocks of a leaf, one by one: the form in which they change.
pub(crate) type Children = Vec<Child>;
pub(crate) type Entries = Vec<Option<Entry>>;

impl Node {
    /// Checks that the bytes make a node; everything read later stays within bounds.
    pub(crate) fn decode(bytes: Bytes) -> Option<Self> {
        let mut take = Take(&bytes);
        let (level, form, items) = (take.u8()?, take.u8()?, usize::from(take.u16()?));
        let (crcs, first) = (take.u32()? as usize, take.u64()?);
        let item_bytes = match (level, form) {
            (0, 0) => LEAF_ITEM_BYTES,
            (_, 0) => INNER_ITEM_BYTES,
            (1.., COUNTED) => COUNTED_ITEM_BYTES,
            _ => return None,
        };
        let expected = HEADER_BYTES + items * item_bytes + crcs.checked_mul(4)?;
        if level > 5 || bytes.len() != expected || items > 256 || crcs > 256 {
            return None;
        }
        // A node covers an aligned span, and no block's number is beyond 64 bits.
        let end = first.checked_add(span(level))?;
        if !end.is_multiple_of(span(level)) {
            return None;
        }
        let node = Self { level, first, items, item_bytes, bytes };
        node.ordered(crcs).then_some(node)
    }

    fn ordered(&self, crcs: usize) -> bool {
        let mut next = 0;
        (0..self.items).all(|i| {
            let item = self.item(i);
            let (first, last) = (usize::from(item[0]), usize::from(item[1]));
            let fits = next <= first && first <= last;
            next = last + 1;
            let data = self.level == 0 && item[23] >> 6 == 0;
            let start = usize::from(u16::from_le_bytes([item[2], item[3]]));
            fits && (!data || start + last - first < crcs)
        })
    }

    /// Bytes it takes in the cache.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn item(&self, i: usize) -> &[u8] {
        let size = self.item_bytes;
        &self.bytes[HEADER_BYTES + i * size..HEADER_BYTES + (i + 1) * size]
    }

    fn crc(&self, i: usize) -> u32 {
        let at = HEADER_BYTES + self.items * LEAF_ITEM_BYTES + i * 4;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    /// The first item that ends at or behind `index`.
    fn find(&self, index: u8) -> usize {
        let (mut low, mut high) = (0, self.items);
        while low < high {
            let middle = (low + high) / 2;
            if self.item(middle)[1] < index { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Appends a leaf's runs within `first..end` to `out`.
    pub(crate) fn extents(&self, first: u64, end: u64, out: &mut Vec<Extent>) {
        let base = self.first;
        let from = first.max(base) - base;
        let to = end.min(base + span(0)).saturating_sub(base);
        if from >= to {
            return;
        }
        for i in self.find(from as u8)..self.items {
            let item = LeafItem::of(self.item(i));
            let (start, stop) =
                (u64::from(item.first).max(from), (u64::from(item.last) + 1).min(to));
            if start >= to {
                break;
            }
            if item.kind == 0 {
                for block in start..stop {
                    let offset = block - u64::from(item.first);
                    let address = item.address.plus(offset * BLOCK_SIZE as u64);
                    let crc = self.crc(item.crc_start + offset as usize);
                    let entry = Entry::data(item.version, address, crc);
                    out.push(Extent { first: base + block, count: 1, entry });
                }
            } else {
                let entry = item.bare_entry();
                out.push(Extent { first: base + start, count: stop - start, entry });
            }
        }
    }

    /// The leaf's blocks.
    pub(crate) fn entries(&self) -> Entries {
        let mut runs = Vec::new();
        self.extents(self.first, self.first + span(0), &mut runs);
        let mut out = vec![None; 256];
        for run in runs {
            let start = (run.first - self.first) as usize;
            out[start..start + run.count as usize].fill(Some(run.entry));
        }
        out
    }

    /// Calls `each` with the children that overlap `first..end`: index of the first, how many, and
    /// what they are; until it returns false.
    pub(crate) fn visit(
        &self,
        first: u64,
        end: u64,
        each: &mut dyn FnMut(u64, u64, Child) -> bool,
    ) {
        let below = span(self.level - 1);
        let from = (first.max(self.first) - self.first) / below;
        let to = (end.saturating_sub(self.first)).div_ceil(below).min(256);
        if from >= to {
            return;
        }
        for i in self.find(from as u8)..self.items {
            let (start, last, child) = inner_item(self.item(i));
            if start >= to {
                break;
            }
            let (start, stop) = (start.max(from), (last + 1).min(to));
            if !each(start, stop - start, child) {
                break;
            }
        }
    }

    /// The inner node's children.
    pub(crate) fn children(&self) -> Children {
        let mut out = vec![Child::Absent; 256];
        let end = self.first + span(self.level);
        self.visit(self.first, end, &mut |start, count, child| {
            out[start as usize..(start + count) as usize].fill(child);
            true
        });
        out
    }
}

struct LeafItem {
    first: u8,
    last: u8,
    kind: u64,
    crc_start: usize,
    version: Version,
    address: Address,
}

impl LeafItem {
    fn of(item: &[u8]) -> Self {
        let place = le64(&item[16..]);
        Self {
            first: item[0],
            last: item[1],
            kind: place >> KIND_SHIFT,
            crc_start: usize::from(u16::from_le_bytes([item[2], item[3]])),
            version: Version::new(Epoch(le32(&item[4..])), Sequence(le64(&item[8..]))),
            address: Address(place & ((1 << 60) - 1)),
        }
    }

    fn bare_entry(&self) -> Entry {
        match self.kind {
            1 => Entry::hole(self.version),
            2 => Entry::missing(self.version),
            _ => Entry::lost(self.version),
        }
    }
}

fn inner_item(item: &[u8]) -> (u64, u64, Child) {
    let newest = Version::new(Epoch(le32(&item[8..])), Sequence(le64(&item[16..])));
    let child = match item[2] {
        0 => Child::Node(NodeRef {
            address: Address(le64(&item[24..])),
            length: le32(&item[4..]),
            crc: le32(&item[12..]),
            newest,
            missing: item[3] & 1 != 0,
            allocated: item
                .get(32..)
                .filter(|count| !count.is_empty())
                .map(le64)
                .filter(|count| *count != UNKNOWN),
        }),
        1 => Child::Hole(newest),
        2 => Child::Missing(newest),
        _ => Child::Lost(newest),
    };
    (u64::from(item[0]), u64::from(item[1]), child)
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn le64(bytes: &[u8]) -> u64 {
    u64::from(le32(bytes)) | u64::from(le32(&bytes[4..])) << 32
}

fn header(level: u8, form: u8, items: usize, crcs: usize, first: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + items * COUNTED_ITEM_BYTES + crcs * 4);
    out.put_u8(level);
    out.put_u8(form);
    out.put_u16(items as u16);
    out.put_u32(crcs as u32);
    out.put_u64(first);
    out
}

/// A leaf's bytes; runs of like entries become one item.
pub(crate) fn encode_leaf(first: u64, entries: &[Option<Entry>]) -> Vec<u8> {
    let mut items: Vec<(usize, usize, usize, Entry)> = Vec::new();
    let mut crcs = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let Some(entry) = entry else { continue };
        let joined = items.last_mut().filter(|(start, last, _, run)| {
            *last + 1 == i && run.version == entry.version && follows(run, i - *start, entry)
        });
        match joined {
            Some((_, last, ..)) => *last = i,
            None => items.push((i, i, crcs.len(), *entry)),
        }
        if let Content::Data { crc, .. } = entry.content {
            crcs.push(crc);
        }
    }
    let mut out = header(0, 0, items.len(), crcs.len(), first);
    for (start, last, crc_start, entry) in items {
        let place = match entry.content {
            Content::Data { address, .. } => address.0,
            Content::Hole => 1 << KIND_SHIFT,
            Content::Missing => 2 << KIND_SHIFT,
            Content::Lost => 3 << KIND_SHIFT,
        };
        out.put_u8(start as u8);
        out.put_u8(last as u8);
        out.put_u16(crc_start as u16);
        out.put_u32(entry.version.epoch.0);
        out.put_u64(entry.version.sequence.0);
        out.put_u64(place);
    }
    for crc in crcs {
        out.put_u32(crc);
    }
    out
}

fn follows(run: &Entry, blocks: usize, entry: &Entry) -> bool {
    match (run.content, entry.content) {
        (Content::Data { address: start, .. }, Content::Data { address, .. }) => {
            start.plus((blocks * BLOCK_SIZE) as u64) == address
        }
        (Content::Data { .. }, _) | (_, Content::Data { .. }) => false,
        (run, content) => run == content,
    }
}

/// An inner node's bytes, with counts or without; runs of like holes become one item.
pub(crate) fn encode_inner(level: u8, first: u64, children: &[Child], counts: bool) -> Vec<u8> {
    let mut items: Vec<(usize, usize, Child)> = Vec::new();
    for (i, child) in children.iter().enumerate() {
        if *child == Child::Absent {
            continue;
        }
        let joined = items.last_mut().filter(|(_, last, run)| {
            *last + 1 == i && run == child && !matches!(child, Child::Node(_))
        });
        match joined {
            Some((_, last, _)) => *last = i,
            None => items.push((i, i, *child)),
        }
    }
    let mut out = header(level, if counts { COUNTED } else { 0 }, items.len(), 0, first);
    for (start, last, child) in items {
        out.put_u8(start as u8);
        out.put_u8(last as u8);
        let (kind, missing, length, crc, address) = match child {
            Child::Node(node) => (0, node.missing, node.length, node.crc, node.address.0),
            Child::Hole(_) => (1, false, 0, 0, 0),
            Child::Missing(_) | Child::Absent => (2, true, 0, 0, 0),
            Child::Lost(_) => (3, true, 0, 0, 0),
        };
        let newest = child.newest();
        out.put_u8(kind);
        out.put_u8(u8::from(missing));
        out.put_u32(length);
        out.put_u32(newest.epoch.0);
        out.put_u32(crc);
        out.put_u64(newest.sequence.0);
        out.put_u64(address);
        if counts {
            out.put_u64(child.allocated().unwrap_or(UNKNOWN));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_covers_an_aligned_span_of_numbers_that_there_are() {
        let inner = |first: u64| {
            let children = vec![Child::Hole(Version::new(Epoch(1), Sequence(1))); 256];
            Node::decode(encode_inner(1, first, &children, true).into())
        };
        assert!(inner(0).is_some() && inner(3 * span(1)).is_some());
        assert!(inner(span(0)).is_none(), "in the middle of another's span");
        assert!(inner(u64::MAX - span(1) + 1).is_none(), "its end has no number");
        assert!(inner(u64::MAX - 7).is_none());
        assert!(Node::decode(encode_leaf(4, &[None; 256]).into()).is_none());
    }
}

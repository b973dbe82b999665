//! Reading a pool's files offline, for people: `mountctl decode FILE`.
//!
//! Takes the bytes of a superblock, a checkpoint slot or a segment, says what they are and what
//! stands in them, a line an item, and what is wrong with them. Never panics and never writes,
//! whatever the bytes are; what can't be decoded is skipped up to the next record that can.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::disk::{Area, Disk};
use crate::format::record::{Logged, Operation};
use crate::format::{
    SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SLOT_BYTES, SLOT_MAGIC, SUPERBLOCK_MAGIC, SegmentHeader,
    Slot, Superblock,
};
use crate::log::{Found, NO_SEGMENT, SegmentReader};
use crate::map::{Child, Content};
use crate::{LogNumber, SegmentId};

/// Bytes as a disk with one segment.
struct Bytes<'a>(&'a [u8]);

impl Disk for Bytes<'_> {
    fn read(&self, _: Area, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let found = self.0.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write(&self, _: Area, _: u64, _: &[io::IoSlice<'_>]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync(&self, _: Area) -> io::Result<()> {
        Ok(())
    }
    fn prepare(&self, _: Area, _: u64, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn write_out(&self, _: Area, _: u64, _: u64) {}
    fn forget(&self, _: Area, _: u64, _: u64) {}
    fn length(&self, _: Area) -> io::Result<Option<u64>> {
        Ok(Some(self.0.len() as u64))
    }
    fn capacity(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// Describes a file of a pool.
///
/// # Errors
/// If the file can't be read.
pub fn file(path: &Path) -> io::Result<String> {
    Ok(bytes(&std::fs::read(path)?))
}

/// Describes the bytes of a superblock, a checkpoint slot or a segment.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = if bytes.starts_with(&SUPERBLOCK_MAGIC) {
        superblock(bytes, &mut out)
    } else if bytes.starts_with(&SLOT_MAGIC) {
        slot(bytes, &mut out)
    } else if bytes.starts_with(&SEGMENT_MAGIC) {
        segment(bytes, &mut out)
    } else if bytes.iter().all(|byte| *byte == 0) {
        writeln!(out, "{} bytes of zeros: not written yet", bytes.len())
    } else {
        writeln!(out, "no part of a pool: unknown magic")
    };
    out
}

fn superblock(bytes: &[u8], out: &mut String) -> std::fmt::Result {
    match Superblock::decode(bytes) {
        Ok(found) => writeln!(
            out,
            "superblock: {} segments of {} bytes, tag {:016x}",
            found.segments, found.segment_bytes, found.tag
        ),
        Err(error) => writeln!(out, "superblock: {error}"),
    }
}

fn slot(bytes: &[u8], out: &mut String) -> std::fmt::Result {
    let Some(slot) = Slot::decode(bytes) else {
        return writeln!(
            out,
            "checkpoint slot: torn or rotten ({} of {SLOT_BYTES} bytes)",
            bytes.len()
        );
    };
    writeln!(out, "checkpoint {}, tag {:016x}", slot.number, slot.tag)?;
    writeln!(
        out,
        "  roll forward from {} at {:?} (use {}, opening {:08x}); durable up to {}",
        slot.roll_from, slot.roll_at, slot.roll_use, slot.roll_opening, slot.durable
    )?;
    writeln!(out, "  body: {} bytes in {} chunks", slot.body_bytes, slot.chunks.len())?;
    slot.chunks.iter().try_for_each(|chunk| {
        writeln!(out, "    {:?} + {} crc {:08x}", chunk.address, chunk.length, chunk.crc)
    })
}

fn segment(bytes: &[u8], out: &mut String) -> std::fmt::Result {
    let Some(header) = SegmentHeader::decode(bytes) else {
        return writeln!(out, "segment: its header is torn or rotten");
    };
    writeln!(
        out,
        "segment {}, use {}, opening {:08x}, pool tag {:016x}, first {}",
        header.segment.0, header.use_count, header.opening, header.tag, header.first
    )?;
    if header.successor != NO_SEGMENT {
        writeln!(out, "  goes on in segment {}, use {}", header.successor.0, header.successor_use)?;
    }
    records(bytes, header, out)
}

/// The records of a segment; behind a gap, those that are still whole.
fn records(bytes: &[u8], header: SegmentHeader, out: &mut String) -> std::fmt::Result {
    let disk = Bytes(bytes);
    let mut reader = SegmentReader::new(&disk, header.segment, bytes.len() as u64);
    let under = (header.use_count, header.opening);
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    loop {
        while let Some(found) = reader.record(offset, under, true) {
            record(offset, &found, out)?;
            offset = found.next;
        }
        writeln!(out, "{offset:#010x} no whole record")?;
        match reader.search(offset, under, LogNumber(0)) {
            Some((at, _)) => {
                writeln!(
                    out,
                    "           skipped {} bytes to a record that is whole",
                    at - offset
                )?;
                offset = at;
            }
            None => return Ok(()),
        }
    }
}

fn record(offset: u64, found: &Found, out: &mut String) -> std::fmt::Result {
    let header = &found.header;
    write!(out, "{offset:#010x} {} durable {} ", header.log, header.durable)?;
    let version = header.version;
    write!(out, "slice {} ", header.slice)?;
    operation(&found.logged, version, out)?;
    if let Some(state) = &found.logged.state {
        write!(out, ", state of {} bytes", state.len())?;
    }
    writeln!(out)
}

fn operation(
    logged: &Logged,
    version: mooring_terms::Version,
    out: &mut String,
) -> std::fmt::Result {
    let mut blocks = |name, blocks: &crate::format::record::Blocks| {
        let (count, stored) = (blocks.crcs.len(), blocks.stored_count());
        write!(out, "{name} {version} block {} + {count} ({stored} stored)", blocks.first)
    };
    match &logged.operation {
        Operation::Write(found) => blocks("write", found),
        Operation::Copy(found) => blocks("copy", found),
        Operation::Repair(found) => blocks("repair", found),
        Operation::Discard(range) => write!(out, "discard {version} {range:?}"),
        Operation::CopyHole(range) => write!(out, "copy of a hole {version} {range:?}"),
        Operation::CopyLost(range) => write!(out, "copy of what is lost {version} {range:?}"),
        Operation::Control(bytes) => write!(out, "control {version}, {} bytes", bytes.len()),
        Operation::State => write!(out, "state"),
        Operation::Supersede => write!(out, "supersede after {version}"),
        Operation::Position => write!(out, "position {version}"),
        Operation::Joined => write!(out, "joined"),
        Operation::Create => write!(out, "create"),
        Operation::Remove => write!(out, "remove"),
        Operation::Snapshot(id) => write!(out, "snapshot {id} at {version}"),
        Operation::RemoveSnapshot(id) => write!(out, "remove snapshot {id}"),
        Operation::Moved(moved) => {
            write!(out, "moved {} blocks:", moved.len())?;
            moved.iter().try_for_each(|m| write!(out, " {} from {:?}", m.block, m.from))
        }
        Operation::Kept(inner) => {
            write!(out, "kept: ")?;
            operation(inner, version, out)
        }
        Operation::Node(bytes) => node(bytes, out),
        Operation::Chunk(bytes) => write!(out, "checkpoint chunk of {} bytes", bytes.len()),
    }
}

fn node(bytes: &bytes::Bytes, out: &mut String) -> std::fmt::Result {
    let Some(node) = crate::format::node::Node::decode(bytes.clone()) else {
        return write!(out, "map node that makes no sense");
    };
    write!(out, "map node, level {}, from block {}:", node.level, node.first)?;
    if node.level > 0 {
        let children = node.children();
        let count = |kind: fn(&Child) -> bool| children.iter().filter(|child| kind(child)).count();
        let nodes = count(|child| matches!(child, Child::Node(_)));
        let holes = count(|child| matches!(child, Child::Hole(_)));
        let missing = count(|child| matches!(child, Child::Missing(_)));
        let lost = count(|child| matches!(child, Child::Lost(_)));
        return write!(out, " {nodes} nodes, {holes} holes, {missing} missing, {lost} lost");
    }
    let entries = node.entries();
    let count = |kind: fn(&Content) -> bool| {
        entries.iter().flatten().filter(|entry| kind(&entry.content)).count()
    };
    let data = count(|content| matches!(content, Content::Data { .. }));
    let holes = count(|content| *content == Content::Hole);
    let missing = count(|content| *content == Content::Missing);
    let lost = count(|content| *content == Content::Lost);
    write!(out, " {data} data, {holes} holes, {missing} missing, {lost} lost")
}

/// Names a segment's file in a pool directory.
#[must_use]
pub fn segment_file(segment: SegmentId) -> String {
    format!("segment.{:08}", segment.0)
}

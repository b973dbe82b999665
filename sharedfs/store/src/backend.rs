//! redb's file, on blocks.
//!
//! ```text
//!   block 0    magic "MOORTREE"   8 format u32   12 zeros u32   16 length of the file in bytes u64
//!              24 zeros           4092 crc u32 over bytes 0..4092
//!   block 1 .. the file
//! ```
//! redb writes pages, its header aside, so that reading a block to write a part of it is seldom.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mooring_sharedfs_core::{BlockAddress, Run};
use mooring_terms::{BLOCK_SIZE, crc32c};
use redb::StorageBackend;

use crate::Blocks;

const MAGIC: [u8; 8] = *b"MOORTREE";
const FORMAT: u32 = 1;
const CRC_AT: usize = BLOCK_SIZE - 4;
const BLOCK: u64 = BLOCK_SIZE as u64;

/// A file of bytes on the blocks from `first` on.
#[derive(Debug)]
pub(crate) struct BlockFile<B> {
    blocks: Arc<B>,
    first: BlockAddress,
    length: Mutex<u64>,
}

impl<B: Blocks> BlockFile<B> {
    /// Opens the file; an empty one, if nothing was ever written.
    pub(crate) fn open(blocks: Arc<B>, first: BlockAddress) -> io::Result<Self> {
        let mut header = vec![0; BLOCK_SIZE];
        blocks.read(first, &mut header)?;
        let length = if header.iter().all(|&byte| byte == 0) { 0 } else { decode(&header)? };
        Ok(Self { blocks, first, length: Mutex::new(length) })
    }

    fn length(&self) -> MutexGuard<'_, u64> {
        self.length.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blocks that hold the bytes `from..end`.
    fn blocks_of(&self, from: u64, end: u64) -> Run {
        let (first, behind) = (from / BLOCK, end.div_ceil(BLOCK));
        Run::new(self.first.plus(1 + first), behind - first)
    }
}

fn encode(length: u64) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&length.to_le_bytes());
    header.resize(CRC_AT, 0);
    let crc = crc32c(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

fn decode(header: &[u8]) -> io::Result<u64> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the tree's header is damaged");
    let sound = header[..8] == MAGIC
        && header[8..12] == FORMAT.to_le_bytes()
        && header[CRC_AT..] == crc32c(&header[..CRC_AT]).to_le_bytes();
    let (length, _) = header[16..].split_first_chunk::<8>().ok_or_else(damaged)?;
    if sound { Ok(u64::from_le_bytes(*length)) } else { Err(damaged()) }
}

impl<B: Blocks> StorageBackend for BlockFile<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(*self.length())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        if end > *self.length() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if out.is_empty() {
            return Ok(());
        }
        let run = self.blocks_of(offset, end);
        let begin = (offset % BLOCK) as usize;
        if begin == 0 && out.len().is_multiple_of(BLOCK_SIZE) {
            return self.blocks.read(run.start, out);
        }
        let mut buffer = vec![0; run.count as usize * BLOCK_SIZE];
        self.blocks.read(run.start, &mut buffer)?;
        out.copy_from_slice(&buffer[begin..begin + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut length = self.length();
        if len < *length {
            // What is cut off reads as zeros if the file grows again.
            let rest = len.next_multiple_of(BLOCK).min(*length) - len;
            if rest > 0 {
                drop(length);
                self.write(len, &vec![0; rest as usize])?;
                length = self.length();
            }
            let cut = self.blocks_of(len.next_multiple_of(BLOCK), *length);
            if len.next_multiple_of(BLOCK) < *length {
                self.blocks.discard(cut)?;
            }
        }
        self.blocks.write(self.first, &encode(len))?;
        *length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.blocks.flush()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let run = self.blocks_of(offset, offset + data.len() as u64);
        let begin = (offset % BLOCK) as usize;
        if begin == 0 && data.len().is_multiple_of(BLOCK_SIZE) {
            return self.blocks.write(run.start, data);
        }
        let mut buffer = vec![0; run.count as usize * BLOCK_SIZE];
        let last = buffer.len() - BLOCK_SIZE;
        self.blocks.read(run.start, &mut buffer[..BLOCK_SIZE])?;
        if last > 0 {
            self.blocks.read(run.start.plus(run.count - 1), &mut buffer[last..])?;
        }
        buffer[begin..begin + data.len()].copy_from_slice(data);
        self.blocks.write(run.start, &buffer)
    }
}

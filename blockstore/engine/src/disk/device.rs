//! A pool on a whole block device (or a plain file that stands for one).
//!
//! ```text
//!   0        64 KiB       128 KiB      192 KiB     1 MiB
//!   | super  | slot 0     | slot 1     | unused    | segment 0 | segment 1 | ...
//! ```
//! Taking a device refuses one that holds a file system, a partition table or anything else that
//! it knows by its magic, unless it is forced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{Advice, FlockOperation, OFlags};

use super::{Area, Disk, drop_cached, start_write_out, write_all_at};
use crate::format::{SUPERBLOCK_BYTES, Superblock};
use crate::{EngineError, Result, SegmentId};

const SLOT_BYTES: u64 = 64 << 10;
const SEGMENTS_START: u64 = 1 << 20;

/// What a device may hold that we must not overwrite: offset, magic, name.
const STRANGERS: &[(u64, &[u8], &str)] = &[
    (0x438, &[0x53, 0xef], "an ext file system"),
    (0, b"XFSB", "an XFS file system"),
    (0x1_0040, b"_BHRfS_M", "a btrfs file system"),
    (4086, b"SWAPSPACE2", "a swap area"),
    (4086, b"SWAP-SPACE", "a swap area"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (512, b"LABELONE", "an LVM physical volume"),
    (0, b"LABELONE", "an LVM physical volume"),
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a RAID member"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a RAID member"),
    (0x1_0400, &[0x10, 0x20, 0xf5, 0xf2], "an F2FS file system"),
    (0x400, &[0x10, 0x20, 0xf5, 0xf2], "an F2FS file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (54, b"FAT", "a FAT file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (0, b"hsqs", "a squashfs image"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (510, &[0x55, 0xaa], "a partition table or boot sector"),
];

/// A block device as a [`Disk`].
pub struct DeviceDisk {
    file: File,
    size: u64,
    segment_bytes: OnceLock<u64>,
}

impl DeviceDisk {
    /// Takes the device at `path` for this process alone.
    ///
    /// # Errors
    /// [`EngineError::InUse`] if it is mounted or taken; [`EngineError::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| EngineError::Io { operation: "open", area: Area::Superblock, source };
        let device = std::fs::metadata(path).map_err(failed)?.file_type().is_block_device();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if device {
            // On a block device O_EXCL without O_CREAT means: nobody else has claimed it, no
            // mount, no RAID, no other pool.
            options.custom_flags(OFlags::EXCL.bits().cast_signed());
        }
        let file = options.open(path).map_err(|error| {
            if error.raw_os_error() == Some(libc::EBUSY) {
                EngineError::InUse(path.display().to_string())
            } else {
                failed(error)
            }
        })?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| EngineError::InUse(path.display().to_string()))?;
        let size = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))
            .map_err(|error| failed(error.into()))?;
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        let disk = Self { file, size, segment_bytes: OnceLock::new() };
        let mut first = vec![0; SUPERBLOCK_BYTES];
        if disk.read(Area::Superblock, 0, &mut first).is_ok()
            && let Ok(superblock) = Superblock::decode(&first)
        {
            disk.learn(superblock.segment_bytes);
        }
        Ok(disk)
    }

    /// What the device holds that is not ours, as a person would name it; `None` if nothing that
    /// is known.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn stranger(&self) -> io::Result<Option<&'static str>> {
        for (offset, magic, name) in STRANGERS {
            let mut found = vec![0; magic.len()];
            if offset + magic.len() as u64 <= self.size {
                self.file.read_exact_at(&mut found, *offset)?;
                if found == *magic {
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    }

    /// Wipes what [`DeviceDisk::stranger`] looks at, so that the device is free for a pool.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn wipe(&self) -> io::Result<()> {
        super::write_zeros(&self.file, 0, SEGMENTS_START.min(self.size))?;
        self.file.sync_data()
    }

    /// Tells the segment size of the pool that is made here.
    pub(crate) fn learn(&self, segment_bytes: u64) {
        let _ = self.segment_bytes.set(segment_bytes);
    }

    fn start(&self, area: Area) -> io::Result<u64> {
        Ok(match area {
            Area::Superblock => 0,
            Area::Checkpoint(slot) => SLOT_BYTES * (1 + u64::from(slot)),
            Area::Segment(SegmentId(number)) => {
                let segment_bytes = self.segment_bytes.get().ok_or(io::ErrorKind::InvalidInput)?;
                SEGMENTS_START + u64::from(number) * segment_bytes
            }
        })
    }
}

impl Disk for DeviceDisk {
    fn read(&self, area: Area, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, self.start(area)? + offset)
    }

    fn write(&self, area: Area, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        if area == Area::Superblock
            && let Some(first) = parts.first()
            && let Ok(superblock) = Superblock::decode(first)
        {
            self.learn(superblock.segment_bytes);
        }
        write_all_at(&self.file, self.start(area)? + offset, parts)
    }

    fn sync(&self, _: Area) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn prepare(&self, area: Area, bytes: u64, _: bool) -> io::Result<()> {
        // Before the segment size is known, only the fixed areas are asked for.
        if self.start(area)? + bytes > self.size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn write_out(&self, area: Area, offset: u64, bytes: u64) {
        if let Ok(start) = self.start(area) {
            start_write_out(&self.file, start + offset, bytes);
        }
    }

    fn forget(&self, area: Area, offset: u64, bytes: u64) {
        if let Ok(start) = self.start(area) {
            drop_cached(&self.file, start + offset, bytes);
        }
    }

    fn length(&self, area: Area) -> io::Result<Option<u64>> {
        Ok(match area {
            Area::Superblock => {
                // Another pool's superblock is found by its magic, whatever else is there.
                let mut magic = [0; 8];
                self.file.read_exact_at(&mut magic, 0)?;
                (magic == crate::format::SUPERBLOCK_MAGIC).then_some(SUPERBLOCK_BYTES as u64)
            }
            Area::Checkpoint(_) => Some(SLOT_BYTES),
            Area::Segment(_) => {
                let segment_bytes = self.segment_bytes.get().copied().unwrap_or(0);
                (self.start(area)? + segment_bytes <= self.size).then_some(segment_bytes)
            }
        })
    }

    fn capacity(&self) -> io::Result<u64> {
        Ok(self.size.saturating_sub(SEGMENTS_START))
    }
}

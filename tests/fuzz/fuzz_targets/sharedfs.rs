//! All that lies on a shared volume but file data. Input: what it is to be, then its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_sharedfs_core::format::{
    Batch, BatchHeader, CountRow, EntryRow, ExtentRow, InodeRow, Key, PlaceRow, ReplyRow,
    SessionRow, StateRow, Superblock,
};
use mooring_sharedfs_core::{Acl, Ino};

/// What is decoded comes back from its encoding.
macro_rules! comes_back {
    ($kind:ty, $bytes:expr) => {
        if let Some(row) = <$kind>::decode($bytes) {
            assert_eq!(<$kind>::decode(&row.encode()).as_ref(), Some(&row));
        }
    };
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match kind {
        0 => {
            let mut block = bytes.to_vec();
            block.resize(mooring_terms::BLOCK_SIZE, 0);
            if let Ok(superblock) = Superblock::decode(&block) {
                assert!(superblock.is_sound());
                assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
            }
        }
        1 => {
            let Ok((header, _)) = BatchHeader::decode(bytes) else { return };
            let Ok(batch) = Batch::decode_body(header, bytes) else { return };
            let BatchHeader { number, tag, attachment, previous_crc, .. } = header;
            let (again, _) = Batch::encode(number, tag, attachment, previous_crc, &batch.records);
            let (header, _) = BatchHeader::decode(&again).expect("it was encoded");
            let records = Batch::decode_body(header, &again).expect("it was encoded").records;
            assert_eq!(records, batch.records);
        }
        2 => {
            if let Some(key) = Key::decode(bytes) {
                assert_eq!(key.encode(), bytes, "two ways to write a key");
            }
        }
        3 => {
            if let Some(row) = InodeRow::decode(Ino(1), bytes) {
                assert_eq!(InodeRow::decode(Ino(1), &row.encode()), Some(row));
            }
        }
        4 => comes_back!(StateRow, bytes),
        5 => comes_back!(EntryRow, bytes),
        6 => comes_back!(PlaceRow, bytes),
        7 => comes_back!(ExtentRow, bytes),
        8 => comes_back!(SessionRow, bytes),
        9 => comes_back!(ReplyRow, bytes),
        10 => drop(Acl::decode(bytes)),
        _ => drop(CountRow::decode(bytes)),
    }
});

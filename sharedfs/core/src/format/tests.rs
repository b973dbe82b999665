use mooring_terms::{BLOCK_SIZE, Epoch, Sequence, Version};
use proptest::prelude::*;

use super::*;
use crate::tree::Changes;
use crate::{
    Attributes, BlockAddress, Cookie, Device, FileBlock, FileType, Ino, JournalNumber, Mode, Name,
    QuarantineNumber, RequestNumber, Run, SessionId, SlotIndex, Timestamp,
};

fn inode_row() -> InodeRow {
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    InodeRow {
        attributes: Attributes {
            ino: Ino(0x0102),
            file_type: FileType::Directory,
            mode: Mode::new(0o2755),
            uid: 1000,
            gid: 100,
            links: 3,
            size: 4096,
            blocks: 7,
            device: Device(0x0801),
            atime: time(-1, 999_999_999),
            mtime: time(2, 3),
            ctime: time(4, 5),
            btime: time(6, 7),
            change: 9,
        },
        flags: InodeFlags { inline: false, access_acl: true, default_acl: true, xattrs: false },
        parent: Ino(1),
        next_cookie: Cookie(17),
        entries: 14,
    }
}

fn superblock() -> Superblock {
    Superblock {
        tag: 0x1122_3344_5566_7788,
        slice_blocks: 1 << 20,
        journal: Run::new(BlockAddress(1), 1 << 14),
        data_first: BlockAddress(1 << 15),
        tree_first: BlockAddress(1 << 44),
    }
}

/// The first bytes of each structure as they have been since format 1: a change here is a new
/// format, and old volumes must stay readable.
#[test]
fn bytes_are_where_they_have_always_been() {
    let row = inode_row().encode();
    assert_eq!(row.len(), 125);
    assert_eq!(row[..9], [1, 2, 0xed, 0x05, 6, 0xe8, 3, 0, 0]);
    assert_eq!(row[45..53], (-1_i64).to_le_bytes());
    assert_eq!(row[93..101], 1_u64.to_le_bytes());

    let block = superblock().encode();
    assert_eq!(block[..16], *b"MOORSHFS\x01\0\0\0\0\0\0\0");
    assert_eq!(block[56..64], (1_u64 << 44).to_le_bytes());

    let (batch, _) = Batch::encode(JournalNumber(5), 6, 7, 8, &[Record::default()]);
    assert_eq!(batch[..24], *b"MOORJRNL\x01\0\0\0\x09\0\0\0\x05\0\0\0\0\0\0\0");
    assert_eq!(batch[64], 1);

    let key = Key::Entry(Ino(0x0102), Name::new(b"ab").unwrap()).encode();
    assert_eq!(key, [0x20, 0, 0, 0, 0, 0, 0, 1, 2, b'a', b'b']);
    let row =
        ExtentRow { run: Run::new(BlockAddress(0x0304), 0x0102), state: ExtentState::Unwritten };
    assert_eq!(row.encode(), [1, 1, 2, 1, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn inodes_and_superblocks_survive_their_encoding() {
    let row = inode_row();
    assert_eq!(InodeRow::decode(Ino(0x0102), &row.encode()), Some(row));
    assert_eq!(Superblock::decode(&superblock().encode()), Ok(superblock()));
}

#[test]
fn a_superblock_with_any_byte_changed_is_refused() {
    let block = superblock().encode();
    for at in 0..BLOCK_SIZE {
        let mut bad = block.clone();
        bad[at] ^= 1;
        assert!(Superblock::decode(&bad).is_err(), "byte {at}");
    }
    let lost = Superblock { journal: Run::new(BlockAddress(1), 1 << 21), ..superblock() };
    assert_eq!(Superblock::decode(&lost.encode()), Err(SuperblockError::Damaged));
}

#[test]
fn a_batch_with_any_byte_of_it_changed_is_refused() {
    let mut changes = Changes::default();
    changes.insert(vec![1, 2, 3], Some(vec![4; 30]));
    changes.insert(vec![5], None);
    let record = Record { changes, claims: Vec::new() };
    let (bytes, _) = Batch::encode(JournalNumber(1), 2, 3, 4, std::slice::from_ref(&record));
    let used = BatchHeader::BYTES + record.bytes();
    for at in 0..used {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let read = BatchHeader::decode(&bad).and_then(|(h, _)| Batch::decode_body(h, &bad));
        assert!(read.is_err(), "byte {at}");
    }
    let (header, _) = BatchHeader::decode(&bytes).unwrap();
    assert_eq!(Batch::decode_body(header, &bytes[..80]), Err(JournalError::Absent), "torn");
}

fn names() -> impl Strategy<Value = Name> {
    proptest::collection::vec(any::<u8>(), 1..=255)
        .prop_filter_map("not a name", |bytes| Name::new(&bytes).ok())
}

fn keys() -> impl Strategy<Value = Key> {
    let number = prop_oneof![0..4_u64, any::<u64>()];
    (0..13_u8, number.clone(), number, any::<u32>(), names()).prop_map(|(kind, a, b, c, name)| {
        match kind {
            0 => Key::State,
            1 => Key::Inode(Ino(a)),
            2 => Key::Entry(Ino(a), name),
            3 => Key::Place(Ino(a), Cookie(b)),
            4 => Key::Inline(Ino(a)),
            5 => Key::Extent(Ino(a), FileBlock(b)),
            6 => Key::Xattr(Ino(a), name.as_bytes().into()),
            7 => Key::Orphan(Ino(a)),
            8 => Key::Free(BlockAddress(a)),
            9 => Key::Session(SessionId(a)),
            10 => Key::Reply(SessionId(a), SlotIndex(c)),
            11 => Key::Reservation(SessionId(a), BlockAddress(b)),
            _ => Key::Quarantine(QuarantineNumber(a), BlockAddress(b)),
        }
    })
}

fn records() -> impl Strategy<Value = Record> {
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100));
    let change = (keys(), value);
    let bytes = proptest::collection::vec(any::<u8>(), 0..=INLINE_BYTES);
    let otherwise = prop_oneof![
        Just(Otherwise::Hole),
        (1..4096_u16).prop_map(|from| Otherwise::Zeros { from }),
        bytes.prop_map(Otherwise::Bytes),
    ];
    let claim = (any::<[u64; 4]>(), any::<u32>(), any::<u32>(), otherwise).prop_map(
        |(n, count, epoch, otherwise)| DataClaim {
            ino: Ino(n[0]),
            block: FileBlock(n[1]),
            run: Run::new(BlockAddress(n[2]), u64::from(count)),
            versions: Versions {
                oldest: Version::new(Epoch(epoch), Sequence(n[3])),
                newest: Version::new(Epoch(epoch), Sequence(n[0])),
            },
            otherwise,
        },
    );
    let changes = proptest::collection::vec(change, 0..8);
    (changes, proptest::collection::vec(claim, 0..4)).prop_map(|(changes, claims)| {
        let mut record = Record { claims, ..Record::default() };
        for (key, value) in changes {
            record.changes.insert(key.encode(), value);
        }
        record
    })
}

proptest! {
    #[test]
    fn keys_survive_and_sort_as_they_should(a in keys(), b in keys()) {
        let (x, y) = (a.encode(), b.encode());
        prop_assert_eq!(Key::decode(&x), Some(a.clone()));
        // Names of different lengths aside, which compare by bytes in both.
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }

    #[test]
    fn batches_survive(records in proptest::collection::vec(records(), 0..5), number in any::<u64>()) {
        let (bytes, crc) = Batch::encode(JournalNumber(number), 2, 3, 4, &records);
        let body: usize = records.iter().map(Record::bytes).sum();
        prop_assert_eq!(bytes.len() as u64, batch_blocks(body) * BLOCK_SIZE as u64);
        let (header, found) = BatchHeader::decode(&bytes).unwrap();
        prop_assert_eq!(found, crc);
        prop_assert_eq!(header.number, JournalNumber(number));
        prop_assert_eq!(Batch::decode_body(header, &bytes).unwrap().records, records);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let formatted: Vec<u8> = std::iter::once(1).chain(bytes.iter().copied()).collect();
        for bytes in [&bytes, &formatted] {
            if let Some(key) = Key::decode(bytes) {
                prop_assert_eq!(&key.encode(), bytes);
            }
            if let Some(row) = InodeRow::decode(Ino(1), bytes) {
                prop_assert_eq!(row.encode()[..117].to_vec(), bytes[..117].to_vec());
            }
            let _ = StateRow::decode(bytes);
            let _ = EntryRow::decode(bytes);
            let _ = PlaceRow::decode(bytes);
            if let Some(row) = ExtentRow::decode(bytes) {
                prop_assert_eq!(&row.encode(), bytes);
            }
            let _ = CountRow::decode(bytes);
            let _ = SessionRow::decode(bytes);
            if let Some(row) = ReplyRow::decode(bytes) {
                prop_assert_eq!(&row.encode(), bytes);
            }
            let _ = crate::Acl::decode(bytes);
            let _ = BatchHeader::decode(bytes);
        }
    }

    /// A body that passes its checksum and still is nonsense: a newer or faulty program's.
    #[test]
    fn no_body_makes_the_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..300), records in 0..4_u32) {
        let mut bytes = vec![0; BatchHeader::BYTES];
        bytes.extend_from_slice(&body);
        let header = BatchHeader {
            number: JournalNumber(1),
            tag: 0,
            attachment: 0,
            body_bytes: body.len() as u32,
            records,
            body_crc: mooring_terms::crc32c(&body),
            previous_crc: 0,
        };
        let _ = Batch::decode_body(header, &bytes);
    }
}

#[test]
fn rows_survive_their_encoding() {
    let state = StateRow {
        capacity: 1,
        free: 20,
        reserved: 3,
        quarantined: 4,
        charged: 5,
        inodes: 6,
        next_ino: Ino(7),
        next_session: SessionId(8),
        next_quarantine: QuarantineNumber(9),
        data_first: BlockAddress(10),
        slice_blocks: 11,
    };
    assert_eq!(StateRow::decode(&state.encode()), Some(state));
    let entry = EntryRow { ino: Ino(1), file_type: FileType::Socket, cookie: Cookie(2) };
    assert_eq!(EntryRow::decode(&entry.encode()), Some(entry));
    let name = Name::new(b"name").unwrap();
    let place = PlaceRow { ino: Ino(1), file_type: FileType::BlockDevice, name };
    assert_eq!(PlaceRow::decode(&place.encode()), Some(place));
    let session = SessionRow { node: 1, mount: 2, slots: 3 };
    assert_eq!(SessionRow::decode(&session.encode()), Some(session));
    let reply = ReplyRow { number: RequestNumber(4), reply: vec![1, 2] };
    assert_eq!(ReplyRow::decode(&reply.encode()), Some(reply));
    assert_eq!(CountRow::decode(&CountRow(77).encode()), Some(CountRow(77)));
    let mut overfull = state;
    overfull.charged = overfull.free + 1;
    assert_eq!(StateRow::decode(&overfull.encode()), None);
}

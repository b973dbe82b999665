use bytes::BufMut;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

use super::*;

const SIZE: u64 = 1 << 30;

fn agreed() -> Agreed {
    Agreed { export: "db".into(), structured: true, allocation: true }
}

fn said(command: u16, flags: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(REQUEST_MAGIC);
    bytes.put_u16(flags);
    bytes.put_u16(command);
    bytes.put_u64(0xc00c);
    bytes.put_u64(offset);
    bytes.put_u32(length);
    bytes
}

fn asked(command: u16, flags: u16, offset: u64, length: u32) -> Request {
    let mut input = BytesMut::from(&said(command, flags, offset, length)[..]);
    if command == command::WRITE && length < 1 << 20 {
        input.put_bytes(7, length as usize);
    }
    Decoder::default().next(&mut input).unwrap().unwrap()
}

fn checked(command: u16, flags: u16, offset: u64, length: u32) -> Result<Work, Errno> {
    asked(command, flags, offset, length).check(&agreed(), SIZE, false)
}

#[test]
fn requests_are_what_they_say() {
    assert_eq!(checked(command::READ, 0, 5, 6), Ok(Work::Read { offset: 5, length: 6 }));
    assert_eq!(
        checked(command::WRITE, flag::FUA, 4096, 3),
        Ok(Work::Write { offset: 4096, data: Bytes::from_static(&[7; 3]), fua: true })
    );
    assert_eq!(checked(command::FLUSH, 0, 0, 0), Ok(Work::Flush));
    let trim = Work::Trim { offset: 0, length: u32::MAX, fua: false };
    assert_eq!(asked(command::TRIM, 0, 0, u32::MAX).check(&agreed(), 1 << 40, false), Ok(trim));
    let zeroes = Work::WriteZeroes { offset: 1, length: 2, fua: true };
    let all = flag::FUA | flag::NO_HOLE | flag::FAST_ZERO;
    assert_eq!(checked(command::WRITE_ZEROES, all, 1, 2), Ok(zeroes));
    let status = Work::BlockStatus { offset: 0, length: 9, one: true };
    assert_eq!(checked(command::BLOCK_STATUS, flag::REQ_ONE, 0, 9), Ok(status));
    assert_eq!(checked(command::DISC, 0, 0, 0), Ok(Work::Disconnect));
    assert_eq!(checked(command::READ, 0, SIZE, 0), Ok(Work::Nothing));
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    for (command, flags, offset, length, errno) in [
        (command::READ, 0, SIZE - 1, 2, Errno::Invalid),
        (command::READ, 0, u64::MAX, 2, Errno::Invalid),
        (command::READ, 0, 0, REQUEST_MAX + 1, Errno::Invalid),
        (command::READ, flag::NO_HOLE, 0, 1, Errno::Invalid),
        (command::WRITE, 0, SIZE - 1, 2, Errno::NoSpace),
        (command::WRITE, flag::DF, 0, 2, Errno::Invalid),
        (command::WRITE_ZEROES, 0, SIZE, 1, Errno::NoSpace),
        (command::TRIM, 0, SIZE, 1, Errno::Invalid),
        (command::TRIM, flag::NO_HOLE, 0, 1, Errno::Invalid),
        (command::BLOCK_STATUS, 0, 0, 0, Errno::Invalid),
        (command::BLOCK_STATUS, 0, SIZE, 1, Errno::Invalid),
        (5, 0, 0, 1, Errno::Invalid),
        (8, 0, 0, 1, Errno::Invalid),
        (u16::MAX, 0, 0, 1, Errno::Invalid),
        (command::READ, 1 << 15, 0, 1, Errno::Invalid),
    ] {
        assert_eq!(checked(command, flags, offset, length), Err(errno), "{command} {flags}");
    }
    for command in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        let refused = asked(command, 0, 0, 1).check(&agreed(), SIZE, true);
        assert_eq!(refused, Err(Errno::Permission));
    }
    let simple = Agreed { structured: false, allocation: false, ..agreed() };
    let status = asked(command::BLOCK_STATUS, 0, 0, 1);
    assert_eq!(status.check(&simple, SIZE, false), Err(Errno::Invalid));
    assert_eq!(
        asked(command::READ, flag::DF, 0, 1).check(&simple, SIZE, false),
        Err(Errno::Invalid)
    );
}

#[test]
fn a_write_that_is_too_long_is_skipped_and_the_next_request_is_found() {
    let length = REQUEST_MAX + 5;
    let mut decoder = Decoder::default();
    let mut input = BytesMut::from(&said(command::WRITE, 0, 0, length)[..]);
    let mut left = length as usize;
    while left > 0 {
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert!(input.is_empty(), "what is skipped is not kept");
        assert!(decoder.wants() < 1 << 10);
        let piece = left.min(1 << 20);
        input.put_bytes(1, piece);
        left -= piece;
    }
    input.extend_from_slice(&said(command::FLUSH, 0, 0, 0));
    let refused = decoder.next(&mut input).unwrap().unwrap();
    assert_eq!(refused.holds(), 0);
    assert_eq!(refused.check(&agreed(), SIZE, false), Err(Errno::Invalid));
    assert_eq!(decoder.next(&mut input).unwrap().unwrap().command, command::FLUSH);
}

#[test]
fn what_is_no_request_is_known_by_its_first_word() {
    let mut input = BytesMut::from(&b"GET "[..]);
    assert_eq!(Decoder::default().next(&mut input), Err(NoRequest));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is said, in pieces of any length: each whole request comes out as it went in, and one
    /// that passes stays inside the export.
    #[test]
    fn requests_survive_any_cutting(
        requests in vec((0_u16..10, any::<u16>(), any::<u64>(), 0_u32..300), 1..8),
        near in any::<bool>(),
        piece in 1_usize..100,
    ) {
        let mut bytes = Vec::new();
        for (command, flags, offset, length) in &requests {
            let offset = if near { offset % (2 * SIZE) } else { *offset };
            bytes.extend(said(*command, flags & 0x1f, offset, *length));
            if *command == command::WRITE {
                bytes.put_bytes(*length as u8, *length as usize);
            }
        }
        let mut decoder = Decoder::default();
        let (mut input, mut found) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(request) = decoder.next(&mut input).unwrap() {
                found.push(request);
            }
        }
        prop_assert_eq!(found.len(), requests.len());
        for (request, (command, _, _, length)) in found.into_iter().zip(requests) {
            prop_assert_eq!((request.command, request.length), (command, length));
            if let Some(payload) = &request.payload {
                prop_assert!(payload.iter().all(|byte| *byte == length as u8));
            }
            let end = match request.check(&agreed(), SIZE, false) {
                Ok(Work::Read { offset, length }) => offset + u64::from(length),
                Ok(Work::Write { offset, data, .. }) => offset + data.len() as u64,
                Ok(Work::Trim { offset, length, .. }) => offset + u64::from(length),
                Ok(Work::WriteZeroes { offset, length, .. }) => offset + u64::from(length),
                Ok(Work::BlockStatus { offset, length, .. }) => offset + u64::from(length),
                _ => 0,
            };
            prop_assert!(end <= SIZE);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::default();
        let mut input = BytesMut::from(&bytes[..]);
        while let Ok(Some(request)) = decoder.next(&mut input) {
            let _ = request.check(&agreed(), SIZE, false);
        }
    }
}

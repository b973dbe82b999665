//! An NBD client: its handshake, then its requests, in pieces of any size.
//!
//! Input: flags (1: TLS is required, 2: nothing is written), the size of pieces, then what comes in them.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mooring_device::nbd::handshake::{Agreed, ExportInfo, Exports, Handshake, Security, Step};
use mooring_device::nbd::request::{Decoder, Work};

const SIZE: u64 = 1 << 20;

struct Two {
    read_only: bool,
}

impl Exports for Two {
    fn names(&self) -> Vec<String> {
        vec!["db".to_owned(), "log".to_owned()]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        let name = if name.is_empty() { "db" } else { name }.to_owned();
        let known = self.names().contains(&name);
        known.then_some(ExportInfo { name, size: SIZE, read_only: self.read_only })
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[flags, piece], bytes)) = input.split_first_chunk::<2>() else { return };
    let exports = Two { read_only: flags & 2 != 0 };
    let security = if flags & 1 == 0 { Security::Plain } else { Security::TlsRequired };
    let mut out = Vec::new();
    let mut handshake = Handshake::begin(security, &mut out);
    let (mut buffer, mut secured, mut told) = (BytesMut::new(), security == Security::Plain, None);
    let mut pieces = bytes.chunks(1 + usize::from(piece));
    for piece in pieces.by_ref() {
        buffer.extend_from_slice(piece);
        loop {
            out.clear();
            let step = handshake.advance(&mut buffer, &exports, &mut out);
            // One call takes one option: what it is answered with is bounded.
            assert!(out.len() <= 128 << 10, "{} bytes of answer", out.len());
            match step {
                Step::Again => {}
                Step::Wait => break,
                Step::StartTls => {
                    secured = true;
                    handshake.secured();
                }
                Step::End(_) => return,
                Step::Transmit(agreed) => {
                    assert!(secured, "in the clear");
                    told = Some(agreed);
                    break;
                }
            }
        }
        if told.is_some() {
            break;
        }
    }
    if let Some(agreed) = told {
        requests(&agreed, buffer, pieces, exports.read_only);
    }
});

fn requests<'a>(
    agreed: &Agreed,
    mut buffer: BytesMut,
    pieces: impl Iterator<Item = &'a [u8]>,
    read_only: bool,
) {
    let mut decoder = Decoder::default();
    for piece in std::iter::once(&[][..]).chain(pieces) {
        buffer.extend_from_slice(piece);
        loop {
            let request = match decoder.next(&mut buffer) {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(_) => return,
            };
            let (offset, length) = match request.check(agreed, SIZE, read_only) {
                Ok(Work::Read { offset, length } | Work::BlockStatus { offset, length, .. }) => {
                    (offset, u64::from(length))
                }
                Ok(Work::Write { offset, data, .. }) => {
                    assert!(!read_only);
                    (offset, data.len() as u64)
                }
                Ok(Work::Trim { offset, length, .. } | Work::WriteZeroes { offset, length, .. }) => {
                    assert!(!read_only);
                    (offset, u64::from(length))
                }
                Ok(Work::Disconnect) => return,
                Ok(Work::Flush | Work::Nothing) | Err(_) => continue,
            };
            assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= SIZE));
        }
    }
}

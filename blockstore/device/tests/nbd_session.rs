//! What an NBD client says, as the fuzzer begins with it.

#[path = "../../../tests/fuzz/seeds.rs"]
mod seeds;

use bytes::BytesMut;
use mooring_device::nbd::handshake::{ExportInfo, Exports, Handshake, Security, Step};
use mooring_device::nbd::request::Decoder;

struct One;

impl Exports for One {
    fn names(&self) -> Vec<String> {
        vec!["db".to_owned()]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        (name == "db").then(|| ExportInfo {
            name: name.to_owned(),
            size: 1 << 20,
            read_only: false,
        })
    }
}

/// An NBD client that asks for structured replies and the map of `db`, and then for all that can be
/// asked for.
fn nbd_session() -> Vec<u8> {
    let option = |code: u32, data: &[u8]| {
        [b"IHAVEOPT", &code.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
    };
    let context = b"base:allocation";
    let query = [
        &2_u32.to_be_bytes()[..],
        b"db",
        &1_u32.to_be_bytes(),
        &(context.len() as u32).to_be_bytes(),
        context,
    ];
    let request = |command: u16, length: u32, payload: &[u8]| {
        let head = [&0x2560_9513_u32.to_be_bytes()[..], &[0; 2], &command.to_be_bytes(), &[7; 8]];
        [&head.concat()[..], &4096_u64.to_be_bytes(), &length.to_be_bytes(), payload].concat()
    };
    let go = [&2_u32.to_be_bytes()[..], b"db", &0_u16.to_be_bytes()].concat();
    let mut bytes = [&3_u32.to_be_bytes()[..], &option(8, &[]), &option(3, &[])].concat();
    bytes.extend([option(10, &query.concat()), option(7, &go)].concat());
    bytes.extend(request(1, 16, &[9; 16]));
    for command in [0, 3, 4, 6, 7, 2] {
        bytes.extend(request(command, 512, &[]));
    }
    bytes
}

#[test]
fn the_fuzzers_seeds_are_nbd_sessions() {
    let session = nbd_session();
    let (mut input, mut out) = (BytesMut::from(&session[..]), Vec::new());
    let mut handshake = Handshake::begin(Security::Plain, &mut out);
    let agreed = loop {
        match handshake.advance(&mut input, &One, &mut out) {
            Step::Again => {}
            Step::Transmit(agreed) => break agreed,
            other => panic!("{other:?} after {out:?}"),
        }
    };
    assert!(agreed.structured && agreed.allocation);
    let (mut decoder, mut count) = (Decoder::default(), 0);
    while let Ok(Some(request)) = decoder.next(&mut input) {
        assert!(request.check(&agreed, 1 << 20, false).is_ok());
        count += 1;
    }
    assert_eq!((count, input.len()), (7, 0));
    seeds::check("nbd", "session", &[&[0, 255][..], &session].concat());
}

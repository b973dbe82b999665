//! The request decoder on random and mutated bytes: it never panics, and never makes data up.

#[path = "../../../tests/fuzz/seeds.rs"]
mod seeds;

use mooring_fuse::abi::{Frame, InHeader, opcode};
use mooring_fuse::request::{Malformed, Operation, Request};
use proptest::collection::vec;
use proptest::prelude::{
    ProptestConfig, TestCaseError, any, prop_assert, prop_assert_eq, proptest,
};

fn message(code: u32, extension_len: u16, body: &[u8]) -> Vec<u8> {
    let header = InHeader {
        len: (InHeader::SIZE + body.len()) as u32,
        opcode: code,
        unique: 42,
        node: 2,
        extension_len,
        ..InHeader::default()
    };
    let mut frame = Frame::new();
    header.encode(&mut frame);
    [frame.bytes(), body].concat()
}

/// All names and data in a request.
fn parts<'a>(operation: &Operation<'a>) -> Vec<&'a [u8]> {
    match *operation {
        Operation::Lookup { name }
        | Operation::Unlink { name }
        | Operation::Rmdir { name }
        | Operation::Mknod { name, .. }
        | Operation::Mkdir { name, .. }
        | Operation::Link { name, .. }
        | Operation::Create { name, .. }
        | Operation::Getxattr { name, .. }
        | Operation::Removexattr { name } => vec![name],
        Operation::Symlink { name, target } => vec![name, target],
        Operation::Rename { name, to_name, .. } => vec![name, to_name],
        Operation::Setxattr { name, .. } => vec![name],
        _ => vec![],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.header.len as usize, bytes.len());
        }
    }

    #[test]
    fn random_bodies_never_panic(code in 0_u32..64, extensions in 0_u16..4, body in vec(any::<u8>(), 0..300)) {
        let bytes = message(code, extensions, &body);
        match Request::decode(&bytes) {
            Ok(Request { operation: Operation::Write { data, .. }, .. }) => {
                prop_assert_eq!(data.len() + 40 + usize::from(extensions) * 8, body.len());
            }
            Ok(Request { operation: Operation::Setxattr { name, value, .. }, .. }) => {
                prop_assert_eq!(name.len() + value.len() + 9 + usize::from(extensions) * 8, body.len());
            }
            Ok(request) => {
                for name in parts(&request.operation) {
                    prop_assert!(!name.contains(&0));
                }
            }
            Err(malformed) => prop_assert_eq!(malformed.unique(), Some(42)),
        }
    }

    #[test]
    fn a_mutated_write_is_a_write_or_nothing(at in 0_usize..4176, to in any::<u8>(), cut in 0_usize..4176) {
        let mut body = vec![0; 40 + 4096];
        body[16..20].copy_from_slice(&4096_u32.to_ne_bytes());
        let mut bytes = message(opcode::WRITE, 0, &body);
        let whole = Request::decode(&bytes);
        let Ok(Request { operation: Operation::Write { offset, data, .. }, .. }) = whole else {
            return Err(TestCaseError::fail("a whole write must be one"));
        };
        prop_assert_eq!((offset, data.len()), (0, 4096));
        prop_assert!(Request::decode(&bytes[..cut]).is_err());
        bytes[at] = to;
        if let Ok(Request { operation: Operation::Write { data, .. }, .. }) = Request::decode(&bytes) {
            prop_assert_eq!(data.len(), 4096);
        }
    }
}

fn decoded(code: u32, body: &[u8]) -> Result<String, Malformed> {
    Request::decode(&message(code, 0, body)).map(|request| format!("{:?}", request.operation))
}

#[test]
fn names_come_in_the_kernels_order() {
    let rename = [&9_u64.to_ne_bytes()[..], &2_u32.to_ne_bytes(), &[0; 4], b"old\0new\0"].concat();
    assert_eq!(
        Request::decode(&message(opcode::RENAME2, 0, &rename)).map(|it| it.operation),
        Ok(Operation::Rename { name: b"old", to: 9, to_name: b"new", flags: 2 })
    );
    let symlink = message(opcode::SYMLINK, 0, b"name\0target\0");
    assert_eq!(
        Request::decode(&symlink).map(|it| it.operation),
        Ok(Operation::Symlink { name: b"name", target: b"target" })
    );
}

#[test]
fn names_without_an_end_are_refused() {
    assert!(decoded(opcode::LOOKUP, b"name").is_err());
    assert!(decoded(opcode::LOOKUP, b"name\0more\0").is_err());
    assert!(decoded(opcode::LINK, b"12345678").is_err());
    assert!(decoded(opcode::RENAME, b"12345678old\0").is_err());
}

#[test]
fn what_is_not_known_is_no_error() {
    assert_eq!(decoded(63, b"anything"), Ok("Unknown".to_owned()));
}

#[test]
fn the_fuzzers_seeds_are_requests() {
    let mut write = vec![0; 40 + 4096];
    write[16..20].copy_from_slice(&4096_u32.to_ne_bytes());
    let messages = [
        ("lookup", message(opcode::LOOKUP, 0, b"disk\0")),
        ("write", message(opcode::WRITE, 0, &write)),
        ("read", message(opcode::READ, 0, &[0; 40])),
        ("getattr", message(opcode::GETATTR, 0, &[0; 16])),
        ("forgets", message(opcode::BATCH_FORGET, 0, &[0; 8])),
        ("rename", message(opcode::RENAME2, 0, b"0123456789abcdefold\0new\0")),
        ("setxattr", message(opcode::SETXATTR, 0, b"\x02\0\0\0\0\0\0\0user.a\0xy")),
    ];
    for (name, bytes) in messages {
        assert!(Request::decode(&bytes).is_ok(), "{name}");
        seeds::check("fuse", name, &bytes);
    }
}

#[test]
fn lengths_that_contradict_are_refused() {
    assert!(
        Request::decode(&message(opcode::BATCH_FORGET, 0, &[255, 255, 255, 255, 0, 0, 0, 0]))
            .is_err()
    );
    assert!(decoded(opcode::LOOKUP, b"").is_err());
    assert!(decoded(opcode::READ, &[0; 39]).is_err());
    assert!(Request::decode(&message(opcode::GETATTR, 3, &[0; 16])).is_err());
}

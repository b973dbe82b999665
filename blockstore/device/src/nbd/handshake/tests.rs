use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

use super::super::proto::OPTION_REPLY_MAGIC;
use super::*;

struct Two;

impl Exports for Two {
    fn names(&self) -> Vec<String> {
        vec!["db".to_owned(), "log".to_owned()]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        let found = if name.is_empty() { "db" } else { name };
        let known = self.names().contains(&found.to_owned());
        known.then(|| ExportInfo {
            name: found.to_owned(),
            size: 1 << 30,
            read_only: found == "log",
        })
    }
}

/// A client at work, and what it was told.
struct Client {
    handshake: Handshake,
    input: BytesMut,
    out: Vec<u8>,
}

impl Client {
    fn new(security: Security) -> Self {
        let mut out = Vec::new();
        let handshake = Handshake::begin(security, &mut out);
        assert_eq!(out, [&b"NBDMAGICIHAVEOPT"[..], &[0, 3]].concat());
        let mut client = Self { handshake, input: BytesMut::new(), out: Vec::new() };
        assert_eq!(client.say(&3_u32.to_be_bytes()), Step::Wait);
        client
    }

    fn say(&mut self, bytes: &[u8]) -> Step {
        self.input.extend_from_slice(bytes);
        loop {
            match self.handshake.advance(&mut self.input, &Two, &mut self.out) {
                Step::Again => {}
                other => return other,
            }
        }
    }

    fn option(&mut self, option: u32, data: &[u8]) -> Step {
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.put_u32(option);
        bytes.put_u32(data.len() as u32);
        bytes.extend_from_slice(data);
        self.say(&bytes)
    }

    /// The replies so far: option, kind, data.
    fn replies(&mut self) -> Vec<(u32, u32, Vec<u8>)> {
        let out = std::mem::take(&mut self.out);
        let mut rest: &[u8] = &out;
        let mut replies = Vec::new();
        while !rest.is_empty() {
            assert_eq!(rest.get_u64(), OPTION_REPLY_MAGIC);
            let (option, kind, length) = (rest.get_u32(), rest.get_u32(), rest.get_u32());
            let (data, behind) = rest.split_at(length as usize);
            replies.push((option, kind, data.to_vec()));
            rest = behind;
        }
        replies
    }

    fn kinds(&mut self) -> Vec<u32> {
        self.replies().into_iter().map(|(_, kind, _)| kind).collect()
    }
}

fn go(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_u32(name.len() as u32);
    data.put_slice(name.as_bytes());
    data.put_u16(infos.len() as u16);
    infos.iter().for_each(|info| data.put_u16(*info));
    data
}

fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_u32(name.len() as u32);
    data.put_slice(name.as_bytes());
    data.put_u32(queries.len() as u32);
    for query in queries {
        data.put_u32(query.len() as u32);
        data.put_slice(query.as_bytes());
    }
    data
}

#[test]
fn a_client_that_asks_for_everything_gets_what_there_is() {
    let mut client = Client::new(Security::Plain);
    assert_eq!(client.option(kind::STRUCTURED_REPLY, &[]), Step::Wait);
    client.option(kind::SET_META_CONTEXT, &contexts("db", &[ALLOCATION, "qemu:dirty-bitmap:a"]));
    assert_eq!(client.kinds(), [reply::ACK, reply::META_CONTEXT, reply::ACK]);
    let agreed = Agreed { export: "db".into(), structured: true, allocation: true };
    let wishes = go("db", &[info::NAME, info::DESCRIPTION, info::BLOCK_SIZE, 77]);
    assert_eq!(client.option(kind::GO, &wishes), Step::Transmit(agreed));
    let replies = client.replies();
    let told: Vec<u16> =
        replies.iter().filter(|r| r.1 == reply::INFO).map(|r| (&r.2[..]).get_u16()).collect();
    assert_eq!(told, [info::EXPORT, info::BLOCK_SIZE, info::NAME, info::DESCRIPTION]);
    let mut export = &replies[0].2[2..];
    assert_eq!(export.get_u64(), 1 << 30);
    let flags = export.get_u16();
    assert_eq!(flags & export::READ_ONLY, 0);
    assert_ne!(flags & export::CAN_MULTI_CONN & export::CAN_MULTI_CONN, 0);
    assert_eq!(replies.last().unwrap().1, reply::ACK);
}

#[test]
fn read_only_exports_say_so_and_promise_no_writes() {
    let mut client = Client::new(Security::Plain);
    client.option(kind::INFO, &go("log", &[]));
    let mut export = &client.replies()[0].2[10..];
    let flags = export.get_u16();
    assert_ne!(flags & export::READ_ONLY, 0);
    assert_eq!(flags & (export::SEND_TRIM | export::SEND_WRITE_ZEROES), 0);
}

#[test]
fn an_old_client_is_given_an_export_by_its_name_alone() {
    let mut client = Client::new(Security::Plain);
    let agreed = Agreed { export: "db".into(), structured: false, allocation: false };
    assert_eq!(client.option(kind::EXPORT_NAME, b""), Step::Transmit(agreed));
    assert_eq!(client.out.len(), 10, "it said that it needs no zeroes");
    let mut client = Client::new(Security::Plain);
    assert_eq!(client.option(kind::EXPORT_NAME, b"none"), Step::End(Farewell::NoExport));
}

#[test]
fn what_is_not_known_or_makes_no_sense_is_refused_and_the_client_may_go_on() {
    let mut client = Client::new(Security::Plain);
    let mut too_many = go("db", &[]);
    too_many[6] = 200;
    let long = "x".repeat(4097);
    for (option, data, kind) in [
        (99, vec![1, 2, 3], reply::ERR_UNSUP),
        (4, vec![], reply::ERR_UNSUP),
        (11, vec![], reply::ERR_UNSUP),
        (kind::LIST, vec![0], reply::ERR_INVALID),
        (kind::STRUCTURED_REPLY, vec![0], reply::ERR_INVALID),
        (kind::SET_META_CONTEXT, contexts("db", &[ALLOCATION]), reply::ERR_INVALID),
        (kind::GO, go("none", &[]), reply::ERR_UNKNOWN),
        (kind::GO, vec![], reply::ERR_INVALID),
        (kind::GO, vec![0xff; 6], reply::ERR_INVALID),
        (kind::GO, too_many, reply::ERR_INVALID),
        (kind::GO, go(&long, &[]), reply::ERR_TOO_BIG),
        (kind::STARTTLS, vec![], reply::ERR_POLICY),
    ] {
        assert_eq!(client.option(option, &data), Step::Wait);
        let replies = client.replies();
        assert_eq!((replies.len(), replies[0].0, replies[0].1), (1, option, kind), "{option}");
    }
    client.option(kind::LIST, &[]);
    assert_eq!(client.kinds(), [reply::SERVER, reply::SERVER, reply::ACK]);
    assert_eq!(client.option(kind::ABORT, &[]), Step::End(Farewell::Aborted));
}

#[test]
fn an_option_that_is_too_long_is_skipped_without_being_kept() {
    let mut client = Client::new(Security::Plain);
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.put_u32(kind::INFO);
    bytes.put_u32(OPTION_MAX + 10);
    client.say(&bytes);
    assert_eq!(client.kinds(), [reply::ERR_TOO_BIG]);
    for _ in 0..OPTION_MAX / 1000 + 1 {
        client.say(&[7; 1000][..1000.min((OPTION_MAX + 10) as usize)]);
        assert!(client.input.len() < 1000);
        if matches!(client.handshake.state, State::Skipping(left) if left < 1000) {
            break;
        }
    }
    let State::Skipping(left) = client.handshake.state else { panic!("it stopped skipping") };
    client.say(&vec![7; left as usize]);
    client.option(kind::LIST, &[]);
    assert_eq!(client.kinds().last(), Some(&reply::ACK));
}

#[test]
fn nothing_is_answered_before_tls_where_it_is_required() {
    let mut client = Client::new(Security::TlsRequired);
    for option in [kind::LIST, kind::INFO, kind::GO, kind::STRUCTURED_REPLY, 99] {
        client.option(option, &go("db", &[]));
        assert_eq!(client.kinds(), [reply::ERR_TLS_REQD]);
    }
    assert_eq!(client.option(kind::STARTTLS, &[0]), Step::Wait);
    assert_eq!(client.kinds(), [reply::ERR_INVALID]);
    assert_eq!(client.option(kind::STARTTLS, &[]), Step::StartTls);
    client.handshake.secured();
    assert_eq!(client.kinds(), [reply::ACK]);
    client.option(kind::STARTTLS, &[]);
    assert_eq!(client.kinds(), [reply::ERR_INVALID]);
    assert!(matches!(client.option(kind::GO, &go("db", &[])), Step::Transmit(_)));
    let mut old = Client::new(Security::TlsRequired);
    assert_eq!(old.option(kind::EXPORT_NAME, b"db"), Step::End(Farewell::NoTls));
}

#[test]
fn a_context_counts_for_the_export_it_was_chosen_for_and_the_last_choice_counts() {
    let allocation = |choices: &[Vec<u8>]| {
        let mut client = Client::new(Security::Plain);
        client.option(kind::STRUCTURED_REPLY, &[]);
        for choice in choices {
            client.option(kind::SET_META_CONTEXT, choice);
        }
        match client.option(kind::GO, &go("db", &[])) {
            Step::Transmit(agreed) => agreed.allocation,
            other => panic!("{other:?}"),
        }
    };
    assert!(allocation(&[contexts("", &[ALLOCATION])]));
    assert!(!allocation(&[contexts("log", &[ALLOCATION])]));
    assert!(!allocation(&[contexts("db", &[ALLOCATION]), contexts("db", &[])]));
    assert!(!allocation(&[contexts("db", &[ALLOCATION]), vec![1]]));
    assert!(!allocation(&[contexts("db", &["base:"])]));
    let mut client = Client::new(Security::Plain);
    client.option(kind::STRUCTURED_REPLY, &[]);
    client.replies();
    for queries in [&[][..], &["base:"], &[ALLOCATION]] {
        client.option(kind::LIST_META_CONTEXT, &contexts("db", queries));
        assert_eq!(client.kinds(), [reply::META_CONTEXT, reply::ACK], "{queries:?}");
    }
}

#[test]
fn what_is_no_handshake_ends_it() {
    let mut client = Client::new(Security::Plain);
    assert_eq!(client.say(b"GET / HTTP/1.1\r\n"), Step::End(Farewell::Nonsense));
    let mut out = Vec::new();
    let mut handshake = Handshake::begin(Security::Plain, &mut out);
    let mut input = BytesMut::from(&b"\xff\xff\xff\xff"[..]);
    let step = handshake.advance(&mut input, &Two, &mut out);
    assert_eq!(step, Step::End(Farewell::Nonsense));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Options with random data, and random bytes, in pieces of any length: it never panics, and never
    /// keeps more than an option.
    #[test]
    fn random_options_never_panic(
        options in vec((0_u32..14, vec(any::<u8>(), 0..60), any::<bool>()), 0..12),
        garbage in vec(any::<u8>(), 0..40),
        piece in 1_usize..50,
        required in any::<bool>(),
    ) {
        let security = if required { Security::TlsRequired } else { Security::Plain };
        let mut out = Vec::new();
        let mut handshake = Handshake::begin(security, &mut out);
        let mut bytes = vec![0, 0, 0, 3];
        for (option, data, honest) in options {
            bytes.extend_from_slice(b"IHAVEOPT");
            bytes.put_u32(option);
            let claimed = if honest { data.len() as u32 } else { u32::from(data.first().copied().unwrap_or(9)) << 12 };
            bytes.put_u32(claimed);
            bytes.extend_from_slice(&data);
        }
        bytes.extend_from_slice(&garbage);
        let mut input = BytesMut::new();
        'said: for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                let before = (input.len(), out.len());
                match handshake.advance(&mut input, &Two, &mut out) {
                    Step::Wait => break,
                    Step::Again => prop_assert!(before != (input.len(), out.len())),
                    Step::StartTls => handshake.secured(),
                    Step::Transmit(_) | Step::End(_) => break 'said,
                }
            }
            prop_assert!(input.len() <= OPTION_MAX as usize + 16);
        }
    }
}

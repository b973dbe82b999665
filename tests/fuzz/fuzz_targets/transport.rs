//! Frames between nodes, greetings and tokens. Input: the size of pieces, then what comes in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_transport::Token;
use mooring_transport::assembler::{Assembler, encode_joined};
use mooring_transport::proto::{Hello, Kind};

fuzz_target!(|input: &[u8]| {
    let Some((&piece, bytes)) = input.split_first() else { return };
    let mut assembler = Assembler::new(Kind::Message);
    'pieces: for mut piece in bytes.chunks(1 + usize::from(piece) * 17) {
        loop {
            match assembler.feed_message(&mut piece) {
                Ok(Some(message)) => {
                    let joined = encode_joined(&message);
                    let mut again = Assembler::new(Kind::Message);
                    assert_eq!(again.feed_message(&mut &joined[..]), Ok(Some(message)));
                }
                Ok(None) => break,
                Err(_) => break 'pieces,
            }
        }
    }
    if let Ok(hello) = Hello::decode(bytes) {
        assert_eq!(&hello.encode()[..], bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = text.parse::<Token>()
    {
        assert!(token.reveal().parse::<Token>().is_ok());
    }
});

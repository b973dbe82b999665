//! The guard before the crate `zeromq`. Input: the size of pieces, then what comes in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_transport::zeromq::guard::{Allowance, Guard};

fuzz_target!(|input: &[u8]| {
    let Some((&piece, bytes)) = input.split_first() else { return };
    let judge = |piece: usize, allowed| {
        let mut guard = Guard::new();
        bytes.chunks(piece).try_for_each(|piece| guard.inspect(piece, allowed))
    };
    // What is refused doesn't depend on the pieces, and who may say little may not say more.
    for allowed in [Allowance::SMALL, Allowance::MESSAGE] {
        assert_eq!(judge(1 + usize::from(piece), allowed), judge(input.len(), allowed));
    }
    if judge(input.len(), Allowance::SMALL).is_ok() {
        assert!(judge(input.len(), Allowance::MESSAGE).is_ok());
    }
});

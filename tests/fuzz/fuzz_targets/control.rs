//! What the control planes of nodes say to each other. Input: what it is to be, then its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_control::untrusted::{self, BODIES};

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match BODIES.get(usize::from(kind)) {
        Some(body) => drop((body.survives)(bytes)),
        None if kind & 1 == 0 => untrusted::frames(bytes),
        None => untrusted::pieces(bytes),
    }
});

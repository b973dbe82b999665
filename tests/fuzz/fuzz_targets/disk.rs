//! Everything on a pool's disk, as `mountctl decode` reads it. Checksums always fit when fuzzing.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    assert!(!mooring_engine::decode::bytes(input).is_empty());
});

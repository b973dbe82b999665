//! What the kernel asks over /dev/fuse.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_fuse::request::Request;

fuzz_target!(|input: &[u8]| {
    if let Ok(request) = Request::decode(input) {
        assert_eq!(request.header.len as usize, input.len());
    }
});

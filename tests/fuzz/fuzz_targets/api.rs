//! What users write: bodies of requests, and words on the command line. Input: which, then text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mooring_api::{AddPool, ByteSize, CreateVolume, NodeName, PoolId, Span, VolumeName};

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match which % 6 {
        0 => drop(serde_json::from_str::<AddPool>(text)),
        1 => drop(serde_json::from_str::<CreateVolume>(text)),
        2 => {
            if let Ok(size) = text.parse::<ByteSize>() {
                let _ = size.to_string();
            }
        }
        3 => {
            if let Ok(span) = text.parse::<Span>() {
                let _ = span.to_string();
            }
        }
        4 => {
            if let Ok(name) = text.parse::<VolumeName>() {
                assert_eq!(name.to_string(), text);
            }
        }
        _ => {
            drop(text.parse::<NodeName>());
            drop(text.parse::<PoolId>());
        }
    }
});

//! Any bytes at all decode or are refused: no panic, no hang.
//!
//! The two modules are taken as sources: as a dependency, portwatch would bring the build of its
//! kernel programs along, with the fuzzer's flags.

#![no_main]
#![allow(dead_code, reason = "what only the rest of portwatch uses")]

#[path = "../../../portwatch/src/decode.rs"]
mod decode;
#[path = "../../../portwatch/src/event.rs"]
mod event;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(decode::Record::Owners { conflict, .. }) = decode::record(bytes) {
        assert!(conflict.holders.len() <= 8);
    }
});

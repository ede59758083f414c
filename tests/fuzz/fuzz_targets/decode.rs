//! Any bytes at all decode or are refused: no panic, no hang.
//!
//! The two modules are taken as sources: as a dependency, portwatch would bring the build of its
//! kernel programs along, with the fuzzer's flags.

#![no_main]
#![allow(
    dead_code,
    unused_imports,
    unfulfilled_lint_expectations,
    reason = "what only the rest of portwatch uses, and how the library is linted"
)]

/// In a folder's module, so that theirs are found beside them.
#[path = "../../../portwatch/src"]
mod sources {
    pub mod decode;
    pub mod event;
}

use sources::{decode, event};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(decode::Record::Owners { conflict, .. }) = decode::record(bytes) {
        assert!(conflict.holders.len() <= 8);
    }
});

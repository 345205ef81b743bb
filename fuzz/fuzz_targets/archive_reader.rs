//! Whatever the bytes are: no panic, the two ways in agree, and nothing is read twice.

#![no_main]

mod look;

use libfuzzer_sys::fuzz_target;
use look::{look, with_checksums};

fuzz_target!(|bytes: &[u8]| {
    look(bytes);
    if let Some(bytes) = with_checksums(bytes) {
        look(&bytes);
    }
});

//! Image files of all kinds that are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod scratch;

fuzz_target!(|bytes: &[u8]| {
    // A header may claim what takes seconds to decode and fits the limits; the fuzzer is after other things.
    let path = scratch::file("image.png", bytes);
    if let Err(error) = taper_data::decode(&path) {
        let text = error.to_string();
        // The panic of a decoder is contained and no finding: the same file is reported as unreadable.
        assert!(!text.is_empty());
    }
});

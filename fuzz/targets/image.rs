//! Image files of all kinds that are read.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod scratch;

/// What decodes in milliseconds.
const FEW_PIXELS: u64 = 1 << 22;
/// What is refused by its header alone.
const TOO_MANY_PIXELS: u64 = 178_956_970;

fuzz_target!(|bytes: &[u8]| {
    // The panic of a decoder is contained and no finding: the file is reported as unreadable. libFuzzer's own hook would
    // end the process before that.
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    // A header may claim what takes seconds to decode and is allowed; the fuzzer is after other things.
    if (FEW_PIXELS..TOO_MANY_PIXELS).contains(&claimed_pixels(bytes)) {
        return;
    }
    let path = scratch::file("image.png", bytes);
    if let Err(error) = taper_data::decode(&path) {
        assert!(error.to_string().contains("image.png"), "{error}");
    }
});

fn claimed_pixels(bytes: &[u8]) -> u64 {
    let claimed = std::panic::catch_unwind(|| {
        let reader = image::ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().ok()?;
        reader.into_dimensions().ok()
    });
    claimed.ok().flatten().map_or(0, |(width, height)| u64::from(width) * u64::from(height))
}

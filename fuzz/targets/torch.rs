//! Weights of torch.save, in the zip and in the legacy form. The input is also taken as the pickle of a zip archive that
//! is made here, so that the fuzzer need not find checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use taper_hub::weights::WeightsFile;

mod scratch;

fuzz_target!(|bytes: &[u8]| {
    parse(bytes);
    if bytes.first() == Some(&0x80) {
        let storage: &[u8] = &[0x3f; 64];
        parse(&scratch::zip(&[("m/data.pkl", bytes), ("m/byteorder", b"little"), ("m/data/0", storage)]));
    }
});

fn parse(bytes: &[u8]) {
    if let Ok(file) = WeightsFile::parse(bytes, Path::new("FILE")) {
        let values: usize = file.tensors.values().map(|tensor| tensor.elem_count()).sum();
        assert!(values <= 8 * bytes.len(), "{values} values of {} bytes", bytes.len());
    }
}

//! Weights of torch.save, in the zip and in the legacy form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use taper_hub::weights::WeightsFile;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = WeightsFile::parse(bytes, Path::new("FILE")) {
        let values: usize = file.tensors.values().map(|tensor| tensor.elem_count()).sum();
        assert!(values <= 8 * bytes.len(), "{values} values of {} bytes", bytes.len());
    }
});

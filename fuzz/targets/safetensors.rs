//! Weights of safetensors, hostile headers among them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use taper_hub::weights::{Documents, Pretrained, WeightsFile};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = WeightsFile::parse(bytes, Path::new("FILE")) else { return };
    let values: usize = file.tensors.values().map(|tensor| tensor.elem_count()).sum();
    assert!(values <= 8 * bytes.len(), "{values} values of {} bytes", bytes.len());
    let _ = Pretrained::of(file, Path::new("FILE"), &Documents::default());
});

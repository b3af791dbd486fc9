//! The JSON files of runs and of other libraries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taper_data::{Preprocess, SplitManifest};
use taper_models::ModelConfig;

fuzz_target!(|bytes: &[u8]| {
    let _ = taper_train::check_manifest(bytes);
    if let Ok(split) = serde_json::from_slice::<SplitManifest>(bytes) {
        let _ = split.resolve(&taper_data::Glyphs::new());
    }
    if let Ok(preprocess) = serde_json::from_slice::<Preprocess>(bytes) {
        if preprocess.validate().is_ok() {
            let _ = preprocess.eval_transform();
        }
    }
    if let Ok(model) = serde_json::from_slice::<ModelConfig>(bytes) {
        if model.validate().is_ok() {
            let _ = model.cost(100);
        }
    }
});

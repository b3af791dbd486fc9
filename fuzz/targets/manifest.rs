//! The JSON files of runs and of other libraries.
#![no_main]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use libfuzzer_sys::fuzz_target;
use taper_data::{Preprocess, SplitManifest};
use taper_hub::weights::{Document, Documents, FileForm, Pretrained, WeightsFile};
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
    if let Ok(text) = std::str::from_utf8(bytes) {
        describe(text);
    }
});

/// Reads the text as what lies beside a ResNet-18 of another library.
fn describe(text: &str) {
    let document = || Some(Document { path: PathBuf::from("config.json"), text: text.to_owned() });
    let both =
        [Documents { config: document(), preprocessor: None }, Documents { config: None, preprocessor: document() }];
    for documents in both {
        let (metadata, stored_types) = (BTreeMap::new(), BTreeMap::new());
        let form = FileForm::Safetensors;
        let file = WeightsFile { tensors: resnet18().clone(), metadata, form, stored_types };
        if let Ok(found) = Pretrained::of(file, Path::new("FILE"), &documents) {
            assert!(found.description.preprocessing.validate().is_ok());
            assert_eq!(found.class_names().len(), 10);
        }
    }
}

fn resnet18() -> &'static BTreeMap<String, Tensor> {
    static TENSORS: OnceLock<BTreeMap<String, Tensor>> = OnceLock::new();
    TENSORS.get_or_init(|| {
        let vars = candle_nn::VarMap::new();
        let model = ModelConfig::by_name("resnet18").unwrap();
        model.build(10, taper_models::seeded(&vars, 0, &Device::Cpu)).unwrap();
        let data = vars.data().lock().unwrap();
        data.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
    })
}

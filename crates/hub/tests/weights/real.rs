//! Real weights, where `TAPER_TEST_DATA` names a folder that has them.

use std::path::PathBuf;

use candle_core::Device;
use candle_nn::VarMap;
use taper_hub::weights::{Head, Naming, Origin, Pretrained, load};
use taper_models::seeded;

fn weights(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("TAPER_TEST_DATA").map(|folder| PathBuf::from(folder).join("weights").join(name));
    let found = path.filter(|path| path.is_file());
    if found.is_none() {
        eprintln!("not run: no weights/{name} in the folder of TAPER_TEST_DATA");
    }
    found
}

#[test]
fn imagenet_weights_fit_whole_and_without_their_head() {
    for (name, num_tensors) in [("resnet18", 122), ("resnet50", 320)] {
        let Some(path) = weights(&format!("{name}_imagenet.safetensors")) else { return };
        let pretrained = Pretrained::open(&path).unwrap();
        assert_eq!((pretrained.naming, pretrained.num_classes), (Naming::Torchvision, Some(1000)));
        assert_eq!(serde_json::to_value(&pretrained.architecture).unwrap()["name"], name);
        assert_eq!(pretrained.description.preprocessing_from, Origin::ImageNetDefault);
        for (head, num_classes, num_missing) in [(Head::Loaded, 1000, 0), (Head::Replaced, 7, 2)] {
            let vars = VarMap::new();
            pretrained.architecture.build(num_classes, seeded(&vars, 0, &Device::Cpu)).unwrap();
            let report = load(&pretrained.tensors, &vars, head, &path).unwrap();
            assert_eq!((report.loaded.len(), report.missing.len()), (num_tensors - num_missing, num_missing));
        }
    }
}

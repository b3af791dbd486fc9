//! All names of all depths, held against what the libraries themselves give.

use std::collections::BTreeMap;

use candle_core::Device;
use candle_nn::VarMap;
use serde_json::Value;
use sha2::{Digest, Sha256};
use taper_hub::weights::Naming;
use taper_models::{ModelConfig, ResNetConfig, Stem, seeded};

use crate::data;

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(data("golden/weights/names.json")).unwrap()).unwrap()
}

fn config(depth: usize, stem: Stem) -> ModelConfig {
    let config = ResNetConfig { stem, ..ResNetConfig::default() };
    match depth {
        18 => ModelConfig::ResNet18(config),
        34 => ModelConfig::ResNet34(config),
        50 => ModelConfig::ResNet50(config),
        101 => ModelConfig::ResNet101(config),
        _ => ModelConfig::ResNet152(config),
    }
}

fn shapes(config: &ModelConfig) -> BTreeMap<String, Vec<usize>> {
    let vars = VarMap::new();
    config.build(1000, seeded(&vars, 0, &Device::Cpu)).unwrap();
    let vars = vars.data().lock().unwrap();
    vars.iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect()
}

/// As `weight_names.py` writes them.
fn lines(shapes: &BTreeMap<String, Vec<usize>>, naming: Naming) -> Vec<String> {
    let line = |(name, shape): (&String, &Vec<usize>)| format!("{} {shape:?}", naming.to_theirs(name).unwrap());
    let mut lines: Vec<String> = shapes.iter().map(line).collect();
    lines.sort();
    lines
}

fn sha256(lines: &[String]) -> String {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn all_tensors_of_all_depths_have_the_libraries_names_and_shapes() {
    let golden = golden();
    for depth in [18, 34, 50, 101, 152] {
        for (stem, letter) in [(Stem::ImageNet, ""), (Stem::ResNetD, "d")] {
            let shapes = shapes(&config(depth, stem));
            let network = format!("resnet{depth}{letter}");
            let namings: &[Naming] = match stem {
                Stem::ResNetD => &[Naming::Timm],
                _ => &[Naming::Torchvision, Naming::Timm, Naming::Transformers],
            };
            for naming in namings {
                let lines = lines(&shapes, *naming);
                let expected = golden["sha256"][naming.as_str()][&network].as_str().unwrap();
                assert_eq!(sha256(&lines), expected, "{network} of {naming:?}: {lines:#?}");
                for name in shapes.keys() {
                    assert_eq!(naming.to_ours(&naming.to_theirs(name).unwrap()), *name);
                }
            }
        }
    }
}

#[test]
fn the_smallest_of_transformers_is_listed() {
    let golden = golden();
    let expected: Vec<&str> =
        golden["transformers_resnet18"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(lines(&shapes(&config(18, Stem::ImageNet)), Naming::Transformers), expected);
}

//! Frozen layers: what gets a gradient, and which running statistics move.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use candle_nn::{ModuleT, VarMap};
use taper_models::{BaseNetConfig, HeadInit, ModelConfig, ResNetConfig, Stem, seeded_frozen};

fn small(name: &str) -> ModelConfig {
    let resnet = ResNetConfig { stem: Stem::Cifar, input_size: 8, ..ResNetConfig::default() };
    match name {
        "basenet" => ModelConfig::BaseNet(BaseNetConfig {
            width: 0.0625,
            depths: [1, 1, 0, 0],
            input_size: 8,
            ..BaseNetConfig::default()
        }),
        "resnet18-d" => ModelConfig::ResNet18(ResNetConfig { stem: Stem::ResNetD, input_size: 32, ..resnet }),
        _ => ModelConfig::ResNet18(resnet),
    }
}

/// The bits of every variable.
fn bits(vars: &VarMap) -> BTreeMap<String, Vec<u64>> {
    let vars = vars.data().lock().unwrap();
    let of = |tensor: &Tensor| -> Vec<u64> {
        let flat = tensor.flatten_all().unwrap();
        match flat.to_vec1::<f32>() {
            Ok(values) => values.iter().map(|value| u64::from(value.to_bits())).collect(),
            Err(_) => flat.to_vec1::<i64>().unwrap().iter().map(|value| *value as u64).collect(),
        }
    };
    vars.iter().map(|(name, var)| (name.clone(), of(var.as_tensor()))).collect()
}

fn is_buffer(name: &str) -> bool {
    name.contains("running_") || name.ends_with("num_batches_tracked")
}

/// The first two parts of a name, or the first where the parameter is right below: `layer1.0`, `conv1`.
fn block(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    parts[..parts.len().saturating_sub(1).clamp(1, 2)].join(".")
}

/// Model, policy, and first parts of the names that are trained.
const CASES: [(&str, &str, &[&str]); 8] = [
    ("resnet18", "none", &["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]),
    ("resnet18", "until:layer4", &["layer4", "fc"]),
    ("resnet18", "until:layer4.1", &["layer4.1", "fc"]),
    ("resnet18", "backbone", &["fc"]),
    ("resnet18-d", "until:layer1", &["layer1", "layer2", "layer3", "layer4", "fc"]),
    ("resnet18-d", "until:fc", &["fc"]),
    ("basenet", "until:stages.1", &["stages.1", "head"]),
    ("basenet", "backbone", &["head"]),
];

#[test]
fn only_what_is_trained_gets_gradients_and_statistics() {
    for (name, freeze, trained) in CASES {
        let (config, vars) = (small(name), VarMap::new());
        let frozen = config.layers().frozen(&freeze.parse().unwrap()).unwrap();
        let network = config.build(3, seeded_frozen(&vars, 1, &Device::Cpu, frozen)).unwrap();
        let is_trained = |name: &str| trained.iter().any(|part| name == *part || name.starts_with(&format!("{part}.")));
        let before = bits(&vars);
        let [height, width] = config.input_size();
        let images = Tensor::randn(0f32, 1.0, (4, height, width, 3), &Device::Cpu).unwrap();
        let gradients = taper_kernels::backward(network.forward_t(&images, true).unwrap()).unwrap();
        for (parameter, var) in vars.data().lock().unwrap().iter().filter(|(name, _)| !is_buffer(name)) {
            assert_eq!(gradients.get(var).is_some(), is_trained(parameter), "{name} {freeze}: {parameter}");
        }
        // No other gradient was computed: not the images', not that of an activation before the first trained layer.
        let num_trained = before.keys().filter(|name| !is_buffer(name) && is_trained(name)).count();
        assert_eq!(gradients.get_ids().count(), num_trained, "{name} {freeze}");
        let after = bits(&vars);
        for (parameter, bits) in &before {
            let moves = is_buffer(parameter) && is_trained(parameter);
            assert_eq!(after[parameter] != *bits, moves, "{name} {freeze}: {parameter}");
        }
        let blocks: BTreeSet<String> = before.keys().filter(|name| is_trained(name)).map(|name| block(name)).collect();
        assert!(blocks.len() >= trained.len(), "{blocks:?}");
    }
}

#[test]
fn a_frozen_backbone_has_no_history() {
    let (config, vars) = (small("resnet18"), VarMap::new());
    let frozen = config.layers().frozen(&"backbone".parse().unwrap()).unwrap();
    let network = config.build(3, seeded_frozen(&vars, 1, &Device::Cpu, frozen)).unwrap();
    let images = Tensor::randn(0f32, 1.0, (2, 8, 8, 3), &Device::Cpu).unwrap();
    let features = network.backbone.forward_t(&images, true).unwrap();
    assert!(!features.track_op());
    assert_eq!(features.dims(), [2, config.num_features()]);
    // In training a frozen backbone computes what it computes in evaluation, bit for bit.
    let evaluated = network.backbone.forward_t(&images, false).unwrap();
    assert_eq!(features.to_vec2::<f32>().unwrap(), evaluated.to_vec2::<f32>().unwrap());
    assert!(network.head.forward_t(&features, true).unwrap().track_op());
}

#[test]
fn frozen_parameters_follow_their_variables() {
    let (config, vars) = (small("resnet18"), VarMap::new());
    let network = config.build(3, seeded_frozen(&vars, 1, &Device::Cpu, vec!["fc".to_owned()])).unwrap();
    let features = Tensor::ones((1, 512), candle_core::DType::F32, &Device::Cpu).unwrap();
    let var = vars.data().lock().unwrap()["fc.bias"].clone();
    var.set(&Tensor::new(&[10f32, 20.0, 30.0], &Device::Cpu).unwrap()).unwrap();
    let logits = network.head.forward_t(&features, true).unwrap().to_vec2::<f32>().unwrap();
    assert!(logits[0][2] > logits[0][1] && logits[0][1] > logits[0][0] && logits[0][2] > 20.0, "{logits:?}");
}

#[test]
fn a_head_of_zeros_gives_zeros() {
    let ModelConfig::ResNet18(resnet) = small("resnet18") else { unreachable!() };
    let config = ModelConfig::ResNet18(ResNetConfig { head_init: HeadInit::Zero, ..resnet });
    let network = config.build(3, seeded_frozen(&VarMap::new(), 1, &Device::Cpu, Vec::new())).unwrap();
    let images = Tensor::randn(0f32, 1.0, (2, 8, 8, 3), &Device::Cpu).unwrap();
    let logits = network.forward_t(&images, false).unwrap();
    assert_eq!(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0; 6]);
}

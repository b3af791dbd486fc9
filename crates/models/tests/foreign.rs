//! Backbones of other families: names, counts and features as timm has them.
#![cfg(feature = "foreign")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it measured")]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::{ModuleT, VarMap};
use taper_models::{ForeignBackbone, ForeignConfig, ForeignFamily, ModelConfig, seeded, seeded_frozen};

fn config(name: &str, input_size: usize) -> ModelConfig {
    ModelConfig::Foreign(ForeignConfig { backbone: name.to_owned(), input_size })
}

/// What `xtask/golden/foreign.py` fills a parameter with.
fn filled(name: &str, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let scale = |value: f64| match shape {
        _ if name.ends_with("running_var") => value + 1.0,
        [_] if name.ends_with("weight") || name.ends_with("gamma") => value + 1.0,
        [_] => value * 0.2,
        _ if name.ends_with("weight") => value * 4.9 / ((count / shape[0]) as f64).sqrt(),
        _ => value,
    };
    let start = (hash % 1009) as usize;
    (0..count).map(|index| scale(((index * 7919 + start) % 1009) as f64 / 1009.0 - 0.5) as f32).collect()
}

fn fill(vars: &VarMap) {
    for (name, var) in vars.data().lock().unwrap().iter() {
        if let Some(theirs) = name.strip_prefix("backbone.") {
            var.set(&Tensor::from_vec(filled(theirs, var.dims()), var.shape(), &Device::Cpu).unwrap()).unwrap();
        }
    }
}

fn images(side: usize) -> Tensor {
    let values: Vec<f32> = (0..2 * side * side * 3).map(|index| ((index * 37 % 101) as f32 - 50.0) / 30.0).collect();
    Tensor::from_vec(values, (2, side, side, 3), &Device::Cpu).unwrap()
}

/// The largest difference, relative to the largest value.
fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    largest(&(found - expected).unwrap()) / largest(expected)
}

#[test]
fn features_are_timms() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/golden/foreign/features.safetensors");
    let golden: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let cases = [
        // candle's DINOv2 takes the tanh form of GELU, and 1e-5 where the original has 1e-6 in its norms.
        ("dinov2_small", 70, 5e-4),
        ("convnext_atto", 64, 2e-5),
        ("convnext_tiny", 32, 2e-5),
        ("mobilenetv4_conv_small", 64, 2e-5),
    ];
    for (name, side, tolerance) in cases {
        let vars = VarMap::new();
        let network =
            config(name, side).build(3, seeded_frozen(&vars, 0, &Device::Cpu, vec!["backbone".into()])).unwrap();
        // The weights come after the network was built, as when they are loaded.
        fill(&vars);
        let features = network.backbone.forward_t(&images(side), false).unwrap();
        let worst = difference(&features, &golden[name]);
        let apart = difference(&features.get(0).unwrap(), &features.get(1).unwrap());
        eprintln!("{name}: features differ by {worst:.1e} of the largest; the images are {apart:.1e} apart");
        assert!(worst <= tolerance && apart > 20.0 * tolerance, "{name}: features differ by {worst} of the largest");
        assert_eq!(network.forward_t(&images(side), false).unwrap().dims(), [2, 3]);
    }
}

#[test]
fn every_backbone_has_the_parameters_of_the_table() {
    for backbone in ForeignBackbone::ALL {
        // The large ones take seconds to draw, and differ from the small in numbers of layers alone.
        if backbone.num_parameters > 30_000_000 {
            continue;
        }
        let (vars, config) = (VarMap::new(), config(backbone.name, 224));
        config.build(10, seeded(&vars, 0, &Device::Cpu)).unwrap();
        let vars = vars.data().lock().unwrap();
        let trained = vars.iter().filter(|(name, _)| !name.contains(".running_"));
        let count: usize = trained.map(|(_, var)| var.elem_count()).sum();
        assert_eq!(count, config.cost(10).num_parameters, "{}", backbone.name);
        assert_eq!(vars["fc.weight"].dims(), [10, backbone.num_features]);
        assert_eq!(config.num_features(), backbone.num_features);
        let heads = vars.keys().filter(|name| !name.starts_with("backbone.")).count();
        assert_eq!(heads, 2, "{}", backbone.name);
        let has_own_head = vars.keys().any(|name| name.starts_with("backbone.head.") && !name.contains("norm"));
        assert!(!has_own_head, "{}", backbone.name);
    }
}

#[test]
fn what_cannot_be_built_is_named() {
    let cases = [
        (config("dinov2_small", 220), "model.input_size = 220: dinov2_small takes multiples of 14"),
        (config("convnext_tiny", 0), "multiples of 32"),
        (config("convnext_huge", 224), "model.backbone = convnext_huge: there are dinov2_small, dinov2_base"),
    ];
    for (config, words) in cases {
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
        assert!(config.build(2, seeded(&VarMap::new(), 0, &Device::Cpu)).is_err());
    }
    assert!(!config("convnext_tiny", 224).trains_backbone());
    assert_eq!(ForeignBackbone::ALL.iter().filter(|known| known.family == ForeignFamily::Dinov2).count(), 2);
}

//! The ablation study's networks: PyTorch's numbers, counts and gradients of every step and variant.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{ModuleT, VarMap};
use taper_models::{ABLATION, AblationConfig, HeadNorm, ModelConfig, NormPlace, Skip, seeded};

/// As far as single precision follows PyTorch's f64, relative to the largest expected value.
const TOLERANCE: f32 = 1e-5;
/// Batch norm over four images of few pixels divides by small deviations, which magnifies rounding.
const TRAINING_TOLERANCE: f32 = 1e-3;

/// `xtask/golden/ablation.py` made the file; it computed in f64, and what remains is the rounding of our own f32 sums.
struct Golden {
    tensors: HashMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

/// What the file says of one network.
#[derive(serde::Deserialize)]
struct Described {
    config: AblationConfig,
    num_parameters: usize,
}

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/golden/ablation/small.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
        let metadata = serde_json::from_value(header["__metadata__"].take()).unwrap();
        Self { tensors: candle_core::safetensors::load(path, &Device::Cpu).unwrap(), metadata }
    }

    fn described(&self, name: &str) -> Described {
        serde_json::from_str(&self.metadata[name]).unwrap()
    }

    fn tensor(&self, name: &str, kind: &str) -> &Tensor {
        &self.tensors[&format!("{name}.{kind}")]
    }
}

fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    largest(&(found - expected).unwrap()) / largest(expected)
}

fn names() -> Vec<String> {
    (0..10).map(|step| format!("step{step}")).chain(["after-relu".to_owned(), "groups".to_owned()]).collect()
}

#[test]
fn every_network_follows_pytorch() {
    let golden = Golden::read();
    for name in names() {
        let config = golden.described(&name).config;
        let vars = VarMap::new();
        let model = ModelConfig::Ablation(config).build(10, seeded(&vars, 0, &Device::Cpu)).unwrap();
        for (parameter, var) in vars.data().lock().unwrap().iter() {
            var.set(golden.tensor(&name, &format!("weights.{parameter}"))).unwrap();
        }
        let (images, labels) = (&golden.tensors["images"], golden.tensors["labels"].to_dtype(DType::U32).unwrap());
        let logits = difference(&model.forward_t(images, false).unwrap(), golden.tensor(&name, "logits"));
        assert!(logits < TOLERANCE, "{name}: logits differ by {logits}");
        let loss = taper_kernels::cross_entropy(&model.forward_t(images, true).unwrap(), &labels, 0.0).unwrap();
        let losses = difference(&loss.unsqueeze(0).unwrap(), &golden.tensor(&name, "loss").unsqueeze(0).unwrap());
        assert!(losses < TOLERANCE, "{name}: losses differ by {losses}");
        let gradients = taper_kernels::backward(loss).unwrap();
        let found = gradients.get(&vars.data().lock().unwrap()["blocks.0.conv1.weight"]).unwrap().clone();
        let gradient = difference(&found, golden.tensor(&name, "gradient"));
        assert!(gradient < TRAINING_TOLERANCE, "{name}: gradients differ by {gradient}");
    }
}

#[test]
fn the_table_is_the_scripts_and_so_are_its_counts() {
    let golden = Golden::read();
    for step in 0..10 {
        let described = golden.described(&format!("step{step}"));
        let model = ModelConfig::ablation(step).unwrap();
        let ModelConfig::Ablation(config) = &model else { panic!("step {step} is {model:?}") };
        let narrow =
            AblationConfig { width: described.config.width, input_size: described.config.input_size, ..config.clone() };
        assert_eq!(narrow, described.config, "step {step}");
        assert_eq!(model.cost(100).num_parameters, described.num_parameters, "step {step}");
    }
    assert_eq!(ModelConfig::ablation(10), ModelConfig::by_name("basenet"));
    assert_eq!(ModelConfig::ablation(11), None);
    assert_eq!(ABLATION.len(), 11);
}

#[test]
fn costs_are_those_of_the_variables() {
    for name in names() {
        let config = ModelConfig::Ablation(Golden::read().described(&name).config);
        let vars = VarMap::new();
        config.build(7, seeded(&vars, 0, &Device::Cpu)).unwrap();
        let is_buffer = |name: &str| name.contains("running_") || name.ends_with("num_batches_tracked");
        let vars = vars.data().lock().unwrap();
        let counted: usize = vars.iter().filter(|(name, _)| !is_buffer(name)).map(|(_, var)| var.elem_count()).sum();
        assert_eq!(config.cost(7).num_parameters, counted, "{name}");
        let layers = config.layers();
        let known =
            |name: &str| layers.as_slice().iter().flatten().any(|prefix| name.starts_with(&format!("{prefix}.")));
        assert!(vars.keys().all(|name| known(name)), "{name}");
    }
    // By hand: 75·6·28² + 150·16·10² + 400·50 + 50·100.
    assert_eq!(ModelConfig::ablation(0).unwrap().cost(100).forward_macs, 617_800);
}

#[test]
fn every_name_means_a_configuration_that_is_read_back() {
    for step in 0..=10 {
        let model = ModelConfig::by_name(&format!("ablation{step}")).unwrap();
        assert_eq!(Some(&model), ModelConfig::ablation(step).as_ref());
        let text = serde_json::to_string(&model).unwrap();
        assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), model);
    }
    for name in ["ablation11", "ablation01", "ablation-1", "ablations"] {
        assert_eq!(ModelConfig::by_name(name), None, "{name}");
    }
}

#[test]
fn configurations_that_cannot_be_are_named() {
    let of = |change: fn(&mut AblationConfig)| {
        let mut config = AblationConfig::default();
        change(&mut config);
        config
    };
    let cases: [(AblationConfig, &str); 9] = [
        (of(|config| config.width = 0.0), "model.width = 0"),
        (of(|config| config.channels.clear()), "model.channels = []"),
        (of(|config| config.pools_after = vec![3]), "model.pools_after = 3"),
        (of(|config| config.kernel = 0), "model.kernel = 0"),
        (of(|config| config.convs_per_block = 0), "model.convs_per_block = 0"),
        (of(|config| config.groups = 5), "model.groups = 5"),
        (of(|config| config.skip = Skip::Add), "model.skip = add"),
        (of(|config| config.input_size = 12), "model.input_size = 12"),
        (of(|config| config.residual_scale = f64::NAN), "model.residual_scale = NaN"),
    ];
    for (config, expected) in cases {
        let error = ModelConfig::Ablation(config).validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_free_axes_combine() {
    for norm in [NormPlace::None, NormPlace::BeforeRelu, NormPlace::AfterRelu] {
        for (skip, head_norm) in [(Skip::None, HeadNorm::Hidden), (Skip::Add, HeadNorm::None)] {
            let config = AblationConfig {
                channels: vec![4, 8, 8],
                pools_after: vec![2],
                kernel: 3,
                padding: 1,
                convs_per_block: 3,
                groups: 2,
                input_size: 8,
                norm,
                skip,
                head_norm,
                ..AblationConfig::default()
            };
            let vars = VarMap::new();
            let model = ModelConfig::Ablation(config).build(5, seeded(&vars, 1, &Device::Cpu)).unwrap();
            let values: Vec<f32> = (0..3 * 8 * 8 * 3).map(|index| ((index * 37 % 101) as f32 - 50.0) / 30.0).collect();
            let images = Tensor::from_vec(values, (3, 8, 8, 3), &Device::Cpu).unwrap();
            let labels = Tensor::new(&[0u32, 2, 4], &Device::Cpu).unwrap();
            let loss = taper_kernels::cross_entropy(&model.forward_t(&images, true).unwrap(), &labels, 0.0).unwrap();
            let gradients = taper_kernels::backward(loss).unwrap();
            let vars = vars.data().lock().unwrap();
            let weights = vars.iter().filter(|(name, _)| name.ends_with("weight"));
            for (name, var) in weights {
                let gradient = gradients.get(var).unwrap_or_else(|| panic!("{norm:?} {skip:?}: none for {name}"));
                assert!(difference(gradient, &gradient.ones_like().unwrap()) != 1.0, "{norm:?} {skip:?} {name}");
            }
        }
    }
}

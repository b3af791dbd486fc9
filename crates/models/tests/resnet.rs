//! ResNet: torchvision's counts, names and numbers; every form's shapes and gradients.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it passed over")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, ModuleT, VarBuilder, VarMap};
use taper_models::{
    BlockKind, HeadInit, LastNorm, ModelConfig, ModelCost, ResNet, ResNetConfig, ResNetLayout, Stem, seeded,
};

const NUM_CLASSES: usize = 5;
/// As far as single precision follows PyTorch's f64 through a network, relative to the largest logit.
const LOGIT_TOLERANCE: f32 = 1e-5;
const BASIC: ResNetLayout = ResNetLayout { block: BlockKind::Basic, depths: [1, 2, 1, 1], width: 4 };
const BOTTLENECK: ResNetLayout = ResNetLayout { block: BlockKind::Bottleneck, depths: [2, 1, 1, 1], width: 2 };

type Shapes = BTreeMap<String, Vec<usize>>;

/// Notes which tensors a model asks for, and hands out zeros.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Shapes>>);

impl Recorder {
    fn of(model: &ModelConfig, num_classes: usize) -> Shapes {
        let recorder = Self::default();
        let backend: Box<dyn SimpleBackend> = Box::new(recorder.clone());
        model.build(num_classes, VarBuilder::from_backend(backend, DType::F32, Device::Cpu)).unwrap();
        std::mem::take(&mut recorder.0.lock().unwrap())
    }
}

impl SimpleBackend for Recorder {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let before = self.0.lock().unwrap().insert(name.to_owned(), shape.dims().to_vec());
        assert_eq!(before, None, "{name} is asked for twice");
        Tensor::zeros(shape, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name} without a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        false
    }
}

fn is_buffer(name: &str) -> bool {
    name.contains("running_") || name.ends_with("num_batches_tracked")
}

fn named(name: &str, stem: Stem, input_size: usize) -> ModelConfig {
    serde_json::from_value(serde_json::json!({ "name": name, "stem": stem, "input_size": input_size })).unwrap()
}

/// Each block with each stem: layout, configuration, side of a square image, sides of the last feature map.
fn forms() -> Vec<(ResNetLayout, ResNetConfig, usize, usize)> {
    let of = |stem| ResNetConfig { stem, ..ResNetConfig::default() };
    vec![
        (BASIC, of(Stem::ImageNet), 64, 2),
        (BASIC, of(Stem::ImageNet), 41, 2),
        (BASIC, of(Stem::Cifar), 16, 2),
        (BASIC, of(Stem::ResNetD), 64, 2),
        (BASIC, of(Stem::ResNetD), 41, 2),
        (BOTTLENECK, of(Stem::ImageNet), 64, 2),
        (BOTTLENECK, of(Stem::Cifar), 11, 2),
        (BOTTLENECK, of(Stem::ResNetD), 33, 2),
    ]
}

fn images(n: usize, side: usize) -> Tensor {
    let values: Vec<f32> = (0..n * side * side * 3).map(|index| ((index * 37 % 101) as f32 - 50.0) / 30.0).collect();
    Tensor::from_vec(values, (n, side, side, 3), &Device::Cpu).unwrap()
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// The largest difference as a share of the largest expected value.
fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    largest(&(found - expected).unwrap()) / largest(expected)
}

/// Values of the tensors that are trained.
fn num_trained(shapes: &Shapes) -> usize {
    shapes.iter().filter(|(name, _)| !is_buffer(name)).map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

#[test]
fn counts_are_those_of_pytorch() {
    // Parameters, entries of the state_dict and multiply-adds, as counted on torchvision's modules and, for ResNet-D,
    // on timm's structure.
    let cases = [
        ("resnet18", Stem::ImageNet, 224, 11_689_512, 122, 1_814_073_344),
        ("resnet34", Stem::ImageNet, 224, 21_797_672, 218, 3_663_761_408),
        ("resnet50", Stem::ImageNet, 224, 25_557_032, 320, 4_089_184_256),
        ("resnet101", Stem::ImageNet, 224, 44_549_160, 626, 7_801_405_440),
        ("resnet152", Stem::ImageNet, 224, 60_192_808, 932, 11_513_626_624),
        ("resnet18", Stem::ResNetD, 224, 11_708_744, 134, 2_053_713_920),
        ("resnet50", Stem::ResNetD, 224, 25_576_264, 332, 4_328_824_832),
        ("resnet18", Stem::ImageNet, 193, 11_689_512, 122, 1_536_214_208),
        ("resnet50", Stem::ImageNet, 225, 25_557_032, 320, 4_626_713_792),
        ("resnet50", Stem::ResNetD, 193, 25_576_264, 332, 3_648_681_824),
    ];
    for (name, stem, input_size, num_parameters, num_entries, forward_macs) in cases {
        let config = named(name, stem, input_size);
        let shapes = Recorder::of(&config, 1000);
        assert_eq!((num_trained(&shapes), shapes.len()), (num_parameters, num_entries), "{name} {stem:?}");
        let found = config.cost(1000);
        let expected = ModelCost { num_parameters, forward_macs, ..found };
        assert_eq!(found, expected, "{name} {stem:?} {input_size}");
    }
}

#[test]
fn parameters_are_counted_right_for_every_name_and_stem() {
    for name in ModelConfig::NAMES.iter().filter(|name| name.starts_with("resnet")) {
        for stem in [Stem::ImageNet, Stem::Cifar, Stem::ResNetD] {
            let config = named(name, stem, 32);
            assert_eq!(config.cost(7).num_parameters, num_trained(&Recorder::of(&config, 7)), "{name} {stem:?}");
        }
    }
}

#[test]
fn names_and_shapes_are_those_of_the_checkpoints() {
    let cases: [(&str, Stem, &str, &[usize]); 20] = [
        ("resnet18", Stem::ImageNet, "conv1.weight", &[64, 3, 7, 7]),
        ("resnet18", Stem::ImageNet, "bn1.num_batches_tracked", &[]),
        ("resnet18", Stem::ImageNet, "layer2.0.conv1.weight", &[128, 64, 3, 3]),
        ("resnet18", Stem::ImageNet, "layer2.0.downsample.0.weight", &[128, 64, 1, 1]),
        ("resnet18", Stem::ImageNet, "layer2.0.downsample.1.running_var", &[128]),
        ("resnet18", Stem::ImageNet, "fc.weight", &[1000, 512]),
        ("resnet18", Stem::Cifar, "conv1.weight", &[64, 3, 3, 3]),
        ("resnet50", Stem::ImageNet, "layer1.0.downsample.0.weight", &[256, 64, 1, 1]),
        ("resnet50", Stem::ImageNet, "layer3.5.conv2.weight", &[256, 256, 3, 3]),
        ("resnet50", Stem::ImageNet, "layer4.2.conv3.weight", &[2048, 512, 1, 1]),
        ("resnet50", Stem::ImageNet, "layer4.2.bn3.bias", &[2048]),
        ("resnet50", Stem::ImageNet, "fc.bias", &[1000]),
        ("resnet50", Stem::ResNetD, "conv1.0.weight", &[32, 3, 3, 3]),
        ("resnet50", Stem::ResNetD, "conv1.1.running_mean", &[32]),
        ("resnet50", Stem::ResNetD, "conv1.3.weight", &[32, 32, 3, 3]),
        ("resnet50", Stem::ResNetD, "conv1.4.weight", &[32]),
        ("resnet50", Stem::ResNetD, "conv1.6.weight", &[64, 32, 3, 3]),
        ("resnet50", Stem::ResNetD, "bn1.weight", &[64]),
        ("resnet50", Stem::ResNetD, "layer1.0.downsample.1.weight", &[256, 64, 1, 1]),
        ("resnet50", Stem::ResNetD, "layer2.0.downsample.2.weight", &[512]),
    ];
    for (model, stem, name, expected) in cases {
        let shapes = Recorder::of(&named(model, stem, 224), 1000);
        assert_eq!(shapes.get(name).map(Vec::as_slice), Some(expected), "{model} {stem:?} {name}");
    }
}

#[test]
fn shapes_of_every_form() {
    for (layout, config, side, map) in forms() {
        let model = ResNet::new(&layout, &config, NUM_CLASSES, seeded(&VarMap::new(), 1, &Device::Cpu)).unwrap();
        let (images, channels) = (images(3, side), layout.num_features());
        for train in [false, true] {
            let found = model.feature_map(&images, train).unwrap();
            assert_eq!(found.dims(), [3, map, map, channels], "{layout:?} {config:?}");
            let pooled = model.features(&images, train).unwrap();
            assert_eq!(pooled.dims(), [3, channels], "{layout:?} {config:?}");
            assert_eq!(model.classify(&pooled).unwrap().dims(), [3, NUM_CLASSES], "{layout:?} {config:?}");
            assert_eq!(model.forward_t(&images, train).unwrap().dims(), [3, NUM_CLASSES], "{layout:?} {config:?}");
        }
    }
}

#[test]
fn images_need_not_be_square() {
    let model = ResNet::new(&BASIC, &ResNetConfig::default(), NUM_CLASSES, seeded(&VarMap::new(), 1, &Device::Cpu));
    let images = images(1, 96).narrow(2, 0, 33).unwrap().contiguous().unwrap();
    assert_eq!(model.unwrap().feature_map(&images, false).unwrap().dims(), [1, 3, 2, 32]);
}

#[test]
fn both_backward_passes_give_every_parameter_the_same_gradient() {
    for (layout, config, side, _) in forms() {
        let vars = VarMap::new();
        let model = ResNet::new(&layout, &config, NUM_CLASSES, seeded(&vars, 1, &Device::Cpu)).unwrap();
        let logits = model.forward_t(&images(4, side), true).unwrap();
        let labels = Tensor::new(&[0u32, 3, 4, 3], &Device::Cpu).unwrap();
        let loss = taper_kernels::cross_entropy(&logits, &labels, 0.1).unwrap();
        drop(logits);
        assert!(taper_kernels::consists_of_own_ops(&loss), "{layout:?} {config:?}");
        let theirs = loss.backward().unwrap();
        let ours = taper_kernels::backward(loss).unwrap();
        for (name, var) in vars.data().lock().unwrap().iter() {
            assert_eq!(ours.get(var).is_none(), is_buffer(name), "{layout:?} {config:?} {name}");
            let Some(gradient) = ours.get(var) else { continue };
            assert!(largest(gradient) > 0.0, "{layout:?} {config:?}: no gradient for {name}");
            let values = |gradient: &Tensor| gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(gradient), values(theirs.get(var).unwrap()), "{layout:?} {config:?} {name}");
        }
    }
}

#[test]
fn initial_values_are_torchvisions() {
    for (layout, last) in [(ResNetLayout { width: 16, ..BASIC }, "bn2"), (BOTTLENECK, "bn3")] {
        for (last_norm, start) in [(LastNorm::One, 1.0), (LastNorm::Zero, 0.0)] {
            let (vars, config) = (VarMap::new(), ResNetConfig { last_norm, ..ResNetConfig::default() });
            ResNet::new(&layout, &config, NUM_CLASSES, seeded(&vars, 1, &Device::Cpu)).unwrap();
            for (name, var) in vars.data().lock().unwrap().iter() {
                check_initial(name, var, if name.ends_with(&format!("{last}.weight")) { start } else { 1.0 });
            }
        }
    }
}

/// `scale` is what a batch norm's scale should be.
#[track_caller]
fn check_initial(name: &str, var: &Var, scale: f32) {
    let values: Vec<f32> = var.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let all = |expected: f32| assert!(values.iter().all(|value| *value == expected), "{name}: {values:?}");
    match (var.dims(), name.rsplit('.').next().unwrap()) {
        ([c_out, _, height, width], _) => {
            let variance = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
            let expected = 2.0 / (c_out * height * width) as f32;
            // The variance of n squared normal values is 2/n of their mean's square; five deviations are allowed.
            let allowed = 5.0 * (2.0 / values.len() as f32).sqrt();
            assert!((variance / expected - 1.0).abs() < allowed, "{name}: {variance} instead of {expected}");
        }
        (dims, _) if name.starts_with("fc.") => {
            let bound = 1.0 / f32::sqrt(*dims.get(1).unwrap_or(&0) as f32);
            assert!(values.iter().all(|value| value.abs() <= bound && *value != 0.0), "{name}: {values:?}");
        }
        (_, "weight") => all(scale),
        (_, "running_var") => all(1.0),
        _ => all(0.0),
    }
}

#[test]
fn with_zero_scales_each_block_passes_on_its_input() {
    let config = ResNetConfig { stem: Stem::Cifar, last_norm: LastNorm::Zero, ..ResNetConfig::default() };
    let layout = ResNetLayout { depths: [2, 1, 1, 1], ..BASIC };
    let vars = VarMap::new();
    let model = ResNet::new(&layout, &config, NUM_CLASSES, seeded(&vars, 1, &Device::Cpu)).unwrap();
    let before = model.feature_map(&images(2, 16), false).unwrap();
    // Nothing that stands before the zero scales matters.
    for (name, var) in vars.data().lock().unwrap().iter().filter(|(name, _)| name.contains(".conv")) {
        assert!(name.starts_with("layer"), "{name}");
        var.set(&var.affine(2.0, 1.0).unwrap()).unwrap();
    }
    let after = model.feature_map(&images(2, 16), false).unwrap();
    assert!(largest(&before) > 0.0);
    assert_eq!(difference(&after, &before), 0.0);
}

#[test]
fn configurations_are_read_and_written() {
    let json = r#"{"name":"resnet50","stem":"resnet-d","last_norm":"zero","head_init":"zero","input_size":192}"#;
    let config: ModelConfig = serde_json::from_str(json).unwrap();
    let inner =
        ResNetConfig { stem: Stem::ResNetD, last_norm: LastNorm::Zero, head_init: HeadInit::Zero, input_size: 192 };
    assert_eq!(config, ModelConfig::ResNet50(inner));
    assert_eq!(serde_json::to_string(&config).unwrap(), json);
    assert_eq!(config.input_size(), [192, 192]);
    for name in ModelConfig::NAMES {
        let config = ModelConfig::by_name(name).unwrap();
        assert_eq!(serde_json::to_value(&config).unwrap()["name"], name);
        let short = format!(r#"{{"name":"{name}"}}"#);
        assert_eq!(serde_json::from_str::<ModelConfig>(&short).unwrap(), config);
    }
    assert_eq!(ModelConfig::by_name("resnet19"), None);
    for wrong in [r#"{"name":"resnet50","stm":"cifar"}"#, r#"{"name":"resnet50","stem":"ImageNet"}"#] {
        assert!(serde_json::from_str::<ModelConfig>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_cannot_be_built_is_named() {
    let config = ResNetConfig::default();
    let cases = [
        (ResNetLayout { depths: [1, 0, 1, 1], ..BASIC }, config.clone(), "model.depths = 0"),
        (ResNetLayout { width: 3, ..BASIC }, config.clone(), "model.width = 3"),
        (ResNetLayout { width: 0, ..BASIC }, config.clone(), "model.width = 0"),
        (BASIC, ResNetConfig { input_size: 0, ..config.clone() }, "model.input_size = 0"),
        (BASIC, ResNetConfig { input_size: 16, stem: Stem::ResNetD, ..config }, "between 17 and 4096"),
    ];
    for (layout, config, expected) in cases {
        let Err(error) = ResNet::new(&layout, &config, 5, seeded(&VarMap::new(), 0, &Device::Cpu)) else {
            panic!("{layout:?} {config:?} was built");
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn the_smallest_images_pass_through() {
    for (stem, side) in [(Stem::ImageNet, 1), (Stem::Cifar, 1), (Stem::ResNetD, 17)] {
        let config = ResNetConfig { stem, input_size: side, ..ResNetConfig::default() };
        let model = ResNet::new(&BASIC, &config, NUM_CLASSES, seeded(&VarMap::new(), 1, &Device::Cpu)).unwrap();
        assert_eq!(model.feature_map(&images(1, side), false).unwrap().dims(), [1, 1, 1, 32], "{stem:?}");
    }
}

/// `xtask/golden/resnet.py` made the file; it computed in f64, and what remains is the rounding of our own f32 sums.
#[test]
fn tiny_networks_follow_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/golden/resnet/small.safetensors");
    let golden: BTreeMap<String, Tensor> =
        candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect();
    let depths = [1; 4];
    for (name, layout, stem, side) in [
        ("basic", ResNetLayout { depths, width: 2, ..BASIC }, Stem::ImageNet, 32),
        ("bottleneck", ResNetLayout { depths, ..BOTTLENECK }, Stem::ImageNet, 32),
        ("resnet_d", ResNetLayout { depths, ..BASIC }, Stem::ResNetD, 28),
    ] {
        let part = |kind: &str| with_prefix(&golden, &format!("{name}.{kind}"));
        let config = ResNetConfig { stem, ..ResNetConfig::default() };
        let (vars, model) = load(&layout, &config, NUM_CLASSES, &part("weights."));
        let images = golden["images"].narrow(1, 0, side).unwrap().narrow(2, 0, side).unwrap().contiguous().unwrap();

        let logits = difference(&model.forward_t(&images, false).unwrap(), &golden[&format!("{name}.logits")]);
        let labels = golden["labels"].to_dtype(DType::U32).unwrap();
        let loss = taper_kernels::cross_entropy(&model.forward_t(&images, true).unwrap(), &labels, 0.0).unwrap();
        let expected = golden[&format!("{name}.loss")].to_scalar::<f32>().unwrap();
        let loss_difference = (loss.to_scalar::<f32>().unwrap() / expected - 1.0).abs();
        let (gradients, vars) = (taper_kernels::backward(loss).unwrap(), vars.data().lock().unwrap());
        let expected = part("gradients.");
        assert!(expected.len() > 8, "{name}: {} gradients", expected.len());
        let worst = expected.iter().map(|(name, expected)| difference(gradients.get(&vars[name]).unwrap(), expected));
        let worst = worst.fold(0.0, f32::max);
        eprintln!("{name}: logits differ by {logits:.1e}, loss by {loss_difference:.1e}, gradients by {worst:.1e}");
        assert!(logits <= LOGIT_TOLERANCE, "{name}: logits differ by {logits} of the largest");
        assert!(loss_difference <= 1e-5, "{name}: loss differs by {loss_difference}");
        // Batch norm over four values a channel, as in the last stage, amplifies what rounding left.
        assert!(worst <= 1e-4, "{name}: gradients differ by {worst} of their largest");
    }
}

fn with_prefix(tensors: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let strip = |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()));
    tensors.iter().filter_map(strip).collect()
}

/// A model over exactly these tensors.
#[track_caller]
fn load(
    layout: &ResNetLayout,
    config: &ResNetConfig,
    num_classes: usize,
    tensors: &BTreeMap<String, Tensor>,
) -> (VarMap, ResNet) {
    let vars = VarMap::new();
    for (name, tensor) in tensors {
        vars.data().lock().unwrap().insert(name.clone(), Var::from_tensor(tensor).unwrap());
    }
    let model = ResNet::new(layout, config, num_classes, seeded(&vars, 0, &Device::Cpu)).unwrap();
    let found = vars.data().lock().unwrap().len();
    assert_eq!(found, tensors.len(), "the model made variables that the file does not have");
    (vars, model)
}

#[test]
fn real_weights_fit_name_by_name() {
    let Some(data) = std::env::var_os("TAPER_TEST_DATA").map(PathBuf::from) else {
        eprintln!("skipped: TAPER_TEST_DATA is not set");
        return;
    };
    // Logits 0, 1, 2 and the largest one, 904, in f64: printed by `xtask/golden/resnet.py --weights`.
    let cases = [
        ("resnet18", ResNetLayout::RESNET18, [0.742170, -0.412897, -0.303203, 6.568783f32]),
        ("resnet50", ResNetLayout::RESNET50, [-2.110174, 2.561361, 0.050429, 14.700647]),
    ];
    for (name, layout, expected) in cases {
        let path = data.join(format!("weights/{name}_imagenet.safetensors"));
        let tensors: BTreeMap<String, Tensor> =
            candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect();
        let shapes: Shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
        assert_eq!(shapes, Recorder::of(&ModelConfig::by_name(name).unwrap(), 1000), "{name}");
        let (_, model) = load(&layout, &ResNetConfig::default(), 1000, &tensors);
        let logits: Vec<f32> = model.forward_t(&images(1, 64), false).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
        assert_eq!(logits.len(), 1000);
        let found = [logits[0], logits[1], logits[2], logits[904]];
        let worst = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(largest, logits[904], "{name}");
        eprintln!("{name}: logits differ by {:.1e} of the largest", worst / largest);
        assert!(worst <= LOGIT_TOLERANCE * largest, "{name}: {found:?} instead of {expected:?}");
    }
}

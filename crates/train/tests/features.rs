//! A head on cached features, and the same head behind its frozen backbone: the same bits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{ModuleT, VarMap};
use taper_data::{ArrayDataset, ChannelStats, Compose, LastBatch, Loader, OnBad, Order, Transform};
use taper_models::{ModelConfig, ResNetConfig, Stem, seeded_frozen};
use taper_optim::{GroupRules, Optimizer, OptimizerConfig, ParameterSet, Schedule, ScheduleConfig, SgdConfig};
use taper_train::{
    CheckpointConfig, ClassWeights, Features, Fit, FitConfig, ImageInput, Images, OnNonfinite, Outcome, Progress,
    RunFolder, Source, TrainError,
};

const NUM_IMAGES: usize = 23;
const SIDE: usize = 16;

fn images(transform: Vec<Transform>, last: LastBatch) -> Images {
    let pixels = (0..NUM_IMAGES * SIDE * SIDE * 3).map(|at| (at * at % 251) as u8).collect();
    let labels = (0..NUM_IMAGES as u32).map(|index| index % 3).collect();
    let names = (0..NUM_IMAGES).map(|index| index.to_string()).collect();
    let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
    let loader = Loader {
        dataset: Arc::new(ArrayDataset::new([SIDE; 2], pixels, labels, names, classes).unwrap()),
        indices: (0..NUM_IMAGES).rev().collect(),
        transform: Compose(transform),
        batch_size: 5,
        workers: 2,
        prefetch: 2,
        last,
        bad: OnBad::Fail,
        seed: 0,
    };
    Images { loader, input: ImageInput { stats: ChannelStats::IMAGENET, device: Device::Cpu, dtype: DType::F32 } }
}

#[derive(Clone, Copy, PartialEq)]
enum Cache {
    On,
    Off,
}

/// The bytes of every tensor before and after two epochs of training the head.
fn train_head(cache: Cache, last: LastBatch) -> [BTreeMap<String, Vec<u8>>; 2] {
    let vars = VarMap::new();
    let config = ModelConfig::ResNet18(ResNetConfig { stem: Stem::Cifar, input_size: SIDE, ..ResNetConfig::default() });
    let frozen = config.layers().frozen(&"backbone".parse().unwrap()).unwrap();
    let network = config.build(3, seeded_frozen(&vars, 7, &Device::Cpu, frozen.clone())).unwrap();
    let before = bytes(&vars);

    let images = images(vec![], last);
    let features = Features::compute(&*network.backbone, &images, |_| ()).unwrap();
    let (model, source): (&dyn ModuleT, &dyn Source) = match cache {
        Cache::On => (&*network.head, &features),
        Cache::Off => (&network, &images),
    };
    let settings = FitConfig {
        epochs: 2,
        max_steps: None,
        accumulate: 1,
        seed: 3,
        label_smoothing: 0.1,
        class_weights: ClassWeights::balanced(&[8, 8, 7]).unwrap(),
        clip_norm: Some(1.0),
        patience: None,
        on_nonfinite: OnNonfinite::Stop,
        log_every_steps: 1,
        checkpoint: CheckpointConfig { every_steps: None, every_minutes: None, keep_last: 1 },
    };
    let sgd = OptimizerConfig::Sgd(SgdConfig { lr: 0.1, ..SgdConfig::default() });
    let rules = GroupRules { frozen, ..GroupRules::by_depth(&sgd, config.layers().as_slice()) };
    let parameters = ParameterSet::new(&vars, &rules).unwrap();
    assert_eq!(
        parameters.iter().map(|parameter| parameter.name.as_str()).collect::<Vec<_>>(),
        ["fc.bias", "fc.weight"]
    );
    let (num_steps, per_epoch) =
        (Fit::num_steps(source, &settings).unwrap(), Fit::steps_per_epoch(source, &settings).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut fit = Fit {
        model,
        vars: &vars,
        train: source,
        val: source,
        optimizer: Optimizer::new(&sgd, parameters).unwrap(),
        schedule: Schedule::new(ScheduleConfig::by_name("cosine").unwrap(), 0.1, num_steps, per_epoch).unwrap(),
        ema: None,
        config: &settings,
        folder: &RunFolder::new(folder.path(), BTreeMap::new()),
        sink: &mut (),
        stop: &|| false,
        progress: Progress::default(),
    };
    assert_eq!(fit.run().unwrap(), Outcome::Complete);
    [before, bytes(&vars)]
}

fn bytes(vars: &VarMap) -> BTreeMap<String, Vec<u8>> {
    let vars = vars.data().lock().unwrap();
    let of = |tensor: &Tensor| -> Vec<u8> {
        let flat = tensor.flatten_all().unwrap();
        match flat.to_vec1::<f32>() {
            Ok(values) => values.into_iter().flat_map(f32::to_le_bytes).collect(),
            Err(_) => flat.to_vec1::<i64>().unwrap().into_iter().flat_map(i64::to_le_bytes).collect(),
        }
    };
    vars.iter().map(|(name, var)| (name.clone(), of(var.as_tensor()))).collect()
}

#[test]
fn cached_and_uncached_heads_are_the_same_bits() {
    for last in [LastBatch::Keep, LastBatch::Drop] {
        let [before, cached] = train_head(Cache::On, last);
        let [_, uncached] = train_head(Cache::Off, last);
        for (name, bytes) in &before {
            assert!(cached[name] == uncached[name], "{name} differs");
            assert_eq!(cached[name] != *bytes, name.starts_with("fc."), "{name}");
        }
    }
}

#[test]
fn features_come_in_the_order_of_the_images() {
    let images = images(vec![], LastBatch::Drop);
    let features = Features::compute(&Sums, &images, |_| ()).unwrap();
    assert_eq!((features.num_batches(), features.num_images(), features.num_classes()), (4, NUM_IMAGES, 3));
    for order in [Order::Sequential, Order::Shuffled { seed: 1, epoch: 2 }] {
        let direct: Vec<_> = images.epoch_from(order, 1).map(Result::unwrap).collect();
        let cached: Vec<_> = features.epoch_from(order, 1).map(Result::unwrap).collect();
        assert_eq!((direct.len(), cached.len()), (3, 3));
        for (direct, cached) in direct.iter().zip(&cached) {
            assert_eq!((&direct.labels, &direct.indices), (&cached.labels, &cached.indices));
            let expected = Sums.forward_t(&direct.inputs, false).unwrap();
            assert_eq!(cached.inputs.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
        }
    }
}

/// `[n, h, w, 3]` → `[n, 3]`.
struct Sums;

impl ModuleT for Sums {
    fn forward_t(&self, images: &Tensor, _: bool) -> candle_core::Result<Tensor> {
        images.sum((1, 2))
    }
}

#[test]
fn random_images_have_no_features() {
    let images = images(vec![Transform::HorizontalFlip { probability: 0.5 }], LastBatch::Keep);
    let error = Features::compute(&Sums, &images, |_| ()).unwrap_err();
    assert!(
        matches!(error, TrainError::RandomFeatures { .. }) && error.to_string().contains("HorizontalFlip"),
        "{error}"
    );
}

//! Every architecture as a backbone and a head, and the backbone stopped at its last feature map.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{Device, Tensor};
use candle_nn::{ModuleT, VarMap};
use taper_models::{BaseNetConfig, ModelConfig, ResNetConfig, Stem, seeded};

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_backbone_stopped_at_its_map_goes_on_to_the_same_answer() {
    let resnet = ResNetConfig { stem: Stem::Cifar, input_size: 16, ..ResNetConfig::default() };
    let basenet = BaseNetConfig { width: 0.0625, depths: [1, 1, 0, 0], input_size: 16, ..BaseNetConfig::default() };
    let cases = [
        (ModelConfig::BaseNet(basenet), 16, [16, 16, 8]),
        (ModelConfig::ResNet18(resnet), 16, [2, 2, 512]),
        (ModelConfig::ablation(0).unwrap(), 32, [5, 5, 16]),
        (ModelConfig::ablation(7).unwrap(), 32, [8, 8, 64]),
    ];
    for (config, side, map_size) in cases {
        let network = config.build(5, seeded(&VarMap::new(), 1, &Device::Cpu)).unwrap();
        let pixels: Vec<f32> =
            (0..2 * side * side * 3).map(|index| ((index * 37 % 101) as f32 - 50.0) / 30.0).collect();
        let images = Tensor::from_vec(pixels, (2, side, side, 3), &Device::Cpu).unwrap();
        let map = network.backbone.feature_map(&images, false).unwrap();
        assert_eq!(map.dims()[1..], map_size, "{config:?}");
        let features = network.backbone.features_of(&map).unwrap();
        assert_eq!(features.elem_count(), 2 * config.num_features(), "{config:?}");
        let logits = network.head.forward_t(&features, false).unwrap();
        assert_eq!(values(&logits), values(&network.forward_t(&images, false).unwrap()), "{config:?}");
    }
}

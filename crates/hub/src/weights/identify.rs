//! Which network a set of tensors belongs to, read off names and shapes.

use std::collections::BTreeMap;

use candle_core::Tensor;
use taper_models::{BlockKind, ModelConfig, ResNetConfig, ResNetLayout, Stem};

/// The ResNets that `taper-models` builds by name.
const LAYOUTS: [(&str, ResNetLayout); 5] = [
    ("resnet18", ResNetLayout::RESNET18),
    ("resnet34", ResNetLayout::RESNET34),
    ("resnet50", ResNetLayout::RESNET50),
    ("resnet101", ResNetLayout::RESNET101),
    ("resnet152", ResNetLayout::RESNET152),
];

/// Name, layout and choices of a configuration that is a ResNet's.
pub(super) fn resnet_of(config: &ModelConfig) -> Option<(&'static str, ResNetLayout, &ResNetConfig)> {
    let (index, config) = match config {
        ModelConfig::ResNet18(config) => (0, config),
        ModelConfig::ResNet34(config) => (1, config),
        ModelConfig::ResNet50(config) => (2, config),
        ModelConfig::ResNet101(config) => (3, config),
        ModelConfig::ResNet152(config) => (4, config),
        _ => return None,
    };
    let (name, layout) = LAYOUTS[index];
    Some((name, layout, config))
}

fn configured(index: usize, config: ResNetConfig) -> ModelConfig {
    match index {
        0 => ModelConfig::ResNet18(config),
        1 => ModelConfig::ResNet34(config),
        2 => ModelConfig::ResNet50(config),
        3 => ModelConfig::ResNet101(config),
        _ => ModelConfig::ResNet152(config),
    }
}

/// What tensors under the names of `taper-models` belong to.
#[derive(Clone, Debug, PartialEq)]
pub struct Identified {
    /// The network.
    pub architecture: ModelConfig,
    /// Classes that the head tells apart; none where the file has no head.
    pub num_classes: Option<usize>,
}

/// Recognises a ResNet; whether every tensor fits is for [`load`](super::load) to say.
///
/// # Errors
/// Says what the tensors look like instead.
pub fn identify(tensors: &BTreeMap<String, Tensor>) -> Result<Identified, String> {
    let dims = |name: &str| tensors.get(name).map(Tensor::dims);
    let (stem, width) = match (dims("conv1.weight"), dims("conv1.0.weight")) {
        (Some(&[width, 3, 7, 7]), _) => (Stem::ImageNet, width),
        (Some(&[width, 3, 3, 3]), _) => (Stem::Cifar, width),
        (None, Some(&[half, 3, 3, 3])) => (Stem::ResNetD, half.saturating_mul(2)),
        (Some(shape), _) | (None, Some(shape)) => {
            return Err(format!(
                "its first convolution has the shape {shape:?}, which no ResNet for colour images has"
            ));
        }
        (None, None) => return Err(unlike_a_resnet(tensors)),
    };
    let block = if tensors.contains_key("layer1.0.conv3.weight") { BlockKind::Bottleneck } else { BlockKind::Basic };
    let depths = [1, 2, 3, 4].map(|stage| num_blocks(tensors, stage));
    let found = ResNetLayout { block, depths, width };
    let index = LAYOUTS.iter().position(|(_, layout)| *layout == found);
    let index = index.ok_or_else(|| {
        format!("it is a ResNet with {depths:?} {block:?} blocks and {width} channels; ResNet-18, -34, -50, -101 and -152 are known")
    })?;
    let num_classes = match dims("fc.weight") {
        Some(&[num_classes, _]) => Some(num_classes),
        Some(shape) => {
            return Err(format!("its head fc.weight has the shape {shape:?} instead of [classes, features]"));
        }
        None => None,
    };
    let architecture = configured(index, ResNetConfig { stem, ..ResNetConfig::default() });
    Ok(Identified { architecture, num_classes })
}

/// Blocks of a stage, counted as long as there is a next one.
fn num_blocks(tensors: &BTreeMap<String, Tensor>, stage: usize) -> usize {
    (0..).take_while(|block| tensors.contains_key(&format!("layer{stage}.{block}.conv1.weight"))).count()
}

fn unlike_a_resnet(tensors: &BTreeMap<String, Tensor>) -> String {
    let names: Vec<&str> = tensors.keys().take(10).map(String::as_str).collect();
    format!(
        "its {} tensors are not a ResNet's in the names of torchvision, timm or transformers, and no config.json beside it \
         names another network that is known; the first are {}",
        tensors.len(),
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use candle_nn::VarMap;
    use taper_models::seeded;

    fn tensors_of(config: &ModelConfig, num_classes: usize) -> BTreeMap<String, Tensor> {
        let vars = VarMap::new();
        config.build(num_classes, seeded(&vars, 0, &Device::Cpu)).unwrap();
        let vars = vars.data().lock().unwrap();
        vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
    }

    #[test]
    fn every_resnet_is_recognised() {
        let stems = [Stem::ImageNet, Stem::Cifar, Stem::ResNetD];
        let cases = (0..LAYOUTS.len()).map(|index| (index, stems[index % 3])).chain([(2, Stem::ImageNet)]);
        for (index, stem) in cases {
            let config = configured(index, ResNetConfig { stem, ..ResNetConfig::default() });
            assert_eq!(resnet_of(&config).map(|(name, layout, _)| (name, layout)), Some(LAYOUTS[index]));
            let mut tensors = tensors_of(&config, 7);
            let expected = Identified { architecture: config, num_classes: Some(7) };
            assert_eq!(identify(&tensors), Ok(expected.clone()));
            tensors.retain(|name, _| !name.starts_with("fc."));
            assert_eq!(identify(&tensors), Ok(Identified { num_classes: None, ..expected }));
        }
    }

    #[test]
    fn others_are_described() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let cases: [(&str, &[usize], &str); 4] = [
            ("conv1.weight", &[64, 1, 7, 7], "[64, 1, 7, 7]"),
            ("conv1.weight", &[], "first convolution"),
            ("conv1.weight", &[32, 3, 7, 7], "[0, 0, 0, 0] Basic blocks and 32 channels"),
            ("features.0.weight", &[64, 3, 3, 3], "the first are features.0.weight"),
        ];
        for (name, shape, words) in cases {
            let reason = identify(&[(name.to_owned(), zeros(shape))].into()).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
    }
}

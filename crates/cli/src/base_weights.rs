//! The weights that fine-tuning starts from: found, read, described.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_nn::VarMap;
use taper_data::Preprocess;
use taper_models::{BlockKind, ModelConfig, ResNetConfig, ResNetLayout, Stem};
use taper_train::{LoadReport, Weights, sha256_of_file};

use crate::exit::{bad_input, usage};
use crate::model_card::ModelCard;
use crate::trained::weights_file;

/// Weights with the network and the preprocessing that they belong to.
pub(crate) struct BaseWeights {
    pub(crate) weights: Weights,
    pub(crate) file: PathBuf,
    pub(crate) architecture: ModelConfig,
    pub(crate) preprocessing: Preprocess,
    pub(crate) origin: Origin,
    pub(crate) known_by: KnownBy,
}

/// What a run and its weights say about the weights they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) sha256: String,
    pub(crate) licence: Option<String>,
}

/// How the network of the weights is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnownBy {
    /// The file says it.
    Metadata,
    /// The names and shapes of the tensors; the preprocessing is ImageNet's usual one.
    TensorNames,
}

impl BaseWeights {
    /// Reads what `--weights` names: a run directory, or a safetensors file.
    pub(crate) fn open(source: &str) -> Result<Self> {
        let file = weights_file(Path::new(source))?;
        let weights = Weights::read(&file)?;
        let sha256 = sha256_of_file(&file)?;
        if weights.metadata.contains_key("taper") {
            let card = ModelCard::of(&weights, &file)?;
            let origin = Origin { sha256, licence: card.licence };
            let (architecture, preprocessing) = (card.architecture, card.preprocessing);
            return Ok(Self { weights, file, architecture, preprocessing, origin, known_by: KnownBy::Metadata });
        }
        let architecture = architecture_of(&weights).ok_or_else(|| {
            bad_input(format!(
                "{}: its tensors are not those of a ResNet-18, -34, -50, -101 or -152 in torchvision's names; use such a \
                 file, or one that taper wrote",
                file.display()
            ))
        })?;
        let origin = Origin { sha256, licence: None };
        let preprocessing = Preprocess::imagenet();
        Ok(Self { weights, file, architecture, preprocessing, origin, known_by: KnownBy::TensorNames })
    }

    /// Finds a configuration that asks for another network than the weights are of. Image size and first values may be
    /// others.
    pub(crate) fn require_network(&self, wanted: &ModelConfig) -> Result<()> {
        let shape = |model: &ModelConfig| -> Result<serde_json::Value> {
            let mut value = serde_json::to_value(model)?;
            if let Some(keys) = value.as_object_mut() {
                keys.retain(|key, _| !["input_size", "last_norm", "head_init"].contains(&key.as_str()));
            }
            Ok(value)
        };
        let (wanted, own) = (shape(wanted)?, shape(&self.architecture)?);
        if wanted == own {
            return Ok(());
        }
        let shown = self.file.display();
        Err(usage(format!(
            "model = {wanted}: {shown} holds the weights of {own}; leave out what [model] sets, or use other weights"
        )))
    }

    /// Puts everything but the head into the variables of a network.
    pub(crate) fn load_into(&self, network: &ModelConfig, vars: &VarMap) -> Result<LoadReport> {
        Ok(self.weights.restore_backbone(network.layers().head(), vars, &self.file)?)
    }
}

/// The network that has tensors of these names and shapes.
fn architecture_of(weights: &Weights) -> Option<ModelConfig> {
    const LAYOUTS: [(&str, ResNetLayout); 5] = [
        ("resnet18", ResNetLayout::RESNET18),
        ("resnet34", ResNetLayout::RESNET34),
        ("resnet50", ResNetLayout::RESNET50),
        ("resnet101", ResNetLayout::RESNET101),
        ("resnet152", ResNetLayout::RESNET152),
    ];
    let tensor = |name: &str| weights.tensors.get(name);
    let block = if tensor("layer1.0.conv3.weight").is_some() { BlockKind::Bottleneck } else { BlockKind::Basic };
    let depths = num_blocks(weights);
    let (name, _) = LAYOUTS.iter().find(|(_, layout)| layout.block == block && layout.depths == depths)?;
    let (stem, input_size) = match tensor("conv1.weight").map(|weight| weight.dims()) {
        None if tensor("conv1.0.weight").is_some() => (Stem::ResNetD, 224),
        Some([_, _, 7, 7]) => (Stem::ImageNet, 224),
        Some([_, _, 3, 3]) => (Stem::Cifar, 32),
        _ => return None,
    };
    let config = ResNetConfig { stem, input_size, ..ResNetConfig::default() };
    Some(match *name {
        "resnet18" => ModelConfig::ResNet18(config),
        "resnet34" => ModelConfig::ResNet34(config),
        "resnet50" => ModelConfig::ResNet50(config),
        "resnet101" => ModelConfig::ResNet101(config),
        _ => ModelConfig::ResNet152(config),
    })
}

/// Blocks of `layer1` to `layer4`.
fn num_blocks(weights: &Weights) -> [usize; 4] {
    let mut blocks: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in weights.tensors.keys() {
        let mut parts = name.split('.');
        if let (Some(layer), Some(block)) = (parts.next(), parts.next()) {
            blocks.entry(layer).or_default().insert(block);
        }
    }
    ["layer1", "layer2", "layer3", "layer4"].map(|layer| blocks.get(layer).map_or(0, BTreeSet::len))
}

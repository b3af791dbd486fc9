//! Parameter names of the same ResNet in different libraries.
//!
//! Ours are torchvision's, which timm shares; timm alone has the deep stem of ResNet-D. transformers has its own, and
//! the same tensors under them.

use std::collections::BTreeMap;

/// Whose parameter names a file has, or shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// torchvision's, which are those of `taper-models`: `layer1.0.conv1.weight`.
    Torchvision,
    /// timm's: torchvision's, with `conv1.0.weight` and `downsample.1.weight` in a ResNet-D.
    Timm,
    /// transformers' as of `ResNetForImageClassification`: `resnet.encoder.stages.0.layers.0.layer.0.convolution.weight`.
    Transformers,
}

impl Naming {
    /// The library's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Torchvision => "torchvision",
            Self::Timm => "timm",
            Self::Transformers => "transformers",
        }
    }

    /// Whose names these are. Names that torchvision and timm share count as torchvision's.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut naming = Self::Torchvision;
        for name in names {
            if Parameter::parse_transformers(name).is_some() {
                return Self::Transformers;
            }
            if name.starts_with("conv1.0.") {
                naming = Self::Timm;
            }
        }
        naming
    }

    /// The name in `taper-models` of a parameter that this library calls `name`. Names that no ResNet has stay as they
    /// are, so that they can be reported.
    pub fn to_ours(self, name: &str) -> String {
        let parameter = match self {
            Self::Transformers => Parameter::parse_transformers(name),
            Self::Torchvision | Self::Timm => None,
        };
        parameter.map_or_else(|| name.to_owned(), |parameter| parameter.ours())
    }

    /// This library's name of a parameter that `taper-models` calls `name`; none if it has no such parameter.
    pub fn to_theirs(self, name: &str) -> Option<String> {
        match self {
            Self::Timm => Some(name.to_owned()),
            Self::Torchvision => (!is_of_resnet_d(name)).then(|| name.to_owned()),
            Self::Transformers if is_of_resnet_d(name) => None,
            Self::Transformers => Parameter::parse_ours(name).map(|parameter| parameter.transformers()),
        }
    }

    /// All tensors under the names of `taper-models`.
    ///
    /// # Errors
    /// Two names that become one.
    pub(super) fn all_to_ours<T>(self, tensors: BTreeMap<String, T>) -> Result<BTreeMap<String, T>, String> {
        let mut ours = BTreeMap::new();
        for (name, tensor) in tensors {
            let renamed = self.to_ours(&name);
            if ours.contains_key(&renamed) {
                return Err(format!("{name} is there twice, under the names of two libraries"));
            }
            ours.insert(renamed, tensor);
        }
        Ok(ours)
    }
}

/// Names that only a ResNet-D has: the parts of its stem, and the norm after its pooled shortcut.
fn is_of_resnet_d(name: &str) -> bool {
    let deep_stem =
        name.strip_prefix("conv1.").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    deep_stem || name.contains(".downsample.2.")
}

/// A parameter or buffer of a ResNet, with the last part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parameter<'a> {
    module: Module<'a>,
    leaf: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Module<'a> {
    Stem(Layer),
    /// Stage from 0, block as written, convolution of the block from 0.
    Block {
        stage: usize,
        block: &'a str,
        index: usize,
        layer: Layer,
    },
    Shortcut {
        stage: usize,
        block: &'a str,
        layer: Layer,
    },
    Head,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Conv,
    Norm,
}

impl Layer {
    fn transformers(self) -> &'static str {
        match self {
            Self::Conv => "convolution",
            Self::Norm => "normalization",
        }
    }

    fn parse_transformers(name: &str) -> Option<Self> {
        [Self::Conv, Self::Norm].into_iter().find(|layer| layer.transformers() == name)
    }
}

impl<'a> Parameter<'a> {
    fn parse_ours(name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        let (module, leaf) = match parts[..] {
            ["conv1", leaf] => (Module::Stem(Layer::Conv), leaf),
            ["bn1", leaf] => (Module::Stem(Layer::Norm), leaf),
            ["fc", leaf] => (Module::Head, leaf),
            [stage, block, "downsample", layer, leaf] => {
                let layer = match layer {
                    "0" => Layer::Conv,
                    "1" => Layer::Norm,
                    _ => return None,
                };
                (Module::Shortcut { stage: counted_from_one(stage, "layer")?, block, layer }, leaf)
            }
            [stage, block, unit, leaf] => {
                let (index, layer) = match (counted_from_one(unit, "conv"), counted_from_one(unit, "bn")) {
                    (Some(index), _) => (index, Layer::Conv),
                    (_, Some(index)) => (index, Layer::Norm),
                    _ => return None,
                };
                (Module::Block { stage: counted_from_one(stage, "layer")?, block, index, layer }, leaf)
            }
            _ => return None,
        };
        Some(Self { module, leaf })
    }

    fn ours(&self) -> String {
        let leaf = self.leaf;
        match self.module {
            Module::Stem(Layer::Conv) => format!("conv1.{leaf}"),
            Module::Stem(Layer::Norm) => format!("bn1.{leaf}"),
            Module::Head => format!("fc.{leaf}"),
            Module::Shortcut { stage, block, layer } => {
                let index = if layer == Layer::Conv { 0 } else { 1 };
                format!("layer{}.{block}.downsample.{index}.{leaf}", stage + 1)
            }
            Module::Block { stage, block, index, layer } => {
                let unit = if layer == Layer::Conv { "conv" } else { "bn" };
                format!("layer{}.{block}.{unit}{}.{leaf}", stage + 1, index + 1)
            }
        }
    }

    /// A backbone alone (`ResNetModel`) has no `resnet.` before its names.
    fn parse_transformers(name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = name.strip_prefix("resnet.").unwrap_or(name).split('.').collect();
        let (module, leaf) = match parts[..] {
            ["embedder", "embedder", layer, leaf] => (Module::Stem(Layer::parse_transformers(layer)?), leaf),
            ["classifier", "1", leaf] => (Module::Head, leaf),
            ["encoder", "stages", stage, "layers", block, "shortcut", layer, leaf] => {
                let layer = Layer::parse_transformers(layer)?;
                (Module::Shortcut { stage: number(stage)?, block, layer }, leaf)
            }
            ["encoder", "stages", stage, "layers", block, "layer", index, layer, leaf] => {
                let layer = Layer::parse_transformers(layer)?;
                (Module::Block { stage: number(stage)?, block, index: number(index)?, layer }, leaf)
            }
            _ => return None,
        };
        Some(Self { module, leaf })
    }

    fn transformers(&self) -> String {
        let leaf = self.leaf;
        match self.module {
            Module::Stem(layer) => format!("resnet.embedder.embedder.{}.{leaf}", layer.transformers()),
            Module::Head => format!("classifier.1.{leaf}"),
            Module::Shortcut { stage, block, layer } => {
                format!("resnet.encoder.stages.{stage}.layers.{block}.shortcut.{}.{leaf}", layer.transformers())
            }
            Module::Block { stage, block, index, layer } => {
                format!("resnet.encoder.stages.{stage}.layers.{block}.layer.{index}.{}.{leaf}", layer.transformers())
            }
        }
    }
}

/// The number after a prefix, from 0 instead of from 1.
fn counted_from_one(part: &str, prefix: &str) -> Option<usize> {
    number(part.strip_prefix(prefix)?)?.checked_sub(1)
}

/// A number as it is written by a program: no sign, no leading zero; four digits are more than any ResNet has.
fn number(digits: &str) -> Option<usize> {
    let plain = (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let leading = digits.len() > 1 && digits.starts_with('0');
    if plain && !leading { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped_both_ways() {
        let cases = [
            ("conv1.weight", "resnet.embedder.embedder.convolution.weight"),
            ("bn1.running_var", "resnet.embedder.embedder.normalization.running_var"),
            ("layer1.0.conv1.weight", "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"),
            (
                "layer3.22.bn3.num_batches_tracked",
                "resnet.encoder.stages.2.layers.22.layer.2.normalization.num_batches_tracked",
            ),
            ("layer4.0.downsample.0.weight", "resnet.encoder.stages.3.layers.0.shortcut.convolution.weight"),
            ("layer2.0.downsample.1.bias", "resnet.encoder.stages.1.layers.0.shortcut.normalization.bias"),
            ("fc.bias", "classifier.1.bias"),
        ];
        for (ours, theirs) in cases {
            assert_eq!(Naming::Transformers.to_theirs(ours).as_deref(), Some(theirs));
            assert_eq!(Naming::Transformers.to_ours(theirs), ours);
            assert_eq!(Naming::Torchvision.to_theirs(ours).as_deref(), Some(ours));
        }
        assert_eq!(Naming::Transformers.to_ours("embedder.embedder.convolution.weight"), "conv1.weight");
    }

    #[test]
    fn names_without_a_counterpart_have_none() {
        for name in ["conv1.0.weight", "conv1.4.bias", "layer2.0.downsample.2.weight"] {
            assert_eq!(Naming::Timm.to_theirs(name).as_deref(), Some(name));
            assert_eq!(Naming::Torchvision.to_theirs(name), None);
            assert_eq!(Naming::Transformers.to_theirs(name), None);
        }
        for name in ["layer0.0.conv1.weight", "layer1.0.conv0.weight", "layer1.0.se.fc.weight", "stem.conv.weight", ""]
        {
            assert_eq!(Naming::Transformers.to_theirs(name), None);
        }
        for name in ["resnet.encoder.stages.01.layers.0.layer.0.convolution.weight", "resnet.pooler.x", "vit.encoder"] {
            assert_eq!(Naming::Transformers.to_ours(name), name);
        }
    }

    #[test]
    fn two_names_for_one_parameter_are_refused() {
        let tensors = [("conv1.weight".to_owned(), 0), ("embedder.embedder.convolution.weight".to_owned(), 1)].into();
        let reason = Naming::Transformers.all_to_ours(tensors).unwrap_err();
        assert!(reason.starts_with("embedder.embedder.convolution.weight is there twice"), "{reason}");
    }
}

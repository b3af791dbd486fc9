//! Weights of other libraries, ready for `taper-models`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use taper_models::{ForeignBackbone, ForeignConfig, ModelConfig, Stem};

use super::config::{Description, Documents, Facts, Kind};
use super::identify::{Identified, identify, resnet_of};
use super::{Naming, WeightsError, WeightsFile, foreign};

/// Weights of a ResNet, or of a backbone of another family, under the names of `taper-models`, with what is known about them.
#[derive(Debug)]
pub struct Pretrained {
    /// The file, for messages.
    pub path: PathBuf,
    /// Tensors by our names.
    pub tensors: BTreeMap<String, Tensor>,
    /// Whose names the file has.
    pub naming: Naming,
    /// The network they belong to, for images of the size that the preprocessing gives.
    pub architecture: ModelConfig,
    /// Classes of the head; none where the file has no head.
    pub num_classes: Option<usize>,
    /// Preprocessing, class names, licence.
    pub description: Description,
}

impl Pretrained {
    /// Reads a file and the configurations beside it.
    ///
    /// # Errors
    /// Those of [`WeightsFile::read`] and of [`Pretrained::of`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::of(WeightsFile::read(path)?, path, &Documents::beside(path)?)
    }

    /// Understands the tensors of a file by their names and shapes, and the configurations that came with it.
    ///
    /// # Errors
    /// Tensors that are no known network's, or a configuration that contradicts them or cannot be followed.
    pub fn of(file: WeightsFile, path: &Path, documents: &Documents) -> Result<Self, WeightsError> {
        if let Some(backbone) = documents.foreign_backbone() {
            return Self::of_foreign(backbone, file, path, documents);
        }
        let naming = Naming::of(file.tensors.keys().map(String::as_str));
        let tensors = naming.all_to_ours(file.tensors).map_err(|reason| WeightsError::malformed(path, reason))?;
        let Identified { architecture, num_classes } =
            identify(&tensors).map_err(|reason| WeightsError::UnknownArchitecture { path: path.to_owned(), reason })?;
        let (name, is_resnet_d) =
            resnet_of(&architecture).map_or(("", false), |(name, _, config)| (name, config.stem == Stem::ResNetD));
        let name = format!("{name}{}", if is_resnet_d { "d" } else { "" });
        let description = Description::of(documents, &Facts { name: &name, kind: Kind::ResNet, num_classes })?;
        let architecture = with_input_size(architecture, description.preprocessing.input_size[0]);
        Ok(Self { path: path.to_owned(), tensors, naming, architecture, num_classes, description })
    }

    fn of_foreign(
        backbone: &'static ForeignBackbone,
        file: WeightsFile,
        path: &Path,
        documents: &Documents,
    ) -> Result<Self, WeightsError> {
        let naming = foreign::naming_of(&file.tensors);
        let tensors =
            foreign::to_ours(backbone, naming, file.tensors).map_err(|reason| WeightsError::malformed(path, reason))?;
        let num_classes = foreign::num_classes(&tensors);
        let facts = Facts { name: foreign::timm_name(backbone), kind: Kind::Foreign(backbone.family), num_classes };
        let mut description = Description::of(documents, &facts)?;
        if num_classes.is_none() {
            // transformers numbers two where there is no head.
            description.classes = None;
        }
        let input_size = description.preprocessing.input_size[0];
        let config = ForeignConfig { backbone: backbone.name.to_owned(), input_size };
        let architecture = ModelConfig::Foreign(config);
        Ok(Self { path: path.to_owned(), tensors, naming, architecture, num_classes, description })
    }

    /// Class names: the configuration's, or the indices as text.
    pub fn class_names(&self) -> Vec<String> {
        let indices = || (0..self.num_classes.unwrap_or(0)).map(|index| index.to_string()).collect();
        self.description.classes.clone().unwrap_or_else(indices)
    }
}

fn with_input_size(architecture: ModelConfig, side: usize) -> ModelConfig {
    let mut architecture = architecture;
    if let ModelConfig::ResNet18(config)
    | ModelConfig::ResNet34(config)
    | ModelConfig::ResNet50(config)
    | ModelConfig::ResNet101(config)
    | ModelConfig::ResNet152(config) = &mut architecture
    {
        config.input_size = side;
    }
    architecture
}

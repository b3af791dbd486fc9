//! Weights of other libraries, ready for `taper-models`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use taper_models::{ModelConfig, Stem};

use super::config::{Description, Documents, Facts};
use super::identify::{Identified, identify, resnet_of};
use super::{Naming, WeightsError, WeightsFile};

/// A ResNet's weights under the names of `taper-models`, with what is known about them.
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
    /// Tensors that are no known ResNet's, or a configuration that contradicts them or cannot be followed.
    pub fn of(file: WeightsFile, path: &Path, documents: &Documents) -> Result<Self, WeightsError> {
        let naming = Naming::of(file.tensors.keys().map(String::as_str));
        let tensors = naming.all_to_ours(file.tensors).map_err(|reason| WeightsError::malformed(path, reason))?;
        let Identified { architecture, num_classes } =
            identify(&tensors).map_err(|reason| WeightsError::UnknownArchitecture { path: path.to_owned(), reason })?;
        let (name, is_resnet_d) =
            resnet_of(&architecture).map_or(("", false), |(name, _, config)| (name, config.stem == Stem::ResNetD));
        let description = Description::of(documents, &Facts { name, is_resnet_d, num_classes })?;
        let architecture = with_input_size(architecture, description.preprocessing.input_size[0]);
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

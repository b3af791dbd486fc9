//! A trained model, ready to be used: from a run directory or a weights file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::Device;
use candle_nn::VarMap;
use taper_data::Loader;
use taper_models::{Network, seeded};
use taper_train::{ImageInput, Images, Weights};

use crate::exit::bad_input;
use crate::model_card::ModelCard;

/// A model with its weights, its classes and its preprocessing.
pub(crate) struct Trained {
    pub(crate) model: Network,
    pub(crate) vars: VarMap,
    pub(crate) card: ModelCard,
    /// The run directory, where one was given.
    pub(crate) run: Option<PathBuf>,
}

impl Trained {
    /// Loads the best weights of a run, or a weights file.
    pub(crate) fn load(path: &Path, device: &Device) -> Result<Self> {
        let file = weights_file(path)?;
        let weights = Weights::read(&file)?;
        let card = ModelCard::of(&weights, &file)?;
        let vars = VarMap::new();
        let model = card.architecture.build(card.classes.len(), seeded(&vars, 0, device))?;
        weights.restore(&vars, &file)?;
        Ok(Self { model, vars, card, run: path.is_dir().then(|| path.to_owned()) })
    }

    /// The batches of a loader as this model takes them.
    pub(crate) fn images(&self, loader: Loader, device: &Device) -> Images {
        Images { loader, input: ImageInput { stats: self.card.preprocessing.stats(), device: device.clone() } }
    }
}

/// The file that a run directory or a path means.
pub(crate) fn weights_file(path: &Path) -> Result<PathBuf> {
    if !path.exists() {
        return Err(bad_input(format!("no such run or weights file: {}", path.display())));
    }
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let file = path.join("model.safetensors");
    if file.is_file() {
        return Ok(file);
    }
    let reason = if path.join("config.toml").is_file() {
        "the run has not finished an epoch yet"
    } else {
        "not a run directory"
    };
    Err(bad_input(format!("{} has no model.safetensors: {reason}", path.display())))
}

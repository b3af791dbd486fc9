//! A trained model, ready to be used: from a run directory or a weights file, ours or another library's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use taper_data::{Loader, Preprocess};
use taper_hub::weights::{Documents, Head, Naming, Origin, Pretrained, Reshaped, WeightsError, WeightsFile, load};
use taper_models::{Network, seeded};
use taper_train::{ImageInput, Images};

use crate::config::RunConfig;
use crate::device;
use crate::exit::bad_input;
use crate::model_card::ModelCard;
use crate::prepare::{read_json, require_classes};
use crate::same_data::require_unedited;

/// A model with its weights, its classes and its preprocessing.
pub(crate) struct Trained {
    pub(crate) model: Network,
    pub(crate) vars: VarMap,
    pub(crate) card: ModelCard,
    pub(crate) class_names: ClassNames,
    /// The run directory, where one was given.
    pub(crate) run: Option<PathBuf>,
}

impl Trained {
    /// Loads the best weights of a run, or a weights file.
    pub(crate) fn load(path: &Path, device: &Device) -> Result<Self> {
        let file = weights_file(path)?;
        let described = Described::of(WeightsFile::read(&file)?, &file)?;
        described.tell(&file);
        let Described { tensors, card, class_names, .. } = described;
        if card.classes.is_empty() {
            return Err(bad_input(format!(
                "{} has no head (no fc.weight), so it tells no classes apart",
                file.display()
            )));
        }
        if path.join("provenance.json").is_file() {
            require_unedited(path)?;
            let classes: Vec<String> = read_json(&path.join("classes.json"))?;
            require_classes(&card.classes, &classes, &path.join("classes.json").display().to_string())?;
            require_preprocessing(&card, &path.join("preprocess.json"), &file)?;
        }
        let vars = VarMap::new();
        let model = card.architecture.build(card.classes.len(), seeded(&vars, 0, device))?;
        let loaded = load(&tensors, &vars, Head::Loaded, &file);
        loaded.map_err(|error| of_outputs(error, card.classes.len(), &file))?;
        Ok(Self { model, vars, card, class_names, run: path.is_dir().then(|| path.to_owned()) })
    }

    /// The batches of a loader as this model takes them. Where no type of activations is asked for, a GPU computes in that
    /// of the run's training: in f32 it is many times as slow as in bf16.
    pub(crate) fn images(&self, loader: Loader, device: &Device, dtype: Option<DType>) -> Result<Images> {
        let dtype = match (dtype, &self.run) {
            (Some(dtype), _) => dtype,
            // A folder of another library's weights is no run.
            (None, Some(run)) if !device.is_cpu() && run.join("config.toml").is_file() => {
                device::dtype("train.dtype =", &RunConfig::of_run(run)?.train.dtype, device)?
            }
            (None, _) => DType::F32,
        };
        let stats = self.card.preprocessing.stats();
        Ok(Images { loader, input: ImageInput { stats, device: device.clone(), dtype } })
    }

    /// Takes the names of as many classes, where the weights have numbers alone.
    pub(crate) fn adopt_class_names(&mut self, names: &[String]) {
        if self.class_names == ClassNames::Numbers && names.len() == self.card.classes.len() {
            tracing::warn!("the weights do not name their classes; those of the data are taken in their order");
            self.card.classes = names.to_vec();
        }
    }
}

/// The weights of a run must be prepared for as the run says.
fn require_preprocessing(card: &ModelCard, path: &Path, file: &Path) -> Result<()> {
    let written: Preprocess = read_json(path)?;
    if written == card.preprocessing {
        return Ok(());
    }
    Err(bad_input(format!(
        "{} is not the preprocessing that {} was trained with: one of them was changed or is another run's; put it back",
        path.display(),
        file.display()
    )))
}

/// Says it where nothing but the number of the head's outputs is not that of the classes: answers would have wrong names.
fn of_outputs(error: WeightsError, num_classes: usize, file: &Path) -> anyhow::Error {
    let WeightsError::Misfit { report, .. } = &error else { return error.into() };
    let is_of_outputs = |tensor: &Reshaped| match (&tensor.in_file[..], &tensor.in_model[..]) {
        ([_, inputs @ ..], [wanted, same @ ..]) => *wanted == num_classes && inputs == same,
        _ => false,
    };
    match &report.reshaped[..] {
        [head, ..]
            if report.missing.is_empty()
                && report.unexpected.is_empty()
                && report.reshaped.iter().all(is_of_outputs) =>
        {
            bad_input(format!(
                "{}: it names {num_classes} classes, and its head ({}) has {} outputs; the list of classes was changed, \
                 take the file that training wrote",
                file.display(),
                head.name,
                head.in_file[0]
            ))
        }
        _ => error.into(),
    }
}

/// Whether the names of classes mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClassNames {
    Known,
    /// Their indices stand for them.
    Numbers,
}

/// Weights under our names, with what they or the files beside them say.
pub(crate) struct Described {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) card: ModelCard,
    pub(crate) class_names: ClassNames,
    /// Whose names the file has.
    pub(crate) naming: Naming,
    /// Where the preprocessing comes from; a card of ours counts as a configuration.
    pub(crate) preprocessing_from: Origin,
}

impl Described {
    /// Reads our card in the metadata, or else the names and shapes of the tensors and another library's configuration.
    pub(crate) fn of(file: WeightsFile, path: &Path) -> Result<Self> {
        if let Some(card) = ModelCard::of(&file.metadata, path)? {
            let naming = Naming::of(file.tensors.keys().map(String::as_str));
            let tensors = file.tensors.into_iter().map(|(name, tensor)| (naming.to_ours(&name), tensor)).collect();
            let (class_names, preprocessing_from) = (ClassNames::Known, Origin::Configuration);
            return Ok(Self { tensors, card, class_names, naming, preprocessing_from });
        }
        let found = Pretrained::of(file, path, &Documents::beside(path)?)?;
        let classes = found.class_names();
        let named = found.description.classes.is_some();
        Ok(Self {
            card: ModelCard {
                architecture: found.architecture,
                classes,
                preprocessing: found.description.preprocessing,
                licence: found.description.licence,
                base_weights_sha256: None,
            },
            tensors: found.tensors,
            class_names: if named { ClassNames::Known } else { ClassNames::Numbers },
            naming: found.naming,
            preprocessing_from: found.description.preprocessing_from,
        })
    }

    /// Says what was assumed.
    pub(crate) fn tell(&self, path: &Path) {
        if self.preprocessing_from == Origin::ImageNetDefault {
            tracing::warn!(
                "{} does not say how it was trained: a {} by its tensors, and ImageNet's preprocessing is assumed \
                 (shorter side to 256, central 224, bilinear, ImageNet's mean and std)",
                path.display(),
                self.card.architecture.name(),
            );
        }
        if self.class_names == ClassNames::Numbers {
            tracing::warn!(
                "{} does not name its {} classes; they are numbered",
                path.display(),
                self.card.classes.len()
            );
        }
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

//! What a library's configuration says about weights: preprocessing, class names, licence.

mod timm;
mod transformers;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use taper_data::Preprocess;
use taper_models::{ForeignBackbone, ForeignFamily};

use super::{WeightsError, foreign};

/// The name of the configuration beside weights, timm's and transformers' alike.
pub const CONFIG: &str = "config.json";
/// The name of transformers' configuration of the preprocessing.
pub const PREPROCESSOR_CONFIG: &str = "preprocessor_config.json";

/// A configuration as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where; for messages.
    pub path: PathBuf,
    /// The JSON.
    pub text: String,
}

/// The configurations that may accompany weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// [`CONFIG`].
    pub config: Option<Document>,
    /// [`PREPROCESSOR_CONFIG`].
    pub preprocessor: Option<Document>,
}

/// Most bytes of a configuration. Those of 21,000 classes with descriptions have 3 MB.
const MAX_BYTES: u64 = 32 << 20;

impl Documents {
    /// The configurations in the folder of a weights file.
    ///
    /// # Errors
    /// One that is there but cannot be read.
    pub fn beside(weights: &Path) -> Result<Self, WeightsError> {
        let read = |name: &str| -> Result<Option<Document>, WeightsError> {
            let path = weights.with_file_name(name);
            if !path.is_file() {
                return Ok(None);
            }
            let length = std::fs::metadata(&path).map(|metadata| metadata.len());
            let text = match length {
                Ok(length) if length > MAX_BYTES => {
                    return Err(config_error(&path, format!("{length} bytes are too many")));
                }
                _ => std::fs::read_to_string(&path),
            };
            let text = text.map_err(|source| WeightsError::Read { path: path.clone(), source })?;
            Ok(Some(Document { path, text }))
        };
        Ok(Self { config: read(CONFIG)?, preprocessor: read(PREPROCESSOR_CONFIG)? })
    }

    /// The backbone of another family that the configuration names, if it can be read and does.
    pub(super) fn foreign_backbone(&self) -> Option<&'static ForeignBackbone> {
        let config = object(&self.config.as_ref()?.text).ok()?;
        foreign::named_by(&config)
    }
}

/// What is known about weights beside their tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// How images must look.
    pub preprocessing: Preprocess,
    /// Where the preprocessing comes from.
    pub preprocessing_from: Origin,
    /// Class names in index order, where a configuration has them.
    pub classes: Option<Vec<String>>,
    /// The licence, where a configuration names it.
    pub licence: Option<String>,
}

/// Where a preprocessing comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A configuration says so.
    Configuration,
    /// Nothing says anything, and it is [`Preprocess::imagenet`]; the user should be told.
    ImageNetDefault,
}

/// What the file and its network are, for a configuration to be held against.
pub(super) struct Facts<'a> {
    /// timm's name of the network.
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    pub(super) num_classes: Option<usize>,
}

/// Whose layers a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ResNet,
    Foreign(ForeignFamily),
}

impl Description {
    /// Reads what the configurations say about a network.
    pub(super) fn of(documents: &Documents, facts: &Facts<'_>) -> Result<Self, WeightsError> {
        let mut description = Self {
            preprocessing: Preprocess::imagenet(),
            preprocessing_from: Origin::ImageNetDefault,
            classes: None,
            licence: None,
        };
        if let Some(document) = &documents.config {
            let fail = |reason: String| config_error(&document.path, reason);
            let config = object(&document.text).map_err(fail)?;
            if config.contains_key("model_type") {
                transformers::read_config(&config, facts, &mut description).map_err(fail)?;
            } else {
                timm::read_config(&config, facts, &mut description).map_err(fail)?;
            }
        }
        if let Some(document) = &documents.preprocessor {
            let fail = |reason: String| config_error(&document.path, reason);
            let config = object(&document.text).map_err(fail)?;
            description.preprocessing = transformers::read_preprocessor(&config).map_err(fail)?;
            description.preprocessing_from = Origin::Configuration;
        }
        Ok(description)
    }
}

fn config_error(path: &Path, reason: String) -> WeightsError {
    WeightsError::Config { path: path.to_owned(), reason }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not the JSON object of a configuration: {error}"))
}

/// The value of a key, if there is one other than null.
pub(super) fn get<'a>(config: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    config.get(key).filter(|value| !value.is_null())
}

fn wrong(key: &str, value: &Value, expected: &str) -> String {
    let shown: String = value.to_string().chars().take(80).collect();
    format!("{key} is {shown}; expected {expected}")
}

/// The three numbers of a key.
fn per_channel(config: &Map<String, Value>, key: &str) -> Result<Option<[f32; 3]>, String> {
    let Some(value) = get(config, key) else { return Ok(None) };
    let numbers =
        value.as_array().map(|items| items.iter().filter_map(Value::as_f64).map(|item| item as f32).collect());
    let numbers: Option<Vec<f32>> = numbers;
    let three = numbers.and_then(|numbers| <[f32; 3]>::try_from(numbers).ok());
    three.map(Some).ok_or_else(|| wrong(key, value, "three numbers"))
}

/// A number of pixels.
fn pixels(key: &str, value: &Value) -> Result<usize, String> {
    let pixels = value.as_u64().filter(|pixels| (1..=4096).contains(pixels));
    pixels.map(|pixels| pixels as usize).ok_or_else(|| wrong(key, value, "1 to 4096 pixels"))
}

/// The side to which images are scaled, of which the crop keeps a share; rounded down, as in both libraries.
fn scaled_side(side: usize, crop_pct: f64) -> Result<usize, String> {
    let scaled = (side as f64 / crop_pct).floor();
    if crop_pct > 0.0 && crop_pct <= 1.0 && scaled <= 8192.0 {
        Ok(scaled as usize)
    } else {
        Err(format!("crop_pct is {crop_pct}; expected a number above 0 and at most 1"))
    }
}

/// The share that [`scaled_side`] turns into `scaled`.
pub(super) fn crop_pct(side: usize, scaled: usize) -> f64 {
    let mut share = side as f64 / scaled as f64;
    // The quotient is rounded, so that the way back may end just below the whole number.
    while (side as f64 / share).floor() < scaled as f64 {
        share = share.next_down();
    }
    share
}

/// Fails where the head has another number of classes than a configuration names.
fn require_count(what: &str, count: usize, facts: &Facts<'_>) -> Result<(), String> {
    match facts.num_classes {
        Some(num_classes) if num_classes != count => {
            Err(format!("{what} gives {count} classes, but the weights have {num_classes}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

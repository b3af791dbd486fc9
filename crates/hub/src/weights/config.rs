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
mod tests {
    use super::*;
    use taper_data::Interpolation;

    const RESNET18: Facts<'_> = Facts { name: "resnet18", kind: Kind::ResNet, num_classes: Some(2) };

    fn documents(config: &str, preprocessor: &str) -> Documents {
        let document = |name: &str, text: &str| {
            (!text.is_empty()).then(|| Document { path: PathBuf::from(name), text: text.to_owned() })
        };
        Documents { config: document(CONFIG, config), preprocessor: document(PREPROCESSOR_CONFIG, preprocessor) }
    }

    fn describe(config: &str, preprocessor: &str) -> Result<Description, String> {
        Description::of(&documents(config, preprocessor), &RESNET18).map_err(|error| error.to_string())
    }

    /// `[input side, resize or 0]` and the interpolation.
    fn geometry(description: &Description) -> ([usize; 2], Interpolation) {
        let preprocessing = &description.preprocessing;
        ([preprocessing.input_size[0], preprocessing.resize.unwrap_or(0)], preprocessing.interpolation)
    }

    #[test]
    fn silence_is_imagenets_default() {
        let description = describe("", "").unwrap();
        assert_eq!(description.preprocessing, Preprocess::imagenet());
        assert_eq!(description.preprocessing_from, Origin::ImageNetDefault);
        assert_eq!((description.classes, description.licence), (None, None));
    }

    #[test]
    fn timm_is_read() {
        let nested = r#"{"architecture": "resnet18", "num_classes": 2, "label_names": ["ant", "bee"], "pretrained_cfg":
        {"input_size": [3, 224, 224], "test_input_size": [3, 288, 288], "crop_pct": 0.95, "interpolation": "bicubic",
         "crop_mode": "center", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "license": "apache-2.0"}}"#;
        let description = describe(nested, "").unwrap();
        assert_eq!(geometry(&description), ([224, 235], Interpolation::Bicubic));
        assert_eq!((description.preprocessing.mean, description.preprocessing.std), ([0.5; 3], [0.25; 3]));
        assert_eq!(description.classes.unwrap(), ["ant", "bee"]);
        assert_eq!(description.licence.unwrap(), "apache-2.0");
        assert_eq!(description.preprocessing_from, Origin::Configuration);
        let cases = [
            (r#"{"architecture": "swsl_resnet18", "interpolation": "bilinear", "crop_pct": 0.875}"#, [224, 256]),
            (r#"{"architecture": "resnet18.tv_in1k", "pretrained_cfg": {"interpolation": "bilinear"}}"#, [224, 256]),
            (
                r#"{"architecture": "resnet18", "interpolation": "bilinear", "crop_mode": "squash", "crop_pct": 1.0, "input_size": [3, 32, 32]}"#,
                [32, 0],
            ),
        ];
        for (config, expected) in cases {
            assert_eq!(geometry(&describe(config, "").unwrap()), (expected, Interpolation::Bilinear), "{config}");
        }
    }

    #[test]
    fn transformers_is_read() {
        let config = r#"{"model_type": "resnet", "hidden_act": "relu", "downsample_in_first_stage": false, "id2label": {"1": "bee", "0": "ant"}}"#;
        let description = describe(config, "").unwrap();
        assert_eq!(description.classes.unwrap(), ["ant", "bee"]);
        assert_eq!(description.preprocessing_from, Origin::ImageNetDefault);
        // The first is what microsoft/resnet-18 has.
        let cases = [
            (
                r#"{"crop_pct": 0.875, "do_normalize": true, "do_resize": true, "feature_extractor_type": "ConvNextFeatureExtractor", "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224}"#,
                [224, 256],
                Interpolation::Bicubic,
            ),
            (
                r#"{"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "resample": 2}"#,
                [384, 0],
                Interpolation::Bilinear,
            ),
            (
                r#"{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 235}, "crop_size": {"height": 224, "width": 224}, "resample": 3}"#,
                [224, 235],
                Interpolation::Bicubic,
            ),
            (
                r#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2}"#,
                [32, 0],
                Interpolation::Bilinear,
            ),
        ];
        for (preprocessor, expected, interpolation) in cases {
            let description = describe(config, preprocessor).unwrap();
            assert_eq!(geometry(&description), (expected, interpolation), "{preprocessor}");
            assert_eq!(description.preprocessing.mean, Preprocess::imagenet().mean);
            assert_eq!(description.preprocessing_from, Origin::Configuration);
        }
    }

    #[test]
    fn contradictions_and_unknown_things_are_named() {
        let cases = [
            ("[1]", "", "config.json: not the JSON object"),
            ("{}", "", "no \"architecture\""),
            (r#"{"architecture": "resnetblur18"}"#, "", "\"resnetblur18\", but the tensors are those of resnet18"),
            (r#"{"architecture": "resnet18d"}"#, "", "those of resnet18"),
            (r#"{"architecture": "resnet18", "interpolation": "lanczos"}"#, "", "interpolation is \"lanczos\""),
            (r#"{"architecture": "resnet18", "crop_pct": 0}"#, "", "crop_pct is 0"),
            (r#"{"architecture": "resnet18", "crop_pct": -1e-300}"#, "", "crop_pct is -"),
            (r#"{"architecture": "resnet18", "crop_mode": "border"}"#, "", "crop_mode \"border\""),
            (r#"{"architecture": "resnet18", "input_size": [1, 224, 224]}"#, "", "input_size is [1,224,224]"),
            (r#"{"architecture": "resnet18", "input_size": [3, 1e9, 224]}"#, "", "input_size is 1000000000"),
            (r#"{"architecture": "resnet18", "mean": [0.5, "x", 0.5]}"#, "", "mean is"),
            (
                r#"{"architecture": "resnet18", "label_names": ["a"]}"#,
                "",
                "label_names gives 1 classes, but the weights have 2",
            ),
            (r#"{"model_type": "vit"}"#, "", "model_type is \"vit\""),
            (r#"{"model_type": "resnet", "downsample_in_bottleneck": true}"#, "", "downsample_in_bottleneck is true"),
            (r#"{"model_type": "resnet", "num_channels": 1}"#, "", "num_channels is 1; expected 3"),
            (r#"{"model_type": "resnet", "hidden_act": "gelu"}"#, "", "hidden_act"),
            (r#"{"model_type": "resnet", "id2label": {"0": "a", "2": "b"}}"#, "", "no text under 1"),
            ("", r#"{"size": 224, "do_resize": false}"#, "preprocessor_config.json: do_resize is false"),
            ("", r#"{"size": 224, "rescale_factor": 1}"#, "rescale_factor"),
            ("", r#"{"size": 224, "resample": 1}"#, "resample is 1"),
            ("", r#"{"size": 0}"#, "size is 0"),
            ("", r#"{}"#, "it has no size"),
            ("", r#"{"size": 224}"#, "it has no resample"),
            ("", r#"{"size": 224, "resample": 3, "image_std": [0, 1, 1]}"#, "std"),
            ("", r#"{"size": 224, "image_processor_type": "DonutImageProcessor"}"#, "DonutImageProcessor"),
        ];
        for (config, preprocessor, words) in cases {
            let message = describe(config, preprocessor).unwrap_err();
            assert!(message.contains(words), "{config} {preprocessor}: {message}");
        }
    }

    #[test]
    fn every_crop_share_leads_back() {
        for side in [32usize, 128, 160, 176, 224, 288, 384] {
            for scaled in side..=2 * side {
                assert_eq!(scaled_side(side, crop_pct(side, scaled)), Ok(scaled));
            }
        }
    }
}

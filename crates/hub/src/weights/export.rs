//! Weights of ours as another library expects them.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Map, Value, json};
use taper_data::{Interpolation, Preprocess};
use taper_models::{BlockKind, ModelConfig, ResNetLayout, Stem};

use super::config::{CONFIG, PREPROCESSOR_CONFIG, crop_pct};
use super::identify::resnet_of;
use super::{Naming, WeightsError};

/// What is exported.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The network.
    pub architecture: &'a ModelConfig,
    /// Its tensors, under our names.
    pub tensors: &'a BTreeMap<String, Tensor>,
    /// Class names in index order.
    pub classes: &'a [String],
    /// How images must look.
    pub preprocessing: &'a Preprocess,
    /// The licence, if known.
    pub licence: Option<&'a str>,
}

/// What is to be written: `model.safetensors` with these tensors, and the configurations beside it.
#[derive(Debug)]
pub struct Export {
    /// Tensors by the library's names.
    pub tensors: BTreeMap<String, Tensor>,
    /// Names and texts of further files; torchvision has none.
    pub documents: Vec<(&'static str, String)>,
}

/// Renames the tensors and writes the configurations of a library.
///
/// # Errors
/// [`WeightsError::NoCounterpart`] for a network or a preprocessing that the library does not have.
pub fn export(source: &Source<'_>, naming: Naming) -> Result<Export, WeightsError> {
    let refuse = |reason: String| WeightsError::NoCounterpart { format: naming.as_str(), reason };
    let (name, layout, config) =
        resnet_of(source.architecture).ok_or_else(|| refuse("only ResNets exist in other libraries".to_owned()))?;
    match (config.stem, naming) {
        (Stem::ImageNet, _) | (Stem::ResNetD, Naming::Timm) => {}
        (Stem::ResNetD, _) => return Err(refuse("it has no stem of ResNet-D; timm has".to_owned())),
        (Stem::Cifar, _) => {
            let reason = "it has no stem for small images; the file itself has torchvision's names, for a resnet \
                          whose conv1 is replaced by a 3x3 one and whose maxpool by Identity";
            return Err(refuse(reason.to_owned()));
        }
    }
    let mut tensors = BTreeMap::new();
    for (ours, tensor) in source.tensors {
        let theirs = naming.to_theirs(ours).ok_or_else(|| refuse(format!("it has no parameter like {ours}")))?;
        tensors.insert(theirs, tensor.clone());
    }
    let documents = match naming {
        Naming::Torchvision => Vec::new(),
        Naming::Timm => {
            let name = if config.stem == Stem::ResNetD { format!("{name}d") } else { name.to_owned() };
            vec![(CONFIG, pretty(&timm_config(source, &layout, &name).map_err(refuse)?))]
        }
        Naming::Transformers => vec![
            (CONFIG, pretty(&transformers_config(source, &layout))),
            (PREPROCESSOR_CONFIG, pretty(&transformers_preprocessor(source.preprocessing))),
        ],
    };
    Ok(Export { tensors, documents })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// As `timm.models.save_for_hf` writes it.
fn timm_config(source: &Source<'_>, layout: &ResNetLayout, name: &str) -> Result<Value, String> {
    let preprocessing = source.preprocessing;
    let [height, width] = preprocessing.input_size;
    let (crop_mode, share) = match preprocessing.resize {
        Some(resize) if height == width => ("center", crop_pct(height, resize)),
        Some(_) => return Err(format!("it crops square images only, not {height}x{width}")),
        None => ("squash", 1.0),
    };
    let first_conv = if name.ends_with('d') { "conv1.0" } else { "conv1" };
    let mut pretrained = json!({
        "tag": "taper",
        "custom_load": false,
        "input_size": [3, height, width],
        "fixed_input_size": false,
        "interpolation": interpolation_name(preprocessing.interpolation),
        "crop_pct": share,
        "crop_mode": crop_mode,
        "mean": decimals(&preprocessing.mean),
        "std": decimals(&preprocessing.std),
        "num_classes": source.classes.len(),
        "pool_size": [height.div_ceil(32), width.div_ceil(32)],
        "first_conv": first_conv,
        "classifier": "fc",
    });
    if let Some(licence) = source.licence {
        pretrained["license"] = Value::from(licence);
    }
    Ok(json!({
        "architecture": name,
        "num_classes": source.classes.len(),
        "num_features": layout.num_features(),
        "global_pool": "avg",
        "label_names": source.classes,
        "pretrained_cfg": pretrained,
    }))
}

/// As `ResNetForImageClassification.save_pretrained` writes it.
fn transformers_config(source: &Source<'_>, layout: &ResNetLayout) -> Value {
    let (layer_type, expansion) = match layout.block {
        BlockKind::Basic => ("basic", layout.block.expansion()),
        BlockKind::Bottleneck => ("bottleneck", layout.block.expansion()),
    };
    let hidden_sizes: Vec<usize> = (0..4).map(|stage| (layout.width << stage) * expansion).collect();
    let classes = || source.classes.iter().enumerate();
    let id2label: Map<String, Value> = classes().map(|(index, name)| (index.to_string(), json!(name))).collect();
    let label2id: Map<String, Value> = classes().map(|(index, name)| (name.clone(), json!(index))).collect();
    json!({
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": layout.width,
        "hidden_sizes": hidden_sizes,
        "depths": layout.depths,
        "layer_type": layer_type,
        "hidden_act": "relu",
        "downsample_in_first_stage": false,
        "downsample_in_bottleneck": false,
        "id2label": id2label,
        "label2id": label2id,
        "torch_dtype": "float32",
    })
}

/// The processors whose scaling and cropping are ours: `BitImageProcessor` scales the shorter side and crops,
/// `ViTImageProcessor` scales both sides.
fn transformers_preprocessor(preprocessing: &Preprocess) -> Value {
    let [height, width] = preprocessing.input_size;
    let input = json!({ "height": height, "width": width });
    let mut config = json!({
        "do_resize": true,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "do_convert_rgb": true,
        "image_mean": decimals(&preprocessing.mean),
        "image_std": decimals(&preprocessing.std),
        "resample": match preprocessing.interpolation {
            Interpolation::Bilinear => 2,
            Interpolation::Bicubic => 3,
        },
    });
    match preprocessing.resize {
        Some(resize) => {
            config["image_processor_type"] = json!("BitImageProcessor");
            config["size"] = json!({ "shortest_edge": resize });
            config["do_center_crop"] = json!(true);
            config["crop_size"] = input;
        }
        None => {
            config["image_processor_type"] = json!("ViTImageProcessor");
            config["size"] = input;
        }
    }
    config
}

fn interpolation_name(interpolation: Interpolation) -> &'static str {
    match interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
    }
}

/// The numbers with the decimals that an f32 needs, not with those that it has.
fn decimals(values: &[f32; 3]) -> Vec<Value> {
    values.iter().map(|value| value.to_string().parse::<f64>().map_or(Value::Null, Value::from)).collect()
}

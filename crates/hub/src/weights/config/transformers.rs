//! transformers' `config.json` and `preprocessor_config.json`.

use serde_json::{Map, Value};
use taper_data::{Interpolation, Preprocess};
use taper_models::ForeignFamily;

use super::{Description, Facts, Kind, get, per_channel, pixels, require_count, scaled_side, wrong};

/// Choices that change what the same tensors compute, with the value that the network here has: of a ResNet,
const RESNET: [(&str, &str); 4] = [
    ("downsample_in_bottleneck", "false"),
    ("downsample_in_first_stage", "false"),
    ("num_channels", "3"),
    ("hidden_act", "\"relu\""),
];
/// and of a DINOv2.
const DINOV2: [(&str, &str); 5] = [
    ("num_channels", "3"),
    ("hidden_act", "\"gelu\""),
    ("patch_size", "14"),
    ("num_hidden_layers", "12"),
    ("use_swiglu_ffn", "false"),
];

/// From this side on, a ConvNext processor distorts instead of cropping (`image_processing_convnext.py`).
const DISTORTED_FROM: usize = 384;
/// The share that a ConvNext processor keeps where the configuration is silent.
const CROP_PCT: f64 = 224.0 / 256.0;

pub(super) fn read_config(
    config: &Map<String, Value>,
    facts: &Facts<'_>,
    description: &mut Description,
) -> Result<(), String> {
    let (model_type, fixed): (&str, &[(&str, &str)]) = match facts.kind {
        Kind::ResNet => ("resnet", &RESNET),
        Kind::Foreign(ForeignFamily::Dinov2) => ("dinov2", &DINOV2),
        Kind::Foreign(_) => return Err(format!("{} is known in timm's form alone", facts.name)),
    };
    if config["model_type"] != model_type {
        return Err(wrong("model_type", &config["model_type"], &format!("{model_type:?}, as the tensors are")));
    }
    for (key, expected) in fixed {
        let found = get(config, key).map(Value::to_string);
        if let Some(value) = get(config, key).filter(|_| found.as_deref() != Some(*expected)) {
            return Err(wrong(key, value, &format!("{expected}, the network that can be built")));
        }
    }
    description.classes = classes(config, facts)?;
    Ok(())
}

/// Names in index order from `id2label`, whose keys must be 0, 1, 2 and so on.
fn classes(config: &Map<String, Value>, facts: &Facts<'_>) -> Result<Option<Vec<String>>, String> {
    let Some(names) = get(config, "id2label").and_then(Value::as_object) else { return Ok(None) };
    let name = |index: usize| {
        let name = names.get(&index.to_string()).and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| format!("id2label has {} names, but no text under {index}", names.len()))
    };
    let classes = (0..names.len()).map(name).collect::<Result<Vec<_>, _>>()?;
    require_count("id2label", classes.len(), facts)?;
    Ok(Some(classes))
}

/// How the image processor scales and crops.
enum Geometry {
    /// Scale the shorter side, then crop.
    Crop { input: [usize; 2], resize: usize },
    /// Scale both sides, whatever the proportions.
    Exact([usize; 2]),
}

pub(super) fn read_preprocessor(config: &Map<String, Value>) -> Result<Preprocess, String> {
    for key in ["do_resize", "do_rescale"] {
        if let Some(value) = get(config, key).filter(|value| **value != Value::Bool(true)) {
            return Err(wrong(key, value, "true"));
        }
    }
    if let Some(value) = get(config, "rescale_factor")
        .filter(|value| value.as_f64().is_none_or(|factor| (factor * 255.0 - 1.0).abs() > 1e-6))
    {
        return Err(wrong("rescale_factor", value, "1/255"));
    }
    let default = Preprocess::imagenet();
    let (mean, std) = match get(config, "do_normalize") {
        Some(Value::Bool(false)) => ([0.0; 3], [1.0; 3]),
        _ => (
            per_channel(config, "image_mean")?.unwrap_or(default.mean),
            per_channel(config, "image_std")?.unwrap_or(default.std),
        ),
    };
    let (input_size, resize) = match geometry(config)? {
        Geometry::Crop { input, resize } => (input, Some(resize)),
        Geometry::Exact(input) => (input, None),
    };
    let crop_pct = resize.map_or(1.0, |resize| input_size[0] as f32 / resize as f32);
    let preprocess = Preprocess { input_size, resize, crop_pct, interpolation: interpolation(config)?, mean, std };
    preprocess.validate().map_err(|error| error.to_string())?;
    Ok(preprocess)
}

/// Pillow's numbers of its filters. The default has changed from version to version, so there is none here.
fn interpolation(config: &Map<String, Value>) -> Result<Interpolation, String> {
    match get(config, "resample") {
        None => Err("it has no resample; add 2 (bilinear) or 3 (bicubic)".to_owned()),
        Some(value) if *value == 2 => Ok(Interpolation::Bilinear),
        Some(value) if *value == 3 => Ok(Interpolation::Bicubic),
        Some(value) => Err(wrong("resample", value, "2 (bilinear) or 3 (bicubic)")),
    }
}

fn geometry(config: &Map<String, Value>) -> Result<Geometry, String> {
    let kind = get(config, "image_processor_type").or_else(|| get(config, "feature_extractor_type"));
    let kind = kind.and_then(Value::as_str).unwrap_or("ConvNextImageProcessor");
    let size = get(config, "size").ok_or("it has no size")?;
    let kind_of = |names: &[&str]| names.iter().any(|name| kind.starts_with(name));
    if kind_of(&["ConvNextImageProcessor", "ConvNextFeatureExtractor", "ConvNextFast"]) {
        let side = side(size)?;
        if side >= DISTORTED_FROM {
            return Ok(Geometry::Exact([side; 2]));
        }
        let share = get(config, "crop_pct").map_or(Some(CROP_PCT), Value::as_f64).ok_or("crop_pct is no number")?;
        return Ok(Geometry::Crop { input: [side; 2], resize: scaled_side(side, share)? });
    }
    if kind_of(&["BitImageProcessor", "CLIPImageProcessor", "CLIPFeatureExtractor"]) {
        let crop = get(config, "crop_size").ok_or("it has no crop_size")?;
        return Ok(Geometry::Crop { input: sides(crop)?, resize: side(size)? });
    }
    if kind_of(&["ViTImageProcessor", "ViTFeatureExtractor", "DeiTImageProcessor"]) && !crops(config) {
        return Ok(Geometry::Exact(sides(size)?));
    }
    Err(format!(
        "image processor {kind:?} is not supported; ConvNextImageProcessor, BitImageProcessor and ViTImageProcessor without crop are"
    ))
}

fn crops(config: &Map<String, Value>) -> bool {
    get(config, "do_center_crop").is_some_and(|value| *value == Value::Bool(true))
}

/// `224` or `{"shortest_edge": 224}`.
fn side(size: &Value) -> Result<usize, String> {
    pixels("size", size.get("shortest_edge").unwrap_or(size))
}

/// `224` or `{"height": 224, "width": 224}`.
fn sides(size: &Value) -> Result<[usize; 2], String> {
    match (size.get("height"), size.get("width")) {
        (Some(height), Some(width)) => Ok([pixels("height", height)?, pixels("width", width)?]),
        _ => Ok([side(size)?; 2]),
    }
}

//! timm's `config.json`: `pretrained_cfg`, or its keys at the top in old ones.

use serde_json::{Map, Value};
use taper_data::{Interpolation, Preprocess};

use super::{Description, Facts, Origin, get, per_channel, pixels, require_count, scaled_side, wrong};

/// What timm takes where the configuration is silent (`timm/data/constants.py`).
const CROP_PCT: f64 = 0.875;

/// What old names of networks put before the one that counts.
const PREFIXES: [&str; 5] = ["tv_", "ssl_", "swsl_", "gluon_", "ig_"];

pub(super) fn read_config(
    config: &Map<String, Value>,
    facts: &Facts<'_>,
    description: &mut Description,
) -> Result<(), String> {
    let nested = get(config, "pretrained_cfg").and_then(Value::as_object);
    let Some(architecture) = get(config, "architecture").and_then(Value::as_str) else {
        return Err("neither timm's configuration (no \"architecture\") nor transformers' (no \"model_type\"); move it away if it does not belong to the weights".to_owned());
    };
    require_architecture(architecture, facts)?;
    let cfg = nested.unwrap_or(config);
    description.preprocessing = preprocessing(cfg)?;
    description.preprocessing_from = Origin::Configuration;
    description.classes = classes(config, facts)?;
    description.licence = get(cfg, "license").and_then(Value::as_str).map(str::to_owned);
    Ok(())
}

/// Networks that differ in layers without weights have the same tensors: the name tells them apart.
fn require_architecture(architecture: &str, facts: &Facts<'_>) -> Result<(), String> {
    let base = architecture.split('.').next().unwrap_or_default();
    let base = PREFIXES.iter().find_map(|prefix| base.strip_prefix(prefix)).unwrap_or(base);
    // gluon's versions: 1b is the usual one, 1d has the stem of ResNet-D.
    let base = match base.strip_suffix("_v1b") {
        Some(plain) => plain.to_owned(),
        None => base.strip_suffix("_v1d").map_or_else(|| base.to_owned(), |plain| format!("{plain}d")),
    };
    if base == facts.name {
        return Ok(());
    }
    Err(format!("architecture is {architecture:?}, but the tensors are those of {}", facts.name))
}

fn preprocessing(cfg: &Map<String, Value>) -> Result<Preprocess, String> {
    let default = Preprocess::imagenet();
    let input_size = match get(cfg, "input_size") {
        None => default.input_size,
        Some(Value::Array(sides)) if sides.len() == 3 && sides[0] == 3 => {
            [pixels("input_size", &sides[1])?, pixels("input_size", &sides[2])?]
        }
        Some(other) => return Err(wrong("input_size", other, "[3, height, width]")),
    };
    let share = get(cfg, "crop_pct").map(|value| value.as_f64().ok_or_else(|| wrong("crop_pct", value, "a number")));
    let share = share.transpose()?.unwrap_or(CROP_PCT);
    let square = input_size[0] == input_size[1];
    let resize = match get(cfg, "crop_mode").map_or("center", |mode| mode.as_str().unwrap_or_default()) {
        "center" if square => Some(scaled_side(input_size[0], share)?),
        "squash" if share == 1.0 => None,
        mode => {
            return Err(format!(
                "crop_mode {mode:?} with crop_pct {share} and input_size {input_size:?} is not supported"
            ));
        }
    };
    let preprocess = Preprocess {
        input_size,
        resize,
        crop_pct: share as f32,
        // timm's default is bicubic.
        interpolation: match get(cfg, "interpolation").map(|value| (value, value.as_str())) {
            None | Some((_, Some("bicubic"))) => Interpolation::Bicubic,
            Some((_, Some("bilinear"))) => Interpolation::Bilinear,
            Some((value, _)) => return Err(wrong("interpolation", value, "\"bilinear\" or \"bicubic\"")),
        },
        mean: per_channel(cfg, "mean")?.unwrap_or(default.mean),
        std: per_channel(cfg, "std")?.unwrap_or(default.std),
    };
    preprocess.validate().map_err(|error| error.to_string())?;
    Ok(preprocess)
}

/// Names in index order. A set of names with gaps is none.
fn classes(config: &Map<String, Value>, facts: &Facts<'_>) -> Result<Option<Vec<String>>, String> {
    let Some(names) = get(config, "label_names").or_else(|| get(config, "labels")) else { return Ok(None) };
    let Some(items) = names.as_array() else { return Ok(None) };
    let texts: Option<Vec<String>> = items.iter().map(|name| name.as_str().map(str::to_owned)).collect();
    let texts = texts.ok_or("label_names holds something that is no text")?;
    require_count("label_names", texts.len(), facts)?;
    Ok(Some(texts))
}

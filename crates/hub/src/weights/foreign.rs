//! Backbones of other families under the names of `taper-models`.
//!
//! Their tensors tell too little apart (the same in ConvNeXts of different activations, say), so the configuration
//! beside them must name the network.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::{Map, Value};
use taper_models::{ForeignBackbone, ForeignFamily};

use super::Naming;
use super::config::get;

/// The backbone that a configuration of timm or transformers names, if it is a known one.
pub(super) fn named_by(config: &Map<String, Value>) -> Option<&'static ForeignBackbone> {
    let text = |key: &str| get(config, key).and_then(Value::as_str);
    if text("model_type") == Some("dinov2") {
        let dim = get(config, "hidden_size")?.as_u64()? as usize;
        let is_it = |known: &&ForeignBackbone| known.family == ForeignFamily::Dinov2 && known.num_features == dim;
        return ForeignBackbone::ALL.iter().find(is_it);
    }
    let architecture = text("architecture")?.split('.').next()?;
    ForeignBackbone::ALL.iter().find(|known| timm_name(known) == architecture)
}

/// What timm calls the network.
pub(super) fn timm_name(backbone: &ForeignBackbone) -> &'static str {
    match backbone.name {
        "dinov2_small" => "vit_small_patch14_dinov2",
        "dinov2_base" => "vit_base_patch14_dinov2",
        name => name,
    }
}

/// Whose names the tensors have.
pub(super) fn naming_of(tensors: &BTreeMap<String, Tensor>) -> Naming {
    if tensors.keys().any(|name| name.contains("embeddings.")) { Naming::Transformers } else { Naming::Timm }
}

/// All tensors under the names of `taper-models`, without those that its network has no use for: counts of steps, the
/// token for masked patches, and a head on other features than the network's.
///
/// # Errors
/// Two names that become one, or tensors that do not fit together.
pub(super) fn to_ours(
    backbone: &ForeignBackbone,
    naming: Naming,
    tensors: BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, String> {
    let mut ours = BTreeMap::new();
    for (name, tensor) in tensors {
        let named = match naming {
            Naming::Transformers => name.strip_prefix("dinov2.").unwrap_or(&name).to_owned(),
            Naming::Torchvision | Naming::Timm => name,
        };
        if let Some(renamed) = ours_of(backbone.family, naming, &named)
            && ours.insert(renamed, tensor).is_some()
        {
            return Err(format!("{named} is there twice, under two names"));
        }
    }
    if naming == Naming::Transformers {
        join_attention(&mut ours)?;
    }
    Ok(ours)
}

/// The name in `taper-models`; none for what is left out.
fn ours_of(family: ForeignFamily, naming: Naming, name: &str) -> Option<String> {
    if name.ends_with(".num_batches_tracked") || name.ends_with("mask_token") {
        return None;
    }
    if naming == Naming::Transformers {
        return (!name.starts_with("classifier.")).then(|| format!("backbone.{}", timm_of_transformers(name)));
    }
    let (head, is_on_features) = match family {
        ForeignFamily::ConvNext => ("head.fc.", true),
        ForeignFamily::MobileNetV4 => ("classifier.", true),
        // On the class token and the patches' mean.
        ForeignFamily::Dinov2 => ("head.", false),
    };
    match name.strip_prefix(head) {
        Some(leaf) => is_on_features.then(|| format!("fc.{leaf}")),
        None => Some(format!("backbone.{name}")),
    }
}

/// Parts of a block that transformers calls otherwise than timm: in its files, and in memory since version 5.
const BLOCK_PARTS: [(&str, &str); 10] = [
    ("attention.attention.query.", "attn.query."),
    ("attention.attention.key.", "attn.key."),
    ("attention.attention.value.", "attn.value."),
    ("attention.output.dense.", "attn.proj."),
    ("attention.q_proj.", "attn.query."),
    ("attention.k_proj.", "attn.key."),
    ("attention.v_proj.", "attn.value."),
    ("attention.o_proj.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
];

/// A name of transformers' `Dinov2Model` as timm's; query, key and value keep their own. Unknown names stay as they are,
/// so that they can be reported.
fn timm_of_transformers(name: &str) -> String {
    let whole = match name {
        "embeddings.cls_token" => "cls_token",
        "embeddings.position_embeddings" => "pos_embed",
        "embeddings.patch_embeddings.projection.weight" => "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias" => "patch_embed.proj.bias",
        "layernorm.weight" => "norm.weight",
        "layernorm.bias" => "norm.bias",
        _ => "",
    };
    if !whole.is_empty() {
        return whole.to_owned();
    }
    let Some((block, part)) = name.strip_prefix("encoder.layer.").and_then(|rest| rest.split_once('.')) else {
        return name.to_owned();
    };
    let known = BLOCK_PARTS.iter().find_map(|(theirs, timms)| Some((part.strip_prefix(theirs)?, timms)));
    match known {
        Some((leaf, timms)) => format!("blocks.{block}.{timms}{leaf}"),
        None => format!("blocks.{block}.{part}"),
    }
}

/// Puts query, key and value of each block into the one tensor that they are in timm.
fn join_attention(tensors: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
    let queries: Vec<String> = tensors.keys().filter(|name| name.contains(".attn.query.")).cloned().collect();
    for query in queries {
        let names = ["query", "key", "value"].map(|part| query.replace(".query.", &format!(".{part}.")));
        let parts =
            names.each_ref().map(|name| tensors.get(name).ok_or_else(|| format!("it has {query}, but no {name}")));
        let [query_part, key, value] = parts;
        let joined = Tensor::cat(&[query_part?, key?, value?], 0).map_err(|error| format!("{query}: {error}"))?;
        names.iter().for_each(|name| drop(tensors.remove(name)));
        tensors.insert(query.replace(".query.", ".qkv."), joined);
    }
    Ok(())
}

/// Classes of a head on the backbone's features.
pub(super) fn num_classes(tensors: &BTreeMap<String, Tensor>) -> Option<usize> {
    tensors.get("fc.weight").and_then(|weight| weight.dims().first().copied())
}

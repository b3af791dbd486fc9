//! Summary, provenance and configuration of a run, as lines of text.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use taper_report::Fact;

use super::LR_FIND;
use crate::config::RunConfig;
use crate::exit::bad_input;
use crate::prepare::{read_json, read_split};
use crate::run_dir::Found;

/// Summary and provenance.
pub(super) fn of(run: &Path, found: Found, config: &RunConfig, num_classes: usize) -> Result<Vec<Fact>> {
    let (split, cost) = (read_split(run)?, config.model.cost(num_classes));
    let state = match found {
        _ if run.join(LR_FIND).is_file() => "a search for a learning rate",
        Found::Complete => "complete",
        _ => "interrupted, or still running",
    };
    let mut facts = vec![
        Fact::new("state", state),
        Fact::new("model", serde_json::to_string(&config.model)?),
        Fact::new("parameters", cost.num_parameters.to_string()),
        Fact::new("GFLOP per training image", format!("{:.3}", 6.0 * cost.forward_macs as f64 / 1e9)),
        Fact::new("classes", num_classes.to_string()),
        Fact::new("images", format!("{} train, {} val, {} test", split.train.len(), split.val.len(), split.test.len())),
        Fact::new("trained on", config.data.train_images.unwrap_or(split.train.len()).to_string()),
    ];
    let provenance: Value = read_json(&run.join("provenance.json"))?;
    let keys = ["version", "commit", "device", "cpu_path", "threads", "seed", "command", "base_weights_published"];
    for key in keys {
        facts.extend(fact(&key.replace('_', " "), &provenance[key]));
    }
    let data = &provenance["data"];
    let of_data = [("source", &data["source"]), ("SHA-256", &data["sha256"]), ("files", &data["official"]["status"])];
    for (name, value) in of_data {
        facts.extend(fact(&format!("data {name}"), value));
    }
    facts.extend(fact("base weights SHA-256", &provenance["base_weights_sha256"]));
    Ok(facts)
}

fn fact(name: &str, value: &Value) -> Option<Fact> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Array(words) => words
            .iter()
            .map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    };
    Some(Fact::new(name, text))
}

/// Every value of the configuration by its key.
pub(super) fn flattened(run: &Path) -> Result<BTreeMap<String, String>> {
    let path = run.join("config.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: toml::Table =
        text.parse().map_err(|error| bad_input(format!("{} is not TOML: {error}", path.display())))?;
    let values = |(section, keys): (&String, &toml::Value)| {
        let keys = keys.as_table().cloned().unwrap_or_default();
        keys.into_iter().map(|(key, value)| (format!("{section}.{key}"), value.to_string())).collect::<Vec<_>>()
    };
    Ok(table.iter().flat_map(values).collect())
}

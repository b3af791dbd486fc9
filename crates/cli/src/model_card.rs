//! What a weights file says about itself: enough to use it without its run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use taper_data::Preprocess;
use taper_models::ModelConfig;
use taper_train::Weights;

use crate::exit::bad_input;

/// The metadata key `taper`: only what determines the weights' meaning, never time, path or machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelCard {
    pub(crate) architecture: ModelConfig,
    pub(crate) classes: Vec<String>,
    pub(crate) preprocessing: Preprocess,
    pub(crate) licence: Option<String>,
    pub(crate) base_weights_sha256: Option<String>,
}

impl ModelCard {
    /// The metadata of a weights file.
    pub(crate) fn to_metadata(&self) -> Result<BTreeMap<String, String>> {
        // By way of a value, whose object keys are sorted.
        let json = serde_json::to_string(&serde_json::to_value(self)?)?;
        Ok([("format".to_owned(), "pt".to_owned()), ("taper".to_owned(), json)].into())
    }

    /// Reads the metadata of a weights file.
    pub(crate) fn of(weights: &Weights, path: &Path) -> Result<Self> {
        let Some(json) = weights.metadata.get("taper") else {
            return Err(bad_input(format!(
                "{} does not say which network it belongs to (no metadata key \"taper\"); use a file that taper wrote",
                path.display()
            )));
        };
        let card: Self = serde_json::from_str(json)
            .map_err(|error| bad_input(format!("{}: its metadata cannot be understood: {error}", path.display())))?;
        card.preprocessing.validate()?;
        Ok(card)
    }
}

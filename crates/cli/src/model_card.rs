//! What a weights file says about itself: enough to use it without its run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use taper_data::Preprocess;
use taper_models::ModelConfig;

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

    /// Reads the metadata of a weights file; files of others have no card.
    pub(crate) fn of(metadata: &BTreeMap<String, String>, path: &Path) -> Result<Option<Self>> {
        let Some(json) = metadata.get("taper") else { return Ok(None) };
        let card: Self = serde_json::from_str(json)
            .map_err(|error| bad_input(format!("{}: its metadata cannot be understood: {error}", path.display())))?;
        card.preprocessing.validate()?;
        Ok(Some(card))
    }
}

//! Weights and what belongs to them, of one commit.

use std::path::Path;

use super::env::HubEnv;
use super::error::{FetchError, Result};
use super::progress::Progress;
use super::repository::Repository;
use super::{Fetched, fetch_file};
use crate::catalog::{KnownWeights, WeightsName};

/// Where weights are, in the order that they are looked for in a repository that the catalog does not know.
const USUAL_FILES: &[&str] = &["model.safetensors", "pytorch_model.bin"];

/// Files that make a pretrained network; all of the same commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedWeights {
    /// The row of the catalog, if there is one.
    pub known: Option<&'static KnownWeights>,
    /// `model.safetensors`, else `pytorch_model.bin`.
    pub weights: Fetched,
    /// `config.json`, if the repository has it: architecture, class names; timm's has the preprocessing too.
    pub config: Option<Fetched>,
    /// `preprocessor_config.json`, if the repository has it and `config.json` does not say the preprocessing itself.
    pub preprocessor: Option<Fetched>,
}

/// Fetches weights and their configuration files, or finds them in the cache.
///
/// # Errors
/// As [`fetch_file`]. A configuration file that the repository does not have is no error; one that cannot be fetched is.
pub fn fetch_weights(env: &HubEnv, name: &WeightsName, progress: Progress<'_>) -> Result<FetchedWeights> {
    let files = name.known.map_or(USUAL_FILES, |known| known.files);
    let weights = fetch_first(env, &name.repository, files, progress)?;
    // All of one commit, even if the branch moves now.
    let at_commit = Repository::parse(&format!("{}@{}", name.repository.name(), weights.record.revision))?;
    let mut optional = |file: &str| match fetch_file(env, &at_commit, file, progress) {
        Ok(fetched) => Ok(Some(fetched)),
        Err(FetchError::MissingFile { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    let config = optional("config.json")?;
    // Python's timm leaves no trace of a file that it never looks for: without network it must not be looked for here.
    let says_all = config.as_ref().is_some_and(|config| has_preprocessing(&config.path));
    let preprocessor = if says_all { None } else { optional("preprocessor_config.json")? };
    Ok(FetchedWeights { known: name.known, weights, config, preprocessor })
}

/// Whether it is a configuration of timm, which holds the preprocessing. One that cannot be read is for whoever loads the
/// weights to complain of.
fn has_preprocessing(config: &Path) -> bool {
    let Ok(bytes) = std::fs::read(config) else { return false };
    serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|config| config.get("pretrained_cfg").is_some())
}

/// The first of the files that the repository, or without network the cache, has.
fn fetch_first(env: &HubEnv, repository: &Repository, files: &[&str], progress: Progress<'_>) -> Result<Fetched> {
    let mut offline = None;
    for file in files {
        match fetch_file(env, repository, file, progress) {
            Err(FetchError::MissingFile { .. }) => {}
            Err(error @ FetchError::Offline { .. }) => {
                offline.get_or_insert(error);
            }
            done => return done,
        }
    }
    Err(offline.unwrap_or_else(|| FetchError::MissingFile {
        repository: repository.name().to_owned(),
        revision: repository.revision().to_owned(),
        file: files.join(" or "),
    }))
}

//! The weights that fine-tuning starts from: found or fetched, read, described.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use candle_nn::VarMap;
use taper_hub::catalog::WeightsName;
use taper_hub::download::FetchedWeights;
use taper_hub::weights::{Head, LoadReport, WeightsFile, load};
use taper_models::ModelConfig;
use taper_train::sha256_of_file;

use crate::commands::fetch;
use crate::exit::usage;
use crate::terminal::Talk;
use crate::trained::{Described, weights_file};

/// How files of weights end; what ends so is no name of published ones.
const FILE_ENDINGS: [&str; 5] = ["safetensors", "pth", "pt", "bin", "ckpt"];

/// Weights with the network and the preprocessing that they belong to.
pub(crate) struct BaseWeights {
    pub(crate) described: Described,
    pub(crate) file: PathBuf,
    pub(crate) origin: Origin,
}

/// What a run and its weights say about the weights they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) sha256: String,
    pub(crate) licence: Option<String>,
    /// Repository, commit and file, if they were fetched.
    pub(crate) published: Option<String>,
}

/// Whether published weights are meant: there is no such file, and it could not be one by its look.
fn is_name(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let names_file = ending.is_some_and(|ending| FILE_ENDINGS.contains(&ending));
    let components = path.components().count();
    let is_plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    !path.exists() && !names_file && is_plain && components <= 2
}

impl BaseWeights {
    /// Reads what `--weights` names: a run directory, a file of weights, or published weights, which are fetched unless
    /// they are cached.
    pub(crate) fn open(source: &str, talk: Talk) -> Result<Self> {
        let path = Path::new(source);
        let (file, sha256, published) = if is_name(path) {
            if let Err(error) = WeightsName::parse(source) {
                return Err(usage(format!("--weights {source}: there is no such file or run, and {error}")));
            }
            let FetchedWeights { weights, .. } = fetch::weights(source, talk)?;
            let record = &weights.record;
            let published = format!("{}@{}/{}", record.repository, record.revision, record.file);
            (weights.path, weights.record.sha256, Some(published))
        } else {
            let file = weights_file(path)?;
            let sha256 = sha256_of_file(&file)?;
            (file, sha256, None)
        };
        let described = Described::of(WeightsFile::read(&file)?, &file)?;
        let origin = Origin { sha256, licence: described.card.licence.clone(), published };
        Ok(Self { described, file, origin })
    }

    /// The run directory that the weights lie in, if it is one.
    pub(crate) fn run(&self) -> Option<&Path> {
        self.file.parent().filter(|folder| folder.join("provenance.json").is_file())
    }

    pub(crate) fn architecture(&self) -> &ModelConfig {
        &self.described.card.architecture
    }

    /// Finds a configuration that asks for another network than the weights are of. Image size and first values may be
    /// others.
    pub(crate) fn require_network(&self, wanted: &ModelConfig) -> Result<()> {
        let shape = |model: &ModelConfig| -> Result<serde_json::Value> {
            let mut value = serde_json::to_value(model)?;
            if let Some(keys) = value.as_object_mut() {
                keys.retain(|key, _| !["input_size", "last_norm", "head_init"].contains(&key.as_str()));
            }
            Ok(value)
        };
        let (wanted, own) = (shape(wanted)?, shape(self.architecture())?);
        if wanted == own {
            return Ok(());
        }
        let shown = self.file.display();
        Err(usage(format!(
            "model = {wanted}: {shown} holds the weights of {own}; leave out what [model] sets, or use other weights"
        )))
    }

    /// Puts everything but the head into the variables of a network.
    pub(crate) fn load_into(&self, vars: &VarMap) -> Result<LoadReport> {
        Ok(load(&self.described.tensors, vars, Head::Replaced, &self.file)?)
    }
}

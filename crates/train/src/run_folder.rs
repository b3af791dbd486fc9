//! The part of a run directory that the loop writes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use candle_nn::VarMap;

use crate::checkpoint::remove_halves;
use crate::disk::{Disk, SystemDisk};
use crate::store::{remove_unfinished, write_on};
use crate::weights::{all_tensors, encode, first_not_finite};
use crate::{Divergence, TrainError};

/// What stands in a run directory when training has diverged.
const DIVERGENCE: &str = "divergence.json";

/// Where a run's weights and checkpoints go.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// The run directory.
    pub path: PathBuf,
    /// Metadata of `model.safetensors` and `last.safetensors`.
    pub metadata: BTreeMap<String, String>,
    /// What writes there.
    pub disk: Arc<dyn Disk>,
}

impl RunFolder {
    /// A run directory on this machine's disk.
    pub fn new(path: impl Into<PathBuf>, metadata: BTreeMap<String, String>) -> Self {
        Self { path: path.into(), metadata, disk: Arc::new(SystemDisk) }
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Removes what a crash has left behind: files and checkpoints that were not whole yet. Nobody else may be writing
    /// to the run.
    ///
    /// # Errors
    /// A folder that cannot be listed, or something in it that cannot be removed.
    pub fn remove_halves(&self) -> Result<(), TrainError> {
        remove_unfinished(&*self.disk, &self.path)?;
        remove_halves(&*self.disk, &self.checkpoints())
    }

    pub(crate) fn write_weights(&self, file: &str, vars: &VarMap) -> Result<(), TrainError> {
        let metadata = self.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let tensors = all_tensors(vars)?;
        let bytes = encode(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), &metadata)?;
        write_on(&*self.disk, &self.path.join(file), &bytes)
    }

    /// Writes down how training diverged, and says where.
    pub(crate) fn write_divergence(&self, found: &Divergence) -> Result<PathBuf, TrainError> {
        let path = self.path.join(DIVERGENCE);
        let mut text = serde_json::to_vec_pretty(found)
            .map_err(|error| TrainError::malformed(&path, format!("cannot be written: {error}")))?;
        text.push(b'\n');
        write_on(&*self.disk, &path, &text)?;
        Ok(path)
    }
}

/// The first tensor with a value that is no number, so that none reaches a file.
pub(crate) fn not_finite_in(vars: &VarMap) -> Result<Option<String>, TrainError> {
    first_not_finite(&all_tensors(vars)?)
}

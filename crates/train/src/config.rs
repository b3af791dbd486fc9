//! What the loop itself can be told.

use serde::{Deserialize, Serialize};

use crate::{ClassWeights, OnNonfinite, TrainError};

/// The loop's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct FitConfig {
    /// Passes over the training images.
    pub epochs: usize,
    /// Ends the run after that many optimizer steps, if that comes first.
    pub max_steps: Option<u64>,
    /// Batches whose gradients are averaged for one step.
    pub accumulate: usize,
    /// Seed of the order of images.
    pub seed: u64,
    /// Share of the target that is spread over all classes, 0..1.
    pub label_smoothing: f64,
    /// How much an image of each class counts in the training loss; evaluation counts them all the same.
    pub class_weights: ClassWeights,
    /// Bound on the global norm of the gradients.
    pub clip_norm: Option<f64>,
    /// Ends the run after that many epochs without a better val top-1.
    pub patience: Option<usize>,
    /// What happens when the loss or the gradients stop being numbers.
    pub on_nonfinite: OnNonfinite,
    /// Steps between two step records.
    pub log_every_steps: u64,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
}

/// When checkpoints are written. One is always written at the end of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Also after that many steps.
    pub every_steps: Option<u64>,
    /// Also after that many minutes.
    pub every_minutes: Option<f64>,
    /// How many are kept; older ones are removed.
    pub keep_last: usize,
}

impl FitConfig {
    /// Finds a value that cannot be.
    ///
    /// # Errors
    /// Names the key and what would do.
    pub fn validate(&self) -> Result<(), TrainError> {
        let clip = self.clip_norm.unwrap_or(1.0);
        let minutes = self.checkpoint.every_minutes.unwrap_or(1.0);
        let checks = [
            ("train.epochs", self.epochs as f64, self.epochs > 0, "must be at least 1"),
            ("train.max_steps", 0.0, self.max_steps != Some(0), "must be at least 1"),
            ("train.accumulate", self.accumulate as f64, self.accumulate > 0, "must be at least 1"),
            (
                "train.label_smoothing",
                self.label_smoothing,
                (0.0..1.0).contains(&self.label_smoothing),
                "must be at least 0 and below 1",
            ),
            ("train.clip_norm", clip, clip.is_finite() && clip > 0.0, "must be above 0"),
            ("train.patience", 0.0, self.patience != Some(0), "must be at least 1"),
            ("log.every_steps", self.log_every_steps as f64, self.log_every_steps > 0, "must be at least 1"),
            ("checkpoint.every_steps", 0.0, self.checkpoint.every_steps != Some(0), "must be at least 1"),
            ("checkpoint.every_minutes", minutes, minutes.is_finite() && minutes > 0.0, "must be above 0"),
            ("checkpoint.keep_last", 0.0, self.checkpoint.keep_last > 0, "must be at least 1"),
        ];
        match checks.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((key, value, _, reason)) => Err(TrainError::Config { key, value, reason }),
            None => self.class_weights.validate(),
        }
    }
}

//! What is known when the loss, the gradients or the weights stop being numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taper_optim::{Gradients, ParameterSet};

use crate::TrainError;

/// What [`Fit::run`](crate::Fit::run) does when it finds a value that is no number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonfinite {
    /// It ends the run within that step.
    #[default]
    Stop,
    /// The first time, it goes back to the newest checkpoint and on with a tenth of the learning rate; the second time
    /// it ends the run.
    Rollback,
}

impl OnNonfinite {
    /// How often it goes back.
    pub(crate) fn max_rollbacks(self) -> u32 {
        match self {
            Self::Stop => 0,
            Self::Rollback => 1,
        }
    }
}

/// Where and how training diverged, as `divergence.json` has it. A number that is none is written as a word: JSON has no
/// NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Optimizer steps done before.
    pub step: u64,
    /// What is no number: `loss`, `gradient norm`, or a tensor's name.
    pub what: String,
    /// Its value.
    pub value: Value,
    /// Learning rate of the step.
    pub lr: f64,
    /// Times that the run had gone back to a checkpoint before.
    pub num_rollbacks: u32,
    /// The batches of the step, as far as they had been used.
    pub batches: Vec<DivergedBatch>,
    /// Euclidean norm of each parameter's gradient, summed over those batches; empty where there was none yet.
    pub gradient_norms: BTreeMap<String, Value>,
}

/// One batch of the step that diverged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DivergedBatch {
    /// Mean loss, nats.
    pub loss: Value,
    /// Index of each image in its data set.
    pub indices: Vec<usize>,
    /// What the data set calls them: for files, their paths below its root.
    pub names: Vec<String>,
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let again = if self.num_rollbacks > 0 { "again, after a rollback, " } else { "" };
        let (step, epoch) = (self.step, self.epoch + 1);
        let value = self.value.as_str().map_or_else(|| self.value.to_string(), ToOwned::to_owned);
        write!(
            f,
            "training diverged {again}at step {step} (epoch {epoch}): {} is {value}, at learning rate {}; lower \
             optim.lr, add schedule.warmup or set train.clip_norm",
            self.what, self.lr
        )
    }
}

/// A number as JSON has it, or the word for what is none.
pub(crate) fn number_or_word(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

/// The norm of each parameter's gradient.
pub(crate) fn norms(parameters: &ParameterSet, gradients: &Gradients) -> Result<BTreeMap<String, Value>, TrainError> {
    let named = parameters.iter().zip(gradients.norms()?);
    Ok(named.map(|(parameter, norm)| (parameter.name.clone(), number_or_word(norm))).collect())
}

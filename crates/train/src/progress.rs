//! Where a run stands: everything but the tensors.

use serde::{Deserialize, Serialize};
use taper_metrics::{Tally, Throughput};

use crate::GpuPlan;

/// Position, sums and counters of a run. With the tensors of a checkpoint it determines how the run goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Epoch that is running, from 0; the number of epochs once all are done.
    pub epoch: usize,
    /// Batches of this epoch that have been used.
    pub batch_in_epoch: usize,
    /// Sums over this epoch's training images.
    pub epoch_tally: Tally,
    /// Sums since the last step record.
    pub window_tally: Tally,
    /// Throughput of this epoch's training.
    pub epoch_throughput: Throughput,
    /// Throughput since the last step record.
    pub window_throughput: Throughput,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Epochs since the best one.
    pub epochs_without_best: usize,
    /// Times that the run diverged and went back to a checkpoint; each has lowered the learning rate.
    #[serde(default)]
    pub num_rollbacks: u32,
    /// Whether the run has ended by itself.
    pub is_complete: bool,
    /// Time spent, all parts of a resumed run together.
    pub elapsed_seconds: f64,
    /// Plans for convolutions that trials on a GPU have found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_plans: Vec<GpuPlan>,
}

/// The best evaluation of a run, by top-1 on the validation split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Fraction 0..=1.
    pub val_top1: f64,
}

impl Progress {
    /// Notes an evaluation; says whether it is the best so far. An equal one is not better.
    pub fn note_evaluation(&mut self, val_top1: f64) -> Standing {
        if self.best.is_none_or(|best| val_top1 > best.val_top1) {
            self.best = Some(Best { epoch: self.epoch, val_top1 });
            self.epochs_without_best = 0;
            Standing::Best
        } else {
            self.epochs_without_best += 1;
            Standing::NotBetter
        }
    }

    /// Moves on to the next epoch.
    pub(crate) fn next_epoch(&mut self) {
        self.epoch += 1;
        self.batch_in_epoch = 0;
        self.epoch_tally = Tally::default();
        self.epoch_throughput = Throughput::default();
    }
}

/// How an evaluation compares with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Better than all before.
    Best,
    /// Equal to the best one, or worse.
    NotBetter,
}

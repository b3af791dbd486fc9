//! The rows a run writes, and where they go.

use serde::{Deserialize, Serialize};

/// One logged optimizer step. Losses and accuracies are over the images since the last record.
///
/// Fields that depend on the clock end in `_seconds` or `_per_second`; all others are equal in equal runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Optimizer steps done when the record was made (1 after the first).
    pub step: u64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean training loss, nats.
    pub loss: f64,
    /// Training top-1, fraction 0..=1.
    pub top1: f64,
    /// Norm of all gradients before clipping, of the last step.
    pub grad_norm: f64,
    /// Training throughput, loading included.
    pub images_per_second: f64,
    /// Time since the run started, earlier parts of a resumed run included.
    pub elapsed_seconds: f64,
}

/// One epoch: training as it went, and the evaluation after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Optimizer steps done at the end of the epoch.
    pub step: u64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean training loss over the epoch, nats, in training mode.
    pub train_loss: f64,
    /// Training top-1 over the epoch, fraction 0..=1, in training mode.
    pub train_top1: f64,
    /// Mean loss on the evaluated split, nats, without label smoothing.
    pub val_loss: f64,
    /// Top-1 on the evaluated split, fraction 0..=1.
    pub val_top1: f64,
    /// Top-5 on the evaluated split, fraction 0..=1.
    pub val_top5: f64,
    /// Training throughput, loading included, evaluation excluded.
    pub images_per_second: f64,
    /// Time since the run started, earlier parts of a resumed run included.
    pub elapsed_seconds: f64,
}

/// The part of a run whose records stay when it is resumed. All steps of an epoch may be done and its record not made,
/// since the evaluation lies between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Optimizer steps: records of later ones go.
    pub steps: u64,
    /// Epochs with their evaluation: records of the others go.
    pub epochs: usize,
}

/// Why a sink could not take a record; the sink's own error.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Where records go. The loop calls it; files, terminals and plots implement it.
pub trait RecordSink {
    /// Takes a step's record.
    ///
    /// # Errors
    /// Whatever keeps the record from being stored; the run stops.
    fn step(&mut self, record: &StepRecord) -> Result<(), SinkError>;

    /// Takes an epoch's record.
    ///
    /// # Errors
    /// Whatever keeps the record from being stored; the run stops.
    fn epoch(&mut self, record: &EpochRecord) -> Result<(), SinkError>;

    /// Makes everything taken so far durable; called before a checkpoint that relies on it.
    ///
    /// # Errors
    /// Whatever keeps the records from being stored; the run stops.
    fn flush(&mut self) -> Result<(), SinkError>;

    /// Forgets every record that was made after `kept`; called once when a run is resumed from there.
    ///
    /// # Errors
    /// Records that cannot be read back.
    fn rewind(&mut self, kept: Kept) -> Result<(), SinkError>;
}

/// Keeps nothing.
impl RecordSink for () {
    fn step(&mut self, _: &StepRecord) -> Result<(), SinkError> {
        Ok(())
    }

    fn epoch(&mut self, _: &EpochRecord) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn rewind(&mut self, _: Kept) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Both take everything, the first one first.
impl<A: RecordSink, B: RecordSink> RecordSink for (A, B) {
    fn step(&mut self, record: &StepRecord) -> Result<(), SinkError> {
        self.0.step(record)?;
        self.1.step(record)
    }

    fn epoch(&mut self, record: &EpochRecord) -> Result<(), SinkError> {
        self.0.epoch(record)?;
        self.1.epoch(record)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.0.flush()?;
        self.1.flush()
    }

    fn rewind(&mut self, kept: Kept) -> Result<(), SinkError> {
        self.0.rewind(kept)?;
        self.1.rewind(kept)
    }
}

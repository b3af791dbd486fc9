//! Records for the tests of the sinks.

use taper_metrics::{EpochRecord, StepRecord};

/// A step whose other numbers do not matter.
pub(crate) fn record(step: u64) -> StepRecord {
    StepRecord {
        epoch: 0,
        step,
        lr: 0.1,
        loss: 1.5,
        top1: 0.25,
        grad_norm: 2.0,
        images_per_second: 10.0,
        elapsed_seconds: 1.0,
    }
}

/// The same of an epoch.
pub(crate) fn epoch_record(epoch: usize, step: u64) -> EpochRecord {
    EpochRecord {
        epoch,
        step,
        lr: 0.1,
        train_loss: 1.5,
        train_top1: 0.25,
        val_loss: 1.5,
        val_top1: 0.25,
        val_top5: 0.5,
        images_per_second: 10.0,
        elapsed_seconds: 1.0,
    }
}

//! The one line an epoch prints.

use taper_metrics::EpochRecord;

/// What the printed loss is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossScale {
    /// Mean over the images, nats.
    #[default]
    Mean,
    /// The mean divided by the batch size once more, as the report of the original project printed it.
    PerBatchSize,
}

/// An epoch in the report's form, training half first: `TRAINING Epoch 01/30 Loss 0.1687 Accuracy 0.0067`.
///
/// `batch_size` matters for [`LossScale::PerBatchSize`] only.
pub fn epoch_line(record: &EpochRecord, num_epochs: usize, scale: LossScale, batch_size: usize) -> String {
    let divisor = match scale {
        LossScale::Mean => 1.0,
        LossScale::PerBatchSize => batch_size.max(1) as f64,
    };
    let width = num_epochs.to_string().len().max(2);
    let epoch = record.epoch + 1;
    format!(
        "TRAINING Epoch {epoch:0width$}/{num_epochs:0width$} Loss {:.4} Accuracy {:.4} | VALIDATION Loss {:.4} Accuracy {:.4} Top5 {:.4} | {:.0} images/s",
        record.train_loss / divisor,
        record.train_top1,
        record.val_loss / divisor,
        record.val_top1,
        record.val_top5,
        record.images_per_second,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_the_reports_form() {
        let record = EpochRecord {
            epoch: 0,
            step: 5,
            lr: 0.1,
            train_loss: 5.3984,
            train_top1: 0.0067,
            val_loss: 5.2,
            val_top1: 0.01,
            val_top5: 0.05,
            images_per_second: 99.6,
            elapsed_seconds: 3.0,
        };
        let line = epoch_line(&record, 30, LossScale::PerBatchSize, 32);
        assert!(line.starts_with("TRAINING Epoch 01/30 Loss 0.1687 Accuracy 0.0067"), "{line}");
        assert!(epoch_line(&record, 300, LossScale::Mean, 32).starts_with("TRAINING Epoch 001/300 Loss 5.3984"));
    }
}

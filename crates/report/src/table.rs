//! Tables for other programs: epochs of runs, and submissions to a competition.

use std::io::Write;

use taper_metrics::EpochRecord;

use crate::ReportError;

/// Writes the epochs of runs as CSV: a column `run`, then the fields of `epochs.jsonl`.
///
/// # Errors
/// A writer that fails.
pub fn write_epochs_csv<'a>(
    out: impl Write,
    runs: impl IntoIterator<Item = (&'a str, &'a [EpochRecord])>,
) -> Result<(), ReportError> {
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(out);
    csv.write_record([
        "run",
        "epoch",
        "step",
        "lr",
        "train_loss",
        "train_top1",
        "val_loss",
        "val_top1",
        "val_top5",
        "images_per_second",
        "elapsed_seconds",
    ])?;
    for (run, records) in runs {
        for record in records {
            csv.serialize((run, record))?;
        }
    }
    csv.flush().map_err(|source| ReportError::Csv(source.into()))
}

/// A table of predicted classes as competitions want it: a name and a class for each image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Names of the two columns; Kaggle's usual ones are `ID` and `Label`.
    pub header: [String; 2],
    /// What identifies an image, and its class, in the order of the test set.
    pub rows: Vec<[String; 2]>,
}

/// Writes a submission as CSV.
///
/// ```
/// use taper_report::{Submission, write_submission};
///
/// let header = ["ID".to_owned(), "Label".to_owned()];
/// let rows = vec![["0".to_owned(), "17".to_owned()]];
/// let mut csv = Vec::new();
/// write_submission(&mut csv, &Submission { header, rows })?;
/// assert_eq!(csv, b"ID,Label\n0,17\n");
/// # Ok::<(), taper_report::ReportError>(())
/// ```
///
/// # Errors
/// A writer that fails.
pub fn write_submission(out: impl Write, submission: &Submission) -> Result<(), ReportError> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(&submission.header)?;
    for row in &submission.rows {
        csv.write_record(row)?;
    }
    csv.flush().map_err(|source| ReportError::Csv(source.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_have_a_column_for_each_field() {
        let record = EpochRecord {
            epoch: 1,
            step: 20,
            lr: 0.5,
            train_loss: 1.5,
            train_top1: 0.25,
            val_loss: 2.0,
            val_top1: 0.125,
            val_top5: 0.5,
            images_per_second: 10.0,
            elapsed_seconds: 3.0,
        };
        let mut out = Vec::new();
        write_epochs_csv(&mut out, [("a,b", std::slice::from_ref(&record))]).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut lines = text.lines();
        let fields = serde_json::to_value(&record).unwrap().as_object().unwrap().len();
        assert_eq!(lines.next().unwrap().split(',').count(), fields + 1);
        assert_eq!(lines.next().unwrap(), "\"a,b\",1,20,0.5,1.5,0.25,2.0,0.125,0.5,10.0,3.0");
    }
}

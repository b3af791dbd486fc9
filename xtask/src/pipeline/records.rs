//! What a run directory says: epochs, and where the run came from.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A line of `epochs.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Epoch {
    pub(crate) epoch: u64,
    pub(crate) train_loss: f64,
    pub(crate) train_top1: f64,
    pub(crate) val_loss: f64,
    pub(crate) val_top1: f64,
    pub(crate) images_per_second: f64,
}

impl Epoch {
    /// All epochs of a run.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is no record.
    pub(crate) fn of_run(run: &Path) -> Result<Vec<Self>> {
        let path = run.join("epochs.jsonl");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let line = |line: &str| Self::parse(line).with_context(|| format!("{}: {line}", path.display()));
        text.lines().map(line).collect()
    }

    fn parse(line: &str) -> Result<Self> {
        let record: Value = serde_json::from_str(line)?;
        let number = |key: &str| record[key].as_f64().with_context(|| format!("no number {key}"));
        Ok(Self {
            epoch: record["epoch"].as_u64().context("no number epoch")?,
            train_loss: number("train_loss")?,
            train_top1: number("train_top1")?,
            val_loss: number("val_loss")?,
            val_top1: number("val_top1")?,
            images_per_second: number("images_per_second")?,
        })
    }
}

/// What is taken from `provenance.json`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Provenance {
    pub(crate) commit: String,
    pub(crate) device: String,
    /// Name and SHA-256 of the data.
    pub(crate) data: String,
}

impl Provenance {
    /// Where a run came from.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub(crate) fn of_run(run: &Path) -> Result<Self> {
        let path = run.join("provenance.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))?;
        let word = |key: &str| value[key].as_str().unwrap_or("unknown").to_owned();
        Ok(Self {
            commit: word("commit"),
            device: format!("{} ({}), {} threads", word("device"), word("cpu_path"), value["threads"]),
            data: data_of(&value["data"]),
        })
    }
}

/// The last part of the location: where a machine keeps its data is nobody's business.
fn data_of(data: &Value) -> String {
    let source = data["source"].as_str().unwrap_or("unknown");
    let name = source.trim_end_matches('/').rsplit('/').next().unwrap_or(source);
    format!("{name}, sha256 {}", data["sha256"].as_str().unwrap_or("unknown"))
}

/// Mean; `None` of nothing.
pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Mean, and the standard deviation of a sample where there are two values or more.
pub(crate) fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let centre = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    let deviation = (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt());
    Some((centre, deviation))
}

#[cfg(test)]
mod tests {
    use super::{Epoch, data_of, mean_and_deviation};
    use serde_json::json;

    #[test]
    fn a_line_is_read_and_a_torn_one_is_named() {
        let line = r#"{"epoch":1,"step":9,"lr":0.1,"train_loss":2.0,"train_top1":0.5,"val_loss":1.5,"val_top1":0.25,"val_top5":0.5,"images_per_second":10.0,"elapsed_seconds":3.0}"#;
        let epoch = Epoch::parse(line).unwrap();
        assert_eq!((epoch.epoch, epoch.val_top1, epoch.images_per_second), (1, 0.25, 10.0));
        assert!(Epoch::parse("{\"epoch\":1}").unwrap_err().to_string().contains("train_loss"));
        assert!(Epoch::parse("{\"epo").is_err());
    }

    #[test]
    fn deviation_is_that_of_a_sample() {
        assert_eq!(mean_and_deviation(&[]), None);
        assert_eq!(mean_and_deviation(&[2.0]), Some((2.0, None)));
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), Some((2.0, Some(2f64.sqrt()))));
    }

    #[test]
    fn data_are_named_with_their_digest() {
        let data = json!({ "source": "/some/where/cifar-100-binary/", "sha256": "ab" });
        assert_eq!(data_of(&data), "cifar-100-binary, sha256 ab");
        assert_eq!(data_of(&json!({ "source": "glyphs", "sha256": "cd" })), "glyphs, sha256 cd");
    }
}

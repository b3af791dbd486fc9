//! What can go wrong with a weights file.

use std::path::{Path, PathBuf};

use super::LoadReport;

/// An error with weights, or with what lies beside them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file cannot be read at all.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is not weights, or is damaged or hostile.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong or refused, and where.
        reason: String,
    },
    /// Some weights are no numbers.
    #[error("{path}: NaN or infinite values in {}: {}", count(names), shortened(names))]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensors, sorted.
        names: Vec<String>,
    },
    /// The tensors are not those of a network that can be built.
    #[error("{path}: {reason}")]
    UnknownArchitecture {
        /// The file.
        path: PathBuf,
        /// What the tensors look like, and what is expected.
        reason: String,
    },
    /// The tensors do not fit the network.
    #[error("{path} does not fit the model: {report}")]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What fits and what does not.
        report: Box<LoadReport>,
    },
    /// A configuration beside the weights cannot be followed.
    #[error("{path}: {reason}")]
    Config {
        /// The configuration.
        path: PathBuf,
        /// Which key, why not, and what would do.
        reason: String,
    },
    /// The network has no counterpart in the library to export to.
    #[error("cannot export to {format}: {reason}")]
    NoCounterpart {
        /// The library.
        format: &'static str,
        /// Why not, and what would do.
        reason: String,
    },
    /// candle could not make or copy a tensor.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl WeightsError {
    pub(super) fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.into() }
    }
}

fn count(names: &[String]) -> String {
    if names.len() == 1 { "1 tensor".to_owned() } else { format!("{} tensors", names.len()) }
}

/// The first ten.
pub(super) fn shortened(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
    shown.join(", ") + if names.len() > shown.len() { ", …" } else { "" }
}

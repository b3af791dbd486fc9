//! What can go wrong when records become files.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A log file could not be opened, written, synced or shortened.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A line of a log file is not a record.
    #[error("{path}, line {line}: not a record; move the file away, or start a new run directory")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The parser's reason.
        #[source]
        source: serde_json::Error,
    },
    /// A record could not be written as JSON.
    #[error("cannot write a record as JSON")]
    Json(#[from] serde_json::Error),
    /// A table could not be written as CSV.
    #[error("cannot write a table as CSV")]
    Csv(#[from] csv::Error),
    /// A file of predictions cannot be understood.
    #[error("{path}: not a file of predictions ({reason}); evaluate the run again")]
    Predictions {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A chart could not be drawn.
    #[error("cannot draw the chart {title:?}: {reason}")]
    Chart {
        /// The chart.
        title: &'static str,
        /// The library's reason.
        reason: String,
    },
    /// A picture's pixels are not as many as its size says.
    #[error("a picture of {height}x{width} pixels, or its heat, does not have {found} values")]
    Pixels {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// A picture could not be encoded.
    #[error("cannot encode a picture")]
    Picture(#[source] image::ImageError),
    /// The page's template failed.
    #[error("cannot fill in the page")]
    Page(#[from] askama::Error),
    /// An event file holds something else.
    #[error("{path}: not an event file from byte {offset} on; move the file away, or start a new run directory")]
    Events {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        offset: u64,
    },
}

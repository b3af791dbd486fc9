//! Records of a run as files that a person or a script reads.
//!
//! **Owns** the form of `steps.jsonl`, `epochs.jsonl`, the CSV files of predictions, and the epoch line on the terminal.
//! **Does not know** candle, models or the loop: it is handed records and rows, and never touches a tensor.
//!
//! Read [`JsonlSink`] first, then [`PredictionRow`] with [`write_predictions`], then [`epoch_line`].
//!
//! ```
//! use taper_report::{Columns, PredictionRow, write_predictions};
//!
//! let row = PredictionRow::answer("photos/1.png", None, vec![(7, "star-solid".to_owned(), 0.93)]);
//! let mut csv = Vec::new();
//! write_predictions(&mut csv, &[row], &Columns::default()).unwrap();
//! assert!(String::from_utf8(csv).unwrap().contains("photos/1.png,7,star-solid,0.930000,"));
//! ```
//!
//! Next: `taper-metrics` defines the records; `taper-cli` puts these files into a run directory.
#![forbid(unsafe_code)]

mod error;
mod jsonl;
mod line;
mod predictions;

pub use error::ReportError;
pub use jsonl::JsonlSink;
pub use line::{LossScale, epoch_line};
pub use predictions::{Columns, LabelColumn, PredictionRow, write_predictions};

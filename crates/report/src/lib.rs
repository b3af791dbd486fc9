//! Records of a run as files that a person or a script reads.
//!
//! **Owns** the form of `steps.jsonl`, `epochs.jsonl`, TensorBoard's event files, the page of HTML, the CSV files of
//! predictions, submissions and epochs, and the epoch line on the terminal.
//! **Does not know** candle, models or the loop: it is handed records and rows, and never touches a tensor.
//!
//! Read [`JsonlSink`] and [`EventSink`] first, then [`PredictionRow`] with [`write_predictions`], [`Submission`] and
//! [`epoch_line`], then [`RunPage`] with [`write_page`].
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
mod events;
#[cfg(test)]
mod fixtures;
mod html;
mod jsonl;
mod line;
mod predictions;
mod table;

pub use error::ReportError;
pub use events::EventSink;
pub use html::{
    Answer, Explained, Fact, LrPoint, Mistake, Picture, RunPage, Sample, SplitPage, most_confident_mistakes, write_page,
};
pub use jsonl::{JsonlSink, read_epochs, read_steps};
pub use line::{LossScale, epoch_line};
pub use predictions::{Columns, LabelColumn, PredictionRow, read_predictions, write_predictions};
pub use table::{Submission, write_epochs_csv, write_submission};

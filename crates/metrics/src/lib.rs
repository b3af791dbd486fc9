//! What a classifier run measures: accuracy, confusion, meters and the records of a run.
//!
//! **Owns** the definitions of top-k accuracy, mean loss, per-class recall, calibration and throughput, and the row types that a
//! run writes ([`StepRecord`], [`EpochRecord`]).
//! **Does not know** candle, files or the terminal: numbers go in, numbers come out.
//!
//! Read [`Tally`] first (sums over a pass), then [`Confusion`] and [`Calibration`], then [`RecordSink`].
//!
//! ```
//! use taper_metrics::{Confusion, Tally};
//!
//! let mut tally = Tally::default();
//! let mut confusion = Confusion::new(3);
//! for (logits, label) in [([2.0, 1.0, 0.0], 0), ([0.0, 1.0, 2.0], 1)] {
//!     tally.add(&logits, label, 0.5);
//!     confusion.add(label, taper_metrics::argmax(&logits));
//! }
//! assert_eq!(tally.top1(), 0.5);
//! assert_eq!(confusion.recall(0), Some(1.0));
//! ```
//!
//! Next: `taper-report` writes these records to files; `taper-train` fills them.
#![forbid(unsafe_code)]

mod calibration;
mod confusion;
mod meter;
mod record;
mod tally;

pub use calibration::{Calibration, CalibrationBin};
pub use confusion::Confusion;
pub use meter::Throughput;
pub use record::{EpochRecord, Kept, RecordSink, SinkError, StepRecord};
pub use tally::{Tally, argmax, rank, softmax};

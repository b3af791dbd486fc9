//! `taper-data` turns image files into batches of bytes.
//!
//! **Owns** data sets, splits, decoding, transforms, the order of samples and the loader. Everything is plain bytes and
//! plain numbers. **Does not know** tensors, models or training: it works as well from burn or ort.
//!
//! In reading order: [`open`] turns a [`DataSpec`] into [`OpenedData`], which is a [`Dataset`] with its official
//! [`Split`] and its [`DataProvenance`]. [`Split::stratified`] makes another split and [`SplitManifest`] keeps it.
//! A [`Compose`] of [`Transform`]s draws from [`rng`] and applies. [`CachedDataset`] keeps decoded images, [`survey`]
//! finds the broken ones and measures what [`normalise`] needs, in one pass, and [`Preprocess`] carries it with the
//! weights. A [`Loader`] yields a [`Batch`] at a time, the same ones for any number of workers, or a [`CutBatch`] for
//! whoever keeps the pixels elsewhere.
//!
//! ```
//! use taper_data::{Compose, DataSpec, LastBatch, Loader, OnBad, Order, Part, channel_stats, normalise, open};
//!
//! let data = open(&DataSpec::new("glyphs"))?;
//! let train = &data.official.get(Part::Train)[..512];
//! let stats = channel_stats(&*data.dataset, train)?;
//! let loader = Loader {
//!     dataset: data.dataset.clone(), indices: train.into(), transform: Compose(vec![]), seed: 0,
//!     batch_size: 64, workers: 2, prefetch: 4, last: LastBatch::Drop, bad: OnBad::Fail,
//! };
//! for batch in loader.epoch(Order::Shuffled { seed: 0, epoch: 0 }) {
//!     let images = normalise(&batch?, &stats);
//!     assert_eq!(images.len(), 64 * 32 * 32 * 3);
//! }
//! # Ok::<(), taper_data::DataError>(())
//! ```
//!
//! The crate has no features. Read `taper-train` next: its loop consumes these batches.
#![forbid(unsafe_code)]

mod dataset;
mod error;
mod image;

mod cifar;
mod cub;
mod decode;
mod folder;
mod glyphs;
mod open;
mod photos;
pub mod pickle;
mod provenance;

mod manifest;
mod split;

mod preprocess;
mod resize;
pub mod rng;
mod transform;

mod cache;
mod stats;
mod survey;

mod batch;
mod cut;
mod loader;
mod sampler;

pub use batch::{BadSample, Batch, normalise};
pub use cache::{CacheBudget, CachedDataset};
pub use cut::{Cut, CutBatch};
pub use dataset::{ArrayDataset, Dataset, ImageArray};
pub use decode::decode;
pub use error::{DataError, Result};
pub use glyphs::Glyphs;
pub use image::{Image, Sample};
pub use loader::{Epoch, LastBatch, Loader, OnBad, Order};
pub use manifest::SplitManifest;
pub use open::{BUILT_IN, DataSpec, LabelKind, OpenedData, open};
pub use preprocess::{Interpolation, Preprocess};
pub use provenance::{Covers, DataKind, DataProvenance, FileDigest, Recognised};
pub use resize::Region;
pub use sampler::epoch_order;
pub use split::{Part, Split, ValSize};
pub use stats::{ChannelStats, channel_stats};
pub use survey::{Survey, survey};
pub use transform::{ColorStep, Compose, Op, PadMode, Transform};

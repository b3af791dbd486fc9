//! The training loop for any candle model: fit, evaluate, checkpoint, resume.
//!
//! **Owns** the order of a step, the end of an epoch, the run folder's weights and checkpoints, and how a run resumes.
//! **Does not know** architectures, where weights come from, reports or the terminal: it writes records to a
//! [`taper_metrics::RecordSink`] and prints nothing.
//!
//! Read [`Fit`] first (everything a run needs, and [`Fit::run`]), then [`Source`] with [`Images`] and [`Features`] (what
//! it goes through), [`FitConfig`], [`evaluate()`], [`Averaged`], [`grad_cam()`], [`Checkpoint`] and [`Weights`]; then
//! [`Divergence`] and [`Disk`], which a run that goes wrong is about.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use taper_train::{Weights, write_weights};
//!
//! let folder = std::env::temp_dir().join("taper-train-example");
//! std::fs::create_dir_all(&folder)?;
//! let path = folder.join("model.safetensors");
//! let weight = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;
//! write_weights(&path, [("w", &weight)], &[("format", "pt")].into())?;
//! let weights = Weights::read(&path)?;
//! assert_eq!(weights.tensors["w"].to_vec1::<f32>()?, [1.0, 2.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Next: `taper-optim` for what a step does with gradients; `taper-data` for where batches come from.
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod disk;
mod divergence;
mod error;
mod evaluate;
mod features;
mod fit;
mod gpu_plans;
mod grad_cam;
mod loss;
mod lr_search;
mod progress;
#[cfg(feature = "cuda")]
mod resident;
mod run_folder;
mod source;
mod step;
mod store;
mod tta;
mod weights;

pub use checkpoint::{Checkpoint, Occasion, check_manifest};
pub use config::{CheckpointConfig, FitConfig};
pub use disk::{Disk, SystemDisk};
pub use divergence::{DivergedBatch, Divergence, OnNonfinite};
pub use error::TrainError;
pub use evaluate::{EvaluatedImage, Evaluation, evaluate};
pub use features::Features;
pub use fit::{Fit, Outcome};
pub use gpu_plans::{GpuPlan, add_gpu_plans};
pub use grad_cam::{GradCam, grad_cam};
pub use loss::ClassWeights;
pub use lr_search::{LrRange, TriedLr, steepest};
pub use progress::{Best, Progress, Standing};
#[cfg(feature = "cuda")]
pub use resident::ResidentImages;
pub use run_folder::RunFolder;
pub use source::{Batches, Images, InputBatch, Source};
pub use step::ImageInput;
pub use store::{create_folders, sha256_of_file, write_atomically};
pub use tta::{Averaged, Copies};
pub use weights::{LoadReport, Weights, write_weights};

//! What can go wrong in a run.

use std::path::PathBuf;

use crate::{Divergence, LoadReport};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A value of the configuration that cannot be.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The configuration key.
        key: &'static str,
        /// The value as given.
        value: f64,
        /// What would do.
        reason: &'static str,
    },
    /// A batch larger than the data.
    #[error(
        "{num_images} training images make no full step of {step_images}; lower train.batch_size or train.accumulate, or set train.drop_last = false"
    )]
    NoFullBatch {
        /// Training images there are.
        num_images: usize,
        /// Images of one step.
        step_images: usize,
    },
    /// The loss, the gradients or the weights stopped being numbers. What is written is from before.
    #[error("{found}{}", dump.as_ref().map(|path| format!("; {} has the batch and the gradients", path.display())).unwrap_or_default())]
    Diverged {
        /// What is known of it.
        found: Box<Divergence>,
        /// The file that has it, once it is written.
        dump: Option<PathBuf>,
    },
    /// A weights file does not fit the model.
    #[error("{path} does not fit the model: {report}")]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What fits and what does not.
        report: Box<LoadReport>,
    },
    /// Class weights for another number of classes.
    #[error(
        "train.class_weights: {num_weights} weights for {num_classes} classes; give one for each, in the order of the classes"
    )]
    ClassWeights {
        /// Weights there are.
        num_weights: usize,
        /// Classes there are.
        num_classes: usize,
    },
    /// A class without training images.
    #[error(
        "class {class_index} has no training images, so train.class_weights cannot be balanced; add some, or list the weights"
    )]
    EmptyClass {
        /// Index of the class.
        class_index: usize,
    },
    /// Features cannot be computed once where images change from epoch to epoch.
    #[error(
        "features cannot be cached: {transform} changes each image anew in each epoch; leave it out, or do not cache"
    )]
    RandomFeatures {
        /// The transform.
        transform: String,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Images could not be read.
    #[error(transparent)]
    Data(#[from] taper_data::DataError),
    /// Parameters could not be grouped or moved.
    #[error(transparent)]
    Optim(#[from] taper_optim::OptimError),
    /// A record could not be stored.
    #[error("cannot store a record")]
    Sink(#[source] taper_metrics::SinkError),
    /// candle could not compute.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl TrainError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn malformed(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), reason: reason.into() }
    }
}

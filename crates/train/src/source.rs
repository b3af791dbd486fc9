//! Where the loop's batches come from.

use candle_core::Tensor;
use taper_data::{BadSample, Loader, Order};

use crate::{ImageInput, TrainError};

/// What goes through a model together.
#[derive(Clone, Debug)]
pub struct InputBatch {
    /// The model's input, `[n, ..]` f32.
    pub inputs: Tensor,
    /// Class indices, `[n]`.
    pub labels: Vec<u32>,
    /// Index of each image in its data set, `[n]`.
    pub indices: Vec<usize>,
    /// Images that were to be in this batch and could not be read.
    pub bad: Vec<BadSample>,
}

/// The batches of an epoch, in order; after an error there are no more.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<InputBatch, TrainError>> + 'a>;

/// What the loop goes through: [`Images`], or [`Features`](crate::Features) that were computed from them once.
pub trait Source {
    /// Classes that labels tell apart.
    fn num_classes(&self) -> usize;

    /// Images of an epoch.
    fn num_images(&self) -> usize;

    /// Images of a full batch.
    fn batch_size(&self) -> usize;

    /// Batches of an epoch.
    fn num_batches(&self) -> usize;

    /// What the data set calls the image that a batch has under this index.
    fn image_name(&self, index: usize) -> String;

    /// The batches of an epoch from `first_batch` on.
    fn epoch_from(&self, order: Order, first_batch: usize) -> Batches<'_>;
}

/// Images as the model takes them: decoded, transformed, normalised.
#[derive(Clone, Debug)]
pub struct Images {
    /// Makes batches of bytes.
    pub loader: Loader,
    /// How bytes become the model's input.
    pub input: ImageInput,
}

impl Source for Images {
    fn num_classes(&self) -> usize {
        self.loader.dataset.classes().len()
    }

    fn num_images(&self) -> usize {
        self.loader.indices.len()
    }

    fn batch_size(&self) -> usize {
        self.loader.batch_size
    }

    fn num_batches(&self) -> usize {
        self.loader.num_batches()
    }

    fn image_name(&self, index: usize) -> String {
        self.loader.dataset.name(index)
    }

    fn epoch_from(&self, order: Order, first_batch: usize) -> Batches<'_> {
        Box::new(self.loader.epoch_from(order, first_batch).map(|batch| {
            let batch = batch?;
            let inputs = self.input.images(&batch)?;
            Ok(InputBatch { inputs, labels: batch.labels, indices: batch.indices, bad: batch.bad })
        }))
    }
}

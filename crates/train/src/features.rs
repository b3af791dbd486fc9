//! Features of images, computed once.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::ModuleT;
use taper_data::{Dataset, LastBatch, OnBad, Order, epoch_order};

use crate::source::Batches;
use crate::{Images, InputBatch, Source, TrainError};

/// What a frozen backbone makes of each image, so that a head is trained without the images.
///
/// A head that is trained on them in some order ends with the same bits as one trained behind the frozen backbone on
/// the images in that order.
///
/// # Shapes
/// Batches `[n, ..]`, where `..` is the backbone's output for one image.
#[derive(Clone, Debug)]
pub struct Features {
    values: Vec<f32>,
    shape: Vec<usize>,
    labels: Vec<u32>,
    indices: Vec<usize>,
    /// Knows the names of the images.
    dataset: Arc<dyn Dataset>,
    num_classes: usize,
    batch_size: usize,
    last: LastBatch,
    device: Device,
}

impl Features {
    /// Runs the backbone in evaluation mode over all images of `images`, in order, and calls `progress` with the number
    /// of images done after each batch. Batches of the features have the size that those of the images have.
    ///
    /// # Errors
    /// [`TrainError::RandomFeatures`] if a transform of the images is random; an image that cannot be read.
    pub fn compute(
        backbone: &dyn ModuleT,
        images: &Images,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, TrainError> {
        let mut loader = images.loader.clone();
        if let Some(transform) = loader.transform.0.iter().find(|transform| transform.is_random()) {
            return Err(TrainError::RandomFeatures { transform: format!("{transform:?}") });
        }
        (loader.last, loader.bad) = (LastBatch::Keep, OnBad::Fail);
        let mut features = Self {
            values: Vec::new(),
            shape: Vec::new(),
            labels: Vec::with_capacity(loader.indices.len()),
            indices: Vec::with_capacity(loader.indices.len()),
            dataset: loader.dataset.clone(),
            num_classes: images.num_classes(),
            batch_size: images.loader.batch_size,
            last: images.loader.last,
            device: images.input.device.clone(),
        };
        let images = Images { loader, input: images.input.clone() };
        for batch in images.epoch_from(Order::Sequential, 0) {
            features.add(backbone, batch?, images.num_images())?;
            progress(features.labels.len());
        }
        Ok(features)
    }

    fn add(&mut self, backbone: &dyn ModuleT, batch: InputBatch, num_images: usize) -> Result<(), TrainError> {
        let output = taper_kernels::without_history(|| backbone.forward_t(&batch.inputs, false))?;
        self.shape = output.dims().get(1..).unwrap_or_default().to_vec();
        if self.values.is_empty() {
            self.values.reserve_exact(self.num_values() * num_images);
        }
        let values = output.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        self.values.extend(values.to_vec1::<f32>()?);
        self.labels.extend(batch.labels);
        self.indices.extend(batch.indices);
        Ok(())
    }

    /// Values of one image.
    fn num_values(&self) -> usize {
        self.shape.iter().product()
    }

    fn batch(&self, positions: &[usize]) -> Result<InputBatch, TrainError> {
        let size = self.num_values();
        let mut values = Vec::with_capacity(positions.len() * size);
        positions.iter().for_each(|position| values.extend_from_slice(&self.values[position * size..][..size]));
        let shape: Vec<usize> = [positions.len()].into_iter().chain(self.shape.iter().copied()).collect();
        Ok(InputBatch {
            inputs: Tensor::from_vec(values, shape, &self.device)?,
            labels: positions.iter().map(|position| self.labels[*position]).collect(),
            indices: positions.iter().map(|position| self.indices[*position]).collect(),
            bad: Vec::new(),
        })
    }
}

impl Source for Features {
    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn num_images(&self) -> usize {
        self.labels.len()
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn num_batches(&self) -> usize {
        match self.last {
            LastBatch::Keep => self.labels.len().div_ceil(self.batch_size),
            LastBatch::Drop => self.labels.len() / self.batch_size,
        }
    }

    fn image_name(&self, index: usize) -> String {
        self.dataset.name(index)
    }

    fn epoch_from(&self, order: Order, first_batch: usize) -> Batches<'_> {
        let order = match order {
            Order::Sequential => (0..self.labels.len()).collect(),
            Order::Shuffled { seed, epoch } => epoch_order(seed, epoch, self.labels.len()),
        };
        Box::new((first_batch..self.num_batches()).map(move |batch_index| {
            let start = batch_index * self.batch_size;
            self.batch(&order[start..(start + self.batch_size).min(order.len())])
        }))
    }
}

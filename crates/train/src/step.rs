//! Bytes to tensors, and one forward and backward pass.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use candle_nn::ModuleT;
use taper_data::{Batch, ChannelStats, normalise};
use taper_metrics::Tally;

use crate::loss::cross_entropy;
use crate::{FitConfig, InputBatch, TrainError};

/// How a batch of bytes becomes the model's input.
#[derive(Clone, Debug)]
pub struct ImageInput {
    /// Mean and standard deviation to normalise with.
    pub stats: ChannelStats,
    /// Where the model is.
    pub device: Device,
}

impl ImageInput {
    /// `[n, h, w, 3]` f32, normalised.
    ///
    /// # Errors
    /// candle's, when the device is out of memory.
    pub fn images(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let shape = (batch.len(), batch.height, batch.width, 3);
        Ok(Tensor::from_vec(normalise(batch, &self.stats), shape, &self.device)?)
    }
}

/// What one batch gave: gradients, and how well it was classified before the step.
pub(crate) struct Pass {
    pub(crate) gradients: GradStore,
    pub(crate) tally: Tally,
}

/// Forward, loss, backward.
pub(crate) fn forward_backward(model: &dyn ModuleT, batch: InputBatch, config: &FitConfig) -> Result<Pass, TrainError> {
    let InputBatch { inputs, labels, .. } = batch;
    let logits = model.forward_t(&inputs, true)?;
    let loss = cross_entropy(&logits, &labels, config.label_smoothing, &config.class_weights)?;
    let mean = f64::from(loss.to_scalar::<f32>()?);
    let mut tally = Tally::default();
    for (row, label) in logits.to_vec2::<f32>()?.iter().zip(&labels) {
        tally.add(row, *label as usize, mean);
    }
    // Tensors that live on would keep every activation until the backward pass is over.
    drop((logits, inputs));
    Ok(Pass { gradients: taper_kernels::backward(loss)?, tally })
}

//! Bytes to tensors, and one forward and backward pass.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
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
    /// Type of the activations: f32, or bf16 on a GPU.
    pub dtype: DType,
}

impl ImageInput {
    /// `[n, h, w, 3]` of `dtype`, normalised: on a GPU there, from bytes, with the same numbers as on the CPU.
    ///
    /// # Errors
    /// candle's, when the device is out of memory.
    pub fn images(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let shape = (batch.len(), batch.height, batch.width, 3);
        #[cfg(feature = "cuda")]
        if self.device.is_cuda() {
            let bytes = Tensor::from_slice(&batch.images, shape, &self.device)?;
            let (size, scale) = ([batch.height, batch.width], self.stats.scale_and_offset());
            return Ok(taper_kernels::images_from_bytes(&bytes, &[], size, scale, self.dtype)?);
        }
        let images = Tensor::from_vec(normalise(batch, &self.stats), shape, &self.device)?;
        Ok(images.to_dtype(self.dtype)?)
    }
}

/// The values of `[n, k]` on the host, in f32 whatever their type. Waits for the device.
pub(crate) fn rows(values: &Tensor) -> Result<Vec<Vec<f32>>, TrainError> {
    Ok(values.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_vec2()?)
}

/// What one batch gave: gradients, and how well it was classified before the step.
pub(crate) struct Pass {
    pub(crate) gradients: GradStore,
    pub(crate) result: PassResult,
}

/// Loss and logits of a batch, which may still be on their way from a GPU.
pub(crate) struct PassResult {
    indices: Vec<usize>,
    labels: Vec<u32>,
    loss: Tensor,
    logits: Tensor,
}

impl PassResult {
    /// Whether the host has it without waiting.
    pub(crate) fn is_here(&self) -> bool {
        self.loss.device().is_cpu()
    }
}

/// What the passes of a step gave, as numbers.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) tally: Tally,
    /// Indices of the images of each batch, and its loss.
    pub(crate) used: Vec<(Vec<usize>, f64)>,
}

impl Seen {
    /// Adds the result of a pass, and gives its loss. Waits for the device.
    pub(crate) fn note(&mut self, result: PassResult) -> Result<f64, TrainError> {
        let PassResult { indices, labels, loss, logits } = result;
        let loss = f64::from(loss.to_scalar::<f32>()?);
        let mut tally = Tally::default();
        for (row, label) in rows(&logits)?.iter().zip(&labels) {
            tally.add(row, *label as usize, loss);
        }
        self.tally.merge(&tally);
        self.used.push((indices, tally.loss()));
        Ok(tally.loss())
    }
}

/// Forward, loss, backward.
pub(crate) fn forward_backward(model: &dyn ModuleT, batch: InputBatch, config: &FitConfig) -> Result<Pass, TrainError> {
    let InputBatch { inputs, labels, indices, .. } = batch;
    let logits = model.forward_t(&inputs, true)?;
    let loss = cross_entropy(&logits, &labels, config.label_smoothing, &config.class_weights)?;
    // Tensors with history that live on would keep every activation until the backward pass is over.
    let result = PassResult { indices, labels, loss: loss.detach(), logits: logits.detach() };
    drop((logits, inputs));
    // Gradients that are added up first have to be f32.
    let gradients = match config.accumulate {
        0 | 1 => taper_kernels::backward_raw(loss)?,
        _ => taper_kernels::backward(loss)?,
    };
    Ok(Pass { gradients, result })
}

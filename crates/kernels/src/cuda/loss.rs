use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{DType, Result, Tensor};

use super::gpu::{Gpu, blocks, suffix};
use super::memory::{address, address_or_null};
use crate::graph::{Gradient, Operation, attach, wanted};

const MODULE: &str = "loss";

/// What the logits are held to.
pub(crate) enum Goal {
    /// `[n]` u32, spread by label smoothing.
    Labels(Tensor, f32),
    /// `[n, classes]` f32.
    Distributions(Tensor),
}

/// Mean cross-entropy of `[n, classes]`, as a scalar in f32 that stays on the device.
///
/// A label that names no class cannot be refused without waiting for the device: it makes the loss NaN.
pub(crate) fn cross_entropy(name: &'static str, logits: &Tensor, goal: Goal) -> Result<Tensor> {
    let gpu = Gpu::of(name, "logits", logits)?;
    let logits = logits.contiguous()?;
    let op = CrossEntropy { name, goal };
    let (rows, classes) = logits.dims2()?;
    let (row_losses, loss) = (gpu.empty(DType::F32, rows)?, gpu.empty(DType::F32, ())?);
    let (from, (labels, targets, smoothing)) = (address(name, "logits", &logits)?, op.goal()?);
    let sizes = [rows, classes].map(|size| size as i32);
    let function = gpu.function(MODULE, &format!("cross_entropy_{}", suffix(logits.dtype())))?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&labels).arg(&targets).arg(&smoothing).arg(&row_losses.address).arg(&sizes[0]).arg(&sizes[1]);
    // SAFETY: the arguments are those of the kernel; labels and targets, of which one is null, have a row for each of
    // the logits.
    unsafe { call.launch(row_launch(rows)) }.w()?;
    let function = gpu.function(MODULE, "mean_f32")?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&row_losses.address).arg(&loss.address).arg(&sizes[0]);
    // SAFETY: as above; `row_losses` has a number for each row.
    unsafe { call.launch(blocks([1, 1, 1], [256, 1])) }.w()?;
    attach(op, &[&logits], loss, ())
}

/// A warp a row, four of them a block.
fn row_launch(rows: usize) -> candle_core::cuda_backend::cudarc::driver::LaunchConfig {
    blocks([rows.div_ceil(4), 1, 1], [128, 1])
}

struct CrossEntropy {
    name: &'static str,
    goal: Goal,
}

impl CrossEntropy {
    /// Addresses of labels and targets, one of them null, and the smoothing.
    fn goal(&self) -> Result<(u64, u64, f32)> {
        let (labels, targets, smoothing) = match &self.goal {
            Goal::Labels(labels, smoothing) => (Some(labels), None, *smoothing),
            Goal::Distributions(targets) => (None, Some(targets), 0.0),
        };
        let labels = address_or_null(self.name, "labels", labels)?;
        Ok((labels, address_or_null(self.name, "targets", targets)?, smoothing))
    }
}

impl Operation for CrossEntropy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn backward(&self, inputs: &[Tensor], _loss: &Tensor, upstream: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let logits = &inputs[0];
        let gradient = wanted(logits, || {
            let gpu = Gpu::of(self.name, "logits", logits)?;
            let (rows, classes) = logits.dims2()?;
            let gradient = gpu.empty(logits.dtype(), logits.shape())?;
            let (from, (labels, targets, smoothing)) = (address(self.name, "logits", logits)?, self.goal()?);
            let upstream = address(self.name, "gradient", upstream.tensor())?;
            let sizes = [rows, classes].map(|size| size as i32);
            let function = gpu.function(MODULE, &format!("cross_entropy_gradient_{}", suffix(logits.dtype())))?;
            let mut call = gpu.stream.launch_builder(&function);
            call.arg(&from).arg(&labels).arg(&targets).arg(&smoothing).arg(&upstream);
            call.arg(&gradient.address).arg(&sizes[0]).arg(&sizes[1]);
            // SAFETY: the arguments are those of the kernel; as in the forward pass, and `upstream` is one number.
            unsafe { call.launch(row_launch(rows)) }.w()?;
            Ok(gradient.into_tensor())
        })?;
        Ok(vec![gradient])
    }
}

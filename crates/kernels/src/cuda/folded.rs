//! The first convolution of a network for photos, which steps by two over three channels: tensor cores would be idle for
//! most of it. With the pixels of each square of two by two side by side as channels it is a convolution by single steps
//! over sixteen channels with a window half as wide (space to depth, as in the MLPerf submissions of ResNet-50).

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::{DType, Result, Tensor};

use super::conv::{Conv, convolution};
use super::elementwise::column_sums;
use super::gpu::{Gpu, over, suffix};
use super::memory::{Fresh, address};
use crate::conv::ConvShape;
use crate::geometry::ConvGeometry;
use crate::graph::{Gradient, Operation, wanted};
use crate::norm_conv::Convolution as _;

const MODULE: &str = "weights";
const OP: &str = "conv2d";

/// Channels that a square of pixels may have together.
const MOST_CHANNELS: usize = 16;

/// What the kernels take; their struct of the same name.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Fold {
    image: [i32; 2],
    c: i32,
    folded_image: [i32; 2],
    c_folded: i32,
    kernel: [i32; 2],
    folded_kernel: [i32; 2],
    odd: [i32; 2],
    before: [i32; 2],
}

// SAFETY: fourteen ints, as in `cuda/weights.cu`.
unsafe impl DeviceRepr for Fold {}

/// Whether a convolution whose input asks for no gradient is better folded.
pub(super) fn is_foldable(shape: &ConvShape) -> bool {
    let ConvGeometry { stride, padding: _, dilation, groups } = shape.geometry;
    stride == [2, 2]
        && dilation == [1, 1]
        && groups == 1
        && 4 * shape.c_in <= MOST_CHANNELS
        && shape.kernel.iter().all(|&side| side > 1)
}

/// The convolution that cuDNN computes for one whose input asks for no gradient.
pub(super) fn as_folded(shape: &ConvShape) -> ConvShape {
    if is_foldable(shape) { Fold::new(shape).1 } else { *shape }
}

impl Fold {
    /// With the folded convolution's sizes.
    fn new(shape: &ConvShape) -> (Self, ConvShape) {
        let odd = shape.geometry.padding.map(|padding| padding % 2);
        let kernel = [0, 1].map(|axis| (shape.kernel[axis] + odd[axis]).div_ceil(2));
        let input = [0, 1].map(|axis| shape.output[axis] + kernel[axis] - 1);
        let c_in = (4 * shape.c_in).next_multiple_of(8);
        let ints = |sizes: [usize; 2]| sizes.map(|size| size as i32);
        let fold = Self {
            image: ints(shape.input),
            c: shape.c_in as i32,
            folded_image: ints(input),
            c_folded: c_in as i32,
            kernel: ints(shape.kernel),
            folded_kernel: ints(kernel),
            odd: ints(odd),
            before: ints([0, 1].map(|axis| shape.geometry.padding[axis] + odd[axis])),
        };
        (fold, ConvShape { input, c_in, kernel, geometry: ConvGeometry::default(), ..*shape })
    }

    fn images(&self, gpu: &Gpu, x: &Tensor, shape: &ConvShape) -> Result<Tensor> {
        let folded = gpu.empty(x.dtype(), (shape.images, shape.input[0], shape.input[1], shape.c_in))?;
        let (from, images) = (address(OP, "x", x)?, shape.images as i32);
        let function = gpu.function(MODULE, &format!("fold_images_{}", suffix(x.dtype())))?;
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&from).arg(&folded.address).arg(&images).arg(self);
        // SAFETY: the arguments are those of the kernel; both sides have the sizes that `self` says.
        unsafe { call.launch(over(shape.images * shape.input[0] * shape.input[1] * shape.c_in / 8)) }.w()?;
        Ok(folded.into_tensor())
    }

    fn weights(&self, gpu: &Gpu, w: &Tensor, shape: &ConvShape) -> Result<Tensor> {
        let sizes = (shape.c_out, shape.c_in, shape.kernel[0], shape.kernel[1]);
        Ok(self.between(gpu, "fold_weights", w, gpu.empty(DType::F32, sizes)?, shape.c_out)?.into_tensor())
    }

    fn gradient(&self, gpu: &Gpu, folded: &Tensor, w: &Tensor) -> Result<Tensor> {
        let dw = gpu.empty(DType::F32, w.shape())?;
        Ok(self.between(gpu, "unfold_gradient", folded, dw, w.dim(0)?)?.into_tensor())
    }

    /// Queues a kernel between both shapes of the weights.
    fn between(&self, gpu: &Gpu, kernel: &str, from: &Tensor, to: Fresh, filters: usize) -> Result<Fresh> {
        let (at, count) = (address(OP, "w", from)?, filters as i32);
        let function = gpu.function(MODULE, kernel)?;
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&at).arg(&to.address).arg(&count).arg(self);
        // SAFETY: the arguments are those of the kernel; both sides have the sizes that `self` says, in f32.
        unsafe { call.launch(over(from.elem_count())) }.w()?;
        Ok(to)
    }
}

/// The convolution of images without history, and what knows the gradient of its weights.
pub(super) fn folded(x: &Tensor, w: &Tensor, shape: &ConvShape) -> Result<(Folded, Fresh)> {
    let gpu = Gpu::of(OP, "x", x)?;
    let (fold, shape) = Fold::new(shape);
    let (images, weights) = (fold.images(&gpu, x, &shape)?, fold.weights(&gpu, w, &shape)?);
    let (conv, y) = convolution(&images, &weights, &shape)?;
    Ok((Folded { fold, conv, images, weights }, y))
}

pub(super) struct Folded {
    fold: Fold,
    conv: Conv,
    images: Tensor,
    weights: Tensor,
}

impl Operation for Folded {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], _y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (w, dy) = (&inputs[1], gradient.tensor());
        let dw = wanted(w, || {
            let gpu = Gpu::of(OP, "gradient", dy)?;
            let folded = self.conv.of_weights(&self.images, &self.weights, dy)?;
            self.fold.gradient(&gpu, &folded, w)
        })?;
        let mut gradients = vec![None, dw];
        if let Some(bias) = inputs.get(2) {
            gradients.push(wanted(bias, || column_sums(OP, dy))?);
        }
        Ok(gradients)
    }
}

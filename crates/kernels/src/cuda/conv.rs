use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{DType, Result, Tensor};

use super::dnn::{Direction, Problem};
use super::elementwise::{add_bias, column_sums};
use super::folded::{folded, is_foldable};
use super::gpu::{Gpu, blocks, over, suffix};
use super::memory::{Fresh, address};
use crate::conv::ConvShape;
use crate::graph::{Gradient, Operation, attach, is_raw, wanted};
use crate::norm_conv::Convolution;
use crate::packed;

const MODULE: &str = "weights";
const OP: &str = "conv2d";

/// A convolution whose sizes fit; all tensors but the activations are f32.
pub(crate) fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, shape: &ConvShape) -> Result<Tensor> {
    let gpu = Gpu::of(OP, "x", x)?;
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    if is_foldable(shape) && !x.track_op() {
        let (conv, y) = folded(&x, &w, shape)?;
        return with_bias(&gpu, conv, [&x, &w], bias, y, shape);
    }
    let (conv, y) = convolution(&x, &w, shape)?;
    with_bias(&gpu, conv, [&x, &w], bias, y, shape)
}

/// Adds the bias, if there is one, and hangs the result into the graph.
fn with_bias(
    gpu: &Gpu,
    conv: impl Operation,
    [x, w]: [&Tensor; 2],
    bias: Option<&Tensor>,
    y: Fresh,
    shape: &ConvShape,
) -> Result<Tensor> {
    let sizes = (shape.images, shape.output[0], shape.output[1], shape.c_out);
    let Some(bias) = bias else {
        return attach(conv, &[x, w], y, sizes);
    };
    let bias = bias.contiguous()?;
    add_bias(gpu, y.address, &bias, x.dtype(), [shape.images * shape.output_pixels(), shape.c_out])?;
    attach(conv, &[x, w, &bias], y, sizes)
}

/// The convolution of dense tensors, without bias and history: what knows its gradients, and its values.
pub(crate) fn convolution(x: &Tensor, w: &Tensor, shape: &ConvShape) -> Result<(Conv, Fresh)> {
    let gpu = Gpu::of(OP, "x", x)?;
    let problem = Problem::new(shape, x.dtype());
    let padded = pad_channels(&gpu, x, problem.c_in)?;
    let (weights, y) = (packed_weights(&gpu, w, &problem)?, gpu.empty(x.dtype(), &problem.y_shape()[..])?);
    let tensors = [address(OP, "x", &padded)?, address(OP, "w", &weights)?, y.address];
    let padded = Some(padded).filter(|_| problem.c_in != shape.c_in);
    let conv = Conv { problem, weights, input_channels: shape.c_in, padded };
    conv.run(&gpu, Direction::Forward, tensors)?;
    Ok((conv, y))
}

pub(crate) struct Conv {
    problem: Problem,
    /// The weights as cuDNN takes them, in the activations' type.
    weights: Tensor,
    input_channels: usize,
    /// The input with its channels filled up, where some were missing.
    padded: Option<Tensor>,
}

impl Conv {
    /// Queues one of the convolutions, on the addresses of `x`, `w` and `y` or of their gradients.
    fn run(&self, gpu: &Gpu, direction: Direction, tensors: [u64; 3]) -> Result<()> {
        // SAFETY: callers pass addresses of tensors of the problem's shapes and type, which they hold.
        gpu.with_dnn(|dnn| unsafe { dnn.run(&self.problem, direction, tensors) })
    }

    /// The gradient of the input, added to another one that nothing else holds.
    fn add_input_gradient(&self, dy: &Tensor, sum: &Tensor) -> Result<()> {
        let gpu = Gpu::of(OP, "gradient", dy)?;
        let tensors = [address(OP, "gradient", sum)?, address(OP, "w", &self.weights)?, address(OP, "gradient", dy)?];
        self.run(&gpu, Direction::AddedInputGradient, tensors)
    }

    /// Whether the convolution can add its input's gradient to this one: of the same shape and type, on 16 bytes, and
    /// cuDNN has an engine that does it.
    fn can_add_to(&self, sum: &Tensor, dtype: DType) -> bool {
        let is_aligned = || address(OP, "gradient", sum).is_ok_and(|at| at.is_multiple_of(16));
        let has_engine = || {
            let gpu = Gpu::of(OP, "gradient", sum)?;
            gpu.with_dnn(|dnn| Ok(dnn.can_run(&self.problem, Direction::AddedInputGradient)))
        };
        sum.dims() == self.problem.x_shape() && sum.dtype() == dtype && is_aligned() && has_engine().unwrap_or(false)
    }

    fn input_gradient(&self, dy: &Tensor) -> Result<Tensor> {
        let (gpu, problem) = (Gpu::of(OP, "gradient", dy)?, &self.problem);
        let dx = gpu.empty(dy.dtype(), &problem.x_shape()[..])?;
        let (w, dy) = (address(OP, "w", &self.weights)?, address(OP, "gradient", dy)?);
        self.run(&gpu, Direction::InputGradient, [dx.address, w, dy])?;
        let dx = dx.into_tensor();
        match problem.c_in == self.input_channels {
            true => Ok(dx),
            false => dx.narrow(3, 0, self.input_channels)?.contiguous(),
        }
    }

    /// The gradient of the weights, as they lie or, for a variable in a pass that asks for raw ones, as cuDNN makes it.
    fn weight_gradient(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
        let is_raw = is_raw() && w.is_variable() && dy.dtype() == DType::BF16;
        let (gpu, problem) = (Gpu::of(OP, "gradient", dy)?, &self.problem);
        let x = &self.padded.clone().map_or_else(|| pad_channels(&gpu, x, problem.c_in), Ok)?;
        let packed = gpu.empty(dy.dtype(), &problem.packed_shape()[..])?;
        let (x_at, dy_at) = (address(OP, "x", x)?, address(OP, "gradient", dy)?);
        self.run(&gpu, Direction::WeightGradient, [x_at, packed.address, dy_at])?;
        match is_raw {
            true => packed.into_tensor().narrow(3, 0, self.group_in())?.permute((0, 3, 1, 2)),
            false => self.unpack(&gpu, &packed, dy.dtype()),
        }
    }

    /// The gradient as the parameter lies, in f32.
    fn unpack(&self, gpu: &Gpu, packed: &Fresh, dtype: DType) -> Result<Tensor> {
        let (problem, [kh, kw]) = (&self.problem, self.problem.kernel);
        let inner = self.group_in();
        let dw = gpu.empty(DType::F32, (problem.c_out, inner, kh, kw))?;
        let function = gpu.function(MODULE, &format!("unpack_gradient_{}", suffix(dtype)))?;
        let sizes = [problem.c_out, inner, problem.group_in(), problem.taps()].map(|size| size as i32);
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&packed.address).arg(&dw.address);
        call.arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]).arg(&sizes[3]);
        // SAFETY: the arguments are those of the kernel; both sides have the sizes that are passed.
        unsafe { call.launch(blocks([problem.group_in().div_ceil(TILE), problem.c_out, 1], [256, 1])) }.w()?;
        Ok(dw.into_tensor())
    }

    /// Input channels of a group in the parameter.
    fn group_in(&self) -> usize {
        // Channels are filled up only where there is one group.
        self.problem.group_in().min(self.input_channels)
    }
}

/// Input channels that a block of the repacking kernels takes.
const TILE: usize = 64;

/// The weights as cuDNN takes them: those that are kept, or made now.
fn packed_weights(gpu: &Gpu, w: &Tensor, problem: &Problem) -> Result<Tensor> {
    let fits = |kept: &Tensor| kept.dtype() == problem.dtype && kept.dims() == problem.packed_shape();
    if let Some(kept) = packed::kept(w).filter(fits) {
        return Ok(kept);
    }
    let made = pack(gpu, w, problem)?;
    packed::keep(w, &made);
    Ok(made)
}

/// Weights `[k, c, kh, kw]` f32 as `[k, kh, kw, c]` in the activations' type, channels filled up with zeros.
fn pack(gpu: &Gpu, w: &Tensor, problem: &Problem) -> Result<Tensor> {
    let packed = gpu.empty(problem.dtype, &problem.packed_shape()[..])?;
    let (from, inner) = (address(OP, "w", w)?, w.dim(1)?);
    let function = gpu.function(MODULE, &format!("pack_weights_{}", suffix(problem.dtype)))?;
    let sizes = [problem.c_out, inner, problem.group_in(), problem.taps()].map(|size| size as i32);
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&packed.address);
    call.arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]).arg(&sizes[3]);
    // SAFETY: the arguments are those of the kernel; both sides have the sizes that are passed.
    unsafe { call.launch(blocks([problem.group_in().div_ceil(TILE), problem.c_out, 1], [256, 1])) }.w()?;
    Ok(packed.into_tensor())
}

/// The images with their channels filled up with zeros, or themselves where none are missing.
fn pad_channels(gpu: &Gpu, x: &Tensor, channels: usize) -> Result<Tensor> {
    let &[images, height, width, own] = x.dims() else { return Ok(x.clone()) };
    if own == channels {
        return Ok(x.clone());
    }
    let padded = gpu.empty(x.dtype(), (images, height, width, channels))?;
    let (from, rows) = (address(OP, "x", x)?, images * height * width);
    let function = gpu.function(MODULE, &format!("pad_channels_{}", suffix(x.dtype())))?;
    let (rows_arg, own_arg, channels_arg) = (rows as i64, own as i32, channels as i32);
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&padded.address).arg(&rows_arg).arg(&own_arg).arg(&channels_arg);
    // SAFETY: the arguments are those of the kernel; both sides have `rows` pixels of the channels that are passed.
    unsafe { call.launch(over(rows * channels)) }.w()?;
    Ok(padded.into_tensor())
}

impl Conv {
    /// Without the padded input: it is made again for the gradient of the weights.
    pub(crate) fn lean(self) -> Self {
        Self { padded: None, ..self }
    }
}

impl Convolution for Conv {
    fn of_input(&self, _w: &Tensor, dy: &Tensor) -> Result<Tensor> {
        self.input_gradient(dy)
    }

    fn of_weights(&self, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
        self.weight_gradient(x, w, dy)
    }
}

impl Operation for Conv {
    fn name(&self) -> &'static str {
        OP
    }

    fn backward(&self, inputs: &[Tensor], y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        self.backward_onto(inputs, y, gradient, &mut None)
    }

    fn backward_onto(
        &self,
        inputs: &[Tensor],
        _y: &Tensor,
        gradient: &Gradient,
        waiting: &mut Option<Gradient>,
    ) -> Result<Vec<Option<Gradient>>> {
        let (x, w, dy) = (&inputs[0], &inputs[1], gradient.tensor());
        let of_input = match Gradient::take_own(waiting, |sum| self.can_add_to(sum, dy.dtype())) {
            Some(sum) => {
                self.add_input_gradient(dy, sum.tensor())?;
                Some(sum)
            }
            None => wanted(x, || self.input_gradient(dy))?,
        };
        let mut gradients = vec![of_input, wanted(w, || self.weight_gradient(x, w, dy))?];
        if let Some(bias) = inputs.get(2) {
            gradients.push(wanted(bias, || column_sums(OP, dy))?);
        }
        Ok(gradients)
    }
}

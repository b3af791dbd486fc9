use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::{DType, Result, Tensor};

use super::gpu::Gpu;
use super::memory::{Fresh, address, address_or_null};
use super::rows::Rows;
use crate::batch_norm::{Kind, Running};
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::norm_conv::Again;

const MODULE: &str = "batch_norm";

/// What every pass over memory takes; the kernels' struct of the same name.
#[repr(C)]
#[derive(Clone, Copy)]
struct Norm {
    mean: u64,
    variance: u64,
    gamma: u64,
    beta: u64,
    eps: f32,
    scale: f32,
    rows: i32,
    channels: i32,
    lanes_log2: i32,
}

// SAFETY: the struct is laid out as the one in `cuda/batch_norm.cu`: four pointers, two floats, three ints.
unsafe impl DeviceRepr for Norm {}

/// Mean and biased variance per channel of contiguous `[..., c]`, both `[c]` f32; running statistics follow.
pub(crate) fn batch_norm_statistics(
    op: &'static str,
    x: &Tensor,
    channels: usize,
    running: Option<Running<'_>>,
) -> Result<(Tensor, Tensor)> {
    let gpu = Gpu::of(op, "x", x)?;
    let cut = Rows::new(x.elem_count() / channels.max(1), channels);
    // A mean and a sum of squares for each part and channel.
    let parts = gpu.empty(DType::F32, (cut.splits(), channels, 2))?;
    let (mean, variance) = (gpu.empty(DType::F32, channels)?, gpu.empty(DType::F32, channels)?);
    let from = address(op, "x", x)?;
    let [rows, width, per_split, splits] =
        [cut.rows, channels, cut.rows_per_split, cut.splits()].map(|size| size as i32);
    let lanes = cut.lanes_log2 as i32;
    let function = gpu.function(MODULE, &cut.name("bn_moments", x.dtype()))?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&from).arg(&parts.address).arg(&rows).arg(&width).arg(&lanes).arg(&per_split);
    // SAFETY: the arguments are those of the kernel; `x` has `rows · channels` elements, `parts` a pair for each split
    // and channel.
    unsafe { call.launch(cut.split_launch()) }.w()?;
    let function = gpu.function(MODULE, "bn_moments_finish")?;
    let mut call = gpu.stream.launch_builder(&function);
    call.arg(&parts.address).arg(&splits).arg(&per_split).arg(&rows).arg(&width);
    call.arg(&mean.address).arg(&variance.address);
    let running_mean = address_or_null(op, "running_mean", running.map(|running| running.mean))?;
    let running_variance = address_or_null(op, "running_variance", running.map(|running| running.variance))?;
    let momentum = running.map_or(0.0, |running| running.momentum) as f32;
    call.arg(&running_mean).arg(&running_variance).arg(&momentum);
    // SAFETY: as above; both results have room for every channel, as have the running statistics, which may be null.
    unsafe { call.launch(cut.merging_launch()) }.w()?;
    Ok((mean.into_tensor(), variance.into_tensor()))
}

/// The statistics a normalisation goes by.
pub(crate) struct Normalisation {
    pub(crate) name: &'static str,
    /// Dense, without history.
    pub(crate) gamma: Tensor,
    /// Dense, without history.
    pub(crate) beta: Tensor,
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
    pub(crate) eps: f64,
    pub(crate) kind: Kind,
    /// Whether the statistics are those of `x`, so that gradients flow through them.
    pub(crate) is_of_batch: bool,
}

/// The normalisation with its epilogue; all tensors are contiguous, and their shapes fit.
pub(crate) fn batch_norm(
    op: Normalisation,
    x: &Tensor,
    parameters: &Tensor,
    shortcut: Option<&Tensor>,
) -> Result<Tensor> {
    let y = op.forward(x, shortcut)?;
    match shortcut {
        None => attach(op, &[x, parameters], y, x.shape()),
        Some(shortcut) => attach(op, &[x, parameters, shortcut], y, x.shape()),
    }
}

impl Normalisation {
    fn forward(&self, x: &Tensor, shortcut: Option<&Tensor>) -> Result<Fresh> {
        let gpu = Gpu::of(self.name, "x", x)?;
        let (cut, norm) = self.norm(x)?;
        let y = gpu.empty(x.dtype(), x.shape())?;
        let (from, other) = (address(self.name, "x", x)?, address_or_null(self.name, "shortcut", shortcut)?);
        let function = gpu.function(MODULE, &self.kernel(&cut, "bn_apply", x.dtype()))?;
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&from).arg(&other).arg(&y.address).arg(&norm);
        // SAFETY: the arguments are those of the kernel; `x`, `y` and the shortcut, if the kind has one, are of one shape
        // and type.
        unsafe { call.launch(cut.stepping_launch()) }.w()?;
        Ok(y)
    }

    fn norm(&self, x: &Tensor) -> Result<(Rows, Norm)> {
        let channels = self.mean.elem_count();
        let cut = Rows::new(x.elem_count() / channels.max(1), channels);
        let norm = Norm {
            mean: address(self.name, "running_mean", &self.mean)?,
            variance: address(self.name, "running_variance", &self.variance)?,
            gamma: address(self.name, "gamma", &self.gamma)?,
            beta: address(self.name, "beta", &self.beta)?,
            eps: self.eps as f32,
            scale: match self.kind {
                Kind::ReluScaleAdd { scale } => scale,
                Kind::Identity | Kind::Relu | Kind::AddRelu => 1.0,
            },
            rows: cut.rows as i32,
            channels: channels as i32,
            lanes_log2: cut.lanes_log2 as i32,
        };
        Ok((cut, norm))
    }

    fn kernel(&self, cut: &Rows, stem: &str, dtype: DType) -> String {
        let kind = match self.kind {
            Kind::Identity => "identity",
            Kind::Relu => "relu",
            Kind::ReluScaleAdd { .. } => "scale_add",
            Kind::AddRelu => "add_relu",
        };
        format!("{}_{kind}", cut.name(stem, dtype))
    }

    /// Gradient of gamma and beta, `[2, c]`; the gradient of `x` reads its sums as well.
    fn parameter_gradient(&self, [x, y, dy]: [&Tensor; 3], cut: &Rows, norm: &Norm) -> Result<Tensor> {
        let gpu = Gpu::of(self.name, "x", x)?;
        let parts = gpu.empty(DType::F32, (cut.splits(), cut.channels, 2))?;
        let gradient = gpu.empty(DType::F32, (2, cut.channels))?;
        let [x_at, y_at, dy_at] =
            [address(self.name, "x", x)?, address(self.name, "y", y)?, address(self.name, "gradient", dy)?];
        let [per_split, splits, channels] = [cut.rows_per_split, cut.splits(), cut.channels].map(|size| size as i32);
        let function = gpu.function(MODULE, &self.kernel(cut, "bn_sums", x.dtype()))?;
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&x_at).arg(&y_at).arg(&dy_at).arg(norm).arg(&parts.address).arg(&per_split);
        // SAFETY: the arguments are those of the kernel; the three tensors are of one shape and type, `parts` holds a
        // pair for each split and channel.
        unsafe { call.launch(cut.split_launch()) }.w()?;
        let function = gpu.function(MODULE, "bn_sums_finish")?;
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&parts.address).arg(&splits).arg(&channels).arg(&norm.variance).arg(&norm.eps).arg(&gradient.address);
        // SAFETY: as above; `gradient` holds two numbers for each channel.
        unsafe { call.launch(cut.merging_launch()) }.w()?;
        Ok(gradient.into_tensor())
    }

    /// Gradient of `x`, and of the shortcut where the op gates it and somebody asks.
    fn input_gradient(
        &self,
        [x, y, dy]: [&Tensor; 3],
        (cut, norm): (&Rows, &Norm),
        sums: Option<&Tensor>,
        wants_shortcut: bool,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let gpu = Gpu::of(self.name, "x", x)?;
        let dx = gpu.empty(x.dtype(), x.shape())?;
        let gated =
            (wants_shortcut && self.kind == Kind::AddRelu).then(|| gpu.empty(x.dtype(), x.shape())).transpose()?;
        let [x_at, y_at, dy_at] =
            [address(self.name, "x", x)?, address(self.name, "y", y)?, address(self.name, "gradient", dy)?];
        let sums = address_or_null(self.name, "sums", sums)?;
        let shortcut = gated.as_ref().map_or(0, |gated| gated.address);
        let function = gpu.function(MODULE, &self.kernel(cut, "bn_gradient", x.dtype()))?;
        let mut call = gpu.stream.launch_builder(&function);
        call.arg(&x_at).arg(&y_at).arg(&dy_at).arg(norm).arg(&sums).arg(&dx.address).arg(&shortcut);
        // SAFETY: the arguments are those of the kernel, which takes null for sums and shortcut; all others are of the
        // shape and type of `x`.
        unsafe { call.launch(cut.stepping_launch()) }.w()?;
        Ok((dx.into_tensor(), gated.map(|gated| gated.into_tensor())))
    }
}

impl Again for Normalisation {
    fn again(&self, x: &Tensor, _parameters: &Tensor) -> Result<Tensor> {
        Ok(self.forward(x, None)?.into_tensor())
    }
}

impl Operation for Normalisation {
    fn name(&self) -> &'static str {
        self.name
    }

    fn backward(&self, inputs: &[Tensor], y: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let (x, parameters, shortcut) = (&inputs[0], &inputs[1], inputs.get(2));
        let (cut, norm) = self.norm(x)?;
        let saved = [x, y, gradient.tensor()];
        let wants_shortcut = shortcut.is_some_and(Tensor::track_op);
        let gates_shortcut = wants_shortcut && self.kind == Kind::AddRelu;
        let through_statistics = self.is_of_batch && x.track_op();
        let sums = match through_statistics || parameters.track_op() {
            true => Some(self.parameter_gradient(saved, &cut, &norm)?),
            false => None,
        };
        let (dx, gated) = match x.track_op() || gates_shortcut {
            true => {
                let statistics = sums.as_ref().filter(|_| self.is_of_batch);
                let (dx, gated) = self.input_gradient(saved, (&cut, &norm), statistics, wants_shortcut)?;
                (Some(dx), gated)
            }
            false => (None, None),
        };
        let mut gradients = vec![
            dx.filter(|_| x.track_op()).map(Gradient::from),
            sums.filter(|_| parameters.track_op()).map(Gradient::from),
        ];
        if shortcut.is_some() {
            // Where the sum comes last, its gradient passes on unchanged; a clone shares the values.
            let passed_on = (wants_shortcut && !gates_shortcut).then(|| gradient.clone());
            gradients.push(gated.map(Gradient::from).or(passed_on));
        }
        Ok(gradients)
    }
}

const PAIR: &str = "batch_norm_parameters";

/// What stands for gamma and beta in the graph, `[2, c]`, so that batch norm fits candle's three inputs: a node, whose
/// values nobody reads.
pub(crate) fn batch_norm_parameters(gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(PAIR, "gamma", gamma)?;
    let shape = (2, gamma.elem_count());
    attach(Pair, &[gamma, beta], gpu.empty(DType::F32, shape)?, shape)
}

struct Pair;

impl Operation for Pair {
    fn name(&self) -> &'static str {
        PAIR
    }

    fn backward(&self, inputs: &[Tensor], _both: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        // Both halves lie in one block of memory, apart; each is added to in its own place.
        let half = |at: usize| wanted(&inputs[at], || gradient.tensor().get(at));
        Ok(vec![half(0)?, half(1)?])
    }
}

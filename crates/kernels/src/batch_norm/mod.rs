//! Batch normalisation fused with what follows it: one pass forward, two passes backward.

mod op;
mod passes;
mod statistics;

use candle_core::{Result, Tensor};

use crate::error::KernelError;
use crate::norm_conv::Again as _;
use crate::storage::{option_error, require, require_f32, require_float, require_shape, shape_error};
use op::{BatchNorm, Source, pair};
#[cfg(feature = "cuda")]
pub(crate) use passes::Kind;
pub use statistics::{BatchStatistics, Running};

const TRAIN: &str = "batch_norm_train";
const EVAL: &str = "batch_norm_eval";

/// What follows the normalisation, within the same pass over memory.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing: `bn(x)`.
    Identity,
    /// `relu(bn(x))`.
    Relu,
    /// `scale · relu(bn(x)) + shortcut`: BaseNet's residual.
    ReluScaleAdd {
        /// Factor of the residual branch.
        scale: f32,
        /// Same shape as `x`.
        shortcut: &'a Tensor,
    },
    /// `relu(bn(x) + shortcut)`: ResNet's residual.
    AddRelu {
        /// Same shape as `x`.
        shortcut: &'a Tensor,
    },
}

impl<'a> Epilogue<'a> {
    fn shortcut(&self) -> Option<&'a Tensor> {
        match *self {
            Self::Identity | Self::Relu => None,
            Self::ReluScaleAdd { shortcut, .. } | Self::AddRelu { shortcut } => Some(shortcut),
        }
    }

    fn kind(&self) -> passes::Kind {
        match *self {
            Self::Identity => passes::Kind::Identity,
            Self::Relu => passes::Kind::Relu,
            Self::ReluScaleAdd { scale, .. } => passes::Kind::ReluScaleAdd { scale },
            Self::AddRelu { .. } => passes::Kind::AddRelu,
        }
    }
}

/// Batch normalisation by the statistics of this batch (Ioffe and Szegedy 2015), with its epilogue; running statistics, if
/// any are given, follow.
///
/// Differentiable with respect to `x`, `gamma`, `beta` and the epilogue's shortcut. Kept for the
/// backward pass are the inputs and two numbers per channel; no normalised copy: `gamma` and `beta` must not change in
/// between. The gradient of ReLU at 0 is 0.
///
/// # Shapes
/// `x` `[..., c]` · `gamma`, `beta` `[c]` · returns the shape of `x` and the [`BatchStatistics`]. All f32; on a GPU `x` and
/// the shortcut may be bf16, and the result is of their type.
///
/// # Errors
/// One value per channel, shapes that do not fit together, a negative `eps`, a momentum outside `0.0..=1.0`, another
/// element type or device.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running: Option<Running<'_>>,
    eps: f64,
    epilogue: Epilogue<'_>,
) -> Result<(Tensor, BatchStatistics)> {
    check(TRAIN, x, gamma, beta, eps, &epilogue)?;
    let channels = check_batch(x, gamma, running)?;
    let x = x.contiguous()?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let (mean, variance) = crate::cuda::batch_norm_statistics(TRAIN, &x, channels, running)?;
        let y = gpu_batch_norm(TRAIN, &x, [gamma, beta], [&mean, &variance], (eps, true), &epilogue)?;
        return Ok((y, BatchStatistics { mean, variance, count: x.elem_count() / channels }));
    }
    let moments = statistics::Moments::of(TRAIN, &x, channels)?;
    let batch = moments.to_statistics()?;
    running.map_or(Ok(()), |running| running.follow(&batch))?;
    let y = normalise(TRAIN, &x, gamma, beta, moments, (eps, Source::Batch), &epilogue)?;
    Ok((y, batch))
}

/// Channels of a batch that has statistics.
fn check_batch(x: &Tensor, gamma: &Tensor, running: Option<Running<'_>>) -> Result<usize> {
    let channels = gamma.elem_count();
    running.map_or(Ok(()), |running| running.check(TRAIN, channels))?;
    match x.elem_count() / channels.max(1) {
        0 | 1 => Err(KernelError::SingleValue { found: x.shape().clone() }.into()),
        _ => Ok(channels),
    }
}

/// `relu(bn(x))` of a dense batch on the CPU, without history: the op, its parameters as the graph has them, its result.
pub(crate) fn cpu_norm_relu(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running: Option<Running<'_>>,
    eps: f64,
) -> Result<(BatchNorm, Tensor, Tensor)> {
    check(TRAIN, x, gamma, beta, eps, &Epilogue::Relu)?;
    let channels = check_batch(x, gamma, running)?;
    let moments = statistics::Moments::of(TRAIN, x, channels)?;
    running.map_or(Ok(()), |running| running.follow(&moments.to_statistics()?))?;
    let op = BatchNorm::new(TRAIN, moments, eps, Source::Batch, passes::Kind::Relu);
    let parameters = pair(gamma, beta)?;
    let y = op.again(x, &parameters)?;
    Ok((op, parameters, y))
}

/// As [`cpu_norm_relu`], on a GPU.
#[cfg(feature = "cuda")]
pub(crate) fn gpu_norm_relu(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running: Option<Running<'_>>,
    eps: f64,
) -> Result<(crate::cuda::Normalisation, Tensor, Tensor)> {
    check(TRAIN, x, gamma, beta, eps, &Epilogue::Relu)?;
    let channels = check_batch(x, gamma, running)?;
    let (mean, variance) = crate::cuda::batch_norm_statistics(TRAIN, x, channels, running)?;
    let op = gpu_op(TRAIN, [gamma, beta], [&mean, &variance], (eps, true), passes::Kind::Relu)?;
    let parameters = crate::cuda::batch_norm_parameters(gamma, beta)?;
    let y = op.again(x, &parameters)?;
    Ok((op, parameters, y))
}

/// Batch normalisation by running statistics, with its epilogue.
///
/// Differentiable with respect to `x`, `gamma`, `beta` and the shortcut, so that a network can be
/// fine-tuned with frozen statistics.
///
/// # Shapes
/// `x` `[..., c]` · `gamma`, `beta`, `running_mean`, `running_variance` `[c]` · returns the shape of `x`, f32.
///
/// # Errors
/// Shapes that do not fit together, a negative `eps`, another element type or device.
pub fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    running_mean: &Tensor,
    running_variance: &Tensor,
    eps: f64,
    epilogue: Epilogue<'_>,
) -> Result<Tensor> {
    check(EVAL, x, gamma, beta, eps, &epilogue)?;
    let channels = [gamma.elem_count()];
    require_shape(EVAL, "running_mean", running_mean, &channels, "one value per channel")?;
    require_shape(EVAL, "running_variance", running_variance, &channels, "one value per channel")?;
    let x = x.contiguous()?;
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let statistics = [running_mean.contiguous()?.detach(), running_variance.contiguous()?.detach()];
        return gpu_batch_norm(EVAL, &x, [gamma, beta], statistics.each_ref(), (eps, false), &epilogue);
    }
    let moments = statistics::Moments::stored(EVAL, running_mean, running_variance)?;
    normalise(EVAL, &x, gamma, beta, moments, (eps, Source::Running), &epilogue)
}

fn check(op: &'static str, x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f64, epilogue: &Epilogue<'_>) -> Result<()> {
    require_float(op, "x", x)?;
    require_f32(op, "gamma", gamma)?;
    require_f32(op, "beta", beta)?;
    let Some(&channels) = x.dims().last() else {
        return Err(shape_error(op, "x", x, "[..., c]".into()));
    };
    require_shape(op, "gamma", gamma, &[channels], "one value per channel of x")?;
    require_shape(op, "beta", beta, &[channels], "one value per channel of x")?;
    if !(eps >= 0.0 && eps.is_finite()) {
        return Err(option_error(op, "eps", eps, "a finite number, at least 0"));
    }
    if let Some(shortcut) = epilogue.shortcut() {
        require(op, "shortcut", shortcut, x.dtype())?;
        require_shape(op, "shortcut", shortcut, x.dims(), "the shape of x")?;
    }
    Ok(())
}

#[cfg(feature = "cuda")]
fn gpu_batch_norm(
    name: &'static str,
    x: &Tensor,
    parameters: [&Tensor; 2],
    statistics: [&Tensor; 2],
    source: (f64, bool),
    epilogue: &Epilogue<'_>,
) -> Result<Tensor> {
    let shortcut = epilogue.shortcut().map(Tensor::contiguous).transpose()?;
    let op = gpu_op(name, parameters, statistics, source, epilogue.kind())?;
    crate::cuda::batch_norm(
        op,
        x,
        &crate::cuda::batch_norm_parameters(parameters[0], parameters[1])?,
        shortcut.as_ref(),
    )
}

#[cfg(feature = "cuda")]
fn gpu_op(
    name: &'static str,
    [gamma, beta]: [&Tensor; 2],
    [mean, variance]: [&Tensor; 2],
    (eps, is_of_batch): (f64, bool),
    kind: passes::Kind,
) -> Result<crate::cuda::Normalisation> {
    let (gamma, beta) = (gamma.detach().contiguous()?, beta.detach().contiguous()?);
    let (mean, variance) = (mean.clone(), variance.clone());
    Ok(crate::cuda::Normalisation { name, gamma, beta, mean, variance, eps, kind, is_of_batch })
}

fn normalise(
    name: &'static str,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    moments: statistics::Moments,
    (eps, source): (f64, Source),
    epilogue: &Epilogue<'_>,
) -> Result<Tensor> {
    let shortcut = epilogue.shortcut().map(Tensor::contiguous).transpose()?;
    let op = BatchNorm::new(name, moments, eps, source, epilogue.kind());
    op.apply(x, &pair(gamma, beta)?, shortcut.as_ref())
}

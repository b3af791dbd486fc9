//! Optimizer steps in place: one pass over each parameter and what belongs to it, no temporary tensors.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::in_place::write;
use crate::reduce::{CHUNK, SquareSum, change, vectorised};
use crate::storage::{option_error, require_f32, require_shape};

/// How past gradients enter a step of SGD.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Momentum {
    /// Not at all; the momentum buffer is left alone.
    None,
    /// `buffer = momentum · buffer + gradient`, step along the buffer (Polyak 1964).
    Heavy {
        /// Factor of the past, `0.0..1.0`.
        momentum: f64,
    },
    /// The same buffer, step along `gradient + momentum · buffer` (Sutskever et al. 2013, as PyTorch writes it).
    Nesterov {
        /// Factor of the past, `0.0..1.0`.
        momentum: f64,
    },
}

/// Numbers of one SGD step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// How past gradients enter.
    pub momentum: Momentum,
    /// Added to the gradient as `weight_decay · parameter` (not decoupled), as in PyTorch.
    pub weight_decay: f64,
}

/// Numbers of one AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled: the parameter shrinks by `lr · weight_decay`.
    pub weight_decay: f64,
    /// Number of this update for the bias correction, from 1.
    pub step: usize,
}

/// One parameter of a step of SGD over many.
#[derive(Debug, Clone, Copy)]
pub struct SgdParam<'a> {
    /// Moved in place.
    pub param: &'a Tensor,
    /// Its gradient.
    pub grad: &'a Tensor,
    /// What past gradients left behind; zeros at first.
    pub momentum_buffer: &'a Tensor,
    /// Learning rate.
    pub lr: f64,
    /// Added to the gradient as `weight_decay · parameter`.
    pub weight_decay: f64,
}

/// What gradients are multiplied by when they are applied: a factor, which a number is by itself, and less where their norm
/// is to be bounded.
#[derive(Debug, Clone, Copy)]
pub struct GradScale<'a> {
    /// Of every gradient.
    pub factor: f64,
    /// The bound.
    pub clip: Option<Clip<'a>>,
}

/// A bound of the Euclidean norm over all gradients (Pascanu et al. 2013), as PyTorch's `clip_grad_norm_`: above it they
/// are scaled by `max_norm / (norm + 1e-6)`.
#[derive(Debug, Clone, Copy)]
pub struct Clip<'a> {
    /// Sum of the squares of all gradients before any factor. A GPU's need not have come to the host.
    pub squares: &'a SquareSum,
    /// The bound, after the factor.
    pub max_norm: f64,
}

impl From<f64> for GradScale<'_> {
    fn from(factor: f64) -> Self {
        Self { factor, clip: None }
    }
}

impl GradScale<'_> {
    /// As it goes to a GPU: with a bound only where the host does not know the sum yet.
    #[cfg(feature = "cuda")]
    fn for_gpu(self) -> Result<Self> {
        match self.clip.is_some_and(|clip| clip.squares.known().is_some()) {
            true => Ok(self.number()?.into()),
            false => Ok(self),
        }
    }

    /// As one number, on the host.
    fn number(self) -> Result<f64> {
        let Some(Clip { squares, max_norm }) = self.clip else { return Ok(self.factor) };
        let clip = max_norm / (self.factor.abs() * squares.wait()?.sqrt() + 1e-6);
        Ok(if clip < 1.0 { self.factor * clip } else { self.factor })
    }
}

/// [`sgd_step`] on every parameter of a list, whose gradients are multiplied by `grad_scale` first; on a GPU in one launch.
///
/// # Errors
/// As [`sgd_step`]; parameters on different devices. Those before the one that is refused have moved on the CPU, none on
/// a GPU.
pub fn sgd_steps<'s>(params: &[SgdParam<'_>], momentum: Momentum, grad_scale: impl Into<GradScale<'s>>) -> Result<()> {
    let grad_scale = grad_scale.into();
    #[cfg(feature = "cuda")]
    if params.first().is_some_and(|first| first.param.device().is_cuda()) {
        return gpu::sgd_steps(params, momentum, grad_scale.for_gpu()?);
    }
    let scale = grad_scale.number()? as f32;
    params.iter().try_for_each(|param| sgd(param, momentum, scale))
}

/// One parameter of a step of AdamW over many.
#[derive(Debug, Clone, Copy)]
pub struct AdamWParam<'a> {
    /// Moved in place.
    pub param: &'a Tensor,
    /// Its gradient.
    pub grad: &'a Tensor,
    /// Mean of past gradients; zeros at first.
    pub first_moment: &'a Tensor,
    /// Mean of their squares; zeros at first.
    pub second_moment: &'a Tensor,
    /// Learning rate.
    pub lr: f64,
    /// Decoupled: the parameter shrinks by `lr · weight_decay`.
    pub weight_decay: f64,
}

/// What all parameters of a step of AdamW share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWRule {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Number of this update for the bias correction, from 1.
    pub step: usize,
}

/// [`adamw_step`] on every parameter of a list, whose gradients are multiplied by `grad_scale` first; on a GPU in one
/// launch.
///
/// # Errors
/// As [`adamw_step`]; parameters on different devices. Those before the one that is refused have moved on the CPU, none
/// on a GPU.
pub fn adamw_steps<'s>(params: &[AdamWParam<'_>], rule: AdamWRule, grad_scale: impl Into<GradScale<'s>>) -> Result<()> {
    let grad_scale = grad_scale.into();
    #[cfg(feature = "cuda")]
    if params.first().is_some_and(|first| first.param.device().is_cuda()) {
        return gpu::adamw_steps(params, rule, grad_scale.for_gpu()?);
    }
    let scale = grad_scale.number()? as f32;
    params.iter().try_for_each(|param| adamw(param, rule, scale))
}

/// [`ema_step`] on every pair of an average and its parameter; on a GPU in one launch.
///
/// # Errors
/// As [`ema_step`]; pairs on different devices.
pub fn ema_steps(pairs: &[(&Tensor, &Tensor)], decay: f64) -> Result<()> {
    #[cfg(feature = "cuda")]
    if pairs.first().is_some_and(|(average, _)| average.device().is_cuda()) {
        return gpu::ema_steps(pairs, decay);
    }
    pairs.iter().try_for_each(|(average, param)| ema_step(average, param, decay))
}

/// One step of stochastic gradient descent on one parameter, in place.
///
/// `momentum_buffer` starts as zeros and belongs to the optimizer's state.
///
/// # Shapes
/// All three tensors have one shape, f32; `param` and `momentum_buffer` are dense.
///
/// # Errors
/// Shapes, element types or devices that do not fit; an aliased or strided destination.
pub fn sgd_step(param: &Tensor, grad: &Tensor, momentum_buffer: &Tensor, step: SgdStep) -> Result<()> {
    let SgdStep { lr, momentum, weight_decay } = step;
    sgd_steps(&[SgdParam { param, grad, momentum_buffer, lr, weight_decay }], momentum, 1.0)
}

/// On the CPU.
fn sgd(own: &SgdParam<'_>, momentum: Momentum, scale: f32) -> Result<()> {
    const OP: &str = "sgd_step";
    let &SgdParam { param, grad, momentum_buffer, lr, weight_decay } = own;
    check(OP, param, &[("grad", grad), ("momentum_buffer", momentum_buffer)])?;
    let grad = grad.detach().contiguous()?;
    let (lr, decay) = (lr as f32, weight_decay as f32);
    let (factor, is_nesterov) = match momentum {
        Momentum::None => {
            return write(OP, [("param", param)], ("grad", &grad), |[params], grads| {
                change(params, grads, |param, grad| *param -= lr * (scale * grad + decay * *param));
            });
        }
        Momentum::Heavy { momentum } => (momentum as f32, false),
        Momentum::Nesterov { momentum } => (momentum as f32, true),
    };
    let targets = [("param", param), ("momentum_buffer", momentum_buffer)];
    write(OP, targets, ("grad", &grad), |[params, buffers], grads| {
        let chunks = params.par_chunks_mut(CHUNK).zip(buffers.par_chunks_mut(CHUNK)).zip(grads.par_chunks(CHUNK));
        chunks.for_each(|((params, buffers), grads)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((param, buffer), grad) in params.iter_mut().zip(buffers).zip(grads) {
                        let grad = scale * grad + decay * *param;
                        *buffer = factor * *buffer + grad;
                        *param -= lr * if is_nesterov { grad + factor * *buffer } else { *buffer };
                    }
                },
            );
        });
    })
}

/// One step of AdamW (Loshchilov and Hutter 2019) on one parameter, in place.
///
/// `first_moment` and `second_moment` start as zeros and belong to the optimizer's state.
///
/// # Shapes
/// All four tensors have one shape, f32; all but `grad` are dense.
///
/// # Errors
/// A step of 0; shapes, element types or devices that do not fit; an aliased or strided destination.
pub fn adamw_step(
    param: &Tensor,
    grad: &Tensor,
    first_moment: &Tensor,
    second_moment: &Tensor,
    step: AdamWStep,
) -> Result<()> {
    let AdamWStep { lr, beta1, beta2, eps, weight_decay, step } = step;
    let param = AdamWParam { param, grad, first_moment, second_moment, lr, weight_decay };
    adamw_steps(&[param], AdamWRule { beta1, beta2, eps, step }, 1.0)
}

/// On the CPU.
fn adamw(own: &AdamWParam<'_>, rule: AdamWRule, scale: f32) -> Result<()> {
    const OP: &str = "adamw_step";
    let &AdamWParam { param, grad, first_moment, second_moment, lr, weight_decay } = own;
    let moments = [("first_moment", first_moment), ("second_moment", second_moment)];
    check(OP, param, &[("grad", grad), moments[0], moments[1]])?;
    check_count(rule.step)?;
    let grad = grad.detach().contiguous()?;
    let AdamWRule { beta1, beta2, eps, step } = rule;
    let correction = |beta: f64| 1.0 - beta.powf(step as f64);
    let (rest1, keep2, rest2) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
    let (shrink, size) = ((1.0 - lr * weight_decay) as f32, (lr / correction(beta1)) as f32);
    let (root, eps) = (correction(beta2).sqrt() as f32, eps as f32);
    let targets = [("param", param), moments[0], moments[1]];
    write(OP, targets, ("grad", &grad), |[params, firsts, seconds], grads| {
        let moments = firsts.par_chunks_mut(CHUNK).zip(seconds.par_chunks_mut(CHUNK));
        let chunks = params.par_chunks_mut(CHUNK).zip(moments).zip(grads.par_chunks(CHUNK));
        chunks.for_each(|((params, (firsts, seconds)), grads)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((param, (first, second)), grad) in
                        params.iter_mut().zip(firsts.iter_mut().zip(seconds)).zip(grads)
                    {
                        let grad = scale * grad;
                        *first += rest1 * (grad - *first);
                        *second = keep2 * *second + rest2 * grad * grad;
                        *param = shrink * *param - size * (*first / (second.sqrt() / root + eps));
                    }
                },
            );
        });
    })
}

/// Moves an exponential moving average towards a parameter, in place:
/// `average = decay · average + (1 − decay) · param`.
///
/// # Shapes
/// Both tensors have one shape, f32; `average` is dense.
///
/// # Errors
/// `decay` outside `0.0..=1.0`; shapes, element types or devices that do not fit; an aliased or strided destination.
pub fn ema_step(average: &Tensor, param: &Tensor, decay: f64) -> Result<()> {
    const OP: &str = "ema_step";
    check_pair(average, param, decay)?;
    #[cfg(feature = "cuda")]
    if average.device().is_cuda() {
        return gpu::ema_steps(&[(average, param)], decay);
    }
    let (keep, rest) = (decay as f32, (1.0 - decay) as f32);
    let param = param.detach().contiguous()?;
    write(OP, [("average", average)], ("param", &param), |[averages], params| {
        change(averages, params, |average, param| *average = keep * *average + rest * param);
    })
}

fn check_count(step: usize) -> Result<()> {
    match step {
        0 => Err(option_error("adamw_step", "step", 0, "at least 1; the first update is step 1")),
        _ => Ok(()),
    }
}

fn check_pair(average: &Tensor, param: &Tensor, decay: f64) -> Result<()> {
    const OP: &str = "ema_step";
    require_f32(OP, "average", average)?;
    check(OP, average, &[("param", param)])?;
    if !(0.0..=1.0).contains(&decay) {
        return Err(option_error(OP, "decay", decay, "0.0..=1.0"));
    }
    Ok(())
}

fn check(op: &'static str, param: &Tensor, others: &[(&'static str, &Tensor)]) -> Result<()> {
    require_f32(op, "param", param)?;
    for (argument, other) in others {
        require_f32(op, argument, other)?;
        require_shape(op, argument, other, param.dims(), "the shape of the destination")?;
    }
    Ok(())
}

/// The steps over lists on a GPU: everything is checked, then one launch is queued.
#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Result, Tensor};

    use super::{AdamWParam, AdamWRule, GradScale, Momentum, SgdParam, check, check_count, check_pair, require_shape};
    use crate::cuda::{Lies, Move, adamw_all, ema_all, sgd_all};

    /// Gradients as the launch reads them: raw ones stay as they are.
    fn dense<'a>(gradients: impl Iterator<Item = &'a Tensor>) -> Result<Vec<Tensor>> {
        let dense = |gradient: &Tensor| match Lies::of(gradient) {
            Some(_) => Ok(gradient.detach()),
            None => gradient.detach().contiguous(),
        };
        gradients.map(dense).collect()
    }

    /// As [`check`], of a gradient that may be raw.
    fn check_gradient(op: &'static str, param: &Tensor, grad: &Tensor) -> Result<()> {
        if grad.dtype() == DType::BF16 {
            return require_shape(op, "grad", grad, param.dims(), "the shape of the destination");
        }
        check(op, param, &[("grad", grad)])
    }

    pub(super) fn sgd_steps(params: &[SgdParam<'_>], momentum: Momentum, grad_scale: GradScale<'_>) -> Result<()> {
        const OP: &str = "sgd_step";
        let grads = dense(params.iter().map(|param| param.grad))?;
        let mut moves = Vec::with_capacity(params.len());
        for (&SgdParam { param, grad: own, momentum_buffer, lr, weight_decay }, grad) in params.iter().zip(&grads) {
            check_gradient(OP, param, own)?;
            check(OP, param, &[("momentum_buffer", momentum_buffer)])?;
            let memory = [Some(momentum_buffer), None];
            moves.push(Move { param, grad, memory, lr: lr as f32, weight_decay: weight_decay as f32 });
        }
        sgd_all(OP, &moves, momentum, grad_scale)
    }

    pub(super) fn adamw_steps(params: &[AdamWParam<'_>], rule: AdamWRule, grad_scale: GradScale<'_>) -> Result<()> {
        const OP: &str = "adamw_step";
        check_count(rule.step)?;
        let grads = dense(params.iter().map(|param| param.grad))?;
        let mut moves = Vec::with_capacity(params.len());
        for (own, grad) in params.iter().zip(&grads) {
            let &AdamWParam { param, grad: given, first_moment, second_moment, lr, weight_decay } = own;
            let moments = [("first_moment", first_moment), ("second_moment", second_moment)];
            check_gradient(OP, param, given)?;
            check(OP, param, &moments)?;
            let memory = [Some(first_moment), Some(second_moment)];
            moves.push(Move { param, grad, memory, lr: lr as f32, weight_decay: weight_decay as f32 });
        }
        adamw_all(OP, &moves, rule, grad_scale)
    }

    pub(super) fn ema_steps(pairs: &[(&Tensor, &Tensor)], decay: f64) -> Result<()> {
        let params = dense(pairs.iter().map(|(_, param)| *param))?;
        let mut moves = Vec::with_capacity(pairs.len());
        for (&(average, own), param) in pairs.iter().zip(&params) {
            check_pair(average, own, decay)?;
            moves.push(Move { param: average, grad: param, memory: [None; 2], lr: 0.0, weight_decay: 0.0 });
        }
        ema_all("ema_step", &moves, decay)
    }
}

//! Optimizer steps in place: one or two passes over each parameter, no temporary tensors.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::reduce::Lanes;
use crate::storage::{option_error, require_f32, require_shape, slice, slice_mut};

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

/// [`sgd_step`] on every parameter of a list, whose gradients are multiplied by `grad_scale` first; on a GPU in one launch.
///
/// # Errors
/// As [`sgd_step`]; parameters on different devices. Those before the one that is refused have moved on the CPU, none on
/// a GPU.
pub fn sgd_steps(params: &[SgdParam<'_>], momentum: Momentum, grad_scale: f64) -> Result<()> {
    #[cfg(feature = "cuda")]
    if params.first().is_some_and(|first| first.param.device().is_cuda()) {
        return gpu::sgd_steps(params, momentum, grad_scale);
    }
    params.iter().try_for_each(|param| sgd(param, momentum, grad_scale as f32))
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
pub fn adamw_steps(params: &[AdamWParam<'_>], rule: AdamWRule, grad_scale: f64) -> Result<()> {
    #[cfg(feature = "cuda")]
    if params.first().is_some_and(|first| first.param.device().is_cuda()) {
        return gpu::adamw_steps(params, rule, grad_scale);
    }
    params.iter().try_for_each(|param| adamw(param, rule, grad_scale as f32))
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
    let accumulate = |momentum: f32| {
        let accumulate = move |buffer: &mut f32, grad: f32, param: f32| {
            *buffer = momentum * *buffer + (scale * grad + decay * param);
        };
        momentum_buffer.inplace_op3(&grad, param, &Update(OP, accumulate))
    };
    match momentum {
        Momentum::None => {
            let descend = move |param: &mut f32, grad: f32| *param -= lr * (scale * grad + decay * *param);
            param.inplace_op2(&grad, &Update(OP, descend))
        }
        Momentum::Heavy { momentum } => {
            accumulate(momentum as f32)?;
            let descend = move |param: &mut f32, buffer: f32| *param -= lr * buffer;
            param.inplace_op2(momentum_buffer, &Update(OP, descend))
        }
        Momentum::Nesterov { momentum } => {
            let momentum = momentum as f32;
            accumulate(momentum)?;
            let descend = move |param: &mut f32, grad: f32, buffer: f32| {
                *param -= lr * (scale * grad + decay * *param + momentum * buffer);
            };
            param.inplace_op3(&grad, momentum_buffer, &Update(OP, descend))
        }
    }
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
    let first = move |moment: &mut f32, grad: f32| *moment += rest1 * (scale * grad - *moment);
    let second = move |moment: &mut f32, grad: f32| {
        let grad = scale * grad;
        *moment = keep2 * *moment + rest2 * grad * grad;
    };
    first_moment.inplace_op2(&grad, &Update(OP, first))?;
    second_moment.inplace_op2(&grad, &Update(OP, second))?;
    let (shrink, size) = ((1.0 - lr * weight_decay) as f32, (lr / correction(beta1)) as f32);
    let (root, eps) = (correction(beta2).sqrt() as f32, eps as f32);
    let descend = move |param: &mut f32, first: f32, second: f32| {
        *param = shrink * *param - size * (first / (second.sqrt() / root + eps));
    };
    param.inplace_op3(first_moment, second_moment, &Update(OP, descend))
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
    let blend = move |average: &mut f32, param: f32| *average = keep * *average + rest * param;
    average.inplace_op2(&param.detach().contiguous()?, &Update(OP, blend))
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

/// Applies a function to each element of the destination and its partners.
struct Update<F>(&'static str, F);

impl<F: Fn(&mut f32, f32) + Sync> InplaceOp2 for Update<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> Result<()> {
        let target = slice_mut(self.0, "destination", target, target_layout)?;
        let source = slice(self.0, "source", source, source_layout)?;
        let chunk = Lanes::new(1).chunk();
        target.par_chunks_mut(chunk).zip(source.par_chunks(chunk)).for_each(|(target, source)| {
            target.iter_mut().zip(source).for_each(|(target, &source)| (self.1)(target, source));
        });
        Ok(())
    }
}

impl<F: Fn(&mut f32, f32, f32) + Sync> InplaceOp3 for Update<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let target = slice_mut(self.0, "destination", target, target_layout)?;
        let first = slice(self.0, "source", first, first_layout)?;
        let second = slice(self.0, "source", second, second_layout)?;
        let chunk = Lanes::new(1).chunk();
        let sources = first.par_chunks(chunk).zip(second.par_chunks(chunk));
        target.par_chunks_mut(chunk).zip(sources).for_each(|(target, (first, second))| {
            for ((target, &first), &second) in target.iter_mut().zip(first).zip(second) {
                (self.1)(target, first, second);
            }
        });
        Ok(())
    }
}

/// The steps over lists on a GPU: everything is checked, then one launch is queued.
#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{Result, Tensor};

    use super::{AdamWParam, AdamWRule, Momentum, SgdParam, check, check_count, check_pair};
    use crate::cuda::{Move, adamw_all, ema_all, sgd_all};

    /// Gradients come as they lie; the launch reads them in one piece.
    fn dense<'a>(gradients: impl Iterator<Item = &'a Tensor>) -> Result<Vec<Tensor>> {
        gradients.map(|gradient| gradient.detach().contiguous()).collect()
    }

    pub(super) fn sgd_steps(params: &[SgdParam<'_>], momentum: Momentum, grad_scale: f64) -> Result<()> {
        const OP: &str = "sgd_step";
        let grads = dense(params.iter().map(|param| param.grad))?;
        let mut moves = Vec::with_capacity(params.len());
        for (&SgdParam { param, grad: own, momentum_buffer, lr, weight_decay }, grad) in params.iter().zip(&grads) {
            check(OP, param, &[("grad", own), ("momentum_buffer", momentum_buffer)])?;
            let memory = [Some(momentum_buffer), None];
            moves.push(Move { param, grad, memory, lr: lr as f32, weight_decay: weight_decay as f32 });
        }
        sgd_all(OP, &moves, momentum, grad_scale)
    }

    pub(super) fn adamw_steps(params: &[AdamWParam<'_>], rule: AdamWRule, grad_scale: f64) -> Result<()> {
        const OP: &str = "adamw_step";
        check_count(rule.step)?;
        let grads = dense(params.iter().map(|param| param.grad))?;
        let mut moves = Vec::with_capacity(params.len());
        for (own, grad) in params.iter().zip(&grads) {
            let &AdamWParam { param, grad: given, first_moment, second_moment, lr, weight_decay } = own;
            let moments = [("first_moment", first_moment), ("second_moment", second_moment)];
            check(OP, param, &[("grad", given), moments[0], moments[1]])?;
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

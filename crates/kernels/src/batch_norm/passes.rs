//! The loops over memory of batch normalisation, on plain slices.
//!
//! A loop does not run channel by channel but over groups of pixels that fill vector registers
//! whatever the number of channels; per-channel numbers are repeated to the length of a group.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::build::{build_unset, nth_chunk};
use crate::reduce::{Lanes, add_in_order, ask_ahead, combine, vectorised};

/// The epilogue without its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Identity,
    Relu,
    ReluScaleAdd { scale: f32 },
    AddRelu,
}

/// The normalisation of each channel as `(x − mean) · slope + beta`, repeated per group of pixels.
///
/// The mean is subtracted first: folding it into the offset would lose digits where the mean is
/// large beside the spread.
#[derive(Debug, Clone)]
pub(super) struct Affine {
    pub(super) lanes: Lanes,
    mean: Vec<f32>,
    slope: Vec<f32>,
    beta: Vec<f32>,
}

impl Affine {
    /// From one value per channel each.
    pub(super) fn new(mean: &[f32], slope: &[f32], beta: &[f32]) -> Self {
        let lanes = Lanes::new(mean.len());
        Self { lanes, mean: lanes.repeat(mean), slope: lanes.repeat(slope), beta: lanes.repeat(beta) }
    }
}

#[inline(always)]
fn relu(value: f32) -> f32 {
    // Written so that NaN passes through, as in PyTorch.
    if value < 0.0 { 0.0 } else { value }
}

/// `epilogue(affine(x), shortcut)`; `shortcut` is empty for kinds without one.
pub(super) fn apply(x: &[f32], shortcut: &[f32], affine: &Affine, kind: Kind) -> Vec<f32> {
    match kind {
        Kind::Identity => map(x, x, affine, |value, _| value),
        Kind::Relu => map(x, x, affine, |value, _| relu(value)),
        Kind::ReluScaleAdd { scale } => map(x, shortcut, affine, |value, shortcut| scale * relu(value) + shortcut),
        Kind::AddRelu => map(x, shortcut, affine, |value, shortcut| relu(value + shortcut)),
    }
}

/// `finish(affine(x), other)` for every element.
fn map(x: &[f32], other: &[f32], affine: &Affine, finish: impl Fn(f32, f32) -> f32 + Copy + Sync) -> Vec<f32> {
    let (chunk, group) = (affine.lanes.chunk(), affine.lanes.group());
    // SAFETY: the loops write every element of `y`: the inputs are as long, and the parameters as long as a group.
    unsafe {
        build_unset(x.len(), chunk, |index, y| {
            let (x, other) = (nth_chunk(x, chunk, index), nth_chunk(other, chunk, index));
            vectorised(
                #[inline(always)]
                || {
                    let inputs = x.chunks(group).zip(other.chunks(group));
                    for (y, (x, other)) in y.chunks_mut(group).zip(inputs) {
                        ask_ahead(y);
                        ask_for_inputs([x, other]);
                        let parameters = affine.mean.iter().zip(&affine.slope).zip(&affine.beta);
                        for (((y, x), other), ((mean, slope), beta)) in y.iter_mut().zip(x).zip(other).zip(parameters) {
                            y.write(finish((x - mean) * slope + beta, *other));
                        }
                    }
                },
            );
        })
    }
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) x: &'a [f32],
    pub(super) y: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) affine: &'a Affine,
    pub(super) kind: Kind,
}

/// First pass: per channel `Σ g` and `Σ g · (x − mean)`, with `g` the gradient after the epilogue.
pub(super) fn gradient_sums(saved: Saved<'_>) -> (Vec<f64>, Vec<f64>) {
    match saved.kind {
        Kind::Identity => sums(saved, saved.x, |_, _, dy| dy),
        Kind::Relu => sums(saved, saved.x, |normalised, _, dy| keep(normalised, dy)),
        Kind::ReluScaleAdd { scale } => sums(saved, saved.x, |normalised, _, dy| keep(normalised, scale * dy)),
        Kind::AddRelu => sums(saved, saved.y, |_, y, dy| keep(y, dy)),
    }
}

/// Second pass: `dx = slope · (g − offset − (x − mean) · tilt)`; one offset and tilt per channel.
pub(super) fn input_gradient(saved: Saved<'_>, offset: &[f32], tilt: &[f32]) -> Vec<f32> {
    let lanes = saved.affine.lanes;
    let tilt = (&lanes.repeat(offset)[..], &lanes.repeat(tilt)[..]);
    match saved.kind {
        Kind::Identity => gradient(saved, saved.x, tilt, |_, _, dy| dy),
        Kind::Relu => gradient(saved, saved.x, tilt, |normalised, _, dy| keep(normalised, dy)),
        Kind::ReluScaleAdd { scale } => {
            gradient(saved, saved.x, tilt, |normalised, _, dy| keep(normalised, scale * dy))
        }
        Kind::AddRelu => gradient(saved, saved.y, tilt, |_, y, dy| keep(y, dy)),
    }
}

/// The gradient of ReLU: nothing at 0.
#[inline(always)]
fn keep(gate: f32, gradient: f32) -> f32 {
    if gate > 0.0 { gradient } else { 0.0 }
}

fn sums(saved: Saved<'_>, y: &[f32], through: impl Fn(f32, f32, f32) -> f32 + Copy + Sync) -> (Vec<f64>, Vec<f64>) {
    let lanes = saved.affine.lanes;
    let inputs = saved.x.par_chunks(lanes.chunk()).zip(y.par_chunks(lanes.chunk()));
    let partials: Vec<(Vec<f64>, Vec<f64>)> = inputs
        .zip(saved.dy.par_chunks(lanes.chunk()))
        .map(|((x, y), dy)| {
            let (mut sum, mut product) = (vec![0.0f32; lanes.group()], vec![0.0f32; lanes.group()]);
            vectorised(
                #[inline(always)]
                || chunk_sums([x, y, dy], saved.affine, through, [&mut sum, &mut product]),
            );
            (lanes.fold(&sum), lanes.fold(&product))
        })
        .collect();
    let (sums, products): (Vec<_>, Vec<_>) = partials.into_iter().unzip();
    (add_in_order(&sums, lanes.channels()), add_in_order(&products, lanes.channels()))
}

#[inline(always)]
fn chunk_sums(
    [x, y, dy]: [&[f32]; 3],
    affine: &Affine,
    through: impl Fn(f32, f32, f32) -> f32,
    [sum, product]: [&mut [f32]; 2],
) {
    let group = affine.lanes.group();
    for ((x, y), dy) in x.chunks(group).zip(y.chunks(group)).zip(dy.chunks(group)) {
        ask_for_inputs([x, y, dy]);
        let parameters = affine.mean.iter().zip(&affine.slope).zip(&affine.beta);
        let totals = sum.iter_mut().zip(product.iter_mut());
        let values = x.iter().zip(y).zip(dy);
        for ((((x, y), dy), ((mean, slope), beta)), (sum, product)) in values.zip(parameters).zip(totals) {
            let centred = x - mean;
            let gradient = through(centred * slope + beta, *y, *dy);
            *sum += gradient;
            *product += gradient * centred;
        }
    }
}

fn gradient(
    saved: Saved<'_>,
    y: &[f32],
    tilt: (&[f32], &[f32]),
    through: impl Fn(f32, f32, f32) -> f32 + Copy + Sync,
) -> Vec<f32> {
    let chunk = saved.affine.lanes.chunk();
    // SAFETY: `chunk_gradient` writes every element of `dx`.
    unsafe {
        build_unset(saved.x.len(), chunk, |index, dx| {
            let inputs = [saved.x, y, saved.dy].map(|values| nth_chunk(values, chunk, index));
            vectorised(
                #[inline(always)]
                || chunk_gradient(dx, inputs, saved.affine, tilt, through),
            );
        })
    }
}

/// Writes all of `dx`: the inputs are as long, and the parameters as long as a group.
#[inline(always)]
fn chunk_gradient(
    dx: &mut [MaybeUninit<f32>],
    [x, y, dy]: [&[f32]; 3],
    affine: &Affine,
    (offset, tilt): (&[f32], &[f32]),
    through: impl Fn(f32, f32, f32) -> f32,
) {
    let group = affine.lanes.group();
    let inputs = x.chunks(group).zip(y.chunks(group)).zip(dy.chunks(group));
    for (dx, ((x, y), dy)) in dx.chunks_mut(group).zip(inputs) {
        ask_ahead(dx);
        ask_for_inputs([x, y, dy]);
        let parameters = affine.mean.iter().zip(&affine.slope).zip(&affine.beta);
        let parameters = parameters.zip(offset.iter().zip(tilt));
        let values = dx.iter_mut().zip(x).zip(y).zip(dy);
        for ((((dx, x), y), dy), (((mean, slope), beta), (offset, tilt))) in values.zip(parameters) {
            let centred = x - mean;
            let gradient = through(centred * slope + beta, *y, *dy);
            dx.write(slope * (gradient - offset - centred * tilt));
        }
    }
}

/// Asks for later values of the inputs of a loop. Where a kind takes fewer, the second one stands for the first.
#[inline(always)]
fn ask_for_inputs<const N: usize>(inputs: [&[f32]; N]) {
    for (index, input) in inputs.into_iter().enumerate() {
        if index != 1 || !std::ptr::eq(input, inputs[0]) {
            ask_ahead(input);
        }
    }
}

/// Gradient of the shortcut under [`Kind::AddRelu`]: `dy` where the output is positive.
pub(super) fn masked(y: &[f32], dy: &[f32]) -> Vec<f32> {
    combine(y, dy, keep)
}

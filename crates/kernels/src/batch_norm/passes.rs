//! The loops over memory of batch normalisation, on plain slices.

use rayon::prelude::*;

use crate::reduce::{add_in_order, chunk_rows};

/// The epilogue without its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Identity,
    Relu,
    ReluScaleAdd { scale: f32 },
    AddRelu,
}

/// The normalisation of one channel as `(x − mean) · slope + beta`.
///
/// The mean is subtracted first: folding it into the offset would lose digits where the mean is
/// large beside the spread.
#[derive(Debug, Clone, Default)]
pub(super) struct Affine {
    pub(super) mean: Vec<f32>,
    pub(super) slope: Vec<f32>,
    pub(super) beta: Vec<f32>,
}

impl Affine {
    #[inline(always)]
    fn at(&self, channel: usize, value: f32) -> f32 {
        (value - self.mean[channel]) * self.slope[channel] + self.beta[channel]
    }
}

/// Sum over rows of `map(channel, value)`, per channel.
pub(super) fn sum_rows(rows: &[f32], channels: usize, map: impl Fn(usize, f32) -> f32) -> Vec<f64> {
    let mut sums = vec![0.0f64; channels];
    for row in rows.chunks_exact(channels) {
        for (channel, (sum, &value)) in sums.iter_mut().zip(row).enumerate() {
            *sum += f64::from(map(channel, value));
        }
    }
    sums
}

/// `epilogue(affine(x), shortcut)`; `shortcut` is empty for kinds without one.
pub(super) fn apply(x: &[f32], shortcut: &[f32], affine: &Affine, kind: Kind) -> Vec<f32> {
    let channels = affine.mean.len();
    let mut y = vec![0.0; x.len()];
    let chunk = chunk_rows(channels) * channels;
    y.par_chunks_mut(chunk).enumerate().for_each(|(index, y)| {
        let range = index * chunk..index * chunk + y.len();
        let x = &x[range.clone()];
        let shortcut = shortcut.get(range).unwrap_or(&[]);
        match kind {
            Kind::Identity => map_rows(y, x, x, channels, |c, x, _| affine.at(c, x)),
            Kind::Relu => map_rows(y, x, x, channels, |c, x, _| relu(affine.at(c, x))),
            Kind::ReluScaleAdd { scale } => {
                map_rows(y, x, shortcut, channels, |c, x, s| scale * relu(affine.at(c, x)) + s);
            }
            Kind::AddRelu => map_rows(y, x, shortcut, channels, |c, x, s| relu(affine.at(c, x) + s)),
        }
    });
    y
}

#[inline(always)]
fn relu(value: f32) -> f32 {
    // Written so that NaN passes through, as in PyTorch.
    if value < 0.0 { 0.0 } else { value }
}

fn map_rows(y: &mut [f32], x: &[f32], other: &[f32], channels: usize, map: impl Fn(usize, f32, f32) -> f32) {
    let rows = x.chunks_exact(channels).zip(other.chunks_exact(channels));
    for (y, (x, other)) in y.chunks_exact_mut(channels).zip(rows) {
        for channel in 0..channels {
            y[channel] = map(channel, x[channel], other[channel]);
        }
    }
}

/// Gradient that reaches the normalised value: the epilogue undone.
#[inline(always)]
fn through_epilogue(kind: Kind, normalised: f32, y: f32, dy: f32) -> f32 {
    match kind {
        Kind::Identity => dy,
        Kind::Relu if normalised > 0.0 => dy,
        Kind::ReluScaleAdd { scale } if normalised > 0.0 => scale * dy,
        Kind::AddRelu if y > 0.0 => dy,
        _ => 0.0,
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
    let channels = saved.affine.mean.len();
    let chunk = chunk_rows(channels) * channels;
    let partials: Vec<(Vec<f64>, Vec<f64>)> = (0..saved.x.len().div_ceil(chunk))
        .into_par_iter()
        .map(|index| {
            let range = index * chunk..((index + 1) * chunk).min(saved.x.len());
            chunk_sums(saved, range, channels)
        })
        .collect();
    let (sums, products): (Vec<_>, Vec<_>) = partials.into_iter().unzip();
    (add_in_order(&sums, channels), add_in_order(&products, channels))
}

fn chunk_sums(saved: Saved<'_>, range: std::ops::Range<usize>, channels: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut products) = (vec![0.0f64; channels], vec![0.0f64; channels]);
    for start in range.step_by(channels) {
        for channel in 0..channels {
            let index = start + channel;
            let x = saved.x[index];
            let normalised = saved.affine.at(channel, x);
            let gradient = through_epilogue(saved.kind, normalised, saved.y[index], saved.dy[index]);
            sums[channel] += f64::from(gradient);
            products[channel] += f64::from(gradient * (x - saved.affine.mean[channel]));
        }
    }
    (sums, products)
}

/// Second pass: `dx = slope · (g − offset − (x − mean) · tilt)`, per channel.
pub(super) fn input_gradient(saved: Saved<'_>, offset: &[f32], tilt: &[f32]) -> Vec<f32> {
    let channels = saved.affine.mean.len();
    let chunk = chunk_rows(channels) * channels;
    let mut dx = vec![0.0; saved.x.len()];
    dx.par_chunks_mut(chunk).enumerate().for_each(|(index, dx)| {
        for (row, dx) in dx.chunks_exact_mut(channels).enumerate() {
            let start = index * chunk + row * channels;
            for (channel, dx) in dx.iter_mut().enumerate() {
                let index = start + channel;
                let x = saved.x[index];
                let normalised = saved.affine.at(channel, x);
                let gradient = through_epilogue(saved.kind, normalised, saved.y[index], saved.dy[index]);
                let centred = x - saved.affine.mean[channel];
                *dx = saved.affine.slope[channel] * (gradient - offset[channel] - centred * tilt[channel]);
            }
        }
    });
    dx
}

/// Gradient of the shortcut under [`Kind::AddRelu`]: `dy` where the output is positive.
pub(super) fn masked(y: &[f32], dy: &[f32]) -> Vec<f32> {
    let mut gradient = vec![0.0; y.len()];
    let chunk = chunk_rows(1);
    gradient.par_chunks_mut(chunk).enumerate().for_each(|(index, gradient)| {
        let range = index * chunk..index * chunk + gradient.len();
        for ((gradient, &y), &dy) in gradient.iter_mut().zip(&y[range.clone()]).zip(&dy[range]) {
            *gradient = if y > 0.0 { dy } else { 0.0 };
        }
    });
    gradient
}

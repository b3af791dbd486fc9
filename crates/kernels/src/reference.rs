//! Plain f64 versions of the ops: slow, obvious, and what the fast ones are tested against.
//!
//! Forward passes only; a gradient is checked against finite differences of these. Not meant for
//! training: nothing here is fast, and shapes are trusted.

use crate::geometry::{ConvGeometry, Padding, PoolGeometry};

/// A dense array of f64, last axis innermost.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Size of each axis.
    pub shape: Vec<usize>,
    /// Elements in order.
    pub values: Vec<f64>,
}

impl Array {
    /// An array filled by a function of the position.
    pub fn from_fn(shape: &[usize], mut value: impl FnMut(&[usize]) -> f64) -> Self {
        let count = shape.iter().product();
        let mut position = vec![0; shape.len()];
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(value(&position));
            for axis in (0..shape.len()).rev() {
                position[axis] += 1;
                if position[axis] < shape[axis] {
                    break;
                }
                position[axis] = 0;
            }
        }
        Self { shape: shape.to_vec(), values }
    }

    /// The element at a position.
    pub fn at(&self, position: &[usize]) -> f64 {
        let offset = position.iter().zip(&self.shape).fold(0, |offset, (index, size)| offset * size + index);
        self.values[offset]
    }
}

/// Position under a tap, if it lies in the image.
fn source(window: usize, stride: usize, tap: usize, padding: usize, size: usize) -> Option<usize> {
    (window * stride + tap).checked_sub(padding).filter(|&position| position < size)
}

/// `x` `[n, h, w, c_in]` ∗ `w` `[c_out, c_in / groups, kh, kw]` + `bias` `[c_out]`.
pub fn conv2d(x: &Array, w: &Array, bias: Option<&Array>, geometry: &ConvGeometry) -> Array {
    let ConvGeometry { stride, padding, dilation, groups } = *geometry;
    let (c_out, c_group) = (w.shape[0], w.shape[1]);
    let output = |axis: usize| {
        let span = dilation[axis] * (w.shape[2 + axis] - 1) + 1;
        (x.shape[1 + axis] + 2 * padding[axis] - span) / stride[axis] + 1
    };
    Array::from_fn(&[x.shape[0], output(0), output(1), c_out], |at| {
        let group = at[3] / (c_out / groups);
        let mut sum = bias.map_or(0.0, |bias| bias.at(&[at[3]]));
        for ky in 0..w.shape[2] {
            for kx in 0..w.shape[3] {
                let y = source(at[1], stride[0], ky * dilation[0], padding[0], x.shape[1]);
                let column = source(at[2], stride[1], kx * dilation[1], padding[1], x.shape[2]);
                let Some((y, column)) = y.zip(column) else { continue };
                for i in 0..c_group {
                    sum += x.at(&[at[0], y, column, group * c_group + i]) * w.at(&[at[3], i, ky, kx]);
                }
            }
        }
        sum
    })
}

/// What follows the normalisation; the shortcut comes as an array.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// `bn(x)`.
    Identity,
    /// `relu(bn(x))`.
    Relu,
    /// `scale · relu(bn(x)) + shortcut`.
    ReluScaleAdd(f64, &'a Array),
    /// `relu(bn(x) + shortcut)`.
    AddRelu(&'a Array),
}

/// Mean and biased variance of each channel of `x` `[..., c]`.
pub fn channel_moments(x: &Array) -> (Array, Array) {
    let channels = x.shape[x.shape.len() - 1];
    let count = (x.values.len() / channels) as f64;
    let moment = |power: &dyn Fn(usize, f64) -> f64| {
        let values = |channel: usize| x.values.iter().skip(channel).step_by(channels);
        Array::from_fn(&[channels], |at| values(at[0]).map(|&value| power(at[0], value)).sum::<f64>() / count)
    };
    let mean = moment(&|_, value| value);
    let variance = moment(&|channel, value| (value - mean.values[channel]).powi(2));
    (mean, variance)
}

/// Normalises `x` `[..., c]` by the given moments, then applies scale, offset and epilogue.
pub fn batch_norm(
    x: &Array,
    gamma: &Array,
    beta: &Array,
    (mean, variance): (&Array, &Array),
    eps: f64,
    epilogue: Epilogue<'_>,
) -> Array {
    let channels = gamma.values.len();
    let finish = |(index, &value): (usize, &f64)| {
        let channel = index % channels;
        let inverse_std = 1.0 / (variance.values[channel] + eps).sqrt();
        let normalised = (value - mean.values[channel]) * inverse_std * gamma.values[channel] + beta.values[channel];
        match epilogue {
            Epilogue::Identity => normalised,
            Epilogue::Relu => normalised.max(0.0),
            Epilogue::ReluScaleAdd(scale, shortcut) => scale * normalised.max(0.0) + shortcut.values[index],
            Epilogue::AddRelu(shortcut) => (normalised + shortcut.values[index]).max(0.0),
        }
    };
    Array { shape: x.shape.clone(), values: x.values.iter().enumerate().map(finish).collect() }
}

/// Values under each window, then `finish(values, pixels of the window within image and padding)`.
fn pool(x: &Array, geometry: &PoolGeometry, finish: impl Fn(&[f64], usize) -> f64) -> Array {
    let output = |axis: usize| geometry.windows(axis, x.shape[1 + axis]).unwrap_or(0);
    Array::from_fn(&[x.shape[0], output(0), output(1), x.shape[3]], |at| {
        let (mut values, mut pixels) = (Vec::new(), 0);
        for ky in 0..geometry.kernel[0] {
            for kx in 0..geometry.kernel[1] {
                let inside = |axis: usize, tap: usize| {
                    at[1 + axis] * geometry.stride[axis] + tap < x.shape[1 + axis] + 2 * geometry.padding[axis]
                };
                pixels += usize::from(inside(0, ky) && inside(1, kx));
                let y = source(at[1], geometry.stride[0], ky, geometry.padding[0], x.shape[1]);
                let column = source(at[2], geometry.stride[1], kx, geometry.padding[1], x.shape[2]);
                if let Some((y, column)) = y.zip(column) {
                    values.push(x.at(&[at[0], y, column, at[3]]));
                }
            }
        }
        finish(&values, pixels)
    })
}

/// The largest value under each window of `x` `[n, h, w, c]`.
pub fn max_pool2d(x: &Array, geometry: &PoolGeometry) -> Array {
    pool(x, geometry, |values, _| values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// The mean under each window of `x` `[n, h, w, c]`.
pub fn avg_pool2d(x: &Array, geometry: &PoolGeometry, padding: Padding) -> Array {
    pool(x, geometry, |values, pixels| {
        let divisor = match padding {
            Padding::Counted => pixels,
            Padding::NotCounted => values.len(),
        };
        values.iter().sum::<f64>() / divisor as f64
    })
}

/// The mean of each channel of `x` `[n, h, w, c]`.
pub fn global_avg_pool(x: &Array) -> Array {
    let kernel = [x.shape[1], x.shape[2]];
    let geometry = PoolGeometry { kernel, stride: kernel, ..PoolGeometry::square(1) };
    let mean = avg_pool2d(x, &geometry, Padding::Counted);
    Array { shape: vec![x.shape[0], x.shape[3]], values: mean.values }
}

/// `x` `[n, k]` · `w` `[out, k]` transposed + `bias` `[out]`.
pub fn linear(x: &Array, w: &Array, bias: Option<&Array>) -> Array {
    Array::from_fn(&[x.shape[0], w.shape[0]], |at| {
        let products = (0..x.shape[1]).map(|inner| x.at(&[at[0], inner]) * w.at(&[at[1], inner]));
        products.sum::<f64>() + bias.map_or(0.0, |bias| bias.at(&[at[1]]))
    })
}

/// `max(x, 0)`.
pub fn relu(x: &Array) -> Array {
    Array { shape: x.shape.clone(), values: x.values.iter().map(|value| value.max(0.0)).collect() }
}

/// `x` `[n, h, w, c]` flattened in C, H, W order.
pub fn flatten_chw(x: &Array) -> Array {
    let [height, width, channels] = [x.shape[1], x.shape[2], x.shape[3]];
    Array::from_fn(&[x.shape[0], channels * height * width], |at| {
        let (channel, pixel) = (at[1] / (height * width), at[1] % (height * width));
        x.at(&[at[0], pixel / width, pixel % width, channel])
    })
}

/// Mean over rows of `−Σ target · log softmax(logits)`; both `[n, num_classes]`.
pub fn cross_entropy_soft(logits: &Array, targets: &Array) -> Array {
    let num_classes = logits.shape[1];
    let rows = logits.values.chunks_exact(num_classes).zip(targets.values.chunks_exact(num_classes));
    let total: f64 = rows
        .map(|(logits, targets)| {
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let normaliser = largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
            logits.iter().zip(targets).map(|(logit, target)| target * (normaliser - logit)).sum::<f64>()
        })
        .sum();
    Array { shape: vec![], values: vec![total / logits.shape[0] as f64] }
}

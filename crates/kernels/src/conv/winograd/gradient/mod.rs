//! The gradient of the weights: sums over tiles, for each point, of transformed inputs times transformed gradients.

mod points;
mod runs;

use rayon::prelude::*;

use crate::conv::shape::ConvShape;
use crate::conv::whole_vectors;

/// Channels up to which a run of tiles is taken through everything at once: the sums of 36 points then stay in the cache.
const FEW_CHANNELS: usize = 64;

/// Gradient of the weights, OIHW. How the sums are cut depends on the shape alone.
pub(in crate::conv) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    match shape.c_in.max(shape.c_out) <= FEW_CHANNELS {
        true => to_parameter(&runs::weight_gradient(x, dy, shape), shape),
        false => points::weight_gradient(x, dy, shape),
    }
}

/// Output channels of a row of sums.
fn padded(shape: &ConvShape) -> usize {
    whole_vectors(shape.c_out)
}

/// From `[c_in, 9, c_out]` to OIHW.
fn to_parameter(values: &[f32], shape: &ConvShape) -> Vec<f32> {
    let (c_in, taps, padded) = (shape.c_in, shape.taps(), padded(shape));
    let mut dw = vec![0.0; shape.c_out * c_in * taps];
    // Few output channels at a time, so that what is read of a row is used before it leaves the cache.
    dw.par_chunks_mut(16 * c_in * taps).enumerate().for_each(|(group, dw)| {
        for (row, values) in values.chunks_exact(padded).enumerate() {
            let targets = dw[row..].iter_mut().step_by(c_in * taps);
            targets.zip(&values[group * 16..]).for_each(|(target, value)| *target = *value);
        }
    });
    dw
}

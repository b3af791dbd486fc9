//! Convolution of any geometry: windows of a tile of pixels gathered into a matrix, then one product.
//!
//! A tile is a few hundred pixels, so that its matrix stays in the second-level cache; the whole
//! input is never unfolded.

use std::ops::Range;

use rayon::prelude::*;

use super::shape::ConvShape;
use super::weights;
use crate::build::build;
use crate::matrix::{Matrix, Write, multiply};
use crate::scratch::with_buffer;

/// Elements of a tile's matrix: 256 KiB, a quarter of a common second-level cache.
const TILE_ELEMENTS: usize = 64 * 1024;

/// Images are dealt to this many partial weight gradients at most, whatever the number of threads.
const MAX_PARTIALS: usize = 16;

/// Elements of all partial weight gradients together, about: 64 MiB.
const PARTIAL_ELEMENTS: usize = 16 * 1024 * 1024;

/// Output pixels per tile; depends on the shape alone.
fn tile_pixels(shape: &ConvShape) -> usize {
    (TILE_ELEMENTS / shape.depth().max(1)).clamp(32, 512)
}

/// `y = x ∗ w + bias`, per tile of every image.
pub(crate) fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    let packed = weights::pack(w, shape);
    let (pixels, tile) = (shape.output_pixels(), tile_pixels(shape));
    let image_len = shape.input_pixels() * shape.c_in;
    build(shape.images * pixels * shape.c_out, pixels * shape.c_out, |index, y_image| {
        let image = &x[index * image_len..][..image_len];
        y_image.par_chunks_mut(tile * shape.c_out).enumerate().for_each(|(number, y_tile)| {
            let start = number * tile;
            let range = start..(start + tile).min(pixels);
            forward_tile(image, &packed, bias, shape, range, y_tile);
        });
    })
}

fn forward_tile(
    image: &[f32],
    packed: &[f32],
    bias: Option<&[f32]>,
    shape: &ConvShape,
    range: Range<usize>,
    y_tile: &mut [f32],
) {
    let write = match bias {
        Some(bias) => {
            y_tile.chunks_exact_mut(shape.c_out).for_each(|pixel| pixel.copy_from_slice(bias));
            Write::Add
        }
        None => Write::Replace,
    };
    let (depth, c_out) = (shape.depth(), shape.group_out());
    for group in 0..shape.geometry.groups {
        let right = Matrix::rows(&packed[group * depth * c_out..][..depth * c_out], c_out);
        with_windows(image, shape, group, range.clone(), |windows| {
            let size = [range.len(), c_out, depth];
            multiply(size, &mut y_tile[group * c_out..], shape.c_out, write, windows, right);
        });
    }
}

/// Gradient of the input: the product of gradient and weights, scattered back within each image.
pub(crate) fn input_gradient(dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    let packed = weights::pack(w, shape);
    let image_len = shape.input_pixels() * shape.c_in;
    let dy_len = shape.output_pixels() * shape.c_out;
    build(shape.images * image_len, image_len, |index, dx_image| {
        let dy_image = &dy[index * dy_len..][..dy_len];
        input_gradient_image(dy_image, &packed, shape, dx_image);
    })
}

fn input_gradient_image(dy: &[f32], packed: &[f32], shape: &ConvShape, dx: &mut [f32]) {
    let (depth, c_out, pixels) = (shape.depth(), shape.group_out(), shape.output_pixels());
    let tile = tile_pixels(shape);
    for group in 0..shape.geometry.groups {
        let weights = Matrix::rows(&packed[group * depth * c_out..][..depth * c_out], c_out);
        for start in (0..pixels).step_by(tile) {
            let range = start..(start + tile).min(pixels);
            let gradient = Matrix::rows(&dy[start * shape.c_out + group * c_out..], shape.c_out);
            let size = [range.len(), depth, c_out];
            with_buffer(range.len() * depth, |windows| {
                multiply(size, windows, depth, Write::Replace, gradient, weights.transposed());
                scatter(windows, shape, group, range, dx);
            });
        }
    }
}

/// Gradient of the weights, OIHW: partial sums over fixed runs of images, added in order.
pub(crate) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let len = shape.geometry.groups * shape.depth() * shape.group_out();
    let partials: Vec<Vec<f32>> = image_runs(shape)
        .into_par_iter()
        .map(|run| {
            let mut partial = vec![0.0; len];
            run.for_each(|index| weight_gradient_image(x, dy, shape, index, &mut partial));
            partial
        })
        .collect();
    weights::unpack(&sum_in_order(partials, len), shape)
}

/// Consecutive images whose weight gradients are summed in one go; depends on the shape alone.
pub(crate) fn image_runs(shape: &ConvShape) -> Vec<Range<usize>> {
    let len = shape.geometry.groups * shape.depth() * shape.group_out();
    let partials = (PARTIAL_ELEMENTS / len.max(1)).clamp(2, MAX_PARTIALS);
    let run = shape.images.div_ceil(partials).max(1);
    (0..shape.images).step_by(run).map(|first| first..(first + run).min(shape.images)).collect()
}

/// Adds the partial results in their order.
pub(crate) fn sum_in_order(partials: Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    let mut partials = partials.into_iter();
    let mut sum = partials.next().unwrap_or_else(|| vec![0.0; len]);
    for partial in partials {
        sum.iter_mut().zip(&partial).for_each(|(sum, value)| *sum += value);
    }
    sum
}

fn weight_gradient_image(x: &[f32], dy: &[f32], shape: &ConvShape, index: usize, partial: &mut [f32]) {
    let (depth, c_out, pixels) = (shape.depth(), shape.group_out(), shape.output_pixels());
    let image_len = shape.input_pixels() * shape.c_in;
    let image = &x[index * image_len..][..image_len];
    let dy = &dy[index * pixels * shape.c_out..][..pixels * shape.c_out];
    let tile = tile_pixels(shape);
    for group in 0..shape.geometry.groups {
        let sum = &mut partial[group * depth * c_out..][..depth * c_out];
        for start in (0..pixels).step_by(tile) {
            let range = start..(start + tile).min(pixels);
            let gradient = Matrix::rows(&dy[start * shape.c_out + group * c_out..], shape.c_out);
            let size = [depth, c_out, range.len()];
            with_windows(image, shape, group, range, |windows| {
                multiply(size, sum, c_out, Write::Add, windows.transposed(), gradient);
            });
        }
    }
}

/// Hands the windows of a range of output pixels to `work`, one row of `depth` values per pixel.
fn with_windows(image: &[f32], shape: &ConvShape, group: usize, range: Range<usize>, work: impl FnOnce(Matrix<'_>)) {
    let c_in = shape.group_in();
    if shape.is_pointwise() {
        return work(Matrix::rows(&image[range.start * shape.c_in + group * c_in..], shape.c_in));
    }
    let depth = shape.depth();
    with_buffer(range.len() * depth, |buffer| {
        for (row, pixel) in buffer.chunks_exact_mut(depth.max(1)).zip(range) {
            let mut taps = row.chunks_exact_mut(c_in.max(1));
            for_each_tap(shape, pixel, |source| {
                let Some(values) = taps.next() else { return };
                match source {
                    Some(source) => values.copy_from_slice(&image[source * shape.c_in + group * c_in..][..c_in]),
                    None => values.fill(0.0),
                }
            });
        }
        work(Matrix::rows(buffer, depth));
    });
}

/// Adds windows back to the pixels they were gathered from.
fn scatter(windows: &[f32], shape: &ConvShape, group: usize, range: Range<usize>, image: &mut [f32]) {
    let c_in = shape.group_in();
    for (row, pixel) in windows.chunks_exact(shape.depth().max(1)).zip(range) {
        let mut taps = row.chunks_exact(c_in.max(1));
        for_each_tap(shape, pixel, |source| {
            let (Some(values), Some(source)) = (taps.next(), source) else { return };
            let target = &mut image[source * shape.c_in + group * c_in..][..c_in];
            target.iter_mut().zip(values).for_each(|(target, value)| *target += value);
        });
    }
}

/// Visits the taps of one window in row order, with the input pixel below each.
fn for_each_tap(shape: &ConvShape, pixel: usize, mut visit: impl FnMut(Option<usize>)) {
    let (row, column) = (pixel / shape.output[1], pixel % shape.output[1]);
    for ky in 0..shape.kernel[0] {
        let y = shape.source(0, row, ky);
        for kx in 0..shape.kernel[1] {
            let x = shape.source(1, column, kx);
            visit(y.zip(x).map(|(y, x)| y * shape.input[1] + x));
        }
    }
}

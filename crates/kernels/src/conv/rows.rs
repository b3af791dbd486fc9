//! Convolution with stride 1 and dense taps, without unfolding the input.
//!
//! In an image padded once, the values under one kernel row of consecutive windows are a matrix
//! whose rows overlap: row stride `c_in`, `kw · c_in` columns. Each kernel row is one product on
//! that view, so nothing is copied but the band of rows itself, which stays in the cache. Where
//! windows run across the end of an image row the products compute values that nobody reads.

use rayon::prelude::*;

use super::im2col::{image_runs, sum_in_order};
use super::shape::ConvShape;
use super::weights;
use crate::build::build;
use crate::matrix::{Matrix, Write, multiply};
use crate::scratch::with_buffer;

/// Output pixels of a band, about: two bands of 64 channels fit a 512 KiB cache with their weights.
const BAND_PIXELS: usize = 288;

/// A few output rows of one image and the padded input rows they read.
#[derive(Clone, Copy)]
struct Band {
    first: usize,
    rows: usize,
    /// Pixels of a padded input row.
    pitch: usize,
}

impl Band {
    fn all(shape: &ConvShape) -> impl Iterator<Item = Self> {
        let (rows, height) = (band_rows(shape), shape.output[0]);
        let pitch = pitch(shape);
        (0..height).step_by(rows).map(move |first| Self { first, rows: rows.min(height - first), pitch })
    }

    /// Output pixels as the products count them, with the unread ones between rows.
    fn pixels(&self, shape: &ConvShape) -> usize {
        (self.rows - 1) * self.pitch + shape.output[1]
    }

    fn padded_len(&self, shape: &ConvShape) -> usize {
        (self.rows + shape.kernel[0] - 1) * self.pitch * shape.c_in
    }

    /// Copies the band's input rows between zero borders.
    fn pad(&self, image: &[f32], shape: &ConvShape, padded: &mut [f32]) {
        let row_len = shape.input[1] * shape.c_in;
        let border = shape.geometry.padding[1] * shape.c_in;
        for (row, target) in padded.chunks_exact_mut(self.pitch * shape.c_in).enumerate() {
            let source = (self.first + row).checked_sub(shape.geometry.padding[0]);
            match source.filter(|&source| source < shape.input[0]) {
                None => target.fill(0.0),
                Some(source) => {
                    target[..border].fill(0.0);
                    target[border..border + row_len].copy_from_slice(&image[source * row_len..][..row_len]);
                    target[border + row_len..].fill(0.0);
                }
            }
        }
    }

    /// The windows' values under kernel row `ky`, over the padded rows.
    fn windows<'a>(&self, padded: &'a [f32], shape: &ConvShape, ky: usize) -> Matrix<'a> {
        Matrix::rows(&padded[ky * self.pitch * shape.c_in..], shape.c_in)
    }
}

fn pitch(shape: &ConvShape) -> usize {
    shape.input[1] + 2 * shape.geometry.padding[1]
}

/// Output rows per band, as even as possible; depends on the shape alone.
fn band_rows(shape: &ConvShape) -> usize {
    let height = shape.output[0];
    let bands = height.div_ceil((BAND_PIXELS / pitch(shape)).max(1)).max(1);
    height.div_ceil(bands).max(1)
}

/// Whether the passes below cover this shape.
pub(crate) fn covers(shape: &ConvShape) -> bool {
    let geometry = &shape.geometry;
    geometry.stride == [1, 1] && geometry.dilation == [1, 1] && geometry.groups == 1 && shape.c_in > 0
}

/// `y = x ∗ w + bias`, per band of every image.
pub(crate) fn forward(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: &ConvShape) -> Vec<f32> {
    let packed = weights::pack(w, shape);
    let image_len = shape.input_pixels() * shape.c_in;
    let y_len = shape.output_pixels() * shape.c_out;
    let band_len = band_rows(shape) * shape.output[1] * shape.c_out;
    build(shape.images * y_len, y_len, |index, y| {
        let image = &x[index * image_len..][..image_len];
        let bands: Vec<(Band, &mut [f32])> = Band::all(shape).zip(y.chunks_mut(band_len.max(1))).collect();
        bands.into_par_iter().for_each(|(band, y)| forward_band(image, &packed, bias, shape, band, y));
    })
}

fn forward_band(image: &[f32], packed: &[f32], bias: Option<&[f32]>, shape: &ConvShape, band: Band, y: &mut [f32]) {
    let c_out = shape.c_out;
    with_buffer(band.padded_len(shape), |padded| {
        band.pad(image, shape, padded);
        with_buffer(band.pixels(shape) * c_out, |sums| {
            multiply_rows(padded, packed, shape, band, sums);
            let rows = sums.chunks(band.pitch * c_out).zip(y.chunks_exact_mut(shape.output[1] * c_out));
            rows.for_each(|(sums, y)| write_row(&sums[..y.len()], bias, y));
        });
    });
}

fn multiply_rows(padded: &[f32], packed: &[f32], shape: &ConvShape, band: Band, sums: &mut [f32]) {
    let depth = shape.kernel[1] * shape.c_in;
    let size = [band.pixels(shape), shape.c_out, depth];
    for ky in 0..shape.kernel[0] {
        let right = Matrix::rows(&packed[ky * depth * shape.c_out..][..depth * shape.c_out], shape.c_out);
        let write = if ky == 0 { Write::Replace } else { Write::Add };
        multiply(size, sums, shape.c_out, write, band.windows(padded, shape, ky), right);
    }
}

fn write_row(sums: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    y.copy_from_slice(sums);
    if let Some(bias) = bias {
        for pixel in y.chunks_exact_mut(bias.len()) {
            pixel.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    }
}

/// Gradient of the weights, OIHW: partial sums over fixed runs of images, added in order.
pub(crate) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let len = shape.depth() * shape.c_out;
    let image_len = shape.input_pixels() * shape.c_in;
    let dy_len = shape.output_pixels() * shape.c_out;
    let partials: Vec<Vec<f32>> = image_runs(shape)
        .into_par_iter()
        .map(|run| {
            let mut partial = vec![0.0; len];
            for index in run {
                let image = &x[index * image_len..][..image_len];
                let dy = &dy[index * dy_len..][..dy_len];
                Band::all(shape).for_each(|band| weight_gradient_band(image, dy, shape, band, &mut partial));
            }
            partial
        })
        .collect();
    weights::unpack(&sum_in_order(partials, len), shape)
}

fn weight_gradient_band(image: &[f32], dy: &[f32], shape: &ConvShape, band: Band, partial: &mut [f32]) {
    let (c_out, depth) = (shape.c_out, shape.kernel[1] * shape.c_in);
    let row_len = shape.output[1] * c_out;
    let size = [depth, c_out, band.pixels(shape)];
    with_buffer(band.padded_len(shape), |padded| {
        band.pad(image, shape, padded);
        with_buffer(band.pixels(shape) * c_out, |spaced| {
            // Zeros where a window would run across the end of a row.
            let rows = dy[band.first * row_len..].chunks_exact(row_len);
            for (target, row) in spaced.chunks_mut(band.pitch * c_out).zip(rows) {
                target[..row_len].copy_from_slice(row);
                target[row_len..].fill(0.0);
            }
            for (ky, partial) in partial.chunks_exact_mut(depth * c_out).enumerate() {
                let windows = band.windows(padded, shape, ky).transposed();
                multiply(size, partial, c_out, Write::Add, windows, Matrix::rows(spaced, c_out));
            }
        });
    });
}

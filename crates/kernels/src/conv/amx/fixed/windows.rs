//! The forward pass of large windows over few channels that move by two: the first layer of a network for photos.
//!
//! All values of an image share a scale, as pixels of photos are of one size. A pixel far larger than the others would
//! take digits from windows that do not see it, a thousandfold one ten of 24; one that is no number spoils the image.

use rayon::prelude::*;

use crate::amx::fixed::{MAX_DEPTH, Operand, Results, Writing};
use crate::amx::windows::{CHANNELS, COLUMNS, Image, Pairs, ROWS, Tap, depth, multiply};
use crate::amx::{Balance, DEPTH, TILE, Tiles};
use crate::build::build_parts;
use crate::conv::shape::ConvShape;

/// Rows of outputs that are computed together: the digits of the pixels under them stay in the second-level cache, and few
/// rows are made digits twice.
const BAND: usize = 28;

/// Values under a window at least: fewer are faster as they are.
const LEAST: usize = 128;

/// Whether such windows are computed here.
pub(in super::super) fn covers(shape: &ConvShape) -> bool {
    let geometry = &shape.geometry;
    let is_dense = geometry.dilation == [1, 1] && geometry.groups == 1;
    let fits = shape.c_in <= CHANNELS && shape.kernel[1] <= COLUMNS && shape.c_out.is_multiple_of(TILE);
    let is_worth = shape.c_in * shape.taps() >= LEAST && depth(shape.kernel[0]) <= MAX_DEPTH;
    is_dense && fits && is_worth && geometry.stride[0] == ROWS && !shape.input.contains(&0)
}

/// `y = x ∗ w`.
pub(in crate::conv) fn forward(x: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    let [height, width] = shape.input;
    let image_len = height * width * shape.c_in;
    let balance = Balance::of_inputs(w, shape.c_in, shape.taps());
    let factors = balance.as_ref().map(Balance::left);
    let images: Vec<Image<'_>> = x
        .par_chunks(image_len.max(1))
        // SAFETY: whoever comes here has the unit, and with it the vectors.
        .map(|values| unsafe { Image::new(values, width, shape.c_in, factors) })
        .collect();
    let weights = pack(w, shape, balance.as_ref());
    let bands = shape.output[0].div_ceil(BAND);
    let row = shape.output[1] * shape.c_out;
    // SAFETY: every row of outputs lies in one band.
    unsafe {
        build_parts(shape.images * shape.output[0] * row, shape.images * bands, |index, y| {
            let (number, first) = (index / bands, index % bands * BAND);
            let rows = BAND.min(shape.output[0] - first);
            let band = Band { image: &images[number], weights: &weights, shape, first, rows };
            band.compute(y.start().wrapping_add((number * shape.output[0] + first) * row));
        })
    }
}

/// The weights as a right operand.
fn pack(w: &[f32], shape: &ConvShape, balance: Option<&Balance>) -> Operand {
    let (depth, len) = (depth(shape.kernel[0]), shape.c_in * shape.taps());
    let mut weights = Operand::new(shape.c_out / TILE, depth);
    for tile in 0..shape.c_out / TILE {
        let mut values = vec![[0.0; TILE]; depth];
        for (place, values) in values.iter_mut().enumerate() {
            let Tap { row, column, channel } = Tap::at(place);
            if row < shape.kernel[0] && column < shape.kernel[1] && channel < shape.c_in {
                let first = (channel * shape.kernel[0] + row) * shape.kernel[1] + column;
                let outputs = w[tile * TILE * len..][..TILE * len].chunks_exact(len);
                let factor = balance.map_or(1.0, |balance| balance.right()[channel]);
                values.iter_mut().zip(outputs).for_each(|(value, output)| *value = factor * output[first]);
            }
        }
        // SAFETY: whoever comes here has the unit; the operand is this function's.
        unsafe { weights.room().fill_columns(tile, &values[..], None) };
    }
    weights
}

/// Some rows of an image's outputs.
struct Band<'a> {
    image: &'a Image<'a>,
    weights: &'a Operand,
    shape: &'a ConvShape,
    first: usize,
    rows: usize,
}

impl Band<'_> {
    /// Computes them; the first one begins at `y`, and they are this task's.
    fn compute(&self, y: *mut f32) {
        let shape = self.shape;
        let [before, padding] = shape.geometry.padding;
        let stride = shape.geometry.stride[1];
        let width = (shape.output[1].next_multiple_of(TILE) - 1) * stride + COLUMNS;
        // Either may end behind the other: whole tiles of windows, or the image.
        let width = width.max(padding + shape.input[1]);
        let count = self.rows - 1 + shape.kernel[0].div_ceil(ROWS);
        // SAFETY: whoever comes here has the unit, and with it the vectors.
        let mut pairs = unsafe { Pairs::new(count, width, self.image) };
        for pair in 0..count {
            let rows: [_; ROWS] = std::array::from_fn(|row| ((self.first + pair) * ROWS + row).checked_sub(before));
            // SAFETY: as above; the pair has room for the image's pixels and those before.
            unsafe { pairs.fill(pair, rows, self.image, padding) };
        }
        // SAFETY: as above, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(DEPTH) };
        let row = shape.output[1] * shape.c_out;
        for output in 0..self.rows {
            for tile in 0..shape.c_out / TILE {
                let start = y.wrapping_add(output * row + tile * TILE);
                let results = Results { start, stride: shape.c_out, rows: shape.output[1], writing: Writing::Store };
                // SAFETY: the pairs under the row are filled; the outputs are this task's.
                unsafe { multiply(&unit, (&pairs, output, stride), (self.weights, tile), results) };
            }
        }
    }
}

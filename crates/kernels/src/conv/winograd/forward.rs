//! From inputs to outputs, and with weights turned round from the outputs' gradient to the inputs'.

use std::ops::Range;

use super::transform::{self, Channels};
use super::weights::{Direction, PackedWeights};
use super::{POINTS, Planes, Tiles};
use crate::build::{Parts, build_parts};
use crate::conv::shape::ConvShape;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Work};
use crate::tile::{Ahead, Panels, Product, Segment, Start, even_parts, multiply};

/// `y = x ∗ w + bias`; `w` is the layer's parameter in either direction, `shape` that of this convolution.
pub(in crate::conv) fn forward(
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    shape: &ConvShape,
    direction: Direction,
) -> Vec<f32> {
    let path = simd::selected();
    let weights = PackedWeights::new(path, w, shape, direction);
    let tiles = Tiles::of(shape);
    let block = block_len(&tiles, shape);
    let len = shape.images * shape.output_pixels() * shape.c_out;
    // SAFETY: every output lies in one tile, and every tile in one block.
    unsafe {
        build_parts(len, tiles.count().div_ceil(block), |index, y| {
            let block = index * block..tiles.count().min((index + 1) * block);
            simd::run(path, Block { x, weights: &weights, bias, shape, tiles, block, y });
        })
    }
}

/// Tiles of a block: as many as the second-level cache holds, or for many channels as many as make the weights' way
/// from memory worth it; more gain nothing, as what is next is asked for in time. No sum depends on it, so the blocks may
/// be evened out over the threads.
fn block_len(tiles: &Tiles, shape: &ConvShape) -> usize {
    let most = match shape.c_in.max(shape.c_out) {
        0..=64 => 28,
        65..=128 => 56,
        _ => 84,
    };
    let count = tiles.count().max(1);
    let blocks = count.div_ceil(most).next_multiple_of(rayon::current_num_threads().max(1));
    count.div_ceil(blocks)
}

struct Block<'a> {
    x: &'a [f32],
    weights: &'a PackedWeights,
    bias: Option<&'a [f32]>,
    shape: &'a ConvShape,
    tiles: Tiles,
    block: Range<usize>,
    y: Parts,
}

impl Work for Block<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let (c_in, c_out) = (self.shape.c_in, self.shape.c_out);
        let padded = c_in.next_multiple_of(super::GAP);
        let (values, products) =
            (Planes::rows(self.block.len(), padded), Planes::rows(self.block.len(), Panels::new::<I>(c_out).padded()));
        let zeros = Buffer::zeros(c_in);
        let (mut transformed, mut sums) = (Buffer::lend(values.len()), Buffer::lend(products.len()));
        let pixels = Channels { start: self.x.as_ptr(), stride: c_in, count: c_in };
        let bias = self.bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let (out, y) = (transformed.as_mut_ptr(), self.y.start());
        // SAFETY: `x` and `y` hold the images, the buffers their planes; the outputs of this block are nobody else's;
        // the processor is the caller's.
        unsafe {
            let block = self.block.clone();
            transform::inputs::<I::Wide>(pixels, &self.tiles, block.clone(), zeros.as_ptr(), out, values);
            for point in 0..POINTS {
                let (left, out) = (&transformed[point * values.plane..], &mut sums[point * products.plane..]);
                self.multiply::<I>(point, (left, values.row), (out, products.row));
            }
            transform::outputs::<I::Wide>(sums.as_ptr(), products, &self.tiles, block, c_out, bias, y);
        }
    }
}

impl Block<'_> {
    /// The product of transformed inputs and weights at one point; matrices come with the distance between their rows.
    ///
    /// A few rows stay in the first-level cache while all weights pass by from the second. What comes next is on its
    /// way there meanwhile: the rows that follow, the place of their products, and the weights of the next point.
    ///
    /// # Safety
    /// The processor has the instruction set; planes have a row per tile, with room for whole vectors.
    #[inline(always)]
    unsafe fn multiply<I: InstructionSet>(&self, point: usize, left: (&[f32], usize), out: (&mut [f32], usize)) {
        let panels = Panels::new::<I>(self.shape.c_out);
        let narrow = Panels::are_narrow::<I>(self.shape.c_out);
        let (few, next) = (self.block.len().div_ceil(I::MAX_ROWS), self.weights.after(point));
        for (strip, (first, rows)) in even_parts(self.block.len(), I::MAX_ROWS).enumerate() {
            let (left, left_stride) = (left.0[first * left.1..].as_ptr(), left.1);
            let (out, out_stride) = (out.0[first * out.1..].as_mut_ptr(), out.1);
            for (index, panel) in panels.iter().enumerate() {
                let ahead = match index {
                    0 => Ahead::of(left.wrapping_add(rows * left_stride), rows * left_stride),
                    1 => Ahead::of(out.wrapping_add(rows * out_stride), rows * out_stride),
                    _ => next.part(strip, few).part(index - 2, panels.count() - 2),
                };
                let product = Product {
                    left,
                    left_stride,
                    right: self.weights.matrix(index, panel, point).as_ptr(),
                    right_stride: panel.width,
                    out: out.wrapping_add(panel.first),
                    out_stride,
                    segments: &Segment::WHOLE,
                    depth: self.shape.c_in,
                    last_lanes: panel.width / panel.vectors,
                    ahead,
                };
                // SAFETY: the caller vouches for the planes; the weights have a row per input channel.
                unsafe { multiply::<I>(rows, panel, narrow, false, product, Start::Zero) };
            }
        }
    }
}

//! From inputs to outputs, and with weights turned round from the outputs' gradient to the inputs'.

use std::ops::Range;

use super::transform::{self, Channels};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::unit;
use super::weights::{Direction, PackedWeights, Parameter};
use super::{POINTS, Planes, Tiles};
use crate::build::{Parts, build_parts};
use crate::conv::shape::ConvShape;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Selected, Work};
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
    let weights = Weights::new(path, &Parameter { w, shape, direction });
    let tiles = Tiles::of(shape);
    let block = weights.block_len(&tiles, shape);
    let len = shape.images * shape.output_pixels() * shape.c_out;
    // SAFETY: every output lies in one tile, and every tile in one block.
    unsafe {
        build_parts(len, tiles.count().div_ceil(block), |index, y| {
            let block = index * block..tiles.count().min((index + 1) * block);
            simd::run(path, Block { x, weights: &weights, bias, shape, tiles, block, y });
        })
    }
}

/// The weights at the points, for products in vectors or on the tile unit.
enum Weights {
    Vectors(PackedWeights),
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Unit(unit::Weights),
}

impl Weights {
    fn new(path: Selected, parameter: &Parameter<'_>) -> Self {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if unit::covers(path, parameter.shape) {
            return Self::Unit(unit::Weights::new(path, parameter));
        }
        Self::Vectors(PackedWeights::new(path, parameter))
    }

    /// Tiles of a block: as many as the second-level cache holds, or for many channels as many as make the weights' way
    /// from memory worth it; more gain nothing, as what is next is asked for in time. The unit is so fast that the way is
    /// worth more to it. No sum depends on it, so the blocks may be evened out over the threads.
    fn block_len(&self, tiles: &Tiles, shape: &ConvShape) -> usize {
        let most = match (self, shape.c_in.max(shape.c_out)) {
            (Self::Vectors(_), 0..=64) => 28,
            (Self::Vectors(_), 65..=128) => 56,
            (Self::Vectors(_), _) => 84,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Self::Unit(_), 0..=256) => 256,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            (Self::Unit(_), _) => 128,
        };
        let count = tiles.count().max(1);
        let blocks = count.div_ceil(most).next_multiple_of(rayon::current_num_threads().max(1));
        count.div_ceil(blocks)
    }

    /// Rows that the products of so many tiles write.
    fn rows(&self, tiles: usize) -> usize {
        match self {
            Self::Vectors(_) => tiles,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Unit(_) => unit::rows(tiles),
        }
    }
}

struct Block<'a> {
    x: &'a [f32],
    weights: &'a Weights,
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
        let c_out = self.shape.c_out;
        let zeros = Buffer::zeros(self.shape.c_in);
        let products = Planes::rows(self.weights.rows(self.block.len()), Panels::new::<I>(c_out).padded());
        let mut sums = Buffer::lend(products.len());
        match self.weights {
            // SAFETY: the processor is the caller's.
            Weights::Vectors(weights) => unsafe { self.in_vectors::<I>(weights, &zeros, (&mut sums, products)) },
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            // SAFETY: as above.
            Weights::Unit(weights) => unsafe { self.on_unit::<I>(weights, &zeros, (&mut sums, products)) },
        }
        let bias = self.bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
        // SAFETY: the buffer holds its planes, `y` the images; the outputs of this block are nobody else's; the processor is
        // the caller's.
        unsafe {
            transform::outputs::<I::Wide>(
                sums.as_ptr(),
                products,
                &self.tiles,
                self.block.clone(),
                c_out,
                bias,
                self.y.start(),
            );
        }
    }
}

impl Block<'_> {
    /// The inputs of some tiles at the points.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn transform<I: InstructionSet>(
        &self,
        tiles: Range<usize>,
        zeros: &[f32],
        (out, planes): (&mut [f32], Planes),
    ) {
        let pixels = Channels::of(self.x, self.shape.c_in);
        // SAFETY: `x` holds the images, and `out` its planes; the processor is the caller's.
        unsafe {
            transform::inputs::<I::Wide, false>(pixels, &self.tiles, tiles, zeros.as_ptr(), out.as_mut_ptr(), planes)
        }
    }

    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn in_vectors<I: InstructionSet>(
        &self,
        weights: &PackedWeights,
        zeros: &[f32],
        (sums, products): (&mut [f32], Planes),
    ) {
        let values = Planes::rows(self.block.len(), self.shape.c_in.next_multiple_of(super::GAP));
        let mut transformed = Buffer::lend(values.len());
        // SAFETY: the caller's.
        unsafe { self.transform::<I>(self.block.clone(), zeros, (&mut transformed, values)) };
        for point in 0..POINTS {
            let (left, out) = (&transformed[point * values.plane..], &mut sums[point * products.plane..]);
            // SAFETY: as above; planes have a row per tile.
            unsafe { self.multiply::<I>(weights, point, (left, values.row), (out, products.row)) };
        }
    }

    /// One tile's values at a time: they become operands before they leave the cache.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[inline(always)]
    unsafe fn on_unit<I: InstructionSet>(
        &self,
        weights: &unit::Weights,
        zeros: &[f32],
        (sums, products): (&mut [f32], Planes),
    ) {
        let values = Planes::rows(1, self.shape.c_in);
        let mut transformed = Buffer::lend(values.len());
        let mut inputs = unit::Inputs::new(self.block.len(), self.shape.c_in);
        for (index, tile) in self.block.clone().enumerate() {
            // SAFETY: the caller's.
            unsafe { self.transform::<I>(tile..tile + 1, zeros, (&mut transformed, values)) };
            inputs.put(index, (&transformed, values), weights);
        }
        weights.multiply(&inputs, (sums, products));
    }

    /// The product of transformed inputs and weights at one point; matrices come with the distance between their rows.
    ///
    /// A few rows stay in the first-level cache while all weights pass by from the second. What comes next is on its
    /// way there meanwhile: the rows that follow, the place of their products, and the weights of the next point.
    ///
    /// # Safety
    /// The processor has the instruction set; planes have a row per tile, with room for whole vectors.
    #[inline(always)]
    unsafe fn multiply<I: InstructionSet>(
        &self,
        weights: &PackedWeights,
        point: usize,
        left: (&[f32], usize),
        out: (&mut [f32], usize),
    ) {
        let panels = Panels::new::<I>(self.shape.c_out);
        let narrow = Panels::are_narrow::<I>(self.shape.c_out);
        let (few, next) = (self.block.len().div_ceil(I::MAX_ROWS), weights.after(point));
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
                    right: weights.matrix(index, panel, point).as_ptr(),
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

//! For many channels: both transforms of all tiles first, then each point's sum over them on its own.
//!
//! A point's operands and sums stay in the second-level cache, where those of all points would not.

use std::ops::Range;

use rayon::prelude::*;

use super::super::transform::{self, Channels};
use super::super::weights;
use super::super::{GAP, POINTS, Planes, Tiles};
use super::padded;
use crate::build::Parts;
use crate::conv::shape::ConvShape;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Selected, Vector, Work};
use crate::tile::{Ahead, Panels, Product, Segment, Start, multiply};

/// Input channels of a slice of the result.
pub(super) const SLICE: usize = 16;

/// Tiles whose transformed values are kept at a time.
const BLOCK: usize = 512;

/// Tiles whose products are formed in registers: both operands of a register tile then stay in the first-level cache.
const DEPTH: usize = 96;

/// Tiles that one task transforms.
const PART: usize = 16;

/// The gradient in slices of [`SLICE`] input channels, each `[c_in, 9, c_out]`.
pub(super) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<Vec<f32>> {
    let path = simd::selected();
    simd::run(path, Gradient { path, x, dy, shape, tiles: Tiles::of(shape) })
}

#[derive(Clone, Copy)]
struct Gradient<'a> {
    path: Selected,
    x: &'a [f32],
    dy: &'a [f32],
    shape: &'a ConvShape,
    tiles: Tiles,
}

impl Work for Gradient<'_> {
    type Output = Vec<Vec<f32>>;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> Vec<Vec<f32>> {
        let (rows, columns) = (self.shape.c_in, padded(self.shape));
        let most = BLOCK.min(self.tiles.count());
        let inputs = Planes::rows(most, rows.next_multiple_of(GAP));
        let gradients = Planes::panels(most, columns, 2 * I::Wide::LANES);
        let stride = rows * columns + GAP;
        let (mut x, mut dy) = (Buffer::lend(inputs.len()), Buffer::lend(gradients.len()));
        let mut sums = Buffer::lend(POINTS * stride);
        if self.tiles.count() == 0 {
            sums.fill(0.0);
        }
        for start in (0..self.tiles.count()).step_by(BLOCK) {
            let block = start..self.tiles.count().min(start + BLOCK);
            self.transform(block.clone(), (&mut x, inputs), (&mut dy, gradients));
            sums.par_chunks_mut(stride).enumerate().with_max_len(1).for_each(|(point, sums)| {
                let begin = if start == 0 { Start::Zero } else { Start::Destination };
                let (left, right) = (&x[point * inputs.plane..], &dy[point * gradients.plane..]);
                simd::run(
                    self.path,
                    Point { left, inputs, right, gradients, tiles: block.len(), rows, columns, sums, begin },
                );
            });
        }
        let slices: Vec<usize> = (0..rows).step_by(SLICE).collect();
        let back = |first: usize| {
            let sums = &sums[first * columns..];
            simd::run(self.path, Back { sums, stride, rows: SLICE.min(rows - first), columns })
        };
        slices.into_par_iter().map(back).collect()
    }
}

impl Gradient<'_> {
    /// Transforms inputs and gradients of a block, a part of the tiles per task.
    fn transform(&self, block: Range<usize>, x: (&mut [f32], Planes), dy: (&mut [f32], Planes)) {
        let (inputs, gradients) = ((Parts::of(x.0), x.1), (Parts::of(dy.0), dy.1));
        let parts: Vec<usize> = block.clone().step_by(PART).collect();
        parts.into_par_iter().with_max_len(1).for_each(|start| {
            let part = start..block.end.min(start + PART);
            simd::run(self.path, Part { gradient: *self, first: start - block.start, part, inputs, gradients });
        });
    }
}

/// The transforms of a few tiles.
struct Part<'a> {
    gradient: Gradient<'a>,
    /// Row of the first tile in the planes.
    first: usize,
    part: Range<usize>,
    inputs: (Parts, Planes),
    gradients: (Parts, Planes),
}

impl Work for Part<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let Gradient { x, dy, shape, tiles, .. } = self.gradient;
        let zeros = Buffer::zeros(shape.c_in.max(shape.c_out));
        let zeros = zeros.as_ptr();
        // SAFETY: `x` and `dy` hold the images; the rows of these tiles are this task's alone; the processor is the
        // caller's.
        unsafe {
            let pixels = Channels { start: x.as_ptr(), stride: shape.c_in, count: shape.c_in };
            let (out, planes) = (self.inputs.0.start().add(self.first * self.inputs.1.row), self.inputs.1);
            transform::inputs::<I::Wide>(pixels, &tiles, self.part.clone(), zeros, out, planes);
            let pixels = Channels { start: dy.as_ptr(), stride: shape.c_out, count: shape.c_out };
            let (out, planes) = (self.gradients.0.start().add(self.first * self.gradients.1.row), self.gradients.1);
            transform::gradients::<I::Wide>(pixels, &tiles, self.part, zeros, out, planes);
        }
    }
}

/// `sums (+)= leftᵀ · right` of one point.
struct Point<'a> {
    left: &'a [f32],
    inputs: Planes,
    right: &'a [f32],
    gradients: Planes,
    tiles: usize,
    rows: usize,
    columns: usize,
    sums: &'a mut [f32],
    begin: Start,
}

impl Work for Point<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        for first in (0..self.tiles).step_by(DEPTH) {
            let begin = if first == 0 { self.begin } else { Start::Destination };
            for panel in Panels::new::<I>(self.columns).iter() {
                let right = self.gradients.channel(panel.first) + first * self.gradients.row;
                let product = Product {
                    left: self.left[first * self.inputs.row..].as_ptr(),
                    left_stride: self.inputs.row,
                    right: self.right[right..].as_ptr(),
                    right_stride: self.gradients.row,
                    out: self.sums[panel.first..].as_mut_ptr(),
                    out_stride: self.columns,
                    segments: &Segment::WHOLE,
                    depth: DEPTH.min(self.tiles - first),
                    last_lanes: panel.width / panel.vectors,
                    ahead: Ahead::NOTHING,
                };
                // SAFETY: planes have a row per tile and whole vectors, `sums` a row per input channel; the processor
                // is the caller's.
                unsafe { multiply::<I>(self.rows, panel, false, true, product, begin) };
            }
        }
    }
}

/// Sums over points back to the taps, for some input channels.
struct Back<'a> {
    sums: &'a [f32],
    stride: usize,
    rows: usize,
    columns: usize,
}

impl Work for Back<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> Vec<f32> {
        let mut taps = vec![0.0; self.rows * 9 * self.columns];
        // SAFETY: 36 planes of whole vectors, and room for nine rows per row; the processor is the caller's.
        unsafe {
            let out = taps.as_mut_ptr();
            weights::from_points::<I::Wide>(self.sums.as_ptr(), self.stride, self.rows, self.columns, out);
        }
        taps
    }
}

//! For few channels: each task takes a run of tiles through both transforms and all products while they are in the
//! cache, and the runs' sums are added in order.

use std::ops::Range;

use rayon::prelude::*;

use super::super::transform::{self, Channels};
use super::super::weights;
use super::super::{GAP, POINTS, Planes, Tiles, plane_stride};
use super::padded;
use crate::conv::shape::ConvShape;
use crate::conv::sum_in_order;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Vector, Work};
use crate::tile::{Ahead, Panels, Product, Segment, Start, multiply};

/// Runs, whatever the number of threads.
const TASKS: usize = 8;

/// The gradient as one slice of all input channels.
pub(super) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let (path, tiles) = (simd::selected(), Tiles::of(shape));
    let run = tiles.count().div_ceil(TASKS).next_multiple_of(BLOCK).max(1);
    let starts: Vec<usize> = (0..tiles.count()).step_by(run).collect();
    let task = |start: usize| simd::run(path, Task { x, dy, shape, tiles, run: start..tiles.count().min(start + run) });
    let partials = starts.into_par_iter().with_max_len(1).map(task).collect();
    sum_in_order(partials, shape.c_in * shape.taps() * padded(shape))
}

/// Tiles of a block, whose sums are formed in registers before they are added to the run's.
const BLOCK: usize = 28;

struct Task<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    shape: &'a ConvShape,
    tiles: Tiles,
    run: Range<usize>,
}

impl Work for Task<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> Vec<f32> {
        let (rows, columns) = (self.shape.c_in, padded(self.shape));
        let stride = plane_stride(rows * columns);
        let mut gradient = vec![0.0; rows * 9 * columns];
        let mut sums = Buffer::lend(POINTS * stride);
        for start in self.run.clone().step_by(BLOCK) {
            let block = start..self.run.end.min(start + BLOCK);
            let begin = if start == self.run.start { Start::Zero } else { Start::Destination };
            // SAFETY: the processor is the caller's.
            unsafe { self.add_block::<I>(block, &mut sums, stride, begin) };
        }
        // SAFETY: 36 planes of whole vectors, and room for nine rows per row; the processor is the caller's.
        unsafe { weights::from_points::<I::Wide>(sums.as_ptr(), stride, rows, columns, gradient.as_mut_ptr()) };
        gradient
    }
}

impl Task<'_> {
    /// Adds the products of one block of tiles.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn add_block<I: InstructionSet>(&self, block: Range<usize>, sums: &mut [f32], stride: usize, begin: Start) {
        let (rows, c_in, c_out) = (self.shape.c_in, self.shape.c_in, self.shape.c_out);
        let inputs = Planes::rows(block.len(), rows.next_multiple_of(GAP));
        let gradients = Planes::panels(block.len(), padded(self.shape), 2 * I::Wide::LANES);
        let zeros = Buffer::zeros(c_in.max(c_out));
        let (mut x, mut dy) = (Buffer::lend(inputs.len()), Buffer::lend(gradients.len()));
        // SAFETY: `x` and `dy` hold the images, the buffers the planes; the processor is the caller's.
        unsafe {
            let pixels = Channels::of(self.x, rows);
            let (block, tiles) = (block.clone(), block.len());
            transform::inputs::<I::Wide, false>(
                pixels,
                &self.tiles,
                block.clone(),
                zeros.as_ptr(),
                x.as_mut_ptr(),
                inputs,
            );
            let pixels = Channels::of(self.dy, c_out);
            let out = dy.as_mut_ptr();
            transform::gradients::<I::Wide, false>(pixels, &self.tiles, block, zeros.as_ptr(), out, gradients);
            self.multiply::<I>((&x, inputs), (&dy, gradients), tiles, sums, stride, begin);
        }
    }

    /// For each point `sums (+)= xᵀ · dy`.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn multiply<I: InstructionSet>(
        &self,
        (x, inputs): (&[f32], Planes),
        (dy, gradients): (&[f32], Planes),
        tiles: usize,
        sums: &mut [f32],
        stride: usize,
        begin: Start,
    ) {
        let columns = padded(self.shape);
        for point in 0..POINTS {
            for panel in Panels::new::<I>(columns).iter() {
                let product = Product {
                    left: x[point * inputs.plane..].as_ptr(),
                    left_stride: inputs.row,
                    right: dy[point * gradients.plane + gradients.channel(panel.first)..].as_ptr(),
                    right_stride: gradients.row,
                    out: sums[point * stride + panel.first..].as_mut_ptr(),
                    out_stride: columns,
                    segments: &Segment::WHOLE,
                    depth: tiles,
                    last_lanes: panel.width / panel.vectors,
                    ahead: Ahead::NOTHING,
                };
                // SAFETY: planes have a row per tile and whole vectors; `sums` has a row per input channel.
                unsafe { multiply::<I>(self.shape.c_in, panel, false, true, product, begin) };
            }
        }
    }
}

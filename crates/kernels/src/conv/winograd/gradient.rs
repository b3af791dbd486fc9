//! The gradient of the weights: sums over tiles, for each point, of transformed inputs times transformed gradients.

use std::ops::Range;

use rayon::prelude::*;

use super::transform::{self, Channels};
use super::weights;
use super::{GAP, POINTS, Planes, Tiles};
use crate::conv::shape::ConvShape;
use crate::conv::sum_in_order;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Vector, Work};
use crate::tile::{Panels, Product, Segment, Start, multiply};

/// Tasks that the work is cut into where that costs little, whatever the number of threads.
const TASKS: usize = 8;

/// Gradient of the weights, OIHW.
///
/// The work is cut by input channels, and where there are few of them also into runs of tiles whose sums are added
/// in order; how depends on the shape alone.
pub(in crate::conv) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let tiles = Tiles::of(shape);
    let channels = task_channels(shape);
    let runs = TASKS.div_ceil(shape.c_in.div_ceil(channels));
    let run = tiles.count().div_ceil(runs).next_multiple_of(block_len(shape)).max(1);
    let task = |first: usize, start: usize| {
        let channels = first..shape.c_in.min(first + channels);
        simd::run(Task { x, dy, shape, tiles, channels, run: start..tiles.count().min(start + run) })
    };
    let slices: Vec<Vec<f32>> = (0..shape.c_in)
        .step_by(channels)
        .collect::<Vec<_>>()
        .into_par_iter()
        .with_max_len(1)
        .map(|first| {
            let starts: Vec<usize> = (0..tiles.count()).step_by(run).collect();
            let len = channels.min(shape.c_in - first) * 9 * padded(shape);
            sum_in_order(starts.into_par_iter().with_max_len(1).map(|start| task(first, start)).collect(), len)
        })
        .collect();
    to_parameter(&slices, shape, channels)
}

/// Input channels of one task.
fn task_channels(shape: &ConvShape) -> usize {
    match shape.c_in {
        0..=64 => shape.c_in,
        65..=128 => 64,
        _ => 128,
    }
}

/// Tiles of a block, whose sums are formed in registers before they are added to the run's.
fn block_len(shape: &ConvShape) -> usize {
    match shape.c_in.max(shape.c_out) {
        0..=64 => 28,
        _ => 56,
    }
}

/// Output channels with room for whole vectors of every instruction set, so that the layout does not depend on it.
fn padded(shape: &ConvShape) -> usize {
    shape.c_out.next_multiple_of(16)
}

/// From `[c_in, 9, c_out]` per slice of input channels to OIHW.
fn to_parameter(slices: &[Vec<f32>], shape: &ConvShape, channels: usize) -> Vec<f32> {
    let (c_in, taps, padded) = (shape.c_in, shape.taps(), padded(shape));
    let mut dw = vec![0.0; shape.c_out * c_in * taps];
    // Few output channels at a time, so that what is read of a row is used before it leaves the cache.
    dw.par_chunks_mut(16 * c_in * taps).enumerate().for_each(|(group, dw)| {
        for (slice, values) in slices.iter().enumerate() {
            for (row, values) in values.chunks_exact(padded).enumerate() {
                let offset = slice * channels * taps + row;
                let targets = dw[offset..].iter_mut().step_by(c_in * taps);
                targets.zip(&values[group * 16..]).for_each(|(target, value)| *target = *value);
            }
        }
    });
    dw
}

struct Task<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    shape: &'a ConvShape,
    tiles: Tiles,
    channels: Range<usize>,
    run: Range<usize>,
}

impl Work for Task<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> Vec<f32> {
        let (rows, columns) = (self.channels.len(), padded(self.shape));
        let stride = rows * columns + GAP;
        let mut gradient = vec![0.0; rows * 9 * columns];
        let mut sums = Buffer::lend(POINTS * stride);
        let block = block_len(self.shape);
        for start in self.run.clone().step_by(block) {
            let block = start..self.run.end.min(start + block);
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
        let (rows, c_in, c_out) = (self.channels.len(), self.shape.c_in, self.shape.c_out);
        let inputs = Planes::rows(block.len(), rows.next_multiple_of(GAP));
        let gradients = Planes::panels(block.len(), padded(self.shape), 2 * I::Wide::LANES);
        let zeros = Buffer::zeros(c_in.max(c_out));
        let (mut x, mut dy) = (Buffer::lend(inputs.len()), Buffer::lend(gradients.len()));
        // SAFETY: `x` and `dy` hold the images, the buffers the planes; the processor is the caller's.
        unsafe {
            let pixels = Channels { start: self.x.as_ptr().add(self.channels.start), stride: c_in, count: rows };
            let (block, tiles) = (block.clone(), block.len());
            transform::inputs::<I::Wide>(pixels, &self.tiles, block.clone(), zeros.as_ptr(), x.as_mut_ptr(), inputs);
            let pixels = Channels { start: self.dy.as_ptr(), stride: c_out, count: c_out };
            let out = dy.as_mut_ptr();
            transform::gradients::<I::Wide>(pixels, &self.tiles, block, zeros.as_ptr(), out, gradients);
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
                };
                // SAFETY: planes have a row per tile and whole vectors; `sums` has a row per input channel.
                unsafe { multiply::<I>(self.channels.len(), panel, false, true, product, begin) };
            }
        }
    }
}

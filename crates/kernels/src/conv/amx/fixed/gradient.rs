//! The gradient of the weights: for each tap the product of the output's gradients, a row for each channel, and the
//! pixels that the tap reads.

use std::ops::Range;

use rayon::prelude::*;

use super::super::{OWN_SUMS, TASKS_PER_THREAD};
use crate::amx::fixed::{Operand, Pixels, Results, Room, Writing, multiply};
use crate::amx::{DEPTH, TILE, Tiles};
use crate::build::Parts;
use crate::conv::shape::ConvShape;
use crate::conv::{num_runs, sum_in_order};
use crate::scratch::Buffer;

/// Pixels that share their scales. A tile of the inputs then stays in the first-level cache.
const BLOCK: usize = 512;

/// Blocks whose gradients are kept at a time where threads share the sums.
const SHARED_BLOCKS: usize = 16;

/// Tiles of rows that are multiplied together: they stay in the second-level cache while all columns pass by.
const ROWS: usize = 16;

/// Gradient of the weights, OIHW.
///
/// Where they are few, fixed runs of blocks have sums of their own, which are added in order; else threads share the
/// sums among them.
pub(in super::super) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let pixels = shape.images * shape.output_pixels();
    let blocks: Vec<Range<usize>> = (0..pixels).step_by(BLOCK).map(|first| first..pixels.min(first + BLOCK)).collect();
    let zeros = Buffer::zeros(shape.c_in);
    let work = Work { x, dy, zeros: &zeros, shape };
    if work.len() > OWN_SUMS {
        return work.to_parameter(work.shared(&blocks));
    }
    let run = blocks.len().div_ceil(num_runs(pixels)).max(1);
    let partials = blocks.par_chunks(run).with_max_len(1).map(|blocks| work.own(blocks)).collect();
    work.to_parameter(sum_in_order(partials, work.len()))
}

struct Work<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    /// A pixel outside the images.
    zeros: &'a [f32],
    shape: &'a ConvShape,
}

impl Work<'_> {
    /// Elements of the sums: for each tap a row of inputs for each output.
    fn len(&self) -> usize {
        self.shape.taps() * self.shape.c_out * self.shape.c_in
    }

    /// The sums of some blocks, on this thread.
    fn own(&self, blocks: &[Range<usize>]) -> Vec<f32> {
        let mut sums = vec![0.0; self.len()];
        for (index, block) in blocks.iter().enumerate() {
            let mut gradients = self.room_for_gradients(block);
            self.fill_gradients(gradients.room(), block);
            for tap in 0..self.shape.taps() {
                self.add(&gradients, block, tap, 0..self.shape.c_in / TILE, Parts::of(&mut sums), index == 0);
            }
        }
        sums
    }

    /// The sums of all blocks, on all threads: each takes some inputs at a tap.
    fn shared(&self, blocks: &[Range<usize>]) -> Vec<f32> {
        let mut sums = vec![0.0; self.len()];
        let (tiles, taps, threads) = (self.shape.c_in / TILE, self.shape.taps(), rayon::current_num_threads());
        let group = (tiles * taps / (TASKS_PER_THREAD * threads)).clamp(1, ROWS);
        let groups = (0..tiles).step_by(group).map(|first| first..tiles.min(first + group));
        let tasks: Vec<_> = groups.flat_map(|group| (0..taps).map(move |tap| (tap, group.clone()))).collect();
        let target = Parts::of(&mut sums);
        for (index, blocks) in blocks.chunks(SHARED_BLOCKS).enumerate() {
            // This thread's memory, and given back to it.
            let mut gradients: Vec<_> = blocks.iter().map(|block| self.room_for_gradients(block)).collect();
            let rooms: Vec<_> = gradients.iter_mut().map(Operand::room).zip(blocks).collect();
            rooms.into_par_iter().with_max_len(1).for_each(|(room, block)| self.fill_gradients(room, block));
            tasks.par_iter().with_max_len(1).for_each(|(tap, tiles)| {
                for (place, (gradients, block)) in gradients.iter().zip(blocks).enumerate() {
                    self.add(gradients, block, *tap, tiles.clone(), target, index + place == 0);
                }
            });
        }
        sums
    }

    fn room_for_gradients(&self, block: &Range<usize>) -> Operand {
        Operand::new(self.shape.c_out / TILE, block.len())
    }

    /// Fills the operand of a block's gradients.
    fn fill_gradients(&self, room: Room, block: &Range<usize>) {
        let channels = self.shape.c_out;
        let pixels: Vec<&[f32]> =
            self.dy[block.start * channels..block.end * channels].chunks_exact(channels).collect();
        for tile in 0..channels / TILE {
            // SAFETY: whoever comes here has the unit; every pixel has these channels; each block is filled once.
            unsafe { room.fill_rows(tile, Pixels { pixels: &pixels, first: tile * TILE }) };
        }
    }

    /// Adds a block to the sums of some tiles of inputs at a tap, or begins them with it.
    fn add(
        &self,
        gradients: &Operand,
        block: &Range<usize>,
        tap: usize,
        tiles: Range<usize>,
        sums: Parts,
        is_first: bool,
    ) {
        let (c_out, c_in) = (self.shape.c_out, self.shape.c_in);
        let pixels = self.pixels(block, tap);
        let mut inputs = Operand::new(tiles.len(), block.len());
        for (index, tile) in tiles.clone().enumerate() {
            // SAFETY: as above.
            unsafe { inputs.room().fill_columns(index, Pixels { pixels: &pixels, first: tile * TILE }, None) };
        }
        // SAFETY: as above, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(DEPTH) };
        let start = sums.start().wrapping_add(tap * c_out * c_in + tiles.start * TILE);
        let writing = if is_first { Writing::Store } else { Writing::Add };
        for first in (0..c_out / TILE).step_by(ROWS) {
            let rows = ROWS.min(c_out / TILE - first);
            let start = start.wrapping_add(first * TILE * c_in);
            let results = Results { start, stride: c_in, rows: rows * TILE, writing };
            // SAFETY: both operands are filled; tasks share no sums.
            unsafe { multiply(&unit, (gradients, first, rows), (&inputs, 0, tiles.len()), results) };
        }
    }

    /// Where the pixels lie that a tap reads for the outputs of a block.
    fn pixels(&self, block: &Range<usize>, tap: usize) -> Vec<&[f32]> {
        let ConvShape { input, output, kernel, geometry, c_in, .. } = self.shape;
        let offset = [tap / kernel[1], tap % kernel[1]];
        let along = |axis: usize, place: usize| {
            (place * geometry.stride[axis] + offset[axis] * geometry.dilation[axis])
                .checked_sub(geometry.padding[axis])
                .filter(|&place| place < input[axis])
        };
        let columns: Vec<Option<usize>> = (0..output[1]).map(|column| along(1, column)).collect();
        let mut pixels = Vec::with_capacity(block.len());
        let mut place = block.start;
        while place < block.end {
            let (row, column) = (place / output[1], place % output[1]);
            let (image, row) = (row / output[0], along(0, row % output[0]));
            let count = (output[1] - column).min(block.end - place);
            pixels.extend(columns[column..column + count].iter().map(|column| match (row, column) {
                (Some(row), Some(column)) => &self.x[((image * input[0] + row) * input[1] + column) * c_in..][..*c_in],
                _ => self.zeros,
            }));
            place += count;
        }
        pixels
    }

    /// From `[taps, c_out, c_in]` to OIHW.
    fn to_parameter(&self, sums: Vec<f32>) -> Vec<f32> {
        let (taps, c_in, plane) = (self.shape.taps(), self.shape.c_in, self.shape.c_out * self.shape.c_in);
        if taps == 1 {
            return sums;
        }
        let mut dw = vec![0.0; sums.len()];
        dw.par_chunks_mut(c_in * taps).enumerate().for_each(|(output, dw)| {
            for (tap, plane) in sums.chunks_exact(plane).enumerate() {
                let values = &plane[output * c_in..][..c_in];
                dw[tap..].iter_mut().step_by(taps).zip(values).for_each(|(target, value)| *target = *value);
            }
        });
        dw
    }
}

//! The gradient of the input for a window of one pixel that moves by one: the product of all gradients and the weights.

use std::ops::Range;

use rayon::prelude::*;

use crate::amx::fixed::{Operand, Pixels, Results, Writing, multiply};
use crate::amx::{Balance, DEPTH, TILE, Tiles};
use crate::build::{Parts, build_parts};
use crate::conv::shape::ConvShape;

/// Values of the pixels of a task, about: as operands they stay in the second-level cache.
const BLOCK: usize = 128 * 1024;

/// Pixels of a task at most.
const MOST_PIXELS: usize = 256;

/// `dx = dy · w`.
pub(in super::super) fn input_gradient(dy: &[f32], w: &[f32], shape: &ConvShape) -> Vec<f32> {
    let (inputs, outputs) = (shape.c_in, shape.c_out);
    let balance = Balance::of_outputs(w, inputs, 1);
    let rows: Vec<&[f32]> = w.chunks_exact(inputs).collect();
    let mut weights = Operand::new(inputs / TILE, outputs);
    let room = weights.room();
    (0..inputs / TILE).into_par_iter().for_each(|tile| {
        let axis = Pixels { pixels: &rows, first: tile * TILE };
        // SAFETY: whoever comes here has the unit; a row has these inputs; each tile is one task's.
        unsafe { room.fill_columns(tile, axis, balance.as_ref()) };
    });
    Product { source: dy, weights, balance, depth: outputs, columns: inputs }.of_all_pixels()
}

/// A product of pixels, a row of `depth` values each, and weights.
struct Product<'a> {
    source: &'a [f32],
    weights: Operand,
    balance: Option<Balance>,
    depth: usize,
    columns: usize,
}

impl Product<'_> {
    fn of_all_pixels(&self) -> Vec<f32> {
        let pixels = self.source.len() / self.depth;
        let most = (BLOCK / self.depth).clamp(TILE, MOST_PIXELS);
        // No sum depends on it, so the blocks may be evened out over the threads.
        let blocks = pixels.div_ceil(most).next_multiple_of(rayon::current_num_threads().max(1));
        let block = pixels.div_ceil(blocks.max(1)).max(1).next_multiple_of(TILE);
        // SAFETY: every pixel lies in one block.
        unsafe {
            build_parts(pixels * self.columns, pixels.div_ceil(block), |index, results| {
                self.of(index * block..pixels.min((index + 1) * block), results);
            })
        }
    }

    fn of(&self, pixels: Range<usize>, results: Parts) {
        let (tiles, depth) = (pixels.len().div_ceil(TILE), self.depth);
        let mut operand = Operand::new(tiles, depth);
        let values = &self.source[pixels.start * depth..pixels.end * depth];
        for (row, values) in values.chunks_exact(depth).enumerate() {
            // SAFETY: whoever comes here has the unit; the operand is this task's.
            unsafe { operand.room().fill_row(row, values, self.balance.as_ref()) };
        }
        // SAFETY: as above, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(DEPTH) };
        let start = results.start().wrapping_add(pixels.start * self.columns);
        let results = Results { start, stride: self.columns, rows: pixels.len(), writing: Writing::Store };
        // SAFETY: both operands are filled in this depth; the pixels are this task's.
        unsafe { multiply(&unit, (&operand, 0, tiles), (&self.weights, 0, self.columns / TILE), results) };
    }
}

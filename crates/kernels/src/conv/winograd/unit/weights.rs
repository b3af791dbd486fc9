//! From transformed inputs to sums at the points.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::super::weights::{MAX_LANES, Parameter, groups, to_points};
use super::super::{POINTS, Planes};
use super::{Left, NUMBERS, PARTS, STEP, WIDTH};
use crate::amx::{self, DEPTH, Tiles};
use crate::build;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Selected, Vector, Work};

/// Transformed weights as right operands: per point and panel of outputs, step by step and part by part.
pub(in super::super) struct Weights {
    tiles: Buffer,
    order: Order,
}

/// How the tiles of weights lie.
#[derive(Debug, Clone, Copy)]
struct Order {
    /// Steps of the shared axis, [`DEPTH`] inputs each.
    steps: usize,
    /// Panels of [`WIDTH`] outputs.
    panels: usize,
}

impl Order {
    /// Where a panel begins at a point.
    fn panel(self, point: usize, panel: usize) -> usize {
        (point * self.panels + panel) * self.steps * STEP
    }
}

impl Weights {
    /// Of a parameter. Only where [`super::covers`] holds.
    pub(in super::super) fn new(path: Selected, parameter: &Parameter<'_>) -> Self {
        let order = Order { steps: parameter.shape.c_in / DEPTH, panels: parameter.shape.c_out / WIDTH };
        let mut tiles = Buffer::lend(order.panel(POINTS, 0) / 2);
        let result = build::Parts::of(&mut tiles);
        (0..order.panels).into_par_iter().with_max_len(1).for_each(|panel| {
            simd::run(path, PackPanel { parameter, order, panel, result });
        });
        Self { tiles, order }
    }

    /// `sums = values · weights` at every point, for the first rows of the planes; those of `sums` have room for
    /// [`super::rows`].
    pub(in super::super) fn multiply(
        &self,
        (values, inputs): (&[f32], Planes),
        rows: usize,
        (sums, outputs): (&mut [f32], Planes),
    ) {
        // SAFETY: there are such weights only where the unit is available, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(DEPTH) };
        let Order { steps, panels } = self.order;
        let mut left = Left::new(rows, steps);
        for point in 0..POINTS {
            let (step, part) = (left.step(), left.part());
            for row in 0..rows {
                let source = values[point * inputs.plane + row * inputs.row..].as_ptr();
                // SAFETY: planes have a row per tile, and so has the operand; the processor has the unit.
                unsafe { amx::split_pixel::<PARTS>(source, steps * DEPTH, step, left.row(0, row), part) };
            }
            let right = self.tiles.as_ptr().cast::<u16>().wrapping_add(self.order.panel(point, 0));
            let out = sums[point * outputs.plane..].as_mut_ptr();
            // SAFETY: the caller vouches for the room; weights have steps and panels as they say.
            unsafe { left.multiply(&unit, (right, panels), (out, outputs.row), false) };
        }
    }
}

/// Packs the weights of one panel of outputs, at every point.
struct PackPanel<'a> {
    parameter: &'a Parameter<'a>,
    order: Order,
    panel: usize,
    result: build::Parts,
}

impl Work for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let lanes = I::Wide::LANES;
        debug_assert_eq!(lanes, MAX_LANES);
        let mut pair = [[0.0; POINTS * MAX_LANES]; 2];
        for (inputs, vector) in groups(self.parameter.shape.c_in, WIDTH / lanes) {
            let first = self.panel * WIDTH + vector * lanes;
            for input in inputs.step_by(2) {
                // SAFETY: the processor is the caller's; there is a vector for every point, and in the tiles a row of pairs
                // for each part of it.
                unsafe {
                    for (index, values) in pair.iter_mut().enumerate() {
                        self.parameter.ask_for(first..first + lanes, input + index);
                        let taps = self.parameter.taps::<I::Wide>(first..first + lanes, input + index);
                        to_points::<I::Wide, false>(taps, values.as_mut_ptr(), lanes);
                    }
                    let place = input / DEPTH * STEP + vector * NUMBERS + input % DEPTH / 2 * DEPTH;
                    let start = self.result.start().cast::<u16>().add(self.order.panel(0, self.panel) + place);
                    store_pairs(&pair, start, self.order.panel(1, 0));
                }
            }
        }
    }
}

/// One row of a tile at every point, `distance` numbers apart: pairs of weights of two inputs.
///
/// # Safety
/// The processor has the tile unit's vectors; there is room for the row at every point, in each part.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn store_pairs(pair: &[[f32; POINTS * MAX_LANES]; 2], start: *mut u16, distance: usize) {
    for point in 0..POINTS {
        // SAFETY: the caller's.
        unsafe {
            let first = _mm512_loadu_ps(pair[0][point * MAX_LANES..].as_ptr());
            let second = _mm512_loadu_ps(pair[1][point * MAX_LANES..].as_ptr());
            let parts = amx::Parts::<PARTS>::of(first, second).interleaved();
            parts.store(DEPTH, start.add(point * distance), 2 * NUMBERS);
        }
    }
}

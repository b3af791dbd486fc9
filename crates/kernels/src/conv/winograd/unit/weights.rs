//! From transformed inputs to sums at the points.

use rayon::prelude::*;

use super::super::weights::{AREA, Direction, Parameter, to_points};
use super::super::{GAP, POINTS, Planes, plane_stride};
use super::rows;
use crate::amx::fixed::{Operand, Results, Room, Writing, multiply};
use crate::amx::{Balance, DEPTH, TILE, Tiles};
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Selected, Vector, Work};

/// Transformed weights as right operands, panel by panel of sixteen outputs at every point.
pub(in super::super) struct Weights {
    operand: Operand,
    /// Panels of a point.
    panels: usize,
    balance: Option<Balance>,
}

/// Transformed inputs of a block of tiles as left operands, at every point.
pub(in super::super) struct Inputs {
    operand: Operand,
    channels: usize,
    /// Rows of a point, whole tiles.
    rows: usize,
}

impl Weights {
    /// Of a parameter. Only where [`super::covers`] holds.
    pub(in super::super) fn new(path: Selected, parameter: &Parameter<'_>) -> Self {
        let panels = parameter.shape.c_out / TILE;
        let mut operand = Operand::new(POINTS * panels, parameter.shape.c_in);
        let (room, balance) = (operand.room(), parameter.balance());
        (0..panels).into_par_iter().with_max_len(1).for_each(|panel| {
            simd::run(path, PackPanel { parameter, panel, panels, room, balance: balance.as_ref() });
        });
        Self { operand, panels, balance }
    }

    /// `sums = inputs · weights` at every point; the planes have room for [`rows`].
    pub(in super::super) fn multiply(&self, inputs: &Inputs, (sums, outputs): (&mut [f32], Planes)) {
        // SAFETY: there are such weights only where the unit is available, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(DEPTH) };
        let tiles = inputs.rows / TILE;
        for point in 0..POINTS {
            let left = (&inputs.operand, point * tiles, tiles);
            let right = (&self.operand, point * self.panels, self.panels);
            let start = sums[point * outputs.plane..].as_mut_ptr();
            let results = Results { start, stride: outputs.row, rows: inputs.rows, writing: Writing::Store };
            // SAFETY: both are filled, in the depth of the channels; the caller vouches for the room.
            unsafe { multiply(&unit, left, right, results) };
        }
    }
}

impl Inputs {
    /// Room for so many tiles, which are to be [put](Self::put) there.
    pub(in super::super) fn new(tiles: usize, channels: usize) -> Self {
        let rows = rows(tiles);
        Self { operand: Operand::new(POINTS * rows / TILE, channels), channels, rows }
    }

    /// Takes one tile's values at all points, to be multiplied by these weights.
    pub(in super::super) fn put(&mut self, tile: usize, (values, planes): (&[f32], Planes), weights: &Weights) {
        let room = self.operand.room();
        for point in 0..POINTS {
            let values = &values[point * planes.plane..][..self.channels];
            // SAFETY: whoever comes here has the unit; the operand is this one's.
            unsafe { room.fill_row(point * self.rows + tile, values, weights.balance.as_ref()) };
        }
    }
}

impl Parameter<'_> {
    /// Between transformed inputs and the weights.
    fn balance(&self) -> Option<Balance> {
        let (c_in, c_out) = (self.shape.c_in, self.shape.c_out);
        match self.direction {
            Direction::Forward => Balance::of_inputs(self.w, c_in, AREA),
            // The layer's outputs are what this convolution sums over.
            Direction::Backward => Balance::of_outputs(self.w, c_out, AREA),
        }
    }
}

/// Packs the weights of one panel of outputs, at every point.
struct PackPanel<'a> {
    parameter: &'a Parameter<'a>,
    panel: usize,
    panels: usize,
    room: Room,
    balance: Option<&'a Balance>,
}

impl Work for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        debug_assert_eq!(I::Wide::LANES, TILE);
        let (depth, first) = (self.parameter.shape.c_in, self.panel * TILE);
        let stride = plane_stride(depth * TILE + GAP);
        let mut values = Buffer::lend(POINTS * stride);
        for input in 0..depth {
            // SAFETY: the processor is the caller's; there is a vector for every point.
            unsafe {
                self.parameter.ask_for(first..first + TILE, input);
                let taps = self.parameter.taps::<I::Wide>(first..first + TILE, input);
                to_points::<I::Wide, false>(taps, values[input * TILE..].as_mut_ptr(), stride);
            }
        }
        for point in 0..POINTS {
            let (tile, values) = (point * self.panels + self.panel, &values[point * stride..][..depth * TILE]);
            // SAFETY: the processor has the unit; each panel is one task's.
            unsafe { self.room.fill_columns(tile, values.as_chunks().0, self.balance) };
        }
    }
}

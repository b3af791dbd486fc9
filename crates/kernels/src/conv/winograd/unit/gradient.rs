//! From transformed inputs and gradients to the sums over tiles at one point.

use super::super::Planes;
use super::{Left, NUMBERS, PARTS, STEP, WIDTH};
use crate::amx::{self, DEPTH, TILE, Tiles};
use crate::scratch::Buffer;

/// Rows of sums whose operand is made at a time: it then stays in the second-level cache while all panels pass by.
const ROWS: usize = 256;

/// All lanes of a vector.
const ALL: u16 = u16::MAX;

/// The operands at one point, a row for each of so many tiles.
pub(in super::super) struct Point<'a> {
    pub(in super::super) inputs: (&'a [f32], Planes),
    pub(in super::super) gradients: (&'a [f32], Planes),
    pub(in super::super) tiles: usize,
    /// Channels of either.
    pub(in super::super) channels: [usize; 2],
}

impl Point<'_> {
    /// `sums (+)= inputsᵀ · gradients`; rows of `sums` are `stride` elements apart. Only where [`super::covers`] holds.
    pub(in super::super) fn add_to(&self, sums: &mut [f32], stride: usize, accumulate: bool) {
        // SAFETY: whoever comes here has the unit, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(DEPTH) };
        let right = self.right();
        for first in (0..self.channels[0]).step_by(ROWS) {
            let left = self.left(first, ROWS.min(self.channels[0] - first));
            let panels = (right.as_ptr().cast(), self.channels[1] / WIDTH);
            let out = sums[first * stride..].as_mut_ptr();
            // SAFETY: both operands have a step for every 32 tiles; channels fill whole tiles.
            unsafe { left.multiply(&unit, panels, (out, stride), accumulate) };
        }
    }

    fn steps(&self) -> usize {
        self.tiles.div_ceil(DEPTH)
    }

    /// Sixteen channels from where they begin in a row, at the tiles of a step.
    fn rows(&self, (values, planes): (&[f32], Planes), channel: usize, step: usize) -> [*const f32; DEPTH] {
        std::array::from_fn(|index| match step * DEPTH + index {
            tile if tile < self.tiles => values[tile * planes.row + channel..].as_ptr(),
            _ => amx::ZEROS.as_ptr(),
        })
    }

    /// Some channels of the inputs.
    fn left(&self, first: usize, count: usize) -> Left {
        let mut left = Left::new(count, self.steps());
        for step in 0..self.steps() {
            for channel in (0..count).step_by(TILE) {
                let rows = self.rows(self.inputs, first + channel, step);
                let (part, target) = (left.part(), left.row(step, channel));
                // SAFETY: rows of planes are whole vectors; the operand has room for whole tiles.
                unsafe { amx::left_tile::<PARTS>(&rows, ALL, target, part) };
            }
        }
        left
    }

    /// All channels of the gradients, panel by panel.
    fn right(&self) -> Buffer {
        let [_, channels] = self.channels;
        let mut right = Buffer::lend(channels / WIDTH * self.steps() * STEP / 2);
        let start = right.as_mut_ptr().cast::<u16>();
        for step in 0..self.steps() {
            for channel in (0..channels).step_by(TILE) {
                let rows = self.rows(self.gradients, self.gradients.1.channel(channel), step);
                let place = (channel / WIDTH * self.steps() + step) * STEP + channel % WIDTH / TILE * NUMBERS;
                // SAFETY: as above.
                unsafe { amx::right_tile::<PARTS>(&rows, ALL, start.add(place), None, 2 * NUMBERS) };
            }
        }
        right
    }
}

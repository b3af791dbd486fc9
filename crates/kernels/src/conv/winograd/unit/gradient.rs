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
    fn rows<const COUNT: usize>(
        &self,
        (values, planes): (&[f32], Planes),
        channel: usize,
        step: usize,
    ) -> [*const f32; COUNT] {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, in -1..1.
    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let hash =
            |index: usize| (index as u32 ^ seed).wrapping_mul(2_654_435_761).rotate_left(15).wrapping_mul(40_503);
        (0..len).map(|index| hash(index) as f32 / 2f32.powi(31) - 1.0).collect()
    }

    #[test]
    fn sums_go_on_from_block_to_block() {
        if !amx::is_available() {
            eprintln!("passed over: this processor lacks the tile unit");
            return;
        }
        // More rows than an operand has, and tiles that do not fill a step.
        let ([rows, columns], blocks) = ([288, 64], [64, 45]);
        let stride = columns + 16;
        let (mut sums, mut expected) = (vec![f32::NAN; rows * stride], vec![0.0; rows * columns]);
        for (index, tiles) in blocks.into_iter().enumerate() {
            let (inputs, gradients) = (Planes::rows(tiles, rows), Planes::panels(tiles, columns, WIDTH));
            let (x, dy) = (noise(inputs.plane, index as u32), noise(gradients.plane, 7 + index as u32));
            for (place, sum) in expected.iter_mut().enumerate() {
                let (row, column) = (place / columns, gradients.channel(place % columns));
                let product =
                    |tile: usize| f64::from(x[tile * inputs.row + row]) * f64::from(dy[tile * gradients.row + column]);
                *sum += (0..tiles).map(product).sum::<f64>();
            }
            let point = Point { inputs: (&x, inputs), gradients: (&dy, gradients), tiles, channels: [rows, columns] };
            point.add_to(&mut sums, stride, index > 0);
        }
        let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        for (place, expected) in expected.into_iter().enumerate() {
            let found = sums[place / columns * stride + place % columns];
            assert!((f64::from(found) - expected).abs() <= 1e-6 * largest, "{place}: {found}, expected {expected}");
        }
        assert!(sums.chunks_exact(stride).all(|row| row[columns..].iter().all(|value| value.is_nan())));
    }
}

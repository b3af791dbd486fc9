//! From transformed inputs and gradients to the sums over tiles at one point.

use super::super::Planes;
use crate::amx::fixed::{Operand, Results, Writing, multiply};
use crate::amx::{DEPTH, TILE, Tiles};
use crate::simd;

/// Rows of sums whose operand is made at a time: it then stays in the second-level cache while all panels pass by.
const ROWS: usize = 256;

/// Planes for inputs and gradients of so many tiles: what becomes a tile of an operand lies together.
pub(in super::super) fn planes(tiles: usize, channels: [usize; 2]) -> [Planes; 2] {
    channels.map(|channels| Planes::panels(tiles, channels, TILE))
}

/// The operands at one point, a row for each of so many tiles, in [`planes`].
pub(in super::super) struct Point<'a> {
    pub(in super::super) inputs: (&'a [f32], Planes),
    pub(in super::super) gradients: (&'a [f32], Planes),
    pub(in super::super) tiles: usize,
    /// Channels of either.
    pub(in super::super) channels: [usize; 2],
}

impl Point<'_> {
    /// `sums (+)= inputsᵀ · gradients`; rows of `sums` are `stride` elements apart. Only where [`super::covers`] holds.
    pub(in super::super) fn multiply(&self, sums: &mut [f32], stride: usize, writing: Writing) {
        // SAFETY: whoever comes here has the unit, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(DEPTH) };
        let columns = self.channels[1] / TILE;
        let mut right = Operand::new(columns, self.tiles);
        for tile in 0..columns {
            // SAFETY: the processor has the unit; the operand is this function's.
            unsafe { right.room().fill_columns(tile, self.panel(self.gradients, tile * TILE), None) };
        }
        for first in (0..self.channels[0]).step_by(ROWS) {
            let rows = ROWS.min(self.channels[0] - first) / TILE;
            let mut left = Operand::new(rows, self.tiles);
            for tile in 0..rows {
                // SAFETY: as above.
                unsafe { left.room().fill_rows(tile, self.panel(self.inputs, first + tile * TILE)) };
            }
            let start = sums[first * stride..].as_mut_ptr();
            let results = Results { start, stride, rows: rows * TILE, writing };
            // SAFETY: both operands are filled in the depth of the tiles; channels fill whole tiles.
            unsafe { multiply(&unit, (&left, 0, rows), (&right, 0, columns), results) };
        }
        if writing == Writing::Stream {
            simd::fence_streams();
        }
    }

    /// Sixteen channels of all tiles.
    fn panel<'a>(&self, (values, planes): (&'a [f32], Planes), channel: usize) -> &'a [[f32; TILE]] {
        values[planes.channel(channel)..][..self.tiles * TILE].as_chunks().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amx;

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
            let [inputs, gradients] = planes(tiles, [rows, columns]);
            let (x, dy) = (noise(inputs.plane, index as u32), noise(gradients.plane, 7 + index as u32));
            for (place, sum) in expected.iter_mut().enumerate() {
                let (row, column) = (place / columns, gradients.channel(place % columns));
                let product = |tile: usize| {
                    f64::from(x[tile * inputs.row + inputs.channel(row)]) * f64::from(dy[tile * gradients.row + column])
                };
                *sum += (0..tiles).map(product).sum::<f64>();
            }
            let point = Point { inputs: (&x, inputs), gradients: (&dy, gradients), tiles, channels: [rows, columns] };
            point.multiply(&mut sums, stride, if index == 0 { Writing::Store } else { Writing::Add });
        }
        let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        for (place, expected) in expected.into_iter().enumerate() {
            let found = sums[place / columns * stride + place % columns];
            assert!((f64::from(found) - expected).abs() <= 1e-6 * largest, "{place}: {found}, expected {expected}");
        }
        assert!(sums.chunks_exact(stride).all(|row| row[columns..].iter().all(|value| value.is_nan())));
    }
}

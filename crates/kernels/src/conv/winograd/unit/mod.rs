//! The products at the points on the tile unit (see [`crate::amx`]), each number in three parts: as exact as in f32, in
//! less than half the time.

mod gradient;
mod weights;

pub(super) use gradient::Point;
pub(super) use weights::Weights;

use crate::amx::{DEPTH, Product, TILE, Tiles};
use crate::conv::shape::ConvShape;
use crate::scratch::Buffer;
use crate::simd::{CpuPath, Selected};

/// Numbers for each value.
const PARTS: usize = 3;

/// Rows and columns of a product at a time: two tiles.
const WIDTH: usize = 2 * TILE;

// Channels that fill panels fill steps.
const _: () = assert!(WIDTH == DEPTH);

/// Numbers of a tile.
const NUMBERS: usize = TILE * DEPTH;

/// Numbers of a step in a panel of two tiles of columns.
const STEP: usize = PARTS * 2 * NUMBERS;

/// Whether the path has the unit, and the channels of a shape fill whole tiles and are so many that the products weigh
/// more than splitting their operands does.
pub(super) fn covers(path: Selected, shape: &ConvShape) -> bool {
    /// Pairs of channels at least.
    const PAIRS: usize = 128 * 256;

    let fill = [shape.c_in, shape.c_out].iter().all(|channels| channels.is_multiple_of(WIDTH));
    path.path() == CpuPath::Amx && fill && shape.c_in * shape.c_out >= PAIRS
}

/// Rows that the products of so many write: whole tiles.
pub(super) fn rows(count: usize) -> usize {
    count.next_multiple_of(TILE)
}

/// A left operand: part by part, step by step of the shared axis, and in each row by row.
struct Left {
    numbers: Buffer,
    /// Whole tiles of rows.
    rows: usize,
    /// Where each step begins, in bytes.
    steps: Vec<u32>,
}

impl Left {
    /// With unspecified contents.
    fn new(rows: usize, steps: usize) -> Self {
        let rows = self::rows(rows);
        let numbers = Buffer::lend(PARTS * steps * rows * DEPTH / 2);
        let steps = (0..steps).map(|step| (step * rows * DEPTH * size_of::<u16>()) as u32).collect();
        Self { numbers, rows, steps }
    }

    /// Numbers between steps.
    fn step(&self) -> usize {
        self.rows * DEPTH
    }

    /// Numbers between parts.
    fn part(&self) -> usize {
        self.steps.len() * self.step()
    }

    /// Where a row begins in a step, its first part.
    fn row(&mut self, step: usize, row: usize) -> *mut u16 {
        self.numbers.as_mut_ptr().cast::<u16>().wrapping_add((step * self.rows + row) * DEPTH)
    }

    /// `out = left · right`, or added to what is there: all rows, and the columns of so many panels that lie one after
    /// the other.
    ///
    /// # Safety
    /// The panels have as many steps as this; there is room for the rows and columns at `out`, rows `stride` elements
    /// apart, and nothing else touches it; the tiles are configured for whole steps.
    unsafe fn multiply(
        &self,
        unit: &Tiles,
        (right, panels): (*const u16, usize),
        (out, stride): (*mut f32, usize),
        accumulate: bool,
    ) {
        let (steps, panel) = (self.steps.as_ptr_range(), self.steps.len() * STEP);
        let ahead = Product::ahead::<PARTS>(self.steps.len());
        for index in 0..panels {
            let right = right.wrapping_add(index * panel);
            let out = out.wrapping_add(index * WIDTH);
            for (pair, first) in (0..self.rows).step_by(WIDTH).enumerate() {
                let tiles = ((self.rows - first) / TILE).min(2);
                let rows = [first, first + (tiles - 1) * TILE];
                let product = Product {
                    left: rows.map(|row| self.numbers.as_ptr().cast::<u16>().wrapping_add(row * DEPTH)),
                    left_stride: DEPTH * size_of::<u16>(),
                    left_part: self.part() * size_of::<u16>(),
                    steps: steps.start,
                    steps_end: steps.end,
                    right,
                    right_tile: NUMBERS * size_of::<u16>(),
                    right_part: 2 * NUMBERS * size_of::<u16>(),
                    right_step: STEP * size_of::<u16>(),
                    out: rows.map(|row| out.wrapping_add(row * stride)),
                    out_stride: [stride * size_of::<f32>(); 2],
                    accumulate: usize::from(accumulate),
                    // The next panel.
                    ahead: right.wrapping_add(panel + (pair * ahead).min(panel)),
                };
                // SAFETY: the caller's.
                unsafe { product.run::<PARTS>(unit, tiles, 2) };
            }
        }
    }
}

//! Products of f32 matrices in fixed point: the tile unit multiplies bytes twice as fast as bf16 numbers.
//!
//! Numbers that are summed together share a scale, by which the largest of them becomes a whole number of 24 bits: three
//! digits of base 256, from -128 to 127 (the Ozaki scheme: Ootomo, Ozaki and Yokota 2024, "DGEMM on integer matrix
//! multiplication unit"). Of the nine products of digits the six highest are formed; their sums are exact. So a sum is
//! as exact as in f32 unless its values differ in size by much more than they do in a layer: its error is that of the
//! largest ones, where f32's is each value's own. See [`Balance`] for what is done about that.

use std::arch::asm;
use std::arch::x86_64::*;

pub(crate) use super::axis::Pixels;
use super::axis::{Axis, Balanced, Row, peak, quad};
use super::balance::Balance;
use super::digits::{DIGITS, quads};
use super::product::{TILE, Tiles};
use super::split::transpose_pairs;
use crate::build::Parts;
use crate::scratch::Buffer;
use crate::tile::prefetch;

/// Values along the shared axis of a step.
pub(crate) const STEP: usize = 64;

/// Values of a row of a tile: as many bytes make a number of 32 bits.
pub(super) const QUAD: usize = 4;

/// Bytes of a tile.
pub(super) const TILE_BYTES: usize = TILE * STEP;

/// Bytes of a step in an operand: a tile for each digit.
pub(super) const STEP_BYTES: usize = DIGITS * TILE_BYTES;

/// Values along the shared axis at most: the three lowest products of digits are summed in 32 bits.
pub(crate) const MAX_DEPTH: usize = (i32::MAX as usize) / (DIGITS * 128 * 128) / STEP * STEP;

/// An operand: rows of the left matrix or columns of the right one, sixteen to a tile, step by step.
pub(crate) struct Operand {
    digits: Buffer,
    scales: Buffer,
    steps: usize,
}

/// Room in an [`Operand`] for sixteen rows or columns, which workers fill.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    digits: Parts,
    scales: Parts,
    steps: usize,
}

impl Operand {
    /// Room for so many tiles of rows or columns of `depth` values each, with unspecified contents.
    pub(crate) fn new(tiles: usize, depth: usize) -> Self {
        assert!(depth <= MAX_DEPTH, "sums of {depth} products do not fit");
        let steps = depth.div_ceil(STEP);
        let digits = Buffer::lend(tiles * steps * STEP_BYTES / size_of::<f32>());
        Self { digits, scales: Buffer::lend(tiles * TILE), steps }
    }

    pub(crate) fn room(&mut self) -> Room {
        Room { digits: Parts::of(&mut self.digits), scales: Parts::of(&mut self.scales), steps: self.steps }
    }

    pub(super) fn tile(&self, tile: usize) -> *const u8 {
        self.digits.as_ptr().cast::<u8>().wrapping_add(tile * self.steps * STEP_BYTES)
    }

    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    pub(super) fn scales(&self, tile: usize) -> &[f32] {
        &self.scales[tile * TILE..(tile + 1) * TILE]
    }
}

// The order of values along the shared axis is the same in both operands, and no other matters: a quad holds those that
// lie sixteen apart in a step, so that whole vectors become quads.
impl Room {
    /// Where the digits of a tile begin.
    fn tile(self, tile: usize) -> *mut u8 {
        self.digits.start().cast::<u8>().wrapping_add(tile * self.steps * STEP_BYTES)
    }

    /// Fills one row from its values, whole vectors.
    ///
    /// # Safety
    /// The processor has the unit; the operand has such a row, of that depth, which is the caller's alone.
    pub(crate) unsafe fn fill_row(self, row: usize, values: &[f32], balance: Option<&Balance>) {
        debug_assert!(balance.is_none_or(|balance| balance.left().len() == values.len()));
        let values = values.as_chunks().0;
        // SAFETY: the caller's.
        unsafe {
            match balance {
                Some(balance) => self.fill_row_of(row, Row { values, factors: balance.left().as_chunks().0 }),
                None => self.fill_row_of(row, values),
            }
        }
    }

    /// # Safety
    /// As [`Self::fill_row`].
    #[target_feature(enable = "avx512f")]
    unsafe fn fill_row_of(self, row: usize, vectors: impl Axis) {
        let target = self.tile(row / TILE).wrapping_add(row % TILE * STEP);
        // SAFETY: the caller's; a row has 64 bytes for each digit.
        unsafe {
            let peak = peak(vectors).of_all_lanes();
            let shift = peak.shift();
            self.scales.start().add(row).write(_mm512_cvtss_f32(peak.scale()));
            for step in 0..self.steps {
                for (digit, bytes) in quads(quad(vectors, step * QUAD, 1), shift).into_iter().enumerate() {
                    let target = target.wrapping_add(step * STEP_BYTES + digit * TILE_BYTES);
                    store(bytes, target);
                    prefetch(target.wrapping_add(2 * STEP).cast());
                }
            }
        }
    }

    /// Fills a tile of columns of a right operand.
    ///
    /// # Safety
    /// As [`Self::fill_row`], for all of them; the axis is as long as the operand is deep, and its vectors can be read.
    pub(crate) unsafe fn fill_columns(self, tile: usize, axis: impl Axis, balance: Option<&Balance>) {
        debug_assert!(balance.is_none_or(|balance| balance.right().len() == axis.len()));
        // SAFETY: the caller's.
        unsafe {
            match balance {
                Some(balance) => self.fill_columns_of(tile, Balanced { axis, factors: balance.right() }),
                None => self.fill_columns_of(tile, axis),
            }
        }
    }

    /// # Safety
    /// As [`Self::fill_columns`].
    #[target_feature(enable = "avx512f")]
    unsafe fn fill_columns_of(self, tile: usize, axis: impl Axis) {
        // SAFETY: the caller's; a tile has a row for every quad.
        unsafe {
            let shift = self.take_scales(tile, axis);
            for step in 0..self.steps {
                let target = self.tile(tile).wrapping_add(step * STEP_BYTES);
                for row in 0..TILE {
                    let quad = quad(axis, step * STEP + row, TILE);
                    for (digit, bytes) in quads(quad, shift).into_iter().enumerate() {
                        store(bytes, target.wrapping_add(digit * TILE_BYTES + row * STEP));
                    }
                }
            }
        }
    }

    /// Fills a tile of rows of a left operand from the same.
    ///
    /// # Safety
    /// As [`Self::fill_columns`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn fill_rows(self, tile: usize, axis: impl Axis) {
        // SAFETY: the caller's; a tile has sixteen rows.
        unsafe {
            let shift = self.take_scales(tile, axis);
            for step in 0..self.steps {
                let target = self.tile(tile).wrapping_add(step * STEP_BYTES);
                let mut columns = [[_mm512_setzero_si512(); TILE]; DIGITS];
                for column in 0..TILE {
                    let quad = quad(axis, step * STEP + column, TILE);
                    for (columns, bytes) in columns.iter_mut().zip(quads(quad, shift)) {
                        columns[column] = bytes;
                    }
                }
                for (digit, columns) in columns.into_iter().enumerate() {
                    for (row, bytes) in transpose_pairs(columns).into_iter().enumerate() {
                        store(bytes, target.wrapping_add(digit * TILE_BYTES + row * STEP));
                    }
                }
            }
        }
    }

    /// Finds the scale of each lane, and gives the shifts.
    ///
    /// # Safety
    /// As [`Self::fill_columns`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn take_scales(self, tile: usize, axis: impl Axis) -> __m512 {
        // SAFETY: the caller's; an operand has a scale for every lane.
        unsafe {
            let peak = peak(axis);
            _mm512_storeu_ps(self.scales.start().add(tile * TILE), peak.scale());
            peak.shift()
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(bytes: __m512i, target: *mut u8) {
    // SAFETY: the caller vouches for the room.
    unsafe { _mm512_storeu_si512(target.cast(), bytes) }
}

/// Where the results of a product go: rows `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Results {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
    /// Rows that there are: those of the last tile beyond them are not written.
    pub(crate) rows: usize,
    pub(crate) writing: Writing,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    Store,
    /// Past the caches, where they would not stay; rows begin on cache lines.
    Stream,
    /// Added to what is there.
    Add,
}

impl Results {
    /// Those of a tile.
    pub(super) fn tile(self, row: usize, column: usize) -> Self {
        let start = self.start.wrapping_add(row * TILE * self.stride + column * TILE);
        Self { start, rows: self.rows.saturating_sub(row * TILE), ..self }
    }
}

/// `results = left · right` for `rows` tiles of the left operand from a first one on, and `columns` of the right one.
///
/// A tile of columns stays in the first-level cache while all rows pass by from the second. The next one is on its way to
/// that meanwhile, and so are the rows that follow these.
///
/// # Safety
/// Both operands are filled, and of the same depth; there is room for the results, and nobody else touches it. Those that
/// are streamed are [fenced](crate::simd::fence_streams) by the caller.
pub(crate) unsafe fn multiply(
    _unit: &Tiles,
    (left, first_row, rows): (&Operand, usize, usize),
    (right, first_column, columns): (&Operand, usize, usize),
    results: Results,
) {
    assert!(left.steps == right.steps && left.steps > 0, "operands of no depth, or of two");
    let steps = left.steps;
    let mut sums = Sums::zeros();
    let rest = left.tile(first_row + rows);
    for column in 0..columns {
        let panel = right.tile(first_column + column);
        for row in 0..rows {
            let next = steps * (STEP_BYTES + (row * Ahead::RIGHT).min(STEP_BYTES));
            let ahead = Ahead {
                right: panel.wrapping_add(next),
                left: rest.wrapping_add((column * rows + row) * steps * Ahead::LEFT),
            };
            // SAFETY: the caller's.
            unsafe {
                sum_digits(left.tile(first_row + row), panel, steps, &mut sums, ahead);
                let scales = (left.scales(first_row + row), right.scales(first_column + column));
                write(&sums, scales, results.tile(row, column));
            }
        }
    }
}

/// Memory that later products need, brought to the second-level cache meanwhile; it may lie anywhere.
struct Ahead {
    right: *const u8,
    left: *const u8,
}

impl Ahead {
    /// Bytes of the right operand that a step asks for: eight tiles of rows ask for all of the next one.
    const RIGHT: usize = STEP_BYTES / 8;
    /// Of the left one.
    const LEFT: usize = 2 * 64;
}

/// Tiles of sums of digits, highest first.
#[repr(C, align(64))]
pub(super) struct Sums([[i32; TILE]; DIGITS * TILE]);

impl Sums {
    pub(super) fn zeros() -> Self {
        Self([[0; TILE]; DIGITS * TILE])
    }
}

/// The sums of products of digits of one tile. Half of the lines of the left operand's next step are brought to the
/// first-level cache meanwhile, as the loads alone do not keep up with the products; more of them would take loads' turns.
///
/// # Safety
/// The tiles are configured whole; both operands have as many steps, one at least.
#[inline]
unsafe fn sum_digits(left: *const u8, right: *const u8, steps: usize, sums: &mut Sums, ahead: Ahead) {
    // SAFETY: the caller's; every register used is named.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            ".p2align 5",
            "2:",
            "tileloadd tmm3, [{left} + {row}]",
            "tileloadd tmm6, [{right} + {row}]",
            "tdpbssd tmm0, tmm3, tmm6",
            ".irp at,0,128,256,384\nprefetcht0 [{left} + 3072 + \\at]\n.endr",
            "tileloadd tmm4, [{left} + {row} + 1024]",
            "tdpbssd tmm1, tmm4, tmm6",
            ".irp at,512,640,768,896\nprefetcht0 [{left} + 3072 + \\at]\n.endr",
            ".irp at,0,64,128\nprefetcht1 [{right_ahead} + \\at]\n.endr",
            "tileloadd tmm5, [{left} + {row} + 2048]",
            "tdpbssd tmm2, tmm5, tmm6",
            ".irp at,1024,1152,1280,1408\nprefetcht0 [{left} + 3072 + \\at]\n.endr",
            "tileloadd tmm7, [{right} + {row} + 1024]",
            "tdpbssd tmm1, tmm3, tmm7",
            ".irp at,1536,1664,1792,1920\nprefetcht0 [{left} + 3072 + \\at]\n.endr",
            ".irp at,192,256,320\nprefetcht1 [{right_ahead} + \\at]\n.endr",
            "tdpbssd tmm2, tmm4, tmm7",
            ".irp at,2048,2176,2304,2432\nprefetcht0 [{left} + 3072 + \\at]\n.endr",
            "tileloadd tmm6, [{right} + {row} + 2048]",
            "tdpbssd tmm2, tmm3, tmm6",
            ".irp at,2560,2688,2816,2944\nprefetcht0 [{left} + 3072 + \\at]\n.endr",
            "prefetcht1 [{left_ahead}]",
            "prefetcht1 [{left_ahead} + 64]",
            "add {left}, 3072",
            "add {right}, 3072",
            "add {right_ahead}, 384",
            "add {left_ahead}, 128",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            left = inout(reg) left => _,
            right = inout(reg) right => _,
            steps = inout(reg) steps => _,
            right_ahead = inout(reg) ahead.right => _,
            left_ahead = inout(reg) ahead.left => _,
            row = in(reg) STEP,
            sums = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

// The assembly above counts in these.
const _: () = assert!(STEP_BYTES == 3072 && TILE_BYTES == 1024 && Ahead::RIGHT == 384 && Ahead::LEFT == 128);

/// Writes one tile of results, and asks for the place of the one below.
///
/// # Safety
/// As [`multiply`].
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn write(sums: &Sums, (rows, columns): (&[f32], &[f32]), results: Results) {
    let digit = _mm512_set1_ps(1.0 / 256.0);
    // SAFETY: the caller's.
    unsafe {
        let columns = _mm512_loadu_ps(columns.as_ptr());
        for (row, &scale) in rows.iter().enumerate().take(results.rows) {
            let sum = |digit: usize| _mm512_load_si512(sums.0[digit * TILE + row].as_ptr().cast());
            let low = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum(2)), digit, _mm512_cvtepi32_ps(sum(1)));
            let value = _mm512_fmadd_ps(low, digit, _mm512_cvtepi32_ps(sum(0)));
            let value = _mm512_scalef_ps(value, _mm512_add_ps(_mm512_set1_ps(scale), columns));
            let target = results.start.wrapping_add(row * results.stride);
            if results.writing != Writing::Stream {
                prefetch(target.wrapping_add(TILE * results.stride));
            }
            match results.writing {
                Writing::Store => _mm512_storeu_ps(target, value),
                Writing::Stream => _mm512_stream_ps(target, value),
                Writing::Add => _mm512_storeu_ps(target, _mm512_add_ps(value, _mm512_loadu_ps(target))),
            }
        }
    }
}

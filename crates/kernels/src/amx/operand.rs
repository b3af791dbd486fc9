//! Tiles of operands whose shared axis is one of rows of values, as in sums over pixels.

use std::arch::x86_64::*;

use super::product::{DEPTH, TILE};
use super::split::{Parts, transpose_pairs};

/// A row for where there is none.
pub(crate) static ZEROS: [f32; TILE] = [0.0; TILE];

/// A left tile: for each of the sixteen columns that the rows have at most, the numbers down the rows.
///
/// # Safety
/// The processor has the tile unit's vectors; rows have the values that `mask` names; there is room for a tile at
/// `target` and for each further part, `part` numbers further.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn left_tile<const PARTS: usize>(
    rows: &[*const f32; DEPTH],
    mask: __mmask16,
    target: *mut u16,
    part: usize,
) {
    let mut halves = [[_mm512_setzero_si512(); TILE]; 2];
    // Loops rather than closures, which would be compiled without the features.
    for (half, rows) in halves.iter_mut().zip(rows.chunks_exact(TILE)) {
        for (lanes, &row) in half.iter_mut().zip(rows) {
            // SAFETY: lanes outside the mask are not read.
            *lanes = _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(mask, row) });
        }
        // SAFETY: the processor's features are on.
        *half = unsafe { transpose_pairs(*half) };
    }
    for (row, (&first, &last)) in halves[0].iter().zip(&halves[1]).enumerate() {
        let (first, last) = (_mm512_castsi512_ps(first), _mm512_castsi512_ps(last));
        // SAFETY: the processor's features are on; the caller vouches for the target.
        unsafe { Parts::<PARTS>::of(first, last).store(DEPTH, target.add(row * DEPTH), part) };
    }
}

/// A right tile: pairs of neighbouring rows, even ones at `target` and, if they are wanted, those that begin with an odd
/// row `odd` numbers further; the last row only ends such a pair.
///
/// # Safety
/// As [`left_tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn right_tile<const PARTS: usize>(
    rows: &[*const f32; DEPTH + 1],
    mask: __mmask16,
    target: *mut u16,
    odd: Option<usize>,
    part: usize,
) {
    // SAFETY: the processor's features are on; lanes outside the mask are not read; the caller vouches for the target.
    unsafe {
        let mut next = Parts::<PARTS>::of(_mm512_maskz_loadu_ps(mask, rows[0]), _mm512_maskz_loadu_ps(mask, rows[1]));
        for index in 0..TILE {
            let this = next;
            let [first, second] = [2 * index + 2, (2 * index + 3).min(DEPTH)];
            next = Parts::of(_mm512_maskz_loadu_ps(mask, rows[first]), _mm512_maskz_loadu_ps(mask, rows[second]));
            let target = target.add(index * DEPTH);
            this.interleaved().store(DEPTH, target, part);
            if let Some(odd) = odd {
                this.shifted(next).interleaved().store(DEPTH, target.add(odd), part);
            }
        }
    }
}

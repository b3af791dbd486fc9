//! From f32 to the bf16 parts of the tile unit's operands, in the orders in which it wants them.

use std::arch::x86_64::*;

use super::product::TILE;
use crate::tile::prefetch;

/// Values ahead that are asked for: what follows lies side by side, but the processor does not foresee far enough.
const AHEAD: usize = 1024;

/// The bf16 parts of 32 values, in their order: each rounds what those before leave.
#[derive(Clone, Copy)]
pub(crate) struct Parts<const PARTS: usize>(pub(crate) [__m512i; PARTS]);

// Loops rather than closures throughout, which would be compiled without the processor's features.
impl<const PARTS: usize> Parts<PARTS> {
    /// Splits 32 values.
    ///
    /// # Safety
    /// As all of this module: the processor has AVX-512 F, BW and BF16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn of(mut first: __m512, mut second: __m512) -> Self {
        let mut parts = [_mm512_setzero_si512(); PARTS];
        for part in &mut parts {
            // SAFETY: the caller's; both types are 512 bits.
            *part = unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)) };
            first = _mm512_sub_ps(first, widen(_mm512_castsi512_si256(*part)));
            second = _mm512_sub_ps(second, widen(_mm512_extracti64x4_epi64::<1>(*part)));
        }
        Self(parts)
    }

    /// The last sixteen of these, and the first sixteen of the next.
    ///
    /// # Safety
    /// As [`Self::of`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn shifted(mut self, next: Self) -> Self {
        for (part, next) in self.0.iter_mut().zip(next.0) {
            *part = _mm512_shuffle_i64x2::<0b01_00_11_10>(*part, next);
        }
        self
    }

    /// The first sixteen numbers in the even places, and the last sixteen in the odd ones.
    ///
    /// # Safety
    /// As [`Self::of`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn interleaved(mut self) -> Self {
        let places = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17,
            1, 16, 0,
        );
        for part in &mut self.0 {
            *part = _mm512_permutexvar_epi16(places, *part);
        }
        self
    }

    /// Writes the first `len` numbers of each part, parts `distance` numbers apart.
    ///
    /// # Safety
    /// As [`Self::of`], and there is room at `target`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn store(self, len: usize, target: *mut u16, distance: usize) {
        let mask = ((1u64 << len) - 1) as __mmask32;
        for (index, part) in self.0.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { _mm512_mask_storeu_epi16(target.add(index * distance).cast(), mask, part) };
        }
    }
}

/// bf16 is the upper half of f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn widen(values: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values)))
}

#[inline(always)]
fn first_lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

/// Splits values that lie side by side.
///
/// # Safety
/// The processor's features; `len` values are read, and as many numbers written to `target` and, for each further part,
/// `distance` numbers further.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn split<const PARTS: usize>(values: *const f32, len: usize, target: *mut u16, distance: usize) {
    for at in (0..len).step_by(32) {
        let count = (len - at).min(32);
        // SAFETY: the caller's.
        unsafe { split_few::<PARTS>(values.add(at), count, count, target.add(at), distance) };
    }
}

/// Splits up to 32 values, and writes zeros after them up to `width` numbers, 32 at most.
///
/// # Safety
/// As [`split`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn split_few<const PARTS: usize>(
    values: *const f32,
    len: usize,
    width: usize,
    target: *mut u16,
    distance: usize,
) {
    // SAFETY: nothing outside the masks is touched.
    unsafe {
        let first = _mm512_maskz_loadu_ps(first_lanes(len), values);
        let second = _mm512_maskz_loadu_ps(first_lanes(len.saturating_sub(16)), values.wrapping_add(16));
        Parts::<PARTS>::of(first, second).store(width, target, distance);
    }
}

/// Splits a pixel's channels in chunks of 32 that lie `chunk` numbers apart. The last chunk begins early rather than
/// reach beyond the channels, of which there are 32 at least.
///
/// # Safety
/// As [`split`], for all chunks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn split_pixel<const PARTS: usize>(
    values: *const f32,
    channels: usize,
    chunk: usize,
    target: *mut u16,
    distance: usize,
) {
    for index in 0..channels.div_ceil(32) {
        // SAFETY: the caller's.
        unsafe {
            let values = values.add((index * 32).min(channels - 32));
            prefetch(values.wrapping_add(AHEAD));
            prefetch(values.wrapping_add(AHEAD + 16));
            let parts = Parts::<PARTS>::of(_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(16)));
            parts.store(32, target.add(index * chunk), distance);
        }
    }
}

/// Sixteen rows of sixteen pairs of numbers, or of f32, with rows and columns exchanged.
///
/// # Safety
/// The processor's features.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) unsafe fn transpose_pairs(rows: [__m512i; TILE]) -> [__m512i; TILE] {
    let mut pairs = rows;
    for index in 0..8 {
        let (low, high) = (rows[2 * index], rows[2 * index + 1]);
        pairs[2 * index] = _mm512_unpacklo_epi32(low, high);
        pairs[2 * index + 1] = _mm512_unpackhi_epi32(low, high);
    }
    // Of each four rows: the four columns that each quarter of a register then holds.
    let mut fours = pairs;
    for index in 0..4 {
        let (a, b, c, d) = (pairs[4 * index], pairs[4 * index + 1], pairs[4 * index + 2], pairs[4 * index + 3]);
        fours[4 * index] = _mm512_unpacklo_epi64(a, c);
        fours[4 * index + 1] = _mm512_unpackhi_epi64(a, c);
        fours[4 * index + 2] = _mm512_unpacklo_epi64(b, d);
        fours[4 * index + 3] = _mm512_unpackhi_epi64(b, d);
    }
    let mut columns = fours;
    for column in 0..4 {
        let (a, b, c, d) = (fours[column], fours[4 + column], fours[8 + column], fours[12 + column]);
        let (even_low, odd_low) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (even_high, odd_high) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
        columns[column] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
        columns[8 + column] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
        columns[4 + column] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
        columns[12 + column] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_transposed() {
        if !super::super::is_available() {
            eprintln!("passed over: this processor lacks the tile unit");
            return;
        }
        let value = |row: usize, column: usize| (16 * row + column) as f32;
        let lanes: [[f32; 16]; 16] = std::array::from_fn(|row| std::array::from_fn(|column| value(row, column)));
        // SAFETY: the processor has the features, and both types are sixteen f32.
        let found: [[f32; 16]; 16] = unsafe {
            transpose_pairs(lanes.map(|row| _mm512_loadu_si512(row.as_ptr().cast())))
                .map(|row| std::mem::transmute(row))
        };
        for (row, lanes) in found.iter().enumerate() {
            for (column, &lane) in lanes.iter().enumerate() {
                assert_eq!(lane, value(column, row));
            }
        }
    }
}

//! The values of operands in fixed point along the axis that is summed over, wherever they lie.

use std::arch::x86_64::*;

use super::digits::Peak;
use super::fixed::QUAD;
use super::product::TILE;

/// The shared axis of sixteen rows or columns: a vector for each of its values.
pub(crate) trait Axis: Copy {
    fn len(self) -> usize;

    /// # Safety
    /// The processor has AVX-512 F; there is such a vector.
    unsafe fn load(self, index: usize) -> __m512;
}

/// Vectors side by side.
impl Axis for &[[f32; TILE]] {
    #[inline(always)]
    fn len(self) -> usize {
        <[_]>::len(self)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(self, index: usize) -> __m512 {
        // SAFETY: the caller's; sixteen values are a vector.
        unsafe { _mm512_loadu_ps(self.as_ptr().add(index).cast()) }
    }
}

/// Sixteen channels, from `first` on, of pixels that lie anywhere.
#[derive(Clone, Copy)]
pub(crate) struct Pixels<'a> {
    pub(crate) pixels: &'a [&'a [f32]],
    pub(crate) first: usize,
}

impl Axis for Pixels<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.pixels.len()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(self, index: usize) -> __m512 {
        // SAFETY: the caller's; whoever names pixels vouches for their channels.
        unsafe { _mm512_loadu_ps(self.pixels.get_unchecked(index).as_ptr().add(self.first)) }
    }
}

/// An axis each of whose vectors has a factor.
#[derive(Clone, Copy)]
pub(super) struct Balanced<'a, A> {
    pub(super) axis: A,
    pub(super) factors: &'a [f32],
}

impl<A: Axis> Axis for Balanced<'_, A> {
    #[inline(always)]
    fn len(self) -> usize {
        self.axis.len()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(self, index: usize) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_mul_ps(self.axis.load(index), _mm512_set1_ps(self.factors[index])) }
    }
}

/// The values of one row, sixteen at a time, and their factors.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) values: &'a [[f32; TILE]],
    pub(super) factors: &'a [[f32; TILE]],
}

impl Axis for Row<'_> {
    #[inline(always)]
    fn len(self) -> usize {
        self.values.len()
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(self, index: usize) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_mul_ps(self.values.load(index), self.factors.load(index)) }
    }
}

/// The largest value of each lane, looked for in four chains: one would wait for itself.
///
/// # Safety
/// The vectors can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn peak(axis: impl Axis) -> Peak {
    let mut peaks = [Peak::none(); QUAD];
    let whole = axis.len() / QUAD * QUAD;
    // SAFETY: the caller's.
    unsafe {
        for first in (0..whole).step_by(QUAD) {
            for (index, peak) in peaks.iter_mut().enumerate() {
                *peak = peak.with(axis.load(first + index));
            }
        }
        for index in whole..axis.len() {
            peaks[0] = peaks[0].with(axis.load(index));
        }
    }
    peaks[0].or(peaks[1]).or(peaks[2].or(peaks[3]))
}

/// The vectors of a quad: four from `first` on, so far apart; zeros beyond the last one.
///
/// # Safety
/// The vectors can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn quad(axis: impl Axis, first: usize, apart: usize) -> [__m512; QUAD] {
    let mut quad = [_mm512_setzero_ps(); QUAD];
    for (index, lanes) in quad.iter_mut().enumerate() {
        let index = first + index * apart;
        if index < axis.len() {
            // SAFETY: the caller's.
            *lanes = unsafe { axis.load(index) };
        }
    }
    quad
}

//! AVX2 with FMA: vectors of eight lanes.

use std::arch::x86_64::*;

use super::{InstructionSet, TileSize, Vector, Work, tiles};
use crate::tile::{Product, Start};

pub(super) struct Avx2;

/// # Safety
/// The processor has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<W: Work>(work: W) -> W::Output {
    // SAFETY: the features are on.
    unsafe { work.run::<Avx2>() }
}

impl InstructionSet for Avx2 {
    type Wide = __m256;
    type Narrow = __m256;

    /// Twelve accumulators, two vectors of the right matrix, one broadcast: 15 of 16 registers.
    const MAX_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn tile(size: TileSize, product: &Product<'_>, start: Start) {
        tiles!(#[target_feature(enable = "avx2,fma")] __m256, size, product, start, [1 2 3 4 5 6])
    }
}

/// A mask of the first `count` of eight lanes.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), lanes)
    }
}

// SAFETY of every block below: the trait's contract is the intrinsics' own.
impl Vector for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: see above; lanes outside the mask are not read.
        unsafe { _mm256_maskload_ps(from, first(count)) }
    }

    #[inline(always)]
    unsafe fn load_strided(from: *const f32, stride: usize, count: usize) -> Self {
        // SAFETY: see above; lanes outside the mask are not read.
        unsafe {
            let lanes = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
            let places = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(stride as i32));
            let mask = _mm256_castsi256_ps(first(count));
            _mm256_mask_i32gather_ps::<4>(_mm256_setzero_ps(), from, places, mask)
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: see above; lanes outside the mask are not written.
        unsafe { _mm256_maskstore_ps(to, first(count), self) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: see above; the caller vouches for the alignment.
        unsafe { _mm256_stream_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_mul_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_fmadd_ps(self, factor, term) }
    }

    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_fnmadd_ps(self, factor, term) }
    }
}

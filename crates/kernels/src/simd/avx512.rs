//! AVX-512: vectors of sixteen lanes, and of eight for few channels.

use std::arch::x86_64::*;

use super::{InstructionSet, TileSize, Vector, Work, tiles};
use crate::tile::{Product, Start};

pub(super) struct Avx512;

/// # Safety
/// The processor has AVX-512 F, VL, DQ and BW, and FMA.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
pub(super) unsafe fn run<W: Work>(work: W) -> W::Output {
    // SAFETY: the features are on.
    unsafe { work.run::<Avx512>() }
}

impl InstructionSet for Avx512 {
    type Wide = __m512;
    type Narrow = __m256;

    /// 28 accumulators, two vectors of the right matrix, one broadcast: 31 of 32 registers.
    const MAX_ROWS: usize = 14;

    #[inline(always)]
    unsafe fn tile(size: TileSize, product: &Product<'_>, start: Start) {
        if size.narrow {
            tiles!(
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                __m256, size, product, start, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]
            )
        } else {
            tiles!(
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                __m512, size, product, start, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]
            )
        }
    }
}

/// A mask of the first `count` of sixteen lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

// SAFETY of every block below: the trait's contract is the intrinsics' own.
impl Vector for __m512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: see above; lanes outside the mask are not read.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }

    #[inline(always)]
    unsafe fn load_strided(from: *const f32, stride: usize, count: usize) -> Self {
        // SAFETY: see above; lanes outside the mask are not read.
        unsafe {
            let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride as i32));
            _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), first(count), places, from)
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: see above; lanes outside the mask are not written.
        unsafe { _mm512_mask_storeu_ps(to, first(count), self) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: see above; the caller vouches for the alignment.
        unsafe { _mm512_stream_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(self, factor, term) }
    }

    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_fnmadd_ps(self, factor, term) }
    }
}

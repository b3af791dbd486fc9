//! Plain Rust for any processor: eight lanes in an array, which the compiler spreads over the baseline's registers.

use super::{InstructionSet, TileSize, Vector, tiles};
use crate::tile::{Product, Start};

pub(crate) struct Portable;

impl InstructionSet for Portable {
    type Wide = Lanes;
    type Narrow = Lanes;

    /// Two of the baseline's registers hold a vector, so six of eight vectors' worth are accumulators.
    const MAX_ROWS: usize = 3;

    #[inline(always)]
    unsafe fn tile(size: TileSize, product: &Product<'_>, start: Start) {
        tiles!(Lanes, size, product, start, [1 2 3])
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Lanes([f32; 8]);

impl Lanes {
    #[inline(always)]
    fn zip(self, other: Self, combine: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| combine(self.0[lane], other.0[lane])))
    }
}

impl Vector for Lanes {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for eight values; an array of f32 asks for no other alignment.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller vouches for the first `count` values.
        Self(std::array::from_fn(|lane| if lane < count { unsafe { from.add(lane).read() } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn load_strided(from: *const f32, stride: usize, count: usize) -> Self {
        // SAFETY: the caller vouches for the first `count` values.
        Self(std::array::from_fn(|lane| if lane < count { unsafe { from.add(lane * stride).read() } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for eight values.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: the caller vouches for the first `count` values.
            unsafe { to.add(lane).write(value) }
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |left, right| left + right)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |left, right| left - right)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |left, right| left * right)
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        self.zip(factor, |left, right| left * right).zip(term, |product, term| product + term)
    }

    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, term: Self) -> Self {
        self.zip(factor, |left, right| left * right).zip(term, |product, term| term - product)
    }
}

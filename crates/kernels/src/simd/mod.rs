//! Vectors of f32 under each instruction set, and the choice of one when the program runs.
//!
//! Work that wants vectors implements [`Work`]; [`run`] compiles it once per instruction set and calls the
//! version for this processor. Inside, everything is inlined into a function that has the set switched on.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod path;
mod portable;

pub use path::{CpuPath, cpu_path, set_cpu_path};
pub(crate) use path::{Selected, selected};
pub(crate) use portable::Portable;

use crate::tile::{Product, Start};

/// A register of f32 lanes.
///
/// # Safety
/// A method may be called only on a processor with the instruction set; pointers must be valid for the lanes they
/// are read or written for. No alignment is needed.
pub(crate) trait Vector: Copy {
    /// Number of lanes.
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` lanes, the others 0; nothing beyond them is read.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    /// Values `stride` apart, `count` of them; the other lanes 0.
    unsafe fn load_strided(from: *const f32, stride: usize, count: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_first(self, to: *mut f32, count: usize);
    /// Stores past the caches, where the processor can; `to` is aligned to the vector.
    ///
    /// Other threads see it only after [`fence_streams`].
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: the caller's contract includes that of `store`.
        unsafe { self.store(to) }
    }
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self · factor + term`, rounded once where the processor can.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `term − self · factor`, rounded once where the processor can.
    unsafe fn neg_mul_add(self, factor: Self, term: Self) -> Self;
}

/// Makes what this thread has streamed visible to others that it synchronises with.
#[inline(always)]
pub(crate) fn fence_streams() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Vectors of one instruction set, and its product of a register tile.
pub(crate) trait InstructionSet {
    /// The widest vector.
    type Wide: Vector;
    /// The vector for at most eight channels.
    type Narrow: Vector;

    /// Rows of a tile at most: as many as leave no accumulator without a register.
    const MAX_ROWS: usize;

    /// One tile of `rows` rows and `vectors` vectors (1 or 2) of columns of [`Self::Wide`] or, where `narrow`, of
    /// [`Self::Narrow`]; see [`crate::tile`].
    ///
    /// # Safety
    /// As for [`Vector`], and `product` as [`Product`] asks.
    unsafe fn tile(size: TileSize, product: &Product<'_>, start: Start);
}

/// Which tile.
#[derive(Clone, Copy)]
pub(crate) struct TileSize {
    pub(crate) rows: usize,
    pub(crate) vectors: usize,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "the portable set has one vector"))]
    pub(crate) narrow: bool,
    /// Whether the left matrix lies with its columns in rows.
    pub(crate) transposed: bool,
}

/// Work that is compiled once per instruction set.
pub(crate) trait Work {
    /// What it gives.
    type Output;

    /// Does it; to be `#[inline(always)]`, as is everything below that uses vectors.
    ///
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn run<I: InstructionSet>(self) -> Self::Output;
}

/// Runs the version for a path.
pub(crate) fn run<W: Work>(path: Selected, work: W) -> W::Output {
    match path.path() {
        // SAFETY: a path is selected only where the processor has its instruction set.
        #[cfg(target_arch = "x86_64")]
        CpuPath::AmxBf16 | CpuPath::Amx | CpuPath::Avx512 => unsafe { avx512::run(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 => unsafe { avx2::run(work) },
        // SAFETY: every processor has the baseline's instructions.
        _ => unsafe { work.run::<Portable>() },
    }
}

/// Implements [`InstructionSet::tile`]'s choice: a function of its own per size, with the set switched on.
macro_rules! tiles {
    ($(#[$features:meta])* $vector:ty, $size:expr, $product:expr, $start:expr, [$($rows:literal)*]) => {{
        $(#[$features])*
        unsafe fn sized<const ROWS: usize, const VECTORS: usize, const TRANSPOSED: bool>(
            product: &crate::tile::Product<'_>,
            start: crate::tile::Start,
        ) {
            // SAFETY: the caller of `InstructionSet::tile` vouches for the processor and the operands.
            unsafe { crate::tile::tile::<$vector, ROWS, VECTORS, TRANSPOSED>(product, start) }
        }
        match ($size.rows, $size.vectors, $size.transposed) {
            // SAFETY: as above.
            $(($rows, 1, false) => unsafe { sized::<$rows, 1, false>($product, $start) },
            ($rows, 2, false) => unsafe { sized::<$rows, 2, false>($product, $start) },
            ($rows, 1, true) => unsafe { sized::<$rows, 1, true>($product, $start) },
            ($rows, 2, true) => unsafe { sized::<$rows, 2, true>($product, $start) },)*
            (rows, vectors, _) => unreachable!("a tile of {rows} rows and {vectors} vectors"),
        }
    }};
}
use tiles;

//! Results that workers fill in parallel.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A new vector of `len` elements, written in parallel by `work(chunk index, chunk)`.
///
/// Chunks are `chunk` elements long, the last one shorter. Nothing is zeroed before, which would take each line of
/// memory twice.
///
/// # Safety
/// `work` writes every element of its chunk.
pub(crate) unsafe fn build_unset(
    len: usize,
    chunk: usize,
    work: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync,
) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    let chunks = values.spare_capacity_mut()[..len].par_chunks_mut(chunk.max(1));
    chunks.enumerate().for_each(|(index, chunk)| work(index, chunk));
    // SAFETY: the capacity is at least `len`, and the caller vouches that every chunk is written.
    unsafe { values.set_len(len) };
    values
}

/// As [`build_unset`], for work that does not write everything.
///
/// Chunks are `chunk` elements long, the last one shorter; they reach `work` as zeros. The worker
/// zeroes its own chunk, in its cache: zeroing a large vector in one go would cost a serial pass
/// over memory and take every page fault on one thread.
pub(crate) fn build(len: usize, chunk: usize, work: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    // SAFETY: `zeroed` writes the whole chunk.
    unsafe { build_unset(len, chunk, |index, chunk| work(index, zeroed(chunk))) }
}

fn zeroed(chunk: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    chunk.fill(MaybeUninit::new(0.0));
    // SAFETY: every element has just been written, and `MaybeUninit<f32>` has the layout of `f32`.
    unsafe { &mut *(std::ptr::from_mut(chunk) as *mut [f32]) }
}

/// The chunk with this index of a slice cut as [`build`] cuts its result.
pub(crate) fn nth_chunk(values: &[f32], chunk: usize, index: usize) -> &[f32] {
    let start = (index * chunk).min(values.len());
    &values[start..(start + chunk).min(values.len())]
}

/// A result under construction, which workers share: each writes parts that are its own.
#[derive(Clone, Copy)]
pub(crate) struct Parts(*mut f32);

// SAFETY: `build_parts` asks its workers to touch disjoint elements.
unsafe impl Send for Parts {}
// SAFETY: as above.
unsafe impl Sync for Parts {}

impl Parts {
    /// The parts of a buffer that stays borrowed as long as workers may write to it.
    pub(crate) fn of(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The first element.
    pub(crate) fn start(self) -> *mut f32 {
        self.0
    }
}

/// A new vector of `len` elements, filled in parallel by `work(part index, result)` for each of `parts`.
///
/// For results whose parts are not chunks: tiles of an image, say. Nothing is zeroed before.
///
/// # Safety
/// The calls of `work` together write every element, and no two of them touch the same one.
pub(crate) unsafe fn build_parts(len: usize, parts: usize, work: impl Fn(usize, Parts) + Sync) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    let result = Parts(values.as_mut_ptr());
    (0..parts).into_par_iter().with_max_len(1).for_each(|part| work(part, result));
    // SAFETY: the capacity is at least `len`, and the caller vouches for every element.
    unsafe { values.set_len(len) };
    values
}

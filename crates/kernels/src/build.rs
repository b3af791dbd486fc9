use std::mem::MaybeUninit;

use rayon::prelude::*;

/// A new vector of `len` elements, filled in parallel by `work(chunk index, chunk)`.
///
/// Chunks are `chunk` elements long, the last one shorter; they reach `work` as zeros. The worker
/// zeroes its own chunk, in its cache: zeroing a large vector in one go would cost a serial pass
/// over memory and take every page fault on one thread.
pub(crate) fn build(len: usize, chunk: usize, work: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    values.spare_capacity_mut()[..len]
        .par_chunks_mut(chunk.max(1))
        .enumerate()
        .for_each(|(index, chunk)| work(index, zeroed(chunk)));
    // SAFETY: the capacity is at least `len`, and the chunks above cover and initialise `0..len`.
    unsafe { values.set_len(len) };
    values
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

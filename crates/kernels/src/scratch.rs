//! Memory that lives for one task: each thread keeps its buffers for the next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A cache line; vectors that start on one are read in one go.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; LINE]);

/// Elements of a cache line.
pub(crate) const LINE: usize = 16;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer on loan from this thread, which starts on a cache line.
///
/// Each worker thread keeps its buffers, because asking the system for fresh pages costs more than
/// filling a tile that is still in the cache.
pub(crate) struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// Room for `len` elements with unspecified contents.
    pub(crate) fn lend(len: usize) -> Self {
        let count = len.div_ceil(LINE);
        let mut lines = BUFFERS.with(|buffers| take_fitting(&mut buffers.borrow_mut(), count));
        if lines.len() < count {
            lines = vec![Line([0.0; LINE]); count];
        }
        Self { lines, len }
    }

    /// Room for `len` elements that are 0.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Self::lend(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // On a thread that is ending the list may be gone, and the buffer goes with it.
        let _ = BUFFERS.try_with(|buffers| buffers.borrow_mut().push(lines));
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        // SAFETY: lines are `LINE` elements each without padding, and `len` elements lie inside them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<f32>(), self.len) }
    }
}

impl DerefMut for Buffer {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `deref`, and the lines are exclusively this buffer's.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<f32>(), self.len) }
    }
}

/// The smallest buffer with room for `lines`, or else the largest.
fn take_fitting(buffers: &mut Vec<Vec<Line>>, lines: usize) -> Vec<Line> {
    let fits = |buffer: &Vec<Line>| (buffer.len() < lines, buffer.len().abs_diff(lines));
    let best = (0..buffers.len()).min_by_key(|&index| fits(&buffers[index]));
    best.map(|index| buffers.swap_remove(index)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_lent_again() {
        let outer = Buffer::lend(1000);
        let address = outer.as_ptr() as usize;
        assert_eq!((address % 64, outer.len()), (0, 1000));
        let mut inner = Buffer::lend(10);
        inner.fill(7.0);
        assert_ne!(inner.as_ptr(), outer.as_ptr());
        drop(inner);
        drop(outer);
        assert_eq!(Buffer::lend(900).as_ptr() as usize, address);
        assert!(Buffer::zeros(10).iter().all(|&value| value == 0.0));
    }
}

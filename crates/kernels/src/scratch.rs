//! Memory that lives for one task: each thread keeps its buffers for the next.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Elements of a cache line; vectors that start on one are read in one go.
pub(crate) const LINE: usize = 16;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Bytes of a large page of x86-64 and of most AArch64 systems.
///
/// A transform writes 36 planes at once. On pages of 4 KiB that is more of them than a core's table of pages to
/// write to has entries (16 on Golden Cove), and the transforms took twice as long.
const LARGE_PAGE: usize = 2 << 20;

thread_local! {
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Memory of a thread.
struct Block {
    start: NonNull<f32>,
    layout: Layout,
}

impl Block {
    fn new(len: usize) -> Self {
        let bytes = len.max(1) * size_of::<f32>();
        let align = if bytes >= LARGE_PAGE / 8 { LARGE_PAGE } else { LINE_BYTES };
        let layout = Layout::from_size_align(bytes.next_multiple_of(align), align);
        let layout = layout.unwrap_or_else(|_| handle_alloc_error(Layout::new::<f32>()));
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start.cast::<f32>()) else { handle_alloc_error(layout) };
        let block = Self { start, layout };
        // Before the first touch, which is what takes the pages.
        block.ask_for_large_pages();
        // SAFETY: the block has this many bytes.
        unsafe { block.start.as_ptr().cast::<u8>().write_bytes(0, layout.size()) };
        block
    }

    fn ask_for_large_pages(&self) {
        #[cfg(target_os = "linux")]
        if self.layout.align() == LARGE_PAGE {
            // SAFETY: the advice concerns whole pages of this block and changes no contents. If it is not taken, the
            // block is as good as before, so its result does not matter.
            unsafe { libc::madvise(self.start.as_ptr().cast(), self.layout.size(), libc::MADV_HUGEPAGE) };
        }
    }

    fn len(&self) -> usize {
        self.layout.size() / size_of::<f32>()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not freed before.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

/// A buffer on loan from this thread, which starts on a cache line.
///
/// Each worker thread keeps its blocks, because asking the system for fresh pages costs more than
/// filling a tile that is still in the cache.
pub(crate) struct Buffer {
    /// Taken out when the loan ends.
    block: Option<Block>,
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a buffer owns its block, as a vector would.
unsafe impl Send for Buffer {}
// SAFETY: shared buffers are only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Room for `len` elements with unspecified contents.
    pub(crate) fn lend(len: usize) -> Self {
        let fitting = BLOCKS.with(|blocks| take_fitting(&mut blocks.borrow_mut(), len));
        let block = fitting.filter(|block| block.len() >= len).unwrap_or_else(|| Block::new(len));
        Self { start: block.start, block: Some(block), len }
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
        let block = self.block.take();
        // On a thread that is ending the list may be gone, and the block goes with it.
        let _ = BLOCKS.try_with(|blocks| blocks.borrow_mut().extend(block));
    }
}

impl Deref for Buffer {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        // SAFETY: the block has room for `len` elements, all of them written at least once, with zeros.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `deref`, and the block is exclusively this buffer's.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// The smallest block with room for `len` elements, or else the largest.
fn take_fitting(blocks: &mut Vec<Block>, len: usize) -> Option<Block> {
    let key = |block: &Block| (block.len() < len, block.len().abs_diff(len));
    let best = (0..blocks.len()).min_by_key(|&index| key(&blocks[index]))?;
    Some(blocks.swap_remove(best))
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

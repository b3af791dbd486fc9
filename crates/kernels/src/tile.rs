//! The product of a register tile: the inner loop of every convolution.
//!
//! A tile of rows × columns of the result stays in registers while the shared axis is walked. The shared axis may lie
//! in several segments of both operands, so that the taps of a convolution's window need no copy side by side.

use crate::scratch::LINE;
use crate::simd::{InstructionSet, TileSize, Vector};

/// Where one stretch of the shared axis starts in both operands, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) left: usize,
    pub(crate) right: usize,
}

impl Segment {
    /// The whole shared axis in one stretch.
    pub(crate) const WHOLE: [Self; 1] = [Self { left: 0, right: 0 }];
}

/// What a tile starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Zero,
    /// What the destination holds.
    Destination,
    /// One value per column, for all vectors of the tile.
    Bias(*const f32),
}

/// `out[i, j] = start + Σ left[i, k] · right[k, j]`, over all segments and `depth` values of k in each.
///
/// Every `k` of the right matrix is read in whole vectors. The sum of an element runs over the segments in order.
///
/// # Safety
/// Whoever runs a product vouches that pointers, strides (elements), segments and depth stay within their buffers for
/// the tile's size, and that nothing else touches the destination meanwhile.
pub(crate) struct Product<'a> {
    /// Element (0, 0) of the left matrix.
    pub(crate) left: *const f32,
    /// Between rows, or for a transposed one between columns; the other neighbour is one element away.
    pub(crate) left_stride: usize,
    pub(crate) right: *const f32,
    /// Between rows; a left matrix that is not transposed asks for rows of whole vectors, side by side.
    pub(crate) right_stride: usize,
    pub(crate) out: *mut f32,
    /// Between rows.
    pub(crate) out_stride: usize,
    pub(crate) segments: &'a [Segment],
    pub(crate) depth: usize,
    /// Lanes of the last vector of columns that are written.
    pub(crate) last_lanes: usize,
    /// What is asked for meanwhile because a later product needs it.
    pub(crate) ahead: Ahead,
}

/// A stretch of memory that later work needs, asked for a cache line at a time while products are formed: it then comes
/// from the third-level cache or from memory without anyone waiting for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    start: *const f32,
    lines: usize,
}

impl Ahead {
    pub(crate) const NOTHING: Self = Self { start: std::ptr::null(), lines: 0 };

    /// `len` elements from an address, which may lie anywhere.
    pub(crate) fn of(start: *const f32, len: usize) -> Self {
        Self { start, lines: len.div_ceil(LINE) }
    }

    /// One of `count` parts.
    pub(crate) fn part(self, index: usize, count: usize) -> Self {
        let lines = self.lines.div_ceil(count.max(1));
        self.after(index * lines).first(lines)
    }

    /// What follows the first `lines`.
    fn after(self, lines: usize) -> Self {
        let lines = lines.min(self.lines);
        Self { start: self.start.wrapping_add(lines * LINE), lines: self.lines - lines }
    }

    fn first(self, lines: usize) -> Self {
        Self { lines: lines.min(self.lines), ..self }
    }
}

/// Rows that share a pointer: offsets of up to three strides need no register of their own.
const GROUP: usize = 4;

/// Groups of rows at most.
const GROUPS: usize = 4;

/// Steps along the shared axis between changes of addresses.
const STEPS: usize = 4;

/// Rows of the right matrix that are asked for ahead of use.
const AHEAD: usize = 32;

/// Rows of a transposed left matrix that are asked for ahead of use: each is on another line.
const ROWS_AHEAD: usize = 8;

/// A pointer whose origin the compiler does not see through.
///
/// It would otherwise keep one pointer per row of the tile in a register, and spill most of them.
#[inline(always)]
#[cfg_attr(target_arch = "x86_64", allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written"))]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
fn opaque(mut pointer: *const f32) -> *const f32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the assembly is a comment; the register keeps its value.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    pointer
}

/// As [`opaque`], for a distance.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
fn opaque_distance(mut distance: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the assembly is a comment; the register keeps its value.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) distance, options(pure, nomem, nostack, preserves_flags));
    }
    distance
}

/// Asks for the cache line of an address, which may lie anywhere.
#[inline(always)]
pub(crate) fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// As [`prefetch`], into the second-level cache.
#[inline(always)]
fn prefetch_far(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// One tile; see [`Product`].
///
/// # Safety
/// As [`InstructionSet::tile`].
#[inline(always)]
pub(crate) unsafe fn tile<V: Vector, const ROWS: usize, const VECTORS: usize, const TRANSPOSED: bool>(
    product: &Product<'_>,
    start: Start,
) {
    // SAFETY: the caller vouches for processor and operands.
    unsafe {
        let mut sums = begin::<V, ROWS, VECTORS>(product, start);
        for segment in product.segments {
            let left = product.left.add(segment.left);
            let right = product.right.add(segment.right);
            match TRANSPOSED {
                true => walk_transposed::<V, ROWS, VECTORS>(&mut sums, left, right, product),
                false => walk::<V, ROWS, VECTORS>(&mut sums, left, right, product),
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let out = product.out.add(row * product.out_stride);
            for (index, sum) in sums.iter().enumerate() {
                let out = out.add(index * V::LANES);
                let is_partial = index + 1 == VECTORS && product.last_lanes < V::LANES;
                match (start, is_partial) {
                    (Start::Destination, false) => sum.add(V::load(out)).store(out),
                    (Start::Destination, true) => {
                        sum.add(V::load_first(out, product.last_lanes)).store_first(out, product.last_lanes);
                    }
                    (_, false) => sum.store(out),
                    (_, true) => sum.store_first(out, product.last_lanes),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn begin<V: Vector, const ROWS: usize, const VECTORS: usize>(
    product: &Product<'_>,
    start: Start,
) -> [[V; VECTORS]; ROWS] {
    // SAFETY: the caller vouches for processor and operands.
    unsafe {
        let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (index, sum) in sums.iter_mut().enumerate() {
                let is_partial = index + 1 == VECTORS && product.last_lanes < V::LANES;
                let lanes = if is_partial { product.last_lanes } else { V::LANES };
                match start {
                    Start::Zero => {}
                    // Added at the end: by then it has come from wherever it was.
                    Start::Destination => prefetch(product.out.add(row * product.out_stride + index * V::LANES)),
                    Start::Bias(bias) => *sum = V::load_first(bias.add(index * V::LANES), lanes),
                }
            }
        }
        sums
    }
}

/// Rows of the right matrix lie side by side here, so that several steps share the arithmetic on addresses, which
/// would otherwise take the place of products.
#[inline(always)]
unsafe fn walk<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    left: *const f32,
    mut right: *const f32,
    product: &Product<'_>,
) {
    // A line for each value of the shared axis, or else once more what is read anyway.
    let mut ahead = if product.ahead.lines > 0 { product.ahead.start } else { right };
    let (one, three) = (opaque_distance(product.left_stride), opaque_distance(3 * product.left_stride));
    // SAFETY: the caller vouches for processor and operands; prefetched addresses are never read.
    unsafe {
        let mut groups = [left; GROUPS];
        for (index, group) in groups.iter_mut().enumerate().take(ROWS.div_ceil(GROUP)) {
            *group = left.add(index * GROUP * product.left_stride);
        }
        for _ in 0..product.depth / STEPS {
            for group in groups.iter_mut().take(ROWS.div_ceil(GROUP)) {
                *group = opaque(*group);
            }
            for step in 0..STEPS {
                walk_step(sums, &groups, [one, three], step, right.add(step * VECTORS * V::LANES));
                prefetch_far(ahead.wrapping_add(step * LINE));
            }
            ahead = ahead.wrapping_add(STEPS * LINE);
            for group in groups.iter_mut().take(ROWS.div_ceil(GROUP)) {
                *group = group.add(STEPS);
            }
            right = right.add(STEPS * VECTORS * V::LANES);
        }
        for step in 0..product.depth % STEPS {
            walk_step(sums, &groups, [one, three], step, right.add(step * VECTORS * V::LANES));
        }
    }
}

/// One value of the shared axis.
#[inline(always)]
unsafe fn walk_step<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    groups: &[*const f32; GROUPS],
    [one, three]: [usize; 2],
    step: usize,
    right: *const f32,
) {
    // SAFETY: the caller vouches for processor and operands; prefetched addresses are never read.
    unsafe {
        let mut columns = [V::splat(0.0); VECTORS];
        for (index, column) in columns.iter_mut().enumerate() {
            *column = V::load(right.add(index * V::LANES));
            prefetch(right.wrapping_add((AHEAD * VECTORS + index) * V::LANES));
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let group = groups[row / GROUP];
            let value = match row % GROUP {
                0 => group,
                1 => group.add(one),
                2 => group.add(2 * one),
                _ => group.add(three),
            };
            let value = V::splat(*value.add(step));
            for (sum, columns) in sums.iter_mut().zip(columns) {
                *sum = value.mul_add(columns, *sum);
            }
        }
    }
}

#[inline(always)]
unsafe fn walk_transposed<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    mut left: *const f32,
    mut right: *const f32,
    product: &Product<'_>,
) {
    let mut ahead = if product.ahead.lines > 0 { product.ahead.start } else { right };
    // SAFETY: the caller vouches for processor and operands; prefetched addresses are never read.
    unsafe {
        for _ in 0..product.depth {
            prefetch_far(ahead);
            ahead = ahead.wrapping_add(LINE);
            prefetch(left.wrapping_add(ROWS_AHEAD * product.left_stride));
            let mut columns = [V::splat(0.0); VECTORS];
            for (index, column) in columns.iter_mut().enumerate() {
                *column = V::load(right.add(index * V::LANES));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = V::splat(*left.add(row));
                for (sum, columns) in sums.iter_mut().zip(columns) {
                    *sum = value.mul_add(columns, *sum);
                }
            }
            left = left.add(product.left_stride);
            right = right.add(product.right_stride);
        }
    }
}

/// Sizes of `total` rows in parts of at most `most`, as even as possible: offset and size of each.
#[inline(always)]
pub(crate) fn even_parts(total: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let parts = total.div_ceil(most);
    let (size, larger) = (total.checked_div(parts).unwrap_or(0), total.checked_rem(parts).unwrap_or(0));
    (0..parts).map(move |part| (part * size + part.min(larger), size + usize::from(part < larger)))
}

/// How columns are cut into panels that fill one or two vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels {
    columns: usize,
    lanes: usize,
}

/// Some columns of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panel {
    /// First column.
    pub(crate) first: usize,
    /// 1 or 2.
    pub(crate) vectors: usize,
    /// Columns with room for whole vectors.
    pub(crate) width: usize,
    /// Columns of the last vector that the matrix has.
    pub(crate) last_lanes: usize,
}

impl Panels {
    /// Whether so few columns fit one narrow vector.
    pub(crate) fn are_narrow<I: InstructionSet>(columns: usize) -> bool {
        columns <= I::Narrow::LANES
    }

    /// The panels of `columns` columns under an instruction set.
    pub(crate) fn new<I: InstructionSet>(columns: usize) -> Self {
        let narrow = Self::are_narrow::<I>(columns);
        Self { columns, lanes: if narrow { I::Narrow::LANES } else { I::Wide::LANES } }
    }

    /// Columns rounded up to whole vectors.
    pub(crate) fn padded(&self) -> usize {
        self.columns.next_multiple_of(self.lanes)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.columns.div_ceil(2 * self.lanes)
    }

    /// The panels from first to last.
    pub(crate) fn iter(self) -> impl Iterator<Item = Panel> {
        let Self { columns, lanes } = self;
        (0..columns).step_by(2 * lanes).map(move |first| {
            let vectors = (columns - first).div_ceil(lanes).min(2);
            let last_lanes = (columns - first - (vectors - 1) * lanes).min(lanes);
            Panel { first, vectors, width: vectors * lanes, last_lanes }
        })
    }
}

/// All rows of one panel: tiles of up to [`InstructionSet::MAX_ROWS`] rows.
///
/// # Safety
/// The processor has the instruction set, and `product` stays within its buffers for `rows` rows and the panel.
#[inline(always)]
pub(crate) unsafe fn multiply<I: InstructionSet>(
    rows: usize,
    panel: Panel,
    narrow: bool,
    transposed: bool,
    product: Product<'_>,
    start: Start,
) {
    let left_step = if transposed { 1 } else { product.left_stride };
    for (index, (first, rows)) in even_parts(rows, I::MAX_ROWS).enumerate() {
        // SAFETY: the caller vouches for the whole, of which these rows are a part.
        unsafe {
            let tile = Product {
                left: product.left.add(first * left_step),
                out: product.out.add(first * product.out_stride),
                ahead: product.ahead.after(index * product.depth),
                ..product
            };
            I::tile(TileSize { rows, vectors: panel.vectors, narrow, transposed }, &tile, start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn parts_cover_and_differ_by_one_at_most() {
        for (total, most) in [(0, 14), (1, 14), (14, 14), (15, 14), (32, 14), (49, 6), (7, 3)] {
            let parts: Vec<_> = even_parts(total, most).collect();
            let mut next = 0;
            for &(first, size) in &parts {
                assert_eq!(first, next);
                assert!(size > 0 && size <= most);
                next += size;
            }
            assert_eq!(next, total);
            let sizes = || parts.iter().map(|part| part.1);
            assert!(sizes().max().unwrap_or(0) <= sizes().min().unwrap_or(0) + 1);
        }
    }

    #[test]
    fn panels_cover_all_columns() {
        for columns in [1, 7, 8, 9, 16, 17, 24, 31, 100] {
            let panels: Vec<_> = Panels::new::<Portable>(columns).iter().collect();
            let covered: usize = panels.iter().map(|panel| (panel.vectors - 1) * 8 + panel.last_lanes).sum();
            assert_eq!(covered, columns);
            assert!(panels.iter().rev().skip(1).all(|panel| panel.last_lanes == 8));
            let end = panels.last().map_or(0, |panel| panel.first + panel.width);
            assert_eq!(end, Panels::new::<Portable>(columns).padded());
        }
    }
}

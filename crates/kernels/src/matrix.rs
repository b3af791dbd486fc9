//! A safe face of the `gemm` crate: strided views whose bounds are checked once per product.

/// A matrix of f32 over a slice, with its strides in elements.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// First element is element (0, 0).
    pub(crate) values: &'a [f32],
    /// Distance between rows.
    pub(crate) row_stride: usize,
    /// Distance between columns.
    pub(crate) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `stride` elements, one after the other.
    pub(crate) fn rows(values: &'a [f32], stride: usize) -> Self {
        Self { values, row_stride: stride, column_stride: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        let Self { values, row_stride, column_stride } = self;
        Self { values, row_stride: column_stride, column_stride: row_stride }
    }

    fn covers(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// Whether a product replaces what the destination holds or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Replace,
    Add,
}

/// Columns per call of `gemm`: one AVX-512 register of outputs. Its kernels for two and four
/// registers spill accumulators and reach 75 and 35 GFLOP/s where this one reaches 100 (Zen 4, one core).
const PANEL: usize = 16;

/// Rows from which panels pay.
const MIN_PANEL_ROWS: usize = 24;

/// `destination (+)= left × right` with `[m, k] × [k, n]`; destination rows are `stride` apart.
///
/// One thread: callers split the work in fixed pieces, so that the order of sums never depends on
/// the number of threads.
pub(crate) fn multiply(
    [m, n, k]: [usize; 3],
    destination: &mut [f32],
    stride: usize,
    write: Write,
    left: Matrix<'_>,
    right: Matrix<'_>,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(left.covers(m, k) && right.covers(k, n), "operand of a matrix product is too short");
    assert!(n <= stride && (m - 1) * stride + n <= destination.len(), "destination of a matrix product is too short");
    // With few rows a call costs more than the spilling.
    let width = if m < MIN_PANEL_ROWS { n } else { PANEL };
    for first in (0..n).step_by(width) {
        let columns = width.min(n - first);
        let panel = &right.values[(first * right.column_stride).min(right.values.len())..];
        let right = Matrix { values: panel, ..right };
        // SAFETY: the two assertions above bound every element that the product reads and writes;
        // `destination` is exclusively borrowed and its rows do not overlap (`n <= stride`).
        unsafe { multiply_panel([m, columns, k], &mut destination[first..], stride, write, left, right) };
    }
}

/// One call of `gemm`.
///
/// # Safety
/// `left`, `right` and `destination` cover the sizes, and `n <= stride`.
unsafe fn multiply_panel(
    [m, n, k]: [usize; 3],
    destination: &mut [f32],
    stride: usize,
    write: Write,
    left: Matrix<'_>,
    right: Matrix<'_>,
) {
    // SAFETY: the caller vouches for the bounds.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            destination.as_mut_ptr(),
            1,
            stride as isize,
            write == Write::Add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

//! Which input pixel every output pixel reads under every tap.

use crate::conv::shape::ConvShape;

/// A tap of the kernel along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tap {
    /// Input position it reads, from the window's.
    pub(super) offset: isize,
    /// Its place in the kernel.
    pub(super) index: usize,
}

/// One axis of a [`Window`]: output `first + stride · n` reads input `step · n + offset` under each tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) first: usize,
    pub(super) stride: usize,
    pub(super) step: usize,
    /// Outputs on this axis.
    pub(super) count: usize,
    /// By offset, smallest first.
    pub(super) taps: Vec<Tap>,
}

impl Axis {
    fn forward(shape: &ConvShape, axis: usize) -> Self {
        let geometry = &shape.geometry;
        let tap = |index| {
            let offset = (index * geometry.dilation[axis]) as isize - geometry.padding[axis] as isize;
            Tap { offset, index }
        };
        let taps = (0..shape.kernel[axis]).map(tap).collect();
        Self { first: 0, stride: 1, step: geometry.stride[axis], count: shape.output[axis], taps }
    }

    /// The inputs at one position within the stride, and the gradients that reach them.
    fn backward(shape: &ConvShape, axis: usize, first: usize) -> Self {
        let geometry = &shape.geometry;
        let stride = geometry.stride[axis];
        let tap = |index: usize| {
            let distance = (first + geometry.padding[axis]) as isize - (index * geometry.dilation[axis]) as isize;
            (distance % stride as isize == 0).then(|| Tap { offset: distance / stride as isize, index })
        };
        let mut taps: Vec<Tap> = (0..shape.kernel[axis]).filter_map(tap).collect();
        taps.sort_by_key(|tap| tap.offset);
        let count = shape.input[axis].saturating_sub(first).div_ceil(stride);
        Self { first, stride, step: 1, count, taps }
    }

    /// Whether the taps read neighbouring pixels.
    fn is_dense(&self) -> bool {
        self.taps.windows(2).all(|pair| pair[1].offset == pair[0].offset + 1)
    }

    /// Inputs that `count` outputs read, from the first output's position: smallest and one beyond the largest.
    pub(super) fn reach(&self, count: usize) -> Option<(isize, isize)> {
        let (first, last) = (self.taps.first()?, self.taps.last()?);
        let span = count.checked_sub(1)? * self.step;
        Some((first.offset, last.offset + span as isize + 1))
    }
}

/// All outputs that are computed alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) rows: Axis,
    pub(super) columns: Axis,
}

impl Window {
    /// From `x` to `y`: all outputs are alike.
    pub(super) fn forward(shape: &ConvShape) -> Self {
        Self { rows: Axis::forward(shape, 0), columns: Axis::forward(shape, 1) }
    }

    /// From `dy` to `dx`: one window for each position within the stride.
    pub(super) fn backward(shape: &ConvShape) -> Vec<Self> {
        // Positions beyond a small image have no pixels.
        let [rows, columns] = [0, 1].map(|axis| shape.geometry.stride[axis].min(shape.input[axis]));
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        places
            .map(|(row, column)| Self {
                rows: Axis::backward(shape, 0, row),
                columns: Axis::backward(shape, 1, column),
            })
            .collect()
    }

    pub(super) fn taps(&self) -> usize {
        self.rows.taps.len() * self.columns.taps.len()
    }

    /// Whether a row of taps reads one stretch of memory, if pixels of a group lie side by side.
    pub(super) fn has_dense_rows(&self) -> bool {
        self.columns.is_dense()
    }
}

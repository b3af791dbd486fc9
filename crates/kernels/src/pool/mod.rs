//! Pooling: max, average, and the mean of the whole image.

mod average;
mod global;
mod max;

pub use average::avg_pool2d;
pub use global::global_avg_pool;
pub use max::max_pool2d;

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::geometry::PoolGeometry;
use crate::storage::{require_float, shape_error};

/// Every size of one pooling, checked once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolShape {
    pub(crate) images: usize,
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) channels: usize,
    pub(crate) geometry: PoolGeometry,
}

impl PoolShape {
    fn new(op: &'static str, x: &Tensor, geometry: &PoolGeometry) -> Result<Self> {
        require_float(op, "x", x)?;
        geometry.validate(op)?;
        let &[images, height, width, channels] = x.dims() else {
            return Err(shape_error(op, "x", x, "[n, h, w, c]".into()));
        };
        let input = [height, width];
        let windows = |axis: usize| geometry.windows(axis, input[axis]).filter(|&count| count > 0);
        let (Some(rows), Some(columns)) = (windows(0), windows(1)) else {
            let expected = format!("an image that holds a window of {:?}, padding included", geometry.kernel);
            return Err(shape_error(op, "x", x, expected));
        };
        Ok(Self { images, input, output: [rows, columns], channels, geometry: *geometry })
    }

    fn input_len(&self) -> usize {
        self.input[0] * self.input[1] * self.channels
    }

    pub(crate) fn output_len(&self) -> usize {
        self.output[0] * self.output[1] * self.channels
    }

    pub(crate) fn output_shape(&self) -> (usize, usize, usize, usize) {
        (self.images, self.output[0], self.output[1], self.channels)
    }

    /// Input positions under one window along one axis, without the padding.
    fn span(&self, axis: usize, window: usize) -> Range<usize> {
        let geometry = &self.geometry;
        let start = window * geometry.stride[axis];
        let end = (start + geometry.kernel[axis]).saturating_sub(geometry.padding[axis]);
        start.saturating_sub(geometry.padding[axis])..end.min(self.input[axis])
    }

    /// Rows and columns of the input under the window with this number, without the padding.
    fn pixels(&self, window: usize) -> (Range<usize>, Range<usize>) {
        (self.span(0, window / self.output[1]), self.span(1, window % self.output[1]))
    }

    /// Positions under one window along one axis that lie in the image or its padding.
    fn padded_span(&self, axis: usize, window: usize) -> usize {
        let geometry = &self.geometry;
        let start = window * geometry.stride[axis];
        (start + geometry.kernel[axis]).min(self.input[axis] + 2 * geometry.padding[axis]) - start
    }

    /// Visits each window of one image: its number and the offsets of its pixels in the image.
    fn for_each_window(&self, mut visit: impl FnMut([usize; 2], &mut dyn Iterator<Item = usize>)) {
        for row in 0..self.output[0] {
            for column in 0..self.output[1] {
                let (rows, columns) = (self.span(0, row), self.span(1, column));
                let mut pixels =
                    rows.flat_map(|y| columns.clone().map(move |x| (y * self.input[1] + x) * self.channels));
                visit([row, column], &mut pixels);
            }
        }
    }
}

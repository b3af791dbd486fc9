//! Winograd's minimal filtering F(4×4, 3×3) for 3×3 windows that move by one pixel (Lavin and Gray 2016).
//!
//! A tile of 4×4 outputs costs 36 products per pair of channels instead of 144. Tiles are taken through in blocks:
//! transform, 36 matrix products, transform back. The products are formed in vectors, or for many channels on the tile
//! unit. The gradient of the input is the same with the weights rotated; that of the weights is F(3×3, 4×4) with the roles
//! exchanged.
//!
//! The points are 0, ±√½, ±√2 and ∞. They lose as few digits as the direct sum does; the usual 0, ±1, ±2, ∞ lose
//! eight times as many.

mod forward;
mod gradient;
mod transform;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unit;
mod weights;

pub(super) use forward::forward;
pub(super) use gradient::weight_gradient;
pub(super) use weights::Direction;

use super::shape::ConvShape;
use crate::scratch::LINE;

/// Outputs of a tile along one axis.
const TILE: usize = 4;
/// Inputs under a tile along one axis.
const WINDOW: usize = 6;
/// Products per tile and pair of channels.
const POINTS: usize = WINDOW * WINDOW;
/// Elements between rows of the transformed values beyond their length, so that rows that a product reads together do
/// not fall on the same sets of the first-level cache.
const GAP: usize = 16;

/// Elements of transformed values from which they are written past the caches: they would not stay there.
const STREAMED: usize = 8 * 1024 * 1024;

/// Elements between planes of so many: an odd number of cache lines, so that the same place in all planes, which the
/// transforms read or write together, is on as many sets as there are.
fn plane_stride(len: usize) -> usize {
    (len.div_ceil(LINE) | 1) * LINE
}

/// Channels from which the transforms cost less than the products they save.
const MIN_CHANNELS: usize = 16;

/// Whether the passes here cover a shape and pay: of a tile that hangs over the edge, a part is computed in vain.
pub(super) fn covers(shape: &ConvShape) -> bool {
    let geometry = &shape.geometry;
    let dense = geometry.stride == [1, 1] && geometry.dilation == [1, 1] && geometry.groups == 1;
    let tiles = Tiles::of(shape);
    shape.kernel == [3, 3]
        && dense
        && shape.c_in.min(shape.c_out) >= MIN_CHANNELS
        && 2 * shape.output_pixels() >= tiles.rows * tiles.columns * TILE * TILE
}

/// The tiles of a batch, numbered image by image and row by row.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    input: [usize; 2],
    output: [usize; 2],
    padding: [usize; 2],
    images: usize,
    rows: usize,
    columns: usize,
}

/// Where a tile lies: its image, and its first output along both axes.
#[derive(Debug, Clone, Copy)]
struct Place {
    image: usize,
    row: usize,
    column: usize,
}

impl Tiles {
    fn of(shape: &ConvShape) -> Self {
        let [rows, columns] = shape.output.map(|size| size.div_ceil(TILE));
        let (input, output, padding) = (shape.input, shape.output, shape.geometry.padding);
        Self { input, output, padding, images: shape.images, rows, columns }
    }

    fn count(&self) -> usize {
        self.images * self.rows * self.columns
    }

    #[inline(always)]
    fn place(&self, tile: usize) -> Place {
        let (image, rest) = (tile / (self.rows * self.columns), tile % (self.rows * self.columns));
        Place { image, row: rest / self.columns * TILE, column: rest % self.columns * TILE }
    }

    /// Index of an input pixel under a tile; `None` in the padding.
    #[inline(always)]
    fn input_pixel(&self, place: Place, row: usize, column: usize) -> Option<usize> {
        let row = (place.row + row).checked_sub(self.padding[0]).filter(|&row| row < self.input[0])?;
        let column = (place.column + column).checked_sub(self.padding[1]).filter(|&column| column < self.input[1])?;
        Some((place.image * self.input[0] + row) * self.input[1] + column)
    }

    /// Index of an output pixel of a tile; `None` beyond the edge.
    #[inline(always)]
    fn output_pixel(&self, place: Place, row: usize, column: usize) -> Option<usize> {
        let (row, column) = (place.row + row, place.column + column);
        (row < self.output[0] && column < self.output[1])
            .then(|| (place.image * self.output[0] + row) * self.output[1] + column)
    }

    /// Whether all inputs under the tile lie in the image.
    #[inline(always)]
    fn is_inside(&self, place: Place) -> bool {
        let within = |first: usize, axis: usize| {
            first >= self.padding[axis] && first + WINDOW <= self.input[axis] + self.padding[axis]
        };
        within(place.row, 0) && within(place.column, 1)
    }

    /// Whether all outputs of the tile lie in the image.
    #[inline(always)]
    fn is_whole(&self, place: Place) -> bool {
        place.row + TILE <= self.output[0] && place.column + TILE <= self.output[1]
    }
}

/// Transformed values of a block of tiles: for each point a matrix of one row per tile, in panels of columns.
#[derive(Debug, Clone, Copy)]
struct Planes {
    /// Columns of a panel: all of them, or few whose rows lie side by side.
    width: usize,
    /// Elements between tiles.
    row: usize,
    /// Elements between panels.
    panel: usize,
    /// Elements between points.
    plane: usize,
}

impl Planes {
    /// One panel: for matrices that a product walks by rows.
    fn rows(tiles: usize, channels: usize) -> Self {
        let (row, width) = (channels + GAP, channels.max(1));
        Self { width, row, panel: 0, plane: plane_stride(tiles * row) }
    }

    /// Panels of whole vectors: for matrices that a product reads those of.
    fn panels(tiles: usize, channels: usize, width: usize) -> Self {
        let panel = tiles * width + GAP;
        Self { width, row: width, panel, plane: plane_stride(channels.div_ceil(width) * panel) }
    }

    fn len(&self) -> usize {
        POINTS * self.plane
    }

    /// Where a channel of the first tile lies at the first point.
    #[inline(always)]
    fn channel(&self, channel: usize) -> usize {
        channel / self.width * self.panel + channel % self.width
    }
}

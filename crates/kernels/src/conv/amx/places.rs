//! Which output each place of a band is.

use super::grid::{Band, Grid};
use crate::amx::TILE;
use crate::conv::pass::Pass;
use crate::conv::window::Window;

/// The outputs of a window at a band's places.
pub(super) struct Places {
    /// The pixel of the result at each place; [`NONE`] where nothing is computed but in vain.
    outputs: Vec<usize>,
    /// Places of a row, and those of them that are outputs.
    columns: usize,
    used: usize,
    /// Pixels between neighbouring outputs of a row.
    pub(super) column_stride: usize,
}

/// No output.
const NONE: usize = usize::MAX;

/// Sixteen places, one after the other.
pub(super) struct PlaceTile {
    pub(super) start: usize,
    /// The first pixel, where all are outputs that lie [`Places::column_stride`] apart.
    pub(super) whole: Option<usize>,
}

impl Places {
    pub(super) fn new(pass: &Pass, grid: &Grid, band: &Band, window: &Window) -> Self {
        let columns = grid.columns();
        let mut outputs = vec![NONE; band.places(grid) + TILE];
        for row in 0..band.places(grid) / columns.max(1) {
            let (image, output) = band.row(grid, row);
            if output >= window.rows.count {
                continue;
            }
            let y = window.rows.first + output * window.rows.stride;
            let first = (image * pass.target[0] + y) * pass.target[1] + window.columns.first;
            for (column, place) in outputs[row * columns..][..window.columns.count].iter_mut().enumerate() {
                *place = first + column * window.columns.stride;
            }
        }
        Self { outputs, columns, used: window.columns.count, column_stride: window.columns.stride }
    }

    /// The outputs from a place on, of one tile.
    pub(super) fn outputs(&self, start: usize) -> impl Iterator<Item = Option<usize>> {
        self.outputs[start..].iter().take(TILE).map(|&output| (output != NONE).then_some(output))
    }

    /// Tiles that cover all outputs: row by row where that computes no more in vain than going over their ends.
    pub(super) fn tiles(&self) -> Vec<PlaceTile> {
        let places = self.outputs.len() - TILE;
        let (rows, per_row) = (places / self.columns.max(1), self.used.div_ceil(TILE));
        let tile = |start: usize| PlaceTile { start, whole: self.whole(start) };
        if rows * per_row > places.div_ceil(TILE) {
            return (0..places).step_by(TILE).map(tile).collect();
        }
        let used = (0..rows).filter(|row| self.outputs[row * self.columns] != NONE);
        used.flat_map(|row| (0..per_row).map(move |index| row * self.columns + index * TILE)).map(tile).collect()
    }

    fn whole(&self, start: usize) -> Option<usize> {
        let first = self.outputs[start];
        let mut expected = (0..TILE).map(|index| first.wrapping_add(index * self.column_stride));
        let is_whole = first != NONE && self.outputs[start..][..TILE].iter().all(|&o| Some(o) == expected.next());
        is_whole.then_some(first)
    }
}

//! The pass over bands: a copy of the pixels in two parts, then tiles of outputs.

use super::grid::{Band, Grid, bands};
use super::weights::{Layout, Panel, Steps, Weights, panels};
use crate::amx::{self, DEPTH, Product, TILE, Tiles};
use crate::build::{Parts, build_parts};
use crate::conv::pass::Pass;
use crate::conv::window::Window;
use crate::scratch::Buffer;

/// Bytes of a band's copy, about: a third of the second-level cache, beside a panel of weights.
const BAND_BYTES: usize = 640 * 1024;

/// Bands for each thread, so that none waits long for another.
const BANDS_PER_THREAD: usize = 4;

/// Numbers of a cache line.
const LINE: usize = 32;

/// Computes all outputs of a pass with one group of channels.
pub(super) fn run(pass: &Pass, source: &[f32], w: &[f32], bias: Option<&[f32]>, windows: &[Window]) -> Vec<f32> {
    let grid = Grid::new(windows, pass.source);
    let pixel = pass.inputs.next_multiple_of(2).min(DEPTH);
    let (pitch, chunks) = (grid.pitch() * pixel, pass.inputs.div_ceil(DEPTH));
    let row_bytes = grid.phases() * chunks * pitch * 2 * size_of::<u16>();
    let bands = bands(
        pass,
        &grid,
        (BAND_BYTES / row_bytes.max(1)).max(1),
        (BANDS_PER_THREAD * rayon::current_num_threads()).min(most_bands(pass)),
    );
    let len = pass.images * pass.target[0] * pass.target[1] * pass.outputs;
    let rows = bands.iter().map(|band| band.plane_rows(&grid)).max().unwrap_or(0);
    // One layout for all bands: steps are distances in it.
    let chunk = rows * pitch + grid.lead() * pixel;
    let layout = Layout { pixel, pitch, chunk, plane: chunks * chunk };
    let passes: Vec<(&Window, Steps, Weights)> = windows
        .iter()
        .map(|window| {
            let steps = Steps::new(pass, window, &grid, layout);
            let weights = Weights::pack(pass, w, &steps);
            (window, steps, weights)
        })
        .collect();
    // SAFETY: every output belongs to one window and one band.
    unsafe {
        build_parts(len, bands.len(), |index, y| {
            let work = BandWork { pass, grid: &grid, layout, band: &bands[index], source, bias, y };
            let copy = work.copy();
            for (window, steps, weights) in &passes {
                work.multiply(window, steps, weights, &copy);
            }
        })
    }
}

/// Bands beyond which each would read all weights for few outputs.
fn most_bands(pass: &Pass) -> usize {
    /// Outputs of a band at least, all channels counted as one.
    const LEAST: usize = 128;

    (pass.images * pass.target[0] * pass.target[1] / LEAST).max(1)
}

/// What the outputs of a band are computed from.
struct BandWork<'a> {
    pass: &'a Pass,
    grid: &'a Grid,
    layout: Layout,
    band: &'a Band,
    source: &'a [f32],
    bias: Option<&'a [f32]>,
    y: Parts,
}

/// The pixels of a band: high parts, then low ones.
struct Copy {
    numbers: Buffer,
    /// Numbers from a high part to its low part.
    low: usize,
}

impl Copy {
    fn high(&self) -> *const u16 {
        self.numbers.as_ptr().cast()
    }
}

impl BandWork<'_> {
    /// Copies what the band's windows read, zeros included.
    fn copy(&self) -> Copy {
        let (grid, layout) = (self.grid, self.layout);
        let rows = self.band.plane_rows(grid);
        // Beyond the last row, tiles read for outputs computed in vain.
        let slack = (2 * TILE * grid.column_phases() + grid.pitch()) * layout.pixel;
        let low = (grid.phases() * layout.plane + slack).next_multiple_of(LINE);
        let mut numbers = Buffer::lend(low);
        let start = numbers.as_mut_ptr().cast::<u16>();
        for phase in 0..grid.phases() {
            // SAFETY: the plane has these rows, and each chunk room for the zeros that the last one finds after it.
            unsafe {
                let plane = start.add(phase * layout.plane);
                for row in 0..rows {
                    self.copy_row(phase, row, plane.add(row * layout.pitch), low);
                }
                self.clear(plane.add(rows * layout.pitch), grid.lead(), low);
            }
        }
        Copy { numbers, low }
    }

    /// # Safety
    /// There is room for the pixels at `target`, and `low` numbers further, in every chunk.
    unsafe fn clear(&self, target: *mut u16, pixels: usize, low: usize) {
        for chunk in 0..self.pass.inputs.div_ceil(DEPTH) {
            // SAFETY: the caller's.
            unsafe {
                let target = target.add(chunk * self.layout.chunk);
                target.write_bytes(0, pixels * self.layout.pixel);
                target.add(low).write_bytes(0, pixels * self.layout.pixel);
            }
        }
    }

    /// A row of a plane.
    ///
    /// # Safety
    /// There is room for a row at `target`, and `low` numbers further, in every chunk.
    unsafe fn copy_row(&self, phase: usize, row: usize, target: *mut u16, low: usize) {
        let (grid, pixel, channels) = (self.grid, self.layout.pixel, self.pass.inputs);
        let [height, width] = self.pass.source;
        let (image, row) = self.band.row(grid, row);
        // SAFETY: the caller vouches for the target; the source has the row.
        unsafe {
            let Some(row) = grid.input_row(phase, row, height) else {
                return self.clear(target, grid.pitch(), low);
            };
            self.clear(target, grid.lead(), low);
            let target = target.add(grid.lead() * pixel);
            self.clear(target.add(width * pixel), grid.pitch() - grid.lead() - width, low);
            let source = self.source[(image * height + row) * width * channels..][..width * channels].as_ptr();
            if pixel == channels {
                return amx::split(source, width * channels, target, target.add(low));
            }
            for place in 0..width {
                let (source, target) = (source.add(place * channels), target.add(place * pixel));
                if channels >= DEPTH {
                    amx::split_pixel(source, channels, self.layout.chunk, target, target.add(low));
                } else {
                    amx::split_few(source, channels, pixel, target, target.add(low));
                }
            }
        }
    }

    /// All outputs of a window in this band.
    fn multiply(&self, window: &Window, steps: &Steps, weights: &Weights, copy: &Copy) {
        let offsets = steps.offsets();
        let places = Places::new(self, window);
        let starts = places.starts();
        // For tiles that do not lie in the result as they are: two by two of them.
        let mut room = Buffer::lend(4 * TILE * TILE);
        // SAFETY: a pass comes here only where the unit is available, and nothing else runs on this thread meanwhile.
        let tiles = unsafe { Tiles::configure(steps.depth) };
        for (index, panel) in panels(self.pass.outputs).enumerate() {
            for pair in starts.chunks(2) {
                let block = Block { work: self, places: &places, panel, offsets: &offsets, copy };
                // SAFETY: the starts are places of this window in this band.
                unsafe { block.compute(pair, weights.panel(index), &tiles, &mut room) };
            }
        }
    }
}

/// Which outputs the places of a band are.
struct Places {
    columns: usize,
    rows: usize,
    /// Places of the band.
    count: usize,
    /// Outputs of the window in a row, and rows of it in an image.
    window: [usize; 2],
    /// The first row of the band in its image.
    first_row: usize,
    /// Row and column of the window's first output, and the distances of the next.
    first: [usize; 2],
    stride: [usize; 2],
    image: usize,
    target: [usize; 2],
}

impl Places {
    fn new(work: &BandWork<'_>, window: &Window) -> Self {
        Self {
            columns: work.grid.columns(),
            rows: work.grid.rows(),
            count: work.band.places(work.grid),
            window: [window.rows.count, window.columns.count],
            first_row: work.band.rows.start,
            first: [window.rows.first, window.columns.first],
            stride: [window.rows.stride, window.columns.stride],
            image: work.band.images.start,
            target: work.pass.target,
        }
    }

    /// First places of the tiles: row by row where that computes no more in vain than going over their ends.
    fn starts(&self) -> Vec<usize> {
        let rows = self.count / self.columns.max(1);
        let per_row = self.window[1].div_ceil(TILE);
        if rows * per_row > self.count.div_ceil(TILE) {
            return (0..self.count).step_by(TILE).collect();
        }
        let used = (0..rows).filter(|row| self.first_row + row % self.rows < self.window[0]);
        used.flat_map(|row| (0..per_row).map(move |tile| row * self.columns + tile * TILE)).collect()
    }

    /// The pixel of the result at a place, if it is an output.
    fn output(&self, place: usize) -> Option<usize> {
        let (row, column) = (place / self.columns, place % self.columns);
        let (image, row) = (self.image + row / self.rows, self.first_row + row % self.rows);
        (place < self.count && row < self.window[0] && column < self.window[1]).then(|| {
            let (row, column) = (self.first[0] + row * self.stride[0], self.first[1] + column * self.stride[1]);
            (image * self.target[0] + row) * self.target[1] + column
        })
    }

    /// The first pixel of a tile all of whose places are outputs in one row.
    fn whole(&self, start: usize) -> Option<usize> {
        let column = start % self.columns;
        let is_dense = self.columns == self.window[1]
            && self.rows == self.window[0]
            && self.target == [self.rows, self.columns]
            && start + TILE <= self.count;
        if is_dense || column + TILE <= self.window[1] { self.output(start) } else { None }
    }
}

/// Two tiles of outputs' rows, for one panel of channels.
struct Block<'a> {
    work: &'a BandWork<'a>,
    places: &'a Places,
    panel: Panel,
    offsets: &'a [u32],
    copy: &'a Copy,
}

impl Block<'_> {
    /// # Safety
    /// `starts` are one or two places of the band, `weights` the panel's tiles.
    unsafe fn compute(&self, starts: &[usize], weights: *const u16, tiles: &Tiles, room: &mut [f32]) {
        let (pixel, step) = (self.work.layout.pixel, self.work.grid.column_phases());
        let width = self.panel.tiles * TILE;
        let channels = self.work.pass.outputs;
        let mut out = [std::ptr::null_mut(); 2];
        let mut out_stride = [0; 2];
        let mut is_direct = [false; 2];
        for (index, &start) in starts.iter().enumerate() {
            let whole =
                if self.panel.used == width && self.work.bias.is_none() { self.places.whole(start) } else { None };
            is_direct[index] = whole.is_some();
            (out[index], out_stride[index]) = match whole {
                Some(output) => (
                    self.work.y.start().wrapping_add(output * channels + self.panel.first),
                    self.places.stride[1] * channels * size_of::<f32>(),
                ),
                None => (room[index * TILE * width..].as_mut_ptr(), width * size_of::<f32>()),
            };
        }
        let left = |start: usize| self.copy.high().wrapping_add(start * step * pixel);
        let steps = self.offsets.as_ptr_range();
        let product = Product {
            left: [left(starts[0]), left(starts[starts.len() - 1])],
            left_stride: step * pixel * size_of::<u16>(),
            low: self.copy.low * size_of::<u16>(),
            steps: steps.start,
            steps_end: steps.end,
            right: weights,
            right_tile: TILE * DEPTH * size_of::<u16>(),
            right_low: self.panel.step() / 2 * size_of::<u16>(),
            right_step: self.panel.step() * size_of::<u16>(),
            out,
            out_stride,
            accumulate: 0,
        };
        // SAFETY: the copy covers what tiles at places of the band read; the results are this band's, or this block's.
        unsafe { product.run(tiles, starts.len(), self.panel.tiles) };
        for (index, &start) in starts.iter().enumerate() {
            if !is_direct[index] {
                // SAFETY: the outputs are this band's.
                unsafe { self.store(start, &room[index * TILE * width..][..TILE * width]) };
            }
        }
    }

    /// Brings the outputs of a tile to their places, with the bias.
    ///
    /// # Safety
    /// The outputs at these places are this band's.
    unsafe fn store(&self, start: usize, tile: &[f32]) {
        let Panel { first, used, tiles } = self.panel;
        for (place, row) in tile.chunks_exact(tiles * TILE).enumerate() {
            let Some(output) = self.places.output(start + place) else { continue };
            // SAFETY: the caller's.
            let target = unsafe {
                let target = self.work.y.start().add(output * self.work.pass.outputs + first);
                std::slice::from_raw_parts_mut(target, used)
            };
            match self.work.bias {
                None => target.copy_from_slice(&row[..used]),
                Some(bias) => {
                    let values = row.iter().zip(&bias[first..]);
                    target.iter_mut().zip(values).for_each(|(target, (value, bias))| *target = value + bias);
                }
            }
        }
    }
}

//! The pass over bands: a copy of the pixels in parts, then tiles of outputs.

use super::grid::{Band, Grid, bands};
use super::places::{PlaceTile, Places};
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

/// How a pass is cut, and how the copies of its pixels lie.
struct Plan {
    grid: Grid,
    bands: Vec<Band>,
    layout: Layout,
    /// Tasks that share a band's panels of outputs: few bands would leave threads without work.
    shares: usize,
}

impl Plan {
    fn new<const PARTS: usize>(pass: &Pass, windows: &[Window]) -> Self {
        let grid = Grid::new(windows, pass.source);
        let pixel = pass.inputs.next_multiple_of(2).min(DEPTH);
        let (pitch, chunks) = (grid.pitch() * pixel, pass.inputs.div_ceil(DEPTH));
        let row_bytes = grid.phases() * chunks * pitch * PARTS * size_of::<u16>();
        let least = BANDS_PER_THREAD * rayon::current_num_threads();
        let bands = bands(pass, &grid, (BAND_BYTES / row_bytes.max(1)).max(1), least.min(most_bands(pass)));
        // One layout for all bands: steps are distances in it.
        let rows = bands.iter().map(|band| band.plane_rows(&grid)).max().unwrap_or(0);
        let chunk = rows * pitch + grid.lead() * pixel;
        let shares = least.div_ceil(bands.len().max(1)).clamp(1, panels(pass.outputs).count());
        Self { layout: Layout { pixel, pitch, chunk, plane: chunks * chunk }, grid, bands, shares }
    }
}

/// Computes all outputs of a pass with one group of channels.
pub(super) fn run<const PARTS: usize>(
    pass: &Pass,
    source: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    windows: &[Window],
) -> Vec<f32> {
    let Plan { grid, bands, layout, shares } = Plan::new::<PARTS>(pass, windows);
    let passes: Vec<(&Window, Steps, Weights<PARTS>)> = windows
        .iter()
        .map(|window| {
            let steps = Steps::new(pass, window, &grid, layout);
            let weights = Weights::pack(pass, w, &steps);
            (window, steps, weights)
        })
        .collect();
    let panels: Vec<Panel> = panels(pass.outputs).collect();
    let share = panels.len().div_ceil(shares);
    let len = pass.images * pass.target[0] * pass.target[1] * pass.outputs;
    // SAFETY: every output belongs to one window, one band and one panel.
    unsafe {
        build_parts(len, bands.len() * shares, |index, y| {
            let first = panels.len().min(index % shares * share);
            let panels = &panels[first..panels.len().min(first + share)];
            if panels.is_empty() {
                return;
            }
            let work = BandWork::<PARTS> { pass, grid: &grid, layout, band: &bands[index / shares], source, bias, y };
            let copy = work.copy();
            for (window, steps, weights) in &passes {
                work.multiply(window, steps, weights, (first, panels), &copy);
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
struct BandWork<'a, const PARTS: usize> {
    pass: &'a Pass,
    grid: &'a Grid,
    layout: Layout,
    band: &'a Band,
    source: &'a [f32],
    bias: Option<&'a [f32]>,
    y: Parts,
}

/// The pixels of a band, part by part.
struct Copy {
    numbers: Buffer,
    /// Numbers from one part to the next.
    part: usize,
}

impl Copy {
    fn start(&self) -> *const u16 {
        self.numbers.as_ptr().cast()
    }
}

impl<const PARTS: usize> BandWork<'_, PARTS> {
    /// Copies what the band's windows read, zeros included.
    fn copy(&self) -> Copy {
        let (grid, layout) = (self.grid, self.layout);
        let rows = self.band.plane_rows(grid);
        // Beyond the last row, tiles read for outputs computed in vain.
        let slack = (2 * TILE * grid.column_phases() + grid.pitch()) * layout.pixel;
        let part = (grid.phases() * layout.plane + slack).next_multiple_of(LINE);
        let mut numbers = Buffer::lend((PARTS * part).div_ceil(2));
        let start = numbers.as_mut_ptr().cast::<u16>();
        for phase in 0..grid.phases() {
            // SAFETY: the plane has these rows, and each chunk room for the zeros that the last one finds after it.
            unsafe {
                let plane = start.add(phase * layout.plane);
                for row in 0..rows {
                    self.copy_row(phase, row, plane.add(row * layout.pitch), part);
                }
                self.clear(plane.add(rows * layout.pitch), grid.lead(), part);
            }
        }
        Copy { numbers, part }
    }

    /// # Safety
    /// There is room for the pixels at `target` and for each further part, in every chunk.
    unsafe fn clear(&self, target: *mut u16, pixels: usize, part: usize) {
        for chunk in 0..self.pass.inputs.div_ceil(DEPTH) {
            for index in 0..PARTS {
                let target = target.wrapping_add(chunk * self.layout.chunk + index * part);
                // SAFETY: the caller's.
                unsafe { target.write_bytes(0, pixels * self.layout.pixel) };
            }
        }
    }

    /// A row of a plane.
    ///
    /// # Safety
    /// There is room for a row at `target` and for each further part, in every chunk.
    unsafe fn copy_row(&self, phase: usize, row: usize, target: *mut u16, part: usize) {
        let (grid, pixel, channels) = (self.grid, self.layout.pixel, self.pass.inputs);
        let [height, width] = self.pass.source;
        let (image, row) = self.band.row(grid, row);
        // SAFETY: the caller vouches for the target; the source has the row.
        unsafe {
            let Some(row) = grid.input_row(phase, row, height) else {
                return self.clear(target, grid.pitch(), part);
            };
            self.clear(target, grid.lead(), part);
            let target = target.add(grid.lead() * pixel);
            self.clear(target.add(width * pixel), grid.pitch() - grid.lead() - width, part);
            let source = self.source[(image * height + row) * width * channels..][..width * channels].as_ptr();
            if pixel == channels {
                return amx::split::<PARTS>(source, width * channels, target, part);
            }
            for place in 0..width {
                let (source, target) = (source.add(place * channels), target.add(place * pixel));
                if channels >= DEPTH {
                    amx::split_pixel::<PARTS>(source, channels, self.layout.chunk, target, part);
                } else {
                    amx::split_few::<PARTS>(source, channels, pixel, target, part);
                }
            }
        }
    }

    /// All outputs of a window in this band, of the panels from the one with an index on.
    fn multiply(
        &self,
        window: &Window,
        steps: &Steps,
        weights: &Weights<PARTS>,
        (first, panels): (usize, &[Panel]),
        copy: &Copy,
    ) {
        let offsets = steps.offsets();
        let places = Places::new(self.pass, self.grid, self.band, window);
        let tiles = places.tiles();
        // For tiles that do not lie in the result as they are: two by two of them.
        let mut room = Buffer::lend(4 * TILE * TILE);
        // SAFETY: a pass comes here only where the unit is available, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(steps.depth) };
        for (index, &panel) in panels.iter().enumerate() {
            let block = Block { work: self, places: &places, panel, offsets: &offsets, copy };
            for pair in tiles.chunks(2) {
                // SAFETY: the tiles are places of this window in this band.
                unsafe { block.compute(pair, weights.panel(first + index), &unit, &mut room) };
            }
        }
    }
}

/// Two tiles of outputs' rows, for one panel of channels.
struct Block<'a, const PARTS: usize> {
    work: &'a BandWork<'a, PARTS>,
    places: &'a Places,
    panel: Panel,
    offsets: &'a [u32],
    copy: &'a Copy,
}

impl<const PARTS: usize> Block<'_, PARTS> {
    /// # Safety
    /// There are one or two tiles, of this band's places; `weights` are the panel's.
    #[inline(always)]
    unsafe fn compute(&self, tiles: &[PlaceTile], weights: *const u16, unit: &Tiles, room: &mut [f32]) {
        let (pixel, step) = (self.work.layout.pixel, self.work.grid.column_phases());
        let (width, channels) = (self.panel.tiles * TILE, self.work.pass.outputs);
        let may_be_direct = self.panel.used == width && self.work.bias.is_none();
        let direct = |tile: &PlaceTile| if may_be_direct { tile.whole } else { None };
        let mut out = [std::ptr::null_mut(); 2];
        let mut out_stride = [width * size_of::<f32>(); 2];
        for (index, tile) in tiles.iter().enumerate() {
            out[index] = room[index * TILE * width..].as_mut_ptr();
            if let Some(output) = direct(tile) {
                out[index] = self.work.y.start().wrapping_add(output * channels + self.panel.first);
                out_stride[index] = self.places.column_stride * channels * size_of::<f32>();
            }
        }
        let left = |tile: &PlaceTile| self.copy.start().wrapping_add(tile.start * step * pixel);
        let steps = self.offsets.as_ptr_range();
        let product = Product {
            left: [left(&tiles[0]), left(&tiles[tiles.len() - 1])],
            left_stride: step * pixel * size_of::<u16>(),
            left_part: self.copy.part * size_of::<u16>(),
            steps: steps.start,
            steps_end: steps.end,
            right: weights,
            right_tile: TILE * DEPTH * size_of::<u16>(),
            right_part: self.panel.part() * size_of::<u16>(),
            right_step: PARTS * self.panel.part() * size_of::<u16>(),
            out,
            out_stride,
            accumulate: 0,
        };
        // SAFETY: the copy covers what tiles at places of the band read; the results are this band's, or this block's.
        unsafe { product.run::<PARTS>(unit, tiles.len(), self.panel.tiles) };
        for (index, tile) in tiles.iter().enumerate().filter(|(_, tile)| direct(tile).is_none()) {
            // SAFETY: the outputs are this band's.
            unsafe { self.store(tile.start, &room[index * TILE * width..][..TILE * width]) };
        }
    }

    /// Brings the outputs of a tile to their places, with the bias.
    ///
    /// # Safety
    /// The outputs at these places are this band's.
    unsafe fn store(&self, start: usize, tile: &[f32]) {
        let Panel { first, used, tiles } = self.panel;
        for (row, output) in tile.chunks_exact(tiles * TILE).zip(self.places.outputs(start)) {
            let Some(output) = output else { continue };
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

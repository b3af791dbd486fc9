//! The pass over bands: a copy of the pixels in parts, then tiles of outputs.

use super::grid::{Band, Grid, bands};
use super::places::{PlaceTile, Places};
use super::weights::{Layout, Panel, Stage, Steps, Weights, panels};
use crate::amx::{self, DEPTH, Product, TILE, Tiles};
use crate::build::{Parts, build_parts};
use crate::conv::pass::Pass;
use crate::conv::window::Window;
use crate::scratch::Buffer;

/// Bytes of a band's copy, about: a third of the second-level cache, beside a panel of weights.
const BAND_BYTES: usize = 640 * 1024;

/// Bands for each thread, so that none waits long for another.
const BANDS_PER_THREAD: usize = 4;

/// Bytes of weights from which each band would read them from the third-level cache or from memory. There are fewer bands
/// then, with a copy as large as [`SPLITS`] times the others, and their sums are formed chunk of channels by chunk.
const MANY_WEIGHTS: usize = 2 * 1024 * 1024;

/// Stretches of the shared axis at most, each with the pixels of some chunks of channels.
const SPLITS: usize = 8;

/// Steps of a sum up to which writing the outputs takes longer than the sums.
const SHORT: usize = 16;

/// Numbers of a cache line.
const LINE: usize = 32;

/// How a pass is cut, and how the copies of its pixels lie.
struct Plan {
    grid: Grid,
    bands: Vec<Band>,
    layout: Layout,
    /// Tasks that share a band's panels of outputs: few bands would leave threads without work.
    shares: usize,
    /// Stretches that the shared axis is cut into. No sum depends on it: each goes on from what the one before has left.
    splits: usize,
}

impl Plan {
    fn new<const PARTS: usize>(pass: &Pass, windows: &[Window]) -> Self {
        let grid = Grid::new(windows, pass.source);
        let pixel = pass.inputs.next_multiple_of(2).min(DEPTH);
        let (pitch, chunks) = (grid.pitch() * pixel, pass.inputs.div_ceil(DEPTH));
        let row_bytes = (grid.phases() * chunks * pitch * PARTS * size_of::<u16>()).max(1);
        let most = |splits: usize| (splits * BAND_BYTES / row_bytes).max(1);
        let cut = |splits, least| bands(pass, &grid, most(splits), usize::min(least, most_bands(pass)));
        let threads = rayon::current_num_threads();
        let (mut least, mut splits) = (BANDS_PER_THREAD * threads, 1);
        let mut bands = cut(splits, least);
        let fewest = (pass.images * grid.rows()).div_ceil(most(SPLITS)).next_multiple_of(threads);
        if pays_to_split::<PARTS>(pass, &grid, windows.len(), row_bytes, [bands.len(), fewest]) {
            (least, splits) = (fewest, SPLITS);
            bands = cut(splits, least);
        }
        // One layout for all bands: steps are distances in it.
        let rows = bands.iter().map(|band| band.plane_rows(&grid)).max().unwrap_or(0);
        let chunk = rows * pitch + grid.lead() * pixel;
        let shares = least.div_ceil(bands.len().max(1)).clamp(1, panels(pass.outputs).count());
        let splits = (rows * row_bytes).div_ceil(BAND_BYTES).clamp(1, splits);
        let layout = Layout { pixel, pitch, chunk, plane: chunks * chunk };
        Self { layout, grid, bands, shares, splits }
    }
}

/// Whether fewer bands, each a stretch of the shared axis at a time, spare more of the weights' way from the third-level
/// cache, which every band reads all of, than the sums that they go on from cost.
fn pays_to_split<const PARTS: usize>(
    pass: &Pass,
    grid: &Grid,
    windows: usize,
    row_bytes: usize,
    [bands, fewer]: [usize; 2],
) -> bool {
    /// What a byte of sums costs, in bytes of weights: they are written and read, and the products wait for them.
    const PRICE: usize = 8;

    let weights = pass.inputs * pass.area() * pass.outputs * PARTS * size_of::<u16>();
    let rows = pass.images * grid.rows();
    let stretches = (rows.div_ceil(fewer.max(1)) * row_bytes).div_ceil(BAND_BYTES);
    let sums = windows * rows * grid.columns() * pass.outputs * size_of::<f32>();
    weights > MANY_WEIGHTS && bands.saturating_sub(fewer) * weights >= PRICE * stretches * sums
}

/// Computes all outputs of a pass with one group of channels.
pub(super) fn run<const PARTS: usize>(
    pass: &Pass,
    source: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    windows: &[Window],
) -> Vec<f32> {
    let Plan { grid, bands, layout, shares, splits } = Plan::new::<PARTS>(pass, windows);
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
            let band = &bands[index / shares];
            let work = BandWork::<PARTS> { pass, grid: &grid, layout, splits, band, source, bias, y };
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
    splits: usize,
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
        let stretch = offsets.len().div_ceil(self.splits).max(1);
        let is_whole = stretch >= offsets.len();
        // For two by two tiles that do not lie in the result as they are, or for all tiles if their sums are to go on.
        let pair = 4 * TILE * TILE;
        let pairs = tiles.len().div_ceil(2);
        let mut room = Buffer::lend(if is_whole { pair } else { panels.len() * pairs * pair });
        // SAFETY: a pass comes here only where the unit is available, and nothing else runs on this thread meanwhile.
        let unit = unsafe { Tiles::configure(steps.depth) };
        for begin in (0..offsets.len().max(1)).step_by(stretch) {
            let offsets = &offsets[begin..offsets.len().min(begin + stretch)];
            let stage = Stage { begin, len: offsets.len(), is_whole, is_last: begin + stretch >= steps.steps.len() };
            // Where the panels stay in the cache and outputs come fast, all of a pixel come one after the other: the
            // processor foresees lines that are written in a row.
            let is_short = offsets.len() <= SHORT && weights.are_few();
            let group = if is_short { panels.len() } else { 1 };
            for start in (0..panels.len()).step_by(group.max(1)) {
                for (number, tiles) in tiles.chunks(2).enumerate() {
                    for index in start..start + group {
                        let (panel, place) = (panels[index], (first + index, panels[index]));
                        let block = Block { work: self, places: &places, panel, offsets, copy, stage };
                        let ahead = weights.after(place, stage, number * Product::ahead::<PARTS>(stage.len));
                        let room = match is_whole {
                            true => &mut room[..],
                            false => &mut room[(index * pairs + number) * pair..][..pair],
                        };
                        // SAFETY: the tiles are places of this window in this band.
                        unsafe { block.compute(tiles, weights.stage(place, stage), ahead, &unit, room) };
                    }
                }
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
    stage: Stage,
}

impl<const PARTS: usize> Block<'_, PARTS> {
    /// # Safety
    /// There are one or two tiles, of this band's places; `weights` are the panel's.
    #[inline(always)]
    unsafe fn compute(
        &self,
        tiles: &[PlaceTile],
        weights: *const u16,
        ahead: *const u16,
        unit: &Tiles,
        room: &mut [f32],
    ) {
        let (pixel, step) = (self.work.layout.pixel, self.work.grid.column_phases());
        let width = self.panel.tiles * TILE;
        let mut out = [(std::ptr::null_mut(), 0); 2];
        for (index, tile) in tiles.iter().enumerate() {
            let in_room = (room[index * TILE * width..].as_mut_ptr(), width);
            out[index] = self.direct(tile).unwrap_or(in_room);
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
            out: out.map(|(start, _)| start),
            out_stride: out.map(|(_, stride)| stride * size_of::<f32>()),
            accumulate: self.stage.begin,
            ahead,
        };
        // SAFETY: the copy covers what tiles at places of the band read; the results are this band's, or this block's.
        unsafe { product.run::<PARTS>(unit, tiles.len(), self.panel.tiles) };
        if !self.stage.is_last {
            return;
        }
        for (index, tile) in tiles.iter().enumerate().filter(|(_, tile)| self.direct(tile).is_none()) {
            // SAFETY: the outputs are this band's.
            unsafe { self.store(tile.start, &room[index * TILE * width..][..TILE * width]) };
        }
    }

    /// Where a tile's outputs lie in the result as the unit stores them, and elements between them; `None` where they do
    /// not, or are not complete.
    #[inline(always)]
    fn direct(&self, tile: &PlaceTile) -> Option<(*mut f32, usize)> {
        let channels = self.work.pass.outputs;
        let fits = self.stage.is_whole && self.panel.used == self.panel.tiles * TILE && self.work.bias.is_none();
        let output = tile.whole.filter(|_| fits)?;
        let start = self.work.y.start().wrapping_add(output * channels + self.panel.first);
        Some((start, self.places.column_stride * channels))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::shape::ConvShape;
    use crate::geometry::ConvGeometry;

    /// Stretches of the shared axis on two threads, 3×3 by two.
    fn splits(images: usize, side: usize, c_in: usize, c_out: usize) -> usize {
        let geometry = ConvGeometry { stride: [2; 2], padding: [1; 2], ..ConvGeometry::default() };
        let (input, output) = ([side; 2], [side.div_ceil(2); 2]);
        let shape = ConvShape { images, input, output, c_in, c_out, kernel: [3; 2], geometry };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        pool.install(|| Plan::new::<3>(&Pass::forward(&shape), &[Window::forward(&shape)]).splits)
    }

    #[test]
    fn the_shared_axis_is_cut_where_bands_would_read_many_weights() {
        assert!(splits(8, 14, 512, 512) > 1);
        // As in the tests of all paths.
        assert!(splits(4, 14, 256, 176) > 1);
        assert_eq!(splits(16, 56, 64, 128), 1);
        assert_eq!(splits(2, 7, 16, 16), 1);
    }
}

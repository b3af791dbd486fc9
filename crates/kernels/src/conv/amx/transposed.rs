//! The operands of the weights' gradient: a band's places are the shared axis.

use std::arch::x86_64::__mmask16;

use rayon::prelude::*;

use super::grid::{Band, Grid};
use super::source::Source;
use crate::amx::{self, DEPTH, TILE};
use crate::build;
use crate::conv::shape::ConvShape;
use crate::conv::window::Window;
use crate::scratch::Buffer;
use crate::tile::prefetch;

/// Calls `work` for each index of a step, on all threads if `is_shared`.
///
/// Step by step, and in each tile by tile of channels: a pixel's channels lie side by side in memory.
fn each(count: usize, is_shared: bool, work: impl Fn(usize) + Send + Sync) {
    /// Steps that a thread takes at once at least.
    const LEAST: usize = 4;

    if is_shared {
        (0..count).into_par_iter().with_min_len(LEAST).for_each(work);
    } else {
        (0..count).for_each(work);
    }
}

/// Where a pixel's values begin, in values; [`NONE`] for zeros.
type Pixel = usize;

/// No pixel.
const NONE: Pixel = usize::MAX;

/// Up to sixteen channels of pixels.
#[derive(Clone, Copy)]
struct Channels {
    /// The first channel of the first pixel.
    start: *const f32,
    mask: __mmask16,
}

impl Channels {
    /// Those from `first` on; `pixels` have `count` channels.
    fn new(pixels: &[f32], count: usize, first: usize) -> Self {
        let mask = ((1u32 << (count - first).min(TILE)) - 1) as __mmask16;
        Self { start: pixels.as_ptr().wrapping_add(first), mask }
    }

    /// Asks for what the next step will load: its pixels are too far apart for the processor to foresee.
    fn prefetch(&self, pixels: &[Pixel]) {
        for &pixel in pixels.iter().take(DEPTH) {
            prefetch(self.start.wrapping_add(pixel));
        }
    }

    /// Where a pixel's values begin, or zeros for no pixel.
    fn row(&self, pixel: Pixel) -> *const f32 {
        if pixel == NONE { amx::ZEROS.as_ptr() } else { self.start.wrapping_add(pixel) }
    }

    fn rows<const COUNT: usize>(&self, pixels: &[Pixel]) -> [*const f32; COUNT] {
        std::array::from_fn(|index| self.row(pixels[index]))
    }
}

/// The left operand: the gradients at a band's places, zeros where there is no output; tile by tile of channels, and in
/// each step by step.
pub(super) struct Gradients<const PARTS: usize> {
    numbers: Buffer,
    /// Numbers from one part to the next.
    part: usize,
    /// Where each step begins in a tile of channels, in bytes.
    steps: Vec<u32>,
}

impl<const PARTS: usize> Gradients<PARTS> {
    pub(super) fn copy(dy: &[f32], grid: &Grid, band: &Band, shape: &ConvShape, is_shared: bool) -> Self {
        let places = outputs(grid, band, shape);
        let (steps, tiles) = (places.len() / DEPTH, shape.c_out.div_ceil(TILE));
        let part = tiles * steps * TILE * DEPTH;
        let mut numbers = Buffer::lend(PARTS * part / 2);
        let parts = build::Parts::of(&mut numbers);
        each(steps, is_shared, |step| {
            for tile in 0..tiles {
                let channels = Channels::new(dy, shape.c_out, tile * TILE);
                let target = parts.start().cast::<u16>().wrapping_add((tile * steps + step) * TILE * DEPTH);
                let rows = channels.rows(&places[step * DEPTH..]);
                // SAFETY: whoever asks for gradients runs on the tile unit; tiles have room of their own in each step.
                unsafe { amx::left_tile::<PARTS>(&rows, channels.mask, target, part) };
                channels.prefetch(&places[(step + 1) * DEPTH..]);
            }
        });
        let steps = (0..steps).map(|step| (step * TILE * DEPTH * size_of::<u16>()) as u32).collect();
        Self { numbers, part, steps }
    }

    pub(super) fn step_offsets(&self) -> &[u32] {
        &self.steps
    }

    /// The tile that begins with a channel.
    pub(super) fn tile(&self, channel: usize) -> *const u16 {
        self.numbers.as_ptr().cast::<u16>().wrapping_add(channel * self.steps.len() * DEPTH)
    }

    pub(super) fn part_bytes(&self) -> usize {
        self.part * size_of::<u16>()
    }
}

/// The output at each place of a band, and at those that fill the last step.
fn outputs(grid: &Grid, band: &Band, shape: &ConvShape) -> Vec<Pixel> {
    let mut places = vec![NONE; band.places(grid).next_multiple_of(DEPTH)];
    for row in 0..band.places(grid) / grid.columns().max(1) {
        let (image, output) = band.row(grid, row);
        if output < shape.output[0] {
            let first = (image * shape.output[0] + output) * shape.output[1];
            for (column, place) in places[row * grid.columns()..][..shape.output[1]].iter_mut().enumerate() {
                *place = (first + column) * shape.c_out;
            }
        }
    }
    places
}

/// The right operand: pairs of neighbouring pixels, zeros around the images included; for each phase, and for pairs
/// that begin at even and at odd places, tile by tile of channels. A tap whose distance is odd reads the latter.
pub(super) struct Inputs<const PARTS: usize> {
    numbers: Buffer,
    /// Numbers from one part to the next.
    part: usize,
    /// Between phases.
    plane: usize,
    /// Between even and odd pairs.
    parity: usize,
    /// Between tiles of channels.
    tile: usize,
    /// Planes of each tile that some tap reads.
    planes: usize,
}

/// Numbers of a pair of sixteen channels: a row of a tile.
const PAIR: usize = DEPTH;

impl<const PARTS: usize> Inputs<PARTS> {
    pub(super) fn copy(source: &Source<'_>, grid: &Grid, band: &Band, has_odd: bool, is_shared: bool) -> Self {
        // A tap's distance in a row, and the step that the last place is in.
        let places = ((band.plane_rows(grid) + 1) * grid.columns() + DEPTH).next_multiple_of(DEPTH);
        let channels = source.shape.c_in;
        let tiles = channels.div_ceil(TILE);
        let tile = places / 2 * PAIR;
        let parity = tiles * tile;
        let plane = 2 * parity;
        let phases = grid.phases() * grid.column_phases();
        let part = phases * plane;
        let mut numbers = Buffer::lend(PARTS * part / 2);
        let parts = build::Parts::of(&mut numbers);
        let pixels: Vec<Vec<Pixel>> = (0..phases).map(|phase| inputs(grid, band, source, phase, places + 1)).collect();
        let steps = places / DEPTH;
        each(phases * steps, is_shared, |index| {
            let (phase, step) = (index / steps, index % steps);
            let pixels = &pixels[phase][step * DEPTH..];
            for index in 0..tiles {
                let channels = Channels::new(&source.values, channels, index * TILE);
                let start = phase * plane + index * tile + step * DEPTH / 2 * PAIR;
                let target = parts.start().cast::<u16>().wrapping_add(start);
                let rows = channels.rows(pixels);
                let odd = has_odd.then_some(parity);
                // SAFETY: whoever asks for inputs runs on the tile unit; tiles have room of their own in each step.
                unsafe { amx::right_tile::<PARTS>(&rows, channels.mask, target, odd, part) };
                channels.prefetch(&pixels[DEPTH..]);
            }
        });
        Self { numbers, part, plane, parity, tile, planes: Self::planes(grid, has_odd) }
    }

    /// Times that each place is there: for each phase, and for even and odd pairs if some tap reads the latter.
    pub(super) fn planes(grid: &Grid, has_odd: bool) -> usize {
        grid.phases() * grid.column_phases() * if has_odd { 2 } else { 1 }
    }

    /// Whether some tap of the window reads odd pairs.
    pub(super) fn has_odd(grid: &Grid, window: &Window) -> bool {
        let mut distances = window.rows.taps.iter().flat_map(|row| {
            let rows = grid.tap_row(row.offset).1 * grid.columns();
            window.columns.taps.iter().map(move |column| rows + grid.tap_column_phase(column.offset).1)
        });
        distances.any(|distance| distance % 2 == 1)
    }

    /// The tile that begins with a channel, from what the tap at an offset reads for the first place on.
    pub(super) fn tile(&self, grid: &Grid, channel: usize, [row, column]: [isize; 2]) -> *const u16 {
        let (phase, rows) = grid.tap_row(row);
        let (column_phase, columns) = grid.tap_column_phase(column);
        let distance = rows * grid.columns() + columns;
        let start = (phase * grid.column_phases() + column_phase) * self.plane + channel / TILE * self.tile;
        self.numbers.as_ptr().cast::<u16>().wrapping_add(start + distance % 2 * self.parity + distance / 2 * PAIR)
    }

    /// Of a panel of two tiles, all that taps read.
    pub(super) fn panel_bytes(&self) -> usize {
        2 * PARTS * self.planes * self.tile_bytes()
    }

    pub(super) fn tile_bytes(&self) -> usize {
        self.tile * size_of::<u16>()
    }

    pub(super) fn part_bytes(&self) -> usize {
        self.part * size_of::<u16>()
    }
}

/// The pixel at each place of a phase; none where there are zeros.
fn inputs(grid: &Grid, band: &Band, source: &Source<'_>, phase: usize, places: usize) -> Vec<Pixel> {
    let input_size = source.shape.input;
    let (phase, column_phase) = (phase / grid.column_phases(), phase % grid.column_phases());
    let mut pixels = vec![NONE; places];
    for row in 0..band.plane_rows(grid) {
        let (image, input) = band.row(grid, row);
        let Some(input) = grid.input_row(phase, input, input_size[0]) else { continue };
        let first = (image * input_size[0] + input) * source.row;
        for (column, pixel) in pixels[row * grid.columns()..][..grid.columns()].iter_mut().enumerate() {
            let column = (column * grid.column_phases() + column_phase).wrapping_sub(grid.lead());
            if column < input_size[1] {
                *pixel = first + column * source.pixel;
            }
        }
    }
    pixels
}

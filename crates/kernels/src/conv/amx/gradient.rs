//! The gradient of the weights: for each tap the product of the output's gradients, a row for each channel, and the
//! pixels that the tap reads.

use rayon::prelude::*;

use super::grid::{Band, Grid, bands};
use super::source::{BLOCK, Source, WIDTH};
use super::transposed::{Gradients, Inputs};
use super::weights::{Panel, panels};
use super::{OWN_SUMS, TASKS_PER_THREAD};
use crate::amx::{DEPTH, Product, TILE, Tiles};
use crate::build::Parts;
use crate::conv::pass::Pass;
use crate::conv::shape::ConvShape;
use crate::conv::window::Window;
use crate::conv::{num_runs, sum_in_order};
use crate::scratch::Buffer;

/// Bytes of a band's copies, about, where one thread works on it alone: with the sums they stay in the second-level cache.
const BAND_BYTES: usize = 896 * 1024;

/// Places of a band at most, about.
const MOST_PLACES: usize = 2304;

/// Places of a band that threads share at least, about: fewer would mean more passes over the sums, and more waiting.
const FEWEST_PLACES: usize = 600;

/// Sums from which threads share them if one band holds all places: each sum is then written once.
const SHARED_SUMS: usize = 128 * 1024;

/// Bytes of the panels of inputs that are computed together, about: they stay in the second-level cache while gradients of
/// one panel of outputs after the other pass by.
const PANELS_BYTES: usize = 1280 * 1024;

/// Panels of inputs that are computed together, at least.
const FEWEST_PANELS: usize = 2;

/// Panels of outputs of a task: few enough that all threads have some.
const TASK_OUTPUTS: usize = 8;

/// Gradient of the weights, OIHW.
///
/// Where they are few, fixed runs of bands have sums of their own, which are added in order; else threads share the
/// sums among them, band after band.
pub(super) fn weight_gradient<const PARTS: usize>(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let work = Work::<PARTS>::new(x, dy, shape);
    let shape = &work.source.shape;
    let all_places = shape.images * work.grid.rows() * work.grid.columns();
    let is_shared = work.len() > OWN_SUMS || (work.len() >= SHARED_SUMS && all_places <= MOST_PLACES);
    let pass = Pass::forward(shape);
    let rows = work.band_places(is_shared) / work.grid.columns().max(1);
    let bands = bands(&pass, &work.grid, rows.max(1), 1);
    if is_shared {
        let mut sums = Buffer::lend(work.len());
        work.sum(&bands, is_shared, &mut sums);
        return work.source.to_parameter(&sums);
    }
    let runs = num_runs(shape.images * shape.output_pixels()).min(bands.len());
    let run = bands.len().div_ceil(runs.max(1)).max(1);
    let sum = |bands: &[Band]| {
        let mut sums = vec![0.0; work.len()];
        work.sum(bands, is_shared, &mut sums);
        sums
    };
    let partials = bands.par_chunks(run).with_max_len(1).map(sum).collect();
    work.source.to_parameter(&sum_in_order(partials, work.len()))
}

/// What the gradient is computed from.
struct Work<'a, const PARTS: usize> {
    source: Source<'a>,
    dy: &'a [f32],
    window: Window,
    grid: Grid,
}

impl<'a, const PARTS: usize> Work<'a, PARTS> {
    fn new(x: &'a [f32], dy: &'a [f32], shape: &ConvShape) -> Self {
        let source = Source::new(x, shape);
        let shape = &source.shape;
        let window = Window::forward(shape);
        let grid = Grid::new(std::slice::from_ref(&window), shape.input);
        Self { source, dy, window, grid }
    }

    /// Places of a band, about: as many as its copies, or of those that threads share the panels that are computed together,
    /// stay in the second-level cache.
    fn band_places(&self, is_shared: bool) -> usize {
        let shape = &self.source.shape;
        let planes = Inputs::<PARTS>::planes(&self.grid, Inputs::<PARTS>::has_odd(&self.grid, &self.window));
        let number = PARTS * size_of::<u16>();
        let places = match is_shared {
            true => (PANELS_BYTES / (FEWEST_PANELS * 2 * TILE * planes * number)).max(FEWEST_PLACES),
            false => BAND_BYTES / ((shape.c_in * planes + shape.c_out) * number),
        };
        places.min(MOST_PLACES)
    }

    /// Elements of the sums; see [`Block`].
    fn len(&self) -> usize {
        let shape = &self.source.shape;
        panels(shape.c_out).count() * panels(shape.c_in).count() * shape.taps() * BLOCK
    }

    /// The sums over some bands, one after the other.
    fn sum(&self, bands: &[Band], is_shared: bool, sums: &mut [f32]) {
        if bands.is_empty() {
            sums.fill(0.0);
        }
        let has_odd = Inputs::<PARTS>::has_odd(&self.grid, &self.window);
        for (index, band) in bands.iter().enumerate() {
            let inputs = Inputs::<PARTS>::copy(&self.source, &self.grid, band, has_odd, is_shared);
            let gradients = Gradients::<PARTS>::copy(self.dy, &self.grid, band, &self.source.shape, is_shared);
            let tasks = self.tasks(inputs.panel_bytes());
            let copies = Copies { inputs: &inputs, gradients: &gradients, sums: Parts::of(sums), accumulate: index };
            let add = |task: &Vec<Block>| {
                // SAFETY: the pass comes here only where the unit is available, and nothing else runs on this thread
                // until the task is done.
                let tiles = unsafe { Tiles::configure(DEPTH) };
                for block in task {
                    // SAFETY: blocks share no sums.
                    unsafe { self.add(block, &copies, &tiles) };
                }
            };
            if is_shared {
                tasks.par_iter().with_max_len(1).for_each(add);
            } else {
                tasks.iter().for_each(add);
            }
        }
    }

    /// All blocks of the sums: in each task those of a few panels of inputs, so many bytes each, by panels of outputs.
    fn tasks(&self, panel_bytes: usize) -> Vec<Vec<Block>> {
        let outputs: Vec<Panel> = panels(self.source.shape.c_out).collect();
        let inputs: Vec<Panel> = panels(self.source.shape.c_in).collect();
        let task = |outputs: &[Panel], group: &[Panel]| {
            let per_output = inputs.len();
            let block = move |outputs: Panel, inputs: Panel| Block {
                outputs,
                inputs,
                index: outputs.index() * per_output + inputs.index(),
            };
            outputs.iter().flat_map(|&outputs| group.iter().map(move |&inputs| block(outputs, inputs))).collect()
        };
        let most =
            outputs.len().div_ceil(TASK_OUTPUTS) * inputs.len() / (TASKS_PER_THREAD * rayon::current_num_threads());
        let groups = inputs.chunks((PANELS_BYTES / panel_bytes.max(1)).min(most).max(FEWEST_PANELS));
        groups.flat_map(|inputs| outputs.chunks(TASK_OUTPUTS).map(move |outputs| task(outputs, inputs))).collect()
    }

    /// Adds a band to the sums of a block, for every tap.
    ///
    /// # Safety
    /// Nothing else touches the block's sums.
    unsafe fn add(&self, block: &Block, copies: &Copies<'_, PARTS>, tiles: &Tiles) {
        let Copies { inputs, gradients, sums, accumulate } = copies;
        let steps = gradients.step_offsets().as_ptr_range();
        let taps = self.window.rows.taps.iter().flat_map(|row| self.window.columns.taps.iter().map(move |c| (row, c)));
        for (index, (row, column)) in taps.enumerate() {
            let first = sums.start().wrapping_add((block.index * self.window.taps() + index) * BLOCK);
            let product = Product {
                left: [0, TILE].map(|row| gradients.tile(block.outputs.first + row)),
                left_stride: DEPTH * size_of::<u16>(),
                left_part: gradients.part_bytes(),
                steps: steps.start,
                steps_end: steps.end,
                right: inputs.tile(&self.grid, block.inputs.first, [row.offset, column.offset]),
                right_tile: inputs.tile_bytes(),
                right_part: inputs.part_bytes(),
                right_step: TILE * DEPTH * size_of::<u16>(),
                out: [0, TILE].map(|row| first.wrapping_add(row * WIDTH)),
                out_stride: [WIDTH * size_of::<f32>(); 2],
                accumulate: *accumulate,
                // The next tap's sums, or the next block's.
                ahead: first.wrapping_add(BLOCK).cast(),
            };
            // SAFETY: the copies cover all steps at every tap's distance; the sums have whole tiles.
            unsafe { product.run::<PARTS>(tiles, block.outputs.tiles, block.inputs.tiles) };
        }
    }
}

/// A band's operands, and where their products belong.
struct Copies<'a, const PARTS: usize> {
    inputs: &'a Inputs<PARTS>,
    gradients: &'a Gradients<PARTS>,
    sums: Parts,
    /// 0 if the sums begin with this band.
    accumulate: usize,
}

/// Up to two by two tiles of the sums, which lie block by block, and in each tap by tap.
#[derive(Clone, Copy)]
struct Block {
    outputs: Panel,
    inputs: Panel,
    index: usize,
}

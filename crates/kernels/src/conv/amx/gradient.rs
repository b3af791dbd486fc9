//! The gradient of the weights: for each tap the product of the output's gradients, a row for each channel, and the
//! pixels that the tap reads.

use rayon::prelude::*;

use super::grid::{Band, Grid, bands};
use super::source::Source;
use super::transposed::{Gradients, Inputs};
use super::weights::{Panel, panels};
use crate::amx::{DEPTH, Product, TILE, Tiles};
use crate::build::Parts;
use crate::conv::pass::Pass;
use crate::conv::shape::ConvShape;
use crate::conv::window::Window;
use crate::conv::{num_runs, sum_in_order};

/// Sums of a run at most, so that each run may have its own: a mebibyte.
const OWN_SUMS: usize = 256 * 1024;

/// Bytes of a band's copies, about, where one thread works on it alone.
const BAND_BYTES: usize = 1280 * 1024;

/// Places of a band at most where threads share the sums. The pixels of [`PANELS`] panels of inputs then stay in the
/// second-level cache while gradients of one panel of outputs after the other pass by, which are half as many numbers;
/// fewer places would mean more passes over the sums.
const MOST_PLACES: usize = 2304;

/// Panels of inputs that are computed together.
const PANELS: usize = 2;

/// Panels of outputs of a task: few enough that all threads have some.
const TASK_OUTPUTS: usize = 8;

/// Gradient of the weights, OIHW.
///
/// Where they are few, fixed runs of bands have sums of their own, which are added in order; else threads share the
/// sums among them, band after band.
pub(super) fn weight_gradient<const PARTS: usize>(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let work = Work::<PARTS>::new(x, dy, shape);
    let shape = &work.source.shape;
    let is_shared = work.len() > OWN_SUMS;
    let bytes = (shape.c_in + shape.c_out) * PARTS * size_of::<u16>();
    let places = if is_shared { MOST_PLACES } else { (BAND_BYTES / bytes).min(MOST_PLACES) };
    let pass = Pass::forward(shape);
    let bands = bands(&pass, &work.grid, (places / work.grid.columns().max(1)).max(1), 1);
    let runs = if is_shared { 1 } else { num_runs(shape.images * shape.output_pixels()).min(bands.len()) };
    let run = bands.len().div_ceil(runs.max(1)).max(1);
    let partials = bands.par_chunks(run).with_max_len(1).map(|bands| work.sum(bands, is_shared)).collect();
    work.source.to_parameter(&sum_in_order(partials, work.len()), work.padded)
}

/// What the gradient is computed from.
struct Work<'a, const PARTS: usize> {
    source: Source<'a>,
    dy: &'a [f32],
    window: Window,
    grid: Grid,
    /// Outputs and inputs with room for whole tiles.
    padded: [usize; 2],
}

impl<'a, const PARTS: usize> Work<'a, PARTS> {
    fn new(x: &'a [f32], dy: &'a [f32], shape: &ConvShape) -> Self {
        let source = Source::new(x, shape);
        let shape = &source.shape;
        let window = Window::forward(shape);
        let grid = Grid::new(std::slice::from_ref(&window), shape.input);
        let padded = [shape.c_out, shape.c_in].map(|channels| channels.next_multiple_of(TILE));
        Self { dy, window, grid, padded, source }
    }

    /// Elements of the sums, `[tap, output, input]`.
    fn len(&self) -> usize {
        self.source.shape.taps() * self.padded[0] * self.padded[1]
    }

    /// The sums over some bands, one after the other.
    fn sum(&self, bands: &[Band], is_shared: bool) -> Vec<f32> {
        let mut sums = vec![0.0; self.len()];
        let tasks = self.tasks();
        let has_odd = Inputs::<PARTS>::has_odd(&self.grid, &self.window);
        for band in bands {
            let inputs = Inputs::<PARTS>::copy(&self.source, &self.grid, band, has_odd, is_shared);
            let gradients = Gradients::<PARTS>::copy(self.dy, &self.grid, band, &self.source.shape, is_shared);
            let parts = Parts::of(&mut sums);
            let add = |task: &Vec<Block>| {
                // SAFETY: the pass comes here only where the unit is available, and nothing else runs on this thread
                // until the task is done.
                let tiles = unsafe { Tiles::configure(DEPTH) };
                for block in task {
                    // SAFETY: blocks share no sums.
                    unsafe { self.add(block, &inputs, &gradients, parts, &tiles) };
                }
            };
            if is_shared {
                tasks.par_iter().with_max_len(1).for_each(add);
            } else {
                tasks.iter().for_each(add);
            }
        }
        sums
    }

    /// All blocks of the sums: in each task those of a few panels of inputs, by panels of outputs.
    fn tasks(&self) -> Vec<Vec<Block>> {
        let outputs: Vec<Panel> = panels(self.source.shape.c_out).collect();
        let inputs: Vec<Panel> = panels(self.source.shape.c_in).collect();
        let task = |outputs: &[Panel], inputs: &[Panel]| {
            let blocks =
                outputs.iter().flat_map(|&outputs| inputs.iter().map(move |&inputs| Block { outputs, inputs }));
            blocks.collect()
        };
        let groups = inputs.chunks(PANELS);
        groups.flat_map(|inputs| outputs.chunks(TASK_OUTPUTS).map(move |outputs| task(outputs, inputs))).collect()
    }

    /// Adds a band to the sums of a block, for every tap.
    ///
    /// # Safety
    /// Nothing else touches the block's sums.
    unsafe fn add(
        &self,
        block: &Block,
        inputs: &Inputs<PARTS>,
        gradients: &Gradients<PARTS>,
        sums: Parts,
        tiles: &Tiles,
    ) {
        let [rows, stride] = self.padded;
        let steps = gradients.step_offsets().as_ptr_range();
        let taps = self.window.rows.taps.iter().flat_map(|row| self.window.columns.taps.iter().map(move |c| (row, c)));
        for (index, (row, column)) in taps.enumerate() {
            let first = (index * rows + block.outputs.first) * stride + block.inputs.first;
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
                out: [0, TILE].map(|row| sums.start().wrapping_add(first + row * stride)),
                out_stride: [stride * size_of::<f32>(); 2],
                accumulate: 1,
            };
            // SAFETY: the copies cover all steps at every tap's distance; the sums have whole tiles.
            unsafe { product.run::<PARTS>(tiles, block.outputs.tiles, block.inputs.tiles) };
        }
    }
}

/// Up to two by two tiles of the sums.
#[derive(Clone, Copy)]
struct Block {
    outputs: Panel,
    inputs: Panel,
}

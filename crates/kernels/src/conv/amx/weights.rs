//! Weights as tiles: for each panel of outputs and each step of the shared axis.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::grid::Grid;
use crate::amx::{DEPTH, Parts, TILE, transpose_pairs};
use crate::conv::pass::{Order, Pass};
use crate::conv::window::Window;
use crate::scratch::{Buffer, LINE};
use crate::tile::prefetch;

/// Tiles of columns of a panel at most.
pub(super) const PANEL: usize = 2;

/// No weight: beyond the channels, or read by the step before.
const NONE: i32 = -1;

/// How the pixels of a copy lie, in numbers: channels in chunks of [`DEPTH`], so that neighbouring pixels are
/// neighbouring cache lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Numbers of a pixel in a chunk, and so between pixels of a row.
    pub(super) pixel: usize,
    /// Between rows.
    pub(super) pitch: usize,
    /// Between chunks of channels.
    pub(super) chunk: usize,
    /// Between planes.
    pub(super) plane: usize,
}

/// One step of the shared axis.
pub(super) struct Step {
    /// Where it begins from an output's own place, in numbers.
    pub(super) offset: usize,
    /// The weight of each value, from the output's first one.
    weights: [i32; DEPTH],
}

impl Step {
    /// Where weights that lie side by side would begin, from an output's first one. `None` if there are none at all.
    fn side_by_side(&self) -> Option<isize> {
        let first = self.weights.iter().position(|&place| place != NONE)?;
        Some(self.weights[first] as isize - first as isize)
    }
}

/// The steps that a window takes, all of one depth.
pub(super) struct Steps {
    pub(super) depth: usize,
    pub(super) steps: Vec<Step>,
}

impl Steps {
    /// Of `window`: chunk by chunk, so that taps find their pixels in the first-level cache, and in each tap by tap, or
    /// row by row of taps where all channels of neighbouring pixels lie side by side.
    pub(super) fn new(pass: &Pass, window: &Window, grid: &Grid, layout: Layout) -> Self {
        let columns = &window.columns.taps;
        let merge = window.has_dense_rows() && pass.inputs <= DEPTH;
        let per_run = if merge { columns.len().max(1) } else { 1 };
        let depth = (per_run * layout.pixel).min(DEPTH);
        let mut steps = Vec::new();
        for chunk in 0..pass.inputs.div_ceil(DEPTH) {
            // The last chunk begins early rather than reach beyond the channels.
            let first = (chunk * DEPTH).min(pass.inputs.saturating_sub(DEPTH));
            for row in &window.rows.taps {
                let (phase, distance) = grid.tap_row(row.offset);
                for taps in columns.chunks(per_run) {
                    let start = phase * layout.plane
                        + chunk * layout.chunk
                        + distance * layout.pitch
                        + grid.tap_column(taps[0].offset) * layout.pixel;
                    let weight = |place: usize| {
                        let (tap, channel) = (taps[place / layout.pixel], first + place % layout.pixel);
                        let weight = pass.weight(0, 0, channel) + row.index * pass.kernel[1] + tap.index;
                        let is_new = channel >= chunk * DEPTH && channel < pass.inputs;
                        if is_new { weight as i32 } else { NONE }
                    };
                    push_run(&mut steps, start, taps.len() * layout.pixel, depth, weight);
                }
            }
        }
        Self { depth, steps }
    }

    /// Where each step begins, in bytes.
    pub(super) fn offsets(&self) -> Vec<u32> {
        self.steps.iter().map(|step| (step.offset * size_of::<u16>()) as u32).collect()
    }
}

/// A run of `len` values side by side, cut into steps. The last one begins early rather than read beyond the run, and
/// gives no weight to what was read before.
fn push_run(steps: &mut Vec<Step>, start: usize, len: usize, depth: usize, weight: impl Fn(usize) -> i32) {
    for done in (0..len).step_by(depth) {
        let first = done.min(len - depth);
        let mut weights = [NONE; DEPTH];
        for (place, target) in weights.iter_mut().enumerate().take(depth) {
            if first + place >= done {
                *target = weight(first + place);
            }
        }
        steps.push(Step { offset: start + first, weights });
    }
}

/// Columns of a result in panels of up to two tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Panel {
    pub(super) first: usize,
    /// Tiles, 1 or 2.
    pub(super) tiles: usize,
    /// Columns that the result has.
    pub(super) used: usize,
}

/// The panels of `columns` columns.
pub(super) fn panels(columns: usize) -> impl Iterator<Item = Panel> + Clone {
    (0..columns).step_by(PANEL * TILE).map(move |first| {
        let used = (columns - first).min(PANEL * TILE);
        Panel { first, tiles: used.div_ceil(TILE), used }
    })
}

impl Panel {
    /// Its place among the panels.
    pub(super) fn index(&self) -> usize {
        self.first / (PANEL * TILE)
    }

    /// Numbers of the tiles of one part of a step.
    pub(super) fn part(&self) -> usize {
        self.tiles * TILE * DEPTH
    }
}

/// Weights as the right operand: panel by panel, step by step, part by part.
pub(super) struct Weights<const PARTS: usize> {
    tiles: Buffer,
    /// Numbers of a panel of two tiles.
    panel: usize,
}

impl<const PARTS: usize> Weights<PARTS> {
    pub(super) fn pack(pass: &Pass, w: &[f32], steps: &Steps) -> Self {
        let panel = steps.steps.len() * PARTS * PANEL * TILE * DEPTH;
        let panels: Vec<Panel> = panels(pass.outputs).collect();
        let mut tiles = Buffer::lend(panels.len() * panel / 2);
        tiles.par_chunks_mut((panel / 2).max(1)).zip(panels).for_each(|(tiles, panel)| {
            let tiles = tiles.as_mut_ptr().cast::<u16>();
            for tile in 0..panel.tiles {
                // SAFETY: whoever packs weights runs on the tile unit, which has the vectors too; the panel has room
                // for its tiles of every step, and the outputs exist.
                unsafe { pack_tile::<PARTS>(pass, w, steps, panel, tile, tiles) };
            }
        });
        Self { tiles, panel }
    }

    /// Whether all panels stay in the second-level cache beside a band's copy.
    pub(super) fn are_few(&self) -> bool {
        /// Bytes of all panels at most.
        const BYTES: usize = 512 * 1024;

        size_of_val(&*self.tiles) <= BYTES
    }

    /// The tiles of a panel, with its index, from the first step of a stage on.
    pub(super) fn stage(&self, (index, panel): (usize, Panel), stage: Stage) -> *const u16 {
        let start = index * self.panel + stage.begin * PARTS * panel.part();
        self.tiles.as_ptr().cast::<u16>().wrapping_add(start)
    }

    /// What to ask for while a panel is multiplied, if so many numbers have been asked for before: the next panel's tiles
    /// of this stage, or else once more what is there.
    pub(super) fn after(&self, (index, panel): (usize, Panel), stage: Stage, done: usize) -> *const u16 {
        let is_left = done < stage.len * PARTS * panel.part() && 2 * self.tiles.len() > (index + 1) * self.panel;
        match is_left {
            true => self.stage((index + 1, panel), stage).wrapping_add(done),
            false => self.stage((index, panel), stage),
        }
    }
}

/// A stretch of the steps, taken with all panels before the next one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage {
    /// First step.
    pub(super) begin: usize,
    /// Steps.
    pub(super) len: usize,
    /// Whether there are no others.
    pub(super) is_whole: bool,
    /// Whether the sums are complete after it.
    pub(super) is_last: bool,
}

/// Packs one tile of columns of a panel for every step.
///
/// # Safety
/// The processor has AVX-512 F, BW and BF16; `panel` lies within the pass's outputs, and its tiles within `tiles`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_tile<const PARTS: usize>(
    pass: &Pass,
    w: &[f32],
    steps: &Steps,
    panel: Panel,
    tile: usize,
    tiles: *mut u16,
) {
    let first = panel.first + tile * TILE;
    let outputs = (panel.used - tile * TILE).min(TILE);
    let start = w.as_ptr().wrapping_add(pass.weight(0, first, 0));
    for (index, step) in steps.steps.iter().enumerate() {
        if pass.area() == 1 {
            let next = steps.steps.get(index + 1).unwrap_or(step);
            ask_for(start, next, if pass.order == Order::Forward { (pass.inputs, outputs) } else { (1, 1) });
        }
        // SAFETY: the weights of these outputs exist; the caller vouches for the rest.
        unsafe {
            let at = tiles.add(index * PARTS * panel.part() + tile * TILE * DEPTH);
            match pass.order {
                Order::Forward => pack_by_output::<PARTS>(pass, start, step, outputs, at, panel.part()),
                Order::Backward => pack_by_input::<PARTS>(pass, start, step, outputs, at, panel.part()),
            }
        }
    }
}

/// Asks for the weights of a step that lie side by side or, if its values are far from each other, for those of each:
/// more stretches than the processor foresees. There are `count` outputs, some elements apart.
fn ask_for(start: *const f32, step: &Step, (distance, count): (usize, usize)) {
    let by = if distance == 1 { 1 } else { LINE };
    for &place in step.weights.iter().step_by(by).filter(|&&place| place != NONE) {
        for output in 0..count {
            prefetch(start.wrapping_add(place as usize + output * distance));
        }
    }
}

/// Packs one tile of a step where the weights of one output lie together.
///
/// # Safety
/// As [`pack_tile`]; `start` is the first weight of the first of so many outputs, and there is room for a tile at `target`
/// and for each further part, `distance` numbers apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_by_output<const PARTS: usize>(
    pass: &Pass,
    start: *const f32,
    step: &Step,
    outputs: usize,
    target: *mut u16,
    distance: usize,
) {
    let zero = _mm512_setzero_si512();
    let mut parts = [[zero; TILE]; PARTS];
    // SAFETY: `NONE` is not read, any other place is a weight's.
    unsafe {
        let places = step.weights.as_ptr();
        let places = [_mm512_loadu_si512(places.cast()), _mm512_loadu_si512(places.add(TILE).cast())];
        let masks = [_mm512_cmpge_epi32_mask(places[0], zero), _mm512_cmpge_epi32_mask(places[1], zero)];
        // With a window of one pixel they lie side by side, in the order of the places.
        let side_by_side = step.side_by_side().filter(|_| pass.area() == 1);
        for output in 0..outputs {
            let start = start.add(output * pass.inputs * pass.area());
            let values = match side_by_side {
                Some(first) => Parts::<PARTS>::of(
                    _mm512_maskz_loadu_ps(masks[0], start.wrapping_offset(first)),
                    _mm512_maskz_loadu_ps(masks[1], start.wrapping_offset(first + TILE as isize)),
                ),
                None => Parts::<PARTS>::of(
                    _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), masks[0], places[0], start),
                    _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), masks[1], places[1], start),
                ),
            };
            for (part, values) in parts.iter_mut().zip(values.0) {
                part[output] = values;
            }
        }
        for (index, part) in parts.iter().enumerate() {
            store_tile(transpose_pairs(*part), target.add(index * distance));
        }
    }
}

/// As [`pack_by_output`], where those of one input do: each row of a tile is a pair of them.
///
/// # Safety
/// As [`pack_by_output`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_by_input<const PARTS: usize>(
    pass: &Pass,
    start: *const f32,
    step: &Step,
    outputs: usize,
    target: *mut u16,
    distance: usize,
) {
    let mask = ((1u32 << outputs) - 1) as __mmask16;
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(pass.area() as i32));
    for (row, pair) in step.weights.chunks_exact(2).enumerate() {
        let mut values = [_mm512_setzero_ps(); 2];
        for (values, &place) in values.iter_mut().zip(pair) {
            if place == NONE {
                continue;
            }
            // SAFETY: a weight of each of the outputs; lanes outside the mask are not read.
            unsafe {
                let start = start.add(place as usize);
                *values = match pass.area() {
                    1 => _mm512_maskz_loadu_ps(mask, start),
                    _ => _mm512_mask_i32gather_ps::<4>(*values, mask, places, start),
                };
            }
        }
        // SAFETY: the processor's features are on; there is room for the row.
        unsafe {
            let values = Parts::<PARTS>::of(values[0], values[1]).interleaved();
            values.store(DEPTH, target.add(row * DEPTH), distance);
        }
    }
}

/// # Safety
/// The processor has AVX-512 F; there is room for a tile.
#[inline(always)]
unsafe fn store_tile(rows: [__m512i; TILE], tile: *mut u16) {
    for (index, row) in rows.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_si512(tile.add(index * DEPTH).cast(), row) };
    }
}

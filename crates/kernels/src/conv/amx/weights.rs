//! Weights as tiles: for each panel of outputs and each step of the shared axis.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::grid::Grid;
use crate::amx::{DEPTH, Parts, TILE, transpose_pairs};
use crate::conv::pass::Pass;
use crate::conv::window::Window;
use crate::scratch::Buffer;

/// Tiles of columns of a panel at most.
const PANEL: usize = 2;

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

    /// The tiles of the panel with this index.
    pub(super) fn panel(&self, index: usize) -> *const u16 {
        self.tiles.as_ptr().cast::<u16>().wrapping_add(index * self.panel)
    }
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
    for (index, step) in steps.steps.iter().enumerate() {
        // SAFETY: `NONE` is not read, any other index is a weight's.
        unsafe {
            let places = step.weights.as_ptr();
            let (first_places, last_places) =
                (_mm512_loadu_si512(places.cast()), _mm512_loadu_si512(places.add(TILE).cast()));
            let zero = _mm512_setzero_si512();
            let first_mask = _mm512_cmpge_epi32_mask(first_places, zero);
            let last_mask = _mm512_cmpge_epi32_mask(last_places, zero);
            let mut parts = [[zero; TILE]; PARTS];
            for output in 0..outputs {
                let start = w.as_ptr().add(pass.weight(0, first + output, 0));
                let values = Parts::<PARTS>::of(
                    _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), first_mask, first_places, start),
                    _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), last_mask, last_places, start),
                );
                for (part, values) in parts.iter_mut().zip(values.0) {
                    part[output] = values;
                }
            }
            let at = tiles.add(index * PARTS * panel.part() + tile * TILE * DEPTH);
            for (index, part) in parts.into_iter().enumerate() {
                store_tile(transpose_pairs(part), at.add(index * panel.part()));
            }
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

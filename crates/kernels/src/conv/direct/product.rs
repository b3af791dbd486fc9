//! The pass over bands: outputs as products of taps and weights.

use std::ops::Range;

use rayon::prelude::*;

use super::band::{Frame, Source};
use crate::build::{Parts, build_parts};
use crate::conv::pass::{Order, Pass};
use crate::conv::window::Window;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Work};
use crate::tile::{Ahead, Panel, Panels, Product, Segment, Start, multiply};

/// Elements of a frame, about: a quarter of a mebibyte stays in the second-level cache beside a panel of weights.
const FRAME_ELEMENTS: usize = 64 * 1024;

impl Pass {
    /// Computes all outputs.
    pub(in crate::conv) fn run(&self, source: &[f32], w: &[f32], bias: Option<&[f32]>, windows: &[Window]) -> Vec<f32> {
        let path = simd::selected();
        let source = Source { values: source, size: self.source, channels: self.groups * self.inputs };
        let weights: Vec<Buffer> =
            windows.iter().map(|window| simd::run(path, Pack { pass: self, w, window })).collect();
        let rows = self.band_rows(windows);
        let bands = windows.first().map_or(0, |window| window.rows.count).div_ceil(rows);
        let len = self.images * self.target[0] * self.target[1] * self.groups * self.outputs;
        // SAFETY: every output belongs to one window and one band.
        unsafe {
            build_parts(len, self.images * bands, |index, y| {
                let (image, first) = (index / bands, index % bands * rows);
                let band = Band { pass: self, source, weights: &weights, bias, windows, image, first, rows, y };
                simd::run(path, band);
            })
        }
    }

    /// Rows of outputs (of each window) in a band. No sum depends on it.
    fn band_rows(&self, windows: &[Window]) -> usize {
        let channels = self.groups * self.inputs;
        let row = windows.iter().map(|window| window.columns.count * window.columns.step).max().unwrap_or(1);
        let step = windows.first().map_or(1, |window| window.rows.step);
        let count = windows.first().map_or(1, |window| window.rows.count).max(1);
        let most = (FRAME_ELEMENTS / (row * step * channels).max(1)).clamp(1, count);
        // Even bands, and enough of them for the threads.
        let bands = count.div_ceil(most).max(rayon::current_num_threads().div_ceil(self.images.max(1)));
        count.div_ceil(bands).max(1)
    }

    /// Elements of the packed weights of one group of a window.
    fn group_len(&self, padded: usize, window: &Window) -> usize {
        window.taps() * self.inputs * padded
    }
}

/// Packs the weights of a window: per group and panel `[tap row, tap column, input, width]`, zeros beyond the outputs.
struct Pack<'a> {
    pass: &'a Pass,
    w: &'a [f32],
    window: &'a Window,
}

impl Work for Pack<'_> {
    type Output = Buffer;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> Buffer {
        let panels = Panels::new::<I>(self.pass.outputs);
        let len = self.pass.group_len(panels.padded(), self.window);
        let mut packed = Buffer::lend(self.pass.groups * len);
        if len > 0 {
            packed.par_chunks_mut(len).enumerate().for_each(|(group, packed)| self.pack_group(group, panels, packed));
        }
        packed
    }
}

impl Pack<'_> {
    fn pack_group(&self, group: usize, panels: Panels, mut packed: &mut [f32]) {
        let mut parts = Vec::new();
        for panel in panels.iter() {
            let (part, rest) = packed.split_at_mut(self.window.taps() * self.pass.inputs * panel.width);
            parts.push((panel, part));
            packed = rest;
        }
        parts.into_par_iter().for_each(|(panel, part)| self.pack_panel(group, panel, part));
    }

    /// Some inputs at a time, so that the rows which are written stay in the cache.
    fn pack_panel(&self, group: usize, panel: Panel, part: &mut [f32]) {
        const INPUTS: usize = 16;

        let used = panel.width / panel.vectors * (panel.vectors - 1) + panel.last_lanes;
        if used < panel.width {
            part.fill(0.0);
        }
        if self.pass.area() == 1 && self.window.taps() == 1 && self.pass.order == Order::Backward {
            for (input, row) in part.chunks_exact_mut(panel.width).enumerate() {
                row[..used].copy_from_slice(&self.w[self.pass.weight(group, panel.first, input)..][..used]);
            }
            return;
        }
        for first in (0..self.pass.inputs).step_by(INPUTS) {
            let inputs = first..self.pass.inputs.min(first + INPUTS);
            // The parameter is read in the order in which it lies.
            match self.pass.order {
                Order::Forward => {
                    for lane in 0..used {
                        if self.pass.area() == 1 {
                            let start = self.pass.weight(group, panel.first + lane, first);
                            let targets = part[first * panel.width + lane..].iter_mut().step_by(panel.width);
                            targets.zip(&self.w[start..][..inputs.len()]).for_each(|(target, tap)| *target = *tap);
                        } else {
                            inputs.clone().for_each(|input| self.pack_taps(group, panel, lane, input, part));
                        }
                    }
                }
                Order::Backward => {
                    for input in inputs {
                        (0..used).for_each(|lane| self.pack_taps(group, panel, lane, input, part));
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn pack_taps(&self, group: usize, panel: Panel, lane: usize, input: usize, part: &mut [f32]) {
        let (inputs, columns) = (self.pass.inputs, &self.window.columns.taps);
        let taps = &self.w[self.pass.weight(group, panel.first + lane, input)..][..self.pass.area()];
        for (y, row) in self.window.rows.taps.iter().enumerate() {
            for (x, column) in columns.iter().enumerate() {
                let place = ((y * columns.len() + x) * inputs + input) * panel.width + lane;
                part[place] = taps[row.index * self.pass.kernel[1] + column.index];
            }
        }
    }
}

/// Some rows of outputs of one image.
struct Band<'a> {
    pass: &'a Pass,
    source: Source<'a>,
    weights: &'a [Buffer],
    bias: Option<&'a [f32]>,
    windows: &'a [Window],
    image: usize,
    first: usize,
    rows: usize,
    y: Parts,
}

impl Work for Band<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let step = self.windows.first().map_or(1, |window| window.rows.step);
        let frame = Frame::new(self.windows, self.rows, self.source.channels);
        let mut pixels = Buffer::lend(frame.len());
        frame.fill(self.source, self.image, self.first * step, &mut pixels);
        for (window, weights) in self.windows.iter().zip(self.weights) {
            let rows = self.first..window.rows.count.min(self.first + self.rows);
            // What a window without outputs would read has no place in the frame.
            if rows.is_empty() || window.columns.count == 0 {
                continue;
            }
            for group in 0..self.pass.groups {
                // SAFETY: the processor is the caller's.
                unsafe { self.multiply_group::<I>(window, weights, group, rows.clone(), frame, &pixels) };
            }
        }
    }
}

impl Band<'_> {
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn multiply_group<I: InstructionSet>(
        &self,
        window: &Window,
        weights: &[f32],
        group: usize,
        rows: Range<usize>,
        frame: Frame,
        pixels: &[f32],
    ) {
        let (inputs, outputs) = (self.pass.inputs, self.pass.outputs);
        let panels = Panels::new::<I>(outputs);
        let narrow = Panels::are_narrow::<I>(outputs);
        let mut weights = &weights[group * self.pass.group_len(panels.padded(), window)..];
        let channels = self.pass.groups * outputs;
        for panel in panels.iter() {
            let (segments, depth) = self.segments(window, panel.width, frame);
            let mut bias = [0.0; 32];
            let start = self.start(group * outputs + panel.first, &mut bias);
            for row in rows.clone() {
                let y = window.rows.first + row * window.rows.stride;
                let first = (self.image * self.pass.target[0] + y) * self.pass.target[1] + window.columns.first;
                // SAFETY: frame and weights cover every segment, and these outputs belong to this band.
                unsafe {
                    let product = Product {
                        left: pixels.as_ptr().add((row - self.first) * window.rows.step * frame.pitch + group * inputs),
                        left_stride: window.columns.step * frame.pixel,
                        right: weights.as_ptr(),
                        right_stride: panel.width,
                        out: self.y.start().add(first * channels + group * outputs + panel.first),
                        out_stride: window.columns.stride * channels,
                        segments: &segments,
                        depth,
                        last_lanes: panel.last_lanes,
                        ahead: Ahead::NOTHING,
                    };
                    multiply::<I>(window.columns.count, panel, narrow, false, product, start);
                }
            }
            weights = &weights[window.taps() * inputs * panel.width..];
        }
    }

    /// The panel's part of the bias, copied where whole vectors may be read.
    fn start(&self, first: usize, values: &mut [f32; 32]) -> Start {
        let Some(bias) = self.bias else { return Start::Zero };
        let bias = &bias[first..];
        let len = bias.len().min(values.len());
        values[..len].copy_from_slice(&bias[..len]);
        Start::Bias(values.as_ptr())
    }

    /// The taps as segments of the shared axis, and the values in each.
    fn segments(&self, window: &Window, width: usize, frame: Frame) -> (Vec<Segment>, usize) {
        let (rows, columns, inputs) = (&window.rows.taps, &window.columns.taps, self.pass.inputs);
        let merge = window.has_dense_rows() && frame.pixel == inputs;
        let per_row = if merge { columns.len().min(1) } else { columns.len() };
        let segment = |y: usize, x: usize| Segment {
            left: frame.offset(rows[y].offset, columns[x].offset),
            right: (y * columns.len() + x) * inputs * width,
        };
        let segments = (0..rows.len()).flat_map(|y| (0..per_row).map(move |x| (y, x)));
        let depth = if merge { columns.len() * inputs } else { inputs };
        (segments.map(|(y, x)| segment(y, x)).collect(), depth)
    }
}

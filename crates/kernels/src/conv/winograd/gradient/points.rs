//! For many channels: both transforms of all tiles first, then each point's sum over them on its own.
//!
//! A point's operands and sums stay in the second-level cache, where those of all points would not.

use std::ops::Range;

use rayon::prelude::*;

use super::super::transform::{self, Channels};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use super::super::unit;
use super::super::weights::{self, AREA, MAX_LANES};
use super::super::{GAP, POINTS, Planes, STREAMED, Tiles, plane_stride};
use super::padded;
use crate::build::{Parts, build_parts};
use crate::conv::shape::ConvShape;
use crate::scratch::Buffer;
use crate::simd::{self, InstructionSet, Selected, Vector, Work};
use crate::tile::{Ahead, Panel, Panels, Product, Segment, Start, even_parts, multiply, prefetch};

/// Input channels of which one task transforms the sums back.
const SLICE: usize = 16;

/// Tiles whose transformed values are kept at a time.
const BLOCK: usize = 512;

/// Tiles whose products are formed in registers: both operands of a register tile then stay in the first-level cache.
const DEPTH: usize = 128;

/// Tiles that one task transforms.
const PART: usize = 16;

/// The gradient, OIHW.
pub(super) fn weight_gradient(x: &[f32], dy: &[f32], shape: &ConvShape) -> Vec<f32> {
    let path = simd::selected();
    simd::run(path, Gradient { path, x, dy, shape, tiles: Tiles::of(shape) })
}

#[derive(Clone, Copy)]
struct Gradient<'a> {
    path: Selected,
    x: &'a [f32],
    dy: &'a [f32],
    shape: &'a ConvShape,
    tiles: Tiles,
}

impl Work for Gradient<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> Vec<f32> {
        let (rows, columns) = (self.shape.c_in, padded(self.shape));
        let most = BLOCK.min(self.tiles.count());
        let [inputs, gradients] = self.planes::<I>(most);
        let row = columns + GAP;
        let stride = plane_stride(rows * row);
        let (mut x, mut dy) = (Buffer::lend(inputs.len()), Buffer::lend(gradients.len()));
        let mut sums = Buffer::lend(POINTS * stride);
        if self.tiles.count() == 0 {
            sums.fill(0.0);
        }
        for start in (0..self.tiles.count()).step_by(BLOCK) {
            let block = start..self.tiles.count().min(start + BLOCK);
            self.transform(block.clone(), (&mut x, inputs), (&mut dy, gradients));
            let operands = [(&x[..], inputs), (&dy[..], gradients)];
            sums.par_chunks_mut(stride).enumerate().with_max_len(1).for_each(|(point, sums)| {
                let operands = operands.map(|(values, planes)| (&values[point * planes.plane..], planes));
                self.multiply(operands, block.len(), (sums, row), start == 0);
            });
        }
        let (sums, len) = (&sums[..], self.shape.c_out * rows * AREA);
        // SAFETY: every weight belongs to one slice.
        unsafe {
            build_parts(len, rows.div_ceil(SLICE), |slice, dw| {
                let inputs = slice * SLICE..rows.min((slice + 1) * SLICE);
                simd::run(self.path, Back { sums, row, stride, shape: self.shape, inputs, dw });
            })
        }
    }
}

impl Gradient<'_> {
    /// How the transformed inputs and gradients of so many tiles lie.
    fn planes<I: InstructionSet>(&self, tiles: usize) -> [Planes; 2] {
        let (rows, columns) = (self.shape.c_in, padded(self.shape));
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if unit::covers(self.path, self.shape) {
            return unit::planes(tiles, [rows, columns]);
        }
        let inputs = Planes::rows(tiles, rows.next_multiple_of(GAP));
        [inputs, Planes::panels(tiles, columns, 2 * I::Wide::LANES)]
    }

    /// The product at one point, to be added to what is there unless it is the first.
    fn multiply(
        &self,
        [inputs, gradients]: [(&[f32], Planes); 2],
        tiles: usize,
        (sums, row): (&mut [f32], usize),
        first: bool,
    ) {
        let (rows, columns) = (self.shape.c_in, padded(self.shape));
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if unit::covers(self.path, self.shape) {
            let writing = match first {
                true if POINTS * sums.len() > STREAMED => unit::Writing::Stream,
                true => unit::Writing::Store,
                false => unit::Writing::Add,
            };
            return unit::Point { inputs, gradients, tiles, channels: [rows, columns] }.multiply(sums, row, writing);
        }
        let begin = if first { Start::Zero } else { Start::Destination };
        let ((left, inputs), (right, gradients)) = (inputs, gradients);
        simd::run(self.path, Point { left, inputs, right, gradients, tiles, rows, columns, sums, row, begin });
    }

    /// Transforms inputs and gradients of a block, a part of the tiles per task.
    fn transform(&self, block: Range<usize>, x: (&mut [f32], Planes), dy: (&mut [f32], Planes)) {
        let (inputs, gradients) = ((Parts::of(x.0), x.1), (Parts::of(dy.0), dy.1));
        let parts: Vec<usize> = block.clone().step_by(PART).collect();
        parts.into_par_iter().with_max_len(1).for_each(|start| {
            let part = start..block.end.min(start + PART);
            simd::run(self.path, Part { gradient: *self, first: start - block.start, part, inputs, gradients });
        });
    }
}

/// The transforms of a few tiles.
struct Part<'a> {
    gradient: Gradient<'a>,
    /// Row of the first tile in the planes.
    first: usize,
    part: Range<usize>,
    inputs: (Parts, Planes),
    gradients: (Parts, Planes),
}

impl Work for Part<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let Gradient { x, dy, shape, .. } = self.gradient;
        let (x, dy) = (Channels::of(x, shape.c_in), Channels::of(dy, shape.c_out));
        // SAFETY: the processor is the caller's.
        unsafe {
            match self.inputs.1.len() > STREAMED {
                true => self.inputs::<I::Wide, true>(x),
                false => self.inputs::<I::Wide, false>(x),
            }
            match self.gradients.1.len() > STREAMED {
                true => self.gradients::<I::Wide, true>(dy),
                false => self.gradients::<I::Wide, false>(dy),
            }
        }
        simd::fence_streams();
    }
}

// The rows of these tiles are this task's alone.
impl Part<'_> {
    /// # Safety
    /// The processor has the vector's instructions.
    #[inline(always)]
    unsafe fn inputs<V: Vector, const STREAM: bool>(&self, x: Channels) {
        let (zeros, planes) = (Buffer::zeros(x.count), self.inputs.1);
        // SAFETY: `x` holds the images, and the planes have a row for every tile; the processor is the caller's.
        unsafe {
            let out = self.inputs.0.start().add(self.first * planes.row);
            let tiles = self.part.clone();
            transform::inputs::<V, STREAM>(x, &self.gradient.tiles, tiles, zeros.as_ptr(), out, planes);
        }
    }

    /// # Safety
    /// The processor has the vector's instructions.
    #[inline(always)]
    unsafe fn gradients<V: Vector, const STREAM: bool>(&self, dy: Channels) {
        let (zeros, planes) = (Buffer::zeros(dy.count), self.gradients.1);
        // SAFETY: as above.
        unsafe {
            let out = self.gradients.0.start().add(self.first * planes.row);
            let tiles = self.part.clone();
            transform::gradients::<V, STREAM>(dy, &self.gradient.tiles, tiles, zeros.as_ptr(), out, planes);
        }
    }
}

/// `sums (+)= leftᵀ · right` of one point.
struct Point<'a> {
    left: &'a [f32],
    inputs: Planes,
    right: &'a [f32],
    gradients: Planes,
    tiles: usize,
    rows: usize,
    columns: usize,
    sums: &'a mut [f32],
    /// Between rows of sums.
    row: usize,
    begin: Start,
}

impl Work for Point<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(mut self) {
        for first in (0..self.tiles).step_by(DEPTH) {
            let begin = if first == 0 { self.begin } else { Start::Destination };
            let depth = DEPTH.min(self.tiles - first);
            let left = &self.left[first * self.inputs.row..];
            let left_ahead = Ahead::of(left.as_ptr().wrapping_add(depth * self.inputs.row), depth * self.inputs.row);
            let panels = Panels::new::<I>(self.columns);
            for (index, panel) in panels.iter().enumerate() {
                let ahead = left_ahead.part(index, panels.count());
                // SAFETY: the processor is the caller's.
                unsafe { self.multiply::<I>(left, panel, first..first + depth, ahead, begin) };
            }
        }
    }
}

impl Point<'_> {
    /// The product of some tiles' inputs and of their gradients in one panel. Meanwhile the next tiles' are asked for:
    /// `ahead` of the inputs, and the panel's own.
    ///
    /// # Safety
    /// The processor has the instruction set.
    #[inline(always)]
    unsafe fn multiply<I: InstructionSet>(
        &mut self,
        left: &[f32],
        panel: Panel,
        tiles: Range<usize>,
        ahead: Ahead,
        begin: Start,
    ) {
        let right = &self.right[self.gradients.channel(panel.first) + tiles.start * self.gradients.row..];
        let len = tiles.len() * self.gradients.row;
        let right_ahead = Ahead::of(right.as_ptr().wrapping_add(len), len);
        let strips = self.rows.div_ceil(I::MAX_ROWS);
        let half = strips.div_ceil(2);
        for (strip, (first, rows)) in even_parts(self.rows, I::MAX_ROWS).enumerate() {
            let product = Product {
                left: left[first..].as_ptr(),
                left_stride: self.inputs.row,
                right: right.as_ptr(),
                right_stride: self.gradients.row,
                out: self.sums[first * self.row + panel.first..].as_mut_ptr(),
                out_stride: self.row,
                segments: &Segment::WHOLE,
                depth: tiles.len(),
                last_lanes: panel.width / panel.vectors,
                ahead: match strip.checked_sub(half) {
                    None => ahead.part(strip, half),
                    Some(strip) => right_ahead.part(strip, strips - half),
                },
            };
            // SAFETY: planes have a row per tile and whole vectors, `sums` a row per input channel; the processor is the
            // caller's.
            unsafe { multiply::<I>(rows, panel, false, true, product, begin) };
        }
    }
}

/// Sums over points back to the taps, for some input channels.
struct Back<'a> {
    sums: &'a [f32],
    /// Between input channels.
    row: usize,
    /// Between points.
    stride: usize,
    shape: &'a ConvShape,
    inputs: Range<usize>,
    dw: Parts,
}

impl Work for Back<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let (c_in, c_out, len) = (self.shape.c_in, self.shape.c_out, self.inputs.len() * AREA);
        // Of each output, the taps of these inputs.
        let mut taps = [[0.0; SLICE * AREA]; MAX_LANES];
        for first in (0..c_out).step_by(I::Wide::LANES) {
            for (index, input) in self.inputs.clone().enumerate() {
                // SAFETY: 36 planes of rows of whole vectors; the processor is the caller's.
                unsafe { self.spread::<I::Wide>(input * self.row + first, index, &mut taps) };
            }
            for (output, taps) in (first..c_out).zip(&taps).take(I::Wide::LANES) {
                let start = (output * c_in + self.inputs.start) * AREA;
                // SAFETY: the weights of these inputs are this task's.
                unsafe { self.dw.start().add(start).copy_from_nonoverlapping(taps.as_ptr(), len) };
            }
        }
    }
}

impl Back<'_> {
    /// The taps of one input and a vector of outputs, whose sums are at `place` at the first point.
    ///
    /// # Safety
    /// The processor has the vector's instructions, and the place lies in the sums.
    #[inline(always)]
    unsafe fn spread<V: Vector>(&self, place: usize, index: usize, taps: &mut [[f32; SLICE * AREA]; MAX_LANES]) {
        let mut lanes = [0.0; MAX_LANES];
        for point in 0..POINTS {
            prefetch(self.sums.as_ptr().wrapping_add(point * self.stride + place + V::LANES));
        }
        // SAFETY: the caller's; `lanes` has room for the widest vector.
        let values = unsafe { weights::taps::<V>(self.sums[place..].as_ptr(), self.stride) };
        for (tap, value) in values.into_iter().flatten().enumerate() {
            // SAFETY: as above.
            unsafe { value.store(lanes.as_mut_ptr()) };
            let targets = taps.iter_mut().map(|taps| &mut taps[index * AREA + tap]);
            targets.zip(&lanes[..V::LANES]).for_each(|(target, value)| *target = *value);
        }
    }
}

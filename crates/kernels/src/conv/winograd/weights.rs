//! The transform of weights to the points, packed as the products read them, and back for their gradient.

use std::ops::Range;

use rayon::prelude::*;

use super::transform::{FAR, NEAR};
use super::{GAP, POINTS, STREAMED, WINDOW, plane_stride};
use crate::build::Parts;
use crate::conv::shape::ConvShape;
use crate::scratch::{Buffer, LINE};
use crate::simd::{self, InstructionSet, Selected, Vector, Work};
use crate::tile::{Ahead, Panel, Panels, prefetch};

/// Taps of the window along one axis.
const TAPS: usize = 3;
/// Taps of the window.
pub(super) const AREA: usize = TAPS * TAPS;
/// Input channels whose taps are taken together.
const GROUP: usize = 16;
/// Lanes of the widest vector.
pub(super) const MAX_LANES: usize = 16;

/// Lagrange's factors of the points ±√½ and ±√2.
const NEAR_FACTOR: f32 = -2.0 / 3.0;
/// See [`NEAR_FACTOR`].
const FAR_FACTOR: f32 = 1.0 / 6.0;

/// Which convolution the weights are transformed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conv) enum Direction {
    /// From `x` to `y`.
    Forward,
    /// From `dy` to `dx`: taps turned round, input and output channels exchanged.
    Backward,
}

/// Transformed weights: per point and panel of output channels a matrix `[c_in, width]`, in the order of the products.
pub(super) struct PackedWeights {
    values: Buffer,
    c_in: usize,
    /// Elements between points.
    stride: usize,
}

impl PackedWeights {
    /// Elements before a panel, from where its point starts.
    fn panel_offset(c_in: usize, index: usize, panel: Panel) -> usize {
        c_in * panel.first + GAP * index
    }

    /// The matrix of one panel and point.
    #[inline(always)]
    pub(super) fn matrix(&self, index: usize, panel: Panel, point: usize) -> &[f32] {
        let start = point * self.stride + Self::panel_offset(self.c_in, index, panel);
        &self.values[start..start + self.c_in * panel.width]
    }

    /// All matrices of the point after one, to be asked for.
    pub(super) fn after(&self, point: usize) -> Ahead {
        Ahead::of(self.values[(point + 1) % POINTS * self.stride..].as_ptr(), self.stride)
    }

    /// Transforms a parameter.
    pub(super) fn new(path: Selected, parameter: &Parameter<'_>) -> Self {
        simd::run(path, Transform { path, parameter })
    }
}

/// A layer's parameter, OIHW, and which convolution reads it.
pub(super) struct Parameter<'a> {
    pub(super) w: &'a [f32],
    /// Of the convolution that reads the weights: backward, its `c_in` is the layer's `c_out`.
    pub(super) shape: &'a ConvShape,
    pub(super) direction: Direction,
}

struct Transform<'a> {
    path: Selected,
    parameter: &'a Parameter<'a>,
}

impl Work for Transform<'_> {
    type Output = PackedWeights;

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) -> PackedWeights {
        let (c_in, c_out) = (self.parameter.shape.c_in, self.parameter.shape.c_out);
        let panels: Vec<Panel> = Panels::new::<I>(c_out).iter().collect();
        let stride = plane_stride(c_in * Panels::new::<I>(c_out).padded() + GAP * panels.len());
        let mut values = Buffer::lend(POINTS * stride);
        let result = Parts::of(&mut values);
        (0..panels.len()).into_par_iter().with_max_len(1).for_each(|index| {
            simd::run(self.path, TransformPanel { transform: &self, index, panel: panels[index], stride, result });
        });
        PackedWeights { values, c_in, stride }
    }
}

struct TransformPanel<'a> {
    transform: &'a Transform<'a>,
    index: usize,
    panel: Panel,
    stride: usize,
    result: Parts,
}

impl Work for TransformPanel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: InstructionSet>(self) {
        let parameter = self.transform.parameter;
        let c_in = parameter.shape.c_in;
        let stride = self.stride;
        // SAFETY: the panel's own columns at every point; the processor is the caller's.
        unsafe {
            let out = self.result.start().add(PackedWeights::panel_offset(c_in, self.index, self.panel));
            for point in 0..POINTS {
                out.add(point * stride + c_in * self.panel.width).write_bytes(0, GAP);
            }
            for (inputs, vector) in groups(c_in, self.panel.vectors) {
                let first = self.panel.first + vector * I::Wide::LANES;
                let outputs = first..parameter.shape.c_out.min(first + I::Wide::LANES);
                for input in inputs {
                    parameter.ask_for(outputs.clone(), input);
                    let taps = parameter.taps::<I::Wide>(outputs.clone(), input);
                    let out = out.add(input * self.panel.width + vector * I::Wide::LANES);
                    match POINTS * stride > STREAMED {
                        true => to_points::<I::Wide, true>(taps, out, stride),
                        false => to_points::<I::Wide, false>(taps, out, stride),
                    }
                }
            }
        }
        simd::fence_streams();
    }
}

/// The order in which a panel's weights are taken: some inputs for one vector of outputs, then for the next. What is
/// read lies together, and so does what is written at a point.
pub(super) fn groups(inputs: usize, vectors: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    let groups = (0..inputs).step_by(GROUP).map(move |first| first..inputs.min(first + GROUP));
    groups.flat_map(move |group| (0..vectors).map(move |vector| (group.clone(), vector)))
}

impl Parameter<'_> {
    /// The taps from one input to some outputs, in the order in which they lie in the window.
    ///
    /// # Safety
    /// The processor has the vector's instructions; there are such channels.
    #[inline(always)]
    pub(super) unsafe fn taps<V: Vector>(&self, outputs: Range<usize>, input: usize) -> [[V; TAPS]; TAPS] {
        let (c_in, c_out) = (self.shape.c_in, self.shape.c_out);
        let (start, stride) = match self.direction {
            Direction::Forward => (outputs.start * c_in + input, c_in * AREA),
            Direction::Backward => (input * c_out + outputs.start, AREA),
        };
        let start = self.w[start * AREA..].as_ptr();
        // SAFETY: the caller vouches for the channels.
        unsafe {
            let mut taps = [[V::splat(0.0); TAPS]; TAPS];
            for (index, tap) in taps.iter_mut().flatten().enumerate() {
                let index = if self.direction == Direction::Forward { index } else { AREA - 1 - index };
                *tap = V::load_strided(start.add(index), stride, outputs.len());
            }
            taps
        }
    }

    /// Asks for the taps of inputs to come: many short stretches, which the processor does not foresee.
    #[inline(always)]
    pub(super) fn ask_for(&self, outputs: Range<usize>, input: usize) {
        let (c_in, c_out) = (self.shape.c_in, self.shape.c_out);
        match self.direction {
            // Those of some inputs lie together.
            Direction::Forward if input.is_multiple_of(GROUP) => outputs.for_each(|output| {
                ask_for(self.w, (output * c_in + input + GROUP) * AREA, GROUP * AREA);
            }),
            Direction::Forward => {}
            Direction::Backward => {
                ask_for(self.w, ((input + GROUP) * c_out + outputs.start) * AREA, outputs.len() * AREA);
            }
        }
    }
}

/// Asks for some values, or for what lies behind the last of them.
#[inline(always)]
fn ask_for(values: &[f32], start: usize, len: usize) {
    for element in (0..len).step_by(LINE) {
        prefetch(values.as_ptr().wrapping_add(start + element));
    }
}

/// `G g` along one axis: three taps to the six points.
#[inline(always)]
unsafe fn spread<V: Vector>(g: [V; TAPS]) -> [V; WINDOW] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let even = V::splat(0.5 * NEAR_FACTOR).mul_add(g[2], V::splat(NEAR_FACTOR).mul(g[0]));
        let odd = V::splat(NEAR * NEAR_FACTOR).mul(g[1]);
        let even_far = V::splat(2.0 * FAR_FACTOR).mul_add(g[2], V::splat(FAR_FACTOR).mul(g[0]));
        let odd_far = V::splat(FAR * FAR_FACTOR).mul(g[1]);
        [g[0], even.add(odd), even.sub(odd), even_far.add(odd_far), even_far.sub(odd_far), g[2]]
    }
}

/// `Gᵀ m` along one axis: six points to three taps.
#[inline(always)]
unsafe fn gather_points<V: Vector>(m: [V; WINDOW]) -> [V; TAPS] {
    // SAFETY: the caller vouches for the processor.
    unsafe {
        let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (sum_far, difference_far) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            V::splat(NEAR_FACTOR).mul_add(sum, V::splat(FAR_FACTOR).mul_add(sum_far, m[0])),
            V::splat(NEAR * NEAR_FACTOR).mul_add(difference, V::splat(FAR * FAR_FACTOR).mul(difference_far)),
            V::splat(0.5 * NEAR_FACTOR).mul_add(sum, V::splat(2.0 * FAR_FACTOR).mul_add(sum_far, m[5])),
        ]
    }
}

#[inline(always)]
pub(super) unsafe fn to_points<V: Vector, const STREAM: bool>(taps: [[V; TAPS]; TAPS], out: *mut f32, stride: usize) {
    // SAFETY: the caller vouches for the processor and for a vector at every point.
    unsafe {
        let mut rows = [[V::splat(0.0); TAPS]; WINDOW];
        for column in 0..TAPS {
            for (row, point) in rows.iter_mut().zip(spread([taps[0][column], taps[1][column], taps[2][column]])) {
                row[column] = point;
            }
        }
        for (y, row) in rows.into_iter().enumerate() {
            for (x, value) in spread(row).into_iter().enumerate() {
                match STREAM {
                    true => value.stream(out.add((y * WINDOW + x) * stride)),
                    false => value.store(out.add((y * WINDOW + x) * stride)),
                }
            }
        }
    }
}

/// Sums over points back to the taps: the gradient of `[c_in, c_out]` pairs as `[c_in, 9, c_out]`.
///
/// # Safety
/// The processor has the vector's instructions; `sums` holds 36 planes of `pairs` rows of `columns` values, `stride`
/// apart, and `out` has room for nine rows per row. `columns` is a number of whole vectors.
#[inline(always)]
pub(super) unsafe fn from_points<V: Vector>(
    sums: *const f32,
    stride: usize,
    rows: usize,
    columns: usize,
    out: *mut f32,
) {
    for row in 0..rows {
        for column in (0..columns).step_by(V::LANES) {
            // SAFETY: the caller vouches for the buffers.
            unsafe {
                let taps = taps::<V>(sums.add(row * columns + column), stride);
                for (tap, value) in taps.into_iter().flatten().enumerate() {
                    value.store(out.add((row * AREA + tap) * columns + column));
                }
            }
        }
    }
}

/// The taps of one vector of pairs from their sums at the points, `stride` apart.
///
/// # Safety
/// The processor has the vector's instructions, and there is a vector at every point.
#[inline(always)]
pub(super) unsafe fn taps<V: Vector>(sums: *const f32, stride: usize) -> [[V; TAPS]; TAPS] {
    // SAFETY: the caller's.
    unsafe {
        let mut half = [[V::splat(0.0); WINDOW]; TAPS];
        for x in 0..WINDOW {
            let mut points = [V::splat(0.0); WINDOW];
            for (y, value) in points.iter_mut().enumerate() {
                *value = V::load(sums.add((y * WINDOW + x) * stride));
            }
            for (half, tap) in half.iter_mut().zip(gather_points(points)) {
                half[x] = tap;
            }
        }
        [gather_points(half[0]), gather_points(half[1]), gather_points(half[2])]
    }
}

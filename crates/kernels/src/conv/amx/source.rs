//! The pixels that the weights' gradient reads, and where its sums belong.

use std::borrow::Cow;

use super::weights::PANEL;
use crate::amx::TILE;
use crate::build::build;
use crate::conv::shape::ConvShape;

/// Channels up to which a row of taps is read as one pixel of more channels: few of them would leave tiles empty.
const NARROW: usize = 8;

/// Channels of a panel: rows and columns of a block of sums.
pub(super) const WIDTH: usize = PANEL * TILE;

/// Elements of a block of sums.
pub(super) const BLOCK: usize = WIDTH * WIDTH;

/// Channels of a pixel as it is read: those of a row of taps where they are few.
pub(super) fn channels(shape: &ConvShape) -> usize {
    if is_merged(shape) { shape.kernel[1] * shape.c_in } else { shape.c_in }
}

fn is_merged(shape: &ConvShape) -> bool {
    shape.kernel[1] > 1 && shape.c_in <= NARROW && shape.geometry.dilation[1] == 1
}

/// Images whose pixels lie anywhere, as long as the distances are the same everywhere.
pub(super) struct Source<'a> {
    pub(super) values: Cow<'a, [f32]>,
    /// Between rows.
    pub(super) row: usize,
    /// Between pixels.
    pub(super) pixel: usize,
    /// The convolution as it is computed.
    pub(super) shape: ConvShape,
    /// Taps of a row that one pixel stands for, and the channels of each.
    merged: Option<[usize; 2]>,
}

impl<'a> Source<'a> {
    pub(super) fn new(x: &'a [f32], shape: &ConvShape) -> Self {
        let [taps, channels] = [shape.kernel[1], shape.c_in];
        if !is_merged(shape) {
            let (values, row) = (Cow::Borrowed(x), shape.input[1] * channels);
            return Self { values, row, pixel: channels, shape: *shape, merged: None };
        }
        let [padding, stride] = [shape.geometry.padding[1], shape.geometry.stride[1]];
        let row = (shape.input[1] + 2 * padding) * channels;
        let values = build(shape.images * shape.input[0] * row, row, |index, target| {
            let source = &x[index * shape.input[1] * channels..][..shape.input[1] * channels];
            target[padding * channels..][..source.len()].copy_from_slice(source);
        });
        let mut geometry = shape.geometry;
        (geometry.padding[1], geometry.stride[1]) = (0, 1);
        let merged = ConvShape {
            input: [shape.input[0], shape.output[1]],
            c_in: self::channels(shape),
            kernel: [shape.kernel[0], 1],
            geometry,
            ..*shape
        };
        Self {
            values: Cow::Owned(values),
            row,
            pixel: stride * channels,
            shape: merged,
            merged: Some([taps, channels]),
        }
    }

    /// From sums, `[panel of outputs, panel of inputs, tap, output, input]`, to OIHW.
    pub(super) fn to_parameter(&self, sums: &[f32]) -> Vec<f32> {
        let (taps, channels) = (self.shape.taps(), self.shape.c_in);
        let panels = channels.div_ceil(WIDTH);
        build(self.shape.c_out * channels * taps, channels * taps, |output, dw| {
            for (panel, first) in (0..channels).step_by(WIDTH).enumerate() {
                for tap in 0..taps {
                    let block = ((output / WIDTH * panels + panel) * taps + tap) * BLOCK;
                    let sums = &sums[block + output % WIDTH * WIDTH..][..WIDTH.min(channels - first)];
                    self.spread(sums, first, tap, dw);
                }
            }
        })
    }

    /// Brings the sums of a tap, from an input on, to their places among the weights of one output.
    fn spread(&self, sums: &[f32], first: usize, tap: usize, dw: &mut [f32]) {
        let taps = self.shape.taps();
        match self.merged {
            None => {
                let targets = dw[first * taps + tap..].iter_mut().step_by(taps);
                targets.zip(sums).for_each(|(target, sum)| *target = *sum);
            }
            Some([columns, channels]) => {
                for (place, sum) in (first..).zip(sums) {
                    let (column, channel) = (place / channels, place % channels);
                    dw[(channel * taps + tap) * columns + column] = *sum;
                }
            }
        }
    }
}

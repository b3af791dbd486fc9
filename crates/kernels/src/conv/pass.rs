//! One direction of a convolution, from what is read to what is written: forward, or from `dy` to `dx`.

use super::shape::ConvShape;

/// How weights lie in the parameter, for a pass that reads `inputs` and gives `outputs` channels per group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Output channels outermost.
    Forward,
    /// Input channels of the pass outermost.
    Backward,
}

/// Sizes of one pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    pub(super) images: usize,
    pub(super) source: [usize; 2],
    pub(super) target: [usize; 2],
    pub(super) groups: usize,
    /// Channels of a group that are read.
    pub(super) inputs: usize,
    /// Channels of a group that are written.
    pub(super) outputs: usize,
    pub(super) kernel: [usize; 2],
    pub(super) order: Order,
}

impl Pass {
    pub(super) fn forward(shape: &ConvShape) -> Self {
        Self {
            images: shape.images,
            source: shape.input,
            target: shape.output,
            groups: shape.geometry.groups,
            inputs: shape.group_in(),
            outputs: shape.group_out(),
            kernel: shape.kernel,
            order: Order::Forward,
        }
    }

    pub(super) fn backward(shape: &ConvShape) -> Self {
        let forward = Self::forward(shape);
        Self {
            source: forward.target,
            target: forward.source,
            inputs: forward.outputs,
            outputs: forward.inputs,
            order: Order::Backward,
            ..forward
        }
    }

    /// Index in the parameter of a tap of one pair of channels, without the tap; taps are innermost.
    pub(super) fn weight(&self, group: usize, output: usize, input: usize) -> usize {
        match self.order {
            Order::Forward => ((group * self.outputs + output) * self.inputs + input) * self.area(),
            Order::Backward => ((group * self.inputs + input) * self.outputs + output) * self.area(),
        }
    }

    pub(super) fn area(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

//! Parameters and multiply-adds of a ResNet, counted without building it.

use super::config::{BlockKind, BlockPlace, ResNetConfig, ResNetLayout, Stem};
use crate::ModelCost;
use crate::config::Outputs;

/// The cost for one image of the configuration's size.
pub(crate) fn resnet_cost(layout: &ResNetLayout, config: &ResNetConfig, num_classes: usize) -> ModelCost {
    let mut tally = Tally { side: config.input_size, ..Tally::default() };
    tally.stem(config.stem, layout.width);
    layout.stages().iter().flatten().for_each(|place| tally.block(place));
    let linear_weights = layout.num_features() * num_classes;
    ModelCost {
        num_parameters: tally.num_parameters + linear_weights + num_classes,
        forward_macs: tally.forward_macs + linear_weights,
        training_values: tally.outputs.training_values(),
        recomputing_values: tally.outputs.recomputing_values(),
        forward_values: tally.outputs.forward_values(),
        largest_weights: tally.largest_weights.max(linear_weights),
    }
}

/// Sums so far, and the side of the square activation that they have reached.
#[derive(Default)]
struct Tally {
    side: usize,
    num_parameters: usize,
    forward_macs: usize,
    outputs: Outputs,
    largest_weights: usize,
}

impl Tally {
    fn stem(&mut self, stem: Stem, width: usize) {
        match stem {
            Stem::ImageNet => self.conv_and_norm(3, width, 7, 2),
            Stem::Cifar => return self.conv_and_norm(3, width, 3, 1),
            Stem::ResNetD => {
                self.conv_and_norm(3, width / 2, 3, 2);
                self.conv_and_norm(width / 2, width / 2, 3, 1);
                self.conv_and_norm(width / 2, width, 3, 1);
            }
        }
        self.side = self.side.div_ceil(2);
        // What the max-pool gives.
        self.outputs.keep(1, width * self.side * self.side);
    }

    fn block(&mut self, place: &BlockPlace) {
        let &BlockPlace { kind, c_in, width, c_out, stride } = place;
        match kind {
            BlockKind::Basic => {
                self.conv_norm_conv(c_in, width, 3, stride);
                self.conv_and_norm(width, c_out, 3, 1);
            }
            BlockKind::Bottleneck => {
                self.conv_norm_conv(c_in, width, 1, 1);
                self.conv_norm_conv(width, width, 3, stride);
                self.conv_and_norm(width, c_out, 1, 1);
            }
        }
        // The shortcut's convolution runs at the block's outgoing resolution, pooled or strided.
        if !place.keeps_shape() {
            self.conv_and_norm(c_in, c_out, 1, 1);
        }
    }

    /// A convolution whose weights are used once per outgoing pixel, and the two values per channel of its batch norm,
    /// which has ReLU and the sum with a shortcut in it. The outputs of both are kept.
    fn conv_and_norm(&mut self, c_in: usize, c_out: usize, kernel: usize, stride: usize) {
        self.conv(c_in, c_out, kernel, stride);
        self.outputs.keep(1, c_out * self.side * self.side);
    }

    /// The same before another convolution.
    fn conv_norm_conv(&mut self, c_in: usize, c_out: usize, kernel: usize, stride: usize) {
        self.conv(c_in, c_out, kernel, stride);
        self.outputs.keep_between(c_out * self.side * self.side);
    }

    fn conv(&mut self, c_in: usize, c_out: usize, kernel: usize, stride: usize) {
        let weights = c_in * c_out * kernel * kernel;
        self.side = self.side.div_ceil(stride);
        self.num_parameters += weights + 2 * c_out;
        self.forward_macs += weights * self.side * self.side;
        self.outputs.keep(1, c_out * self.side * self.side);
        self.largest_weights = self.largest_weights.max(weights);
    }
}

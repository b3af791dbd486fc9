//! The convolutions of each network, as data.

use taper_kernels::ConvGeometry;

use crate::network::Model;
use crate::timing::Size;

/// A convolution and how often it stands in its network. Images, kernels, strides and paddings are square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvCase {
    /// How often it stands in the network.
    pub(crate) count: usize,
    /// Height of its input, pixels.
    pub(crate) h: usize,
    /// Width of its input, pixels.
    pub(crate) w: usize,
    /// Channels in.
    pub(crate) c_in: usize,
    /// Channels out.
    pub(crate) c_out: usize,
    /// Side of the window.
    pub(crate) kernel: usize,
    /// Step between windows.
    pub(crate) stride: usize,
    /// Zeros on each side.
    pub(crate) padding: usize,
}

/// A row of the tables below.
const fn conv(
    count: usize,
    side: usize,
    [c_in, c_out]: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
) -> ConvCase {
    ConvCase { count, h: side, w: side, c_in, c_out, kernel, stride, padding }
}

/// BaseNet at width 1, 32×32 images.
const BASENET: [ConvCase; 11] = [
    conv(1, 32, [3, 64], 3, 1, 1),
    conv(6, 32, [64, 64], 3, 1, 1),
    conv(1, 32, [64, 128], 3, 1, 1),
    conv(7, 32, [128, 128], 3, 1, 1),
    conv(1, 32, [128, 256], 3, 1, 1),
    conv(11, 32, [256, 256], 3, 1, 1),
    conv(1, 32, [256, 512], 3, 1, 1),
    conv(5, 32, [512, 512], 3, 1, 1),
    conv(1, 32, [64, 128], 1, 1, 0),
    conv(1, 32, [128, 256], 1, 1, 0),
    conv(1, 32, [256, 512], 1, 1, 0),
];

/// ResNet-18 (He et al. 2016, table 1), 224×224 images.
const RESNET18: [ConvCase; 11] = [
    conv(1, 224, [3, 64], 7, 2, 3),
    conv(4, 56, [64, 64], 3, 1, 1),
    conv(1, 56, [64, 128], 3, 2, 1),
    conv(1, 56, [64, 128], 1, 2, 0),
    conv(3, 28, [128, 128], 3, 1, 1),
    conv(1, 28, [128, 256], 3, 2, 1),
    conv(1, 28, [128, 256], 1, 2, 0),
    conv(3, 14, [256, 256], 3, 1, 1),
    conv(1, 14, [256, 512], 3, 2, 1),
    conv(1, 14, [256, 512], 1, 2, 0),
    conv(3, 7, [512, 512], 3, 1, 1),
];

/// ResNet-50 with the stride in the 3×3 convolution, as torchvision has it; 224×224 images.
const RESNET50: [ConvCase; 23] = [
    conv(1, 224, [3, 64], 7, 2, 3),
    conv(1, 56, [64, 64], 1, 1, 0),
    conv(3, 56, [64, 64], 3, 1, 1),
    conv(4, 56, [64, 256], 1, 1, 0),
    conv(2, 56, [256, 64], 1, 1, 0),
    conv(1, 56, [256, 128], 1, 1, 0),
    conv(1, 56, [128, 128], 3, 2, 1),
    conv(1, 56, [256, 512], 1, 2, 0),
    conv(4, 28, [128, 512], 1, 1, 0),
    conv(3, 28, [512, 128], 1, 1, 0),
    conv(3, 28, [128, 128], 3, 1, 1),
    conv(1, 28, [512, 256], 1, 1, 0),
    conv(1, 28, [256, 256], 3, 2, 1),
    conv(1, 28, [512, 1024], 1, 2, 0),
    conv(6, 14, [256, 1024], 1, 1, 0),
    conv(5, 14, [1024, 256], 1, 1, 0),
    conv(5, 14, [256, 256], 3, 1, 1),
    conv(1, 14, [1024, 512], 1, 1, 0),
    conv(1, 14, [512, 512], 3, 2, 1),
    conv(1, 14, [1024, 2048], 1, 2, 0),
    conv(3, 7, [512, 2048], 1, 1, 0),
    conv(2, 7, [2048, 512], 1, 1, 0),
    conv(2, 7, [512, 512], 3, 1, 1),
];

/// Every distinct convolution of the network, from input to output.
pub(crate) fn convolutions(model: Model) -> &'static [ConvCase] {
    match model {
        Model::BaseNet => &BASENET,
        Model::ResNet18 => &RESNET18,
        Model::ResNet50 => &RESNET50,
    }
}

impl ConvCase {
    /// Itself, or with few pixels and channels in a smoke run.
    pub(crate) fn sized(self, size: Size) -> Self {
        let pixels = |side| size.at_most(side, 9);
        let channels = |channels| size.at_most(channels, 16);
        Self { h: pixels(self.h), w: pixels(self.w), c_in: channels(self.c_in), c_out: channels(self.c_out), ..self }
    }

    /// Stride and padding, as ops take them.
    pub(crate) fn geometry(&self) -> ConvGeometry {
        ConvGeometry { stride: [self.stride; 2], padding: [self.padding; 2], ..ConvGeometry::default() }
    }

    /// Height and width of its output, pixels.
    pub(crate) fn output(&self) -> [usize; 2] {
        [self.h, self.w].map(|side| (side + 2 * self.padding - self.kernel) / self.stride + 1)
    }

    /// Multiply-adds of a direct computation for one image; each of the three passes has as many.
    pub(crate) fn macs(&self) -> usize {
        let [height, width] = self.output();
        height * width * self.c_in * self.c_out * self.kernel * self.kernel
    }

    /// Whether its input is the image, whose gradient nobody needs.
    pub(crate) fn is_first(&self) -> bool {
        self.c_in == 3
    }
}

#[cfg(test)]
mod tests {
    use taper_models::{BaseNetConfig, ModelConfig};

    use super::convolutions;
    use crate::network::Model;
    use crate::timing::Size;

    fn macs(model: Model) -> usize {
        convolutions(model).iter().map(|case| case.count * case.macs()).sum()
    }

    #[test]
    fn basenet_has_the_operations_that_its_crate_counts() {
        let linear = 512 * 16 * 16 * 50 + 50 * 100;
        let counted = ModelConfig::BaseNet(BaseNetConfig::default()).cost(100).forward_macs;
        assert_eq!(macs(Model::BaseNet) + linear, counted);
    }

    /// Operations and depths as torchvision's documentation gives them (GFLOPS of its weights, 1000 classes).
    #[test]
    fn resnets_have_the_published_operations_and_depths() {
        for (model, features, gmacs, depth) in [(Model::ResNet18, 512, 1.814, 20), (Model::ResNet50, 2048, 4.089, 53)] {
            let found = (macs(model) + features * 1000) as f64 / 1e9;
            assert!((found - gmacs).abs() < 0.0006, "{model}: {found}");
            assert_eq!(convolutions(model).iter().map(|case| case.count).sum::<usize>(), depth);
        }
    }

    #[test]
    fn a_smoke_run_is_tiny() {
        for model in [Model::BaseNet, Model::ResNet18, Model::ResNet50] {
            assert!(convolutions(model).iter().all(|case| case.sized(Size::Smoke).macs() < 200_000));
        }
    }
}

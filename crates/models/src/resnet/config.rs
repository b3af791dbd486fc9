//! A ResNet as data: the layout that its name fixes, and what a config file may choose.

use serde::{Deserialize, Serialize};

use crate::{LayerOrder, ModelError};

pub(super) const NUM_STAGES: usize = 4;

/// Which residual block a network is made of (He et al. 2016, figure 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1 convolutions; the last one widens four times.
    Bottleneck,
}

impl BlockKind {
    /// Channels that leave a block for each channel of its 3×3 convolutions.
    pub fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// Blocks and widths of a ResNet (He et al. 2016, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNetLayout {
    /// The block that all stages repeat.
    pub block: BlockKind,
    /// Blocks of each stage, at least one.
    pub depths: [usize; NUM_STAGES],
    /// Channels of the stem and of the first stage's 3×3 convolutions; each further stage doubles them.
    pub width: usize,
}

impl ResNetLayout {
    /// 11.7 million parameters with 1000 classes.
    pub const RESNET18: Self = Self { block: BlockKind::Basic, depths: [2, 2, 2, 2], width: 64 };
    /// 21.8 million parameters with 1000 classes.
    pub const RESNET34: Self = Self { block: BlockKind::Basic, depths: [3, 4, 6, 3], width: 64 };
    /// 25.6 million parameters with 1000 classes.
    pub const RESNET50: Self = Self { block: BlockKind::Bottleneck, depths: [3, 4, 6, 3], width: 64 };
    /// 44.5 million parameters with 1000 classes.
    pub const RESNET101: Self = Self { block: BlockKind::Bottleneck, depths: [3, 4, 23, 3], width: 64 };
    /// 60.2 million parameters with 1000 classes.
    pub const RESNET152: Self = Self { block: BlockKind::Bottleneck, depths: [3, 8, 36, 3], width: 64 };

    /// Channels that reach the head.
    pub fn num_features(&self) -> usize {
        (self.width << (NUM_STAGES - 1)) * self.block.expansion()
    }

    /// Finds a layout that no network can be built from.
    ///
    /// # Errors
    /// Names the field and what would do.
    pub fn validate(&self) -> Result<(), ModelError> {
        if let Some(depth) = self.depths.iter().find(|depth| !(1..=1000).contains(*depth)) {
            return Err(ModelError::config("depths", depth, "a stage has 1 to 1000 blocks"));
        }
        if !(2..=4096).contains(&self.width) || !self.width.is_multiple_of(2) {
            return Err(ModelError::config("width", self.width, "must be even and between 2 and 4096 channels"));
        }
        Ok(())
    }

    /// Stem, blocks and head by their names.
    pub(crate) fn layers(&self) -> LayerOrder {
        let blocks = |(stage, depth)| (0..depth).map(move |index| format!("layer{}.{index}", stage + 1));
        LayerOrder::new(&["conv1", "bn1"], self.depths.into_iter().enumerate().flat_map(blocks), "fc")
    }

    /// The blocks in order, stage by stage.
    pub(super) fn stages(&self) -> [Vec<BlockPlace>; NUM_STAGES] {
        let mut c_in = self.width;
        std::array::from_fn(|stage| {
            let width = self.width << stage;
            let mut place = |index| {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let c_out = width * self.block.expansion();
                BlockPlace { kind: self.block, c_in: std::mem::replace(&mut c_in, c_out), width, c_out, stride }
            };
            (0..self.depths[stage]).map(&mut place).collect()
        })
    }
}

/// Where a residual block stands: what it is, its channels, and by how much it divides the resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub(super) kind: BlockKind,
    pub(super) c_in: usize,
    pub(super) width: usize,
    pub(super) c_out: usize,
    pub(super) stride: usize,
}

impl BlockPlace {
    /// Whether the block's input can be added to its output as it is.
    pub(super) fn keeps_shape(&self) -> bool {
        self.stride == 1 && self.c_in == self.c_out
    }
}

/// What a config file chooses about a ResNet. The default is torchvision's network for ImageNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResNetConfig {
    /// How images enter.
    pub stem: Stem,
    /// What each block's last batch norm starts from.
    pub last_norm: LastNorm,
    /// What the head starts from.
    pub head_init: HeadInit,
    /// Side of the square images that are prepared for the network, pixels. It runs on any other size as well.
    pub input_size: usize,
}

/// How images enter a ResNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// A 7×7 convolution and a 3×3 max-pool, both with stride 2 (He et al. 2016, table 1).
    #[serde(rename = "imagenet")]
    ImageNet,
    /// A 3×3 convolution at full resolution, for images of about 32 pixels (He et al. 2016, §4.2).
    Cifar,
    /// Three 3×3 convolutions, the first with stride 2, and the max-pool; shortcuts that average 2×2 pixels before
    /// their 1×1 convolution instead of skipping three of four (He et al. 2019, §4.2, "ResNet-D"). Names as timm's.
    #[serde(rename = "resnet-d")]
    ResNetD,
}

impl Stem {
    /// The side of the smallest images that reach the last stage.
    fn smallest_input(self) -> usize {
        match self {
            Self::ImageNet | Self::Cifar => 1,
            // The last shortcut averages 2×2 pixels of a sixteenth of the resolution, rounded up.
            Self::ResNetD => 17,
        }
    }
}

/// What the scale of the last batch norm in each block starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LastNorm {
    /// 1, as every other batch norm.
    One,
    /// 0, so that each block passes on its input at first (Goyal et al. 2017, §5.1; torchvision's `zero_init_residual`).
    Zero,
}

/// What the weights and biases of the head start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadInit {
    /// `U(±1/√in)`, PyTorch's default.
    Uniform,
    /// 0: all classes are equally likely at first, and the features decide from the first step on.
    Zero,
}

impl Default for ResNetConfig {
    fn default() -> Self {
        Self { stem: Stem::ImageNet, last_norm: LastNorm::One, head_init: HeadInit::Uniform, input_size: 224 }
    }
}

impl ResNetConfig {
    /// Finds a configuration that no network can be built from.
    ///
    /// # Errors
    /// Names the key and what would do.
    pub fn validate(&self) -> Result<(), ModelError> {
        let smallest = self.stem.smallest_input();
        if !(smallest..=4096).contains(&self.input_size) {
            let reason = format!("must be between {smallest} and 4096 pixels with this stem");
            return Err(ModelError::config("input_size", self.input_size, reason));
        }
        Ok(())
    }
}

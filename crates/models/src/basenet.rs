//! BaseNet: the report's residual network for 32×32 images.

use candle_core::{Result, Tensor};
use candle_nn::{ModuleT, VarBuilder};
use serde::{Deserialize, Serialize};
use taper_kernels::{ConvGeometry, Epilogue, PoolGeometry};

use crate::network::require_size;
use crate::{Backbone, BatchNorm, Conv2d, LayerOrder, Linear, ModelError, Network};

/// Channels of the stem and of the four stages at width 1.
const CHANNELS: [usize; 5] = [64, 64, 128, 256, 512];
/// Units between the two linear layers of the head.
pub(crate) const HEAD_UNITS: usize = 50;

/// What a [`BaseNet`] is built from. The default is the report's network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaseNetConfig {
    /// Multiplies every channel count of the trunk (rounded down, at least 1).
    pub width: f64,
    /// Residual blocks per stage; a stage may have none.
    pub depths: [usize; 4],
    /// What the block's feature path is multiplied with before its input is added.
    pub residual_scale: f64,
    /// What carries the input of a block that changes the number of channels.
    pub shortcut: Shortcut,
    /// Groups of the 3×3 convolutions in the blocks; must divide every stage's channels.
    pub groups: usize,
    /// Side of the square input images, pixels. The head's first layer depends on it.
    pub input_size: usize,
}

/// How a block's input reaches its output when the channel counts differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortcut {
    /// A 1×1 convolution.
    Conv1x1,
    /// The input's channels, and zeros for the new ones (He et al. 2016, option A): no parameters.
    ZeroPad,
}

impl Default for BaseNetConfig {
    fn default() -> Self {
        Self {
            width: 1.0,
            depths: [3, 4, 6, 3],
            residual_scale: 0.1,
            shortcut: Shortcut::Conv1x1,
            groups: 1,
            input_size: 32,
        }
    }
}

impl BaseNetConfig {
    /// Channels of the stem and the four stages.
    pub fn channels(&self) -> [usize; 5] {
        CHANNELS.map(|channels| ((channels as f64 * self.width) as usize).max(1))
    }

    /// The blocks in order: stage, index within the stage, channels in and out.
    pub(crate) fn blocks(&self) -> Vec<BlockPlace> {
        let channels = self.channels();
        let mut c_in = channels[0];
        let mut places = Vec::new();
        for (stage, depth) in self.depths.into_iter().enumerate() {
            for index in 0..depth {
                places.push(BlockPlace { stage, index, c_in, c_out: channels[stage + 1] });
                c_in = channels[stage + 1];
            }
        }
        places
    }

    /// Channels that reach the head.
    pub(crate) fn trunk_channels(&self) -> usize {
        self.blocks().last().map_or(self.channels()[0], |block| block.c_out)
    }

    /// Values per image before the max-pool, which belongs to the head.
    pub(crate) fn num_features(&self) -> usize {
        self.trunk_channels() * self.input_size.pow(2)
    }

    /// Stem, blocks and head by their names.
    pub(crate) fn layers(&self) -> LayerOrder {
        let block = |place: BlockPlace| format!("stages.{}.{}", place.stage, place.index);
        LayerOrder::new(&["stem"], self.blocks().into_iter().map(block), "head")
    }

    /// Values per image behind the max-pool.
    pub(crate) fn head_inputs(&self) -> usize {
        self.trunk_channels() * (self.input_size / 2).pow(2)
    }

    /// Finds a configuration that no network can be built from.
    ///
    /// # Errors
    /// Names the key and what would do.
    pub fn validate(&self) -> std::result::Result<(), ModelError> {
        if !(self.width.is_finite() && self.width > 0.0 && self.width <= 16.0) {
            return Err(ModelError::config("width", self.width, "must be above 0 and at most 16; 1.0 is the report's"));
        }
        if let Some(depth) = self.depths.iter().find(|depth| **depth > 1000) {
            return Err(ModelError::config("depths", depth, "a stage has at most 1000 blocks"));
        }
        if !self.residual_scale.is_finite() {
            return Err(ModelError::config("residual_scale", self.residual_scale, "must be a finite number"));
        }
        if !(2..=1024).contains(&self.input_size) {
            return Err(ModelError::config("input_size", self.input_size, "must be between 2 and 1024 pixels"));
        }
        let divides = |channels: usize| self.groups > 0 && channels.is_multiple_of(self.groups);
        match self.blocks().iter().find(|block| !divides(block.c_in) || !divides(block.c_out)) {
            Some(block) => Err(ModelError::config(
                "groups",
                self.groups,
                format!("must divide the channels of every block, and one has {} -> {}", block.c_in, block.c_out),
            )),
            None => Ok(()),
        }
    }
}

/// Where a residual block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    pub(crate) stage: usize,
    pub(crate) index: usize,
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
}

/// Two convolutions with batch norm and ReLU, scaled, and the block's input added.
#[derive(Clone, Debug)]
pub struct ResidualBlock {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    shortcut: ShortcutPath,
    residual_scale: f32,
}

#[derive(Clone, Debug)]
enum ShortcutPath {
    Identity,
    Conv1x1(Conv2d),
    ZeroPad(usize),
}

impl ResidualBlock {
    fn new(config: &BaseNetConfig, c_in: usize, c_out: usize, vb: VarBuilder) -> Result<Self> {
        let geometry = ConvGeometry { padding: [1, 1], groups: config.groups, ..ConvGeometry::default() };
        let shortcut = match config.shortcut {
            _ if c_in == c_out => ShortcutPath::Identity,
            Shortcut::ZeroPad if c_out > c_in => ShortcutPath::ZeroPad(c_out - c_in),
            _ => ShortcutPath::Conv1x1(Conv2d::new(c_in, c_out, 1, ConvGeometry::default(), vb.pp("shortcut"))?),
        };
        Ok(Self {
            conv1: Conv2d::new(c_in, c_out, 3, geometry, vb.pp("conv1"))?,
            bn1: BatchNorm::new(c_out, vb.pp("bn1"))?,
            conv2: Conv2d::new(c_out, c_out, 3, geometry, vb.pp("conv2"))?,
            bn2: BatchNorm::new(c_out, vb.pp("bn2"))?,
            shortcut,
            residual_scale: config.residual_scale as f32,
        })
    }
}

impl ModuleT for ResidualBlock {
    /// `[n, h, w, c_in]` → `[n, h, w, c_out]`.
    fn forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let features = self.bn1.relu_conv(&self.conv1.forward(input)?, &self.conv2, train)?;
        let shortcut = match &self.shortcut {
            ShortcutPath::Identity => input.clone(),
            ShortcutPath::Conv1x1(conv) => conv.forward(input)?,
            ShortcutPath::ZeroPad(missing) => input.pad_with_zeros(3, 0, *missing)?,
        };
        let epilogue = Epilogue::ReluScaleAdd { scale: self.residual_scale, shortcut: &shortcut };
        self.bn2.forward_t(&features, epilogue, train)
    }
}

/// The report's network: a stem, four stages of residual blocks at full resolution, a max-pool and a small head.
///
/// # Shapes
/// `[n, 32, 32, 3]` f32, normalised → logits `[n, num_classes]`.
#[derive(Clone, Debug)]
pub struct BaseNet {
    trunk: Trunk,
    head: Head,
}

/// Everything up to the last residual block.
#[derive(Clone, Debug)]
struct Trunk {
    conv: Conv2d,
    bn: BatchNorm,
    blocks: Vec<ResidualBlock>,
    input_size: usize,
}

/// From the last feature map to the logits.
#[derive(Clone, Debug)]
struct Head {
    fc1: Linear,
    fc2: Linear,
    bn: BatchNorm,
}

impl BaseNet {
    /// Builds the network over the variables of `vb`.
    ///
    /// # Errors
    /// A configuration that [`BaseNetConfig::validate`] refuses, no classes, or tensors of another shape in `vb`.
    pub fn new(config: &BaseNetConfig, num_classes: usize, vb: VarBuilder) -> std::result::Result<Self, ModelError> {
        config.validate()?;
        let blocks: Result<Vec<_>> = config
            .blocks()
            .into_iter()
            .map(|BlockPlace { stage, index, c_in, c_out }| {
                ResidualBlock::new(config, c_in, c_out, vb.pp("stages").pp(stage).pp(index))
            })
            .collect();
        let stem_channels = config.channels()[0];
        let same = ConvGeometry { padding: [1, 1], ..ConvGeometry::default() };
        let (stem, head) = (vb.pp("stem"), vb.pp("head"));
        Ok(Self {
            trunk: Trunk {
                conv: Conv2d::new(3, stem_channels, 3, same, stem.pp("conv"))?,
                bn: BatchNorm::new(stem_channels, stem.pp("bn"))?,
                blocks: blocks?,
                input_size: config.input_size,
            },
            head: Head {
                fc1: Linear::new(config.head_inputs(), HEAD_UNITS, head.pp("fc1"))?,
                fc2: Linear::new(HEAD_UNITS, num_classes, head.pp("fc2"))?,
                bn: BatchNorm::new(num_classes, head.pp("bn"))?,
            },
        })
    }

    /// The trunk: `[n, 32, 32, 3]` → `[n, 32, 32, c]`.
    ///
    /// # Errors
    /// Images of another size or type.
    pub fn features(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.trunk.forward_t(images, train)
    }

    /// The head: `[n, 32, 32, c]` → logits `[n, num_classes]`.
    ///
    /// # Errors
    /// Features of another size or type.
    pub fn classify(&self, features: &Tensor, train: bool) -> Result<Tensor> {
        self.head.forward_t(features, train)
    }
}

impl ModuleT for BaseNet {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.classify(&self.features(images, train)?, train)
    }
}

impl From<BaseNet> for Network {
    fn from(model: BaseNet) -> Self {
        Self { backbone: Box::new(model.trunk), head: Box::new(model.head) }
    }
}

impl Backbone for Trunk {}

impl ModuleT for Trunk {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        require_size(images, self.input_size)?;
        let stem = self.bn.forward_t(&self.conv.forward(images)?, Epilogue::Relu, train)?;
        self.blocks.iter().try_fold(stem, |features, block| block.forward_t(&features, train))
    }
}

impl ModuleT for Head {
    fn forward_t(&self, features: &Tensor, train: bool) -> Result<Tensor> {
        let pooled = taper_kernels::max_pool2d(features, &PoolGeometry::square(2))?; // [n, 16, 16, c]
        let flat = taper_kernels::flatten_chw(&pooled)?; // [n, c·16·16]
        let hidden = taper_kernels::relu(&self.fc1.forward(&flat)?)?; // [n, 50]
        self.bn.forward_t(&self.fc2.forward(&hidden)?, Epilogue::Identity, train)
    }
}

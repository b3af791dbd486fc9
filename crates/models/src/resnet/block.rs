//! The two residual blocks and what carries their input around them.

use candle_core::{Result, Tensor};
use candle_nn::init::{FanInOut, NonLinearity, NormalOrUniform};
use candle_nn::{Init, ModuleT, VarBuilder};
use taper_kernels::{ConvGeometry, Epilogue, Padding, PoolGeometry, Rounding, avg_pool2d};

use super::config::{BlockKind, BlockPlace, LastNorm, ResNetConfig, Stem};
use crate::{BatchNorm, Conv2d};

/// torchvision's `kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")`.
const KAIMING: Init =
    Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanOut, non_linearity: NonLinearity::ReLU };

/// A convolution with an odd kernel, padded so that the stride alone divides the size (rounded up).
pub(super) fn conv(c_in: usize, c_out: usize, kernel: usize, stride: usize, vb: VarBuilder) -> Result<Conv2d> {
    let geometry = ConvGeometry { stride: [stride; 2], ..ConvGeometry::same(kernel) };
    Conv2d::with_init(c_in, c_out, kernel, geometry, KAIMING, vb)
}

/// A residual block of either kind.
#[derive(Clone, Debug)]
pub(super) enum Block {
    Basic(BasicBlock),
    Bottleneck(Bottleneck),
}

impl Block {
    pub(super) fn new(config: &ResNetConfig, place: &BlockPlace, vb: VarBuilder) -> Result<Self> {
        Ok(match place.kind {
            BlockKind::Basic => Self::Basic(BasicBlock::new(config, place, vb)?),
            BlockKind::Bottleneck => Self::Bottleneck(Bottleneck::new(config, place, vb)?),
        })
    }
}

impl ModuleT for Block {
    fn forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        match self {
            Self::Basic(block) => block.forward_t(input, train),
            Self::Bottleneck(block) => block.forward_t(input, train),
        }
    }
}

/// Two 3×3 convolutions with batch norm; the block's input is added before the last ReLU.
#[derive(Clone, Debug)]
pub(super) struct BasicBlock {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    downsample: Downsample,
}

impl BasicBlock {
    fn new(config: &ResNetConfig, place: &BlockPlace, vb: VarBuilder) -> Result<Self> {
        let &BlockPlace { c_in, width, c_out, stride, .. } = place;
        Ok(Self {
            conv1: conv(c_in, width, 3, stride, vb.pp("conv1"))?,
            bn1: BatchNorm::new(width, vb.pp("bn1"))?,
            conv2: conv(width, c_out, 3, 1, vb.pp("conv2"))?,
            bn2: last_norm(config.last_norm, c_out, vb.pp("bn2"))?,
            downsample: Downsample::new(config.stem, place, vb.pp("downsample"))?,
        })
    }
}

impl ModuleT for BasicBlock {
    /// `[n, h, w, c_in]` → `[n, h/stride, w/stride, c_out]`.
    fn forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let features = self.bn1.relu_conv(&self.conv1.forward(input)?, &self.conv2, train)?;
        let shortcut = &self.downsample.forward_t(input, train)?;
        self.bn2.forward_t(&features, Epilogue::AddRelu { shortcut }, train)
    }
}

/// A 1×1 convolution that narrows, a 3×3 one that strides, and a 1×1 one that widens, each with batch norm.
#[derive(Clone, Debug)]
pub(super) struct Bottleneck {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    downsample: Downsample,
}

impl Bottleneck {
    fn new(config: &ResNetConfig, place: &BlockPlace, vb: VarBuilder) -> Result<Self> {
        let &BlockPlace { c_in, width, c_out, stride, .. } = place;
        Ok(Self {
            conv1: conv(c_in, width, 1, 1, vb.pp("conv1"))?,
            bn1: BatchNorm::new(width, vb.pp("bn1"))?,
            conv2: conv(width, width, 3, stride, vb.pp("conv2"))?,
            bn2: BatchNorm::new(width, vb.pp("bn2"))?,
            conv3: conv(width, c_out, 1, 1, vb.pp("conv3"))?,
            bn3: last_norm(config.last_norm, c_out, vb.pp("bn3"))?,
            downsample: Downsample::new(config.stem, place, vb.pp("downsample"))?,
        })
    }
}

impl ModuleT for Bottleneck {
    /// `[n, h, w, c_in]` → `[n, h/stride, w/stride, c_out]`.
    fn forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let features = self.conv1.forward(input)?; // [n, h, w, width]
        let features = self.bn1.relu_conv(&features, &self.conv2, train)?; // [n, h/stride, w/stride, width]
        let features = self.bn2.relu_conv(&features, &self.conv3, train)?; // [n, h/stride, w/stride, c_out]
        let shortcut = &self.downsample.forward_t(input, train)?;
        self.bn3.forward_t(&features, Epilogue::AddRelu { shortcut }, train)
    }
}

fn last_norm(kind: LastNorm, num_channels: usize, vb: VarBuilder) -> Result<BatchNorm> {
    match kind {
        LastNorm::One => BatchNorm::new(num_channels, vb),
        LastNorm::Zero => BatchNorm::with_zero_scale(num_channels, vb),
    }
}

/// What carries a block's input to its output.
#[derive(Clone, Debug)]
enum Downsample {
    Identity,
    Conv { conv: Conv2d, bn: BatchNorm },
    PoolConv { stride: usize, conv: Conv2d, bn: BatchNorm },
}

impl Downsample {
    /// timm's sequence starts with the pool, so that its convolution is number 1.
    fn new(stem: Stem, place: &BlockPlace, vb: VarBuilder) -> Result<Self> {
        let &BlockPlace { c_in, c_out, stride, .. } = place;
        Ok(match stem {
            _ if place.keeps_shape() => Self::Identity,
            Stem::ImageNet | Stem::Cifar => {
                Self::Conv { conv: conv(c_in, c_out, 1, stride, vb.pp(0))?, bn: BatchNorm::new(c_out, vb.pp(1))? }
            }
            Stem::ResNetD => Self::PoolConv {
                stride,
                conv: conv(c_in, c_out, 1, 1, vb.pp(1))?,
                bn: BatchNorm::new(c_out, vb.pp(2))?,
            },
        })
    }
}

impl ModuleT for Downsample {
    /// `[n, h, w, c_in]` → `[n, h/stride, w/stride, c_out]`.
    fn forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(input.clone()),
            Self::Conv { conv, bn } | Self::PoolConv { stride: 1, conv, bn } => {
                bn.forward_t(&conv.forward(input)?, Epilogue::Identity, train)
            }
            Self::PoolConv { stride, conv, bn } => {
                let geometry = PoolGeometry { rounding: Rounding::Ceil, ..PoolGeometry::square(*stride) };
                let pooled = avg_pool2d(input, &geometry, Padding::NotCounted)?; // [n, h/stride, w/stride, c_in]
                bn.forward_t(&conv.forward(&pooled)?, Epilogue::Identity, train)
            }
        }
    }
}

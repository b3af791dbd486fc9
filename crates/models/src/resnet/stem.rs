//! What stands between the image and the first block.

use candle_core::{Result, Tensor};
use candle_nn::{ModuleT, VarBuilder};
use taper_kernels::{Epilogue, PoolGeometry, Rounding, max_pool2d};

use super::block::conv;
use super::config::Stem;
use crate::{BatchNorm, Conv2d};

/// 3×3 windows, two pixels apart.
const POOL: PoolGeometry = PoolGeometry { kernel: [3; 2], stride: [2; 2], padding: [1; 2], rounding: Rounding::Floor };

/// The layers of a [`Stem`]: `conv1`, `bn1` with ReLU, and the max-pool where the stem has one.
#[derive(Clone, Debug)]
pub(super) struct StemLayers {
    stem: Stem,
    conv1: StemConv,
    bn1: BatchNorm,
}

impl StemLayers {
    pub(super) fn new(stem: Stem, width: usize, vb: &VarBuilder) -> Result<Self> {
        let conv1 = match stem {
            Stem::ImageNet => StemConv::Single(conv(3, width, 7, 2, vb.pp("conv1"))?),
            Stem::Cifar => StemConv::Single(conv(3, width, 3, 1, vb.pp("conv1"))?),
            Stem::ResNetD => StemConv::Deep(Box::new(DeepConv::new(width, vb.pp("conv1"))?)),
        };
        Ok(Self { stem, conv1, bn1: BatchNorm::new(width, vb.pp("bn1"))? })
    }
}

impl ModuleT for StemLayers {
    /// `[n, h, w, 3]` → `[n, h/4, w/4, width]`, without the division for [`Stem::Cifar`].
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let features = match &self.conv1 {
            StemConv::Single(conv) => conv.forward(images)?,
            StemConv::Deep(conv) => conv.forward_t(images, train)?,
        };
        let features = self.bn1.forward_t(&features, Epilogue::Relu, train)?;
        match self.stem {
            Stem::Cifar => Ok(features),
            Stem::ImageNet | Stem::ResNetD => max_pool2d(&features, &POOL),
        }
    }
}

#[derive(Clone, Debug)]
enum StemConv {
    Single(Conv2d),
    Deep(Box<DeepConv>),
}

/// Three 3×3 convolutions that see what one 7×7 sees; each field carries its number in timm's sequence.
#[derive(Clone, Debug)]
struct DeepConv {
    conv0: Conv2d,
    bn1: BatchNorm,
    conv3: Conv2d,
    bn4: BatchNorm,
    conv6: Conv2d,
}

impl DeepConv {
    fn new(width: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            conv0: conv(3, width / 2, 3, 2, vb.pp(0))?,
            bn1: BatchNorm::new(width / 2, vb.pp(1))?,
            conv3: conv(width / 2, width / 2, 3, 1, vb.pp(3))?,
            bn4: BatchNorm::new(width / 2, vb.pp(4))?,
            conv6: conv(width / 2, width, 3, 1, vb.pp(6))?,
        })
    }
}

impl ModuleT for DeepConv {
    /// `[n, h, w, 3]` → `[n, h/2, w/2, width]`.
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let features = self.bn1.forward_t(&self.conv0.forward(images)?, Epilogue::Relu, train)?; // [n, h/2, w/2, width/2]
        let features = self.bn4.forward_t(&self.conv3.forward(&features)?, Epilogue::Relu, train)?;
        self.conv6.forward(&features)
    }
}

//! ResNet (He et al. 2016) as torchvision declares it, with the stems of its descendants.

mod block;
mod config;
mod cost;
mod stem;

use candle_core::{Result, Tensor};
use candle_nn::{ModuleT, VarBuilder};

use crate::{Linear, ModelError, Network};
use block::Block;
use config::BlockPlace;
pub use config::{BlockKind, HeadInit, LastNorm, ResNetConfig, ResNetLayout, Stem};
pub(crate) use cost::resnet_cost;
use stem::StemLayers;

/// A residual network for images of any size (He et al. 2016), the "v1.5" that torchvision and everybody's weights
/// have: a bottleneck strides in its 3×3 convolution.
///
/// Parameters have torchvision's names, those with [`Stem::ResNetD`] timm's.
///
/// # Shapes
/// `[n, h, w, 3]` f32, normalised → logits `[n, num_classes]`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{ModuleT, VarMap};
/// use taper_models::{BlockKind, ResNet, ResNetConfig, ResNetLayout, Stem, seeded};
///
/// let layout = ResNetLayout { block: BlockKind::Basic, depths: [1, 1, 1, 1], width: 8 };
/// let config = ResNetConfig { stem: Stem::Cifar, input_size: 32, ..ResNetConfig::default() };
/// let model = ResNet::new(&layout, &config, 10, seeded(&VarMap::new(), 0, &Device::Cpu))?;
/// let images = Tensor::zeros((2, 32, 32, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.features(&images, false)?.dims(), [2, 64]);
/// assert_eq!(model.forward_t(&images, false)?.dims(), [2, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ResNet {
    backbone: Backbone,
    fc: Linear,
}

/// Everything before the head.
#[derive(Clone, Debug)]
struct Backbone {
    stem: StemLayers,
    layer1: Stage,
    layer2: Stage,
    layer3: Stage,
    layer4: Stage,
}

impl ResNet {
    /// Builds any layout over the variables of `vb`.
    ///
    /// # Errors
    /// What [`ResNetLayout::validate`] or [`ResNetConfig::validate`] refuses, or tensors of another shape in `vb`.
    pub fn new(
        layout: &ResNetLayout,
        config: &ResNetConfig,
        num_classes: usize,
        vb: VarBuilder,
    ) -> std::result::Result<Self, ModelError> {
        layout.validate()?;
        config.validate()?;
        let new_head = match config.head_init {
            HeadInit::Uniform => Linear::new,
            HeadInit::Zero => Linear::with_zeros,
        };
        Ok(Self {
            backbone: Backbone::new(layout, config, &vb)?,
            fc: new_head(layout.num_features(), num_classes, vb.pp("fc"))?,
        })
    }

    /// [`ResNetLayout::RESNET18`] over the variables of `vb`.
    ///
    /// # Errors
    /// Those of [`ResNet::new`].
    pub fn resnet18(
        config: &ResNetConfig,
        num_classes: usize,
        vb: VarBuilder,
    ) -> std::result::Result<Self, ModelError> {
        Self::new(&ResNetLayout::RESNET18, config, num_classes, vb)
    }

    /// [`ResNetLayout::RESNET34`] over the variables of `vb`.
    ///
    /// # Errors
    /// Those of [`ResNet::new`].
    pub fn resnet34(
        config: &ResNetConfig,
        num_classes: usize,
        vb: VarBuilder,
    ) -> std::result::Result<Self, ModelError> {
        Self::new(&ResNetLayout::RESNET34, config, num_classes, vb)
    }

    /// [`ResNetLayout::RESNET50`] over the variables of `vb`.
    ///
    /// # Errors
    /// Those of [`ResNet::new`].
    pub fn resnet50(
        config: &ResNetConfig,
        num_classes: usize,
        vb: VarBuilder,
    ) -> std::result::Result<Self, ModelError> {
        Self::new(&ResNetLayout::RESNET50, config, num_classes, vb)
    }

    /// [`ResNetLayout::RESNET101`] over the variables of `vb`.
    ///
    /// # Errors
    /// Those of [`ResNet::new`].
    pub fn resnet101(
        config: &ResNetConfig,
        num_classes: usize,
        vb: VarBuilder,
    ) -> std::result::Result<Self, ModelError> {
        Self::new(&ResNetLayout::RESNET101, config, num_classes, vb)
    }

    /// [`ResNetLayout::RESNET152`] over the variables of `vb`.
    ///
    /// # Errors
    /// Those of [`ResNet::new`].
    pub fn resnet152(
        config: &ResNetConfig,
        num_classes: usize,
        vb: VarBuilder,
    ) -> std::result::Result<Self, ModelError> {
        Self::new(&ResNetLayout::RESNET152, config, num_classes, vb)
    }

    /// What the last stage sees, before pooling: `[n, h, w, 3]` → `[n, h/32, w/32, c]`, sides rounded up; `h/8` with
    /// [`Stem::Cifar`].
    ///
    /// # Errors
    /// Images of another type or number of channels; a batch that leaves batch norm one value in training.
    pub fn feature_map(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.backbone.feature_map(images, train)
    }

    /// The backbone: `[n, h, w, 3]` → the mean of each channel of [`ResNet::feature_map`], `[n, c]`.
    ///
    /// # Errors
    /// Those of [`ResNet::feature_map`].
    pub fn features(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.backbone.forward_t(images, train)
    }

    /// The head: `[n, c]` → logits `[n, num_classes]`.
    ///
    /// # Errors
    /// Features of another width or type.
    pub fn classify(&self, features: &Tensor) -> Result<Tensor> {
        self.fc.forward(features)
    }
}

impl ModuleT for ResNet {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.classify(&self.features(images, train)?)
    }
}

impl From<ResNet> for Network {
    fn from(model: ResNet) -> Self {
        Self { backbone: Box::new(model.backbone), head: Box::new(model.fc) }
    }
}

impl Backbone {
    fn new(layout: &ResNetLayout, config: &ResNetConfig, vb: &VarBuilder) -> Result<Self> {
        let [places1, places2, places3, places4] = layout.stages();
        Ok(Self {
            stem: StemLayers::new(config.stem, layout.width, vb)?,
            layer1: Stage::new(config, &places1, vb.pp("layer1"))?,
            layer2: Stage::new(config, &places2, vb.pp("layer2"))?,
            layer3: Stage::new(config, &places3, vb.pp("layer3"))?,
            layer4: Stage::new(config, &places4, vb.pp("layer4"))?,
        })
    }

    fn feature_map(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let features = self.stem.forward_t(images, train)?; // [n, h/4, w/4, width]
        let features = self.layer1.forward_t(&features, train)?; // [n, h/4, w/4, width·expansion]
        let features = self.layer2.forward_t(&features, train)?; // [n, h/8, w/8, 2·width·expansion]
        let features = self.layer3.forward_t(&features, train)?; // [n, h/16, w/16, 4·width·expansion]
        self.layer4.forward_t(&features, train) // [n, h/32, w/32, 8·width·expansion]
    }
}

impl ModuleT for Backbone {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        taper_kernels::global_avg_pool(&self.feature_map(images, train)?)
    }
}

impl crate::Backbone for Backbone {
    fn feature_map(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        Self::feature_map(self, images, train)
    }

    fn features_of(&self, map: &Tensor) -> Result<Tensor> {
        taper_kernels::global_avg_pool(map)
    }
}

/// Blocks of one resolution, the first of which changes it.
#[derive(Clone, Debug)]
struct Stage {
    blocks: Vec<Block>,
}

impl Stage {
    fn new(config: &ResNetConfig, places: &[BlockPlace], vb: VarBuilder) -> Result<Self> {
        let blocks = places.iter().enumerate().map(|(index, place)| Block::new(config, place, vb.pp(index)));
        Ok(Self { blocks: blocks.collect::<Result<_>>()? })
    }
}

impl ModuleT for Stage {
    fn forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        self.blocks.iter().try_fold(input.clone(), |features, block| block.forward_t(&features, train))
    }
}

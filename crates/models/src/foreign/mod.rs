//! Backbones of other families, for their features: candle-transformers' networks, used as they are.
//!
//! What they are is data and always here; running them takes the feature `foreign`, which brings candle-transformers.

#[cfg(feature = "foreign")]
mod adapter;
#[cfg(feature = "foreign")]
mod dinov2;

use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::{LayerOrder, Linear, ModelCost, ModelError, Network};

/// The prefix of a foreign backbone's parameters.
const BACKBONE: &str = "backbone";
/// The prefix of the head that is trained on its features.
const HEAD: &str = "fc";

/// A frozen backbone of another family, with a linear head that is trained on its features.
///
/// Parameters have timm's names under `backbone.`; the head is `fc`.
///
/// # Shapes
/// Backbone: `[n, h, w, 3]` → features `[n, num_features]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignConfig {
    /// Which one, a name of [`ForeignBackbone::ALL`].
    pub backbone: String,
    /// Height and width of the images, pixels.
    pub input_size: usize,
}

/// What is known about a backbone that candle-transformers has.
///
/// ```
/// use taper_models::ForeignBackbone;
///
/// let backbone = ForeignBackbone::by_name("dinov2_small").unwrap();
/// assert_eq!((backbone.num_features, backbone.size_multiple()), (384, 14));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignBackbone {
    /// The name in configurations: timm's for the network, but `dinov2_small` for `vit_small_patch14_dinov2`.
    pub name: &'static str,
    /// Whose layers it has.
    pub family: ForeignFamily,
    /// Values of the features of an image: the pooled last layer of a convolutional network, normalised in a ConvNeXt;
    /// the class token of a DINOv2.
    pub num_features: usize,
    /// Values of all parameters, without a head.
    pub num_parameters: usize,
    /// Multiply-adds of a forward pass at 224×224 pixels, counted in timm's networks.
    pub forward_macs: usize,
}

/// Networks that are alike but for their sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignFamily {
    /// Vision transformers of 14×14 patches that were trained without labels (Oquab et al. 2023).
    Dinov2,
    /// Liu et al. 2022, without the global response normalisation of version 2.
    ConvNext,
    /// Qin et al. 2024, those without attention.
    MobileNetV4,
}

const fn backbone(
    name: &'static str,
    family: ForeignFamily,
    num_features: usize,
    num_parameters: usize,
    forward_macs: usize,
) -> ForeignBackbone {
    ForeignBackbone { name, family, num_features, num_parameters, forward_macs }
}

impl ForeignBackbone {
    /// Every backbone, by family and size.
    pub const ALL: [Self; 12] = {
        use ForeignFamily::{ConvNext, Dinov2, MobileNetV4};
        [
            backbone("dinov2_small", Dinov2, 384, 22_056_192, 6_123_561_984),
            backbone("dinov2_base", Dinov2, 768, 86_579_712, 23_161_227_264),
            backbone("convnext_atto", ConvNext, 320, 3_374_520, 547_012_480),
            backbone("convnext_femto", ConvNext, 384, 4_832_784, 779_245_824),
            backbone("convnext_pico", ConvNext, 512, 8_532_672, 1_366_543_360),
            backbone("convnext_nano", ConvNext, 640, 14_952_560, 2_444_888_320),
            backbone("convnext_tiny", ConvNext, 768, 27_820_128, 4_454_763_264),
            backbone("convnext_small", ConvNext, 768, 49_454_688, 8_682_944_256),
            backbone("convnext_base", ConvNext, 1024, 87_566_464, 15_353_705_472),
            backbone("mobilenetv4_conv_small", MobileNetV4, 1280, 2_493_024, 184_725_568),
            backbone("mobilenetv4_conv_medium", MobileNetV4, 1280, 8_434_512, 826_369_984),
            backbone("mobilenetv4_conv_large", MobileNetV4, 1280, 31_309_864, 2_170_061_312),
        ]
    };

    /// The backbone of that name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|backbone| backbone.name == name)
    }

    /// What the side of an image must be a multiple of, pixels.
    pub fn size_multiple(&self) -> usize {
        match self.family {
            ForeignFamily::Dinov2 => 14,
            ForeignFamily::ConvNext | ForeignFamily::MobileNetV4 => 32,
        }
    }
}

impl ForeignConfig {
    pub(crate) fn validate(&self) -> Result<(), ModelError> {
        let multiple = self.known()?.size_multiple();
        if self.input_size == 0 || !self.input_size.is_multiple_of(multiple) {
            let reason = format!("{} takes multiples of {multiple}, such as 224", self.backbone);
            return Err(ModelError::config("input_size", self.input_size, reason));
        }
        if cfg!(not(feature = "foreign")) {
            return Err(ModelError::NotCompiled { backbone: self.backbone.clone() });
        }
        Ok(())
    }

    /// The row of [`ForeignBackbone::ALL`].
    fn known(&self) -> Result<&'static ForeignBackbone, ModelError> {
        ForeignBackbone::by_name(&self.backbone).ok_or_else(|| {
            let names: Vec<&str> = ForeignBackbone::ALL.iter().map(|backbone| backbone.name).collect();
            ModelError::config("backbone", &self.backbone, format!("there are {}", names.join(", ")))
        })
    }

    pub(crate) fn build(&self, num_classes: usize, vb: VarBuilder) -> Result<Network, ModelError> {
        self.validate()?;
        let backbone = self.known()?;
        let head = Linear::new(backbone.num_features, num_classes, vb.pp(HEAD))?;
        Ok(Network { backbone: runnable(backbone, self.input_size, vb.pp(BACKBONE))?, head: Box::new(head) })
    }

    pub(crate) fn layers(&self) -> LayerOrder {
        LayerOrder::new(&[BACKBONE], [], HEAD)
    }

    pub(crate) fn num_features(&self) -> usize {
        self.known().map_or(0, |backbone| backbone.num_features)
    }

    pub(crate) fn cost(&self, num_classes: usize) -> ModelCost {
        /// What a pass of candle's networks holds for a pixel at its widest: MobileNetV4 takes 50.
        const VALUES_PER_PIXEL: usize = 64;
        let (num_parameters, forward_macs) =
            self.known().map_or((0, 0), |backbone| (backbone.num_parameters, backbone.forward_macs));
        let (head, pixels) = (self.num_features() * num_classes, self.input_size * self.input_size);
        ModelCost {
            num_parameters: num_parameters + head + num_classes,
            forward_macs: (forward_macs as f64 * pixels as f64 / f64::from(224 * 224)) as usize + head,
            // A frozen backbone goes forward only.
            training_values: VALUES_PER_PIXEL * pixels,
            recomputing_values: VALUES_PER_PIXEL * pixels,
            forward_values: VALUES_PER_PIXEL * pixels,
            largest_weights: head,
        }
    }
}

type Runnable = Box<dyn crate::Backbone + Send + Sync>;

#[cfg(feature = "foreign")]
fn runnable(backbone: &'static ForeignBackbone, side: usize, vb: VarBuilder) -> Result<Runnable, ModelError> {
    Ok(Box::new(adapter::Adapter::new(backbone, side, vb)?))
}

#[cfg(not(feature = "foreign"))]
fn runnable(backbone: &'static ForeignBackbone, _: usize, _: VarBuilder) -> Result<Runnable, ModelError> {
    Err(ModelError::NotCompiled { backbone: backbone.name.to_owned() })
}

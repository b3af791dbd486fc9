//! A network in its two parts.

use candle_core::{Result, Tensor};
use candle_nn::ModuleT;

/// A backbone that can be stopped at its last feature map, to see where in an image an answer comes from.
pub trait Backbone: ModuleT {
    /// The last feature map: `[n, h, w, 3]` → `[n, h', w', c]`.
    ///
    /// # Errors
    /// Images of another size or type.
    fn feature_map(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_t(images, train)
    }

    /// What is between that map and the head; nothing, unless an architecture says otherwise.
    ///
    /// # Errors
    /// A map of another shape.
    fn features_of(&self, map: &Tensor) -> Result<Tensor> {
        Ok(map.clone())
    }
}

/// A classifier as a backbone and a head, so that a head can be trained alone on features that were computed once.
///
/// # Shapes
/// Backbone: `[n, h, w, 3]` → features `[n, ..]`. Head: features → logits `[n, num_classes]`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{ModuleT, VarMap};
/// use taper_models::{ModelConfig, seeded};
///
/// let network = ModelConfig::by_name("resnet18").unwrap().build(7, seeded(&VarMap::new(), 0, &Device::Cpu))?;
/// let images = Tensor::zeros((1, 32, 32, 3), DType::F32, &Device::Cpu)?;
/// let features = network.backbone.forward_t(&images, false)?;
/// assert_eq!(features.dims(), [1, 512]);
/// assert_eq!(network.head.forward_t(&features, false)?.dims(), [1, 7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Network {
    /// Everything that does not depend on the classes.
    pub backbone: Box<dyn Backbone + Send + Sync>,
    /// What tells the classes apart.
    pub head: Box<dyn ModuleT + Send + Sync>,
}

impl ModuleT for Network {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.head.forward_t(&self.backbone.forward_t(images, train)?, train)
    }
}

/// Fails for images `[n, h, w, 3]` of another size than a network with a fixed one takes.
pub(crate) fn require_size(images: &Tensor, input_size: usize) -> Result<()> {
    let (_, height, width, _) = images.dims4()?;
    if [height, width] == [input_size; 2] {
        return Ok(());
    }
    candle_core::bail!("images are {height}x{width}, the network takes {input_size}x{input_size} (model.input_size)")
}

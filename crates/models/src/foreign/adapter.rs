//! candle-transformers' networks behind the interface of ours.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{BatchNorm, Conv2d, Init, LayerNorm, Module, ModuleT, VarBuilder};
use candle_transformers::models::{convnext, mobilenetv4};

use super::{ForeignBackbone, ForeignFamily, dinov2};
use crate::Backbone;

pub(super) type Part = Box<dyn Module + Send + Sync>;

/// A backbone that is built from its parameters when it is first used.
///
/// candle's batch norms copy their running statistics when they are built, and would not see weights that are loaded
/// into the variables afterwards. So the variables are made first, and the network from what is in them then.
pub(super) struct Adapter {
    backbone: &'static ForeignBackbone,
    input_size: usize,
    /// What the variables hold, in the variables' memory.
    tensors: HashMap<String, Tensor>,
    device: Device,
    built: OnceLock<Part>,
}

impl Adapter {
    /// Makes the variables.
    pub(super) fn new(backbone: &'static ForeignBackbone, input_size: usize, vb: VarBuilder) -> Result<Self> {
        let (device, mut tensors) = (vb.device().clone(), HashMap::new());
        for (name, (shape, init)) in asked(backbone)? {
            // The head alone is trained, so nothing here has a part in a graph.
            let tensor = vb.get_with_hints(shape, &name, init)?.detach();
            tensors.insert(name, tensor);
        }
        Ok(Self { backbone, input_size, tensors, device, built: OnceLock::new() })
    }

    fn network(&self) -> Result<&Part> {
        if let Some(network) = self.built.get() {
            return Ok(network);
        }
        let mut tensors = self.tensors.clone();
        if self.backbone.family == ForeignFamily::Dinov2 {
            dinov2::complete(&mut tensors, self.backbone.num_features, self.input_size)?;
        }
        let network = build(self.backbone, VarBuilder::from_tensors(tensors, DType::F32, &self.device))?;
        Ok(self.built.get_or_init(|| network))
    }
}

impl ModuleT for Adapter {
    fn forward_t(&self, images: &Tensor, _: bool) -> Result<Tensor> {
        // Theirs are channels-first.
        self.network()?.forward(&images.permute((0, 3, 1, 2))?.contiguous()?)
    }
}

impl Backbone for Adapter {}

fn build(backbone: &ForeignBackbone, vb: VarBuilder) -> Result<Part> {
    Ok(match backbone.family {
        ForeignFamily::Dinov2 => dinov2::build(backbone.num_features, vb)?,
        ForeignFamily::ConvNext => Box::new(ConvNext::new(backbone, vb)?),
        ForeignFamily::MobileNetV4 => Box::new(MobileNetV4::new(backbone, vb)?),
    })
}

/// A ConvNeXt up to the norm before its head.
struct ConvNext {
    body: candle_nn::Func<'static>,
    norm: LayerNorm,
}

impl ConvNext {
    fn new(backbone: &ForeignBackbone, vb: VarBuilder) -> Result<Self> {
        /// What is added to a variance (`timm/models/convnext.py`).
        const EPSILON: f64 = 1e-6;
        let config = match backbone.name {
            "convnext_atto" => convnext::Config::atto(),
            "convnext_femto" => convnext::Config::femto(),
            "convnext_pico" => convnext::Config::pico(),
            "convnext_nano" => convnext::Config::nano(),
            "convnext_tiny" => convnext::Config::tiny(),
            "convnext_small" => convnext::Config::small(),
            "convnext_base" => convnext::Config::base(),
            name => candle_core::bail!("no ConvNeXt is called {name}"),
        };
        let norm = candle_nn::layer_norm(backbone.num_features, EPSILON, vb.pp("head.norm"))?;
        Ok(Self { body: convnext::convnext_no_final_layer(&config, vb)?, norm })
    }
}

impl Module for ConvNext {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.norm.forward(&self.body.forward(images)?)
    }
}

/// A MobileNetV4 up to its classifier.
struct MobileNetV4 {
    body: candle_nn::Func<'static>,
    conv_head: Conv2d,
    norm_head: BatchNorm,
}

impl MobileNetV4 {
    fn new(backbone: &ForeignBackbone, vb: VarBuilder) -> Result<Self> {
        /// Channels before they are pooled (`timm/models/mobilenetv3.py`).
        const POOLED: usize = 960;
        let config = match backbone.name {
            "mobilenetv4_conv_small" => mobilenetv4::Config::small(),
            "mobilenetv4_conv_medium" => mobilenetv4::Config::medium(),
            "mobilenetv4_conv_large" => mobilenetv4::Config::large(),
            name => candle_core::bail!("no MobileNetV4 is called {name}"),
        };
        let outputs = backbone.num_features;
        Ok(Self {
            body: mobilenetv4::mobilenetv4_no_final_layer(&config, vb.clone())?,
            conv_head: candle_nn::conv2d_no_bias(POOLED, outputs, 1, Default::default(), vb.pp("conv_head"))?,
            norm_head: candle_nn::batch_norm(outputs, 1e-5, vb.pp("norm_head"))?,
        })
    }
}

impl Module for MobileNetV4 {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let pooled = self.conv_head.forward(&self.body.forward(images)?)?;
        pooled.apply_t(&self.norm_head, false)?.relu()?.flatten_from(1)
    }
}

type Asked = BTreeMap<String, (Shape, Init)>;

/// The parameters of a network, by what it asks for while it is built.
fn asked(backbone: &ForeignBackbone) -> Result<Asked> {
    let asked = Mutex::default();
    let listener: Box<dyn SimpleBackend + '_> = Box::new(Listener { family: backbone.family, asked: &asked });
    build(backbone, VarBuilder::from_backend(listener, DType::F32, Device::Cpu))?;
    Ok(asked.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Hands out zeros and notes what for.
struct Listener<'a> {
    family: ForeignFamily,
    asked: &'a Mutex<Asked>,
}

impl SimpleBackend for Listener<'_> {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match self.family {
            // candle's DINOv2 cannot be had without the head that it ends in.
            ForeignFamily::Dinov2 if name.starts_with("head.") => return Tensor::zeros(shape, dtype, device),
            // Whether there is one tells candle's ConvNeXt its version.
            ForeignFamily::ConvNext if name.contains(".grn.") => candle_core::bail!("{name} is of version 2"),
            // Those with attention have it.
            ForeignFamily::MobileNetV4 if name.ends_with("layer_scale.gamma") => {
                candle_core::bail!("{name} is left out")
            }
            // A convolution of 0×0 stands for none; its norm was asked for before.
            ForeignFamily::MobileNetV4 if shape.elem_count() == 0 => {
                let norm = name.replace("conv.weight", "bn.");
                asked.retain(|name, _| !name.starts_with(&norm));
                candle_core::bail!("{name} is left out")
            }
            _ => {}
        }
        asked.insert(name.to_owned(), (shape.clone(), init));
        Tensor::zeros(shape, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name} is asked for without its shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        false
    }
}

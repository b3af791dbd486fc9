//! The networks of the report's ablation study: plain convolutions that become BaseNet, one difference at a time.

mod config;
mod steps;

use candle_core::{Result, Tensor};
use candle_nn::{ModuleT, VarBuilder};
use taper_kernels::{ConvGeometry, Epilogue, PoolGeometry};

use crate::network::require_size;
use crate::{Backbone, BatchNorm, Conv2d, Linear, ModelError, Network};
use config::BlockPlace;
pub(crate) use config::ablation_cost;
pub use config::{AblationConfig, HeadNorm, NormPlace, Skip};
pub use steps::{ABLATION, AblationStep};

/// A network of the ablation study: blocks of convolutions with max-pools between them, and a small head.
///
/// # Shapes
/// `[n, 32, 32, 3]` f32 → logits `[n, num_classes]`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{ModuleT, VarMap};
/// use taper_models::{AblationConfig, AblationNet, seeded};
///
/// let vars = VarMap::new();
/// let initial = AblationNet::new(&AblationConfig::default(), 100, seeded(&vars, 0, &Device::Cpu))?;
/// let images = Tensor::zeros((2, 32, 32, 3), DType::F32, &Device::Cpu)?;
/// assert_eq!(initial.forward_t(&images, false)?.dims(), [2, 100]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AblationNet {
    trunk: Trunk,
    head: Head,
}

/// Everything up to the last pool.
#[derive(Clone, Debug)]
struct Trunk {
    blocks: Vec<Block>,
    input_size: usize,
}

/// Convolutions, what is added to them, and the pool behind them.
#[derive(Clone, Debug)]
struct Block {
    units: Vec<Unit>,
    shortcut: Shortcut,
    pool: Pool,
}

/// A convolution with ReLU and perhaps batch norm.
#[derive(Clone, Debug)]
struct Unit {
    conv: Conv2d,
    norm: Norm,
}

#[derive(Clone, Debug)]
enum Norm {
    None,
    BeforeRelu(BatchNorm),
    AfterRelu(BatchNorm),
}

#[derive(Clone, Debug)]
enum Shortcut {
    None,
    Identity { scale: f32 },
    Conv1x1 { scale: f32, conv: Conv2d },
}

#[derive(Clone, Copy, Debug)]
enum Pool {
    None,
    Max2x2,
}

/// From the last feature map to the logits.
#[derive(Clone, Debug)]
struct Head {
    fc1: Linear,
    bn: Option<BatchNorm>,
    fc2: Linear,
}

impl AblationNet {
    /// Builds the network over the variables of `vb`.
    ///
    /// # Errors
    /// A configuration that [`AblationConfig::validate`] refuses, or tensors of another shape in `vb`.
    pub fn new(config: &AblationConfig, num_classes: usize, vb: VarBuilder) -> std::result::Result<Self, ModelError> {
        config.validate()?;
        let places = config.blocks();
        let blocks =
            places.iter().enumerate().map(|(index, place)| Block::new(config, place, vb.pp("blocks").pp(index)));
        let head = vb.pp("head");
        let units = AblationConfig::HEAD_UNITS;
        Ok(Self {
            trunk: Trunk { blocks: blocks.collect::<Result<_>>()?, input_size: config.input_size },
            head: Head {
                fc1: Linear::new(config.head_inputs(), units, head.pp("fc1"))?,
                bn: match config.head_norm {
                    HeadNorm::None => None,
                    HeadNorm::Hidden => Some(BatchNorm::new(units, head.pp("bn"))?),
                },
                fc2: Linear::new(units, num_classes, head.pp("fc2"))?,
            },
        })
    }
}

impl ModuleT for AblationNet {
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        self.head.forward_t(&self.trunk.forward_t(images, train)?, train)
    }
}

impl From<AblationNet> for Network {
    fn from(model: AblationNet) -> Self {
        Self { backbone: Box::new(model.trunk), head: Box::new(model.head) }
    }
}

impl Backbone for Trunk {}

impl ModuleT for Trunk {
    /// `[n, h, w, 3]` → `[n, h', w', c]`.
    fn forward_t(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        require_size(images, self.input_size)?;
        self.blocks.iter().try_fold(images.clone(), |features, block| block.forward_t(&features, train))
    }
}

impl Block {
    fn new(config: &AblationConfig, place: &BlockPlace, vb: VarBuilder) -> Result<Self> {
        let ins = std::iter::once(place.c_in).chain(std::iter::repeat(place.c_out));
        let units = ins.take(config.convs_per_block).zip(1..).map(|(c_in, number)| {
            let (conv, bn) = (vb.pp(format!("conv{number}")), vb.pp(format!("bn{number}")));
            Unit::new(config, c_in, place, conv, bn)
        });
        let scale = config.residual_scale as f32;
        let shortcut = match config.skip {
            Skip::None => Shortcut::None,
            Skip::Add if place.c_in == place.c_out => Shortcut::Identity { scale },
            Skip::Add => {
                let conv = Conv2d::new(place.c_in, place.c_out, 1, ConvGeometry::default(), vb.pp("shortcut"))?;
                Shortcut::Conv1x1 { scale, conv }
            }
        };
        let pool = if place.is_pooled { Pool::Max2x2 } else { Pool::None };
        Ok(Self { units: units.collect::<Result<_>>()?, shortcut, pool })
    }
}

impl ModuleT for Block {
    fn forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let Some((last, before)) = self.units.split_last() else {
            candle_core::bail!("a block without convolutions");
        };
        let features = before.iter().try_fold(input.clone(), |features, unit| unit.forward(&features, train))?;
        let features = match &self.shortcut {
            Shortcut::None => last.forward(&features, train)?,
            Shortcut::Identity { scale } => last.forward_and_add(&features, *scale, input, train)?,
            Shortcut::Conv1x1 { scale, conv } => {
                last.forward_and_add(&features, *scale, &conv.forward(input)?, train)?
            }
        };
        match self.pool {
            Pool::None => Ok(features),
            Pool::Max2x2 => taper_kernels::max_pool2d(&features, &PoolGeometry::square(2)),
        }
    }
}

impl Unit {
    fn new(config: &AblationConfig, c_in: usize, place: &BlockPlace, conv: VarBuilder, bn: VarBuilder) -> Result<Self> {
        // The first block of a grouped network sees an image of three channels.
        let groups = if place.is_first && c_in == place.c_in { 1 } else { config.groups };
        let geometry = ConvGeometry { padding: [config.padding; 2], groups, ..ConvGeometry::default() };
        let (c_out, kernel) = (place.c_out, config.kernel);
        Ok(match config.norm {
            NormPlace::None => Self { conv: Conv2d::with_bias(c_in, c_out, kernel, geometry, conv)?, norm: Norm::None },
            // The batch norm right behind it has a shift of its own.
            NormPlace::BeforeRelu => Self {
                conv: Conv2d::new(c_in, c_out, kernel, geometry, conv)?,
                norm: Norm::BeforeRelu(BatchNorm::new(c_out, bn)?),
            },
            NormPlace::AfterRelu => Self {
                conv: Conv2d::with_bias(c_in, c_out, kernel, geometry, conv)?,
                norm: Norm::AfterRelu(BatchNorm::new(c_out, bn)?),
            },
        })
    }

    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let features = self.conv.forward(input)?;
        match &self.norm {
            Norm::None => taper_kernels::relu(&features),
            Norm::BeforeRelu(bn) => bn.forward_t(&features, Epilogue::Relu, train),
            Norm::AfterRelu(bn) => bn.forward_t(&taper_kernels::relu(&features)?, Epilogue::Identity, train),
        }
    }

    /// `scale · unit(input) + shortcut`.
    fn forward_and_add(&self, input: &Tensor, scale: f32, shortcut: &Tensor, train: bool) -> Result<Tensor> {
        match &self.norm {
            Norm::BeforeRelu(bn) => {
                bn.forward_t(&self.conv.forward(input)?, Epilogue::ReluScaleAdd { scale, shortcut }, train)
            }
            Norm::None | Norm::AfterRelu(_) => (self.forward(input, train)? * f64::from(scale))? + shortcut,
        }
    }
}

impl ModuleT for Head {
    fn forward_t(&self, features: &Tensor, train: bool) -> Result<Tensor> {
        let flat = taper_kernels::flatten_chw(features)?; // [n, c·h·w]
        let hidden = self.fc1.forward(&flat)?; // [n, 50]
        let hidden = match &self.bn {
            Some(bn) => bn.forward_t(&hidden, Epilogue::Relu, train)?,
            None => taper_kernels::relu(&hidden)?,
        };
        self.fc2.forward(&hidden)
    }
}

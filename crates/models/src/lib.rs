//! Trainable image classifiers on candle: channels-last in, logits out.
//!
//! **Owns** the architectures (BaseNet, the steps of the ablation study that lead to it, and ResNet), their layers, their initialisation and their parameter names, which
//! are those of the PyTorch modules, so a `state_dict` fits without a map.
//! **Does not know** files, the network, data sets or the training loop.
//!
//! Read [`ModelConfig`] first (an architecture as data), then the [`Network`] it builds, [`BaseNet`] and [`ResNet`] with
//! its [`ResNetLayout`], [`AblationNet`] with the table [`ABLATION`], [`ForeignBackbone`] (frozen ones of other
//! families, with the feature `foreign`), the layers [`Conv2d`], [`BatchNorm`] and [`Linear`], [`Freeze`] and [`LayerOrder`] (which of
//! them are trained), then [`seeded`], which makes a `VarBuilder` whose draws depend on a seed and the parameter's name
//! alone.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{ModuleT, VarMap};
//! use taper_models::{BaseNet, BaseNetConfig, seeded};
//!
//! let vars = VarMap::new();
//! let config = BaseNetConfig { width: 0.0625, depths: [1, 1, 0, 0], ..BaseNetConfig::default() };
//! let model = BaseNet::new(&config, 10, seeded(&vars, 0, &Device::Cpu))?;
//! let images = Tensor::zeros((2, 32, 32, 3), DType::F32, &Device::Cpu)?;
//! assert_eq!(model.forward_t(&images, false)?.dims(), [2, 10]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Next: `taper-kernels` for what the layers compute; `taper-train` to train a model.
#![forbid(unsafe_code)]

mod ablation;
mod basenet;
mod config;
mod error;
mod foreign;
mod freeze;
mod init;
mod layers;
mod network;
mod resnet;

pub use ablation::{ABLATION, AblationConfig, AblationNet, AblationStep, HeadNorm, NormPlace, Skip};
pub use basenet::{BaseNet, BaseNetConfig, ResidualBlock, Shortcut};
pub use config::{ModelConfig, ModelCost};
pub use error::ModelError;
pub use foreign::{ForeignBackbone, ForeignConfig, ForeignFamily};
pub use freeze::{Freeze, LayerOrder};
pub use init::{seeded, seeded_frozen};
pub use layers::{BatchNorm, Conv2d, Linear};
pub use network::{Backbone, Network};
pub use resnet::{BlockKind, HeadInit, LastNorm, ResNet, ResNetConfig, ResNetLayout, Stem};

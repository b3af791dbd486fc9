//! An optimizer as data.

use serde::{Deserialize, Serialize};

use taper_kernels::Momentum;

use crate::{GroupRule, OptimError};

/// The update rules there are, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
#[non_exhaustive]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum, as PyTorch's `SGD`.
    Sgd(SgdConfig),
    /// Adam with decoupled weight decay, as PyTorch's `AdamW`.
    AdamW(AdamWConfig),
}

/// SGD's settings. The defaults are those of He et al. 2016, §3.4 (learning rate 0.1, momentum 0.9, decay 1e-4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Share of the last update that is kept; 0 turns momentum off.
    pub momentum: f64,
    /// Nesterov's form of momentum, which looks one step ahead.
    pub nesterov: bool,
    /// Coupled (L2) weight decay.
    pub weight_decay: f64,
    /// Whether biases and normalisation scales decay too.
    pub decay_norms_and_biases: bool,
    /// Multiplies the learning rate of everything but the head.
    pub backbone_lr_scale: f64,
    /// Multiplies the learning rate once more with each layer further from the head; 1 for the same everywhere.
    pub layer_decay: f64,
    /// Learning rates by parameter name, instead of those by depth.
    pub groups: Vec<GroupRule>,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self {
            lr: 0.1,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 1e-4,
            decay_norms_and_biases: false,
            backbone_lr_scale: 1.0,
            layer_decay: 1.0,
            groups: Vec::new(),
        }
    }
}

/// AdamW's settings. The defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second mean.
    pub eps: f64,
    /// Decoupled weight decay (Loshchilov and Hutter 2019).
    pub weight_decay: f64,
    /// Whether biases and normalisation scales decay too.
    pub decay_norms_and_biases: bool,
    /// Multiplies the learning rate of everything but the head.
    pub backbone_lr_scale: f64,
    /// Multiplies the learning rate once more with each layer further from the head; 1 for the same everywhere.
    pub layer_decay: f64,
    /// Learning rates by parameter name, instead of those by depth.
    pub groups: Vec<GroupRule>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-2,
            decay_norms_and_biases: false,
            backbone_lr_scale: 1.0,
            layer_decay: 1.0,
            groups: Vec::new(),
        }
    }
}

impl SgdConfig {
    pub(crate) fn rule(&self) -> Momentum {
        match (self.momentum, self.nesterov) {
            (0.0, _) => Momentum::None,
            (momentum, false) => Momentum::Heavy { momentum },
            (momentum, true) => Momentum::Nesterov { momentum },
        }
    }
}

impl OptimizerConfig {
    /// The names that `name` may have.
    pub const NAMES: [&str; 2] = ["sgd", "adamw"];

    /// Peak learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Sgd(config) => config.lr,
            Self::AdamW(config) => config.lr,
        }
    }

    /// What the learning rate of everything but the head is multiplied with.
    pub fn backbone_lr_scale(&self) -> f64 {
        match self {
            Self::Sgd(config) => config.backbone_lr_scale,
            Self::AdamW(config) => config.backbone_lr_scale,
        }
    }

    /// What the learning rate is multiplied with once more for each layer further from the head.
    pub fn layer_decay(&self) -> f64 {
        match self {
            Self::Sgd(config) => config.layer_decay,
            Self::AdamW(config) => config.layer_decay,
        }
    }

    /// Learning rates by parameter name.
    pub fn groups(&self) -> &[GroupRule] {
        match self {
            Self::Sgd(config) => &config.groups,
            Self::AdamW(config) => &config.groups,
        }
    }

    /// Weight decay of weights, and of norms and biases.
    pub fn weight_decay(&self) -> (f64, f64) {
        let (decay, on_all) = match self {
            Self::Sgd(config) => (config.weight_decay, config.decay_norms_and_biases),
            Self::AdamW(config) => (config.weight_decay, config.decay_norms_and_biases),
        };
        (decay, if on_all { decay } else { 0.0 })
    }

    /// Finds a value that cannot be.
    ///
    /// # Errors
    /// Names the key and what would do.
    pub fn validate(&self) -> Result<(), OptimError> {
        positive("optim.lr", self.lr())?;
        non_negative("optim.weight_decay", self.weight_decay().0)?;
        positive("optim.backbone_lr_scale", self.backbone_lr_scale())?;
        positive("optim.layer_decay", self.layer_decay())?;
        match self {
            Self::Sgd(config) => {
                fraction("optim.momentum", config.momentum)?;
                if config.nesterov && config.momentum == 0.0 {
                    let reason = "Nesterov's form needs momentum; set optim.momentum, or optim.nesterov = false";
                    return Err(OptimError::config("optim.nesterov", true, reason));
                }
                Ok(())
            }
            Self::AdamW(config) => {
                fraction("optim.beta1", config.beta1)?;
                fraction("optim.beta2", config.beta2)?;
                positive("optim.eps", config.eps)
            }
        }
    }
}

pub(crate) fn positive(key: &'static str, value: f64) -> Result<(), OptimError> {
    check(key, value, value.is_finite() && value > 0.0, "must be a number above 0")
}

pub(crate) fn non_negative(key: &'static str, value: f64) -> Result<(), OptimError> {
    check(key, value, value.is_finite() && value >= 0.0, "must be 0 or above")
}

pub(crate) fn fraction(key: &'static str, value: f64) -> Result<(), OptimError> {
    check(key, value, (0.0..1.0).contains(&value), "must be at least 0 and below 1")
}

fn check(key: &'static str, value: f64, holds: bool, reason: &str) -> Result<(), OptimError> {
    if holds { Ok(()) } else { Err(OptimError::config(key, value, reason)) }
}

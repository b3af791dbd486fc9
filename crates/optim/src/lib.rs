//! How parameters move: SGD, AdamW, schedules, parameter groups, clipping and a moving average of the weights.
//!
//! **Owns** the update rules' state (all of it can be saved) and the order of parameters, which is by name.
//! **Does not know** models, data, files or the loop: variables go in with their names, gradients follow.
//!
//! Read [`ParameterSet`] first (which variables, in which groups), then [`Gradients`], [`Optimizer`], [`Schedule`] and
//! [`Ema`].
//!
//! ```
//! use candle_core::{DType, Device, Var};
//! use candle_nn::VarMap;
//! use taper_optim::{Gradients, GroupRules, Optimizer, OptimizerConfig, ParameterSet, SgdConfig};
//!
//! let vars = VarMap::new();
//! vars.data().lock().unwrap().insert("w".into(), Var::ones((1, 1), DType::F32, &Device::Cpu)?);
//! let rules = GroupRules::default();
//! let parameters = ParameterSet::new(&vars, &rules)?;
//! let loss = parameters.get("w").unwrap().var.sqr()?.sum_all()?;
//! let gradients = Gradients::take(&parameters, &loss.backward()?)?;
//! let config = OptimizerConfig::Sgd(SgdConfig { momentum: 0.0, ..SgdConfig::default() });
//! let mut optimizer = Optimizer::new(&config, parameters)?;
//! optimizer.step(&gradients, 0.25)?;
//! assert_eq!(optimizer.parameters().get("w").unwrap().var.flatten_all()?.to_vec1::<f32>()?, [0.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Next: `taper-train`, which calls these in the order forward, loss, backward, clip, step.
#![forbid(unsafe_code)]

mod config;
mod ema;
mod error;
mod gradients;
mod optimizer;
mod parameters;
mod role;
mod schedule;

pub use config::{AdamWConfig, OptimizerConfig, SgdConfig};
pub use ema::Ema;
pub use error::OptimError;
pub use gradients::{GradientNorm, Gradients};
pub use optimizer::Optimizer;
pub use parameters::{GroupRule, GroupRules, Parameter, ParameterSet};
pub use role::{Role, role};
pub use schedule::{Schedule, ScheduleConfig};

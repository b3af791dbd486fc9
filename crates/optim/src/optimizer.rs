//! Applies gradients, and keeps what the rule remembers.

use std::collections::BTreeMap;

use candle_core::Tensor;
use taper_kernels::{AdamWParam, AdamWRule, SgdParam, adamw_steps, sgd_steps};

use crate::{Gradients, OptimError, OptimizerConfig, Parameter, ParameterSet};

/// An update rule over a set of parameters, with its state.
///
/// Every update happens in place in one pass per tensor. All state can be taken out and put back: momentum buffers or
/// moments by parameter name, and the number of steps.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    parameters: ParameterSet,
    slots: Vec<Slot>,
    num_steps: u64,
}

/// What the rule remembers of one parameter.
#[derive(Debug)]
enum Slot {
    Sgd { momentum: Tensor },
    AdamW { mean: Tensor, square: Tensor },
}

impl Optimizer {
    /// An optimizer at step 0, its state zero.
    ///
    /// # Errors
    /// A configuration that [`OptimizerConfig::validate`] refuses.
    pub fn new(config: &OptimizerConfig, parameters: ParameterSet) -> Result<Self, OptimError> {
        config.validate()?;
        let slots: candle_core::Result<_> = parameters.iter().map(|parameter| Slot::new(config, parameter)).collect();
        Ok(Self { config: config.clone(), parameters, slots: slots?, num_steps: 0 })
    }

    /// The parameters it moves.
    pub fn parameters(&self) -> &ParameterSet {
        &self.parameters
    }

    /// Updates done so far.
    pub fn num_steps(&self) -> u64 {
        self.num_steps
    }

    /// Moves every parameter by its gradient, at learning rate `lr` times the parameter's own scale.
    ///
    /// # Errors
    /// Gradients of another shape or type.
    pub fn step(&mut self, gradients: &Gradients, lr: f64) -> Result<(), OptimError> {
        self.num_steps += 1;
        match &self.config {
            OptimizerConfig::Sgd(config) => {
                sgd_steps(&self.sgd_params(gradients, lr)?, config.rule(), gradients.scale_to_apply())?
            }
            OptimizerConfig::AdamW(config) => {
                let (beta1, beta2, eps) = (config.beta1, config.beta2, config.eps);
                let rule = AdamWRule { beta1, beta2, eps, step: self.num_steps as usize };
                adamw_steps(&self.adamw_params(gradients, lr)?, rule, gradients.scale_to_apply())?;
            }
        }
        Ok(())
    }

    fn sgd_params<'a>(&'a self, gradients: &'a Gradients, lr: f64) -> candle_core::Result<Vec<SgdParam<'a>>> {
        let own = self.parameters.iter().zip(&self.slots).zip(gradients.tensors());
        let param = |((parameter, slot), grad): ((&'a Parameter, &'a Slot), &'a Tensor)| {
            let Slot::Sgd { momentum } = slot else { return other_state(parameter) };
            let (lr, weight_decay) = (lr * parameter.lr_scale, parameter.weight_decay);
            Ok(SgdParam { param: parameter.var.as_tensor(), grad, momentum_buffer: momentum, lr, weight_decay })
        };
        own.map(param).collect()
    }

    fn adamw_params<'a>(&'a self, gradients: &'a Gradients, lr: f64) -> candle_core::Result<Vec<AdamWParam<'a>>> {
        let own = self.parameters.iter().zip(&self.slots).zip(gradients.tensors());
        let param = |((parameter, slot), grad): ((&'a Parameter, &'a Slot), &'a Tensor)| {
            let Slot::AdamW { mean, square } = slot else { return other_state(parameter) };
            let (lr, weight_decay) = (lr * parameter.lr_scale, parameter.weight_decay);
            let param = parameter.var.as_tensor();
            Ok(AdamWParam { param, grad, first_moment: mean, second_moment: square, lr, weight_decay })
        };
        own.map(param).collect()
    }

    /// All state by name: `momentum.<parameter>`, or `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for (parameter, slot) in self.parameters.iter().zip(&self.slots) {
            for (kind, tensor) in slot.tensors() {
                state.insert(format!("{kind}.{}", parameter.name), tensor.clone());
            }
        }
        state
    }

    /// Puts back what [`Optimizer::state`] and [`Optimizer::num_steps`] gave.
    ///
    /// # Errors
    /// Names a tensor that is missing or has another shape; then nothing has changed.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, num_steps: u64) -> Result<(), OptimError> {
        let mut slots = Vec::with_capacity(self.slots.len());
        for (parameter, slot) in self.parameters.iter().zip(&self.slots) {
            let find = |kind: &str, own: &Tensor| find_state(state, &format!("{kind}.{}", parameter.name), own);
            slots.push(match slot {
                Slot::Sgd { momentum } => Slot::Sgd { momentum: find("momentum", momentum)? },
                Slot::AdamW { mean, square } => {
                    Slot::AdamW { mean: find("exp_avg", mean)?, square: find("exp_avg_sq", square)? }
                }
            });
        }
        self.slots = slots;
        self.num_steps = num_steps;
        Ok(())
    }
}

fn other_state<T>(parameter: &Parameter) -> candle_core::Result<T> {
    candle_core::bail!("the state of {} is another optimizer's", parameter.name)
}

fn find_state(state: &BTreeMap<String, Tensor>, name: &str, own: &Tensor) -> Result<Tensor, OptimError> {
    let problem = |problem: String| OptimError::State { name: name.to_owned(), problem };
    let found = state.get(name).ok_or_else(|| problem("is missing".to_owned()))?;
    if found.shape() != own.shape() {
        return Err(problem(format!("has shape {:?} instead of {:?}", found.dims(), own.dims())));
    }
    // A copy: the caller's tensor must not change with the next step.
    Ok(found.copy()?.to_device(own.device())?)
}

impl Slot {
    fn new(config: &OptimizerConfig, parameter: &Parameter) -> candle_core::Result<Self> {
        let zeros = || parameter.var.zeros_like();
        Ok(match config {
            OptimizerConfig::Sgd(_) => Self::Sgd { momentum: zeros()? },
            OptimizerConfig::AdamW(_) => Self::AdamW { mean: zeros()?, square: zeros()? },
        })
    }

    fn tensors(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Self::Sgd { momentum } => vec![("momentum", momentum)],
            Self::AdamW { mean, square } => vec![("exp_avg", mean), ("exp_avg_sq", square)],
        }
    }
}

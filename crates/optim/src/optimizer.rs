//! Applies gradients, and keeps what the rule remembers.

use std::collections::BTreeMap;

use candle_core::Tensor;
use taper_kernels::{AdamWStep, SgdStep, adamw_step, sgd_step};

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
        for ((parameter, slot), gradient) in self.parameters.iter().zip(&self.slots).zip(gradients.tensors()) {
            let lr = lr * parameter.lr_scale;
            slot.step(&self.config, parameter, gradient, lr, self.num_steps)?;
        }
        Ok(())
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

fn find_state(state: &BTreeMap<String, Tensor>, name: &str, own: &Tensor) -> Result<Tensor, OptimError> {
    let problem = |problem: String| OptimError::State { name: name.to_owned(), problem };
    let found = state.get(name).ok_or_else(|| problem("is missing".to_owned()))?;
    if found.shape() != own.shape() {
        return Err(problem(format!("has shape {:?} instead of {:?}", found.dims(), own.dims())));
    }
    // A copy: the caller's tensor must not change with the next step.
    Ok(found.copy()?)
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

    fn step(
        &self,
        config: &OptimizerConfig,
        parameter: &Parameter,
        gradient: &Tensor,
        lr: f64,
        step: u64,
    ) -> candle_core::Result<()> {
        let (var, weight_decay) = (parameter.var.as_tensor(), parameter.weight_decay);
        match (config, self) {
            (OptimizerConfig::Sgd(config), Self::Sgd { momentum }) => {
                let rule = SgdStep { lr, momentum: config.rule(), weight_decay };
                sgd_step(var, gradient, momentum, rule)
            }
            (OptimizerConfig::AdamW(config), Self::AdamW { mean, square }) => {
                let (beta1, beta2, eps) = (config.beta1, config.beta2, config.eps);
                let step = AdamWStep { lr, beta1, beta2, eps, weight_decay, step: step as usize };
                adamw_step(var, gradient, mean, square, step)
            }
            _ => candle_core::bail!("the state of {} is another optimizer's", parameter.name),
        }
    }
}

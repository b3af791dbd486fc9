//! An exponential moving average of the weights.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::config::fraction;
use crate::{OptimError, ParameterSet};

/// A slow copy of the parameters that follows them (Polyak and Juditsky 1992, in the exponential form).
///
/// The decay warms up as `min(decay, (1 + t) / (10 + t))`, so that the first steps' random weights do not linger
/// (TensorFlow's `ExponentialMovingAverage`). Running statistics are not averaged: they are averages already.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    shadow: BTreeMap<String, Tensor>,
    num_updates: u64,
}

impl Ema {
    /// Starts from the parameters as they are.
    ///
    /// # Errors
    /// A decay outside `0..1`.
    pub fn new(decay: f64, parameters: &ParameterSet) -> Result<Self, OptimError> {
        fraction("train.ema_decay", decay)?;
        let copy =
            |parameter: &crate::Parameter| Ok((parameter.name.clone(), parameter.var.as_tensor().copy()?.detach()));
        let shadow: candle_core::Result<_> = parameters.iter().map(copy).collect();
        Ok(Self { decay, shadow: shadow?, num_updates: 0 })
    }

    /// Moves the copy towards the parameters; called once after each optimizer step.
    ///
    /// # Errors
    /// Parameters other than those it was made with.
    pub fn update(&mut self, parameters: &ParameterSet) -> Result<(), OptimError> {
        self.num_updates += 1;
        let t = self.num_updates as f64;
        let decay = self.decay.min((1.0 + t) / (10.0 + t));
        let mut pairs = Vec::new();
        for parameter in parameters.iter() {
            pairs.push((self.own(&parameter.name)?, parameter.var.as_tensor()));
        }
        Ok(taper_kernels::ema_steps(&pairs, decay)?)
    }

    /// Exchanges the values of the parameters and of the copy: once before an evaluation, once after it.
    ///
    /// # Errors
    /// Parameters other than those it was made with.
    pub fn swap(&mut self, parameters: &ParameterSet) -> Result<(), OptimError> {
        for parameter in parameters.iter() {
            let trained = parameter.var.as_tensor().copy()?.detach();
            parameter.var.set(self.own(&parameter.name)?)?;
            self.shadow.insert(parameter.name.clone(), trained);
        }
        Ok(())
    }

    /// The averaged values by parameter name, and the number of updates.
    pub fn state(&self) -> (&BTreeMap<String, Tensor>, u64) {
        (&self.shadow, self.num_updates)
    }

    /// Puts back what [`Ema::state`] gave.
    ///
    /// # Errors
    /// Names a tensor that is missing or has another shape; then nothing has changed.
    pub fn restore(&mut self, shadow: &BTreeMap<String, Tensor>, num_updates: u64) -> Result<(), OptimError> {
        let mut restored = BTreeMap::new();
        for (name, own) in &self.shadow {
            let problem =
                |problem: &str| OptimError::State { name: format!("ema.{name}"), problem: problem.to_owned() };
            let found = shadow.get(name).ok_or_else(|| problem("is missing"))?;
            if found.shape() != own.shape() {
                return Err(problem("has another shape than the parameter"));
            }
            restored.insert(name.clone(), found.copy()?.to_device(own.device())?);
        }
        self.shadow = restored;
        self.num_updates = num_updates;
        Ok(())
    }

    fn own(&self, name: &str) -> Result<&Tensor, OptimError> {
        let missing = || OptimError::State { name: format!("ema.{name}"), problem: "is missing".to_owned() };
        self.shadow.get(name).ok_or_else(missing)
    }
}

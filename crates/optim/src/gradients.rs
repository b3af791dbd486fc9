//! The gradients of one step, in the order of the parameters.

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use crate::{OptimError, ParameterSet};

/// One gradient per parameter of a [`ParameterSet`], detached from the graph that made them, and a factor for all.
#[derive(Clone, Debug)]
pub struct Gradients {
    tensors: Vec<Tensor>,
    /// Multiplied in when they are applied: no pass of its own.
    factor: f64,
}

impl Gradients {
    /// Takes the gradients of `parameters` out of a backward pass. A parameter the loss does not depend on gets zeros.
    ///
    /// candle's gradients keep the whole graph of their step alive; detaching them here lets it go.
    ///
    /// # Errors
    /// candle's, when zeros cannot be made.
    pub fn take(parameters: &ParameterSet, store: &GradStore) -> Result<Self, OptimError> {
        let gradient = |var: &candle_core::Var| match store.get(var) {
            Some(gradient) => Ok(gradient.detach()),
            None => var.zeros_like(),
        };
        let tensors: candle_core::Result<_> = parameters.iter().map(|parameter| gradient(&parameter.var)).collect();
        Ok(Self { tensors: tensors?, factor: 1.0 })
    }

    /// Adds the gradients of another micro-batch.
    ///
    /// # Errors
    /// Gradients of other parameters.
    pub fn add(&mut self, other: &Self) -> Result<(), OptimError> {
        if self.factor != other.factor {
            self.settle()?;
            let mut other = other.clone();
            other.settle()?;
            return self.add(&other);
        }
        for (own, theirs) in self.tensors.iter_mut().zip(&other.tensors) {
            *own = (&*own + theirs)?;
        }
        Ok(())
    }

    /// Multiplies the factor in.
    fn settle(&mut self) -> Result<(), OptimError> {
        for own in &mut self.tensors {
            *own = own.affine(self.factor, 0.0)?;
        }
        self.factor = 1.0;
        Ok(())
    }

    /// Multiplies every gradient.
    pub fn scale(&mut self, factor: f64) {
        self.factor *= factor;
    }

    /// Euclidean norm over all gradients together, summed in f64 in the order of the names.
    ///
    /// # Errors
    /// A gradient that is not f32.
    pub fn global_norm(&self) -> Result<f64, OptimError> {
        Ok(self.factor.abs() * taper_kernels::sum_of_all_squares(&self.tensors)?.sqrt())
    }

    /// Euclidean norm of each gradient, in name order.
    ///
    /// # Errors
    /// A gradient that is not f32.
    pub fn norms(&self) -> Result<Vec<f64>, OptimError> {
        let norm = |tensor: &Tensor| Ok(self.factor.abs() * taper_kernels::sum_of_squares(tensor)?.sqrt());
        self.tensors.iter().map(norm).collect()
    }

    /// Scales all gradients down to a global norm of `max_norm` (Pascanu et al. 2013), given the norm they have.
    ///
    /// Like PyTorch's `clip_grad_norm_`, with 1e-6 added to the divisor; gradients below the bound stay as they are.
    pub fn clip(&mut self, norm: f64, max_norm: f64) {
        let factor = max_norm / (norm + 1e-6);
        if factor < 1.0 {
            self.scale(factor);
        }
    }

    /// The gradients in name order, before [`Self::factor`].
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What every gradient is multiplied by when it is applied.
    pub fn factor(&self) -> f64 {
        self.factor
    }
}

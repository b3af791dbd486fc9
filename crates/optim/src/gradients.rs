//! The gradients of one step, in the order of the parameters.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use taper_kernels::{Clip, GradScale, SquareSum};

use crate::{OptimError, ParameterSet};

/// One gradient per parameter of a [`ParameterSet`], detached from the graph that made them, and a factor for all.
#[derive(Clone, Debug)]
pub struct Gradients {
    tensors: Vec<Tensor>,
    /// Multiplied in when they are applied: no pass of its own.
    factor: f64,
    /// A bound of their norm that a GPU works out when they are applied.
    clip: Option<(SquareSum, f64)>,
}

/// Euclidean norm over all gradients together, which may still be on its way from a GPU.
#[derive(Clone, Debug)]
pub struct GradientNorm {
    squares: SquareSum,
    factor: f64,
}

impl GradientNorm {
    /// The norm; waits for the device.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn wait(&self) -> Result<f64, OptimError> {
        Ok(self.of(self.squares.wait()?))
    }

    fn of(&self, squares: f64) -> f64 {
        self.factor.abs() * squares.sqrt()
    }
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
        Ok(Self { tensors: tensors?, factor: 1.0, clip: None })
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

    /// Euclidean norm over all gradients together, summed in f64 in the order of the names; not waited for. A bound that a
    /// GPU works out later is not in it.
    ///
    /// # Errors
    /// A gradient that is not f32.
    pub fn global_norm(&self) -> Result<GradientNorm, OptimError> {
        Ok(GradientNorm { squares: taper_kernels::sum_of_all_squares(&self.tensors)?, factor: self.factor })
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
    pub fn clip(&mut self, norm: &GradientNorm, max_norm: f64) {
        let Some(squares) = norm.squares.known() else {
            self.clip = Some((norm.squares.clone(), max_norm));
            return;
        };
        let factor = max_norm / (norm.of(squares) + 1e-6);
        if factor < 1.0 {
            self.scale(factor);
        }
    }

    /// The gradients in name order, before [`Self::scale_to_apply`].
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// What every gradient is multiplied by when it is applied.
    pub fn scale_to_apply(&self) -> GradScale<'_> {
        let clip = self.clip.as_ref().map(|(squares, max_norm)| Clip { squares, max_norm: *max_norm });
        GradScale { factor: self.factor, clip }
    }
}

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use crate::in_place::write;
use crate::reduce::{change, combine};
use crate::storage::{View, tensor, view};

/// Name of the sum of two gradients, for errors.
const OP: &str = "add_gradient";

/// A gradient on its way back: contiguous, of the type of what it is the gradient of, without history. That of a variable
/// may be of another type and strided in a pass that asks for raw ones.
///
/// Clones share the values. candle does not tell whether a tensor's values are shared, so the count of
/// clones here says when a sum may be formed in place.
#[derive(Clone)]
pub(crate) struct Gradient(Arc<Tensor>);

impl From<Tensor> for Gradient {
    /// Takes over a tensor whose values nothing else holds.
    fn from(values: Tensor) -> Self {
        Self(Arc::new(values))
    }
}

impl Gradient {
    /// The values as a tensor, which must not outlive the gradient.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// The values as a slice.
    pub(crate) fn view(&self, op: &'static str) -> Result<View<'_>> {
        view(op, "gradient", &self.0)
    }

    /// The gradient that waits, if its values are nobody else's and it `fits`: what takes it may add to them in place.
    #[cfg(feature = "cuda")]
    pub(crate) fn take_own(waiting: &mut Option<Self>, fits: impl FnOnce(&Tensor) -> bool) -> Option<Self> {
        waiting.take_if(|gradient| Arc::get_mut(&mut gradient.0).is_some_and(|values| fits(values)))
    }

    /// The gradient as candle keeps it.
    pub(super) fn into_tensor(self) -> Tensor {
        Arc::unwrap_or_clone(self.0)
    }

    /// Itself, or a dense copy of this type of one that was left as it was made.
    pub(super) fn settled(self, dtype: DType) -> Result<Self> {
        match self.0.dtype() == dtype && self.0.is_contiguous() {
            true => Ok(self),
            false => Ok(self.0.to_dtype(dtype)?.contiguous()?.into()),
        }
    }

    /// The sum of two gradients of one tensor, in the memory of one of them if it is nobody else's.
    pub(super) fn plus(mut self, mut other: Self) -> Result<Self> {
        if Arc::get_mut(&mut self.0).is_some() {
            add_to(&self.0, &other.0)?;
            return Ok(self);
        }
        if Arc::get_mut(&mut other.0).is_some() {
            // Addition commutes, to the bit.
            add_to(&other.0, &self.0)?;
            return Ok(other);
        }
        #[cfg(feature = "cuda")]
        if self.0.device().is_cuda() {
            return Ok(crate::cuda::plus(&self.0, &other.0)?.into());
        }
        let sum = combine(&self.view(OP)?, &other.view(OP)?, |left, right| left + right);
        Ok(tensor(sum, self.0.shape())?.into())
    }
}

/// The gradient of an input, if the input asks for one; `compute` gives a fresh tensor of the input's shape.
pub(crate) fn wanted(input: &Tensor, compute: impl FnOnce() -> Result<Tensor>) -> Result<Option<Gradient>> {
    match input.track_op() {
        true => Ok(Some(compute()?.into())),
        false => Ok(None),
    }
}

/// Adds a tensor to one whose values are nobody else's.
fn add_to(sum: &Tensor, term: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if sum.device().is_cuda() {
        return crate::cuda::plus_assign(sum, term);
    }
    write(OP, [("sum", sum)], ("term", term), |[sums], terms| change(sums, terms, |sum, term| *sum += term))
}

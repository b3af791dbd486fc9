use std::sync::Arc;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::build::{build_unset, nth_chunk};
use crate::reduce::Lanes;
use crate::storage::{View, slice, slice_mut, tensor, view};

/// A gradient on its way back: contiguous, of the type of what it is the gradient of, without history.
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

    /// The gradient as candle keeps it.
    pub(super) fn into_tensor(self) -> Tensor {
        Arc::unwrap_or_clone(self.0)
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
        let sum = sum(&self.view(AddTo::NAME)?, &other.view(AddTo::NAME)?);
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

fn sum(left: &[f32], right: &[f32]) -> Vec<f32> {
    let chunk = Lanes::new(1).chunk();
    // SAFETY: both terms are as long as the sum.
    unsafe {
        build_unset(left.len(), chunk, |index, sum| {
            let terms = nth_chunk(left, chunk, index).iter().zip(nth_chunk(right, chunk, index));
            for (sum, (left, right)) in sum.iter_mut().zip(terms) {
                sum.write(left + right);
            }
        })
    }
}

/// Adds a tensor to one whose values are nobody else's.
fn add_to(sum: &Tensor, term: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if sum.device().is_cuda() {
        return crate::cuda::plus_assign(sum, term);
    }
    sum.inplace_op2(term, &AddTo)
}

/// Adds a tensor to the destination.
struct AddTo;

impl AddTo {
    const NAME: &'static str = "add_gradient";
}

impl InplaceOp2 for AddTo {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn cpu_fwd(&self, sum: &mut CpuStorage, sum_layout: &Layout, term: &CpuStorage, layout: &Layout) -> Result<()> {
        let sum = slice_mut(Self::NAME, "sum", sum, sum_layout)?;
        let term = slice(Self::NAME, "term", term, layout)?;
        let chunk = Lanes::new(1).chunk();
        sum.par_chunks_mut(chunk).zip(term.par_chunks(chunk)).for_each(|(sum, term)| {
            sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += term);
        });
        Ok(())
    }
}

//! How our ops hang into candle's graph, and a backward pass over them that costs less than candle's.
//!
//! An op computes its result on plain slices, or queues its kernels on a GPU, and gives it to [`attach`] with an [`Operation`], which
//! knows the way back. candle owns the graph: each result owns its [`Node`], and the node owns the
//! inputs, never the result. A registry of weak references finds the node of a result, because candle
//! does not show the operation of a tensor.

mod adaptor;
mod gradient;
mod history;
mod node;
mod raw;
#[cfg(test)]
mod tests;
mod values;
mod walk;

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor};

use adaptor::Adaptor;
pub(crate) use gradient::{Gradient, wanted};
#[cfg(feature = "cuda")]
pub(crate) use history::is_off as is_without_history;
pub use history::without_history;
use node::Node;
#[cfg(feature = "cuda")]
pub(crate) use raw::is_raw;
pub(crate) use values::Values;
pub use walk::{backward, backward_raw, backward_with, consists_of_own_ops};

/// The way back through one op whose result is computed before.
pub(crate) trait Operation: Send + Sync + 'static {
    /// The op's name in messages.
    fn name(&self) -> &'static str;

    /// The gradient of each input in order, `None` for those without history (see [`wanted`]).
    ///
    /// `gradient` has the shape of `output` and is contiguous, as are the inputs that were attached so. An
    /// operation keeps neither of them: the output would own itself, and a gradient that is kept cannot be
    /// added to in place.
    fn backward(&self, inputs: &[Tensor], output: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>>;

    /// As [`Operation::backward`], where a gradient of the first input may already wait. An operation that can add its own
    /// to it for less than a pass over memory takes it, and gives the sum.
    fn backward_onto(
        &self,
        inputs: &[Tensor],
        output: &Tensor,
        gradient: &Gradient,
        _waiting: &mut Option<Gradient>,
    ) -> Result<Vec<Option<Gradient>>> {
        self.backward(inputs, output, gradient)
    }
}

/// Hangs a result into candle's graph: a tensor of `shape` made from `inputs` by `operation`.
///
/// Where no input tracks gradients, or within [`without_history`], a plain tensor without history. Both candle's own backward pass and
/// [`backward`] go through it.
///
/// # Errors
/// No input or more than candle's three; a shape of another number of elements.
pub(crate) fn attach(
    operation: impl Operation,
    inputs: &[&Tensor],
    result: impl Into<Values>,
    shape: impl Into<Shape>,
) -> Result<Tensor> {
    let (result, shape) = (result.into(), shape.into());
    if history::is_off() || !inputs.iter().any(|input| input.track_op()) {
        return result.into_tensor(shape);
    }
    let node = Arc::new(Node::new(operation, inputs));
    let adaptor = Adaptor::new(node.clone(), result, shape)?;
    let output = match *inputs {
        [x] => x.apply_op1(adaptor)?,
        [x, second] => x.apply_op2(second, adaptor)?,
        [x, second, third] => x.apply_op3(second, third, adaptor)?,
        _ => candle_core::bail!("{}: {} inputs, candle's graph takes one to three", node.name(), inputs.len()),
    };
    node.register(output.id());
    Ok(output)
}

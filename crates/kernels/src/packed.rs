//! Weights in the order and type of a GPU's convolutions, kept from step to step.

#[cfg(feature = "cuda")]
use std::cell::RefCell;
#[cfg(feature = "cuda")]
use std::collections::HashMap;
use std::marker::PhantomData;

#[cfg(feature = "cuda")]
use candle_core::{DType, Tensor, TensorId};

/// Keeps weights as convolutions take them while it lives, see [`keep_packed_weights`].
#[derive(Debug)]
#[must_use = "weights are kept as long as this lives"]
pub struct PackedWeights {
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

/// Lets convolutions in bf16 on a GPU keep their weights as they take them, where they are variables, from one forward
/// pass of this thread to the next; [`sgd_steps`](crate::sgd_steps) and [`adamw_steps`](crate::adamw_steps) move both.
/// Elsewhere it does nothing.
///
/// While the result lives, nothing else may change the values of variables, such as [`Var::set`](candle_core::Var::set): a
/// convolution would not see it. Nor may a step come between a forward pass and its backward pass.
pub fn keep_packed_weights() -> PackedWeights {
    #[cfg(feature = "cuda")]
    REGISTRY.with_borrow_mut(|registry| registry.num_keepers += 1);
    PackedWeights { _thread: PhantomData }
}

impl Drop for PackedWeights {
    fn drop(&mut self) {
        #[cfg(feature = "cuda")]
        REGISTRY.with_borrow_mut(|registry| {
            registry.num_keepers -= 1;
            // All go, even with another keeper: what comes now may change variables.
            registry.weights.clear();
        });
    }
}

#[cfg(feature = "cuda")]
#[derive(Default)]
struct Registry {
    num_keepers: usize,
    weights: HashMap<TensorId, Tensor>,
}

#[cfg(feature = "cuda")]
thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

/// What is kept of a variable.
#[cfg(feature = "cuda")]
pub(crate) fn kept(weights: &Tensor) -> Option<Tensor> {
    REGISTRY.with_borrow(|registry| registry.weights.get(&weights.id()).cloned())
}

/// Keeps a copy of a variable, if anybody wants that.
#[cfg(feature = "cuda")]
pub(crate) fn keep(weights: &Tensor, packed: &Tensor) {
    REGISTRY.with_borrow_mut(|registry| {
        if registry.num_keepers > 0 && weights.is_variable() && packed.dtype() == DType::BF16 {
            registry.weights.insert(weights.id(), packed.clone());
        }
    });
}

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use candle_core::{Result, Tensor, TensorId};

use super::Operation;
use super::gradient::Gradient;

/// One of our ops in a graph. The op's result owns it, through candle.
pub(super) struct Node {
    operation: Box<dyn Operation>,
    inputs: Vec<Tensor>,
    /// Set once the result exists.
    output: OnceLock<TensorId>,
}

impl Node {
    pub(super) fn new(operation: impl Operation, inputs: &[&Tensor]) -> Self {
        let inputs = inputs.iter().map(|&input| input.clone()).collect();
        Self { operation: Box::new(operation), inputs, output: OnceLock::new() }
    }

    /// Makes this the node that [`Node::of`] finds for its result.
    pub(super) fn register(self: &Arc<Self>, output: TensorId) {
        let id = *self.output.get_or_init(|| output);
        registry().insert(id, Arc::downgrade(self));
    }

    /// The node that made this tensor, if one of our ops did.
    pub(super) fn of(output: &Tensor) -> Option<Arc<Self>> {
        registry().get(&output.id())?.upgrade()
    }

    pub(super) fn name(&self) -> &'static str {
        self.operation.name()
    }

    pub(super) fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// One gradient per input, `None` where the input has no history.
    pub(super) fn backward(&self, output: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        self.operation.backward(&self.inputs, output, gradient)
    }

    /// The same, where a gradient may wait at the first input.
    pub(super) fn backward_onto(
        &self,
        output: &Tensor,
        gradient: &Gradient,
        waiting: &mut Option<Gradient>,
    ) -> Result<Vec<Option<Gradient>>> {
        self.operation.backward_onto(&self.inputs, output, gradient, waiting)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(id) = self.output.get() {
            registry().remove(id);
        }
        drop_in_turn(std::mem::take(&mut self.inputs));
    }
}

fn registry() -> MutexGuard<'static, HashMap<TensorId, Weak<Node>>> {
    static NODES: LazyLock<Mutex<HashMap<TensorId, Weak<Node>>>> = LazyLock::new(Mutex::default);
    NODES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) fn is_registered(id: TensorId) -> bool {
    registry().contains_key(&id)
}

thread_local! {
    /// The tensors that wait to be dropped while another node of this thread is being dropped.
    static WAITING: RefCell<Option<Vec<Tensor>>> = const { RefCell::new(None) };
}

/// Drops the inputs of a node without recursion, however long the chain of ops behind them.
///
/// Dropping a tensor can drop its node, whose inputs come here again. candle itself drops its graph
/// recursively; it does not come to that here, because at that moment the node holds the same inputs.
fn drop_in_turn(inputs: Vec<Tensor>) {
    // On a thread that is ending the list may be gone; `inputs` then drop with the closure.
    let is_first = WAITING.try_with(move |waiting| match &mut *waiting.borrow_mut() {
        Some(waiting) => {
            waiting.extend(inputs);
            false
        }
        waiting @ None => {
            *waiting = Some(inputs);
            true
        }
    });
    if !is_first.unwrap_or(false) {
        return;
    }
    let next = || WAITING.with(|waiting| waiting.borrow_mut().as_mut().and_then(Vec::pop));
    while let Some(tensor) = next() {
        drop(tensor);
    }
    WAITING.with(|waiting| *waiting.borrow_mut() = None);
}

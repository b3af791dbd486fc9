use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};

use super::gradient::Gradient;
use super::node::Node;
use super::raw::raw;
use crate::build::build;
use crate::reduce::Lanes;
use crate::storage::{require_shape, tensor};

/// The gradients of every variable that `loss` depends on; that of `loss` itself starts as 1 everywhere.
///
/// The same gradients as [`Tensor::backward`] gives, for less time and memory: the first gradient that
/// reaches a tensor is moved there instead of added to zeros, further ones are added in parallel and
/// where possible in place, and each activation is freed once the walk has passed it. For that the loss
/// comes by value, and the caller keeps no other tensor with history, such as the logits. Additions
/// happen in an order that follows from the graph alone.
///
/// This holds where every op between the variables and the loss is one of this crate's, see
/// [`consists_of_own_ops`]. A graph with another op in it is left to [`Tensor::backward`].
///
/// # Shapes
/// `loss`: any, most often a scalar; f32.
///
/// # Errors
/// Those of the ops' gradients.
pub fn backward(loss: Tensor) -> Result<GradStore> {
    let Some(steps) = steps_to(&loss) else {
        return loss.backward();
    };
    let ones = ones_like(&loss)?;
    start(loss, steps, ones)
}

/// As [`backward`], for gradients that go to [`sgd_steps`](crate::sgd_steps) or [`adamw_steps`](crate::adamw_steps): on a
/// GPU, those of variables may be of the activations' type and strided, as they were made.
///
/// # Shapes
/// `loss`: any, most often a scalar; f32.
///
/// # Errors
/// Those of the ops' gradients.
pub fn backward_raw(loss: Tensor) -> Result<GradStore> {
    let Some(steps) = steps_to(&loss) else {
        return loss.backward();
    };
    let ones = ones_like(&loss)?;
    raw(|| start(loss, steps, ones))
}

/// As [`backward`], from the gradient of something that was computed from `y`.
///
/// # Shapes
/// `y`: any; `gradient`: the same; f32.
///
/// # Errors
/// Shapes that differ, and those of the ops' gradients.
pub fn backward_with(y: Tensor, gradient: Tensor) -> Result<GradStore> {
    require_shape("backward_with", "gradient", &gradient, y.dims(), "that of y")?;
    match steps_to(&y) {
        // A copy: sums are formed in place, and the caller may hold the values elsewhere.
        Some(steps) => start(y, steps, gradient.force_contiguous()?),
        None => (y * gradient)?.sum_all()?.backward(),
    }
}

fn ones_like(loss: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if loss.device().is_cuda() {
        return crate::cuda::fill(loss, 1.0);
    }
    let ones = build(loss.elem_count(), Lanes::new(1).chunk(), |_, ones| ones.fill(1.0));
    tensor(ones, loss.shape())
}

fn start(y: Tensor, steps: Vec<Step>, gradient: Tensor) -> Result<GradStore> {
    let waiting = HashMap::from([(y.id(), gradient.into())]);
    drop(y);
    walk(steps, waiting)
}

/// Whether [`backward`] walks the graph of this loss itself: the loss has history, and on every path
/// back to a variable there are only ops of this crate.
pub fn consists_of_own_ops(loss: &Tensor) -> bool {
    steps_to(loss).is_some()
}

/// One op on the way: its result, and the node that knows its inputs.
struct Step {
    output: Tensor,
    node: Arc<Node>,
}

impl Step {
    fn of(output: &Tensor) -> Option<Self> {
        Some(Self { node: Node::of(output)?, output: output.clone() })
    }
}

/// The ops behind `loss`, each after those it depends on; `None` if one of them is not ours.
///
/// Depth first, inputs from first to last, as candle orders them, but without recursion.
fn steps_to(loss: &Tensor) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut seen = HashSet::from([loss.id()]);
    let mut open = vec![(Step::of(loss)?, 0)];
    while let Some((step, next)) = open.last_mut() {
        let Some(input) = step.node.inputs().get(*next) else {
            steps.extend(open.pop().map(|(step, _)| step));
            continue;
        };
        *next += 1;
        if input.track_op() && !input.is_variable() && seen.insert(input.id()) {
            let step = Step::of(input)?;
            open.push((step, 0));
        }
    }
    Some(steps)
}

/// Takes the gradients that wait at the results of ops back to the variables.
fn walk(mut steps: Vec<Step>, mut waiting: HashMap<TensorId, Gradient>) -> Result<GradStore> {
    // What a step holds is freed at the end of its round.
    while let Some(Step { output, node }) = steps.pop() {
        let Some(gradient) = waiting.remove(&output.id()) else {
            continue;
        };
        let first = node.inputs().first().map(Tensor::id);
        let mut at_first = first.and_then(|id| waiting.remove(&id));
        let gradients = node.backward_onto(&output, &gradient, &mut at_first)?;
        waiting.extend(first.zip(at_first));
        // An op may have passed the gradient on; then it is nobody else's from here on.
        drop(gradient);
        for (input, gradient) in node.inputs().iter().zip(gradients) {
            let Some(gradient) = gradient.filter(|_| input.track_op()) else {
                continue;
            };
            let sum = match waiting.remove(&input.id()) {
                None => gradient,
                Some(sum) => sum.settled(input.dtype())?.plus(gradient.settled(input.dtype())?)?,
            };
            waiting.insert(input.id(), sum);
        }
    }
    // Every result of an op has had its turn, so what waits now are the gradients of variables.
    let mut store = GradStore::default();
    for (id, gradient) in waiting {
        store.insert_id(id, gradient.into_tensor());
    }
    Ok(store)
}

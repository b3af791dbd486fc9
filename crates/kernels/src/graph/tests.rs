//! What only shows from inside: which nodes and activations live when, and sums in shared memory.

use std::sync::{Arc, Mutex, Weak};

use candle_core::{Device, Result, Tensor, TensorId, Var};

use super::node::{Node, is_registered};
use super::{Gradient, Operation, attach, backward, backward_with, wanted};
use crate::storage::view;

fn variable(values: &[f32]) -> Var {
    Var::from_tensor(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec1().unwrap()
}

/// The sum of its inputs; every one gets the same gradient, unchanged.
struct Sum;

impl Operation for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn backward(&self, inputs: &[Tensor], _: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        Ok(inputs.iter().map(|input| input.track_op().then(|| gradient.clone())).collect())
    }
}

fn sum(terms: &[&Tensor]) -> Tensor {
    let mut sum = vec![0.0; terms[0].elem_count()];
    for term in terms {
        sum.iter_mut().zip(&*view("sum", "term", term).unwrap()).for_each(|(sum, term)| *sum += term);
    }
    attach(Sum, terms, sum, terms[0].shape()).unwrap()
}

/// Passes a copy of the gradient on, and notes how many of its kind live when its turn comes.
struct Witness {
    _life: Arc<()>,
    notes: Arc<Notes>,
}

/// What the witnesses of one chain share.
#[derive(Default)]
struct Notes {
    lives: Mutex<Vec<Weak<()>>>,
    seen: Mutex<Vec<usize>>,
}

impl Notes {
    fn num_living(&self) -> usize {
        self.lives.lock().unwrap().iter().filter(|life| life.strong_count() > 0).count()
    }
}

impl Operation for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn backward(&self, inputs: &[Tensor], _: &Tensor, gradient: &Gradient) -> Result<Vec<Option<Gradient>>> {
        self.notes.seen.lock().unwrap().push(self.notes.num_living());
        Ok(vec![wanted(&inputs[0], || gradient.tensor().copy())?])
    }
}

/// A chain of witnesses on `x`.
fn witnesses(x: &Tensor, length: usize) -> (Tensor, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let witness = |y: Tensor, _| {
        let life = Arc::new(());
        notes.lives.lock().unwrap().push(Arc::downgrade(&life));
        let witness = Witness { _life: life, notes: notes.clone() };
        attach(witness, &[&y], values(&y), y.shape()).unwrap()
    };
    ((0..length).fold(x.clone(), witness), notes)
}

/// Fails, as an op may.
struct Failing;

impl Operation for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn backward(&self, _: &[Tensor], _: &Tensor, _: &Gradient) -> Result<Vec<Option<Gradient>>> {
        candle_core::bail!("no way back")
    }
}

/// The results of our ops behind `y`, itself included.
fn results(y: &Tensor) -> Vec<TensorId> {
    let (mut found, mut open) = (Vec::new(), vec![y.clone()]);
    while let Some(tensor) = open.pop() {
        if let Some(node) = Node::of(&tensor) {
            found.push(tensor.id());
            open.extend_from_slice(node.inputs());
        }
    }
    found
}

#[track_caller]
fn assert_gone(results: &[TensorId], number: usize) {
    assert_eq!(results.len(), number);
    assert!(results.iter().all(|&id| !is_registered(id)), "nodes are left in the registry");
}

#[test]
fn activations_are_freed_during_the_walk() {
    // A node lives in its result, so a node that is gone had its result freed.
    let x = variable(&[1.0, 2.0]);
    let (y, notes) = witnesses(&x, 5);
    let gradients = backward(y).unwrap();
    assert_eq!(*notes.seen.lock().unwrap(), [5, 4, 3, 2, 1]);
    assert_eq!(notes.num_living(), 0);
    assert_eq!(values(gradients.get(&x).unwrap()), [1.0, 1.0]);
}

#[test]
fn no_node_is_left_in_the_registry() {
    let x = variable(&[1.0, 2.0]);
    let graph = || witnesses(&sum(&[&x, &x]), 3).0;

    let y = graph();
    let ids = results(&y);
    assert!(ids.iter().all(|&id| is_registered(id)));
    drop(y);
    assert_gone(&ids, 4);

    let y = graph();
    let ids = results(&y);
    backward(y).unwrap();
    assert_gone(&ids, 4);

    let y = graph();
    let ids = results(&y);
    y.backward().unwrap();
    drop(y);
    assert_gone(&ids, 4);

    let fail = |y: Tensor| attach(Failing, &[&y], values(&y), y.shape()).unwrap();
    let y = fail(graph());
    let ids = results(&y);
    assert!(backward(y).unwrap_err().to_string().contains("no way back"));
    assert_gone(&ids, 5);
}

#[test]
fn shared_gradients_are_not_added_to() {
    // Every sum hands the same memory to its inputs, so a sum in place in the wrong one shows.
    let (a, b) = (variable(&[1.0, -1.0]), variable(&[3.0, 4.0]));
    let twice = sum(&[&a, &a]);
    let c = sum(&[&twice, &b, &a]);
    let y = sum(&[&c, &twice, &c]);
    let theirs = y.backward().unwrap();
    let ours = backward(y).unwrap();
    for (variable, expected) in [(&a, 8.0), (&b, 2.0)] {
        assert_eq!(values(ours.get(variable).unwrap()), [expected; 2]);
        assert_eq!(values(theirs.get(variable).unwrap()), [expected; 2]);
    }
}

/// The caller's gradient is the first to reach `x`, and another one is added to it there.
#[test]
fn the_gradient_of_the_caller_stays_as_it_is() {
    let x = variable(&[1.0, 2.0]);
    let (copy, _) = witnesses(&x, 1);
    let y = sum(&[x.as_tensor(), &copy]);
    drop(copy);
    let gradient = Tensor::new(&[5f32, 7.0], &Device::Cpu).unwrap();
    let store = backward_with(y, gradient.clone()).unwrap();
    assert_eq!(values(store.get(&x).unwrap()), [10.0, 14.0]);
    assert_eq!(values(&gradient), [5.0, 7.0]);
}

#[test]
fn results_without_history_have_no_node() {
    let x = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
    let y = sum(&[&x, &x]);
    assert!(!y.track_op());
    assert_gone(&results(&y), 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = variable(&[1.0, 2.0]);
    let error = attach(Sum, &[&x], vec![0.0; 3], 2).unwrap_err().to_string();
    assert!(error.contains("sum: 3 values") && error.contains("[2]"), "{error}");
    let error = attach(Sum, &[&x, &x, &x, &x], vec![0.0; 2], 2).unwrap_err().to_string();
    assert!(error.contains("4 inputs"), "{error}");
}

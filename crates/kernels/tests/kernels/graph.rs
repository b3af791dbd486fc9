//! Our backward pass against candle's, over graphs of our ops and over others.

use std::collections::HashSet;

use candle_core::{Result, Tensor, TensorId, Var};
use taper_kernels::{
    ConvGeometry, Epilogue, Padding, PoolGeometry, avg_pool2d, backward, backward_with, batch_norm_eval,
    batch_norm_train, consists_of_own_ops, conv2d, cross_entropy, cross_entropy_soft, flatten_chw, global_avg_pool,
    linear, max_pool2d, relu,
};

use crate::support::{noise, tensor, values};

fn variable(shape: &[usize], seed: u64) -> Var {
    Var::from_tensor(&tensor(&noise(shape, seed))).unwrap()
}

/// Variables of a small network through every op.
struct Network {
    images: Tensor,
    stem: Var,
    stem_bias: Var,
    convs: [Var; 2],
    shortcut: Var,
    gamma: Var,
    beta: Var,
    dense: Var,
    bias: Var,
}

impl Network {
    fn new(images: Tensor) -> Self {
        Self {
            images,
            stem: variable(&[4, 3, 3, 3], 1),
            stem_bias: variable(&[4], 2),
            convs: [variable(&[4, 4, 3, 3], 3), variable(&[4, 4, 3, 3], 4)],
            shortcut: variable(&[4, 4, 1, 1], 5),
            gamma: variable(&[4], 6),
            beta: variable(&[4], 7),
            dense: variable(&[5, 4 * 2 * 2], 8),
            bias: variable(&[5], 9),
        }
    }

    /// A residual block with an inner path, an outer one and both epilogues; all norms share their parameters.
    fn block(&self, x: &Tensor, shortcut: &Tensor) -> Result<Tensor> {
        let same = ConvGeometry::same(3);
        let norm = |x: &Tensor, epilogue: Epilogue<'_>| {
            batch_norm_train(x, &self.gamma, &self.beta, None, 1e-5, epilogue).map(|(y, _)| y)
        };
        let inner = norm(&conv2d(x, &self.convs[0], None, &same)?, Epilogue::Relu)?;
        let inner = conv2d(&inner, &self.convs[1], None, &same)?;
        let y = norm(&inner, Epilogue::ReluScaleAdd { scale: 0.3, shortcut })?;
        norm(&y, Epilogue::AddRelu { shortcut: x })
    }

    fn logits(&self) -> Result<Tensor> {
        let x = conv2d(&self.images, &self.stem, Some(&self.stem_bias), &ConvGeometry::same(3))?;
        let x = relu(&x)?;
        let shortcut = conv2d(&x, &self.shortcut, None, &ConvGeometry::default())?;
        // The second block uses the same variables, and its input three times.
        let x = self.block(&self.block(&x, &shortcut)?, &x)?;
        let x = batch_norm_eval(&x, &self.gamma, &self.beta, &self.beta, &self.gamma.sqr()?, 1e-5, Epilogue::Identity)?;
        let x = max_pool2d(&x, &PoolGeometry::square(2))?;
        let x = avg_pool2d(&x, &PoolGeometry::square(2), Padding::Counted)?;
        linear(&flatten_chw(&x)?, &self.dense, Some(&self.bias))
    }

    fn loss(&self) -> Result<Tensor> {
        cross_entropy(&self.logits()?, &Tensor::new(&[1u32, 4, 0], self.images.device())?, 0.1)
    }

    fn variables(&self) -> [&Var; 9] {
        let [first, second] = &self.convs;
        [&self.stem, &self.stem_bias, first, second, &self.shortcut, &self.gamma, &self.beta, &self.dense, &self.bias]
    }
}

fn images() -> Tensor {
    tensor(&noise(&[3, 8, 8, 3], 20))
}

/// Compares with candle's gradients: the same variables, the same values but for the sign of zeros.
///
/// Both walk the graph in the same order, so even sums of many paths agree to the bit.
#[track_caller]
fn check(case: &str, loss: &Tensor, variables: &[&Var]) {
    let theirs = loss.backward().unwrap();
    let ours = backward(loss.clone()).unwrap();
    let ids = |ids: &mut dyn Iterator<Item = &TensorId>| ids.copied().collect::<HashSet<_>>();
    assert_eq!(ids(&mut ours.get_ids()), ids(&mut theirs.get_ids()), "{case}: variables with a gradient");
    assert_eq!(ours.get_ids().count(), variables.len(), "{case}: number of gradients");
    for (index, variable) in variables.iter().enumerate() {
        let (ours, theirs) = (ours.get(variable).unwrap(), theirs.get(variable).unwrap());
        assert_eq!(ours.dims(), variable.dims(), "{case}: shape of gradient {index}");
        // candle's own ops may leave a history.
        assert!(!ours.track_op() || !consists_of_own_ops(loss), "{case}: gradient {index} has history");
        assert!(values(theirs).iter().any(|&value| value != 0.0), "{case}: gradient {index} is zero");
        assert_eq!(values(ours), values(theirs), "{case}: gradient {index}");
    }
}

#[test]
fn a_given_gradient_is_carried_back() {
    let (x, w) = (variable(&[2, 4, 4, 3], 1), variable(&[5, 3, 3, 3], 2));
    let y = || conv2d(&x, &w, None, &ConvGeometry::same(3)).unwrap();
    let dy = tensor(&noise(y().dims(), 3));
    let expected = (y() * &dy).unwrap().sum_all().unwrap().backward().unwrap();
    let found = backward_with(y(), dy.clone()).unwrap();
    for variable in [&x, &w] {
        assert_eq!(values(found.get(variable).unwrap()), values(expected.get(variable).unwrap()));
    }
    let other = backward_with(relu(&(y() * 1.0).unwrap()).unwrap(), dy.clone()).unwrap();
    assert!(other.get(&w).is_some());
    assert!(backward_with(y(), dy.get(0).unwrap()).unwrap_err().to_string().contains("gradient"));
}

#[test]
fn the_same_gradients_as_candle() {
    let network = Network::new(images());
    let loss = network.loss().unwrap();
    assert!(consists_of_own_ops(&loss));
    check("residual", &loss, &network.variables());
}

#[test]
fn a_gradient_for_the_images_if_they_are_a_variable() {
    let images = Var::from_tensor(&images()).unwrap();
    let network = Network::new(images.as_tensor().clone());
    let mut variables = network.variables().to_vec();
    variables.push(&images);
    check("images", &network.loss().unwrap(), &variables);
}

#[test]
fn frozen_inputs_get_no_gradient() {
    let (x, w) = (variable(&[3, 4, 4, 2], 1), variable(&[2, 2, 3, 3], 2));
    let (gamma, beta) = (variable(&[2], 3), variable(&[2], 4));
    let same = ConvGeometry::same(3);
    let frozen = |variable: &Var| variable.as_detached_tensor();
    let net = |x: &Tensor, w: &Tensor, gamma: &Tensor, beta: &Tensor| {
        let y = conv2d(x, w, Some(beta), &same).unwrap();
        let epilogue = Epilogue::ReluScaleAdd { scale: 0.5, shortcut: x };
        let (y, _) = batch_norm_train(&y, gamma, beta, None, 1e-5, epilogue).unwrap();
        let weights = tensor(&noise(&[4, 2], 5));
        let targets = tensor(&noise(&[3, 4], 6)).abs().unwrap();
        cross_entropy_soft(&linear(&global_avg_pool(&y).unwrap(), &weights, None).unwrap(), &targets).unwrap()
    };
    check("weights", &net(&frozen(&x), &w, &frozen(&gamma), &frozen(&beta)), &[&w]);
    check("gamma", &net(&frozen(&x), &frozen(&w), &gamma, &frozen(&beta)), &[&gamma]);
    check("beta", &net(&frozen(&x), &w, &frozen(&gamma), &beta), &[&w, &beta]);
    check("input", &net(&x, &frozen(&w), &frozen(&gamma), &frozen(&beta)), &[&x]);
    assert!(!net(&frozen(&x), &frozen(&w), &frozen(&gamma), &frozen(&beta)).track_op());
}

#[test]
fn one_variable_in_two_inputs_of_one_op() {
    let w = variable(&[4, 4], 1);
    check("square", &linear(&w, &w, None).unwrap(), &[&w]);
    let y = relu(&w).unwrap();
    check("through relu", &linear(&y, &y, None).unwrap(), &[&w]);
    let (y, _) = batch_norm_train(&y, &w.get(0).unwrap(), &w.get(0).unwrap(), None, 1e-5, Epilogue::Relu).unwrap();
    check("rows by candle", &y, &[&w]);
}

#[test]
fn other_ops_leave_the_graph_to_candle() {
    let network = Network::new(images());
    let logits = network.logits().unwrap();
    let labels = Tensor::new(&[1u32, 4, 0], logits.device()).unwrap();
    let scaled = (network.loss().unwrap() * 0.5).unwrap();
    assert!(!consists_of_own_ops(&scaled));
    check("scaled loss", &scaled, &network.variables());
    let inside = cross_entropy(&logits.tanh().unwrap(), &labels, 0.0).unwrap();
    assert!(!consists_of_own_ops(&inside));
    check("op inside", &inside, &network.variables());
    let x = variable(&[2, 3], 1);
    let at_the_start = relu(&x.exp().unwrap()).unwrap();
    assert!(!consists_of_own_ops(&at_the_start));
    check("op at the start", &at_the_start, &[&x]);
    assert!(!consists_of_own_ops(&x));
    check("a variable", &x, &[&x]);
    assert!(!consists_of_own_ops(&labels));
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let network = Network::new(images());
    let bits = |threads: usize| -> Vec<u32> {
        let pool = rayon_pool(threads);
        pool.install(|| {
            let gradients = backward(network.loss().unwrap()).unwrap();
            let all = network.variables().into_iter().flat_map(|variable| values(gradients.get(variable).unwrap()));
            all.map(f32::to_bits).collect()
        })
    };
    let one = bits(1);
    for threads in [1, 2, 3] {
        assert!(bits(threads) == one, "{threads} threads give other bits");
    }
}

fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// candle drops and walks its graph by recursion; ours must not, neither with a backward pass nor without.
#[test]
fn long_chains_do_not_overflow_the_stack() {
    const LENGTH: usize = 20_000;
    let chain = || {
        let x = variable(&[3], 1);
        let y = (0..LENGTH).fold(x.as_tensor().clone(), |y, _| relu(&y).unwrap());
        (x, y)
    };
    let work = move || {
        let (_, dropped) = chain();
        drop(dropped);
        let (x, y) = chain();
        let expected: Vec<f32> = values(&x).iter().map(|&value| f32::from(u8::from(value > 0.0))).collect();
        assert_eq!(values(backward(y).unwrap().get(&x).unwrap()), expected);
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
}

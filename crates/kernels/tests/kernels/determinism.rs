//! The same bits with one, two and three threads.

use candle_core::{Result, Tensor, Var};
use taper_kernels::{
    ConvGeometry, Epilogue, PoolGeometry, Rounding, avg_pool2d, batch_norm_train, conv2d, cross_entropy, flatten_chw,
    global_avg_pool, linear, max_pool2d, relu, sum_of_squares,
};

use crate::support::{noise, tensor, values};

fn variable(shape: &[usize], seed: u64) -> Var {
    Var::from_tensor(&tensor(&noise(shape, seed))).unwrap()
}

/// A network through every op, and the bits of its loss, statistics and gradients.
fn bits() -> Result<Vec<u32>> {
    let geometry =
        |stride, padding, groups| ConvGeometry { stride: [stride; 2], padding: [padding; 2], dilation: [1; 2], groups };
    let parameters = [
        variable(&[24, 3, 3, 3], 1),
        variable(&[24, 12, 3, 3], 2),
        variable(&[24, 24, 1, 1], 3),
        variable(&[24], 4),
        variable(&[24], 5),
        variable(&[10, 24 * 8 * 8], 6),
        variable(&[10], 7),
        variable(&[10, 24], 8),
    ];
    let x = variable(&[21, 31, 33, 3], 9);
    let [stem, grouped, shortcut, gamma, beta, w1, bias, w2] = &parameters;
    let y = conv2d(&x, stem, Some(gamma), &geometry(1, 1, 1))?;
    let (y, statistics) = batch_norm_train(&y, gamma, beta, None, 1e-5, Epilogue::Relu)?;
    let skip = conv2d(&y, shortcut, None, &geometry(2, 0, 1))?;
    let y = conv2d(&y, grouped, None, &geometry(2, 1, 2))?;
    let (y, _) = batch_norm_train(&y, gamma, beta, None, 1e-5, Epilogue::ReluScaleAdd { scale: 0.1, shortcut: &skip })?;
    let (y, _) = batch_norm_train(&y, gamma, beta, None, 1e-5, Epilogue::AddRelu { shortcut: &skip })?;
    let y = max_pool2d(&y, &PoolGeometry { rounding: Rounding::Ceil, ..PoolGeometry::square(2) })?;
    let mean = global_avg_pool(&avg_pool2d(&y, &PoolGeometry::square(2), taper_kernels::Padding::Counted)?)?;
    let wide = y.narrow(1, 0, 8)?.narrow(2, 0, 8)?;
    let logits = (relu(&linear(&flatten_chw(&wide)?, w1, Some(bias))?)? + linear(&mean, w2, None)?)?;
    let labels: Vec<u32> = (0..21).map(|row| row % 10).collect();
    let loss = cross_entropy(&logits, &Tensor::new(labels, logits.device())?, 0.1)?;
    let gradients = loss.backward()?;
    let mut all = values(&loss);
    all.extend(values(&statistics.mean).into_iter().chain(values(&statistics.variance)));
    for parameter in parameters.iter().chain([&x]) {
        let gradient = gradients.get(parameter).unwrap();
        all.extend(values(gradient));
        all.push(sum_of_squares(gradient)? as f32);
    }
    Ok(all.into_iter().map(f32::to_bits).collect())
}

#[test]
fn thread_count_does_not_change_a_bit() {
    let with_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(bits).unwrap()
    };
    let one = with_threads(1);
    assert!(one.iter().all(|&bits| f32::from_bits(bits).is_finite()));
    for threads in [2, 3] {
        assert!(with_threads(threads) == one, "{threads} threads give other bits than one");
    }
}

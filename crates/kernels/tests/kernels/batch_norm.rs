//! Batch normalisation with each epilogue, in training and evaluation.

use candle_core::{Tensor, Var};
use taper_kernels::{
    ConvGeometry, Epilogue, Running, backward_with, batch_norm_eval, batch_norm_train, norm_relu_conv2d, reference,
    set_recompute,
};

use crate::support::{assert_close, check, noise, tensor, values};

const EPS: f64 = 1e-5;

fn epilogue<'a>(name: &str, shortcut: &'a Tensor) -> Epilogue<'a> {
    match name {
        "identity" => Epilogue::Identity,
        "relu" => Epilogue::Relu,
        "relu-scale-add" => Epilogue::ReluScaleAdd { scale: 0.1, shortcut },
        _ => Epilogue::AddRelu { shortcut },
    }
}

fn plain<'a>(name: &str, shortcut: &'a reference::Array) -> reference::Epilogue<'a> {
    match name {
        "identity" => reference::Epilogue::Identity,
        "relu" => reference::Epilogue::Relu,
        "relu-scale-add" => reference::Epilogue::ReluScaleAdd(f64::from(0.1f32), shortcut),
        _ => reference::Epilogue::AddRelu(shortcut),
    }
}

#[track_caller]
fn check_batch_norm(shape: &[usize]) {
    let channels = [shape[shape.len() - 1]];
    for name in ["identity", "relu", "relu-scale-add", "add-relu"] {
        let mut inputs = vec![noise(shape, 1), noise(&channels, 2), noise(&channels, 3)];
        if name.contains("add") {
            inputs.push(noise(shape, 4));
        }
        let (mean, mut variance) = (noise(&channels, 5), noise(&channels, 6));
        variance.values.iter_mut().for_each(|value| *value = value.abs() + 0.5);
        let last = inputs.len() - 1;
        check(
            &format!("train {name} {shape:?}"),
            &inputs,
            |i| Ok(batch_norm_train(&i[0], &i[1], &i[2], None, EPS, epilogue(name, &i[last]))?.0),
            |i| {
                let (mean, variance) = reference::channel_moments(&i[0]);
                reference::batch_norm(&i[0], &i[1], &i[2], (&mean, &variance), EPS, plain(name, &i[last]))
            },
        );
        let stored = (tensor(&mean), tensor(&variance));
        check(
            &format!("eval {name} {shape:?}"),
            &inputs,
            |i| batch_norm_eval(&i[0], &i[1], &i[2], &stored.0, &stored.1, EPS, epilogue(name, &i[last])),
            |i| reference::batch_norm(&i[0], &i[1], &i[2], (&mean, &variance), EPS, plain(name, &i[last])),
        );
    }
}

#[test]
fn images_and_rows() {
    check_batch_norm(&[2, 3, 2, 3]);
    check_batch_norm(&[5, 4]);
    check_batch_norm(&[3, 1]);
    check_batch_norm(&[2, 70]);
    check_batch_norm(&[7, 11]);
}

#[test]
fn statistics_cross_chunks() {
    for channels in [1, 3, 8, 100] {
        let x = noise(&[3, 101, 37, channels], 7);
        let (mean, variance) = reference::channel_moments(&x);
        let (ones, zeros) = (
            Tensor::ones(channels, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap(),
            noise(&[channels], 1),
        );
        let (_, found) = batch_norm_train(&tensor(&x), &ones, &tensor(&zeros), None, EPS, Epilogue::Identity).unwrap();
        assert_eq!(found.count, 3 * 101 * 37);
        // Means of noise are near 0, so they are compared on the scale of the noise.
        let centred: Vec<f64> = mean.values.iter().map(|mean| mean + 1.0).collect();
        let found_mean: Vec<f32> = values(&found.mean).iter().map(|mean| mean + 1.0).collect();
        assert_close("mean", &found_mean, &centred, 2e-7);
        assert_close("variance", &values(&found.variance), &variance.values, 1e-6);
    }
}

/// Squares summed naively in f32 would leave nothing of a spread this small beside the mean, and a
/// mean rounded to f32 is off by a noticeable part of the spread.
#[test]
fn a_large_mean_costs_no_digits_of_the_variance() {
    for (offset, spread) in [(1000.0, 0.01), (1e6, 1.0), (-3e5, 0.1)] {
        let mut x = noise(&[4, 40, 40, 2], 8);
        x.values.iter_mut().for_each(|value| *value = f64::from((offset + spread * *value) as f32));
        let (mean, variance) = reference::channel_moments(&x);
        let (gamma, beta) = (tensor(&noise(&[2], 1)), tensor(&noise(&[2], 2)));
        let (_, found) = batch_norm_train(&tensor(&x), &gamma, &beta, None, EPS, Epilogue::Identity).unwrap();
        assert_close("mean", &values(&found.mean), &mean.values, 1e-7);
        assert_close("variance", &values(&found.variance), &variance.values, 3e-6);
    }
}

#[test]
fn constant_channels_stay_finite() {
    let x = Tensor::full(3f32, (2, 2, 2, 2), &candle_core::Device::Cpu).unwrap();
    let (gamma, beta) = (tensor(&noise(&[2], 1)), tensor(&noise(&[2], 2)));
    let (y, statistics) = batch_norm_train(&x, &gamma, &beta, None, EPS, Epilogue::Identity).unwrap();
    assert_eq!(values(&statistics.variance), [0.0, 0.0]);
    assert_eq!(values(&y)[..2], values(&beta));
}

#[test]
fn a_nan_is_not_hidden() {
    let x = Tensor::new(&[[1f32, 2.0], [f32::NAN, 3.0]], &candle_core::Device::Cpu).unwrap();
    let (gamma, beta) = (tensor(&noise(&[2], 1)), tensor(&noise(&[2], 2)));
    let (y, statistics) = batch_norm_train(&x, &gamma, &beta, None, EPS, Epilogue::Relu).unwrap();
    let nan = |tensor: &Tensor| values(tensor).into_iter().map(f32::is_nan).collect::<Vec<_>>();
    assert_eq!(nan(&statistics.mean), [true, false]);
    assert_eq!(nan(&statistics.variance), [true, false]);
    assert_eq!(nan(&y), [true, false, true, false]);
}

#[test]
fn running_statistics_follow_pytorch() {
    let x = noise(&[4, 3], 9);
    let (mean, variance) = reference::channel_moments(&x);
    let (gamma, beta) = (tensor(&noise(&[3], 1)), tensor(&noise(&[3], 2)));
    let running = (tensor(&noise(&[3], 3)), tensor(&noise(&[3], 4)));
    let before = (values(&running.0), values(&running.1));
    let train = |momentum| {
        let moved = Running { mean: &running.0, variance: &running.1, momentum };
        batch_norm_train(&tensor(&x), &gamma, &beta, Some(moved), EPS, Epilogue::Identity)
    };
    train(0.1).unwrap();
    let blend = |before: &[f32], batch: &[f64], factor: f64| -> Vec<f64> {
        before.iter().zip(batch).map(|(&before, batch)| 0.9 * f64::from(before) + 0.1 * factor * batch).collect()
    };
    assert_close("mean", &values(&running.0), &blend(&before.0, &mean.values, 1.0), 1e-6);
    assert_close("variance", &values(&running.1), &blend(&before.1, &variance.values, 4.0 / 3.0), 1e-6);
    assert!(train(1.5).is_err());
    let short = tensor(&noise(&[2], 3));
    let moved = Running { mean: &running.0, variance: &short, momentum: 0.1 };
    let wrong = batch_norm_train(&tensor(&x), &gamma, &beta, Some(moved), EPS, Epilogue::Identity);
    assert!(wrong.unwrap_err().to_string().contains("running_variance"));
}

/// A convolution whose input is computed again gives the bits of one whose input is kept, in every gradient.
#[test]
fn what_is_computed_again_is_the_same() {
    let run = |recomputes| {
        set_recompute(recomputes);
        let var = |shape: &[usize], seed| Var::from_tensor(&tensor(&noise(shape, seed))).unwrap();
        let inputs = [var(&[3, 9, 7, 5], 1), var(&[5], 2), var(&[5], 3), var(&[6, 5, 3, 3], 4)];
        let [mean, variance] = [5, 6].map(|seed| tensor(&noise(&[5], seed)));
        let running = Running { mean: &mean, variance: &variance, momentum: 0.1 };
        let geometry = ConvGeometry { stride: [2, 1], ..ConvGeometry::same(3) };
        let [x, gamma, beta, w] = inputs.each_ref().map(|input| input.as_tensor());
        let y = norm_relu_conv2d(x, [gamma, beta], Some(running), EPS, w, &geometry).unwrap();
        set_recompute(false);
        let (shape, output) = (y.dims().to_vec(), values(&y));
        let store = backward_with(y, tensor(&noise(&shape, 7))).unwrap();
        let gradients = inputs.iter().map(|input| values(store.get(input).unwrap()));
        [output, values(&mean), values(&variance)].into_iter().chain(gradients).collect::<Vec<_>>()
    };
    let (kept, again) = (run(false), run(true));
    assert_eq!(kept.len(), 7);
    for (kept, again) in kept.iter().zip(&again) {
        assert!(kept.iter().zip(again).all(|(kept, again)| kept.to_bits() == again.to_bits()));
    }
    let (x, one) = (tensor(&noise(&[1, 1, 1, 2], 1)), tensor(&noise(&[2], 2)));
    set_recompute(true);
    let single =
        norm_relu_conv2d(&x, [&one, &one], None, EPS, &tensor(&noise(&[2, 2, 1, 1], 3)), &ConvGeometry::same(1));
    set_recompute(false);
    assert!(single.unwrap_err().to_string().contains("one value per channel"));
}

/// With gamma at 0 every normalised value equals beta = 0, where ReLU's gradient is 0.
#[test]
fn relu_has_no_gradient_at_zero() {
    let x = candle_core::Var::from_tensor(&tensor(&noise(&[2, 2, 2, 2], 1))).unwrap();
    let zeros = x.zeros_like().unwrap().narrow(0, 0, 1).unwrap().flatten_all().unwrap().narrow(0, 0, 2).unwrap();
    let gamma = candle_core::Var::from_tensor(&zeros).unwrap();
    let (y, _) = batch_norm_train(&x, &gamma, &zeros, None, EPS, Epilogue::Relu).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(values(gradients.get(&gamma).unwrap()), [0.0, 0.0]);
}

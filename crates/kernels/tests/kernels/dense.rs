//! Linear, ReLU, flattening and the losses.

use candle_core::{Device, Tensor, Var};
use taper_kernels::reference::{self, Array};
use taper_kernels::{cross_entropy, cross_entropy_soft, flatten_chw, linear, relu};

use crate::support::{assert_close, check, noise, tensor, values};

#[test]
fn linear_layers() {
    for (n, k, out) in [(1, 1, 1), (3, 5, 4), (2, 17, 33), (7, 300, 2), (33, 3, 5), (2, 1000, 3)] {
        let inputs = [noise(&[n, k], 1), noise(&[out, k], 2), noise(&[out], 3)];
        let case = format!("linear {n} {k} {out}");
        check(&case, &inputs[..2], |i| linear(&i[0], &i[1], None), |i| reference::linear(&i[0], &i[1], None));
        check(&case, &inputs, |i| linear(&i[0], &i[1], Some(&i[2])), |i| reference::linear(&i[0], &i[1], Some(&i[2])));
    }
}

#[test]
fn relu_and_its_gradient() {
    check("relu", &[noise(&[3, 5], 1)], |i| relu(&i[0]), |i| reference::relu(&i[0]));
    let x = Tensor::from_vec(vec![-1f32, -0.0, 0.0, 2.0, f32::NAN], 5, &Device::Cpu).unwrap();
    let x = Var::from_tensor(&x).unwrap();
    let y = relu(&x).unwrap();
    assert!(values(&y)[4].is_nan());
    let gradients = y.narrow(0, 0, 4).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(values(gradients.get(&x).unwrap())[..4], [0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn flattening_is_in_channel_order() {
    for shape in [[2, 3, 4, 5], [1, 1, 1, 3], [2, 2, 3, 1]] {
        check("flatten", &[noise(&shape, 1)], |i| flatten_chw(&i[0]), |i| reference::flatten_chw(&i[0]));
    }
}

fn smoothed(labels: &[u32], num_classes: usize, smoothing: f64) -> Array {
    Array::from_fn(&[labels.len(), num_classes], |at| {
        let hit = if labels[at[0]] as usize == at[1] { 1.0 - smoothing } else { 0.0 };
        hit + smoothing / num_classes as f64
    })
}

#[test]
fn cross_entropy_with_smoothing() {
    let labels = [2u32, 0, 4, 4];
    let label_tensor = Tensor::new(&labels, &Device::Cpu).unwrap();
    for smoothing in [0.0, 0.1, 0.9] {
        let targets = smoothed(&labels, 5, smoothing);
        let mut logits = noise(&[4, 5], 1);
        logits.values.iter_mut().for_each(|value| *value *= 8.0);
        check(
            &format!("smoothing {smoothing}"),
            &[logits],
            |i| cross_entropy(&i[0], &label_tensor, smoothing),
            |i| reference::cross_entropy_soft(&i[0], &targets),
        );
    }
}

#[test]
fn cross_entropy_against_distributions() {
    let mut targets = noise(&[3, 4], 2);
    targets.values.iter_mut().for_each(|value| *value = value.abs());
    let soft = tensor(&targets);
    check(
        "soft",
        &[noise(&[3, 4], 1)],
        |i| cross_entropy_soft(&i[0], &soft),
        |i| reference::cross_entropy_soft(&i[0], &targets),
    );
}

#[test]
fn large_logits_do_not_overflow() {
    let logits = Tensor::new(&[[1e4f32, -1e4, 0.0]], &Device::Cpu).unwrap();
    let loss = |label: u32| {
        let labels = Tensor::new(&[label], &Device::Cpu).unwrap();
        cross_entropy(&logits, &labels, 0.0).unwrap().to_scalar::<f32>().unwrap()
    };
    assert_close("losses", &[loss(0), loss(1), loss(2)], &[0.0, 2e4, 1e4], 1e-6);
}

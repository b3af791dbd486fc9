//! Updates that need no golden: averages, norms, strided gradients.

use candle_core::{DType, Device, Tensor, Var};
use taper_kernels::{Momentum, SgdStep, ema_step, sgd_step, sum_of_squares};

use crate::support::{assert_close, noise, tensor, values};

#[test]
fn an_average_moves_by_its_decay() {
    let (average, param) = (noise(&[3, 2], 1), noise(&[3, 2], 2));
    let variable = Var::from_tensor(&tensor(&average)).unwrap();
    ema_step(&variable, &tensor(&param), 0.75).unwrap();
    let expected: Vec<f64> =
        average.values.iter().zip(&param.values).map(|(average, param)| 0.75 * average + 0.25 * param).collect();
    assert_close("average", &values(&variable), &expected, 1e-6);
    let before = values(&variable);
    ema_step(&variable, &tensor(&param), 1.0).unwrap();
    assert_eq!(values(&variable), before);
    ema_step(&variable, &tensor(&param), 0.0).unwrap();
    assert_eq!(values(&variable), values(&tensor(&param)));
}

#[test]
fn squares_are_summed_over_chunks() {
    let array = noise(&[70_001], 3);
    let expected: f64 = array.values.iter().map(|value| value * value).sum();
    let found = sum_of_squares(&tensor(&array)).unwrap();
    assert!((found - expected).abs() < 1e-9 * expected, "{found} is not {expected}");
    let strided = tensor(&noise(&[5, 7], 4)).t().unwrap();
    assert_eq!(sum_of_squares(&strided).unwrap(), sum_of_squares(&strided.contiguous().unwrap()).unwrap());
}

#[test]
fn a_strided_gradient_is_read_as_it_looks() {
    let param = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let grad = Tensor::arange(0f32, 6f32, &Device::Cpu).unwrap().reshape((3, 2)).unwrap().t().unwrap();
    let step = SgdStep { lr: 1.0, momentum: Momentum::None, weight_decay: 0.0 };
    sgd_step(&param, &grad, &param.zeros_like().unwrap(), step).unwrap();
    assert_eq!(values(&param), [0.0, -2.0, -4.0, -1.0, -3.0, -5.0]);
}

/// The parameter of a step may be the very one the gradient came from, and large enough for several chunks.
#[test]
fn an_update_reaches_every_element() {
    let param = Var::from_tensor(&Tensor::ones(100_003, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let gradients = param.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let buffer = param.zeros_like().unwrap();
    let step = SgdStep { lr: 0.25, momentum: Momentum::Heavy { momentum: 0.9 }, weight_decay: 0.0 };
    sgd_step(&param, gradients.get(&param).unwrap(), &buffer, step).unwrap();
    assert!(values(&param).iter().all(|&value| value == 0.5));
    assert!(values(&buffer).iter().all(|&value| value == 2.0));
}

//! What ops refuse, and that the message names op, argument, finding and remedy.

use candle_core::{DType, Device, Result, Tensor, Var};
use taper_kernels::{
    AdamWStep, ConvGeometry, Epilogue, KernelError, Momentum, Padding, PoolGeometry, Rounding, SgdStep, adamw_step,
    avg_pool2d, batch_norm_eval, batch_norm_train, conv2d, cross_entropy, cross_entropy_soft, ema_step, flatten_chw,
    global_avg_pool, linear, max_pool2d, relu, sgd_step, sum_of_squares,
};

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn labels(values: &[u32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

#[track_caller]
fn refused<T>(result: Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted; expected a message with {parts:?}") };
    assert!(matches!(&error, candle_core::Error::Wrapped(_)), "not a kernel error: {error}");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    }
}

#[test]
fn convolution() {
    let (x, w) = (zeros(&[1, 4, 4, 4]), zeros(&[2, 4, 3, 3]));
    let plain = ConvGeometry::default();
    refused(conv2d(&zeros(&[4, 4, 4]), &w, None, &plain), &["conv2d", "x", "[4, 4, 4]", "[n, h, w, c_in]"]);
    refused(conv2d(&x, &zeros(&[2, 4, 3]), None, &plain), &["w", "[c_out"]);
    refused(conv2d(&x, &zeros(&[2, 3, 3, 3]), None, &plain), &["w", "[2, 3, 3, 3]", "4 channels"]);
    refused(conv2d(&x, &zeros(&[2, 4, 0, 3]), None, &plain), &["w", "[2, 4, 0, 3]"]);
    refused(conv2d(&x, &zeros(&[0, 4, 3, 3]), None, &plain), &["w", "[0, 4, 3, 3]"]);
    refused(conv2d(&x, &zeros(&[2, 4, 5, 5]), None, &plain), &["x", "5 pixels"]);
    refused(conv2d(&x, &w, Some(&zeros(&[3])), &plain), &["bias", "[3]", "[2]"]);
    refused(conv2d(&x, &w, None, &ConvGeometry { stride: [0, 1], ..plain }), &["stride", "at least 1"]);
    refused(conv2d(&x, &w, None, &ConvGeometry { dilation: [1, 0], ..plain }), &["dilation"]);
    refused(conv2d(&x, &w, None, &ConvGeometry { groups: 0, ..plain }), &["groups"]);
    refused(conv2d(&x, &w, None, &ConvGeometry { groups: 3, ..plain }), &["groups is 3", "c_in = 4"]);
    let half = x.to_dtype(DType::F64).unwrap();
    refused(conv2d(&half, &w, None, &plain), &["conv2d", "x is F64", "F32", "to_dtype"]);
    refused(conv2d(&x, &w.to_dtype(DType::BF16).unwrap(), None, &plain), &["w is BF16"]);
}

#[test]
fn batch_norm() {
    let (x, one) = (zeros(&[2, 3]), zeros(&[3]));
    let train = |x: &Tensor, gamma: &Tensor, eps, epilogue| batch_norm_train(x, gamma, &one, None, eps, epilogue);
    refused(train(&zeros(&[1, 3]), &one, 1e-5, Epilogue::Relu), &["one value per channel", "[1, 3]"]);
    refused(train(&zeros(&[0, 3]), &one, 1e-5, Epilogue::Relu), &["one value per channel"]);
    refused(train(&x, &zeros(&[2]), 1e-5, Epilogue::Relu), &["gamma", "[2]", "[3]"]);
    refused(train(&x, &one, -1.0, Epilogue::Relu), &["eps"]);
    refused(train(&x, &one, f64::NAN, Epilogue::Relu), &["eps"]);
    let shortcut = zeros(&[2, 4]);
    refused(train(&x, &one, 1e-5, Epilogue::AddRelu { shortcut: &shortcut }), &["shortcut", "[2, 4]"]);
    refused(train(&zeros(&[]), &one, 1e-5, Epilogue::Relu), &["[..., c]"]);
    let eval = batch_norm_eval(&x, &one, &one, &zeros(&[2]), &one, 1e-5, Epilogue::Relu);
    refused(eval, &["batch_norm_eval", "running_mean"]);
    assert!(batch_norm_eval(&zeros(&[1, 3]), &one, &one, &one, &one, 1e-5, Epilogue::Relu).is_ok());
}

#[test]
fn pools() {
    let x = zeros(&[1, 4, 4, 2]);
    let square = PoolGeometry::square(2);
    refused(max_pool2d(&zeros(&[4, 4]), &square), &["max_pool2d", "[n, h, w, c]"]);
    refused(max_pool2d(&x, &PoolGeometry::square(5)), &["[5, 5]"]);
    refused(max_pool2d(&x, &PoolGeometry { padding: [2, 0], ..square }), &["padding", "half"]);
    refused(max_pool2d(&x, &PoolGeometry { stride: [0, 1], ..square }), &["stride"]);
    refused(avg_pool2d(&x, &PoolGeometry::square(0), Padding::Counted), &["avg_pool2d", "kernel"]);
    let ceil = PoolGeometry { rounding: Rounding::Ceil, ..PoolGeometry::square(5) };
    refused(avg_pool2d(&x, &ceil, Padding::Counted), &["x"]);
    refused(global_avg_pool(&zeros(&[1, 0, 4, 2])), &["at least one pixel"]);
    refused(flatten_chw(&zeros(&[2, 2])), &["flatten_chw"]);
}

#[test]
fn dense_layers_and_losses() {
    refused(linear(&zeros(&[2, 3]), &zeros(&[4, 5]), None), &["linear", "w", "3 columns"]);
    refused(linear(&zeros(&[2]), &zeros(&[4, 5]), None), &["x", "[n, k]"]);
    refused(linear(&zeros(&[2, 5]), &zeros(&[4, 5]), Some(&zeros(&[5]))), &["bias"]);
    refused(relu(&zeros(&[2]).to_dtype(DType::U8).unwrap()), &["relu", "U8"]);
    let logits = zeros(&[2, 3]);
    refused(cross_entropy(&logits, &labels(&[0, 3]), 0.0), &["label 3", "row 1", "3"]);
    refused(cross_entropy(&logits, &labels(&[0]), 0.0), &["labels", "[1]", "[2]"]);
    refused(cross_entropy(&logits, &labels(&[0, 1]).to_dtype(DType::I64).unwrap(), 0.0), &["labels is I64", "U32"]);
    refused(cross_entropy(&logits, &labels(&[0, 1]), 1.0), &["smoothing", "0.0..1.0"]);
    refused(cross_entropy(&zeros(&[0, 3]), &labels(&[]), 0.0), &["logits"]);
    refused(cross_entropy_soft(&logits, &zeros(&[3, 2])), &["cross_entropy_soft", "targets"]);
}

#[test]
fn updates() {
    let sgd = SgdStep { lr: 0.1, momentum: Momentum::None, weight_decay: 0.0 };
    let dense = || Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let (param, grad, buffer) = (dense(), zeros(&[2, 3]), dense());
    refused(sgd_step(&param, &zeros(&[3, 2]), &buffer, sgd), &["sgd_step", "grad", "[3, 2]"]);
    refused(sgd_step(&param.t().unwrap(), &zeros(&[3, 2]), &zeros(&[3, 2]), sgd), &["contiguous"]);
    let adam = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 0 };
    refused(adamw_step(&param, &grad, &buffer, &zeros(&[2, 3]), adam), &["adamw_step", "step", "at least 1"]);
    refused(ema_step(&param, &grad, 1.1), &["ema_step", "decay"]);
    refused(ema_step(&param, &param, 0.5), &["ema_step", "param", "shares its memory"]);
    let heavy = SgdStep { momentum: Momentum::Heavy { momentum: 0.9 }, ..sgd };
    refused(sgd_step(&param, &grad, &param, heavy), &["sgd_step", "momentum_buffer", "shares its memory"]);
    refused(sgd_step(&param, &buffer, &buffer, heavy), &["sgd_step", "grad", "shares its memory"]);
    refused(sum_of_squares(&labels(&[1])), &["sum_of_squares", "U32"]);
}

#[test]
fn kernel_errors_can_be_matched() {
    let error = KernelError::Label { op: "cross_entropy", row: 1, label: 7, num_classes: 3 };
    assert_eq!(candle_core::Error::from(error.clone()).to_string(), error.to_string());
}

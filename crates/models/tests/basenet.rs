//! Every form of BaseNet: output shape, parameter count, a gradient for every parameter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor};
use candle_nn::{ModuleT, VarMap};
use taper_models::{BaseNet, BaseNetConfig, ModelConfig, Shortcut, seeded};

fn small() -> BaseNetConfig {
    BaseNetConfig { width: 0.0625, depths: [1, 1, 1, 1], input_size: 8, ..BaseNetConfig::default() }
}

/// Forms that differ in every axis of the configuration.
fn forms() -> Vec<BaseNetConfig> {
    vec![
        small(),
        BaseNetConfig { depths: [2, 0, 1, 0], ..small() },
        BaseNetConfig { depths: [0, 0, 0, 0], ..small() },
        BaseNetConfig { shortcut: Shortcut::ZeroPad, ..small() },
        BaseNetConfig { groups: 4, ..small() },
        BaseNetConfig { residual_scale: 1.0, width: 0.1, ..small() },
        BaseNetConfig { input_size: 9, ..small() },
    ]
}

fn images(config: &BaseNetConfig, n: usize) -> Tensor {
    let shape = (n, config.input_size, config.input_size, 3);
    let count = n * config.input_size * config.input_size * 3;
    let values: Vec<f32> = (0..count).map(|index| ((index * 37 % 101) as f32 - 50.0) / 30.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

#[test]
fn the_training_loss_takes_our_backward_pass() {
    for config in forms() {
        let vars = VarMap::new();
        let model = BaseNet::new(&config, 7, seeded(&vars, 1, &Device::Cpu)).unwrap();
        let logits = model.forward_t(&images(&config, 4), true).unwrap();
        let labels = Tensor::new(&[0u32, 3, 6, 3], &Device::Cpu).unwrap();
        let loss = taper_kernels::cross_entropy(&logits, &labels, 0.1).unwrap();
        // candle fills up the channels of this form with an op of its own.
        let expected = config.shortcut != Shortcut::ZeroPad;
        assert_eq!(taper_kernels::consists_of_own_ops(&loss), expected, "{config:?}");
        let theirs = loss.backward().unwrap();
        drop(logits);
        let ours = taper_kernels::backward(loss).unwrap();
        for (name, var) in vars.data().lock().unwrap().iter() {
            let values = |gradient: Option<&Tensor>| gradient.map(|gradient| gradient.flatten_all().unwrap());
            let values = |gradient| values(gradient).map(|gradient| gradient.to_vec1::<f32>().unwrap());
            assert_eq!(values(ours.get(var)), values(theirs.get(var)), "{config:?} {name}");
        }
    }
}

#[test]
fn shape_count_and_gradients_of_every_form() {
    for config in forms() {
        let vars = VarMap::new();
        let model = BaseNet::new(&config, 7, seeded(&vars, 1, &Device::Cpu)).unwrap();
        for train in [false, true] {
            assert_eq!(model.forward_t(&images(&config, 4), train).unwrap().dims(), [4, 7], "{config:?}");
        }
        let logits = model.forward_t(&images(&config, 4), true).unwrap();
        // Uneven weights: the sum of a batch norm's outputs does not depend on what comes before it.
        let weights = Tensor::arange(0f32, 28.0, &Device::Cpu).unwrap().sin().unwrap().reshape((4, 7)).unwrap();
        let gradients = (logits * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let mut num_values = 0;
        for (name, var) in vars.data().lock().unwrap().iter() {
            let is_buffer = name.contains("running_") || name.ends_with("num_batches_tracked");
            assert_eq!(gradients.get(var).is_none(), is_buffer, "{config:?} {name}");
            if let Some(gradient) = gradients.get(var) {
                assert_eq!(gradient.dims(), var.dims(), "{name}");
                let largest = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                // A bias before a batch norm has no effect, so its gradient is rounding.
                assert!(largest > 0.0 || name == "head.fc2.bias", "{config:?}: no gradient for {name}");
                num_values += var.elem_count();
            }
        }
        assert_eq!(ModelConfig::BaseNet(config.clone()).cost(7).num_parameters, num_values, "{config:?}");
    }
}

#[test]
fn counts_of_the_report() {
    let cost = |width| ModelConfig::BaseNet(BaseNetConfig { width, ..BaseNetConfig::default() }).cost(100);
    assert_eq!(cost(1.0).num_parameters, 27_834_150);
    assert_eq!(cost(0.125).num_parameters, 1_158_830);
    assert_eq!(cost(0.0625).num_parameters, 499_050);
    // 21.77 GMAC forward.
    assert_eq!(cost(1.0).forward_macs / 10_000_000, 2_177);
}

#[test]
fn training_moves_the_running_statistics_and_counts() {
    let (config, vars) = (small(), VarMap::new());
    let model = BaseNet::new(&config, 5, seeded(&vars, 1, &Device::Cpu)).unwrap();
    let tensor = |name: &str| vars.data().lock().unwrap()[name].as_tensor().copy().unwrap();
    model.forward_t(&images(&config, 3), false).unwrap();
    assert_eq!(tensor("stem.bn.num_batches_tracked").to_scalar::<i64>().unwrap(), 0);
    assert_eq!(tensor("stem.bn.running_mean").to_vec1::<f32>().unwrap(), [0.0; 4]);
    for _ in 0..2 {
        model.forward_t(&images(&config, 3), true).unwrap();
    }
    assert_eq!(tensor("stages.3.0.bn2.num_batches_tracked").to_scalar::<i64>().unwrap(), 2);
    assert_ne!(tensor("stem.bn.running_mean").to_vec1::<f32>().unwrap(), [0.0; 4]);
}

#[test]
fn initial_weights_are_pytorchs_uniform_by_fan_in() {
    let vars = VarMap::new();
    BaseNet::new(&small(), 5, seeded(&vars, 1, &Device::Cpu)).unwrap();
    let vars = vars.data().lock().unwrap();
    for (name, fan_in) in
        [("stages.3.0.conv2.weight", 32.0 * 9.0), ("stem.conv.weight", 27.0), ("head.fc2.weight", 50.0)]
    {
        let bound = 1.0 / f32::sqrt(fan_in);
        let largest = vars[name].abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(largest <= bound && largest > 0.9 * bound, "{name}: {largest} against {bound}");
    }
    assert_eq!(vars["stem.bn.weight"].to_vec1::<f32>().unwrap(), [1.0; 4]);
}

#[test]
fn configurations_that_cannot_be_are_named() {
    let cases = [
        (BaseNetConfig { width: 0.0, ..small() }, "model.width = 0"),
        (BaseNetConfig { width: f64::NAN, ..small() }, "model.width = NaN"),
        (BaseNetConfig { groups: 3, ..small() }, "model.groups = 3"),
        (BaseNetConfig { groups: 0, ..small() }, "model.groups = 0"),
        (BaseNetConfig { input_size: 1, ..small() }, "model.input_size = 1"),
        (BaseNetConfig { depths: [1, 1, 1, 5000], ..small() }, "model.depths = 5000"),
        (BaseNetConfig { residual_scale: f64::INFINITY, ..small() }, "model.residual_scale = inf"),
    ];
    for (config, expected) in cases {
        let Err(error) = BaseNet::new(&config, 5, seeded(&VarMap::new(), 0, &Device::Cpu)) else {
            panic!("{config:?} was built");
        };
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn images_of_another_size_are_refused_by_size() {
    let model = BaseNet::new(&small(), 5, seeded(&VarMap::new(), 0, &Device::Cpu)).unwrap();
    let images = Tensor::zeros((1, 16, 16, 3), DType::F32, &Device::Cpu).unwrap();
    let error = model.forward_t(&images, false).unwrap_err().to_string();
    assert!(error.contains("16x16") && error.contains("8x8"), "{error}");
}

#[test]
fn what_a_step_holds_at_a_time_is_counted_at_its_fullest_layer() {
    let config = BaseNetConfig { width: 0.125, depths: [1, 1, 1, 0], ..BaseNetConfig::default() };
    let cost = ModelConfig::BaseNet(config).cost(100);
    // The stem's 8 channels and blocks of 8, 16 and 32; two of them have a convolution as their shortcut.
    let kept = 2 * 8 + 4 * (8 + 16 + 32) + (16 + 32);
    // At the last block, with three outputs of its size at work: 1.5 MiB for an image. 1.51 was measured on two cores.
    assert_eq!(cost.training_values, (kept + 3 * 32) * 32 * 32);
    assert_eq!(cost.forward_values, 3 * 32 * 32 * 32);
    assert_eq!(cost.largest_weights, 50 * 32 * 16 * 16);
}

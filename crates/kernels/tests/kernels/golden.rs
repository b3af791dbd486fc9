//! The ops against PyTorch, from files written by `xtask/golden/kernels.py`.

use std::path::Path;

use candle_core::{Device, Result, Tensor, Var};
use safetensors::SafeTensors;
use serde_json::Value;
use taper_kernels::reference::Array;
use taper_kernels::{
    AdamWStep, ConvGeometry, Epilogue, Momentum, Padding, PoolGeometry, Rounding, Running, SgdStep, adamw_step,
    avg_pool2d, batch_norm_eval, batch_norm_train, conv2d, cross_entropy, cross_entropy_soft, global_avg_pool, linear,
    max_pool2d, relu, sgd_step,
};

use crate::support::{assert_close, tensor, values};

/// PyTorch computed these in f64 and rounded the result to f32; what remains is our own f32 sums
/// of at most a few hundred terms.
const TOLERANCE: f64 = 5e-6;

/// Gradients of batch norm subtract two means from the incoming gradient, which costs a digit.
const GRADIENT_TOLERANCE: f64 = 3e-5;

/// Ten optimizer steps in f32 on both sides, each rounding a few times.
const UPDATE_TOLERANCE: f64 = 2e-6;

struct Golden {
    cases: Vec<Value>,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/golden/kernels");
        let bytes = std::fs::read(root.join(name)).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        assert_eq!(metadata["script"], "xtask/golden/kernels.py");
        let cases: Vec<Value> = serde_json::from_str(&metadata["cases"]).unwrap();
        assert!(!cases.is_empty(), "{name} has no cases");
        Self { cases, bytes }
    }

    fn array(&self, case: &Value, name: &str) -> Option<Array> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(&format!("{}.{name}", case["name"].as_str().unwrap())).ok()?;
        assert_eq!(view.dtype(), safetensors::Dtype::F32);
        let element = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        Some(Array { shape: view.shape().to_vec(), values: view.data().chunks_exact(4).map(element).collect() })
    }

    fn tensor(&self, case: &Value, name: &str) -> Tensor {
        tensor(&self.array(case, name).unwrap_or_else(|| panic!("{} has no {name}", case["name"])))
    }
}

fn pair(value: &Value) -> [usize; 2] {
    [0, 1].map(|axis| value[axis].as_u64().unwrap() as usize)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Runs `op` on the case's inputs and compares the result and the gradient of each input.
fn check(golden: &Golden, case: &Value, names: &[&str], op: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let label = case["name"].as_str().unwrap();
    let present: Vec<&&str> = names.iter().filter(|name| golden.array(case, name).is_some()).collect();
    let variables: Vec<Var> =
        present.iter().map(|name| Var::from_tensor(&golden.tensor(case, name)).unwrap()).collect();
    let inputs: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let y = op(&inputs).unwrap();
    let expected = golden.array(case, "y").unwrap();
    assert_eq!(y.dims(), expected.shape, "{label}");
    assert_close(label, &values(&y), &expected.values, TOLERANCE);
    let weighted = (&y * golden.tensor(case, "dy")).unwrap();
    let gradients = weighted.sum_all().unwrap().backward().unwrap();
    for (name, variable) in present.iter().zip(&variables) {
        let expected = golden.array(case, &format!("d{name}")).unwrap();
        let found = values(gradients.get(variable).unwrap());
        assert_close(&format!("{label}: d{name}"), &found, &expected.values, GRADIENT_TOLERANCE);
    }
}

#[test]
fn convolution() {
    let golden = Golden::open("conv.safetensors");
    for case in &golden.cases {
        let geometry = ConvGeometry {
            stride: pair(&case["stride"]),
            padding: pair(&case["padding"]),
            dilation: pair(&case["dilation"]),
            groups: case["groups"].as_u64().unwrap() as usize,
        };
        check(&golden, case, &["x", "w", "b"], |i| conv2d(&i[0], &i[1], i.get(2), &geometry));
    }
}

#[test]
fn batch_norm() {
    let golden = Golden::open("batch_norm.safetensors");
    for case in &golden.cases {
        let eps = number(&case["eps"]);
        let epilogue = |inputs: &[Tensor]| -> Result<Tensor> {
            let shortcut = inputs.get(3).unwrap_or(&inputs[0]);
            let epilogue = match case["epilogue"].as_str().unwrap() {
                "identity" => Epilogue::Identity,
                "relu" => Epilogue::Relu,
                "relu_scale_add" => Epilogue::ReluScaleAdd { scale: number(&case["scale"]) as f32, shortcut },
                _ => Epilogue::AddRelu { shortcut },
            };
            let running = (golden.tensor(case, "running_mean"), golden.tensor(case, "running_var"));
            if case["mode"] == "eval" {
                let [x, gamma, beta] = [&inputs[0], &inputs[1], &inputs[2]];
                return batch_norm_eval(x, gamma, beta, &running.0, &running.1, eps, epilogue);
            }
            let moved = Running { mean: &running.0, variance: &running.1, momentum: 0.1 };
            let (y, _) = batch_norm_train(&inputs[0], &inputs[1], &inputs[2], Some(moved), eps, epilogue)?;
            for (name, tensor) in [("new_mean", &running.0), ("new_var", &running.1)] {
                assert_close(name, &values(tensor), &golden.array(case, name).unwrap().values, TOLERANCE);
            }
            Ok(y)
        };
        check(&golden, case, &["x", "gamma", "beta", "shortcut"], epilogue);
    }
}

#[test]
fn pools() {
    let golden = Golden::open("pool.safetensors");
    for case in &golden.cases {
        let flag = |name: &str| case[name].as_bool().unwrap();
        let geometry = || PoolGeometry {
            kernel: pair(&case["kernel"]),
            stride: pair(&case["stride"]),
            padding: pair(&case["padding"]),
            rounding: if flag("ceil_mode") { Rounding::Ceil } else { Rounding::Floor },
        };
        check(&golden, case, &["x"], |i| match case["op"].as_str().unwrap() {
            "max" => max_pool2d(&i[0], &geometry()),
            "global" => global_avg_pool(&i[0]),
            _ => {
                let counted = flag("count_include_pad");
                avg_pool2d(&i[0], &geometry(), if counted { Padding::Counted } else { Padding::NotCounted })
            }
        });
    }
}

#[test]
fn dense_layers_and_losses() {
    let golden = Golden::open("dense.safetensors");
    for case in &golden.cases {
        let names = ["x", "w", "b"];
        match case["op"].as_str().unwrap() {
            "linear" => check(&golden, case, &names, |i| linear(&i[0], &i[1], i.get(2))),
            "relu" => check(&golden, case, &names, |i| relu(&i[0])),
            "cross_entropy" => {
                let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
                let labels = Tensor::new(labels, &Device::Cpu).unwrap();
                check(&golden, case, &names, |i| cross_entropy(&i[0], &labels, number(&case["smoothing"])));
            }
            _ => {
                let targets = golden.tensor(case, "targets");
                check(&golden, case, &names, |i| cross_entropy_soft(&i[0], &targets));
            }
        }
    }
}

#[test]
fn updates() {
    let golden = Golden::open("update.safetensors");
    for case in &golden.cases {
        let label = case["name"].as_str().unwrap();
        let param = Var::from_tensor(&golden.tensor(case, "param")).unwrap();
        let state = [param.zeros_like().unwrap(), param.zeros_like().unwrap()];
        let (lr, weight_decay) = (number(&case["lr"]), number(&case["weight_decay"]));
        let grads = golden.tensor(case, "grads");
        let expected = golden.array(case, "params").unwrap();
        for (index, expected) in expected.values.chunks_exact(param.elem_count()).enumerate() {
            let grad = grads.get(index).unwrap();
            if label.starts_with("adamw") {
                let [beta1, beta2, eps] = ["beta1", "beta2", "eps"].map(|name| number(&case[name]));
                let step = AdamWStep { lr, beta1, beta2, eps, weight_decay, step: index + 1 };
                adamw_step(&param, &grad, &state[0], &state[1], step).unwrap();
            } else {
                let momentum = match (number(&case["momentum"]), case["nesterov"].as_bool().unwrap()) {
                    (0.0, _) => Momentum::None,
                    (momentum, true) => Momentum::Nesterov { momentum },
                    (momentum, false) => Momentum::Heavy { momentum },
                };
                sgd_step(&param, &grad, &state[0], SgdStep { lr, momentum, weight_decay }).unwrap();
            }
            assert_close(&format!("{label}, step {index}"), &values(&param), expected, UPDATE_TOLERANCE);
        }
    }
}

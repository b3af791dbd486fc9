//! BaseNet against PyTorch: the same weights and batches give the same logits, losses and counts.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says what it measured")]

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{ModuleT, VarMap};
use taper_models::{BaseNet, BaseNetConfig, ModelConfig, seeded};
use taper_optim::{Gradients, GroupRules, Optimizer, OptimizerConfig, ParameterSet, SgdConfig};
use taper_tests::{slow_test, test_data, workspace_root};
use taper_train::Weights;

/// Where `logits_before` and `logits_after` may differ, as a share of the largest logit. Both sides sum thousands of
/// products in f32 (the small golden's side in f64), in different orders.
const LOGIT_TOLERANCE: f32 = 1e-4;
/// Where a loss of the twenty steps may differ, relative.
const LOSS_TOLERANCE: f32 = 1e-3;

struct Golden {
    weights: Weights,
    config: BaseNetConfig,
    num_parameters: usize,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let weights = Weights::read(path).unwrap();
        let config: BaseNetConfig = serde_json::from_str(&weights.metadata["config"]).unwrap();
        let num_parameters = weights.metadata["num_parameters"].parse().unwrap();
        Self { weights, config, num_parameters }
    }

    fn tensor(&self, name: &str) -> &Tensor {
        &self.weights.tensors[name]
    }

    /// The first weights, as a file of their own would hold them.
    fn initial(&self) -> Weights {
        let strip =
            |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix("weights.")?.to_owned(), tensor.clone()));
        Weights { tensors: self.weights.tensors.iter().filter_map(strip).collect(), metadata: Default::default() }
    }
}

/// The largest difference as a share of the largest expected value.
fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    let largest = |tensor: Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    largest((found - expected).unwrap()) / largest(expected.clone())
}

/// Twenty steps amplify rounding, so the logits after them may differ by `trained_tolerance` of the largest.
fn check(path: &Path, trained_tolerance: f32) {
    let golden = Golden::read(path);
    let num_classes = golden.tensor("logits_before").dim(1).unwrap();
    let vars = VarMap::new();
    let model = BaseNet::new(&golden.config, num_classes, seeded(&vars, 0, &Device::Cpu)).unwrap();
    golden.initial().restore(&vars, path).unwrap();
    let counted = ModelConfig::BaseNet(golden.config.clone()).cost(num_classes).num_parameters;
    assert_eq!(counted, golden.num_parameters, "parameters");

    let images = golden.tensor("images");
    let before = model.forward_t(&images.get(0).unwrap(), false).unwrap();
    let logits = difference(&before, golden.tensor("logits_before"));
    let losses = train(&golden, &model, &vars);
    let expected = golden.tensor("losses").to_vec1::<f32>().unwrap();
    let worst = losses.iter().zip(&expected).map(|(ours, theirs)| (ours - theirs).abs() / theirs).fold(0.0, f32::max);
    let after = model.forward_t(&images.get(0).unwrap(), false).unwrap();
    let trained = difference(&after, golden.tensor("logits_after"));
    eprintln!(
        "{}: {counted} parameters; logits differ by {logits:.2e} of the largest; losses of {} steps by {worst:.2e}; logits after them by {trained:.2e}",
        path.display(),
        losses.len()
    );
    assert!(logits <= LOGIT_TOLERANCE, "logits differ by {logits}");
    assert!(worst <= LOSS_TOLERANCE, "losses {losses:?} instead of {expected:?}");
    assert!(trained <= trained_tolerance, "logits after training differ by {trained}");
}

/// Twenty steps with the golden script's optimizer.
fn train(golden: &Golden, model: &BaseNet, vars: &VarMap) -> Vec<f32> {
    let config = SgdConfig { lr: 0.05, nesterov: true, weight_decay: 5e-4, ..SgdConfig::default() };
    let config = OptimizerConfig::Sgd(config);
    let parameters = ParameterSet::new(vars, &GroupRules::new(&config)).unwrap();
    let mut optimizer = Optimizer::new(&config, parameters).unwrap();
    let (images, labels) = (golden.tensor("images"), golden.tensor("labels"));
    let step = |index: usize| {
        let logits = model.forward_t(&images.get(index).unwrap(), true).unwrap();
        let labels = labels.get(index).unwrap().to_dtype(DType::U32).unwrap();
        let loss = taper_kernels::cross_entropy(&logits, &labels, 0.0).unwrap();
        let gradients = Gradients::take(optimizer.parameters(), &loss.backward().unwrap()).unwrap();
        optimizer.step(&gradients, 0.05).unwrap();
        loss.to_scalar().unwrap()
    };
    (0..images.dim(0).unwrap()).map(step).collect()
}

#[test]
fn small_basenet_follows_pytorch() {
    check(&workspace_root().join("data/golden/basenet/small.safetensors"), 1e-3);
}

/// The golden of the full network is too large to commit; `xtask/golden/basenet.py --full` makes it.
#[test]
fn full_basenet_follows_pytorch() {
    if !slow_test("full_basenet_follows_pytorch") {
        return;
    }
    let Some(data) = test_data() else { return };
    let path = data.join("golden/basenet-full.safetensors");
    if path.is_file() {
        // PyTorch with and without oneDNN, both in f32, differ by 1.2e-2 here.
        check(&path, 0.2);
    } else {
        eprintln!("passed over: there is no {}", path.display());
    }
}

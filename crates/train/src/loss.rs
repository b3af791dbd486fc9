//! What a step makes small.

use candle_core::{Device, Tensor};

use crate::TrainError;

/// How much an image of each class counts in the loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ClassWeights {
    /// All the same.
    #[default]
    Equal,
    /// One weight per class, above 0; only their proportions matter.
    PerClass(Vec<f32>),
}

impl ClassWeights {
    /// Weights under which every class counts the same in all, however many images it has: `n / (classes · n_class)`
    /// (King and Zeng 2001; scikit-learn's `balanced`).
    ///
    /// # Errors
    /// [`TrainError::EmptyClass`] for a class without images.
    pub fn balanced(images_per_class: &[usize]) -> Result<Self, TrainError> {
        if let Some(class_index) = images_per_class.iter().position(|count| *count == 0) {
            return Err(TrainError::EmptyClass { class_index });
        }
        let mean = images_per_class.iter().sum::<usize>() as f64 / images_per_class.len() as f64;
        Ok(Self::PerClass(images_per_class.iter().map(|count| (mean / *count as f64) as f32).collect()))
    }

    /// Finds weights for another number of classes.
    ///
    /// # Errors
    /// [`TrainError::ClassWeights`] with both numbers.
    pub fn require_classes(&self, num_classes: usize) -> Result<(), TrainError> {
        match self {
            Self::PerClass(weights) if weights.len() != num_classes => {
                Err(TrainError::ClassWeights { num_weights: weights.len(), num_classes })
            }
            _ => Ok(()),
        }
    }

    /// Finds weights that cannot be.
    ///
    /// # Errors
    /// A weight that is not above 0.
    pub fn validate(&self) -> Result<(), TrainError> {
        let Self::PerClass(weights) = self else { return Ok(()) };
        match weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            Some(weight) => Err(TrainError::Config {
                key: "train.class_weights",
                value: f64::from(*weight),
                reason: "every weight must be above 0",
            }),
            None => Ok(()),
        }
    }
}

/// Mean cross-entropy of a batch with label smoothing and class weights, in nats.
///
/// As PyTorch's `CrossEntropyLoss(weight, label_smoothing)`: with weights w and smoothing ε, an image of class y
/// adds `(1 - ε)·w[y]` to the target of its class and `ε/K·w[c]` to that of each class c, and the sum over the batch is
/// divided by the sum of all `w[y]`.
///
/// # Shapes
/// `logits` `[n, K]` f32 · `labels` `[n]` · returns a scalar.
///
/// # Errors
/// A label ≥ K, or another number of weights than K.
pub(crate) fn cross_entropy(
    logits: &Tensor,
    labels: &[u32],
    label_smoothing: f64,
    weights: &ClassWeights,
) -> Result<Tensor, TrainError> {
    match weights {
        ClassWeights::Equal => {
            let labels = Tensor::new(labels, logits.device())?;
            Ok(taper_kernels::cross_entropy(logits, &labels, label_smoothing)?)
        }
        ClassWeights::PerClass(weights) => {
            let targets = weighted_targets(labels, label_smoothing, weights, logits.dim(1)?, logits.device())?;
            Ok(taper_kernels::cross_entropy_soft(logits, &targets)?)
        }
    }
}

/// `[n, K]`: what the mean over the rows must weigh each log-probability with.
fn weighted_targets(
    labels: &[u32],
    label_smoothing: f64,
    weights: &[f32],
    num_classes: usize,
    device: &Device,
) -> Result<Tensor, TrainError> {
    if weights.len() != num_classes {
        return Err(TrainError::ClassWeights { num_weights: weights.len(), num_classes });
    }
    let of_label = |label: &u32| match weights.get(*label as usize) {
        Some(weight) => Ok(f64::from(*weight)),
        None => Err(candle_core::Error::Msg(format!("label {label} of {num_classes} classes"))),
    };
    let sum = labels.iter().map(of_label).sum::<Result<f64, _>>()?;
    let scale = labels.len() as f64 / sum;
    let mut targets = Vec::with_capacity(labels.len() * num_classes);
    for label in labels {
        targets.extend(weights.iter().enumerate().map(|(class, weight)| {
            let hit = if *label as usize == class { 1.0 - label_smoothing } else { 0.0 };
            (scale * f64::from(*weight) * (hit + label_smoothing / num_classes as f64)) as f32
        }));
    }
    Ok(Tensor::from_vec(targets, (labels.len(), num_classes), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn assert_near(found: &[f32], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            // Targets and results are rounded to f32 once each; PyTorch's are f64.
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{what}: {found} instead of {expected}");
        }
    }

    /// Logits, labels, weights and smoothing with PyTorch's loss and gradient.
    #[derive(serde::Deserialize)]
    struct Case {
        logits: Vec<Vec<f32>>,
        labels: Vec<u32>,
        weights: Vec<f32>,
        label_smoothing: f64,
        loss: f64,
        gradient: Vec<f64>,
    }

    #[test]
    fn loss_and_gradient_are_pytorchs() {
        let text = include_str!("../../../data/golden/train/class_weights.json");
        let golden: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases: Vec<Case> = serde_json::from_value(golden["cases"].clone()).unwrap();
        assert!(cases.len() >= 6);
        for case in cases {
            let what = format!("weights {:?}, smoothing {}", case.weights, case.label_smoothing);
            let rows: Vec<f32> = case.logits.iter().flatten().copied().collect();
            let shape = (case.logits.len(), case.weights.len());
            let logits = Var::from_tensor(&Tensor::from_vec(rows, shape, &Device::Cpu).unwrap()).unwrap();
            let weights = ClassWeights::PerClass(case.weights);
            let loss = cross_entropy(&logits, &case.labels, case.label_smoothing, &weights).unwrap();
            assert_near(&[loss.to_scalar().unwrap()], &[case.loss], &what);
            assert_near(&values(loss.backward().unwrap().get(&logits).unwrap()), &case.gradient, &what);
        }
    }

    #[test]
    fn equal_weights_are_no_weights() {
        let logits = Tensor::new(&[[1f32, -2.0, 0.5], [0.0, 3.0, 1.0]], &Device::Cpu).unwrap();
        for smoothing in [0.0, 0.2] {
            let plain = cross_entropy(&logits, &[2, 0], smoothing, &ClassWeights::Equal).unwrap();
            let weighted = cross_entropy(&logits, &[2, 0], smoothing, &ClassWeights::PerClass(vec![7.0; 3])).unwrap();
            assert_near(&values(&weighted), &[f64::from(values(&plain)[0])], "7");
        }
    }

    #[test]
    fn balanced_weights_even_the_classes_out() {
        let ClassWeights::PerClass(weights) = ClassWeights::balanced(&[30, 10, 20]).unwrap() else { unreachable!() };
        assert_near(&weights, &[20.0 / 30.0, 2.0, 1.0], "balanced");
        let error = ClassWeights::balanced(&[3, 0]).unwrap_err();
        assert!(matches!(error, TrainError::EmptyClass { class_index: 1 }), "{error}");
    }

    #[test]
    fn wrong_weights_and_labels_are_named() {
        let logits = Tensor::zeros((1, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = |labels: &[u32], weights: Vec<f32>| {
            cross_entropy(&logits, labels, 0.0, &ClassWeights::PerClass(weights)).unwrap_err().to_string()
        };
        assert!(error(&[0], vec![1.0; 2]).contains("2 weights for 3 classes"));
        assert!(error(&[3], vec![1.0; 3]).contains("label 3 of 3 classes"));
        for weight in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(ClassWeights::PerClass(vec![1.0, weight]).validate().is_err(), "{weight}");
        }
    }
}

//! Cross-entropy, from logits to one number, and back.

use candle_core::{DType, Result, Tensor};

use crate::error::KernelError;
use crate::graph::{Gradient, Operation, attach, wanted};
use crate::storage::{option_error, require, require_f32, require_float, require_shape, shape_error, tensor, view};

const HARD: &str = "cross_entropy";
const SOFT: &str = "cross_entropy_soft";

/// Mean cross-entropy of a batch with label smoothing (Szegedy et al. 2016, §7), in nats.
///
/// The target of a row is `1 − smoothing` on its label plus `smoothing / num_classes` everywhere.
///
/// # Shapes
/// `logits` `[n, num_classes]` f32 · `labels` `[n]` u32 · returns a scalar.
///
/// # Errors
/// An empty batch, `smoothing` outside `0.0..1.0`, a label ≥ `num_classes`, other shapes, types or devices.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    let (rows, num_classes) = check_logits(HARD, logits)?;
    require(HARD, "labels", labels, DType::U32)?;
    require_shape(HARD, "labels", labels, &[rows], "one label per row of the logits")?;
    if !(0.0..1.0).contains(&smoothing) {
        return Err(option_error(HARD, "smoothing", smoothing, "0.0..1.0"));
    }
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        let goal = crate::cuda::Goal::Labels(labels.contiguous()?, smoothing as f32);
        return crate::cuda::cross_entropy(HARD, logits, goal);
    }
    let labels = labels.to_vec1::<u32>()?;
    for (row, &label) in labels.iter().enumerate() {
        if label as usize >= num_classes {
            return Err(KernelError::Label { op: HARD, row, label, num_classes }.into());
        }
    }
    let targets = Targets::Labels { labels, smoothing };
    CrossEntropy { name: HARD, num_classes, targets }.apply(logits)
}

/// Mean cross-entropy against a distribution per row, in nats; the targets get no gradient.
///
/// # Shapes
/// `logits`, `targets` `[n, num_classes]` f32 · returns a scalar.
///
/// # Errors
/// An empty batch, other shapes, types or devices.
pub fn cross_entropy_soft(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let (_, num_classes) = check_logits(SOFT, logits)?;
    require_f32(SOFT, "targets", targets)?;
    require_shape(SOFT, "targets", targets, logits.dims(), "the shape of the logits")?;
    #[cfg(feature = "cuda")]
    if logits.device().is_cuda() {
        let goal = crate::cuda::Goal::Distributions(targets.detach().contiguous()?);
        return crate::cuda::cross_entropy(SOFT, logits, goal);
    }
    let targets = Targets::Soft(targets.detach().flatten_all()?.to_vec1()?);
    CrossEntropy { name: SOFT, num_classes, targets }.apply(logits)
}

fn check_logits(op: &'static str, logits: &Tensor) -> Result<(usize, usize)> {
    require_float(op, "logits", logits)?;
    match *logits.dims() {
        [rows, num_classes] if rows > 0 && num_classes > 0 => Ok((rows, num_classes)),
        _ => Err(shape_error(op, "logits", logits, "[n, num_classes], neither of them 0".into())),
    }
}

enum Targets {
    Labels { labels: Vec<u32>, smoothing: f64 },
    Soft(Vec<f32>),
}

struct CrossEntropy {
    name: &'static str,
    num_classes: usize,
    targets: Targets,
}

impl CrossEntropy {
    fn apply(self, logits: &Tensor) -> Result<Tensor> {
        let logits = logits.contiguous()?;
        let loss = self.loss(&view(self.name, "logits", &logits)?);
        attach(self, &[&logits], vec![loss as f32], ())
    }

    /// Target of one class in one row.
    fn target(&self, row: usize, class: usize) -> f64 {
        match &self.targets {
            Targets::Soft(targets) => f64::from(targets[row * self.num_classes + class]),
            Targets::Labels { labels, smoothing } => {
                let hit = if labels[row] as usize == class { 1.0 - smoothing } else { 0.0 };
                hit + smoothing / self.num_classes as f64
            }
        }
    }

    fn loss(&self, logits: &[f32]) -> f64 {
        let rows = logits.chunks_exact(self.num_classes).enumerate();
        let total: f64 = rows
            .map(|(row, logits)| {
                let normaliser = log_sum_exp(logits);
                let classes = logits.iter().enumerate();
                let terms = classes.map(|(class, &logit)| match self.target(row, class) {
                    // 0 · ∞ would be NaN; a class without weight does not take part.
                    0.0 => 0.0,
                    target => target * (normaliser - f64::from(logit)),
                });
                terms.sum::<f64>()
            })
            .sum();
        total / (logits.len() / self.num_classes) as f64
    }

    fn gradient(&self, logits: &[f32], upstream: f64) -> Vec<f32> {
        let scale = upstream / (logits.len() / self.num_classes) as f64;
        let mut gradient = Vec::with_capacity(logits.len());
        for (row, logits) in logits.chunks_exact(self.num_classes).enumerate() {
            let normaliser = log_sum_exp(logits);
            let mass: f64 = (0..self.num_classes).map(|class| self.target(row, class)).sum();
            gradient.extend(logits.iter().enumerate().map(|(class, &logit)| {
                let probability = (f64::from(logit) - normaliser).exp();
                (scale * (probability * mass - self.target(row, class))) as f32
            }));
        }
        gradient
    }
}

/// `log Σ exp(logit)`, shifted by the largest logit so that nothing overflows.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    largest + sum.ln()
}

impl Operation for CrossEntropy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn backward(&self, inputs: &[Tensor], _loss: &Tensor, upstream: &Gradient) -> Result<Vec<Option<Gradient>>> {
        let logits = &inputs[0];
        let gradient = wanted(logits, || {
            let upstream = f64::from(upstream.tensor().to_scalar::<f32>()?);
            tensor(self.gradient(&view(self.name, "logits", logits)?, upstream), logits.shape())
        })?;
        Ok(vec![gradient])
    }
}

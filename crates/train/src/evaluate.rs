//! One pass without learning.

use candle_nn::ModuleT;
use taper_data::{BadSample, Order};
use taper_metrics::{Confusion, Tally, softmax};

use crate::step::rows;
use crate::{Source, TrainError};

/// What an evaluation found. Every image of the loader is either in `tally` or in `bad`.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Sums of loss (nats, without label smoothing), top-1 and top-5.
    pub tally: Tally,
    /// True classes against predicted ones.
    pub confusion: Confusion,
    /// Images that could not be read.
    pub bad: Vec<BadSample>,
}

/// One image as the model saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluatedImage<'a> {
    /// Position in the data set.
    pub index: usize,
    /// True class.
    pub label: u32,
    /// Values before softmax, one per class.
    pub logits: &'a [f32],
}

/// Runs the model in evaluation mode over all batches of `source`, in order, and shows each image to `visit`. `stop` is
/// asked before each batch; nothing is returned once it has said `true`.
///
/// # Errors
/// An image that cannot be read where its loader is told to fail on it; inputs that the model does not take.
pub fn evaluate(
    model: &dyn ModuleT,
    source: &dyn Source,
    stop: &dyn Fn() -> bool,
    mut visit: impl FnMut(EvaluatedImage<'_>),
) -> Result<Option<Evaluation>, TrainError> {
    let confusion = Confusion::new(source.num_classes());
    let mut found = Evaluation { tally: Tally::default(), confusion, bad: Vec::new() };
    for batch in source.epoch_from(Order::Sequential, 0) {
        if stop() {
            return Ok(None);
        }
        let batch = batch?;
        found.bad.extend_from_slice(&batch.bad);
        if batch.labels.is_empty() {
            continue;
        }
        let logits = rows(&taper_kernels::without_history(|| model.forward_t(&batch.inputs, false))?)?;
        for ((logits, label), index) in logits.iter().zip(&batch.labels).zip(&batch.indices) {
            found.tally.add(logits, *label as usize, nats(logits, *label as usize));
            found.confusion.add(*label as usize, taper_metrics::argmax(logits));
            visit(EvaluatedImage { index: *index, label: *label, logits });
        }
    }
    Ok(Some(found))
}

/// Cross-entropy of one image.
fn nats(logits: &[f32], label: usize) -> f64 {
    // A probability that underflows would give an infinite loss; the smallest f64 gives 708 nats.
    -softmax(logits).get(label).map_or(f64::NAN, |probability| probability.max(f64::MIN_POSITIVE).ln())
}

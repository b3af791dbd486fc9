//! The loop over a stranger's model: a plain candle module that none of our crates knows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Linear, Module, ModuleT, VarBuilder, VarMap};
use taper_data::{ArrayDataset, ChannelStats, Compose, LastBatch, Loader, OnBad};
use taper_metrics::{EpochRecord, Kept, RecordSink, SinkError, StepRecord};
use taper_optim::{Ema, GroupRules, Optimizer, OptimizerConfig, ParameterSet, Schedule, ScheduleConfig, SgdConfig};
use taper_train::{
    Checkpoint, CheckpointConfig, ClassWeights, Fit, FitConfig, ImageInput, Images, OnNonfinite, Outcome, Progress,
    RunFolder, TrainError, Weights,
};

/// One linear layer on the pixels.
struct Softmax(Linear);

impl ModuleT for Softmax {
    fn forward_t(&self, images: &Tensor, _: bool) -> Result<Tensor> {
        self.0.forward(&images.flatten_from(1)?)
    }
}

fn softmax(vars: &VarMap) -> Softmax {
    let vb = VarBuilder::from_varmap(vars, DType::F32, &Device::Cpu);
    let zeros = |shape: &[usize], name| vb.get_with_hints(shape, name, candle_nn::init::ZERO).unwrap();
    Softmax(Linear::new(zeros(&[2, 12], "weight"), Some(zeros(&[2], "bias"))))
}

fn images(batch_size: usize) -> Images {
    let stats = ChannelStats { mean: [0.5; 3], std: [0.25; 3] };
    Images { loader: loader(batch_size), input: ImageInput { stats, device: Device::Cpu, dtype: DType::F32 } }
}

/// Forty 2×2 images: class 0 dark, class 1 bright.
fn loader(batch_size: usize) -> Loader {
    let labels: Vec<u32> = (0..40).map(|index| index % 2).collect();
    let pixels = (0..40).flat_map(|index: u8| [100 + 50 * (index % 2) + index; 12]).collect();
    let names = (0..40).map(|index| index.to_string()).collect();
    let classes = vec!["dark".to_owned(), "bright".to_owned()];
    Loader {
        dataset: Arc::new(ArrayDataset::new([2, 2], pixels, labels, names, classes).unwrap()),
        indices: (0..40).collect(),
        transform: Compose(vec![]),
        batch_size,
        workers: 0,
        prefetch: 1,
        last: LastBatch::Drop,
        bad: OnBad::Fail,
        seed: 0,
    }
}

fn settings() -> FitConfig {
    FitConfig {
        epochs: 3,
        max_steps: None,
        accumulate: 1,
        seed: 0,
        label_smoothing: 0.1,
        class_weights: ClassWeights::Equal,
        clip_norm: Some(1.0),
        patience: None,
        on_nonfinite: OnNonfinite::Stop,
        log_every_steps: 2,
        checkpoint: CheckpointConfig { every_steps: Some(3), every_minutes: None, keep_last: 9 },
    }
}

/// Keeps records in memory.
#[derive(Clone, Default)]
struct Records {
    steps: Vec<StepRecord>,
    epochs: Vec<EpochRecord>,
}

impl RecordSink for Records {
    fn step(&mut self, record: &StepRecord) -> std::result::Result<(), SinkError> {
        self.steps.push(record.clone());
        Ok(())
    }

    fn epoch(&mut self, record: &EpochRecord) -> std::result::Result<(), SinkError> {
        self.epochs.push(record.clone());
        Ok(())
    }

    fn flush(&mut self) -> std::result::Result<(), SinkError> {
        Ok(())
    }

    fn rewind(&mut self, kept: Kept) -> std::result::Result<(), SinkError> {
        self.steps.retain(|record| record.step <= kept.steps);
        self.epochs.retain(|record| record.epoch < kept.epochs);
        Ok(())
    }
}

/// What a test looks at after a run.
struct Ran {
    outcome: std::result::Result<Outcome, TrainError>,
    progress: Progress,
    weight: Vec<f32>,
    kept: Records,
}

/// Trains in `folder`, from its newest checkpoint on, until it has been asked `stop_at` times whether to stop.
fn train(folder: &Path, config: &FitConfig, batch_size: usize, lr: f64, stop_at: u64) -> Ran {
    train_on(Records::default(), folder, config, batch_size, lr, stop_at)
}

/// As [`train`], with the records of the processes before.
fn train_on(mut kept: Records, folder: &Path, config: &FitConfig, batch_size: usize, lr: f64, stop_at: u64) -> Ran {
    let vars = VarMap::new();
    let model = softmax(&vars);
    let images = images(batch_size);
    let sgd = OptimizerConfig::Sgd(SgdConfig { lr, ..SgdConfig::default() });
    let parameters = ParameterSet::new(&vars, &GroupRules::new(&sgd)).unwrap();
    let num_steps = Fit::num_steps(&images, config).unwrap();
    let folder = RunFolder::new(folder, Default::default());
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() >= stop_at
    };
    let mut fit = Fit {
        model: &model,
        vars: &vars,
        train: &images,
        val: &images,
        ema: Some(Ema::new(0.9, &parameters).unwrap()),
        optimizer: Optimizer::new(&sgd, parameters).unwrap(),
        schedule: Schedule::new(ScheduleConfig::by_name("cosine").unwrap(), lr, num_steps, 5).unwrap(),
        config,
        folder: &folder,
        sink: &mut kept,
        stop: &stop,
        progress: Progress::default(),
    };
    if let Some(checkpoint) = Checkpoint::latest(&folder.checkpoints()).unwrap() {
        fit.restore(&checkpoint).unwrap();
    }
    let outcome = fit.run();
    let progress = fit.progress.clone();
    let weight = vars.data().lock().unwrap()["weight"].flatten_all().unwrap().to_vec1().unwrap();
    Ran { outcome, progress, weight, kept }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn it_learns_and_writes_what_it_promises() {
    let folder = folder();
    let ran = train(folder.path(), &settings(), 8, 0.5, u64::MAX);
    assert_eq!(ran.outcome.unwrap(), Outcome::Complete);
    assert_eq!((ran.progress.step, ran.progress.epoch), (15, 3));
    let steps: Vec<u64> = ran.kept.steps.iter().map(|record| record.step).collect();
    assert_eq!(steps, [2, 4, 6, 8, 10, 12, 14]);
    assert_eq!(ran.kept.epochs.len(), 3);
    assert!(ran.kept.epochs[2].val_top1 > 0.9, "{:?}", ran.kept.epochs);
    let last = Weights::read(&folder.path().join("last.safetensors")).unwrap();
    assert_eq!(last.tensors["weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap(), ran.weight);
    assert!(folder.path().join("model.safetensors").is_file());
}

/// Times that an epoch of five steps asks: after all steps but the last, before the five batches of its evaluation, at
/// its end.
const ASKED_IN_AN_EPOCH: u64 = 4 + 5 + 1;

/// Position and losses of each record: what does not depend on the clock.
fn timeless(records: &Records) -> Vec<(u64, f64, Option<f64>)> {
    let steps = records.steps.iter().map(|record| (record.step, record.loss, None));
    let epochs = records.epochs.iter().map(|record| (record.step, record.train_loss, Some(record.val_loss)));
    steps.chain(epochs).collect()
}

#[test]
fn a_stop_anywhere_changes_nothing_in_the_end() {
    let whole = train(folder().path(), &settings(), 8, 0.5, u64::MAX);
    for stop_at in 1..3 * ASKED_IN_AN_EPOCH {
        let folder = folder();
        let first = train(folder.path(), &settings(), 8, 0.5, stop_at);
        assert_eq!(first.outcome.unwrap(), Outcome::Stopped, "{stop_at}");
        let num_evaluated = stop_at / ASKED_IN_AN_EPOCH;
        assert_eq!(first.kept.epochs.len() as u64, num_evaluated, "{stop_at}: an evaluation is whole or not at all");
        assert_eq!(folder.path().join("model.safetensors").exists(), num_evaluated > 0, "{stop_at}");
        let second = train_on(first.kept, folder.path(), &settings(), 8, 0.5, u64::MAX);
        assert_eq!(second.outcome.unwrap(), Outcome::Complete);
        assert_eq!(second.weight, whole.weight, "stopped at {stop_at}");
        assert_eq!(second.progress.best, whole.progress.best, "stopped at {stop_at}");
        assert_eq!(timeless(&second.kept), timeless(&whole.kept), "stopped at {stop_at}");
    }
}

#[test]
fn a_record_of_an_evaluation_that_no_checkpoint_knows_is_made_once() {
    let whole = train(folder().path(), &settings(), 8, 0.5, u64::MAX);
    let folder = folder();
    // In the middle of the second evaluation; then as if the process had died between its record and its checkpoint.
    let mut first = train(folder.path(), &settings(), 8, 0.5, ASKED_IN_AN_EPOCH + 7);
    assert_eq!((first.outcome.unwrap(), first.progress.step, first.progress.epoch), (Outcome::Stopped, 10, 1));
    first.kept.epochs.push(whole.kept.epochs[1].clone());
    let second = train_on(first.kept, folder.path(), &settings(), 8, 0.5, u64::MAX);
    assert_eq!(timeless(&second.kept), timeless(&whole.kept));
}

#[test]
fn accumulated_batches_make_one_step_of_their_mean() {
    let config = FitConfig { max_steps: Some(1), clip_norm: None, ..settings() };
    let large = train(folder().path(), &config, 16, 0.1, u64::MAX);
    let parts = train(folder().path(), &FitConfig { accumulate: 4, ..config }, 4, 0.1, u64::MAX);
    for (one, other) in large.weight.iter().zip(&parts.weight) {
        assert!((one - other).abs() < 1e-6, "{one} {other}");
    }
    assert_eq!(parts.progress.step, 1);
}

#[test]
fn patience_ends_a_run_that_does_not_improve() {
    // A rate this small leaves the first evaluation's top-1 as it is.
    let config = FitConfig { epochs: 50, patience: Some(2), ..settings() };
    let ran = train(folder().path(), &config, 8, 1e-30, u64::MAX);
    assert_eq!(ran.outcome.unwrap(), Outcome::Complete);
    assert_eq!(ran.kept.epochs.len(), 3);
}

#[test]
fn divergence_stops_before_the_weights_are_spoiled() {
    let folder = folder();
    let ran = train(folder.path(), &FitConfig { clip_norm: None, ..settings() }, 8, 1e38, u64::MAX);
    let error = ran.outcome.unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert!(!folder.path().join("last.safetensors").exists());
}

#[test]
fn a_batch_larger_than_the_data_is_named() {
    let error = Fit::num_steps(&images(64), &settings()).unwrap_err().to_string();
    assert!(error.contains("40 training images") && error.contains("train.batch_size"), "{error}");
}

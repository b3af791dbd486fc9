//! The configuration of a training run: what `config.toml` holds.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use taper_data::{Compose, DataSpec, LabelKind, LastBatch, PadMode, Transform};
use taper_models::ModelConfig;
use taper_optim::{OptimizerConfig, ScheduleConfig};
use taper_report::LossScale;
use taper_train::{CheckpointConfig, FitConfig};

use crate::exit::{bad_input, usage};

/// Every value a run depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunConfig {
    pub(crate) data: DataSection,
    pub(crate) augment: AugmentSection,
    pub(crate) model: ModelConfig,
    pub(crate) train: TrainSection,
    pub(crate) optim: OptimizerConfig,
    pub(crate) schedule: ScheduleConfig,
    pub(crate) checkpoint: CheckpointConfig,
    pub(crate) log: LogSection,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataSection {
    pub(crate) location: String,
    pub(crate) labels: LabelKind,
    /// Share of the training images that becomes val where the data have none.
    pub(crate) val_fraction: f64,
    pub(crate) workers: usize,
    pub(crate) prefetch: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AugmentSection {
    /// Pixels added around an image before a random crop of its own size; 0 for none.
    pub(crate) crop_padding: usize,
    pub(crate) pad_mode: PadMode,
    /// Probability of a horizontal flip.
    pub(crate) flip: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainSection {
    pub(crate) epochs: usize,
    pub(crate) max_steps: Option<u64>,
    pub(crate) batch_size: usize,
    pub(crate) accumulate: usize,
    pub(crate) seed: u64,
    pub(crate) label_smoothing: f64,
    pub(crate) clip_norm: Option<f64>,
    pub(crate) ema_decay: Option<f64>,
    pub(crate) patience: Option<usize>,
    pub(crate) drop_last: bool,
    pub(crate) dtype: String,
    pub(crate) device: String,
    /// Instructions of the CPU kernels: `auto`, `amx-short`, `amx`, `avx512`, `avx2` or `portable`.
    pub(crate) cpu_path: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSection {
    pub(crate) every_steps: u64,
    pub(crate) loss: LossScale,
}

impl RunConfig {
    /// What a run wrote down.
    pub(crate) fn of_run(run: &Path) -> Result<Self> {
        let path = run.join("config.toml");
        let read = std::fs::read_to_string(&path);
        let text = read.map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
        toml::from_str(&text).map_err(|error| bad_input(format!("{} cannot be understood: {error}", path.display())))
    }

    /// Finds every mistake that can be found without the data.
    pub(crate) fn validate(&self) -> Result<()> {
        self.fit().validate()?;
        self.model.validate()?;
        self.optim.validate()?;
        self.schedule.validate()?;
        crate::device::check_dtype(&self.train.dtype)?;
        crate::device::cpu_path(&self.train.cpu_path)?;
        if self.train.batch_size == 0 {
            return Err(usage("train.batch_size = 0: must be at least 1"));
        }
        if !(self.data.val_fraction > 0.0 && self.data.val_fraction < 1.0) {
            return Err(usage(format!("data.val_fraction = {}: must be above 0 and below 1", self.data.val_fraction)));
        }
        if !(0.0..=1.0).contains(&self.augment.flip) {
            return Err(usage(format!("augment.flip = {}: must be at least 0 and at most 1", self.augment.flip)));
        }
        if self.train.ema_decay.is_some_and(|decay| !(0.0..1.0).contains(&decay)) {
            return Err(usage("train.ema_decay: must be at least 0 and below 1"));
        }
        Ok(())
    }

    /// The loop's part.
    pub(crate) fn fit(&self) -> FitConfig {
        FitConfig {
            epochs: self.train.epochs,
            max_steps: self.train.max_steps,
            accumulate: self.train.accumulate,
            seed: self.train.seed,
            label_smoothing: self.train.label_smoothing,
            clip_norm: self.train.clip_norm,
            patience: self.train.patience,
            log_every_steps: self.log.every_steps,
            checkpoint: self.checkpoint.clone(),
        }
    }

    pub(crate) fn data_spec(&self) -> DataSpec {
        DataSpec { location: self.data.location.clone(), labels: self.data.labels }
    }

    pub(crate) fn last_batch(&self) -> LastBatch {
        if self.train.drop_last { LastBatch::Drop } else { LastBatch::Keep }
    }

    /// What is done to a training image: to the model's size first, then the random part.
    pub(crate) fn train_transform(&self, eval: Compose) -> Compose {
        let mut transforms = eval.0;
        if self.augment.crop_padding > 0 {
            let (padding, mode) = (self.augment.crop_padding, self.augment.pad_mode);
            transforms.push(Transform::RandomCrop { size: self.model.input_size(), padding, mode });
        }
        if self.augment.flip > 0.0 {
            transforms.push(Transform::HorizontalFlip { probability: self.augment.flip });
        }
        Compose(transforms)
    }
}

//! The configuration of a training run: what `config.toml` holds.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use taper_data::{Compose, DataSpec, LabelKind, LastBatch, PadMode, Transform};
use taper_models::{Freeze, ModelConfig};
use taper_optim::{OptimizerConfig, ScheduleConfig};
use taper_report::LossScale;
use taper_train::{CheckpointConfig, ClassWeights, FitConfig};

use crate::exit::{bad_input, usage};
use crate::nearest::did_you_mean;

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
    /// Whose mean and standard deviation images are normalised by.
    #[serde(default)]
    pub(crate) statistics: Statistics,
    pub(crate) workers: usize,
    pub(crate) prefetch: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Statistics {
    /// Those of the training images.
    #[default]
    Own,
    /// Those that the base weights were trained with.
    Base,
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
    #[serde(default)]
    pub(crate) class_weights: ClassWeightsChoice,
    /// Weights that the run starts from, as they were named.
    pub(crate) base_weights: Option<String>,
    /// What keeps the values of the base weights: `none`, `backbone` or `until:LAYER`.
    #[serde(default = "no_freeze")]
    pub(crate) freeze: String,
    /// Whether a frozen backbone sees each image once for the whole run.
    #[serde(default)]
    pub(crate) cache_features: CacheFeatures,
    pub(crate) clip_norm: Option<f64>,
    pub(crate) ema_decay: Option<f64>,
    pub(crate) patience: Option<usize>,
    pub(crate) drop_last: bool,
    pub(crate) dtype: String,
    pub(crate) device: String,
    /// Instructions of the CPU kernels: `auto`, `avx512`, `avx2` or `portable`.
    pub(crate) cpu_path: String,
}

fn no_freeze() -> String {
    Freeze::None.to_string()
}

/// How much an image of each class counts in the loss: a rule, or a number for each class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ClassWeightsChoice {
    Rule(ClassWeightsRule),
    Listed(Vec<f32>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClassWeightsRule {
    /// All the same.
    None,
    /// In inverse proportion to the images of the class.
    Balanced,
}

impl Default for ClassWeightsChoice {
    fn default() -> Self {
        Self::Rule(ClassWeightsRule::None)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CacheFeatures {
    /// Where only the head is trained, nothing is random and the features fit into a gibibyte.
    #[default]
    Auto,
    On,
    Off,
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
        self.frozen()?;
        if self.train.cache_features == CacheFeatures::On {
            self.require_cachable()?;
        }
        if self.data.statistics == Statistics::Base && self.train.base_weights.is_none() {
            return Err(usage("data.statistics = \"base\": there are no base weights; use own, or taper finetune"));
        }
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

    /// Prefixes of the parameters that keep their values.
    pub(crate) fn frozen(&self) -> Result<Vec<String>> {
        let (text, layers) = (&self.train.freeze, self.model.layers());
        let frozen = text.parse::<Freeze>().and_then(|freeze| layers.frozen(&freeze));
        frozen.map_err(|error| {
            let untils: Vec<String> = layers.names().iter().map(|layer| format!("until:{layer}")).collect();
            let known = ["none", "backbone"].into_iter().chain(untils.iter().map(String::as_str));
            usage(format!("train.freeze = {text:?}: {error}{}", did_you_mean(text, known)))
        })
    }

    /// Whether the head is trained on features that are computed once.
    pub(crate) fn caches_features(&self, num_images: usize) -> bool {
        /// Above it, features are computed anew in each epoch unless they were asked for: 2^30 bytes.
        const MOST_BYTES: usize = 1 << 30;
        let num_bytes = num_images.saturating_mul(self.model.num_features()).saturating_mul(size_of::<f32>());
        match self.train.cache_features {
            CacheFeatures::Off => false,
            CacheFeatures::On => true,
            CacheFeatures::Auto => self.require_cachable().is_ok() && num_bytes <= MOST_BYTES,
        }
    }

    /// Finds what makes features differ from one epoch to the next.
    fn require_cachable(&self) -> Result<()> {
        let reason = match &self.augment {
            _ if self.train.freeze != Freeze::Backbone.to_string() => {
                format!(
                    "layers that are trained change the features (train.freeze = {:?}); use --freeze backbone",
                    self.train.freeze
                )
            }
            AugmentSection { flip, .. } if *flip > 0.0 => {
                format!(
                    "images are flipped at random (augment.flip = {flip}), so that each epoch sees others; set it to 0"
                )
            }
            AugmentSection { crop_padding, .. } if *crop_padding > 0 => format!(
                "images are cropped at random (augment.crop_padding = {crop_padding}), so that each epoch sees others; set it to 0"
            ),
            _ => return Ok(()),
        };
        Err(usage(format!("train.cache_features = \"on\": {reason}, or use auto")))
    }

    /// The loop's part that does not depend on the data.
    pub(crate) fn fit(&self) -> FitConfig {
        FitConfig {
            epochs: self.train.epochs,
            max_steps: self.train.max_steps,
            accumulate: self.train.accumulate,
            seed: self.train.seed,
            label_smoothing: self.train.label_smoothing,
            class_weights: match &self.train.class_weights {
                ClassWeightsChoice::Listed(weights) => ClassWeights::PerClass(weights.clone()),
                ClassWeightsChoice::Rule(_) => ClassWeights::Equal,
            },
            clip_norm: self.train.clip_norm,
            patience: self.train.patience,
            log_every_steps: self.log.every_steps,
            checkpoint: self.checkpoint.clone(),
        }
    }

    /// The loop's part, for classes of so many training images.
    pub(crate) fn fit_for(&self, images_per_class: &[usize]) -> Result<FitConfig> {
        let class_weights = match &self.train.class_weights {
            ClassWeightsChoice::Rule(ClassWeightsRule::Balanced) => ClassWeights::balanced(images_per_class)?,
            _ => self.fit().class_weights,
        };
        class_weights.require_classes(images_per_class.len())?;
        Ok(FitConfig { class_weights, ..self.fit() })
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

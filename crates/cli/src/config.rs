//! The configuration of a training run: what `config.toml` holds.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use taper_data::{Compose, DataSpec, LabelKind, LastBatch, PadMode, Preprocess, Transform};
use taper_models::{Freeze, ModelConfig};
use taper_optim::{OptimizerConfig, ScheduleConfig};
use taper_report::LossScale;
use taper_train::{CheckpointConfig, ClassWeights, FitConfig, OnNonfinite};

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
    /// Seed of the split and of `train_images`, where it is not to follow `train.seed`.
    pub(crate) split_seed: Option<u64>,
    /// As many training images are used, the same share of each class; all where there is none.
    pub(crate) train_images: Option<usize>,
    /// Whose mean and standard deviation images are normalised by.
    #[serde(default)]
    pub(crate) statistics: Statistics,
    pub(crate) workers: usize,
    pub(crate) prefetch: usize,
    /// Decoded photos that are kept in memory, in MiB; 0 for none. Runs of older versions do not name it.
    #[serde(default = "default_cache_mib")]
    pub(crate) cache_mib: u64,
}

/// 3,600 photos of 224×224, or 1,900 of 500×375 as they are decoded: what a small machine can spare.
fn default_cache_mib() -> u64 {
    1024
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Statistics {
    /// Those of the training images.
    #[default]
    Own,
    /// Those that the base weights were trained with.
    Base,
    /// Pixels are only scaled to 0..=1.
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AugmentSection {
    /// Pixels added around an image before a random crop of its own size; 0 for none.
    pub(crate) crop_padding: usize,
    pub(crate) pad_mode: PadMode,
    /// Probability of a horizontal flip.
    pub(crate) flip: f32,
    /// Probability of a vertical flip.
    #[serde(default)]
    pub(crate) vertical_flip: f32,
    /// A region of random area and shape, scaled to the model's size, instead of the middle of the image.
    #[serde(default)]
    pub(crate) random_resized_crop: Option<RandomResizedCrop>,
    /// Strengths of brightness, contrast, saturation and hue.
    #[serde(default)]
    pub(crate) color_jitter: Option<[f32; 4]>,
}

/// The defaults are torchvision's and timm's (Szegedy et al. 2015, §6).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RandomResizedCrop {
    /// Least and largest share of the image's area.
    pub(crate) scale: [f32; 2],
    /// Least and largest width divided by height.
    pub(crate) ratio: [f32; 2],
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        Self { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
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
    /// What happens when the loss or the gradients stop being numbers.
    #[serde(default)]
    pub(crate) on_nonfinite: OnNonfinite,
    pub(crate) drop_last: bool,
    pub(crate) dtype: String,
    pub(crate) device: String,
    /// The most memory that the run may need by the estimate before its start: `auto` for what the system has left, `off`
    /// for no bound, or a number of MiB.
    #[serde(default)]
    pub(crate) memory_limit: MemoryLimitChoice,
    /// Instructions of the CPU kernels: `auto`, `amx-bf16`, `amx`, `avx512`, `avx2` or `portable`.
    pub(crate) cpu_path: String,
    /// Whether what lies between a batch norm and a convolution is computed again in the backward pass instead of kept.
    #[serde(default)]
    pub(crate) recompute: bool,
    /// How convolutions on a GPU find their algorithm.
    #[serde(default)]
    pub(crate) gpu_plans: GpuPlans,
}

/// `train.gpu_plans`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GpuPlans {
    /// cuDNN's own guess.
    #[default]
    Heuristic,
    /// One that is clearly faster, if there is one; all are tried in the first step, and checkpoints keep what was found.
    Measured,
}

/// `train.memory_limit` as it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum MemoryLimitChoice {
    Mebibytes(i64),
    Word(String),
}

/// `train.memory_limit` as it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryLimit {
    /// What the system has left.
    Auto,
    Off,
    Bytes(u64),
}

impl Default for MemoryLimitChoice {
    fn default() -> Self {
        Self::Word("auto".to_owned())
    }
}

impl MemoryLimitChoice {
    pub(crate) fn parse(&self) -> Result<MemoryLimit> {
        let wrong = |shown: String| {
            usage(format!("train.memory_limit = {shown}: must be \"auto\", \"off\", or a number of MiB above 0"))
        };
        match self {
            Self::Word(word) if word == "auto" => Ok(MemoryLimit::Auto),
            Self::Word(word) if word == "off" => Ok(MemoryLimit::Off),
            Self::Word(word) => Err(wrong(format!("{word:?}"))),
            Self::Mebibytes(number) => match u64::try_from(*number) {
                Ok(mebibytes) if mebibytes > 0 => Ok(MemoryLimit::Bytes(mebibytes.saturating_mul(1 << 20))),
                _ => Err(wrong(number.to_string())),
            },
        }
    }
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

    /// Whether both end with the same weights: what only says where and how fast, or what is kept, may differ.
    pub(crate) fn is_same_run(&self, other: &Self) -> bool {
        let mut like = other.clone();
        like.data.workers = self.data.workers;
        like.data.prefetch = self.data.prefetch;
        like.data.cache_mib = self.data.cache_mib;
        like.train.device = self.train.device.clone();
        like.train.memory_limit = self.train.memory_limit.clone();
        like.train.recompute = self.train.recompute;
        like.checkpoint = self.checkpoint.clone();
        like.log = self.log.clone();
        like == *self
    }

    /// Finds every mistake that can be found without the data.
    pub(crate) fn validate(&self) -> Result<()> {
        self.fit().validate()?;
        self.model.validate()?;
        self.optim.validate()?;
        self.schedule.validate()?;
        crate::device::check_dtype("train.dtype =", &self.train.dtype)?;
        crate::device::cpu_path(&self.train.cpu_path)?;
        self.train.memory_limit.parse()?;
        self.frozen()?;
        if self.train.cache_features == CacheFeatures::On {
            self.require_cachable()?;
        }
        if self.data.statistics == Statistics::Base && self.train.base_weights.is_none() {
            return Err(usage("data.statistics = \"base\": there are no base weights; use own, or taper finetune"));
        }
        if self.data.train_images == Some(0) {
            return Err(usage("data.train_images = 0: must be at least 1; leave it out to use all"));
        }
        if self.train.batch_size == 0 {
            return Err(usage("train.batch_size = 0: must be at least 1"));
        }
        if !(self.data.val_fraction > 0.0 && self.data.val_fraction < 1.0) {
            return Err(usage(format!("data.val_fraction = {}: must be above 0 and below 1", self.data.val_fraction)));
        }
        self.augment.validate()?;
        if self.train.ema_decay.is_some_and(|decay| !(0.0..1.0).contains(&decay)) {
            return Err(usage("train.ema_decay: must be at least 0 and below 1"));
        }
        Ok(())
    }

    /// Prefixes of the parameters that keep their values.
    pub(crate) fn frozen(&self) -> Result<Vec<String>> {
        let (text, layers) = (&self.train.freeze, self.model.layers());
        let frozen = text.parse::<Freeze>().and_then(|freeze| layers.frozen(&freeze));
        if frozen.as_ref().is_ok_and(Vec::is_empty) && !self.model.trains_backbone() {
            let name = self.model.name();
            return Err(usage(format!(
                "train.freeze = {text:?}: {name} is used as it is, and only a head on its features is trained; use \
                 --freeze backbone"
            )));
        }
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
        let reason = if self.train.freeze != Freeze::Backbone.to_string() {
            let freeze = &self.train.freeze;
            format!("layers that are trained change the features (train.freeze = {freeze:?}); use --freeze backbone")
        } else if let Some((key, remedy)) = self.augment.first_random() {
            format!("augment.{key} changes each image anew in each epoch; {remedy}")
        } else {
            return Ok(());
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
            on_nonfinite: self.train.on_nonfinite,
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

    /// What is done to a training image: to the model's size first, then the other random parts, colours last.
    pub(crate) fn train_transform(&self, preprocess: &Preprocess) -> Compose {
        let augment = &self.augment;
        let (size, interpolation) = (preprocess.input_size, preprocess.interpolation);
        let mut transforms = match augment.random_resized_crop {
            Some(RandomResizedCrop { scale, ratio }) => {
                vec![Transform::RandomResizedCrop { size, scale, ratio, interpolation }]
            }
            None => preprocess.eval_transform().0,
        };
        if augment.crop_padding > 0 {
            transforms.push(Transform::RandomCrop { size, padding: augment.crop_padding, mode: augment.pad_mode });
        }
        if augment.flip > 0.0 {
            transforms.push(Transform::HorizontalFlip { probability: augment.flip });
        }
        if augment.vertical_flip > 0.0 {
            transforms.push(Transform::VerticalFlip { probability: augment.vertical_flip });
        }
        if let Some([brightness, contrast, saturation, hue]) = augment.color_jitter {
            transforms.push(Transform::ColorJitter { brightness, contrast, saturation, hue });
        }
        Compose(transforms)
    }
}

impl AugmentSection {
    /// The key of something random that is done to training images, and what turns it off.
    fn first_random(&self) -> Option<(&'static str, &'static str)> {
        let random = [
            (self.random_resized_crop.is_some(), "random_resized_crop", "leave it out"),
            (self.crop_padding > 0, "crop_padding", "set it to 0"),
            (self.flip > 0.0, "flip", "set it to 0"),
            (self.vertical_flip > 0.0, "vertical_flip", "set it to 0"),
            (self.color_jitter.is_some(), "color_jitter", "leave it out"),
        ];
        random.into_iter().find(|(is_on, ..)| *is_on).map(|(_, key, off)| (key, off))
    }

    fn validate(&self) -> Result<()> {
        let wrong =
            |key: &str, value: String, must: &str| Err(usage(format!("augment.{key} = {value}: must be {must}")));
        for (key, probability) in [("flip", self.flip), ("vertical_flip", self.vertical_flip)] {
            if !(0.0..=1.0).contains(&probability) {
                return wrong(key, probability.to_string(), "at least 0 and at most 1");
            }
        }
        if let Some(RandomResizedCrop { scale, ratio }) = self.random_resized_crop {
            if !(scale[0] > 0.0 && scale[0] <= scale[1] && scale[1] <= 1.0) {
                let must = "two shares of the area, rising, above 0 and at most 1";
                return wrong("random_resized_crop.scale", format!("{scale:?}"), must);
            }
            if !(ratio[0] > 0.0 && ratio[0] <= ratio[1] && ratio[1].is_finite()) {
                return wrong("random_resized_crop.ratio", format!("{ratio:?}"), "two numbers above 0, rising");
            }
            if self.crop_padding > 0 {
                let must = "0 beside augment.random_resized_crop, which crops already";
                return wrong("crop_padding", self.crop_padding.to_string(), must);
            }
        }
        if let Some(jitter) = self.color_jitter
            && !(jitter.iter().all(|strength| (0.0..f32::INFINITY).contains(strength)) && jitter[3] <= 0.5)
        {
            let must = "[brightness, contrast, saturation, hue], none below 0, the hue at most 0.5";
            return wrong("color_jitter", format!("{jitter:?}"), must);
        }
        Ok(())
    }
}

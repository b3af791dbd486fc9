//! A small run that a test starts, stops and compares.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Linear, Module, ModuleT, VarBuilder, VarMap};
use taper_data::{ArrayDataset, ChannelStats, Compose, LastBatch, Loader, OnBad};
use taper_optim::{Ema, GroupRules, Optimizer, OptimizerConfig, ParameterSet, Schedule, ScheduleConfig, SgdConfig};
use taper_train::{
    Checkpoint, CheckpointConfig, ClassWeights, Disk, Fit, FitConfig, ImageInput, Images, OnNonfinite, Outcome,
    Progress, RunFolder, TrainError,
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

/// Forty 2×2 images: class 0 dark, class 1 bright.
fn images(batch_size: usize) -> Images {
    let labels: Vec<u32> = (0..40).map(|index| index % 2).collect();
    let pixels = (0..40).flat_map(|index: u8| [100 + 50 * (index % 2) + index; 12]).collect();
    let names = (0..40).map(|index| format!("image-{index}")).collect();
    let classes = vec!["dark".to_owned(), "bright".to_owned()];
    let loader = Loader {
        dataset: Arc::new(ArrayDataset::new([2, 2], pixels, labels, names, classes).unwrap()),
        indices: (0..40).collect(),
        transform: Compose(vec![]),
        batch_size,
        workers: 0,
        prefetch: 1,
        last: LastBatch::Drop,
        bad: OnBad::Fail,
        seed: 0,
    };
    let stats = ChannelStats { mean: [0.5; 3], std: [0.25; 3] };
    Images { loader, input: ImageInput { stats, device: Device::Cpu, dtype: DType::F32 } }
}

/// This machine's disk, without waiting for it: no test cuts the power.
#[derive(Debug)]
struct Unsynced;

impl Disk for Unsynced {
    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

/// What a run is made of.
pub(crate) struct Run {
    pub(crate) config: FitConfig,
    pub(crate) lr: f64,
    pub(crate) stop_at: u64,
    pub(crate) disk: Arc<dyn Disk>,
}

impl Default for Run {
    fn default() -> Self {
        let config = FitConfig {
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
            checkpoint: CheckpointConfig { every_steps: Some(3), every_minutes: None, keep_last: 1 },
        };
        Self { config, lr: 0.5, stop_at: u64::MAX, disk: Arc::new(Unsynced) }
    }
}

/// What a test looks at after a run.
pub(crate) struct Ran {
    pub(crate) outcome: std::result::Result<Outcome, TrainError>,
    pub(crate) progress: Progress,
}

impl Run {
    /// Trains in `folder`, from its newest checkpoint on, until it has been asked `stop_at` times whether to stop.
    pub(crate) fn train(&self, folder: &Path) -> Ran {
        let vars = VarMap::new();
        let model = softmax(&vars);
        let images = images(8);
        let sgd = OptimizerConfig::Sgd(SgdConfig { lr: self.lr, ..SgdConfig::default() });
        let parameters = ParameterSet::new(&vars, &GroupRules::new(&sgd)).unwrap();
        let num_steps = Fit::num_steps(&images, &self.config).unwrap();
        let folder = RunFolder { disk: self.disk.clone(), ..RunFolder::new(folder, Default::default()) };
        let asked = Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() >= self.stop_at
        };
        let mut fit = Fit {
            model: &model,
            vars: &vars,
            train: &images,
            val: &images,
            ema: Some(Ema::new(0.9, &parameters).unwrap()),
            optimizer: Optimizer::new(&sgd, parameters).unwrap(),
            schedule: Schedule::new(ScheduleConfig::by_name("cosine").unwrap(), self.lr, num_steps, 5).unwrap(),
            config: &self.config,
            folder: &folder,
            sink: &mut (),
            stop: &stop,
            progress: Progress::default(),
        };
        RunFolder::new(&folder.path, Default::default()).remove_halves().unwrap();
        if let Some(checkpoint) = Checkpoint::latest(&folder.checkpoints()).unwrap() {
            fit.restore(&checkpoint).unwrap();
        }
        let outcome = fit.run();
        Ran { outcome, progress: fit.progress.clone() }
    }
}

/// All files below a folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The same files with the same bytes; manifests, which know the time, but for it.
pub(crate) fn assert_same(one: &Path, other: &Path, what: &str) {
    let names = |folder: &Path| -> Vec<PathBuf> {
        files(folder).iter().map(|path| path.strip_prefix(folder).unwrap().to_owned()).collect()
    };
    assert_eq!(names(one), names(other), "{what}");
    for name in names(one) {
        let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
        if name.ends_with("manifest.json") {
            assert_eq!(without_times(&read(one)), without_times(&read(other)), "{what}: {}", name.display());
        } else {
            assert!(read(one) == read(other), "{what}: {} differs", name.display());
        }
    }
}

fn without_times(manifest: &[u8]) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    let progress = value["progress"].as_object_mut().unwrap();
    progress.retain(|key, _| !key.ends_with("_seconds") && !key.ends_with("_throughput"));
    value
}

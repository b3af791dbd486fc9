//! Data, split, preprocessing and loaders of a training run.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use taper_data::{ChannelStats, LastBatch};
use taper_data::{
    Compose, Dataset, Loader, OnBad, OpenedData, Part, Preprocess, Split, SplitManifest, ValSize, channel_stats, open,
};

use crate::config::{RunConfig, Statistics};
use crate::exit::bad_input;

/// What a run trains on.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) data: OpenedData,
    pub(crate) split: Split,
    pub(crate) preprocess: Preprocess,
}

impl Prepared {
    /// Opens the data, decides the split and measures the training images.
    pub(crate) fn fresh(config: &RunConfig) -> Result<Self> {
        let (data, split) = open_and_split(config)?;
        let stats = measured(&data, &split, config)?;
        Ok(Self { data, split, preprocess: Preprocess::unscaled(config.model.input_size(), stats) })
    }

    /// As [`Prepared::fresh`], with the preprocessing that the base weights were trained with; mean and deviation are the
    /// data's where the configuration says so.
    pub(crate) fn fine_tuning(config: &RunConfig, base: &Preprocess) -> Result<Self> {
        let (data, split) = open_and_split(config)?;
        let input_size = config.model.input_size();
        let mut preprocess = base.clone();
        if input_size != base.input_size {
            let side = input_size[0].min(input_size[1]) as f32;
            preprocess.resize = base.resize.map(|_| (side / base.crop_pct).round() as usize);
            preprocess.input_size = input_size;
        }
        if config.data.statistics == Statistics::Own {
            let stats = measured(&data, &split, config)?;
            (preprocess.mean, preprocess.std) = (stats.mean, stats.std);
        }
        preprocess.validate()?;
        Ok(Self { data, split, preprocess })
    }

    /// Training images of each class, in the order of the classes.
    pub(crate) fn images_per_class(&self) -> Vec<usize> {
        let mut counts = vec![0; self.data.dataset.classes().len()];
        for index in self.split.get(Part::Train) {
            if let Some(count) = counts.get_mut(self.data.dataset.label(*index) as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Opens the data again, with the split, the classes and the preprocessing that the run wrote down.
    pub(crate) fn of_run(run: &Path, config: &RunConfig) -> Result<Self> {
        let data = open(&config.data_spec())?;
        let split = read_split(run)?.resolve(&*data.dataset).context("the run's split.json")?;
        let classes: Vec<String> = read_json(&run.join("classes.json"))?;
        require_classes(&classes, data.dataset.classes(), &config.data.location)?;
        let preprocess: Preprocess = read_json(&run.join("preprocess.json"))?;
        preprocess.validate()?;
        Ok(Self { data, split, preprocess })
    }

    /// Training batches.
    pub(crate) fn train_loader(&self, config: &RunConfig) -> Loader {
        Loader {
            transform: config.train_transform(self.preprocess.eval_transform()),
            last: config.last_batch(),
            bad: OnBad::Fail,
            ..self.loader(Part::Train, config)
        }
    }

    /// Validation batches. An unreadable image fails the run: it must not change what is compared between epochs.
    pub(crate) fn val_loader(&self, config: &RunConfig) -> Loader {
        Loader { bad: OnBad::Fail, ..self.loader(Part::Val, config) }
    }

    fn loader(&self, part: Part, config: &RunConfig) -> Loader {
        let sizes = Threads {
            batch_size: config.train.batch_size,
            workers: config.data.workers,
            prefetch: config.data.prefetch,
        };
        let loader = eval_loader(
            self.data.dataset.clone(),
            self.split.get(part).into(),
            self.preprocess.eval_transform(),
            sizes,
        );
        Loader { seed: config.train.seed, ..loader }
    }
}

/// How many images a loader handles at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads {
    pub(crate) batch_size: usize,
    pub(crate) workers: usize,
    pub(crate) prefetch: usize,
}

/// All images of `indices` in order; the unreadable ones are reported.
pub(crate) fn eval_loader(
    dataset: Arc<dyn Dataset>,
    indices: Arc<[usize]>,
    transform: Compose,
    threads: Threads,
) -> Loader {
    Loader {
        dataset,
        indices,
        transform,
        batch_size: threads.batch_size,
        workers: threads.workers,
        prefetch: threads.prefetch,
        last: LastBatch::Keep,
        bad: OnBad::Report,
        seed: 0,
    }
}

fn open_and_split(config: &RunConfig) -> Result<(OpenedData, Split)> {
    let data = open(&config.data_spec())?;
    let split = decide_split(&data, config)?;
    require_images(&split, config)?;
    Ok((data, split))
}

fn decide_split(data: &OpenedData, config: &RunConfig) -> Result<Split> {
    let official = &data.official;
    if !official.val.is_empty() {
        return Ok(official.clone());
    }
    let labels: Vec<u32> = (0..data.dataset.len()).map(|index| data.dataset.label(index)).collect();
    let val = ValSize::Fraction(config.data.val_fraction);
    let split = Split::stratified(&labels, &official.train, val, config.train.seed)?;
    Ok(Split { test: official.test.clone(), ..split })
}

fn require_images(split: &Split, config: &RunConfig) -> Result<()> {
    for part in [Part::Train, Part::Val] {
        if split.get(part).is_empty() {
            return Err(bad_input(format!("{} has no {part} images", config.data.location)));
        }
    }
    Ok(())
}

/// Mean and deviation of the training images at the size the model sees them.
fn measured(data: &OpenedData, split: &Split, config: &RunConfig) -> Result<ChannelStats> {
    let mut stats = match data.train_stats {
        Some(stats) if split.train == data.official.train => stats,
        _ => channel_stats(&*data.dataset, &split.train)
            .with_context(|| format!("measuring the training images of {}", config.data.location))?,
    };
    // Images of one flat colour have no deviation; dividing by it must not give infinities.
    stats.std = stats.std.map(|std| if std > 0.0 { std } else { 1.0 });
    Ok(stats)
}

/// The split that a run wrote down.
pub(crate) fn read_split(run: &Path) -> Result<SplitManifest> {
    read_json(&run.join("split.json"))
}

/// The classes of a model and of data must be the same, in the same order.
pub(crate) fn require_classes(model: &[String], data: &[String], location: &str) -> Result<()> {
    if model == data {
        return Ok(());
    }
    let only = |these: &[String], those: &[String]| {
        let names: Vec<&str> = these.iter().filter(|name| !those.contains(name)).map(String::as_str).take(5).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    Err(bad_input(format!(
        "the classes of {location} are not the model's: {} there, {} in the model; only there: {}; only in the model: {}{}",
        data.len(),
        model.len(),
        only(data, model),
        only(model, data),
        if data.len() == model.len() { "; or their order differs" } else { "" },
    )))
}

/// Reads a JSON file of a run.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| bad_input(format!("{} cannot be understood: {error}", path.display())))
}

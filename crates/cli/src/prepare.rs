//! Data, split, preprocessing and loaders of a training run.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use taper_data::{
    ChannelStats, Compose, Dataset, LastBatch, Loader, OnBad, OpenedData, Part, Preprocess, Split, SplitManifest,
    ValSize, open,
};

use crate::config::{RunConfig, Statistics};
use crate::exit::{bad_input, usage};
use crate::images::{BadImage, Source, Sources, are_files, read_bad, warn_of, without_bad};
use crate::same_data::{class_differences, require_same};

/// What a run trains on.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) data: OpenedData,
    /// Which image is in which part, the bad ones among them.
    pub(crate) split: Split,
    /// What is used: as many training images as `data.train_images` says, without the bad ones of train and val.
    pub(crate) usable: Split,
    pub(crate) bad: Vec<BadImage>,
    pub(crate) preprocess: Preprocess,
    sources: Sources,
}

impl Prepared {
    /// Opens the data, decides the split and measures the training images.
    pub(crate) fn fresh(config: &RunConfig) -> Result<Self> {
        let data = open(&config.data_spec())?;
        let preprocess = geometry(&data, config);
        Self::looked_at(data, preprocess, config.data.statistics, config)
    }

    /// As [`Prepared::fresh`], with the preprocessing that the base weights were trained with; mean and deviation are the
    /// data's where the configuration says so.
    pub(crate) fn fine_tuning(config: &RunConfig, base: &Preprocess) -> Result<Self> {
        let input_size = config.model.input_size();
        let mut preprocess = base.clone();
        if input_size != base.input_size {
            let side = input_size[0].min(input_size[1]) as f32;
            preprocess.resize = base.resize.map(|_| (side / base.crop_pct).round() as usize);
            preprocess.input_size = input_size;
        }
        Self::looked_at(open(&config.data_spec())?, preprocess, config.data.statistics, config)
    }

    /// Reads all images that are used, unless what that would show is known.
    fn looked_at(data: OpenedData, preprocess: Preprocess, statistics: Statistics, config: &RunConfig) -> Result<Self> {
        let split = decide_split(&data, config)?;
        require_images(&split, config)?;
        let used = limited(&split, &data, config)?;
        let sources = Sources::new(&data, &preprocess, config)?;
        let (stats, bad) = match data.train_stats {
            Some(stats) if used.train == data.official.train => (stats, Vec::new()),
            _ => {
                let looked = sources.look(&used, &config.data.location)?;
                (looked.stats, looked.bad)
            }
        };
        let preprocess = match statistics {
            Statistics::Own => preprocess.with_stats(without_zeros(stats)),
            Statistics::Base => preprocess,
            Statistics::None => preprocess.with_stats(ChannelStats { mean: [0.0; 3], std: [1.0; 3] }),
        };
        preprocess.validate()?;
        Self { data, usable: used, split, bad, preprocess, sources }.leaving_out_bad(config)
    }

    /// Training images of each class, in the order of the classes.
    pub(crate) fn images_per_class(&self) -> Vec<usize> {
        let mut counts = vec![0; self.data.dataset.classes().len()];
        for index in self.usable.get(Part::Train) {
            if let Some(count) = counts.get_mut(self.data.dataset.label(*index) as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Opens the data again, with the split, the classes, the preprocessing and the bad images that the run wrote down.
    /// Refuses data that are not as they were.
    pub(crate) fn of_run(run: &Path, config: &RunConfig) -> Result<Self> {
        let data = open(&config.data_spec())?;
        require_same(run, &data)?;
        let split = read_split(run)?.resolve(&*data.dataset).context("the run's split.json")?;
        let preprocess: Preprocess = read_json(&run.join("preprocess.json"))?;
        preprocess.validate()?;
        let sources = Sources::new(&data, &preprocess, config)?;
        let (bad, used) = (read_bad(run)?, limited(&split, &data, config)?);
        Self { data, usable: used, split, bad, preprocess, sources }.leaving_out_bad(config)
    }

    fn leaving_out_bad(self, config: &RunConfig) -> Result<Self> {
        warn_of(&self.bad, self.usable.train.len() + self.usable.val.len());
        let usable = without_bad(&self.usable, &*self.data.dataset, &self.bad, &config.data.location)?;
        require_images(&usable, config)?;
        Ok(Self { usable, ..self })
    }

    /// Training batches. An image that has become unreadable since the run began fails it.
    pub(crate) fn train_loader(&self, config: &RunConfig) -> Loader {
        Loader { last: config.last_batch(), ..self.loader(&self.sources.train, Part::Train, config) }
    }

    /// Validation batches. An image that has become unreadable since the run began fails it: it must not change what is
    /// compared between epochs.
    pub(crate) fn val_loader(&self, config: &RunConfig) -> Loader {
        self.loader(&self.sources.eval, Part::Val, config)
    }

    fn loader(&self, source: &Source, part: Part, config: &RunConfig) -> Loader {
        let sizes = Threads {
            batch_size: config.train.batch_size,
            workers: config.data.workers,
            prefetch: config.data.prefetch,
        };
        let (dataset, transform) = (source.dataset.clone(), source.transform.clone());
        let loader = eval_loader(dataset, self.usable.get(part).into(), transform, sizes);
        Loader { seed: config.train.seed, bad: OnBad::Fail, ..loader }
    }
}

/// How an image gets the model's size. The shorter side of a photo is scaled to it and the middle kept, so that nothing
/// is squeezed; sets of small images are used as they are. Mean and deviation are not known yet.
fn geometry(data: &OpenedData, config: &RunConfig) -> Preprocess {
    let size = config.model.input_size();
    let unmeasured = ChannelStats { mean: [0.0; 3], std: [1.0; 3] };
    let unscaled = Preprocess::unscaled(size, unmeasured);
    if are_files(data) { Preprocess { resize: Some(size[0].max(size[1])), ..unscaled } } else { unscaled }
}

/// Images of one flat colour have no deviation; dividing by it must not give infinities.
fn without_zeros(stats: ChannelStats) -> ChannelStats {
    ChannelStats { std: stats.std.map(|std| if std > 0.0 { std } else { 1.0 }), ..stats }
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

fn decide_split(data: &OpenedData, config: &RunConfig) -> Result<Split> {
    let official = &data.official;
    if !official.val.is_empty() {
        return Ok(official.clone());
    }
    let val = ValSize::Fraction(config.data.val_fraction);
    let split = Split::stratified(&data.dataset.labels(), &official.train, val, split_seed(config))?;
    Ok(Split { test: official.test.clone(), ..split })
}

fn split_seed(config: &RunConfig) -> u64 {
    config.data.split_seed.unwrap_or(config.train.seed)
}

/// The split with as many training images as the configuration asks for.
fn limited(split: &Split, data: &OpenedData, config: &RunConfig) -> Result<Split> {
    match config.data.train_images {
        Some(count) if count < split.train.len() => {
            // The part that is taken out of `train` here is the one that is trained on.
            let count = ValSize::Count(count);
            let taken = Split::stratified(&data.dataset.labels(), &split.train, count, split_seed(config))?;
            Ok(Split { train: taken.val, ..split.clone() })
        }
        Some(count) if count > split.train.len() => Err(usage(format!(
            "data.train_images = {count}: {} has {} training images; leave it out to use all",
            config.data.location,
            split.train.len()
        ))),
        _ => Ok(split.clone()),
    }
}

fn require_images(split: &Split, config: &RunConfig) -> Result<()> {
    for part in [Part::Train, Part::Val] {
        if split.get(part).is_empty() {
            return Err(bad_input(format!("{} has no {part} images", config.data.location)));
        }
    }
    Ok(())
}

/// The split that a run wrote down.
pub(crate) fn read_split(run: &Path) -> Result<SplitManifest> {
    read_json(&run.join("split.json"))
}

/// The classes of a model and of data must be the same, in the same order.
pub(crate) fn require_classes(model: &[String], data: &[String], location: &str) -> Result<()> {
    match class_differences(model, data) {
        None => Ok(()),
        Some(differences) => Err(bad_input(format!(
            "the classes of {location} are not the model's: {} there, {} in the model; {differences}",
            data.len(),
            model.len(),
        ))),
    }
}

/// Reads a JSON file of a run.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| bad_input(format!("{} cannot be understood: {error}", path.display())))
}

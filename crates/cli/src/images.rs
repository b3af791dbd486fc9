//! The images of a run: where they are kept, which of them can be read, and what they look like on average.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use taper_data::{
    CacheBudget, CachedDataset, ChannelStats, Compose, Covers, Dataset, OpenedData, Part, Preprocess, Split, survey,
};

use crate::config::RunConfig;
use crate::exit::bad_input;
use crate::prepare::read_json;

/// File of a run that lists the images it leaves out.
pub(crate) const BAD_IMAGES: &str = "bad_images.json";
/// Lines of the warning; the file has all.
const MAX_WARNINGS: usize = 20;

/// An image that a run leaves out, as `bad_images.json` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BadImage {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// A data set and what is still to be done to its images.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) dataset: Arc<dyn Dataset>,
    pub(crate) transform: Compose,
}

/// Where training and evaluation take their images from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) train: Source,
    pub(crate) eval: Source,
    /// What is missing in `train` before an image looks as it is measured: nothing, or the whole of the evaluation's.
    measured: Compose,
}

/// What reading all training and validation images once has shown.
pub(crate) struct Looked {
    pub(crate) stats: ChannelStats,
    pub(crate) bad: Vec<BadImage>,
}

/// Whether images lie in files of their own that are read when they are used, so that reading can fail and is slow.
pub(crate) fn are_files(data: &OpenedData) -> bool {
    data.provenance.covers == Covers::Listing
}

impl Sources {
    /// Photos are kept in memory after the part of their transforms that is the same in each epoch, up to
    /// `data.cache_mib` for training and evaluation together. Other sets lie in memory already.
    pub(crate) fn new(data: &OpenedData, preprocess: &Preprocess, config: &RunConfig) -> Result<Self> {
        let (train, eval) = (config.train_transform(preprocess), preprocess.eval_transform());
        let dataset = data.dataset.clone();
        if !are_files(data) {
            let source = |transform| Source { dataset: dataset.clone(), transform };
            return Ok(Self { train: source(train), eval: source(eval.clone()), measured: eval });
        }
        let budget = CacheBudget::mebibytes(config.data.cache_mib);
        let cached = |fixed| -> Result<Arc<dyn Dataset>> {
            Ok(Arc::new(CachedDataset::new(dataset.clone(), fixed, budget.clone())?))
        };
        let (fixed, rest) = train.split_fixed();
        let train = Source { dataset: cached(fixed.clone())?, transform: rest };
        if fixed == eval {
            let eval = Source { transform: Compose::default(), ..train.clone() };
            return Ok(Self { train, eval, measured: Compose::default() });
        }
        let eval_source = Source { dataset: cached(eval.clone())?, transform: Compose::default() };
        Ok(Self { train, eval: eval_source, measured: eval })
    }

    /// Reads all training and validation images, which also fills the cache: finds the bad ones, measures the others of
    /// `train` at the size the model sees.
    pub(crate) fn look(&self, split: &Split, location: &str) -> Result<Looked> {
        let train = survey(&*self.train.dataset, split.get(Part::Train), &self.measured)?;
        let val = survey(&*self.eval.dataset, split.get(Part::Val), &self.eval.transform)?;
        let bad: Vec<BadImage> =
            train.bad.into_iter().chain(val.bad).map(|bad| BadImage { name: bad.name, reason: bad.reason }).collect();
        let first = || bad.first().map_or_else(String::new, |bad| format!("; the first: {}", bad.reason));
        let stats =
            train.stats.ok_or_else(|| bad_input(format!("no training image of {location} can be read{}", first())))?;
        Ok(Looked { stats, bad })
    }
}

/// The split without the bad images of `train` and `val`. `test` is left to the command that evaluates it.
///
/// # Errors
/// Exit 3 if a class has no training image left.
pub(crate) fn without_bad(split: &Split, dataset: &dyn Dataset, bad: &[BadImage], location: &str) -> Result<Split> {
    if bad.is_empty() {
        return Ok(split.clone());
    }
    let names: std::collections::HashSet<&str> = bad.iter().map(|bad| bad.name.as_str()).collect();
    let keep = |indices: &[usize]| {
        indices.iter().copied().filter(|index| !names.contains(dataset.name(*index).as_str())).collect::<Vec<_>>()
    };
    let usable = Split { train: keep(&split.train), val: keep(&split.val), test: split.test.clone() };
    for (label, class) in dataset.classes().iter().enumerate() {
        let has = |indices: &[usize]| indices.iter().any(|index| dataset.label(*index) as usize == label);
        if has(&split.train) && !has(&usable.train) {
            return Err(bad_input(format!("no training image of class {class} of {location} can be read")));
        }
    }
    Ok(usable)
}

/// Says which images are left out, and how many there are.
pub(crate) fn warn_of(bad: &[BadImage], num_images: usize) {
    if bad.is_empty() {
        return;
    }
    let num_bad = bad.len();
    tracing::warn!("{num_bad} of {num_images} training and validation images cannot be read and are left out:");
    for image in bad.iter().take(MAX_WARNINGS) {
        tracing::warn!("{}: {}", image.name, image.reason);
    }
    if num_bad > MAX_WARNINGS {
        tracing::warn!("and {} more, all in {BAD_IMAGES}", num_bad - MAX_WARNINGS);
    }
}

/// The images that a run leaves out; one of an older version has no such file, and leaves none out.
pub(crate) fn read_bad(run: &Path) -> Result<Vec<BadImage>> {
    let path = run.join(BAD_IMAGES);
    if path.exists() { read_json(&path) } else { Ok(Vec::new()) }
}

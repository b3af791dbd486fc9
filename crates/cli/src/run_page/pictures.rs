//! Pictures of a run: training images, mistakes, and what Grad-CAM makes of some.

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use taper_data::{Batch, Compose, Dataset, Image, LastBatch, Loader, OnBad, Order, rng};
use taper_report::{Answer, Explained, Mistake, Picture, RunPage, Sample, SplitPage, most_confident_mistakes};
use taper_train::{GradCam, ImageInput, grad_cam};

use super::Shown;
use crate::exit::usage;
use crate::trained::Trained;

const NUM_SAMPLES: usize = 6;
/// Epochs whose augmentation is shown.
const NUM_AUGMENTED: u64 = 3;
const NUM_MISTAKES: usize = 24;
/// Mistakes, and as many right answers, that are explained where no images are named.
const NUM_EXPLAINED: usize = 4;

/// Some of the training images, as they are stored and as the first epochs see them.
pub(crate) fn samples(dataset: &dyn Dataset, train: &[usize], transform: &Compose, seed: u64) -> Result<Vec<Sample>> {
    let every = (train.len() / NUM_SAMPLES).max(1);
    let sample = |index: usize| {
        let image = dataset.get(index)?.image;
        let after = |epoch| picture(&transform.apply(image.clone(), &mut rng::for_sample(seed, epoch, index))?);
        Ok(Sample {
            class: dataset.classes()[dataset.label(index) as usize].clone(),
            before: picture(&image)?,
            after: (0..NUM_AUGMENTED).map(after).collect::<Result<_>>()?,
        })
    };
    train.iter().copied().step_by(every).take(NUM_SAMPLES).map(sample).collect()
}

/// Those of the run.
pub(super) fn add_samples(page: &mut RunPage, shown: &Shown<'_>) -> Result<()> {
    let transform = shown.config.train_transform(&shown.preprocess);
    page.samples = samples(&*shown.data.dataset, &shown.train, &transform, shown.config.train.seed)?;
    Ok(())
}

fn picture(image: &Image) -> Result<Picture> {
    Ok(Picture::new(image.height(), image.width(), image.pixels().to_vec())?)
}

/// The most confident mistakes of each split; Grad-CAM of some images of the last one.
pub(super) fn add_to_splits(page: &mut RunPage, shown: &Shown<'_>, images: &[String]) -> Result<()> {
    for split in &mut page.splits {
        for position in most_confident_mistakes(&split.answers, NUM_MISTAKES) {
            let name = split.names[position].clone();
            let picture = picture(&as_seen(shown, &name)?)?;
            split.mistakes.push(Mistake { name, picture, answer: split.answers[position] });
        }
    }
    match page.splits.last_mut() {
        Some(split) => explain(split, shown, images),
        None if images.is_empty() => Ok(()),
        None => Err(usage("--image: there are no predictions yet; run taper evaluate first")),
    }
}

/// An image as evaluation shows it to the model.
fn as_seen(shown: &Shown<'_>, name: &str) -> Result<Image> {
    let index = *shown.index_of.get(name).with_context(|| format!("{name} is not among the run's data"))?;
    let image = shown.data.dataset.get(index)?.image;
    // Nothing of the evaluation's transform is random.
    Ok(shown.preprocess.eval_transform().apply(image, &mut rng::for_sample(0, 0, index))?)
}

fn explain(split: &mut SplitPage, shown: &Shown<'_>, images: &[String]) -> Result<()> {
    let positions = chosen(split, images)?;
    let indices: Result<Vec<usize>> = positions
        .iter()
        .map(|position| shown.index_of.get(&split.names[*position]).copied().context("an image is not among the data"))
        .collect();
    let answers: Vec<Answer> = positions.iter().map(|position| split.answers[*position]).collect();
    let maps = maps(shown, indices?, &answers)?;
    for ((position, answer), map) in positions.into_iter().zip(answers).zip(maps) {
        let name = split.names[position].clone();
        let image = as_seen(shown, &name)?;
        let (height, width, pixels) = (image.height(), image.width(), image.pixels().to_vec());
        let heat = Picture::with_heat(height, width, pixels, &map.values, map.size)?;
        split.explained.push(Explained { name, picture: picture(&image)?, heat, answer });
    }
    Ok(())
}

/// Positions of the named images; without names, of the surest mistakes and the first right answers.
fn chosen(split: &SplitPage, images: &[String]) -> Result<Vec<usize>> {
    if images.is_empty() {
        let is_right = |position: &usize| split.answers[*position].label == split.answers[*position].predicted;
        let right = (0..split.answers.len()).filter(is_right).take(NUM_EXPLAINED);
        return Ok(most_confident_mistakes(&split.answers, NUM_EXPLAINED).into_iter().chain(right).collect());
    }
    let position = |image: &String| {
        let found = split.names.iter().position(|name| name == image);
        found.ok_or_else(|| usage(format!("--image {image}: no such image in predictions-{}.csv", split.split)))
    };
    images.iter().map(position).collect()
}

/// Grad-CAM of each image for the class that was answered.
fn maps(shown: &Shown<'_>, indices: Vec<usize>, answers: &[Answer]) -> Result<Vec<GradCam>> {
    if indices.is_empty() {
        return Ok(Vec::new());
    }
    let device = Device::Cpu;
    let trained = Trained::load(shown.run, &device)?;
    let loader = Loader {
        dataset: shown.data.dataset.clone(),
        batch_size: indices.len(),
        indices: indices.into(),
        transform: shown.preprocess.eval_transform(),
        seed: 0,
        workers: 0,
        prefetch: 1,
        last: LastBatch::Keep,
        bad: OnBad::Fail,
    };
    let batch: Batch = loader.epoch(Order::Sequential).next().context("no images")??;
    let images = ImageInput { stats: shown.preprocess.stats(), device, dtype: DType::F32 }.images(&batch)?;
    let (backbone, head) = (&trained.model.backbone, &trained.model.head);
    let map = taper_kernels::without_history(|| backbone.feature_map(&images, false))?;
    let rest = |map: &candle_core::Tensor| head.forward_t(&backbone.features_of(map)?, false);
    let classes: Vec<usize> = answers.iter().map(|answer| answer.predicted).collect();
    Ok(grad_cam(&map, rest, &classes)?)
}

//! `taper evaluate`

use anyhow::Result;
use candle_nn::ModuleT;
use serde::Serialize;
use std::path::Path;
use std::time::Instant;
use taper_data::{DataSpec, Loader, OpenedData, Part, Split, open};
use taper_metrics::Throughput;
use taper_report::{Columns, LabelColumn, PredictionRow, write_predictions};
use taper_train::{Averaged, Copies, EvaluatedImage, Evaluation, evaluate, write_atomically};

use crate::args::{EvaluateArgs, Tta};
use crate::config::RunConfig;
use crate::device;
use crate::exit::{Ended, bad_input, usage};
use crate::interrupt::Interrupt;
use crate::prepare::{Threads, eval_loader, read_split, require_classes};
use crate::same_data::{differences, require_same};
use crate::trained::Trained;

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    split: Part,
    num_images: u64,
    num_bad: usize,
    loss: f64,
    top1: f64,
    top5: f64,
    per_class: Vec<ClassReport<'a>>,
    images_per_second: f64,
}

#[derive(Debug, Serialize)]
struct ClassReport<'a> {
    class: &'a str,
    num_images: u64,
    recall: Option<f64>,
}

/// Runs the command.
pub(crate) fn run(args: &EvaluateArgs) -> Result<Ended> {
    let (interrupt, device) = (Interrupt::watch()?, device::parse(&args.device)?);
    let dtype = device::wished_dtype(args.dtype.as_deref(), &device)?;
    let mut trained = Trained::load(&args.weights, &device)?;
    let (data, split) = data_of(args, &mut trained)?;
    let indices = split.get(args.split);
    if indices.is_empty() {
        return Err(bad_input(format!(
            "{} has no {} images; choose another --split",
            data.provenance.source, args.split
        )));
    }
    let images = trained.images(loader_of(args, &trained, &data, indices)?, &device, dtype)?;
    let mut rows = Vec::with_capacity(indices.len());
    let started = Instant::now();
    let averaged = |copies| Averaged { model: &trained.model, copies };
    let (flip, shift) = (averaged(Copies::Flip), averaged(Copies::FlipShift));
    let model: &dyn ModuleT = match args.tta {
        Tta::None => &trained.model,
        Tta::Flip => &flip,
        Tta::FlipShift => &shift,
    };
    interrupt.batches_begin();
    let evaluation = evaluate(model, &images, &|| interrupt.seen().is_some(), |image| {
        rows.push(row(&image, &data, &trained.card.classes));
    })?;
    let Some(evaluation) = evaluation else { return Ok(interrupt.stopped_without_result()) };
    let mut throughput = Throughput::default();
    throughput.add(rows.len(), started.elapsed());
    rows.extend(evaluation.bad.iter().map(|bad| PredictionRow::unreadable(bad.name.clone(), bad.reason.clone())));
    if let Some(run) = &trained.run {
        keep_predictions(&run.join(format!("predictions-{}.csv", args.split)), &rows)?;
    }
    let report = report(args.split, &evaluation, &trained.card.classes, throughput.images_per_second());
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_report(&report, &evaluation);
    }
    Ok(Ended::Done)
}

fn loader_of(args: &EvaluateArgs, trained: &Trained, data: &OpenedData, indices: &[usize]) -> Result<Loader> {
    let threads = threads(args.batch_size, args.workers)?;
    let transform = trained.card.preprocessing.eval_transform();
    Ok(eval_loader(data.dataset.clone(), indices.into(), transform, threads))
}

fn keep_predictions(path: &Path, rows: &[PredictionRow]) -> Result<()> {
    let mut csv = Vec::new();
    write_predictions(&mut csv, rows, &Columns { topk: 1, num_logits: 0, label: LabelColumn::Present })?;
    Ok(write_atomically(path, &csv)?)
}

/// Sizes from the command line, checked.
pub(crate) fn threads(batch_size: u64, workers: u64) -> Result<Threads> {
    let size = usize::try_from(batch_size).ok().filter(|size| *size > 0);
    let batch_size = size.ok_or_else(|| usage(format!("--batch-size {batch_size}: must be at least 1")))?;
    let workers = usize::try_from(workers).map_err(|_| usage(format!("--workers {workers}: too many")))?;
    Ok(Threads { batch_size, workers, prefetch: 2 * workers.max(1) })
}

/// The data to evaluate on: what was asked for, or what the run was trained with, split as the run split it.
fn data_of(args: &EvaluateArgs, trained: &mut Trained) -> Result<(OpenedData, Split)> {
    let run_config = match &trained.run {
        Some(run) => Some(RunConfig::of_run(run)?),
        None => None,
    };
    let spec = match (&args.data, &run_config) {
        (Some(location), Some(config)) => DataSpec { location: location.clone(), labels: config.data.labels },
        (Some(location), None) => DataSpec::new(location),
        (None, Some(config)) => config.data_spec(),
        (None, None) => {
            return Err(usage(format!("{} is a single file and has no data; add --data DATA", args.weights.display())));
        }
    };
    let data = open(&spec)?;
    trained.adopt_class_names(data.dataset.classes());
    if let (Some(run), None) = (&trained.run, &args.data) {
        // It also names the images of classes that are new, gone or renamed.
        require_same(run, &data)?;
    }
    require_classes(&trained.card.classes, data.dataset.classes(), &spec.location)?;
    let split = match &trained.run {
        None => data.official.clone(),
        Some(run) => split_of_run(run, args, &data)?,
    };
    Ok((data, split))
}

/// The split that the run wrote down, or that of other data.
fn split_of_run(run: &Path, args: &EvaluateArgs, data: &OpenedData) -> Result<Split> {
    let written = read_split(run)?.resolve(&*data.dataset);
    let Some(location) = &args.data else { return Ok(written?) };
    // The same images in another place are still the run's data; other images have a split of their own.
    match written {
        Ok(split) => {
            differences(run, data)?.iter().for_each(|found| tracing::warn!("{location}: {found}"));
            Ok(split)
        }
        Err(error) => {
            let (part, shown) = (args.split, run.display());
            tracing::warn!("{location} is not the data of {shown}: {error}; its own {part} images are taken");
            Ok(data.official.clone())
        }
    }
}

fn row(image: &EvaluatedImage<'_>, data: &OpenedData, classes: &[String]) -> PredictionRow {
    let best = taper_metrics::argmax(image.logits);
    let probability = taper_metrics::softmax(image.logits)[best];
    let label = classes.get(image.label as usize).cloned();
    PredictionRow::answer(data.dataset.name(image.index), label, vec![(best, classes[best].clone(), probability)])
}

fn report<'a>(split: Part, evaluation: &Evaluation, classes: &'a [String], images_per_second: f64) -> Report<'a> {
    let class = |(index, class): (usize, &'a String)| ClassReport {
        class,
        num_images: evaluation.confusion.support(index),
        recall: evaluation.confusion.recall(index),
    };
    Report {
        split,
        num_images: evaluation.tally.num_images,
        num_bad: evaluation.bad.len(),
        loss: evaluation.tally.loss(),
        top1: evaluation.tally.top1(),
        top5: evaluation.tally.top5(),
        per_class: classes.iter().enumerate().map(class).collect(),
        images_per_second,
    }
}

fn print_report(report: &Report<'_>, evaluation: &Evaluation) {
    println!("{} {} images, {} unreadable", report.split, report.num_images, report.num_bad);
    println!(
        "top-1 {:.4}   top-5 {:.4}   loss {:.4} nats   {:.0} images/s",
        report.top1, report.top5, report.loss, report.images_per_second
    );
    let mut classes: Vec<_> =
        report.per_class.iter().filter_map(|class| Some((class.recall?, class.class, class.num_images))).collect();
    classes.sort_by(|a, b| a.0.total_cmp(&b.0));
    if classes.len() <= 20 {
        println!("recall by class:");
    } else {
        println!("lowest recall of {} classes (all with --json):", classes.len());
        classes.truncate(10);
    }
    for (recall, class, num_images) in classes {
        println!("  {recall:.3}  {class} ({num_images} images)");
    }
    for bad in &evaluation.bad {
        println!("unreadable: {}: {}", bad.name, bad.reason);
    }
}

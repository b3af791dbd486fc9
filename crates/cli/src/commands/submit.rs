//! `taper predict --format kaggle`: a class for each test image, in the order of the test set.

use anyhow::{Context, Result};
use taper_data::{DataSpec, Part, open};
use taper_report::{Submission, write_submission};
use taper_train::{evaluate, write_atomically};

use crate::args::{PredictArgs, SubmittedLabel};
use crate::commands::evaluate::threads;
use crate::config::RunConfig;
use crate::device;
use crate::exit::{Ended, bad_input, usage};
use crate::interrupt::Interrupt;
use crate::prepare::{eval_loader, read_split};
use crate::trained::Trained;

/// Runs the command.
pub(crate) fn run(args: &PredictArgs) -> Result<Ended> {
    let header = header_of(&args.header)?;
    let (interrupt, device) = (Interrupt::watch()?, device::parse(&args.device)?);
    let dtype = device::wished_dtype(args.dtype.as_deref(), &device)?;
    let trained = Trained::load(&args.weights, &device)?;
    let (data, indices) = test_images(args, &trained)?;
    let transform = trained.card.preprocessing.eval_transform();
    let threads = threads(args.batch_size, args.workers)?;
    let loader = eval_loader(data, indices.clone().into(), transform, threads);
    let mut answers = Vec::with_capacity(indices.len());
    interrupt.batches_begin();
    let stop = || interrupt.seen().is_some();
    let images = trained.images(loader, &device, dtype)?;
    let evaluation = evaluate(&trained.model, &images, &stop, |image| {
        answers.push((image.index, taper_metrics::argmax(image.logits)));
    })?;
    let Some(evaluation) = evaluation else { return Ok(interrupt.stopped_without_result()) };
    if let Some(bad) = evaluation.bad.first() {
        return Err(bad_input(format!(
            "{} of {} test images cannot be read, and a submission needs them all; the first: {}: {}",
            evaluation.bad.len(),
            indices.len(),
            bad.name,
            bad.reason
        )));
    }
    let label = |class: usize| match args.label {
        SubmittedLabel::Index => class.to_string(),
        SubmittedLabel::Name => trained.card.classes[class].clone(),
    };
    // The evaluation goes through the images in the order of the test set.
    let rows = answers.into_iter().zip(0..).map(|((_, class), number): (_, u64)| [number.to_string(), label(class)]);
    let mut csv = Vec::new();
    write_submission(&mut csv, &Submission { header, rows: rows.collect() })?;
    match &args.csv {
        Some(path) => write_atomically(path, &csv)?,
        None => std::io::Write::write_all(&mut std::io::stdout().lock(), &csv)?,
    }
    Ok(Ended::Done)
}

fn header_of(text: &str) -> Result<[String; 2]> {
    let columns: Vec<&str> = text.split(',').map(str::trim).collect();
    match columns.as_slice() {
        [id, label] if !id.is_empty() && !label.is_empty() => Ok([(*id).to_owned(), (*label).to_owned()]),
        _ => Err(usage(format!("--header {text:?}: must name two columns, as in ID,Label"))),
    }
}

type TestImages = (std::sync::Arc<dyn taper_data::Dataset>, Vec<usize>);

/// The test images of the data that are given, or of the run's own.
fn test_images(args: &PredictArgs, trained: &Trained) -> Result<TestImages> {
    let (spec, run) = match (args.paths.as_slice(), &trained.run) {
        ([], Some(run)) => (RunConfig::of_run(run)?.data_spec(), Some(run)),
        ([data], _) => (DataSpec::new(data.display().to_string()), None),
        ([], None) => {
            let file = args.weights.display();
            return Err(usage(format!("{file} is a single file and has no data; give the data set behind it")));
        }
        _ => return Err(usage("--format kaggle takes one data set, not several paths")),
    };
    let data = open(&spec)?;
    let split = match run {
        Some(run) => read_split(run)?.resolve(&*data.dataset).context("the run's split.json")?,
        None => data.official.clone(),
    };
    match split.get(Part::Test) {
        [] => Err(bad_input(format!("{} has no test images", spec.location))),
        test => Ok((data.dataset.clone(), test.to_vec())),
    }
}

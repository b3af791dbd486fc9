//! `taper predict`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use taper_data::{DataError, Dataset, Sample, decode};
use taper_report::{Columns, LabelColumn, PredictionRow, write_predictions};
use taper_train::{evaluate, write_atomically};

use crate::args::{PredictArgs, PredictFormat};
use crate::commands::evaluate::threads;
use crate::commands::submit;
use crate::device;
use crate::exit::{Ended, bad_input};
use crate::interrupt::Interrupt;
use crate::prepare::eval_loader;
use crate::trained::Trained;

/// Files that nobody has labelled.
#[derive(Debug)]
struct Files {
    paths: Vec<PathBuf>,
    classes: Vec<String>,
}

impl Dataset for Files {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Nobody knows; the figures that need a label are not shown.
    fn label(&self, _: usize) -> u32 {
        0
    }

    fn name(&self, index: usize) -> String {
        self.paths.get(index).map(|path| path.display().to_string()).unwrap_or_default()
    }

    fn get(&self, index: usize) -> Result<Sample, DataError> {
        let path = self.paths.get(index).ok_or(DataError::IndexOutOfRange { index, len: self.paths.len() })?;
        Ok(Sample { image: decode(path)?, label: 0 })
    }
}

/// Runs the command.
pub(crate) fn run(args: &PredictArgs) -> Result<Ended> {
    if args.format == PredictFormat::Kaggle {
        return submit::run(args);
    }
    let (interrupt, device) = (Interrupt::watch()?, device::parse(&args.device)?);
    let dtype = device::wished_dtype(args.dtype.as_deref(), &device)?;
    let trained = Trained::load(&args.weights, &device)?;
    let paths = files_of(&args.paths)?;
    let classes = trained.card.classes.clone();
    let topk = usize::try_from(args.topk).unwrap_or(usize::MAX).min(classes.len());
    let columns = Columns { topk, num_logits: if args.logits { classes.len() } else { 0 }, label: LabelColumn::Absent };
    let files = Arc::new(Files { paths, classes });
    let indices: Vec<usize> = (0..files.len()).collect();
    let transform = trained.card.preprocessing.eval_transform();
    let loader = eval_loader(files.clone(), indices.into(), transform, threads(args.batch_size, args.workers)?);
    let mut rows: Vec<(usize, PredictionRow)> = Vec::with_capacity(files.len());
    interrupt.batches_begin();
    let stop = || interrupt.seen().is_some();
    let images = trained.images(loader, &device, dtype)?;
    let evaluation = evaluate(&trained.model, &images, &stop, |image| {
        let mut row =
            PredictionRow::answer(files.name(image.index), None, best_classes(image.logits, topk, &files.classes));
        if args.logits {
            row.logits = image.logits.to_vec();
        }
        rows.push((image.index, row));
    })?;
    let Some(evaluation) = evaluation else { return Ok(interrupt.stopped_without_result()) };
    let num_read = rows.len();
    rows.extend(evaluation.bad.into_iter().map(|bad| (bad.index, PredictionRow::unreadable(bad.name, bad.reason))));
    rows.sort_by_key(|(index, _)| *index);
    let rows: Vec<PredictionRow> = rows.into_iter().map(|(_, row)| row).collect();
    write(args, &rows, &columns)?;
    match (num_read, rows.len() - num_read) {
        (0, _) => Err(bad_input("none of the files could be read as an image; the column error says why")),
        (_, 0) => Ok(Ended::Done),
        (_, num_bad) => {
            tracing::warn!("{num_bad} of {} files could not be read; the column error says why", rows.len());
            Ok(Ended::Done)
        }
    }
}

fn write(args: &PredictArgs, rows: &[PredictionRow], columns: &Columns) -> Result<()> {
    let mut csv = Vec::new();
    write_predictions(&mut csv, rows, columns)?;
    match &args.csv {
        Some(path) => Ok(write_atomically(path, &csv)?),
        None => Ok(std::io::Write::write_all(&mut std::io::stdout().lock(), &csv)?),
    }
}

fn best_classes(logits: &[f32], topk: usize, classes: &[String]) -> Vec<(usize, String, f64)> {
    let probabilities = taper_metrics::softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order.into_iter().take(topk).map(|index| (index, classes[index].clone(), probabilities[index])).collect()
}

/// The files themselves, and all files below the folders, in order of their paths. Hidden files are left out.
fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.exists() {
            return Err(bad_input(format!("no such file or folder: {}", path.display())));
        }
        if path.is_dir() {
            let before = files.len();
            add_folder(path, &mut files)?;
            if files.len() == before {
                return Err(bad_input(format!("no files in folder {}", path.display())));
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn add_folder(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let listed = || -> std::io::Result<Vec<PathBuf>> {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        entries.sort();
        Ok(entries)
    };
    let entries = listed().map_err(|error| bad_input(format!("cannot list {}: {error}", folder.display())))?;
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    for path in entries.into_iter().filter(|path| !hidden(path)) {
        if path.is_dir() {
            add_folder(&path, files).with_context(|| format!("below {}", folder.display()))?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

//! A run directory → what a report's page shows of it.

mod facts;
mod pictures;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use taper_data::{OpenedData, Preprocess, open};
use taper_report::{Answer, LrPoint, RunPage, SplitPage, read_epochs, read_predictions, read_steps};

use crate::config::RunConfig;
use crate::exit::bad_input;
use crate::prepare::{read_json, read_split};
use crate::run_dir::{self, Found};

pub(crate) use pictures::samples;

/// File of a search for a learning rate.
pub(crate) const LR_FIND: &str = "lr-find.json";

/// Reads everything that the page shows. What cannot be read but is not needed is noted on it. `images` are the names of
/// those that Grad-CAM explains; without any, some are chosen.
pub(crate) fn of_run(run: &Path, images: &[String]) -> Result<RunPage> {
    let found = run_dir::look(run)?;
    if matches!(found, Found::Free | Found::Foreign) {
        return Err(bad_input(format!("{}: not a run directory (no provenance.json)", run.display())));
    }
    let config = RunConfig::of_run(run)?;
    let classes: Vec<String> = read_json(&run.join("classes.json"))?;
    let mut page = RunPage {
        name: run.display().to_string(),
        facts: facts::of(run, found, &config, classes.len())?,
        config: facts::flattened(run)?,
        steps: read_steps(run)?,
        epochs: read_epochs(run)?,
        lr_find: lr_find(run)?,
        ..RunPage::default()
    };
    for split in ["val", "test"] {
        page.splits.extend(split_page(run, split, &classes)?);
    }
    if page.splits.is_empty() && !page.epochs.is_empty() {
        let how = format!("taper evaluate {} --split test", run.display());
        page.notes.push(format!("No predictions of val or test are there; `{how}` writes them."));
    }
    let shown = Shown::open(run, &config).and_then(|shown| {
        pictures::add_samples(&mut page, &shown)?;
        pictures::add_to_splits(&mut page, &shown, images)
    });
    if let Err(error) = shown {
        // What was asked for by name must not be missing.
        if !images.is_empty() {
            return Err(error);
        }
        page.notes.push(format!("Pictures are missing: {error:#}."));
    }
    Ok(page)
}

/// The images of a run.
struct Shown<'a> {
    run: &'a Path,
    config: &'a RunConfig,
    data: OpenedData,
    preprocess: Preprocess,
    /// Indices of the training images.
    train: Vec<usize>,
    index_of: HashMap<String, usize>,
}

impl<'a> Shown<'a> {
    fn open(run: &'a Path, config: &'a RunConfig) -> Result<Self> {
        let data = open(&config.data_spec())?;
        let split = read_split(run)?.resolve(&*data.dataset).context("the run's split.json")?;
        let index_of = (0..data.dataset.len()).map(|index| (data.dataset.name(index), index)).collect();
        let preprocess: Preprocess = read_json(&run.join("preprocess.json"))?;
        Ok(Self { run, config, data, preprocess, train: split.train, index_of })
    }
}

fn lr_find(run: &Path) -> Result<Vec<LrPoint>> {
    let path = run.join(LR_FIND);
    if path.is_file() { read_json(&path) } else { Ok(Vec::new()) }
}

/// What an evaluation wrote down, if there was one.
fn split_page(run: &Path, split: &str, classes: &[String]) -> Result<Option<SplitPage>> {
    let path = run.join(format!("predictions-{split}.csv"));
    if !path.is_file() {
        return Ok(None);
    }
    let index_of: HashMap<&str, usize> =
        classes.iter().zip(0..).map(|(class, index)| (class.as_str(), index)).collect();
    let rows = read_predictions(&path)?;
    let mut page = SplitPage { split: split.to_owned(), classes: classes.to_vec(), ..SplitPage::default() };
    for row in rows {
        let Some((predicted, _, probability)) = row.classes.first() else {
            page.num_bad += 1;
            continue;
        };
        let label = row.label.as_deref().and_then(|label| index_of.get(label).copied());
        let label = label.filter(|_| *predicted < classes.len()).ok_or_else(|| {
            bad_input(format!(
                "{}: {} has a class that classes.json does not have; evaluate the run again",
                path.display(),
                row.path
            ))
        })?;
        page.answers.push(Answer { label, predicted: *predicted, probability: *probability });
        page.names.push(row.path);
    }
    Ok(Some(page))
}

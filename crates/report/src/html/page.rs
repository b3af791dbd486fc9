//! The page itself.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use taper_metrics::{EpochRecord, StepRecord};

use super::chart::Chart;
use super::curves;
use super::split::{SplitPage, SplitView};
use crate::{Picture, ReportError};

/// A line of a table: what, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Fact {
    /// Puts the two together.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// A point of a search for a learning rate.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LrPoint {
    /// Learning rate of a step.
    pub lr: f64,
    /// Loss before that step, smoothed, nats.
    pub loss: f64,
}

/// A training image as it is stored, and as it was seen in some epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The image's class.
    pub class: String,
    /// As it is stored.
    pub before: Picture,
    /// After augmentation.
    pub after: Vec<Picture>,
}

/// Everything that a page shows of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunPage {
    /// What the run is called.
    pub name: String,
    /// Summary and provenance.
    pub facts: Vec<Fact>,
    /// Every value of the configuration by its key.
    pub config: BTreeMap<String, String>,
    /// The log.
    pub steps: Vec<StepRecord>,
    /// The log.
    pub epochs: Vec<EpochRecord>,
    /// The curve of a search for a learning rate.
    pub lr_find: Vec<LrPoint>,
    /// What was evaluated.
    pub splits: Vec<SplitPage>,
    /// Training images.
    pub samples: Vec<Sample>,
    /// What is missing, and why.
    pub notes: Vec<String>,
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    title: String,
    charts: Vec<Chart>,
    results: Vec<ResultRow>,
    differences: Vec<Difference>,
    names: Vec<String>,
    runs: Vec<RunView>,
    style: &'static str,
    script: &'static str,
}

/// A run in one line.
struct ResultRow {
    name: String,
    colour: usize,
    best: String,
    last: String,
    loss: String,
    test: String,
    images_per_second: String,
    time: String,
}

/// A key whose values are not the same in all runs.
struct Difference {
    key: String,
    values: Vec<String>,
}

struct RunView {
    name: String,
    id: String,
    facts: Vec<Fact>,
    config: Vec<Fact>,
    splits: Vec<SplitView>,
    samples: Vec<SampleView>,
    notes: Vec<String>,
}

struct SampleView {
    class: String,
    before: String,
    after: Vec<String>,
}

/// Writes the page for one run or several.
///
/// ```
/// use taper_report::{RunPage, write_page};
///
/// let page = write_page(&[RunPage { name: "runs/first".to_owned(), ..RunPage::default() }])?;
/// assert!(page.starts_with("<!doctype html>") && page.contains("runs/first"));
/// # Ok::<(), taper_report::ReportError>(())
/// ```
///
/// # Errors
/// A chart that cannot be drawn.
pub fn write_page(runs: &[RunPage]) -> Result<String, ReportError> {
    let views: Result<Vec<RunView>, ReportError> = runs.iter().enumerate().map(view).collect();
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let page = Page {
        title: names.join(", "),
        charts: curves::of(runs)?,
        results: runs.iter().enumerate().map(result).collect(),
        differences: differences(runs),
        names,
        runs: views?,
        style: include_str!("../../templates/report.css"),
        script: include_str!("../../templates/report.js"),
    };
    Ok(page.render()?)
}

fn view((index, run): (usize, &RunPage)) -> Result<RunView, ReportError> {
    let id = format!("run{index}");
    let split = |(number, page): (usize, &SplitPage)| SplitView::of(page, format!("{id}-split{number}"));
    let sample = |sample: &Sample| SampleView {
        class: sample.class.clone(),
        before: sample.before.uri(),
        after: sample.after.iter().map(Picture::uri).collect(),
    };
    Ok(RunView {
        name: run.name.clone(),
        facts: run.facts.clone(),
        config: run.config.iter().map(|(key, value)| Fact::new(key, value)).collect(),
        splits: run.splits.iter().enumerate().map(split).collect::<Result<_, _>>()?,
        samples: run.samples.iter().map(sample).collect(),
        notes: run.notes.clone(),
        id,
    })
}

fn result((colour, run): (usize, &RunPage)) -> ResultRow {
    let percent = |value: f64| format!("{:.2} %", 100.0 * value);
    let best = run.epochs.iter().max_by(|a, b| a.val_top1.total_cmp(&b.val_top1).then(b.epoch.cmp(&a.epoch)));
    let last = run.epochs.last();
    let test = run.splits.iter().find(|split| split.split == "test").filter(|split| !split.answers.is_empty());
    let test = test.map(|split| {
        let right = split.answers.iter().filter(|answer| answer.label == answer.predicted).count();
        percent(right as f64 / split.answers.len() as f64)
    });
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    ResultRow {
        name: run.name.clone(),
        colour: colour % 8,
        best: or_dash(best.map(|epoch| format!("{} (epoch {})", percent(epoch.val_top1), epoch.epoch + 1))),
        last: or_dash(last.map(|epoch| percent(epoch.val_top1))),
        loss: or_dash(last.map(|epoch| format!("{:.4}", epoch.val_loss))),
        test: or_dash(test),
        images_per_second: or_dash(last.map(|epoch| format!("{:.0}", epoch.images_per_second))),
        time: or_dash(last.map(|epoch| format!("{:.0} s", epoch.elapsed_seconds))),
    }
}

/// Keys with their values in each run, where those differ.
fn differences(runs: &[RunPage]) -> Vec<Difference> {
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.config.keys()).collect();
    let row = |key: &String| {
        let value = |run: &RunPage| run.config.get(key).cloned().unwrap_or_else(|| "–".to_owned());
        Difference { key: key.clone(), values: runs.iter().map(value).collect() }
    };
    keys.into_iter().map(row).filter(|row| row.values.windows(2).any(|pair| pair[0] != pair[1])).collect()
}

/// JSON that may stand inside of a `<script>`: no `<` can end it.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;

    fn epoch(epoch: usize) -> EpochRecord {
        EpochRecord {
            epoch,
            step: 10,
            lr: 0.1,
            train_loss: 2.0,
            train_top1: 0.5,
            val_loss: 1.5,
            val_top1: 0.25,
            val_top5: 0.5,
            images_per_second: 100.0,
            elapsed_seconds: 9.0,
        }
    }

    fn run(name: &str, lr: &str) -> RunPage {
        RunPage {
            name: name.into(),
            config: [("optim.lr".to_owned(), lr.to_owned()), ("train.seed".to_owned(), "0".to_owned())].into(),
            epochs: vec![epoch(0), epoch(1)],
            ..RunPage::default()
        }
    }

    #[test]
    fn what_runs_are_called_is_text_and_never_markup() {
        let hostile = "</script><img src=x onerror=alert(1)>";
        let split = SplitPage {
            split: "val".into(),
            classes: vec![hostile.into()],
            answers: vec![Answer { label: 0, predicted: 0, probability: 1.0 }],
            ..SplitPage::default()
        };
        let page = RunPage { splits: vec![split], notes: vec![hostile.into()], ..run(hostile, hostile) };
        let html = write_page(&[page]).unwrap();
        assert!(!html.contains("<img src=x"), "markup got through");
        // Two scripts of data and the page's own end where they should.
        let (opened, closed) = (html.matches("<script").count(), html.matches("</script>").count());
        assert_eq!(opened, closed);
    }

    #[test]
    fn only_differing_keys_are_compared() {
        let rows = differences(&[run("a", "0.1"), run("b", "0.2")]);
        let [row] = rows.as_slice() else { panic!("{} rows", rows.len()) };
        assert_eq!((row.key.as_str(), row.values.as_slice()), ("optim.lr", &["0.1".to_owned(), "0.2".to_owned()][..]));
        assert!(differences(&[run("a", "0.1")]).is_empty());
    }

    #[test]
    fn the_page_needs_no_other_file() {
        let html = write_page(&[run("a", "0.1"), run("b", "0.2")]).unwrap();
        for word in ["http://", "https://", "src=\"/", "@import", "<link"] {
            // The name of SVG's vocabulary, which nobody fetches, and an empty icon, which stops the search for one.
            let html =
                html.replace("http://www.w3.org/2000/svg", "").replace("<link rel=\"icon\" href=\"data:,\">", "");
            assert!(!html.contains(word), "{word}");
        }
    }

    #[test]
    fn the_first_of_equal_epochs_is_the_best() {
        assert_eq!(result((0, &run("a", "0.1"))).best, "25.00 % (epoch 1)");
    }
}

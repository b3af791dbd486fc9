//! The curves of runs, one colour a run.

use super::chart::{Chart, Dash, Frame, Scale, Series};
use super::page::RunPage;
use crate::ReportError;
use taper_metrics::{EpochRecord, StepRecord};

/// No value that an axis must show.
const FREE: std::ops::Range<f64> = f64::INFINITY..f64::NEG_INFINITY;
/// Points of a line that has one for each logged step; more are thinned out.
const MOST_POINTS: usize = 400;

/// Loss, accuracy, learning rate and throughput; and the learning-rate search where there was one.
pub(super) fn of(runs: &[RunPage]) -> Result<Vec<Chart>, ReportError> {
    let mut charts = Vec::new();
    if runs.iter().any(|run| !run.epochs.is_empty()) {
        let loss: [Line; 2] = [("train", Dash::Dashed, |e| e.train_loss), ("val", Dash::Solid, |e| e.val_loss)];
        let top1: [Line; 2] = [("train", Dash::Dashed, |e| e.train_top1), ("val", Dash::Solid, |e| e.val_top1)];
        charts.push(by_epoch(runs, "Loss (nats)", &loss)?);
        charts.push(by_epoch(runs, "Accuracy (top-1)", &top1)?);
    }
    if runs.iter().any(|run| !run.steps.is_empty()) {
        charts.push(by_step(runs, "Learning rate", |step| step.lr)?);
        charts.push(by_step(runs, "Throughput (images/s)", |step| step.images_per_second)?);
    }
    if runs.iter().any(|run| !run.lr_find.is_empty()) {
        charts.push(lr_find(runs)?);
    }
    Ok(charts)
}

type Line = (&'static str, Dash, fn(&EpochRecord) -> f64);

fn by_epoch(runs: &[RunPage], title: &'static str, lines: &[Line]) -> Result<Chart, ReportError> {
    let mut series = Vec::new();
    for (colour, run) in runs.iter().enumerate() {
        for (part, dash, value) in lines {
            let points = run.epochs.iter().map(|record| (record.epoch as f64 + 1.0, value(record))).collect();
            series.push(Series { name: named(runs, run, part), colour, dash: *dash, points });
        }
    }
    Chart::draw(&Frame { title, x: "epoch", x_scale: Scale::Linear, y_at_least: FREE }, &series)
}

fn by_step(runs: &[RunPage], title: &'static str, value: fn(&StepRecord) -> f64) -> Result<Chart, ReportError> {
    let line = |(colour, run): (usize, &RunPage)| {
        let every = run.steps.len().div_ceil(MOST_POINTS).max(1);
        let points = run.steps.iter().step_by(every).map(|record| (record.step as f64, value(record))).collect();
        Series { name: named(runs, run, ""), colour, dash: Dash::Solid, points }
    };
    let series: Vec<Series> = runs.iter().enumerate().map(line).collect();
    Chart::draw(&Frame { title, x: "step", x_scale: Scale::Linear, y_at_least: 0.0..0.0 }, &series)
}

fn lr_find(runs: &[RunPage]) -> Result<Chart, ReportError> {
    let mut series = Vec::new();
    for (colour, run) in runs.iter().enumerate() {
        let points = run.lr_find.iter().map(|point| (point.lr, point.loss)).collect();
        series.push(Series { name: named(runs, run, "loss"), colour, dash: Dash::Solid, points });
    }
    let title = "Search for a learning rate (smoothed loss)";
    Chart::draw(&Frame { title, x: "learning rate", x_scale: Scale::Logarithmic, y_at_least: FREE }, &series)
}

/// A line's name: the run's where there are several, and the part.
fn named(runs: &[RunPage], run: &RunPage, part: &str) -> String {
    match (runs.len(), part) {
        (1, "") => run.name.clone(),
        (1, part) => part.to_owned(),
        (_, "") => run.name.clone(),
        (_, part) => format!("{} {part}", run.name),
    }
}

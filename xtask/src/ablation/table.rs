//! The study as a page of Markdown: the table, the claims it bears out, and how it came about.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::outcome::{OfStep, Outcome};
use super::steps::{CLAIMS, Claim, Direction};
use super::{Shared, steps};
use crate::pipeline::{Provenance, mean_and_deviation};

/// The whole page.
pub(super) fn markdown(shared: &Shared, outcomes: &[OfStep]) -> String {
    let mut page = "# Ablation study\n\n".to_owned();
    page += &conditions(shared, outcomes);
    page += "\n| step | change | ours, val top-1 | report | difference | parameters | GFLOP an image | images/s |\n";
    page += "|---|---|---|---|---|---|---|---|\n";
    for of in outcomes {
        page += &row(of);
    }
    if !shared.smoke {
        page += &claims(outcomes);
    }
    page
}

fn row(of: &OfStep) -> String {
    let top1 = of.top1();
    let ours = match top1 {
        Some((mean, Some(deviation))) => {
            format!("{:.2} ± {:.2} % (n = {})", 100.0 * mean, 100.0 * deviation, of.runs.len())
        }
        Some((mean, None)) => format!("{:.2} % (n = 1)", 100.0 * mean),
        None => "–".to_owned(),
    };
    let diverged = if of.num_diverged > 0 { format!(", {} diverged", of.num_diverged) } else { String::new() };
    let report = of.step.report.map_or_else(|| "–".to_owned(), |report| format!("{:.0} %", 100.0 * report));
    let difference = match (top1, of.step.report) {
        (Some((mean, _)), Some(report)) => signed(mean - report),
        _ => "–".to_owned(),
    };
    format!(
        "| {} | {} | {ours}{diverged} | {report} | {difference} | {} | {} | {:.0} |\n",
        of.step.number,
        of.network.change,
        of.network.num_parameters,
        of.network.gflop,
        of.images_per_second().unwrap_or(0.0),
    )
}

/// Percentage points.
fn signed(difference: f64) -> String {
    format!("{:+.2}", 100.0 * difference)
}

fn conditions(shared: &Shared, outcomes: &[OfStep]) -> String {
    let runs = || outcomes.iter().flat_map(|of| &of.runs);
    let all = |field: fn(&Provenance) -> &String| {
        let values: BTreeSet<&str> = runs().map(|run| field(&run.provenance).as_str()).collect();
        values.into_iter().collect::<Vec<_>>().join("; ")
    };
    let images = shared.train_images.map_or_else(|| "all training images".to_owned(), |n| format!("{n} of them"));
    let epochs = match shared.epochs {
        steps::Epochs::Report => "10 epochs, step 10: 100".to_owned(),
        steps::Epochs::All(epochs) => format!("{epochs} epochs each"),
    };
    let mut text = String::new();
    if shared.smoke {
        text += "A trial of the pipeline on a few built-in images: the figures mean nothing.\n\n";
    }
    let _ = write!(
        text,
        "Accuracy after the last epoch on the validation images, mean ± standard deviation over the seeds; differences in \
         percentage points. The recipe is `data/recipes/ablation.toml`.\n\n\
         - data: {} ({images}); one split for all runs\n\
         - budget: {epochs}; channels of the steps from 2 on times {}\n\
         - computed on: {}\n\
         - commit: {}\n",
        all(|provenance| &provenance.data),
        shared.width,
        all(|provenance| &provenance.device),
        all(|provenance| &provenance.commit),
    );
    text
}

/// What the report says of each step against the one before, and what these runs say.
fn claims(outcomes: &[OfStep]) -> String {
    let find = |number: usize| outcomes.iter().find(|of| of.step.number == number);
    let mut text = String::new();
    for claim in &CLAIMS {
        if let (Some(before), Some(after)) = (find(claim.step - 1), find(claim.step)) {
            text += &claim_row(claim, before, after);
        }
    }
    if text.is_empty() {
        return text;
    }
    let head = "\n## The report's claims\n\nDifferences between the same seeds of two steps. \"Open\" is a difference \
                below twice its standard error; with one seed there is no error to compare it with.\n\n\
                | claim | steps | report | ours | here it |\n|---|---|---|---|---|\n";
    head.to_owned() + &text
}

fn claim_row(claim: &Claim, before: &OfStep, after: &OfStep) -> String {
    let same_seed = |run: &Outcome| before.runs.iter().find(|other| other.seed == run.seed);
    let differences: Vec<f64> = after.runs.iter().filter_map(|run| Some(run.top1() - same_seed(run)?.top1())).collect();
    let report = claim.report.map_or_else(|| "–".to_owned(), signed);
    let found = mean_and_deviation(&differences);
    let ours = match found {
        Some((mean, Some(deviation))) => {
            format!("{} ± {:.2} (n = {})", signed(mean), 100.0 * deviation, differences.len())
        }
        Some((mean, None)) => format!("{} (n = 1)", signed(mean)),
        None => "–".to_owned(),
    };
    let (words, step) = (claim.words, claim.step);
    let verdict = verdict(claim.direction, found, differences.len());
    format!("| {words} | {} → {step} | {report} | {ours} | {verdict} |\n", step - 1)
}

fn verdict(direction: Direction, found: Option<(f64, Option<f64>)>, num_seeds: usize) -> &'static str {
    let Some((mean, deviation)) = found else { return "is not known" };
    let agrees = (mean > 0.0) == (direction == Direction::Up);
    match deviation {
        None if agrees => "has that sign",
        None => "has the other sign",
        Some(deviation) if mean.abs() < 2.0 * deviation / (num_seeds as f64).sqrt() => "is open",
        Some(_) if agrees => "holds",
        Some(_) => "does not hold",
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, verdict};

    #[test]
    fn a_verdict_needs_more_than_twice_the_error() {
        let cases = [
            (Direction::Up, None, 0, "is not known"),
            (Direction::Up, Some((0.02, None)), 1, "has that sign"),
            (Direction::Down, Some((0.02, None)), 1, "has the other sign"),
            (Direction::Up, Some((0.02, Some(0.02))), 3, "is open"),
            (Direction::Up, Some((0.02, Some(0.01))), 4, "holds"),
            (Direction::Down, Some((0.02, Some(0.001))), 4, "does not hold"),
            (Direction::Down, Some((-0.02, Some(0.001))), 4, "holds"),
        ];
        for (direction, found, num_seeds, expected) in cases {
            assert_eq!(verdict(direction, found, num_seeds), expected, "{direction:?} {found:?}");
        }
    }
}

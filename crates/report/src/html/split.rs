//! What an evaluation says of a split: confusion, recall, calibration, and pictures of what went wrong.

use std::cmp::Reverse;

use serde::Serialize;
use taper_metrics::{Calibration, Confusion};

use super::chart::{Chart, Dash, Frame, Scale, Series};
use crate::{Picture, ReportError};

/// Bins of the calibration curve: 15, as Guo et al. 2017 have.
const NUM_BINS: usize = 15;
/// Pairs of classes that are listed as the most confused.
const NUM_PAIRS: usize = 12;

/// One image's true class and the model's answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Class index.
    pub label: usize,
    /// Class index.
    pub predicted: usize,
    /// What the model gave the predicted class, 0..=1.
    pub probability: f64,
}

/// A picture that the model took for something else.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// The image's name in its data set.
    pub name: String,
    /// What the model saw.
    pub picture: Picture,
    /// The answer.
    pub answer: Answer,
}

/// A picture with the places that an answer depends on (Selvaraju et al. 2017).
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The image's name in its data set.
    pub name: String,
    /// What the model saw.
    pub picture: Picture,
    /// The same with Grad-CAM's heat over it.
    pub heat: Picture,
    /// The answer; the heat is that of the predicted class.
    pub answer: Answer,
}

/// Everything that a page shows of a split.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SplitPage {
    /// `val` or `test`.
    pub split: String,
    /// Names in index order.
    pub classes: Vec<String>,
    /// One for each image that could be read.
    pub answers: Vec<Answer>,
    /// The images' names, in the order of the answers.
    pub names: Vec<String>,
    /// Images that could not be read.
    pub num_bad: usize,
    /// Pictures of mistakes, the most confident ones first.
    pub mistakes: Vec<Mistake>,
    /// Pictures with heat.
    pub explained: Vec<Explained>,
}

/// Positions of the `count` wrong answers with the highest probabilities, the highest first.
pub fn most_confident_mistakes(answers: &[Answer], count: usize) -> Vec<usize> {
    let is_wrong = |index: &usize| answers[*index].label != answers[*index].predicted;
    let mut wrong: Vec<usize> = (0..answers.len()).filter(is_wrong).collect();
    wrong.sort_by(|a, b| answers[*b].probability.total_cmp(&answers[*a].probability));
    wrong.truncate(count);
    wrong
}

/// A split, counted and drawn: what the template reads.
pub(super) struct SplitView {
    pub(super) split: String,
    pub(super) id: String,
    pub(super) num_images: usize,
    pub(super) num_bad: usize,
    pub(super) num_classes: usize,
    pub(super) top1: f64,
    pub(super) expected_error: f64,
    pub(super) calibration: Chart,
    pub(super) confusion: String,
    pub(super) pairs: Vec<Pair>,
    pub(super) recalls: Vec<Recall>,
    pub(super) mistakes: Vec<Shown>,
    pub(super) explained: Vec<Shown>,
}

/// Two classes of which one is often taken for the other.
pub(super) struct Pair {
    pub(super) label: String,
    pub(super) predicted: String,
    pub(super) count: u64,
    pub(super) support: u64,
}

/// How much of a class is recognised.
pub(super) struct Recall {
    pub(super) class: String,
    pub(super) recall: f64,
    pub(super) support: u64,
}

/// A picture with its words.
pub(super) struct Shown {
    pub(super) uri: String,
    /// The same with heat; empty where there is none.
    pub(super) heat: String,
    pub(super) name: String,
    pub(super) label: String,
    pub(super) predicted: String,
    pub(super) percent: f64,
    pub(super) is_right: bool,
}

/// The matrix for the page's script; cells with a count alone.
#[derive(Serialize)]
struct Matrix<'a> {
    classes: &'a [String],
    /// `[true class, predicted class, images]`.
    cells: Vec<[u64; 3]>,
}

impl SplitView {
    pub(super) fn of(page: &SplitPage, id: String) -> Result<Self, ReportError> {
        let (mut confusion, mut calibration) = (Confusion::new(page.classes.len()), Calibration::new(NUM_BINS));
        for answer in &page.answers {
            confusion.add(answer.label, answer.predicted);
            calibration.add(answer.probability, answer.label == answer.predicted);
        }
        let num_right = page.answers.iter().filter(|answer| answer.label == answer.predicted).count();
        let name = |index: usize| page.classes.get(index).cloned().unwrap_or_default();
        let shown = |picture: &Picture, heat: String, name_of: &str, answer: Answer| Shown {
            uri: picture.uri(),
            heat,
            name: name_of.to_owned(),
            label: name(answer.label),
            predicted: name(answer.predicted),
            percent: 100.0 * answer.probability,
            is_right: answer.label == answer.predicted,
        };
        let mistake = |mistake: &Mistake| shown(&mistake.picture, String::new(), &mistake.name, mistake.answer);
        let explained = |it: &Explained| shown(&it.picture, it.heat.uri(), &it.name, it.answer);
        Ok(Self {
            split: page.split.clone(),
            id,
            num_images: page.answers.len(),
            num_bad: page.num_bad,
            num_classes: page.classes.len(),
            top1: num_right as f64 / page.answers.len().max(1) as f64,
            expected_error: calibration.expected_error(),
            calibration: calibration_chart(&calibration)?,
            confusion: matrix(&confusion, &page.classes)?,
            pairs: pairs(&confusion, &page.classes),
            recalls: recalls(&confusion, &page.classes),
            mistakes: page.mistakes.iter().map(mistake).collect(),
            explained: page.explained.iter().map(explained).collect(),
        })
    }
}

fn calibration_chart(calibration: &Calibration) -> Result<Chart, ReportError> {
    let bins = calibration.bins().iter();
    let points = bins.filter_map(|bin| Some((bin.confidence()?, bin.accuracy()?))).collect();
    let line = |name: &str, colour, dash, points| Series { name: name.to_owned(), colour, dash, points };
    let series =
        [line("accuracy", 0, Dash::Solid, points), line("as promised", 7, Dash::Dashed, vec![(0.0, 0.0), (1.0, 1.0)])];
    let frame = Frame {
        title: "Calibration: accuracy by confidence",
        x: "mean probability of the answers in a bin",
        x_scale: Scale::Linear,
        y_at_least: 0.0..1.0,
    };
    Chart::draw(&frame, &series)
}

fn matrix(confusion: &Confusion, classes: &[String]) -> Result<String, ReportError> {
    let places = (0..classes.len()).flat_map(|row| (0..classes.len()).map(move |column| (row, column)));
    let cell = |(row, column)| [row as u64, column as u64, confusion.count(row, column)];
    let cells = places.map(cell).filter(|[.., count]| *count > 0).collect();
    Ok(serde_json::to_string(&Matrix { classes, cells })?)
}

fn pairs(confusion: &Confusion, classes: &[String]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (row, label) in classes.iter().enumerate() {
        for (column, predicted) in classes.iter().enumerate().filter(|(column, _)| *column != row) {
            let (count, support) = (confusion.count(row, column), confusion.support(row));
            if count > 0 {
                pairs.push(Pair { label: label.clone(), predicted: predicted.clone(), count, support });
            }
        }
    }
    pairs.sort_by_key(|pair| Reverse(pair.count));
    pairs.truncate(NUM_PAIRS);
    pairs
}

/// The lowest first; classes without images are left out.
fn recalls(confusion: &Confusion, classes: &[String]) -> Vec<Recall> {
    let recall = |(index, class): (usize, &String)| {
        Some(Recall { class: class.clone(), recall: confusion.recall(index)?, support: confusion.support(index) })
    };
    let mut recalls: Vec<Recall> = classes.iter().enumerate().filter_map(recall).collect();
    recalls.sort_by(|a, b| a.recall.total_cmp(&b.recall));
    recalls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Vec<Answer> {
        let answer = |label, predicted, probability| Answer { label, predicted, probability };
        vec![answer(0, 0, 0.9), answer(0, 1, 0.6), answer(1, 0, 0.8), answer(0, 1, 0.5), answer(1, 1, 1.0)]
    }

    #[test]
    fn mistakes_come_by_confidence() {
        assert_eq!(most_confident_mistakes(&answers(), 2), [2, 1]);
        assert_eq!(most_confident_mistakes(&answers(), 9), [2, 1, 3]);
        assert!(most_confident_mistakes(&[], 3).is_empty());
    }

    #[test]
    fn a_split_is_counted() {
        let page = SplitPage {
            split: "test".into(),
            classes: vec!["a".into(), "b".into(), "never".into()],
            answers: answers(),
            ..SplitPage::default()
        };
        let view = SplitView::of(&page, "x".into()).unwrap();
        assert_eq!((view.num_images, view.top1), (5, 0.4));
        assert_eq!(view.confusion, r#"{"classes":["a","b","never"],"cells":[[0,0,1],[0,1,2],[1,0,1],[1,1,1]]}"#);
        assert_eq!((view.pairs[0].label.as_str(), view.pairs[0].count, view.pairs[0].support), ("a", 2, 3));
        let recalls: Vec<_> = view.recalls.iter().map(|recall| recall.class.as_str()).collect();
        assert_eq!(recalls, ["a", "b"]);
        // |1 - 0.9| + |0 - 0.6| + |0 - 0.8| + |0 - 0.5| + |1 - 1| over five; each answer has a bin of its own.
        assert!((view.expected_error - 2.0 / 5.0).abs() < 1e-12);
    }
}

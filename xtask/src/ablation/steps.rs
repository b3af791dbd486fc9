//! The steps of the study as the pipeline sees them: a network by name, settings of data, and the report's figure.

use std::fmt;
use std::str::FromStr;

/// A step of the report's study.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) number: usize,
    /// The report's validation accuracy, where it gives one.
    pub(crate) report: Option<f64>,
    /// What this step sets of the data, beside what those before it have set.
    own: &'static [&'static str],
}

const fn step(number: usize, report: Option<f64>, own: &'static [&'static str]) -> Step {
    Step { number, report, own }
}

/// All of them. "+2 %" of step 8 is upon the 42 % before it; step 5 "rises" without a figure.
pub(crate) const STEPS: [Step; 11] = [
    step(0, Some(0.23), &[]),
    step(1, Some(0.31), &[]),
    step(2, Some(0.38), &[]),
    step(3, Some(0.42), &[]),
    step(4, Some(0.17), &[]),
    step(5, None, &[]),
    step(6, Some(0.48), &[]),
    step(7, Some(0.42), &[]),
    step(8, Some(0.44), &["data.statistics=own"]),
    step(9, Some(0.59), &["augment.crop_padding=4", "augment.flip=0.5"]),
    step(10, Some(0.65), &[]),
];

/// What the report says of one step against the one before.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) words: &'static str,
    pub(crate) step: usize,
    /// The report's difference in validation accuracy, where it gives one.
    pub(crate) report: Option<f64>,
    pub(crate) direction: Direction,
}

/// Which way the report says that accuracy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

const fn claim(step: usize, direction: Direction, report: Option<f64>, words: &'static str) -> Claim {
    Claim { words, step, report, direction }
}

/// Its claims, in its order.
pub(crate) const CLAIMS: [Claim; 9] = [
    claim(1, Direction::Up, Some(0.08), "batch norm helps"),
    claim(2, Direction::Up, Some(0.07), "five sub-blocks help"),
    claim(3, Direction::Up, Some(0.04), "a sixth helps"),
    claim(4, Direction::Down, Some(-0.25), "doubling without residual hurts"),
    claim(5, Direction::Up, None, "the residual connection helps"),
    claim(6, Direction::Up, None, "scaling it by 0.1 helps"),
    claim(7, Direction::Down, Some(-0.06), "batch norm after the first linear layer hurts"),
    claim(8, Direction::Up, Some(0.02), "normalising the data helps"),
    claim(9, Direction::Up, Some(0.15), "augmentation helps"),
];

impl Step {
    /// The network's name for the binary.
    pub(crate) fn model(&self) -> String {
        format!("ablation{}", self.number)
    }

    /// Settings of this step and those before it.
    pub(crate) fn differences(&self) -> impl Iterator<Item = &'static &'static str> {
        STEPS[..=self.number].iter().flat_map(|step| step.own)
    }
}

/// How many epochs a step is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Epochs {
    /// As the report: 100 of step 10. It does not say how many the others had; 10, as the code of its Part 2 had.
    Report,
    /// As many of every step.
    All(u64),
}

impl Epochs {
    pub(crate) fn of(self, step: &Step) -> u64 {
        match self {
            Self::Report if step.number == 10 => 100,
            Self::Report => 10,
            Self::All(epochs) => epochs,
        }
    }
}

impl fmt::Display for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report => f.write_str("report"),
            Self::All(epochs) => write!(f, "{epochs}"),
        }
    }
}

impl FromStr for Epochs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "report" => Ok(Self::Report),
            Ok(epochs) if epochs > 0 => Ok(Self::All(epochs)),
            _ => Err("a number from 1, or report".to_owned()),
        }
    }
}

/// Steps from the first to the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepRange {
    first: usize,
    last: usize,
}

impl StepRange {
    pub(crate) fn contains(self, step: usize) -> bool {
        (self.first..=self.last).contains(&step)
    }
}

impl FromStr for StepRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last && last < STEPS.len() => Ok(Self { first, last }),
            _ => Err(format!("steps are 0 to {}, as in 0-9 or 4", STEPS.len() - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLAIMS, Epochs, STEPS, StepRange};

    #[test]
    fn steps_are_in_order_and_add_up() {
        assert!(STEPS.iter().enumerate().all(|(index, step)| step.number == index));
        assert_eq!(STEPS[7].differences().count(), 0);
        assert_eq!(STEPS[10].differences().count(), 3);
    }

    #[test]
    fn claims_are_the_differences_of_the_reports_figures() {
        for claim in &CLAIMS {
            let (Some(before), Some(after)) = (STEPS[claim.step - 1].report, STEPS[claim.step].report) else {
                continue;
            };
            assert!((after - before - claim.report.unwrap()).abs() < 1e-9, "{}", claim.words);
        }
    }

    #[test]
    fn ranges_and_epochs_are_read() {
        let range: StepRange = "2-4".parse().unwrap();
        assert_eq!((0..11).filter(|step| range.contains(*step)).collect::<Vec<_>>(), [2, 3, 4]);
        assert!("7".parse::<StepRange>().unwrap().contains(7));
        for wrong in ["", "3-2", "0-11", "a", "-1"] {
            assert!(wrong.parse::<StepRange>().is_err(), "{wrong}");
        }
        assert_eq!("report".parse::<Epochs>().unwrap().of(&STEPS[10]), 100);
        assert_eq!("7".parse::<Epochs>().unwrap().of(&STEPS[10]), 7);
        assert!("0".parse::<Epochs>().is_err());
    }
}

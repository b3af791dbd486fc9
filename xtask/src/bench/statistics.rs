//! Medians, spreads and ratios of pairs.

use serde_json::{Value, json};

/// Median, least and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// `None` of no values.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, min, max })
    }

    /// Of the ratios within each pair, so that what disturbs both halves of a pair cancels out.
    pub(super) fn of_ratios(numerators: &[f64], denominators: &[f64]) -> Option<Self> {
        let ratios: Vec<_> = numerators.iter().zip(denominators).map(|(above, below)| above / below).collect();
        Self::of(&ratios)
    }

    /// `2.00 (1.90..2.10)`, with as many digits as asked for.
    pub(super) fn show(&self, digits: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.digits$} ({min:.digits$}..{max:.digits$})")
    }

    pub(super) fn to_json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    /// The second pair ran while the machine was three times as slow; its ratio is like the others.
    #[test]
    fn ratios_are_taken_within_pairs() {
        let spread = Spread::of_ratios(&[4.0, 1.5, 4.2], &[2.0, 0.5, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.1, 2.0, 3.0));
        // A peer that was not run has no ratio.
        assert_eq!(Spread::of_ratios(&[1.0], &[]), None);
    }

    #[test]
    fn a_spread_reads_as_median_and_range() {
        assert_eq!(Spread { median: 2.0, min: 1.234, max: 3.0 }.show(2), "2.00 (1.23..3.00)");
    }
}

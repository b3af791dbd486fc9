//! How far a classifier's probabilities can be believed.

/// Answers by the probability that the classifier gave them, in bins of equal width (Guo et al. 2017, §2).
///
/// ```
/// use taper_metrics::Calibration;
///
/// let mut calibration = Calibration::new(10);
/// for (probability, is_right) in [(0.95, true), (0.95, false)] {
///     calibration.add(probability, is_right);
/// }
/// // Half of the answers are right, and 95 % were promised.
/// assert!((calibration.expected_error() - 0.45).abs() < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    bins: Vec<CalibrationBin>,
}

/// The answers whose probability lies in one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CalibrationBin {
    /// Answers.
    pub num_images: u64,
    /// Those that are right.
    pub num_right: u64,
    /// Sum of their probabilities.
    pub probability_sum: f64,
}

impl CalibrationBin {
    /// Share of right answers; `None` without any answer.
    pub fn accuracy(&self) -> Option<f64> {
        (self.num_images > 0).then(|| self.num_right as f64 / self.num_images as f64)
    }

    /// Mean probability; `None` without any answer.
    pub fn confidence(&self) -> Option<f64> {
        (self.num_images > 0).then(|| self.probability_sum / self.num_images as f64)
    }
}

impl Calibration {
    /// So many bins between 0 and 1, at least one.
    pub fn new(num_bins: usize) -> Self {
        Self { bins: vec![CalibrationBin::default(); num_bins.max(1)] }
    }

    /// Adds an answer by the probability it was given, 0..=1, and whether it is right.
    pub fn add(&mut self, probability: f64, is_right: bool) {
        let last = self.bins.len() - 1;
        // A NaN falls into the first bin; 1 belongs to the last.
        let index = ((probability * self.bins.len() as f64) as usize).min(last);
        let bin = &mut self.bins[index];
        bin.num_images += 1;
        bin.num_right += u64::from(is_right);
        bin.probability_sum += probability;
    }

    /// The bins from 0 to 1.
    pub fn bins(&self) -> &[CalibrationBin] {
        &self.bins
    }

    /// Expected calibration error: the mean over all answers of how far their bin's accuracy is from its confidence;
    /// 0 without answers.
    pub fn expected_error(&self) -> f64 {
        let total: u64 = self.bins.iter().map(|bin| bin.num_images).sum();
        let gap = |bin: &CalibrationBin| (bin.num_right as f64 - bin.probability_sum).abs();
        self.bins.iter().map(gap).sum::<f64>() / total.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_fall_into_their_bins() {
        let mut calibration = Calibration::new(4);
        for (probability, is_right) in [(0.0, false), (0.24, true), (0.25, true), (1.0, true), (0.99, false)] {
            calibration.add(probability, is_right);
        }
        let counts: Vec<_> = calibration.bins().iter().map(|bin| (bin.num_images, bin.num_right)).collect();
        assert_eq!(counts, [(2, 1), (1, 1), (0, 0), (2, 1)]);
        assert_eq!(calibration.bins()[2].accuracy(), None);
        assert_eq!(calibration.bins()[3].confidence(), Some(0.995));
        // |1 - 0.24| + |1 - 0.25| + |1 - 1.99| over five answers.
        assert!((calibration.expected_error() - 2.5 / 5.0).abs() < 1e-12);
        assert_eq!(Calibration::new(0).expected_error(), 0.0);
    }
}

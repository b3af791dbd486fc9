//! Counts of (true class, predicted class).

/// A confusion matrix: rows are true classes, columns predictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    num_classes: usize,
    counts: Vec<u64>,
}

impl Confusion {
    /// An empty matrix for `num_classes` classes.
    pub fn new(num_classes: usize) -> Self {
        Self { num_classes, counts: vec![0; num_classes * num_classes] }
    }

    /// Number of classes.
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// Counts one image. A class outside the matrix is not counted.
    pub fn add(&mut self, label: usize, predicted: usize) {
        if label < self.num_classes && predicted < self.num_classes {
            self.counts[label * self.num_classes + predicted] += 1;
        }
    }

    /// Images of class `label` that were predicted as `predicted`; 0 outside the matrix.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        if label < self.num_classes && predicted < self.num_classes {
            self.counts[label * self.num_classes + predicted]
        } else {
            0
        }
    }

    /// Images of class `label`.
    pub fn support(&self, label: usize) -> u64 {
        (0..self.num_classes).map(|predicted| self.count(label, predicted)).sum()
    }

    /// Fraction of class `label` that was recognised; `None` for a class without images.
    pub fn recall(&self, label: usize) -> Option<f64> {
        match self.support(label) {
            0 => None,
            support => Some(self.count(label, label) as f64 / support as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_rows_and_recall() {
        let mut confusion = Confusion::new(3);
        for (label, predicted) in [(0, 0), (0, 1), (2, 2), (9, 0), (0, 9)] {
            confusion.add(label, predicted);
        }
        assert_eq!(confusion.count(0, 1), 1);
        assert_eq!(confusion.support(0), 2);
        assert_eq!(confusion.recall(0), Some(0.5));
        assert_eq!(confusion.recall(1), None);
        assert_eq!(confusion.recall(2), Some(1.0));
        assert_eq!(confusion.recall(9), None);
    }
}

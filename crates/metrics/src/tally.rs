//! Sums over a pass, and the per-image functions they are made of.

/// Sums over the images of one pass: loss, top-1 and top-5.
///
/// Sums are kept in f64 and counts in integers, so the order of addition does not show in the fifth digit.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Images seen.
    pub num_images: u64,
    /// Images whose label has the highest logit.
    pub num_top1: u64,
    /// Images whose label is among the five highest logits.
    pub num_top5: u64,
    /// Sum of the images' losses, nats.
    pub loss_sum: f64,
}

impl Tally {
    /// Adds one image by its logits, its label and its loss in nats.
    pub fn add(&mut self, logits: &[f32], label: usize, loss: f64) {
        let rank = rank(logits, label);
        self.num_images += 1;
        self.num_top1 += u64::from(rank < 1);
        self.num_top5 += u64::from(rank < 5);
        self.loss_sum += loss;
    }

    /// Adds the sums of another part of the same pass.
    pub fn merge(&mut self, other: &Self) {
        self.num_images += other.num_images;
        self.num_top1 += other.num_top1;
        self.num_top5 += other.num_top5;
        self.loss_sum += other.loss_sum;
    }

    /// Mean loss in nats; 0 for an empty pass.
    pub fn loss(&self) -> f64 {
        self.mean(self.loss_sum)
    }

    /// Fraction 0..=1 of images whose label came first; 0 for an empty pass.
    pub fn top1(&self) -> f64 {
        self.mean(self.num_top1 as f64)
    }

    /// Fraction 0..=1 of images whose label is among the first five; 0 for an empty pass.
    pub fn top5(&self) -> f64 {
        self.mean(self.num_top5 as f64)
    }

    fn mean(&self, sum: f64) -> f64 {
        if self.num_images == 0 { 0.0 } else { sum / self.num_images as f64 }
    }
}

/// Position of the highest value; the first of equal ones. NaN never wins; 0 for an empty slice.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] || values[best].is_nan() && !value.is_nan() {
            best = index;
        }
    }
    best
}

/// How many classes come before `label` when logits are sorted from high to low (ties in index order).
///
/// A label outside the slice, or one whose logit is NaN, ranks behind all.
pub fn rank(logits: &[f32], label: usize) -> usize {
    match logits.get(label) {
        Some(own) if !own.is_nan() => logits
            .iter()
            .enumerate()
            .filter(|(index, value)| **value > *own || (**value == *own && *index < label))
            .count(),
        _ => logits.len(),
    }
}

/// Probabilities of one image's logits, computed in f64.
///
/// Shifted by the maximum, so that large logits do not overflow.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = logits.iter().map(|logit| f64::from(logit - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_with_ties_and_nans() {
        let cases: [(&[f32], usize, usize); 6] = [
            (&[3.0, 2.0, 1.0], 0, 0),
            (&[3.0, 2.0, 1.0], 2, 2),
            (&[1.0, 1.0, 1.0], 0, 0),
            (&[1.0, 1.0, 1.0], 2, 2),
            (&[1.0, f32::NAN], 1, 2),
            (&[1.0], 7, 1),
        ];
        for (logits, label, expected) in cases {
            assert_eq!(rank(logits, label), expected, "{logits:?} {label}");
        }
    }

    #[test]
    fn argmax_takes_the_first_and_skips_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, -1.0]), 1);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn softmax_of_large_logits_is_finite() {
        let probabilities = softmax(&[1e30, 0.0]);
        assert_eq!(probabilities, [1.0, 0.0]);
        assert!((softmax(&[0.0, 3.0_f32.ln()])[1] - 0.75).abs() < 1e-6);
    }

    #[test]
    fn empty_tally_has_no_nan() {
        let tally = Tally::default();
        assert_eq!((tally.loss(), tally.top1(), tally.top5()), (0.0, 0.0, 0.0));
    }

    #[test]
    fn merged_tallies_equal_one() {
        let rows: [([f32; 2], usize); 3] = [([1.0, 0.0], 0), ([1.0, 0.0], 1), ([0.0, 2.0], 1)];
        let mut whole = Tally::default();
        let mut parts = [Tally::default(), Tally::default()];
        for (index, (logits, label)) in rows.iter().enumerate() {
            whole.add(logits, *label, 0.25);
            parts[index % 2].add(logits, *label, 0.25);
        }
        let mut merged = parts[0];
        merged.merge(&parts[1]);
        assert_eq!(merged, whole);
        assert_eq!(whole.num_top1, 2);
        assert_eq!(whole.num_top5, 3);
    }
}

//! Factors between two operands in fixed point.

use rayon::prelude::*;

/// Factors of either operand along the shared axis, powers of two whose product is 1.
///
/// Where the weights of an input are larger than those of another, its values may well be smaller, and would lose digits
/// to the scale that they share. So the values take the size of the weights: then a sum is as exact as its largest
/// products are, whatever they are made of.
pub(crate) struct Balance {
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Balance {
    /// For weights OIHW whose inputs are summed over, `taps` for each pair of channels.
    pub(crate) fn of_inputs(w: &[f32], inputs: usize, taps: usize) -> Option<Self> {
        /// Outputs of a task, about.
        const OUTPUTS: usize = 64;

        let row = inputs * taps;
        let largest = |rows: &[f32]| {
            let mut largest = vec![0; row];
            // SAFETY: whoever balances operands has the tile unit, and with it these vectors.
            rows.chunks_exact(row).for_each(|row| unsafe { raise(&mut largest, row) });
            largest
        };
        let merge = |mut left: Vec<u32>, right: Vec<u32>| {
            left.iter_mut().zip(right).for_each(|(left, right)| *left = right.max(*left));
            left
        };
        let largest = w.par_chunks(OUTPUTS * row).map(largest).reduce(|| vec![0; row], merge);
        Self::new(largest.chunks_exact(taps).map(|taps| taps.iter().copied().max().unwrap_or(0)).collect())
    }

    /// For weights OIHW whose outputs are summed over, `row` weights each.
    pub(crate) fn of_outputs(w: &[f32], row: usize) -> Option<Self> {
        // SAFETY: as above.
        Self::new(w.par_chunks(row).map(|row| unsafe { largest(row) }).collect())
    }

    /// From the bits of the largest weight of each value along the axis; none where no size needs a factor.
    fn new(largest: Vec<u32>) -> Option<Self> {
        /// Binary digits by which sizes may differ without a factor: as many are lost at most.
        const SLACK: i32 = 2;
        /// Below so many under the largest, weights count as none.
        const LOWEST: i32 = -60;
        const INFINITE: i32 = 0xff;

        let exponents = largest.into_iter().map(|bits| (bits >> 23) as i32);
        let top = exponents.clone().filter(|&exponent| exponent < INFINITE).max().unwrap_or(0);
        let powers = exponents.map(|exponent| (exponent - top + SLACK).clamp(LOWEST, 0));
        if powers.clone().all(|power| power == 0) {
            return None;
        }
        let power = |exponent: i32| f32::from_bits(((127 + exponent) as u32) << 23);
        let left = powers.clone().map(power).collect();
        Some(Self { left, right: powers.map(|exponent| power(-exponent)).collect() })
    }

    /// For the left operand.
    pub(crate) fn left(&self) -> &[f32] {
        &self.left
    }

    /// For the right one.
    pub(crate) fn right(&self) -> &[f32] {
        &self.right
    }
}

/// The bits without the sign: their order is that of the values' sizes.
fn size(value: f32) -> u32 {
    value.to_bits() & !(1 << 31)
}

#[target_feature(enable = "avx512f")]
fn raise(largest: &mut [u32], values: &[f32]) {
    largest.iter_mut().zip(values).for_each(|(largest, &value)| *largest = size(value).max(*largest));
}

#[target_feature(enable = "avx512f")]
fn largest(values: &[f32]) -> u32 {
    values.iter().fold(0, |largest, &value| size(value).max(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_size_of_their_weights() {
        if !super::super::is_available() {
            eprintln!("passed over: this processor lacks the tile unit");
            return;
        }
        // Two outputs of four inputs with two taps each.
        let w = [1.0, 0.5, -0.01, 0.0, 0.3, 0.0, 0.0, 0.0, 0.1, -0.9, 0.0, 0.004, f32::NAN, 0.0, 0.0, 0.0];
        let balance = Balance::of_inputs(&w, 4, 2).unwrap();
        // 0.01 is 2⁻⁷ and something, so five digits beyond the slack; what is no number changes nothing for others.
        assert_eq!(balance.left(), [1.0, 0.5f32.powi(5), 1.0, 0.5f32.powi(60)]);
        assert_eq!(balance.right(), [1.0, 32.0, 1.0, 2f32.powi(60)]);
        let balance = Balance::of_outputs(&[0.001, -0.002, 4.0, 0.0], 2).unwrap();
        assert_eq!(balance.left(), [0.5f32.powi(9), 1.0]);
        assert!(Balance::of_outputs(&[0.3, -1.2, 4.0, 0.0], 2).is_none());
    }
}

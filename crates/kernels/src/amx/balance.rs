//! Factors between two operands in fixed point.

use rayon::prelude::*;

/// Factors of either operand along the shared axis, powers of two whose product is 1.
///
/// Where an input's weights are small beside those of the others, its values may well be larger, and the others would lose
/// digits to the scale that they share. So values take the size of their weights: then the error of a sum is that of
/// its largest products, whatever they are made of. No weight is made larger than the largest of its column, so that
/// no column loses digits for it.
pub(crate) struct Balance {
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Balance {
    /// For weights OIHW whose inputs are summed over, `taps` for each pair of channels.
    pub(crate) fn of_inputs(w: &[f32], inputs: usize, taps: usize) -> Option<Self> {
        let row = inputs * taps;
        if are_even(&of_taps(&largest_of_rows(w, row, |_| 1.0), taps)) {
            return None;
        }
        // SAFETY: whoever balances operands has the tile unit, and with it these vectors.
        let beside_column = |row: &[f32]| inverse_power(unsafe { largest(row) });
        Self::new(of_taps(&largest_of_rows(w, row, beside_column), taps))
    }

    /// For weights OIHW whose outputs are summed over.
    pub(crate) fn of_outputs(w: &[f32], inputs: usize, taps: usize) -> Option<Self> {
        let row = inputs * taps;
        // SAFETY: as above.
        let sizes: Vec<u32> = w.par_chunks(row).map(|row| unsafe { largest(row) }).collect();
        if are_even(&sizes) {
            return None;
        }
        let columns = of_taps(&largest_of_rows(w, row, |_| 1.0), taps).into_iter();
        let factors: Vec<f32> = columns.flat_map(|size| std::iter::repeat_n(inverse_power(size), taps)).collect();
        // SAFETY: as above.
        Self::new(w.par_chunks(row).map(|row| unsafe { largest_times(row, &factors) }).collect())
    }

    /// From the largest weight of each value along the axis beside the largest of its column.
    fn new(sizes: Vec<u32>) -> Option<Self> {
        /// Below so many binary digits, weights count as none.
        const LOWEST: i32 = -60;
        const ONE: i32 = exponent(1.0f32.to_bits());

        let powers = sizes.iter().map(|&size| (exponent(size) - ONE).clamp(LOWEST, 0));
        if powers.clone().all(|power| power == 0) {
            return None;
        }
        let power = |power: i32| f32::from_bits(((ONE + power) as u32) << EXPONENT);
        // Values without any weight are nothing to any sum.
        let left = powers.clone().zip(&sizes).map(|(exponent, &size)| if size == 0 { 0.0 } else { power(exponent) });
        Some(Self { left: left.collect(), right: powers.map(|exponent| power(-exponent)).collect() })
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

/// Binary digits by which sizes may differ without any factor: as many are lost at most.
const SLACK: i32 = 2;

/// Where the exponent begins in the bits of an f32.
const EXPONENT: u32 = 23;

const fn exponent(size: u32) -> i32 {
    (size >> EXPONENT) as i32
}

/// Whether no size is below the largest by more than may be lost.
fn are_even(sizes: &[u32]) -> bool {
    let exponents = || sizes.iter().map(|&size| exponent(size));
    exponents().min().zip(exponents().max()).is_none_or(|(low, high)| high - low <= SLACK)
}

/// One over the power of two in a size.
fn inverse_power(size: u32) -> f32 {
    f32::from_bits((254 - exponent(size)).max(1) as u32 * (1 << EXPONENT))
}

/// The largest size in each column of some rows, each times a factor.
fn largest_of_rows(w: &[f32], row: usize, factor: impl Fn(&[f32]) -> f32 + Sync) -> Vec<u32> {
    /// Rows of a task.
    const ROWS: usize = 64;

    let largest = |rows: &[f32]| {
        let mut largest = vec![0; row];
        // SAFETY: as all of this module.
        rows.chunks_exact(row).for_each(|row| unsafe { raise(&mut largest, row, factor(row)) });
        largest
    };
    let merge = |mut left: Vec<u32>, right: Vec<u32>| {
        left.iter_mut().zip(right).for_each(|(left, right)| *left = right.max(*left));
        left
    };
    w.par_chunks(ROWS * row).map(largest).reduce(|| vec![0; row], merge)
}

/// The largest of each input's taps.
fn of_taps(sizes: &[u32], taps: usize) -> Vec<u32> {
    sizes.chunks_exact(taps).map(|taps| taps.iter().copied().max().unwrap_or(0)).collect()
}

/// The bits without the sign: their order is that of the values' sizes. What is no number, or infinite, has none: it spoils
/// its own column, and changes nothing in others.
#[inline(always)]
fn size(value: f32) -> u32 {
    let bits = value.to_bits() & !(1 << 31);
    if bits < f32::INFINITY.to_bits() { bits } else { 0 }
}

#[target_feature(enable = "avx512f")]
fn raise(largest: &mut [u32], values: &[f32], factor: f32) {
    largest.iter_mut().zip(values).for_each(|(largest, &value)| *largest = size(value * factor).max(*largest));
}

/// Chains in which a largest size is looked for: one would wait for itself.
const CHAINS: usize = 64;

#[target_feature(enable = "avx512f")]
fn largest(values: &[f32]) -> u32 {
    let (whole, rest) = values.as_chunks::<CHAINS>();
    let mut sizes = [0; CHAINS];
    for values in whole {
        raise(&mut sizes, values, 1.0);
    }
    raise(&mut sizes, rest, 1.0);
    sizes.into_iter().max().unwrap_or(0)
}

#[target_feature(enable = "avx512f")]
fn largest_times(values: &[f32], factors: &[f32]) -> u32 {
    values.iter().zip(factors).fold(0, |largest, (&value, &factor)| size(value * factor).max(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_available() -> bool {
        let is_available = super::super::is_available();
        if !is_available {
            eprintln!("passed over: this processor lacks the tile unit");
        }
        is_available
    }

    #[test]
    fn values_take_the_size_of_their_weights() {
        if !is_available() {
            return;
        }
        // Two outputs of four inputs with two taps each.
        let w = [1.0, 0.5, -0.01, 0.0, 0.3, 0.0, 0.0, 0.0, 0.1, -0.9, 0.0, 0.004, 0.2, 0.0, 0.0, 0.0];
        let balance = Balance::of_inputs(&w, 4, 2).unwrap();
        // 0.01 is 2⁻⁷ and something, and 0.3 is 2⁻² and something.
        assert_eq!(balance.left(), [1.0, 0.5f32.powi(7), 0.25, 0.0]);
        assert_eq!(balance.right(), [1.0, 128.0, 4.0, 2f32.powi(60)]);
        let balance = Balance::of_outputs(&[0.001, -0.002, 4.0, 6.0], 2, 1).unwrap();
        assert_eq!(balance.left(), [0.5f32.powi(11), 1.0]);
        assert!(Balance::of_outputs(&[0.7, -1.2, 2.0, 0.0], 2, 1).is_none());
    }

    #[test]
    fn no_column_suffers_for_another() {
        if !is_available() {
            return;
        }
        // One large weight, one small output, and one that is no number: each concerns its own column.
        let (mut large, mut small, mut broken) = ([1.0; 16], [1.0; 16], [1.0; 16]);
        (large[0], broken[5]) = (2f32.powi(30), f32::NAN);
        small[12..].fill(0.5f32.powi(30));
        for w in [large, small, broken] {
            assert!(Balance::of_inputs(&w, 4, 1).is_none());
        }
        let mut small = [1.0; 16];
        small.chunks_exact_mut(4).for_each(|row| row[3] = 0.5f32.powi(30));
        for w in [large, small, broken] {
            assert!(Balance::of_outputs(&w, 4, 1).is_none());
        }
    }
}

//! Arrays of repeatable noise, and the check that every differentiable op goes through.

use candle_core::{Device, Result, Tensor, Var};
use taper_kernels::reference::Array;

/// Largest difference from the f64 reference, relative to the largest value: f32 carries 6e-8 per
/// operation, and the sums here have at most a few hundred terms.
const FORWARD_TOLERANCE: f64 = 3e-6;

/// As above for gradients, which pass through two such sums and, for batch norm, a cancellation.
const GRADIENT_TOLERANCE: f64 = 3e-5;

/// Step of the central differences: in f64 their own error is below 1e-8 at this step.
const STEP: f64 = 1e-5;

/// Noise in -1..1, the same for the same seed (SplitMix64, Steele et al. 2014), rounded to f32.
pub(crate) fn noise(shape: &[usize], seed: u64) -> Array {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Array::from_fn(shape, |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((bits ^ (bits >> 31)) >> 40) as f32 / (1u32 << 23) as f32;
        f64::from(unit - 1.0)
    })
}

pub(crate) fn tensor(array: &Array) -> Tensor {
    let values: Vec<f32> = array.values.iter().map(|&value| value as f32).collect();
    Tensor::from_vec(values, array.shape.as_slice(), &Device::Cpu).unwrap()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Fails where `found` is further from `expected` than `tolerance` times the largest expected value.
#[track_caller]
pub(crate) fn assert_close(case: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{case}: number of elements");
    let scale = expected.iter().fold(1e-3, |scale: f64, value| scale.max(value.abs()));
    for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= tolerance * scale,
            "{case}: element {index} is {found}, expected {expected} (scale {scale}, tolerance {tolerance})"
        );
    }
}

/// Compares an op with its reference, and its gradient in every input with finite differences of
/// the reference, weighted by noise so that no element can hide.
#[track_caller]
pub(crate) fn check(
    case: &str,
    inputs: &[Array],
    op: impl Fn(&[Tensor]) -> Result<Tensor>,
    reference: impl Fn(&[Array]) -> Array,
) {
    let expected = reference(inputs);
    let variables: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(&tensor(input)).unwrap()).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let y = op(&tensors).unwrap();
    assert_eq!(y.dims(), expected.shape, "{case}: shape");
    assert_close(case, &values(&y), &expected.values, FORWARD_TOLERANCE);

    let weights = noise(&expected.shape, 99);
    let gradients = (&y * tensor(&weights)).unwrap().sum_all().unwrap().backward().unwrap();
    for (index, variable) in variables.iter().enumerate() {
        let found = gradients.get(variable).unwrap_or_else(|| panic!("{case}: no gradient for input {index}"));
        assert_eq!(found.dims(), variable.dims(), "{case}: shape of gradient {index}");
        let expected = differences(inputs, index, &weights, &reference);
        assert_close(&format!("{case}: gradient {index}"), &values(found), &expected, GRADIENT_TOLERANCE);
    }
}

fn differences(inputs: &[Array], index: usize, weights: &Array, reference: &impl Fn(&[Array]) -> Array) -> Vec<f64> {
    let mut inputs = inputs.to_vec();
    let weighted = |inputs: &[Array]| {
        let y = reference(inputs);
        y.values.iter().zip(&weights.values).map(|(value, weight)| value * weight).sum::<f64>()
    };
    let count = inputs[index].values.len();
    let derivative = |element: usize| {
        let original = inputs[index].values[element];
        inputs[index].values[element] = original + STEP;
        let above = weighted(&inputs);
        inputs[index].values[element] = original - STEP;
        let below = weighted(&inputs);
        inputs[index].values[element] = original;
        (above - below) / (2.0 * STEP)
    };
    (0..count).map(derivative).collect()
}

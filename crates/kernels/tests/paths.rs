//! Every CPU path on the same cases: each algorithm of convolution against f64, and the same bits on any threads.
//!
//! One test alone, because the path is the whole process's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "kernels/support.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
mod support;

use candle_core::Var;
use support::{noise, tensor, values};
use taper_kernels::reference::Array;
use taper_kernels::{ConvGeometry, CpuPath, backward, conv2d, cpu_path, reference, set_cpu_path};

/// Largest error as a share of the largest value: of Winograd in f32 and of products in fixed point, the direct sums in f32
/// stay below a tenth of it; and of products of one bf16 number each, which round by up to 2⁻⁹.
fn tolerance(path: CpuPath) -> f64 {
    if path == CpuPath::AmxBf16 { 5e-3 } else { 1e-5 }
}

struct Case {
    name: &'static str,
    x: [usize; 4],
    w: [usize; 4],
    geometry: ConvGeometry,
    /// Whether inputs differ in size by four orders of magnitude, and their weights the other way round.
    is_uneven: bool,
}

impl Case {
    /// Images and weights.
    fn operands(&self) -> (Array, Array) {
        let (mut x, mut w) = (noise(&self.x, 1), noise(&self.w, 2));
        if self.is_uneven {
            let (inputs, taps) = (self.w[1], self.w[2] * self.w[3]);
            let size = |input: usize| 10f64.powi((input * 7 % 5) as i32 - 2);
            x.values.iter_mut().enumerate().for_each(|(place, value)| *value *= size(place % inputs));
            w.values.iter_mut().enumerate().for_each(|(place, value)| *value /= size(place / taps % inputs));
        }
        (x, w)
    }
}

/// The same with inputs of different sizes.
fn uneven(case: Case) -> Case {
    Case { is_uneven: true, ..case }
}

fn case(name: &'static str, x: [usize; 4], w: [usize; 4], stride: usize, padding: usize, groups: usize) -> Case {
    let geometry = ConvGeometry { stride: [stride; 2], padding: [padding; 2], dilation: [1; 2], groups };
    Case { name, x, w, geometry, is_uneven: false }
}

fn cases() -> Vec<Case> {
    vec![
        case("whole tiles", [2, 8, 12, 16], [32, 16, 3, 3], 1, 1, 1),
        case("tiles over both edges", [3, 9, 14, 20], [17, 20, 3, 3], 1, 1, 1),
        case("no padding", [2, 10, 7, 16], [48, 16, 3, 3], 1, 0, 1),
        case("padding of two", [1, 5, 6, 33], [16, 33, 3, 3], 1, 2, 1),
        case("images smaller than two tiles", [5, 7, 7, 64], [64, 64, 3, 3], 1, 1, 1),
        case("several blocks and runs", [9, 16, 16, 32], [32, 32, 3, 3], 1, 1, 1),
        case("more channels than a task", [2, 6, 6, 144], [80, 144, 3, 3], 1, 1, 1),
        case("enough channels for the tile unit's points", [1, 23, 23, 256], [128, 256, 3, 3], 1, 1, 1),
        case("as many channels as BaseNet has", [1, 8, 8, 512], [512, 512, 3, 3], 1, 1, 1),
        case("few channels, direct", [3, 11, 9, 8], [8, 8, 3, 3], 1, 1, 1),
        case("by two", [2, 15, 14, 24], [40, 24, 3, 3], 2, 1, 1),
        case("stem", [2, 30, 22, 3], [64, 3, 7, 7], 2, 3, 1),
        case("stem, several bands", [1, 75, 70, 3], [16, 3, 7, 7], 2, 3, 1),
        case("stem, window of 8 by 5 over four channels", [2, 23, 41, 4], [32, 4, 8, 5], 2, 2, 1),
        case("stem, high window without padding", [2, 40, 30, 2], [48, 2, 13, 8], 2, 0, 1),
        case("window of more rows than fixed point sums", [1, 1420, 3, 1], [16, 1, 1400, 1], 2, 0, 1),
        case("pointwise", [3, 6, 5, 130], [36, 130, 1, 1], 1, 0, 1),
        case("pointwise by two", [2, 7, 8, 32], [64, 32, 1, 1], 2, 0, 1),
        case("odd number of channels", [2, 9, 8, 5], [24, 5, 3, 3], 1, 1, 1),
        case("channels beyond a chunk, by two", [2, 9, 8, 47], [33, 47, 3, 3], 2, 1, 1),
        case("bands of rows", [1, 41, 34, 160], [24, 160, 3, 3], 1, 1, 1),
        case("window of one row", [2, 9, 30, 16], [32, 16, 1, 5], 1, 0, 1),
        case("more outputs than a panel", [1, 7, 7, 192], [272, 192, 1, 1], 1, 0, 1),
        case("few outputs of many weights", [4, 14, 14, 256], [176, 256, 3, 3], 2, 1, 1),
        uneven(case("inputs of different sizes", [1, 24, 24, 128], [128, 128, 3, 3], 1, 1, 1)),
        uneven(case("inputs of different sizes, pointwise", [2, 9, 9, 64], [48, 64, 1, 1], 1, 0, 1)),
        uneven(case("inputs of different sizes, stem", [2, 30, 22, 3], [64, 3, 7, 7], 2, 3, 1)),
        case("grouped", [2, 6, 6, 64], [96, 16, 3, 3], 1, 1, 4),
    ]
}

fn inner(left: &[f32], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(&left, right)| f64::from(left) * right).sum()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Forward against the reference; gradients by the adjoint identity `⟨dx, u⟩ = ⟨dy, u ∗ w⟩`, with `dy` all ones.
fn check(path: CpuPath, case: &Case) -> f64 {
    let name = format!("{path}: {}", case.name);
    let (x, w) = case.operands();
    let expected = reference::conv2d(&x, &w, None, &case.geometry);
    let largest = expected.values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let (x_var, w_var) = (Var::from_tensor(&tensor(&x)).unwrap(), Var::from_tensor(&tensor(&w)).unwrap());
    let y = conv2d(&x_var, &w_var, None, &case.geometry).unwrap();
    assert_eq!(y.dims(), expected.shape, "{name}");
    let differences = values(&y).into_iter().zip(&expected.values).map(|(found, value)| f64::from(found) - value);
    let error = differences.fold(0.0, |worst: f64, difference| worst.max(difference.abs())) / largest;
    assert!(error <= tolerance(path), "{name}: error {error:.2e}");

    let dy = noise(&expected.shape, 3);
    let weighted = (&y * tensor(&dy)).unwrap().sum_all().unwrap();
    let gradients = weighted.backward().unwrap();
    for (variable, seed) in [(&x_var, 4), (&w_var, 5)] {
        let gradient = values(gradients.get(variable).unwrap());

        let u = noise(variable.dims(), seed);
        let image = match seed {
            4 => reference::conv2d(&u, &w, None, &case.geometry),
            _ => reference::conv2d(&x, &u, None, &case.geometry),
        };
        let (found, expected) = (inner(&gradient, &u.values), inner(&values(&tensor(&dy)), &image.values));
        let scale = norm(gradient.iter().map(|&value| f64::from(value))) * norm(u.values.iter().copied());
        assert!(
            (found - expected).abs() <= 0.1 * tolerance(path) * scale,
            "{name}: gradient {seed}: {found}, expected {expected}"
        );
    }
    error
}

/// All bits of a forward and backward pass.
fn bits(case: &Case, threads: usize) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let (x, w) = case.operands();
        let (x, w) = (Var::from_tensor(&tensor(&x)).unwrap(), Var::from_tensor(&tensor(&w)).unwrap());
        let y = conv2d(&x, &w, None, &case.geometry).unwrap();
        let mut all = values(&y);
        let gradients = backward(y).unwrap();
        all.extend([&x, &w].into_iter().flat_map(|variable| values(gradients.get(variable).unwrap())));
        all.into_iter().map(f32::to_bits).collect()
    })
}

#[test]
fn every_path_agrees_with_the_reference() {
    for path in CpuPath::ALL {
        if !path.is_available() {
            assert!(set_cpu_path(path).unwrap_err().to_string().contains(&path.to_string()));
            eprintln!("passed over: this processor lacks {path}");
            continue;
        }
        set_cpu_path(path).unwrap();
        assert_eq!(cpu_path(), path);
        let mut worst: f64 = 0.0;
        for case in cases() {
            worst = worst.max(check(path, &case));
            let one = bits(&case, 1);
            for threads in [2, 3] {
                assert!(bits(&case, threads) == one, "{path}: {}: other bits on {threads} threads", case.name);
            }
        }
        eprintln!("{path}: largest error of the forward pass {worst:.2e}");
    }
}

#[test]
fn names_are_read_back() {
    for path in CpuPath::ALL {
        assert_eq!(path.to_string().parse(), Ok(path));
    }
    assert!("sse".parse::<CpuPath>().unwrap_err().to_string().contains("amx, avx512, avx2 or portable"));
}

//! Convolutions of random geometries on every CPU path: forward pass and both gradients against f64 element by
//! element, the same bits on any number of threads, and no NaN where it does not belong.
//!
//! One test alone, because the path is the whole process's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "kernels/support.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
mod support;

use candle_core::{Result, Var};
use rayon::ThreadPool;
use support::{noise, tensor, values};
use taper_kernels::reference::{self, Array};
use taper_kernels::{ConvGeometry, CpuPath, conv2d, set_cpu_path};

/// Random cases; what one of them costs the reference is bounded by [`MAX_PRODUCTS`].
const CASES: usize = 300;

/// Products of a case at most.
const MAX_PRODUCTS: usize = 500_000;

/// Largest error as a share of the largest value: f32 sums of a few thousand terms, and Winograd's transforms; or two
/// roundings to bf16, by 2⁻⁹ at most, of each product.
fn tolerance(path: CpuPath) -> f64 {
    if path == CpuPath::AmxBf16 { 2e-2 } else { 2e-5 }
}

/// Threads whose results are compared with those of one.
const THREADS: [usize; 3] = [2, 3, 5];

/// Channels that fill vectors of 8 and 16 lanes, and miss them by one and by many.
const FEW: [usize; 9] = [1, 2, 3, 4, 7, 8, 9, 16, 17];
/// Channels for which Winograd's algorithm pays; above 64 its gradient of the weights takes another way.
const MANY: [usize; 8] = [16, 17, 24, 33, 64, 65, 100, 130];

#[derive(Debug, Clone, Copy)]
struct Case {
    x: [usize; 4],
    w: [usize; 4],
    geometry: ConvGeometry,
}

impl Case {
    /// Sizes of the output, if the window fits.
    fn output(&self) -> Option<[usize; 4]> {
        let ConvGeometry { stride, padding, dilation, .. } = self.geometry;
        let size = |axis: usize| {
            let span = dilation[axis] * (self.w[2 + axis] - 1) + 1;
            Some((self.x[1 + axis] + 2 * padding[axis]).checked_sub(span)? / stride[axis] + 1)
        };
        Some([self.x[0], size(0)?, size(1)?, self.w[0]])
    }

    fn products(&self) -> Option<usize> {
        Some(self.output()?.iter().product::<usize>() * self.w[1..].iter().product::<usize>())
    }
}

/// Choices that are the same for the same seed.
struct Choices(u64);

impl Choices {
    fn below(&mut self, count: usize) -> usize {
        // PCG's multiplier and increment (O'Neill 2014); the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % count
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// A case of any algorithm that is small enough.
    fn case(&mut self) -> Case {
        loop {
            let case = match self.below(4) {
                0 => self.pointwise(),
                1 => self.winograd(),
                _ => self.any(),
            };
            if case.products().is_some_and(|products| products <= MAX_PRODUCTS) {
                return case;
            }
        }
    }

    fn pair(&mut self, values: &[usize]) -> [usize; 2] {
        let first = self.of(values);
        // Square as often as not.
        if self.below(2) == 0 { [first; 2] } else { [first, self.of(values)] }
    }

    fn images(&mut self) -> usize {
        self.of(&[0, 1, 1, 2, 2, 2, 2, 3])
    }

    fn any(&mut self) -> Case {
        let (groups, inputs, outputs) = (self.of(&[1, 1, 1, 2, 3, 4, 8]), self.of(&FEW), self.of(&FEW));
        let size: [usize; 2] = std::array::from_fn(|_| 1 + self.below(13));
        let kernel = self.pair(&[1, 2, 3, 3, 4, 5, 7]);
        let stride = self.pair(&[1, 1, 2, 2, 3, 5]);
        let padding = self.pair(&[0, 1, 1, 2, 3, 5]);
        let dilation = self.pair(&[1, 1, 1, 2, 3, 7]);
        Case {
            x: [self.images(), size[0], size[1], groups * inputs],
            w: [groups * outputs, inputs, kernel[0], kernel[1]],
            geometry: ConvGeometry { stride, padding, dilation, groups },
        }
    }

    fn pointwise(&mut self) -> Case {
        let (inputs, outputs) = (self.of(&[FEW, [24, 33, 100, 128, 130, 1, 5, 31, 32]].concat()), self.of(&FEW));
        let size: [usize; 2] = std::array::from_fn(|_| 1 + self.below(17));
        let geometry = ConvGeometry { stride: self.pair(&[1, 1, 2, 3]), ..ConvGeometry::default() };
        Case { x: [self.images(), size[0], size[1], inputs], w: [outputs, inputs, 1, 1], geometry }
    }

    fn winograd(&mut self) -> Case {
        let (inputs, outputs) = (self.of(&MANY), self.of(&MANY));
        let size: [usize; 2] = std::array::from_fn(|_| 3 + self.below(9));
        let geometry = ConvGeometry { padding: self.pair(&[0, 1, 1, 2, 3]), ..ConvGeometry::default() };
        // Empty batches would otherwise be most of what is small enough; there is one below.
        Case { x: [1 + self.below(3), size[0], size[1], inputs], w: [outputs, inputs, 3, 3], geometry }
    }
}

/// What is worth a case whatever the choices: seams between blocks, bands and runs, and the rarest geometries.
fn fixed() -> Vec<Case> {
    let case = |x, w, [stride, padding, dilation]: [[usize; 2]; 3], groups| Case {
        x,
        w,
        geometry: ConvGeometry { stride, padding, dilation, groups },
    };
    let one = [1, 1];
    vec![
        // Eight outputs in groups: as many as a group is padded to.
        case([2, 5, 5, 8], [8, 1, 3, 3], [one, one, one], 8),
        case([2, 5, 5, 6], [8, 3, 3, 3], [one, one, one], 2),
        case([2, 5, 4, 4], [8, 1, 1, 1], [one, [0, 0], one], 4),
        // No window sees the image's only pixel, and its taps lie beyond the gradients.
        case([1, 1, 1, 2], [3, 2, 1, 2], [[1, 2], [0, 4], [1, 7]], 1),
        // A position within the stride that has taps and no pixel.
        case([2, 3, 1, 2], [3, 2, 1, 4], [[1, 2], [0, 3], [1, 2]], 1),
        case([2, 4, 4, 2], [3, 2, 3, 3], [[1000, 1_000_000_000], one, one], 1),
        case([1, 0, 4, 2], [3, 2, 3, 3], [one, [2, 1], one], 1),
        case([1, 4, 0, 2], [3, 2, 3, 3], [one, [1, 2], one], 1),
        case([0, 8, 8, 80], [80, 80, 3, 3], [one, one, one], 1),
        case([1, 3, 4, 241], [250, 241, 3, 3], [one, one, one], 1),
        case([3, 14, 60, 3], [5, 3, 3, 3], [[2, 1], one, one], 1),
        case([2, 3, 4, 131], [140, 131, 2, 3], [[2, 1], one, one], 1),
        // Enough of everything for Winograd's points on the tile unit: tiles over both edges, no whole block of rows.
        case([3, 14, 13, 128], [256, 128, 3, 3], [one, one, one], 1),
        case([2, 4, 5, 260], [6, 130, 3, 3], [one, one, one], 2),
        case([13, 17, 19, 3], [4, 3, 1, 1], [one, [0, 0], one], 1),
        case([1, 1, 521, 3], [4, 3, 1, 1], [one, [0, 0], one], 1),
        case([35, 16, 16, 16], [65, 16, 3, 3], [one, one, one], 1),
        case([19, 16, 16, 16], [17, 16, 3, 3], [one, one, one], 1),
    ]
}

/// Output and gradients of one case.
struct Passes<T> {
    y: Vec<T>,
    dx: Vec<T>,
    dw: Vec<T>,
}

fn passes(x: &Array, w: &Array, dy: &Array, geometry: &ConvGeometry) -> Result<Passes<f32>> {
    let (x, w) = (Var::from_tensor(&tensor(x))?, Var::from_tensor(&tensor(w))?);
    let y = conv2d(&x, &w, None, geometry)?;
    let gradients = (&y * tensor(dy))?.sum_all()?.backward()?;
    let gradient = |variable: &Var| values(gradients.get(variable).unwrap());
    Ok(Passes { y: values(&y), dx: gradient(&x), dw: gradient(&w) })
}

/// The definition: every product of the forward pass, and its way back.
fn expected(case: &Case, x: &Array, w: &Array, dy: &Array) -> Passes<f64> {
    let ConvGeometry { stride, padding, dilation, groups } = case.geometry;
    let [_, height, width, c_in] = case.x;
    let [c_out, inputs, kh, kw] = case.w;
    let [images, rows, columns, _] = case.output().unwrap();
    let (mut dx, mut dw) = (vec![0.0; x.values.len()], vec![0.0; w.values.len()]);
    let source = |window: usize, tap: usize, axis: usize, size: usize| {
        (window * stride[axis] + tap * dilation[axis]).checked_sub(padding[axis]).filter(|&at| at < size)
    };
    for (pixel, dy) in dy.values.chunks_exact(c_out).enumerate() {
        let (image, row, column) = (pixel / (rows * columns), pixel / columns % rows, pixel % columns);
        for tap in 0..kh * kw {
            let at = source(row, tap / kw, 0, height).zip(source(column, tap % kw, 1, width));
            let Some((y, column)) = at else { continue };
            let start = ((image * height + y) * width + column) * c_in;
            for (output, dy) in dy.iter().enumerate() {
                let start = start + output / (c_out / groups) * inputs;
                for input in 0..inputs {
                    let weight = (output * inputs + input) * kh * kw + tap;
                    dx[start + input] += dy * w.values[weight];
                    dw[weight] += dy * x.values[start + input];
                }
            }
        }
    }
    assert_eq!(dy.values.len(), images * rows * columns * c_out);
    Passes { y: reference::conv2d(x, w, None, &case.geometry).values, dx, dw }
}

#[track_caller]
fn assert_close(name: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(1e-3, |largest: f64, value| largest.max(value.abs()));
    for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs() / largest;
        assert!(error <= tolerance, "{name}: element {index} is {found}, expected {expected}");
    }
}

/// Compares the bits of those elements that `keep` by their index.
#[track_caller]
fn assert_same(name: &str, found: &[f32], expected: &[f32], keep: impl Fn(usize) -> bool) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate().filter(|(index, _)| keep(*index)) {
        assert!(found.to_bits() == expected.to_bits(), "{name}: element {index} is {found}, expected {expected}");
    }
}

fn poisoned(array: &Array, hit: impl Fn(usize) -> bool) -> Array {
    let values = array.values.iter().enumerate().map(|(index, &value)| if hit(index) { f64::NAN } else { value });
    Array { shape: array.shape.clone(), values: values.collect() }
}

/// A NaN stays in its image, its group of channels, and for weights and their gradient in its channel.
fn check_isolation(name: &str, case: &Case, [x, w, dy]: [&Array; 3], clean: &Passes<f32>) {
    let groups = case.geometry.groups;
    let [c_out, inputs, kh, kw] = case.w;
    let (c_in, per_weight) = (case.x[3], inputs * kh * kw);
    let image = |array: &Array| array.shape[1] * array.shape[2] * array.shape[3];
    let run = |x: &Array, w: &Array, dy: &Array| passes(x, w, dy, &case.geometry).unwrap();

    let (first_x, first_dy) = (image(x), image(dy));
    let found = run(&poisoned(x, |at| at < first_x), w, &poisoned(dy, |at| at < first_dy));
    assert_same(&format!("{name}: image, y"), &found.y, &clean.y, |at| at >= first_dy);
    assert_same(&format!("{name}: image, dx"), &found.dx, &clean.dx, |at| at >= first_x);

    // One channel of the input, one of the output.
    let (bad_in, bad_out) = (c_in / 2, c_out / 2);
    let (group_in, group_out) = (bad_in / inputs, bad_out / (c_out / groups));
    let found = run(&poisoned(x, |at| at % c_in == bad_in), w, dy);
    assert_same(&format!("{name}: input channel, y"), &found.y, &clean.y, |at| {
        at % c_out / (c_out / groups) != group_in
    });
    assert_same(&format!("{name}: input channel, dx"), &found.dx, &clean.dx, |_| true);
    assert_same(&format!("{name}: input channel, dw"), &found.dw, &clean.dw, |at| {
        at / per_weight / (c_out / groups) * inputs + at % per_weight / (kh * kw) != bad_in
    });
    let bad_weight = |at: usize| at / per_weight == bad_out;
    let found = run(x, &poisoned(w, bad_weight), &poisoned(dy, |at| at % c_out == bad_out));
    assert_same(&format!("{name}: output channel, y"), &found.y, &clean.y, |at| at % c_out != bad_out);
    assert_same(&format!("{name}: output channel, dx"), &found.dx, &clean.dx, |at| at % c_in / inputs != group_out);
    assert_same(&format!("{name}: output channel, dw"), &found.dw, &clean.dw, |at| !bad_weight(at));
}

#[test]
fn every_path_computes_random_geometries() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (alone, pools) = (pool(1), THREADS.map(pool));
    let mut choices = Choices(1);
    for case in fixed().into_iter().chain((0..CASES).map(|_| choices.case())) {
        let [x, w, dy] = [noise(&case.x, 1), noise(&case.w, 2), noise(&case.output().unwrap(), 3)];
        let expected = expected(&case, &x, &w, &dy);
        let run = |pool: &ThreadPool| pool.install(|| passes(&x, &w, &dy, &case.geometry)).unwrap();
        for path in CpuPath::ALL.into_iter().filter(|path| path.is_available()) {
            set_cpu_path(path).unwrap();
            let name = format!("{path}: {case:?}");
            let found = run(&alone);
            assert_close(&format!("{name}: y"), &found.y, &expected.y, tolerance(path));
            assert_close(&format!("{name}: dx"), &found.dx, &expected.dx, tolerance(path));
            assert_close(&format!("{name}: dw"), &found.dw, &expected.dw, tolerance(path));
            for pool in &pools {
                let (name, other) = (format!("{name}: {} threads", pool.current_num_threads()), run(pool));
                assert_same(&format!("{name}, y"), &other.y, &found.y, |_| true);
                assert_same(&format!("{name}, dx"), &other.dx, &found.dx, |_| true);
                assert_same(&format!("{name}, dw"), &other.dw, &found.dw, |_| true);
            }
            check_isolation(&name, &case, [&x, &w, &dy], &found);
        }
    }
}

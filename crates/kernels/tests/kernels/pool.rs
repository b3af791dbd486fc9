//! Pooling: padding, ceil mode, ties, NaN.

use candle_core::{Device, Tensor, Var};
use taper_kernels::{Padding, PoolGeometry, Rounding, avg_pool2d, global_avg_pool, max_pool2d, reference};

use crate::support::{check, noise, values};

fn geometries() -> Vec<([usize; 4], PoolGeometry)> {
    let geometry = |kernel, stride, padding, rounding| PoolGeometry { kernel, stride, padding, rounding };
    let (floor, ceil) = (Rounding::Floor, Rounding::Ceil);
    vec![
        ([2, 4, 4, 3], PoolGeometry::square(2)),
        ([1, 5, 7, 2], PoolGeometry::square(2)),
        ([1, 5, 7, 2], geometry([2, 2], [2, 2], [0, 0], ceil)),
        ([1, 7, 6, 2], geometry([3, 3], [2, 2], [1, 1], floor)),
        ([1, 6, 7, 2], geometry([3, 3], [2, 2], [1, 1], ceil)),
        ([1, 5, 5, 2], geometry([3, 2], [1, 3], [1, 0], ceil)),
        ([1, 4, 5, 1], geometry([2, 3], [3, 2], [1, 1], ceil)),
        ([1, 3, 3, 2], geometry([2, 2], [2, 2], [1, 1], ceil)),
        ([1, 6, 6, 2], geometry([2, 2], [4, 5], [0, 1], ceil)),
        ([1, 1, 1, 1], PoolGeometry::square(1)),
    ]
}

#[test]
fn max_and_average() {
    for (shape, geometry) in geometries() {
        let inputs = [noise(&shape, 1)];
        let case = format!("{shape:?} {geometry:?}");
        check(&case, &inputs, |i| max_pool2d(&i[0], &geometry), |i| reference::max_pool2d(&i[0], &geometry));
        for padding in [Padding::Counted, Padding::NotCounted] {
            check(
                &format!("{padding:?} {case}"),
                &inputs,
                |i| avg_pool2d(&i[0], &geometry, padding),
                |i| reference::avg_pool2d(&i[0], &geometry, padding),
            );
        }
    }
}

#[test]
fn global_average() {
    for shape in [[2, 3, 4, 5], [1, 1, 1, 1], [3, 1, 7, 2]] {
        check("global", &[noise(&shape, 1)], |i| global_avg_pool(&i[0]), |i| reference::global_avg_pool(&i[0]));
    }
}

fn max_gradient(pixels: Vec<f32>, side: usize, kernel: usize) -> (Vec<f32>, Vec<f32>) {
    let x = Tensor::from_vec(pixels, (1, side, side, 1), &Device::Cpu).unwrap();
    let x = Var::from_tensor(&x).unwrap();
    let y = max_pool2d(&x, &PoolGeometry::square(kernel)).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    (values(&y), values(gradients.get(&x).unwrap()))
}

#[test]
fn a_tie_goes_to_the_first_maximum() {
    assert_eq!(max_gradient(vec![1.0; 4], 2, 2), (vec![1.0], vec![1.0, 0.0, 0.0, 0.0]));
    assert_eq!(max_gradient(vec![0.0, 2.0, 2.0, 1.0], 2, 2).1, [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(max_gradient(vec![-0.0, 0.0, 0.0, -0.0], 2, 2).1, [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn nan_and_infinities() {
    let (y, dx) = max_gradient(vec![f32::NAN, 1.0, f32::NAN, 2.0], 2, 2);
    assert!(y[0].is_nan());
    assert_eq!(dx, [0.0, 0.0, 1.0, 0.0]);
    let (y, dx) = max_gradient(vec![f32::NEG_INFINITY; 4], 2, 2);
    assert_eq!((y, dx), (vec![f32::NEG_INFINITY], vec![1.0, 0.0, 0.0, 0.0]));
}

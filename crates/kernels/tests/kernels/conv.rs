//! Convolution over many small odd geometries.

use candle_core::{DType, Device, Tensor, Var};
use taper_kernels::{ConvGeometry, backward, conv2d, reference};

use crate::support::{assert_close, check, noise, tensor, values};

type Sizes = ([usize; 4], [usize; 4]);

#[track_caller]
fn check_conv(name: &str, (x, w): Sizes, geometry: ConvGeometry) {
    let plain = [noise(&x, 1), noise(&w, 2)];
    check(
        name,
        &plain,
        |inputs| conv2d(&inputs[0], &inputs[1], None, &geometry),
        |inputs| reference::conv2d(&inputs[0], &inputs[1], None, &geometry),
    );
    let [x, w] = plain;
    let bias = noise(&[w.shape[0]], 3);
    check(
        &format!("{name} with bias"),
        &[x, w, bias],
        |inputs| conv2d(&inputs[0], &inputs[1], Some(&inputs[2]), &geometry),
        |inputs| reference::conv2d(&inputs[0], &inputs[1], Some(&inputs[2]), &geometry),
    );
}

fn geometry(stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], groups: usize) -> ConvGeometry {
    ConvGeometry { stride, padding, dilation, groups }
}

#[test]
fn unit_stride() {
    let one = [1, 1];
    check_conv("3x3 same", ([2, 5, 6, 3], [4, 3, 3, 3]), ConvGeometry::same(3));
    check_conv("3x3 valid", ([1, 4, 5, 2], [3, 2, 3, 3]), ConvGeometry::default());
    check_conv("5x5 same on a smaller image", ([1, 3, 4, 2], [2, 2, 5, 5]), ConvGeometry::same(5));
    check_conv("1x3, padded in one axis", ([2, 3, 5, 2], [3, 2, 1, 3]), geometry(one, [0, 1], one, 1));
    check_conv("3x1, padded beyond the window", ([1, 3, 2, 2], [2, 2, 3, 1]), geometry(one, [3, 1], one, 1));
    check_conv("2x2, even window", ([1, 4, 3, 2], [2, 2, 2, 2]), geometry(one, one, one, 1));
    check_conv("more channels than a panel", ([1, 3, 3, 17], [19, 17, 3, 3]), ConvGeometry::same(3));
    check_conv("single pixel", ([1, 1, 1, 1], [1, 1, 1, 1]), ConvGeometry::default());
}

#[test]
fn pointwise() {
    check_conv("1x1", ([2, 3, 4, 5], [3, 5, 1, 1]), ConvGeometry::default());
    check_conv("1x1 with stride", ([2, 5, 4, 3], [4, 3, 1, 1]), geometry([2, 2], [0, 0], [1, 1], 1));
    check_conv("1x1 with padding", ([1, 2, 3, 2], [3, 2, 1, 1]), geometry([1, 1], [1, 1], [1, 1], 1));
}

#[test]
fn strided() {
    check_conv("3x3 by 2, even", ([2, 6, 6, 2], [3, 2, 3, 3]), geometry([2, 2], [1, 1], [1, 1], 1));
    check_conv("3x3 by 2, mixed parity", ([1, 5, 6, 2], [3, 2, 3, 3]), geometry([2, 2], [1, 1], [1, 1], 1));
    check_conv("7x7 by 2, padded by 3", ([1, 8, 7, 2], [2, 2, 7, 7]), geometry([2, 2], [3, 3], [1, 1], 1));
    check_conv("stride above the window", ([1, 7, 8, 2], [2, 2, 2, 2]), geometry([3, 4], [0, 1], [1, 1], 1));
    check_conv("one stride only", ([1, 5, 5, 2], [2, 2, 3, 3]), geometry([1, 2], [1, 0], [1, 1], 1));
}

#[test]
fn dilated() {
    check_conv("dilation 2", ([1, 6, 7, 2], [3, 2, 3, 3]), geometry([1, 1], [2, 2], [2, 2], 1));
    check_conv("dilation and stride", ([1, 8, 7, 2], [2, 2, 3, 3]), geometry([2, 1], [1, 2], [2, 3], 1));
}

#[test]
fn grouped() {
    check_conv("two groups", ([2, 4, 5, 4], [6, 2, 3, 3]), geometry([1, 1], [1, 1], [1, 1], 2));
    check_conv("depthwise", ([1, 4, 4, 3], [3, 1, 3, 3]), geometry([1, 1], [1, 1], [1, 1], 3));
    check_conv("depthwise, multiplied, strided", ([1, 5, 4, 2], [4, 1, 3, 3]), geometry([2, 2], [1, 1], [1, 1], 2));
    check_conv("grouped 1x1", ([1, 3, 3, 4], [4, 2, 1, 1]), geometry([1, 1], [0, 0], [1, 1], 2));
}

/// Several bands per image and several images per partial sum, so that their seams are crossed.
/// The convolution is linear in either argument, so its gradients are its adjoints:
/// `⟨dx, u⟩ = ⟨dy, u ∗ w⟩` and `⟨dw, v⟩ = ⟨dy, x ∗ v⟩` for any `u` and `v`.
#[test]
fn larger_than_a_band() {
    for (name, geometry) in [("rows", ConvGeometry::same(3)), ("windows", geometry([2, 2], [1, 1], [1, 1], 1))] {
        let (x, w) = (noise(&[19, 21, 33, 6], 1), noise(&[5, 6, 3, 3], 2));
        let expected = reference::conv2d(&x, &w, None, &geometry);
        let (x_var, w_var) = (Var::from_tensor(&tensor(&x)).unwrap(), Var::from_tensor(&tensor(&w)).unwrap());
        let y = conv2d(&x_var, &w_var, None, &geometry).unwrap();
        assert_close(name, &values(&y), &expected.values, 3e-6);
        let dy = noise(&expected.shape, 3);
        let gradients = (y * tensor(&dy)).unwrap().sum_all().unwrap().backward().unwrap();
        let (u, v) = (noise(&x.shape, 4), noise(&w.shape, 5));
        let adjoints = [
            (&x_var, &u, reference::conv2d(&u, &w, None, &geometry)),
            (&w_var, &v, reference::conv2d(&x, &v, None, &geometry)),
        ];
        for (variable, direction, image) in adjoints {
            let found = inner(&values(gradients.get(variable).unwrap()), &direction.values);
            let dy: Vec<f32> = dy.values.iter().map(|&value| value as f32).collect();
            let expected = inner(&dy, &image.values);
            assert!((found - expected).abs() < 1e-5 * expected.abs().max(1e2), "{name}: {found}, expected {expected}");
        }
    }
}

fn inner(left: &[f32], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(&left, right)| f64::from(left) * right).sum()
}

#[test]
fn strided_inputs_are_read_as_they_look() {
    let x = tensor(&noise(&[2, 3, 5, 4], 1)).permute((0, 2, 3, 1)).unwrap();
    let w = tensor(&noise(&[3, 3, 3, 2], 2)).transpose(0, 3).unwrap();
    let geometry = ConvGeometry::same(3);
    let strided = conv2d(&x, &w, None, &geometry).unwrap();
    let dense = conv2d(&x.contiguous().unwrap(), &w.contiguous().unwrap(), None, &geometry).unwrap();
    assert_eq!(values(&strided), values(&dense));
}

/// A convolution 1×1 of sixteen channels, on one value at each of them.
fn pointwise_of(x: f32, w: Vec<f32>) -> (Vec<f32>, Vec<f32>) {
    let x = Var::from_tensor(&Tensor::full(x, (1, 3, 3, 16), &Device::Cpu).unwrap()).unwrap();
    let w = Tensor::from_vec(w, (16, 16, 1, 1), &Device::Cpu).unwrap();
    let y = conv2d(&x, &w, None, &ConvGeometry::default()).unwrap();
    let values_of_y = values(&y);
    (values_of_y, values(backward(y).unwrap().get(&x).unwrap()))
}

#[test]
fn a_weight_concerns_its_own_sums_alone() {
    for weight in [2f32.powi(30), 0.5f32.powi(30), f32::NAN] {
        let mut w = vec![1.0; 256];
        w[0] = weight;
        let (y, dx) = pointwise_of(1.0, w);
        for pixel in y.chunks_exact(16).chain(dx.chunks_exact(16)) {
            assert!(pixel[1..].iter().all(|&value| (value - 16.0).abs() < 1e-5), "{weight}: {pixel:?}");
        }
    }
}

#[test]
fn large_and_small_values_stay_in_range() {
    for (x, w) in [(1e36, 1e-3), (1e-3, 1e36), (1e-30, 1.0), (1e30, 1e-30), (3e38, 1e-30)] {
        let (y, dx) = pointwise_of(x, vec![w; 256]);
        assert!(y.iter().all(|&value| (value / (16.0 * (x * w)) - 1.0).abs() < 1e-5), "{x} {w}: {}", y[0]);
        assert!(dx.iter().all(|&value| (value / (16.0 * w) - 1.0).abs() < 1e-5), "{x} {w}: {}", dx[0]);
    }
}

#[test]
fn gradients_nobody_asks_for_are_absent() {
    let x = tensor(&noise(&[1, 4, 4, 2], 1));
    let w = Var::from_tensor(&tensor(&noise(&[2, 2, 3, 3], 2))).unwrap();
    let gradients = conv2d(&x, &w, None, &ConvGeometry::same(3)).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&x).is_none());
    assert!(gradients.get(&w).is_some_and(|gradient| !gradient.track_op()));
}

#[test]
fn an_empty_batch_gives_an_empty_result() {
    let x = Tensor::zeros((0, 4, 4, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let w = tensor(&noise(&[3, 2, 3, 3], 2));
    let y = conv2d(&x, &w, None, &ConvGeometry::same(3)).unwrap();
    assert_eq!(y.dims(), [0, 4, 4, 3]);
}

#[test]
fn images_without_pixels_are_padding() {
    for size in [[0, 10], [10, 0]] {
        let x = Tensor::zeros((1, size[0], size[1], 3), DType::F32, &Device::Cpu).unwrap();
        let w = Tensor::ones((16, 3, 7, 7), DType::F32, &Device::Cpu).unwrap();
        let y = conv2d(&x, &w, None, &geometry([2, 2], [4, 4], [1, 1], 1)).unwrap();
        assert!(values(&y).iter().all(|&value| value == 0.0));
    }
}

#[test]
fn windows_far_apart_take_no_room_in_between() {
    let (x, w) = (noise(&[1, 9, 1000, 3], 1), noise(&[16, 3, 7, 7], 2));
    let geometry = geometry([2, 1_000_000_000], [1, 1], [1, 1], 1);
    let y = conv2d(&tensor(&x), &tensor(&w), None, &geometry).unwrap();
    assert_close("y", &values(&y), &reference::conv2d(&x, &w, None, &geometry).values, 1e-5);
}

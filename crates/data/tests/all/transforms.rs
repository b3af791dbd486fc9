//! What transforms draw, and what they do to pixels.

use taper_data::{Compose, DataError, Image, Interpolation, Op, PadMode, Preprocess, Region, Transform, rng};

/// An image whose pixel in row `r` and column `c` is `[10 r + c, 0, 255 - 10 r - c]`.
fn numbered(height: usize, width: usize) -> Image {
    let pixel = |place: usize| {
        let number = (10 * (place / width) + place % width) as u8;
        [number, 0, 255 - number]
    };
    Image::new(height, width, (0..height * width).flat_map(pixel).collect()).unwrap()
}

/// The red channel, row by row.
fn red(image: &Image) -> Vec<Vec<u8>> {
    (0..image.height()).map(|row| (0..image.width()).map(|column| image.pixel(row, column)[0]).collect()).collect()
}

fn draws(transform: &Transform, size: [usize; 2]) -> Vec<Op> {
    (0..2000).map(|index| transform.draw(size, &mut rng::for_sample(0, 0, index))).collect()
}

#[test]
fn a_random_crop_reaches_both_ends_and_no_further() {
    let cases = [
        ([32, 32], [32, 32], 4, [8, 8]),
        ([32, 32], [32, 32], 0, [0, 0]),
        ([5, 9], [3, 4], 1, [4, 7]),
        // Larger than the padded image: one place, which `apply` then refuses.
        ([2, 2], [9, 9], 1, [0, 0]),
    ];
    for (size, crop, padding, last) in cases {
        let transform = Transform::RandomCrop { size: crop, padding, mode: PadMode::Zero };
        let places: Vec<[usize; 2]> = draws(&transform, size)
            .into_iter()
            .map(|op| match op {
                Op::Crop { top, left, .. } => [top, left],
                other => panic!("{other:?}"),
            })
            .collect();
        for axis in 0..2 {
            let found = |place| places.iter().any(|drawn| drawn[axis] == place);
            assert!((0..=last[axis]).all(found), "{size:?} {crop:?}: every place of axis {axis}");
            assert!(places.iter().all(|drawn| drawn[axis] <= last[axis]));
        }
    }
}

#[test]
fn a_flip_is_as_frequent_as_asked() {
    for (probability, range) in [(0.0, 0..=0), (0.5, 900..=1100), (1.0, 2000..=2000)] {
        for (transform, flip) in [
            (Transform::HorizontalFlip { probability }, Op::FlipHorizontal),
            (Transform::VerticalFlip { probability }, Op::FlipVertical),
        ] {
            let count = draws(&transform, [1, 1]).iter().filter(|op| **op == flip).count();
            assert!(range.contains(&count), "{transform:?}: {count}");
        }
    }
}

#[test]
fn crops_take_the_right_pixels() {
    let crop = |top, left, size, padding, mode| Op::Crop { top, left, size, padding, mode };
    let cases: [(Op, &[&[u8]]); 6] = [
        (crop(0, 0, [3, 3], 0, PadMode::Zero), &[&[0, 1, 2], &[10, 11, 12], &[20, 21, 22]]),
        (crop(1, 2, [2, 1], 0, PadMode::Zero), &[&[12], &[22]]),
        (crop(0, 0, [2, 3], 1, PadMode::Zero), &[&[0, 0, 0], &[0, 0, 1]]),
        (crop(3, 2, [2, 3], 1, PadMode::Zero), &[&[21, 22, 0], &[0, 0, 0]]),
        // The edge itself is not repeated.
        (crop(0, 0, [3, 3], 2, PadMode::Reflect), &[&[22, 21, 20], &[12, 11, 10], &[2, 1, 0]]),
        (crop(4, 4, [3, 3], 2, PadMode::Reflect), &[&[22, 21, 20], &[12, 11, 10], &[2, 1, 0]]),
    ];
    for (op, expected) in cases {
        let result = op.apply(numbered(3, 3)).unwrap();
        assert_eq!(red(&result), expected, "{op:?}");
        assert_eq!(result.size(), op.output_size([3, 3]));
        let whole = |row: usize, column: usize| {
            result.pixel(row, column) == [0, 0, 0] || result.pixel(row, column)[0] == 255 - result.pixel(row, column)[2]
        };
        assert!(
            (0..result.height()).all(|row| (0..result.width()).all(|column| whole(row, column))),
            "channels stay together"
        );
    }
}

#[test]
fn a_flip_mirrors_rows() {
    let flipped = Op::FlipHorizontal.apply(numbered(2, 3)).unwrap();
    assert_eq!(red(&flipped), [[2, 1, 0], [12, 11, 10]]);
    assert_eq!(Op::FlipHorizontal.apply(flipped).unwrap(), numbered(2, 3));
    assert_eq!(Op::Keep.apply(numbered(2, 3)).unwrap(), numbered(2, 3));
    assert_eq!(red(&Op::FlipVertical.apply(numbered(2, 3)).unwrap()), [[10, 11, 12], [0, 1, 2]]);
}

#[test]
fn crops_that_do_not_fit_are_errors() {
    for (top, size, padding, mode) in [
        (0, [4, 3], 0, PadMode::Zero),
        (2, [2, 2], 0, PadMode::Zero),
        (0, [0, 3], 0, PadMode::Zero),
        (0, [3, 3], 3, PadMode::Reflect),
    ] {
        let error = Op::Crop { top, left: 0, size, padding, mode }.apply(numbered(3, 3)).unwrap_err();
        assert!(matches!(error, DataError::Transform { operation: "crop", .. }), "{error}");
    }
}

#[test]
fn sizes_are_torchvisions() {
    let resize = |side| Transform::Resize { side, interpolation: Interpolation::Bilinear };
    let centre = |size| Transform::CenterCrop { size };
    let cases = [
        (resize(256), [300, 400], [256, 341]),
        (resize(256), [500, 375], [341, 256]),
        (resize(10), [10, 10], [10, 10]),
        (resize(2), [1000, 1], [2000, 2]),
        (centre([224, 224]), [256, 341], [224, 224]),
    ];
    for (transform, size, expected) in cases {
        let op = transform.draw(size, &mut rng::for_sample(0, 0, 0));
        assert_eq!(op.output_size(size), expected, "{transform:?}");
    }
    // Python rounds a half to even: 58.5 to 58, 0.5 to 0, 1.5 to 2.
    for (length, crop, start) in [(341, 224, 58), (5, 4, 0), (7, 4, 2), (8, 4, 2), (4, 4, 0)] {
        match centre([crop, crop]).draw([length, length], &mut rng::for_sample(0, 0, 0)) {
            Op::Crop { top, left, .. } => assert_eq!((top, left), (start, start), "{length} {crop}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn resizing_averages() {
    // Two halves of one colour each: far from the border nothing mixes, and a reduction keeps the mean.
    let pixels: Vec<u8> =
        (0..64 * 64).flat_map(|place| if place % 64 < 32 { [0, 100, 200] } else { [200, 100, 0] }).collect();
    let image = Image::new(64, 64, pixels).unwrap();
    for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
        let small = Op::Resize { size: [16, 8], interpolation }.apply(image.clone()).unwrap();
        assert_eq!((small.size(), small.pixel(8, 0), small.pixel(8, 7)), ([16, 8], [0, 100, 200], [200, 100, 0]));
        let one = Op::Resize { size: [1, 1], interpolation }.apply(image.clone()).unwrap();
        assert!(one.pixel(0, 0).iter().all(|byte| byte.abs_diff(100) <= 1), "{:?}", one.pixel(0, 0));
        assert!(Op::Resize { size: [0, 1], interpolation }.apply(image.clone()).is_err());
        assert!(Op::Resize { size: [1, 1 << 20], interpolation }.apply(image.clone()).is_err());
    }
}

#[test]
fn a_list_hands_sizes_on() {
    let compose = Preprocess { resize: Some(8), input_size: [6, 6], ..Preprocess::imagenet() }.eval_transform();
    let ops = compose.draw([16, 32], &mut rng::for_sample(0, 0, 0));
    assert_eq!(ops[0].output_size([16, 32]), [8, 16]);
    assert!(matches!(ops[1], Op::Crop { top: 1, left: 5, size: [6, 6], .. }), "{ops:?}");
    let result = compose.apply(numbered(16, 32), &mut rng::for_sample(0, 0, 0)).unwrap();
    assert_eq!(result.size(), [6, 6]);

    let unscaled = Preprocess { resize: None, input_size: [3, 3], ..Preprocess::imagenet() }.eval_transform();
    let same = unscaled.apply(numbered(3, 3), &mut rng::for_sample(0, 0, 0)).unwrap();
    assert_eq!(same, numbered(3, 3));
    assert_eq!(unscaled.apply(numbered(9, 5), &mut rng::for_sample(0, 0, 0)).unwrap().size(), [3, 3]);
}

#[test]
fn wrong_settings_are_named() {
    for (transform, expected) in [
        (Transform::HorizontalFlip { probability: 1.5 }, "flip probability"),
        (Transform::HorizontalFlip { probability: f32::NAN }, "flip probability"),
        (Transform::RandomCrop { size: [0, 1], padding: 0, mode: PadMode::Zero }, "crop size"),
        (Transform::Resize { side: 0, interpolation: Interpolation::Bicubic }, "resize side"),
        (Transform::VerticalFlip { probability: -0.1 }, "flip probability"),
        (resized_crop([0.0, 1.0], [0.75, 1.3]), "crop scale"),
        (resized_crop([0.5, 1.5], [0.75, 1.3]), "crop scale"),
        (resized_crop([0.5, 0.4], [0.75, 1.3]), "crop scale"),
        (resized_crop([0.1, 1.0], [1.3, 0.75]), "crop ratio"),
        (resized_crop([0.1, 1.0], [0.0, f32::INFINITY]), "crop ratio"),
        (Transform::ColorJitter { brightness: -1.0, contrast: 0.0, saturation: 0.0, hue: 0.0 }, "color jitter"),
        (
            Transform::ColorJitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.6 },
            "color jitter of the hue",
        ),
    ] {
        let message = Compose(vec![transform]).validate().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

fn resized_crop(scale: [f32; 2], ratio: [f32; 2]) -> Transform {
    Transform::RandomResizedCrop { size: [8, 8], scale, ratio, interpolation: Interpolation::Bilinear }
}

#[test]
fn a_region_is_scaled_as_if_it_were_an_image_of_its_own() {
    let interpolation = Interpolation::Bilinear;
    let region = Region { top: 2, left: 1, size: [6, 7] };
    let cut =
        Op::Crop { top: 2, left: 1, size: [6, 7], padding: 0, mode: PadMode::Zero }.apply(numbered(9, 9)).unwrap();
    let expected = Op::Resize { size: [3, 12], interpolation }.apply(cut).unwrap();
    let found = Op::ResizedCrop { region, size: [3, 12], interpolation }.apply(numbered(9, 9)).unwrap();
    assert_eq!(found, expected);
    for region in [Region { top: 4, ..region }, Region { left: 9, ..region }, Region { size: [0, 1], ..region }] {
        assert!(Op::ResizedCrop { region, size: [3, 3], interpolation }.apply(numbered(9, 9)).is_err(), "{region:?}");
    }
    let whole = Region { top: 0, left: 0, size: [9, 9] };
    assert_eq!(
        Op::ResizedCrop { region: whole, size: [9, 9], interpolation }.apply(numbered(9, 9)).unwrap(),
        numbered(9, 9)
    );
}

//! Files and images as Pillow and torchvision have them; `xtask/golden/photos.py` made the goldens.

use std::path::Path;

use safetensors::SafeTensors;
use taper_data::{ColorStep, Image, Interpolation, Op, Preprocess, Region, decode, rng};

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/golden/photos").join(name)).unwrap()
}

fn image_of(tensors: &SafeTensors<'_>, name: &str) -> Image {
    let tensor = tensors.tensor(name).unwrap();
    Image::new(tensor.shape()[0], tensor.shape()[1], tensor.data().to_vec()).unwrap()
}

/// The largest and the mean difference of two images of one size.
fn differences(found: &Image, expected: &Image) -> (u8, f64) {
    assert_eq!(found.size(), expected.size());
    let each: Vec<u8> = found.pixels().iter().zip(expected.pixels()).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: u64 = each.iter().map(|difference| u64::from(*difference)).sum();
    (each.iter().copied().max().unwrap(), sum as f64 / each.len() as f64)
}

/// The script's `formula`.
fn formula(height: usize, width: usize) -> Image {
    let byte = |place: usize| {
        let (row, column, channel) = (place / (3 * width), place / 3 % width, place % 3);
        let slope = (row * 3 + column * 2 + channel * 40) % 256;
        let wave = (row * row + column * (channel + 1)) / 8 % 64;
        let edge = if (row / 16 + column / 12).is_multiple_of(2) { 0 } else { 90 };
        ((slope + wave + edge) / 2 % 256) as u8
    };
    Image::new(height, width, (0..height * width * 3).map(byte).collect()).unwrap()
}

#[test]
fn files_are_read_as_pillow_reads_them() {
    let bytes = golden("decode.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut num_files = 0;
    for name in tensors.names().into_iter().filter_map(|name| name.strip_suffix(".file")) {
        let path = folder.path().join(name);
        std::fs::write(&path, tensors.tensor(&format!("{name}.file")).unwrap().data()).unwrap();
        let image = decode(&path).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let (largest, mean) = differences(&image, &image_of(&tensors, &format!("{name}.rgb")));
        // JPEG: the decoders round the inverse cosine transform and the colour conversion differently. All else is exact.
        let (most, most_mean) = if name.starts_with("jpeg") { (3, 0.15) } else { (0, 0.0) };
        assert!(largest <= most && mean <= most_mean, "{name}: {largest} {mean}");
        num_files += 1;
    }
    assert_eq!(num_files, 28);
}

#[test]
fn transforms_are_torchvisions() {
    let bytes = golden("transforms.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for name in tensors.names() {
        let found = transformed(name);
        let (largest, mean) = differences(&found, &image_of(&tensors, name));
        // Scaling: weights are rounded to 16 bits here, to 22 in Pillow. Colours are the same f32 operations.
        let is_scaled = name.ends_with("linear") || name.ends_with("cubic");
        let (most, most_mean) = if is_scaled { (2, 0.04) } else { (0, 0.0) };
        assert!(largest <= most && mean <= most_mean, "{name}: {largest} {mean}");
    }
    assert_eq!(tensors.len(), 15);
}

fn transformed(name: &str) -> Image {
    let (kind, argument) = name.rsplit_once('_').unwrap();
    let interpolation = if argument == "bicubic" { Interpolation::Bicubic } else { Interpolation::Bilinear };
    let factor = || argument.parse::<f32>().unwrap();
    let color = |step| Op::AdjustColor { steps: [step, ColorStep::Hue(0.0), ColorStep::Hue(0.0), ColorStep::Hue(0.0)] };
    let op = match kind {
        "eval" => {
            let preprocess =
                Preprocess { resize: Some(64), input_size: [56, 56], interpolation, ..Preprocess::imagenet() };
            let image = formula(150, 201);
            return preprocess.eval_transform().apply(image, &mut rng::for_sample(0, 0, 0)).unwrap();
        }
        "enlarged" => return Op::Resize { size: [45, 69], interpolation }.apply(formula(20, 31)).unwrap(),
        "resized_crop" => {
            let region = Region { top: 17, left: 30, size: [90, 101] };
            return Op::ResizedCrop { region, size: [48, 40], interpolation }.apply(formula(150, 201)).unwrap();
        }
        "brightness" => color(ColorStep::Brightness(factor())),
        "contrast" => color(ColorStep::Contrast(factor())),
        "saturation" => color(ColorStep::Saturation(factor())),
        "hue" => color(ColorStep::Hue(factor())),
        _ => panic!("{name}"),
    };
    op.apply(formula(40, 40)).unwrap()
}

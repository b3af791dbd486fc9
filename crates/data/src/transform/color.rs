//! Brightness, contrast, saturation and hue.
//!
//! The arithmetic is that of torchvision's `transforms.v2.functional` on byte tensors
//! (`torchvision/transforms/v2/functional/_color.py`), in f32; its PIL twin computes the hue in 8 bits.

use crate::rng::Rng;
use crate::{Image, Result};

/// Weights of red, green and blue in grey (ITU-R BT.601, as torchvision rounds them).
const GREY: [f32; 3] = [0.2989, 0.587, 0.114];

/// One change of all colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ColorStep {
    /// Multiplies; 0 is black, 1 keeps the image.
    Brightness(f32),
    /// Stretches the distance to the image's mean grey; 0 is that grey, 1 keeps the image.
    Contrast(f32),
    /// Stretches the distance to each pixel's own grey; 0 is a grey image, 1 keeps it.
    Saturation(f32),
    /// Turns the hue, in whole circles; 0 keeps the image.
    Hue(f32),
}

/// Draws an order and the four numbers; `amounts` are those of brightness, contrast, saturation and hue. All are drawn
/// whatever the amounts, so that one setting does not change what another one draws.
pub(super) fn draw(amounts: [f32; 4], rng: &mut Rng) -> [ColorStep; 4] {
    let mut order = [0, 1, 2, 3];
    rng.shuffle(&mut order);
    let mut around = |centre: f32, amount: f32, least: f32| {
        let low = (centre - amount).max(least);
        low + (centre + amount - low) * rng.unit_f32()
    };
    let [brightness, contrast, saturation, hue] = amounts;
    let steps = [
        ColorStep::Brightness(around(1.0, brightness, 0.0)),
        ColorStep::Contrast(around(1.0, contrast, 0.0)),
        ColorStep::Saturation(around(1.0, saturation, 0.0)),
        ColorStep::Hue(around(0.0, hue, -0.5)),
    ];
    order.map(|place: usize| steps[place])
}

/// Applies the steps, each to bytes, as torchvision does.
pub(super) fn apply(image: Image, steps: &[ColorStep]) -> Result<Image> {
    let [height, width] = image.size();
    let mut bytes = image.into_pixels();
    for step in steps {
        let pixels = bytes.as_chunks_mut::<3>().0;
        match *step {
            ColorStep::Brightness(1.0) | ColorStep::Contrast(1.0) | ColorStep::Saturation(1.0) => {}
            ColorStep::Hue(0.0) => {}
            ColorStep::Brightness(factor) => {
                let scaled: [u8; 256] = std::array::from_fn(|byte| byte_of(byte as f32 * factor));
                pixels.iter_mut().flatten().for_each(|byte| *byte = scaled[usize::from(*byte)]);
            }
            ColorStep::Contrast(factor) => {
                let sum: u64 = pixels.iter().map(|pixel| grey(*pixel) as u64).sum();
                let mean = (sum as f64 / pixels.len() as f64) as f32;
                let blended: [u8; 256] = std::array::from_fn(|byte| blend(byte as f32, mean, factor));
                pixels.iter_mut().flatten().for_each(|byte| *byte = blended[usize::from(*byte)]);
            }
            ColorStep::Saturation(factor) => {
                for pixel in pixels {
                    let grey = grey(*pixel);
                    *pixel = pixel.map(|byte| blend(f32::from(byte), grey, factor));
                }
            }
            ColorStep::Hue(turn) => pixels.iter_mut().for_each(|pixel| *pixel = turned(*pixel, turn)),
        }
    }
    Image::new(height, width, bytes)
}

/// What is left of a number when it becomes a byte: no fraction, nothing outside of 0..=255.
fn byte_of(value: f32) -> u8 {
    // The conversion saturates and cuts the fraction off.
    value as u8
}

fn blend(value: f32, other: f32, ratio: f32) -> u8 {
    byte_of(value * ratio + other * (1.0 - ratio))
}

/// Grey without its fraction.
fn grey(pixel: [u8; 3]) -> f32 {
    let [red, green, blue] = pixel.map(f32::from);
    (red * GREY[0] + green * GREY[1] + blue * GREY[2]).floor()
}

/// The pixel with its hue turned, through hue, saturation and value (Smith 1978).
fn turned(pixel: [u8; 3], turn: f32) -> [u8; 3] {
    let [red, green, blue] = pixel.map(|byte| f32::from(byte) / 255.0);
    let (value, least) = (red.max(green).max(blue), red.min(green).min(blue));
    let range = value - least;
    if range == 0.0 {
        return pixel;
    }
    let saturation = range / value;
    let [from_red, from_green, from_blue] = [red, green, blue].map(|channel| (value - channel) / range);
    let sextant = if value == red {
        from_blue - from_green
    } else if value == green {
        2.0 + from_red - from_blue
    } else {
        4.0 + from_green - from_red
    };
    let hue = ((sextant / 6.0 + 1.0).fract() + turn).rem_euclid(1.0) * 6.0;
    let fraction = hue - hue.floor();
    let low = value * (1.0 - saturation);
    let falling = value * (1.0 - saturation * fraction);
    let rising = value * (1.0 - saturation + saturation * fraction);
    let turned = match hue.floor() as u8 % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    };
    // Scaled so that the highest value and no other becomes 255, as torchvision's conversion to bytes.
    turned.map(|channel| byte_of(channel.clamp(0.0, 1.0) * 255.999))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn draws_keep_to_their_ranges_and_reach_both_ends() {
        let draws: Vec<[ColorStep; 4]> =
            (0..2000).map(|index| draw([0.4, 0.2, 3.0, 0.1], &mut rng::for_sample(0, 0, index))).collect();
        let ranges = [(0.6, 1.4), (0.8, 1.2), (0.0, 4.0), (-0.1, 0.1)];
        for (kind, (low, high)) in ranges.into_iter().enumerate() {
            let numbers: Vec<f32> = draws.iter().flatten().filter_map(|step| number(*step, kind)).collect();
            assert_eq!(numbers.len(), draws.len());
            let slack = (high - low) * 0.01;
            let (least, most) = numbers.iter().fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
            assert!(
                (low..low + slack).contains(&least) && (high - slack..=high).contains(&most),
                "{kind}: {least} {most}"
            );
        }
        let first = |kind: usize| draws.iter().filter(|steps| number(steps[0], kind).is_some()).count();
        assert!((0..4).all(|kind| (400..600).contains(&first(kind))), "every order is as likely");
    }

    fn number(step: ColorStep, kind: usize) -> Option<f32> {
        match (step, kind) {
            (ColorStep::Brightness(number), 0) | (ColorStep::Contrast(number), 1) => Some(number),
            (ColorStep::Saturation(number), 2) | (ColorStep::Hue(number), 3) => Some(number),
            _ => None,
        }
    }

    #[test]
    fn factors_of_nothing_keep_the_image() {
        let image = Image::new(1, 3, vec![1, 200, 30, 40, 50, 60, 255, 0, 128]).unwrap();
        let steps = draw([0.0; 4], &mut rng::for_sample(0, 0, 0));
        assert_eq!(apply(image.clone(), &steps).unwrap(), image);
    }

    #[test]
    fn known_colours() {
        let colour =
            |step, pixel: [u8; 3]| apply(Image::new(1, 1, pixel.to_vec()).unwrap(), &[step]).unwrap().pixel(0, 0);
        let cases = [
            (ColorStep::Brightness(0.5), [200, 100, 51], [100, 50, 25]),
            (ColorStep::Brightness(2.0), [200, 100, 0], [255, 200, 0]),
            (ColorStep::Contrast(0.0), [200, 100, 0], [118, 118, 118]),
            (ColorStep::Saturation(0.0), [200, 100, 0], [118, 118, 118]),
            (ColorStep::Hue(1.0 / 3.0), [255, 0, 0], [0, 255, 0]),
            (ColorStep::Hue(-1.0 / 3.0), [255, 0, 0], [0, 0, 255]),
            (ColorStep::Hue(0.5), [10, 10, 10], [10, 10, 10]),
        ];
        for (step, pixel, expected) in cases {
            let found = colour(step, pixel);
            assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 1), "{step:?} {pixel:?}: {found:?}");
        }
    }
}

//! Changes to an image, drawn first and applied after.

use serde::{Deserialize, Serialize};

use crate::resize::resize;
use crate::rng::Rng;
use crate::{DataError, Image, Interpolation, Result};

/// What lies outside of an image where a crop reaches over its edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadMode {
    /// Black.
    Zero,
    /// The image mirrored at its edge pixels, which are not repeated (PyTorch's `reflect`).
    Reflect,
}

/// A change to an image, before its random numbers are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// Pads all four sides and cuts `size` out at a place drawn evenly from all there are.
    RandomCrop {
        /// `[height, width]` of the result.
        size: [usize; 2],
        /// Pixels added on each side before.
        padding: usize,
        /// What they are.
        mode: PadMode,
    },
    /// Mirrors left to right.
    HorizontalFlip {
        /// How often: 0 never, 1 always.
        probability: f32,
    },
    /// Scales the shorter side to `side`; the other keeps the proportion, rounded down as torchvision does.
    Resize {
        /// Length of the shorter side, in pixels.
        side: usize,
        /// How pixels are computed.
        interpolation: Interpolation,
    },
    /// Scales to `size` whatever the proportion; an image of that size is left as it is.
    ResizeExact {
        /// `[height, width]` of the result.
        size: [usize; 2],
        /// How pixels are computed.
        interpolation: Interpolation,
    },
    /// Cuts `size` out of the middle, rounded as torchvision does.
    CenterCrop {
        /// `[height, width]` of the result.
        size: [usize; 2],
    },
}

/// A change to an image with all its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Leaves the image as it is.
    Keep,
    /// Mirrors left to right.
    FlipHorizontal,
    /// Cuts `size` out of the image after `padding` pixels were added on each side.
    Crop {
        /// First row, counted in the padded image.
        top: usize,
        /// First column, counted in the padded image.
        left: usize,
        /// `[height, width]` of the result.
        size: [usize; 2],
        /// Pixels added on each side.
        padding: usize,
        /// What they are.
        mode: PadMode,
    },
    /// Scales to `size`.
    Resize {
        /// `[height, width]` of the result.
        size: [usize; 2],
        /// How pixels are computed.
        interpolation: Interpolation,
    },
}

impl Transform {
    /// Draws the numbers for an image of `size` `[height, width]`. Whether they fit is found when they are applied.
    pub fn draw(&self, size: [usize; 2], rng: &mut Rng) -> Op {
        match *self {
            Self::RandomCrop { size: crop, padding, mode } => {
                let mut place = |axis: usize| {
                    let free = (size[axis] + 2 * padding).saturating_sub(crop[axis]);
                    rng.below(free + 1)
                };
                let (top, left) = (place(0), place(1));
                Op::Crop { top, left, size: crop, padding, mode }
            }
            Self::HorizontalFlip { probability } if rng.unit_f32() < probability => Op::FlipHorizontal,
            Self::HorizontalFlip { .. } => Op::Keep,
            Self::Resize { side, interpolation } => Op::Resize { size: scaled(size, side), interpolation },
            Self::ResizeExact { size, interpolation } => Op::Resize { size, interpolation },
            Self::CenterCrop { size: crop } => {
                let [top, left] = std::array::from_fn(|axis| centred(size[axis], crop[axis]));
                Op::Crop { top, left, size: crop, padding: 0, mode: PadMode::Zero }
            }
        }
    }

    /// Checks the settings, whatever the image.
    ///
    /// # Errors
    /// [`DataError::InvalidOption`] for a size of zero or a probability outside of 0..=1.
    pub fn validate(&self) -> Result<()> {
        let (option, reason) = match *self {
            Self::RandomCrop { size, .. } if size.contains(&0) => ("crop size", "it is zero".to_string()),
            Self::CenterCrop { size } if size.contains(&0) => ("crop size", "it is zero".to_string()),
            Self::ResizeExact { size, .. } if size.contains(&0) => ("resize size", "it is zero".to_string()),
            Self::Resize { side: 0, .. } => ("resize side", "it is zero".to_string()),
            Self::HorizontalFlip { probability } if !(0.0..=1.0).contains(&probability) => {
                ("flip probability", format!("{probability} is not within 0 to 1"))
            }
            _ => return Ok(()),
        };
        Err(DataError::InvalidOption { option, reason })
    }
}

/// `[height, width]` with the shorter side at `side`, the longer one truncated but never zero.
fn scaled(size: [usize; 2], side: usize) -> [usize; 2] {
    let short = size[0].min(size[1]).max(1);
    size.map(|length| if length == short { side } else { side * length / short })
}

/// Where a crop in the middle begins: half of what is left over, a half pixel rounded to even as Python rounds.
fn centred(length: usize, crop: usize) -> usize {
    let free = length.saturating_sub(crop);
    let half = free / 2;
    if free % 2 == 1 { half + half % 2 } else { half }
}

impl Op {
    /// `[height, width]` after this change of an image of `size`.
    pub fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        match *self {
            Self::Keep | Self::FlipHorizontal => size,
            Self::Crop { size, .. } | Self::Resize { size, .. } => size,
        }
    }

    /// Changes the image.
    ///
    /// # Errors
    /// [`DataError::Transform`] if a crop does not lie in the padded image, or a reflection is wider than the image.
    pub fn apply(&self, image: Image) -> Result<Image> {
        match *self {
            Self::Keep => Ok(image),
            Self::FlipHorizontal => flip(&image),
            Self::Crop { top, left, size, padding: 0, .. } if [top, left] == [0, 0] && size == image.size() => {
                Ok(image)
            }
            Self::Crop { top, left, size, padding, mode } => crop(&image, [top, left], size, padding, mode),
            Self::Resize { size, .. } if size == image.size() => Ok(image),
            Self::Resize { size, interpolation } => resize(image, size, interpolation),
        }
    }
}

fn flip(image: &Image) -> Result<Image> {
    let mut pixels = vec![0; image.pixels().len()];
    let width = image.width() * 3;
    for (target, row) in pixels.chunks_exact_mut(width).zip(image.pixels().chunks_exact(width)) {
        let (target, row) = (target.as_chunks_mut::<3>().0, row.as_chunks::<3>().0);
        target.iter_mut().zip(row.iter().rev()).for_each(|(target, pixel)| *target = *pixel);
    }
    Image::new(image.height(), image.width(), pixels)
}

fn crop(image: &Image, start: [usize; 2], size: [usize; 2], padding: usize, mode: PadMode) -> Result<Image> {
    check_crop(image, start, size, padding, mode)?;
    // Columns of the result that lie in the image are copied in one go, those around them one by one.
    let before = padding.saturating_sub(start[1]).min(size[1]);
    let end = (padding + image.width()).saturating_sub(start[1]).clamp(before, size[1]);
    let first = start[1] + before - padding.min(start[1] + before);
    let mut pixels = vec![0; size[0] * size[1] * 3];
    for (row, target) in pixels.chunks_exact_mut(size[1] * 3).enumerate() {
        let Some(row) = source(start[0] + row, padding, image.height(), mode) else { continue };
        let row = image.row(row);
        target[before * 3..end * 3].copy_from_slice(&row[first * 3..][..(end - before) * 3]);
        for column in (0..before).chain(end..size[1]) {
            if let Some(place) = source(start[1] + column, padding, image.width(), mode) {
                target[column * 3..][..3].copy_from_slice(&row[place * 3..][..3]);
            }
        }
    }
    Image::new(size[0], size[1], pixels)
}

/// Which row or column of the image lies at `place` of the padded one; `None` is padding that is black.
fn source(place: usize, padding: usize, length: usize, mode: PadMode) -> Option<usize> {
    match mode {
        _ if place >= padding && place < padding + length => Some(place - padding),
        PadMode::Zero => None,
        PadMode::Reflect if place < padding => Some(padding - place),
        PadMode::Reflect => Some(2 * (length - 1) - (place - padding)),
    }
}

fn check_crop(image: &Image, start: [usize; 2], size: [usize; 2], padding: usize, mode: PadMode) -> Result<()> {
    let [height, width] = image.size();
    let fail = |reason: String| Err(DataError::Transform { operation: "crop", height, width, reason });
    let padded = image.size().map(|length| length + 2 * padding);
    if size.contains(&0) || start[0] + size[0] > padded[0] || start[1] + size[1] > padded[1] {
        let [crop_height, crop_width] = size;
        return fail(format!("{crop_height}x{crop_width} does not fit with a padding of {padding}"));
    }
    if mode == PadMode::Reflect && padding >= height.min(width) {
        return fail(format!("a reflection of {padding} pixels needs longer sides than that"));
    }
    Ok(())
}

/// Transforms, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Compose(pub Vec<Transform>);

impl Compose {
    /// Draws the numbers of all transforms, in order, for an image of `size` `[height, width]`.
    pub fn draw(&self, size: [usize; 2], rng: &mut Rng) -> Vec<Op> {
        let mut size = size;
        let draw = |transform: &Transform| {
            let op = transform.draw(size, rng);
            size = op.output_size(size);
            op
        };
        self.0.iter().map(draw).collect()
    }

    /// Draws and applies.
    ///
    /// # Errors
    /// As [`Op::apply`].
    pub fn apply(&self, image: Image, rng: &mut Rng) -> Result<Image> {
        let ops = self.draw(image.size(), rng);
        ops.iter().try_fold(image, |image, op| op.apply(image))
    }

    /// Checks the settings of all transforms.
    ///
    /// # Errors
    /// As [`Transform::validate`].
    pub fn validate(&self) -> Result<()> {
        self.0.iter().try_for_each(Transform::validate)
    }
}

//! Changes to an image, drawn first and applied after.

use serde::{Deserialize, Serialize};

use crate::resize::{Region, resize};
use crate::rng::Rng;
use crate::{DataError, Image, Interpolation, Result};

mod color;
mod crop;
mod resized_crop;

pub use color::ColorStep;

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
    /// Cuts out a region of random area and shape and scales it to `size` (Szegedy et al. 2015, §6), as torchvision's
    /// `RandomResizedCrop` draws it: ten tries, then the largest central region of an allowed shape.
    RandomResizedCrop {
        /// `[height, width]` of the result.
        size: [usize; 2],
        /// Least and largest share of the image's area, within 0..=1, drawn evenly.
        scale: [f32; 2],
        /// Least and largest width divided by height, whose logarithm is drawn evenly.
        ratio: [f32; 2],
        /// How pixels are computed.
        interpolation: Interpolation,
    },
    /// Mirrors left to right.
    HorizontalFlip {
        /// How often: 0 never, 1 always.
        probability: f32,
    },
    /// Mirrors top to bottom.
    VerticalFlip {
        /// How often: 0 never, 1 always.
        probability: f32,
    },
    /// Changes brightness, contrast, saturation and hue in random order, as torchvision's `ColorJitter` on tensors.
    ColorJitter {
        /// The factor is drawn evenly from 1 ± this, not below 0.
        brightness: f32,
        /// The factor is drawn evenly from 1 ± this, not below 0.
        contrast: f32,
        /// The factor is drawn evenly from 1 ± this, not below 0.
        saturation: f32,
        /// The turn is drawn evenly from ± this, in whole circles; at most 0.5.
        hue: f32,
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// Leaves the image as it is.
    Keep,
    /// Mirrors left to right.
    FlipHorizontal,
    /// Mirrors top to bottom.
    FlipVertical,
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
    /// Cuts a region out and scales it to `size`.
    ResizedCrop {
        /// What is cut out.
        region: Region,
        /// `[height, width]` of the result.
        size: [usize; 2],
        /// How pixels are computed.
        interpolation: Interpolation,
    },
    /// Changes colours, one step after the other.
    AdjustColor {
        /// The steps in their order.
        steps: [ColorStep; 4],
    },
}

impl Transform {
    /// Whether it draws random numbers. One that does not gives the same result in each epoch.
    pub fn is_random(&self) -> bool {
        !matches!(self, Self::Resize { .. } | Self::ResizeExact { .. } | Self::CenterCrop { .. })
    }

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
            Self::RandomResizedCrop { size: result, scale, ratio, interpolation } => {
                Op::ResizedCrop { region: resized_crop::draw(size, scale, ratio, rng), size: result, interpolation }
            }
            Self::HorizontalFlip { probability } if rng.unit_f32() < probability => Op::FlipHorizontal,
            Self::VerticalFlip { probability } if rng.unit_f32() < probability => Op::FlipVertical,
            Self::HorizontalFlip { .. } | Self::VerticalFlip { .. } => Op::Keep,
            Self::ColorJitter { brightness, contrast, saturation, hue } => {
                Op::AdjustColor { steps: color::draw([brightness, contrast, saturation, hue], rng) }
            }
            Self::Resize { side, interpolation } => Op::Resize { size: crop::scaled(size, side), interpolation },
            Self::ResizeExact { size, interpolation } => Op::Resize { size, interpolation },
            Self::CenterCrop { size: crop } => {
                let [top, left] = std::array::from_fn(|axis| crop::centred(size[axis], crop[axis]));
                Op::Crop { top, left, size: crop, padding: 0, mode: PadMode::Zero }
            }
        }
    }

    /// Checks the settings, whatever the image.
    ///
    /// # Errors
    /// [`DataError::InvalidOption`] for a size of zero, a probability outside of 0..=1, or a range that is empty or
    /// outside of what it can be.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::RandomCrop { size, .. } | Self::CenterCrop { size } => require_size("crop size", size),
            Self::RandomResizedCrop { size, scale, ratio, .. } => {
                require_size("crop size", size)?;
                require("crop scale", scale, scale[0] > 0.0 && scale[0] <= scale[1] && scale[1] <= 1.0, "0 to 1")?;
                let rises = ratio[0] > 0.0 && ratio[0] <= ratio[1] && ratio[1].is_finite();
                require("crop ratio", ratio, rises, "0 to infinity")
            }
            Self::ResizeExact { size, .. } => require_size("resize size", size),
            Self::Resize { side, .. } => require_size("resize side", [side; 2]),
            Self::HorizontalFlip { probability } | Self::VerticalFlip { probability } => {
                require("flip probability", probability, (0.0..=1.0).contains(&probability), "0 to 1")
            }
            Self::ColorJitter { brightness, contrast, saturation, hue } => {
                let factors = [brightness, contrast, saturation];
                let fine = factors.iter().all(|factor| (0.0..f32::INFINITY).contains(factor));
                require("color jitter", factors, fine, "0 to infinity")?;
                require("color jitter of the hue", hue, (0.0..=0.5).contains(&hue), "0 to 0.5")
            }
        }
    }
}

fn require_size(option: &'static str, size: [usize; 2]) -> Result<()> {
    if size.contains(&0) {
        return Err(DataError::InvalidOption { option, reason: "it is zero".to_string() });
    }
    Ok(())
}

fn require(option: &'static str, value: impl std::fmt::Debug, fine: bool, range: &str) -> Result<()> {
    if fine {
        return Ok(());
    }
    Err(DataError::InvalidOption { option, reason: format!("{value:?} is not within {range}, rising") })
}

impl Op {
    /// `[height, width]` after this change of an image of `size`.
    pub fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        match *self {
            Self::Keep | Self::FlipHorizontal | Self::FlipVertical | Self::AdjustColor { .. } => size,
            Self::Crop { size, .. } | Self::Resize { size, .. } | Self::ResizedCrop { size, .. } => size,
        }
    }

    /// Changes the image.
    ///
    /// # Errors
    /// [`DataError::Transform`] if a crop does not lie in the padded image, a region not in the image, or a reflection
    /// is wider than the image.
    pub fn apply(&self, image: Image) -> Result<Image> {
        match *self {
            Self::Keep => Ok(image),
            Self::FlipHorizontal => crop::flip_horizontal(&image),
            Self::FlipVertical => crop::flip_vertical(&image),
            Self::Crop { top, left, size, padding: 0, .. } if [top, left] == [0, 0] && size == image.size() => {
                Ok(image)
            }
            Self::Crop { top, left, size, padding, mode } => crop::crop(&image, [top, left], size, padding, mode),
            Self::Resize { size, .. } if size == image.size() => Ok(image),
            Self::Resize { size, interpolation } => resize(&image, Region::whole(image.size()), size, interpolation),
            Self::ResizedCrop { region, size, .. } if region == Region::whole(size) && size == image.size() => {
                Ok(image)
            }
            Self::ResizedCrop { region, size, interpolation } => resize(&image, region, size, interpolation),
            Self::AdjustColor { steps } => color::apply(image, &steps),
        }
    }
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

    /// The transforms before the first random one, and the others. One after the other they do what this one does,
    /// with the same random numbers; what the first part gives can be kept from epoch to epoch.
    pub fn split_fixed(&self) -> (Self, Self) {
        let num_fixed = self.0.iter().take_while(|transform| !transform.is_random()).count();
        let (fixed, rest) = self.0.split_at(num_fixed);
        (Self(fixed.to_vec()), Self(rest.to_vec()))
    }

    /// Checks the settings of all transforms.
    ///
    /// # Errors
    /// As [`Transform::validate`].
    pub fn validate(&self) -> Result<()> {
        self.0.iter().try_for_each(Transform::validate)
    }
}
